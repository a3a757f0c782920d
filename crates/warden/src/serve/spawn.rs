//! Making a process: descriptors, the clone, the id mappings, and the reports of the child.

use std::os::fd::{AsFd, OwnedFd};

use bulkhead_runtime::Plan;
use bulkhead_runtime::plan::{Beside, Failure, Report, Spawned, Surroundings};
use bulkhead_sys::process::{CLONE_NEWUSER, Child};
use bulkhead_types::{Id, IdMap};
use rustix::event::epoll::EventFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Resource, Signal, WaitId, WaitIdOptions, kill_process, pidfd_open, waitid,
};

use super::compartments::Taken;
use super::connections::{Caller, Connections};
use super::poller::{Poller, Source};
use super::process::{NewProcess, Origin, Phase, Process};
use super::{Ready, Warden};
use crate::wire::Reply;

/// How a process came about.
enum Made {
    /// A compartment that was ready makes it.
    Ahead(Taken),
    /// With the socket to the child.
    Now(Spawned, OwnedFd),
}

/// What a parent needs at hand while it sees to one of its children.
pub(super) struct Parent<'a> {
    pub poller: &'a mut Poller,
    pub connections: &'a mut Connections,
    pub ready: &'a Ready,
}

impl Warden {
    /// A process where it stands in the table, and what its parent needs to see to it.
    pub(super) fn parent_of(&mut self, id: Id) -> Option<(Parent<'_>, &mut Process)> {
        let Self { poller, connections, ready, processes, .. } = self;
        Some((Parent { poller, connections, ready }, processes.get_mut(&id)?))
    }

    /// Clones the process and lets it walk its plan. Without an error, the caller is answered when
    /// the child has spoken.
    pub(super) fn spawn(&mut self, mut new: NewProcess<'_>, caller: Caller) -> Result<(), Errno> {
        let (id, range) = (new.id, new.range);
        self.compartments.postpone();
        let mut taken = None;
        if let (Some(range), None, true) = (range, new.beside, new.plan.fits_ahead()) {
            let bytes = new.plan.encode().map_err(|_| Errno::INVAL)?;
            taken = self.order_compartment(&bytes, range, &new);
            if taken.is_none() {
                new.plan = Plan::decode(&bytes).map_err(|_| Errno::INVAL)?;
            }
        }
        let made = match taken {
            Some(taken) => Made::Ahead(taken),
            None => clone(&mut new)?,
        };
        bulkhead_failpoint::pass("warden.cloned");
        let ours = std::mem::take(&mut new.stdio.ours);
        // From here on the child exists, and so does what is known of it: what goes wrong ends it,
        // and its end is the answer.
        self.processes.insert(id, Process::new(new, caller));
        self.timed.insert(id);
        let Some((mut parent, process)) = self.parent_of(id) else { return Ok(()) };
        let mut connected = process
            .io
            .connect_pipes(parent.poller, id, ours)
            .map_err(|errno| Failure::of_parent("watch its streams", errno));
        match made {
            Made::Ahead(Taken { control, pidfd, confined }) => {
                parent.poller.reassign(&control, Source::Control(id));
                parent.poller.reassign(&pidfd, Source::Helper(id));
                (process.control, process.helper) = (Some(control), Some(pidfd));
                (process.confined, process.mapped) = (confined, true);
            }
            Made::Now(spawned, ours) => {
                match parent.poller.watch(ours, Source::Control(id), EventFlags::IN) {
                    Ok(control) => process.control = Some(control),
                    Err(errno) => {
                        let unwatched = Failure::of_parent("watch its control socket", errno);
                        connected = connected.and(Err(unwatched));
                    }
                }
                match spawned {
                    Spawned::Process(child) => {
                        connected = parent.take_in(process, child).and(connected);
                    }
                    Spawned::Helper(child) => {
                        match parent.poller.watch(child.pidfd, Source::Helper(id), EventFlags::IN) {
                            Ok(helper) => process.helper = Some(helper),
                            Err(errno) => {
                                end_now(child.pid);
                                let unwatched = Failure::of_parent("watch its helper", errno);
                                connected = connected.and(Err(unwatched));
                            }
                        }
                    }
                }
            }
        }
        match connected {
            Ok(()) => parent.announce_clone(process),
            Err(failure) => process.give_up(failure),
        }
        // One that cannot be watched was ended.
        if process.pidfd.is_none() && process.helper.is_none() {
            self.finish_unwatched(id);
        }
        Ok(())
    }

    /// Takes what a child has said.
    pub(super) fn receive_reports(&mut self, id: Id) {
        let Some((mut parent, process)) = self.parent_of(id) else { return };
        let mut is_closed = false;
        while let Some(control) = &process.control {
            match Report::receive(control.as_fd()) {
                Err(Errno::AGAIN) => break,
                // It ended with something unread, which is told before what it said last.
                Err(Errno::CONNRESET) => {}
                Ok(Some((report, descriptor))) => parent.handle(process, report, descriptor),
                Ok(None) | Err(_) => {
                    if let Some(control) = process.control.take() {
                        parent.poller.unwatch(control);
                    }
                    parent.all_is_said(process);
                    is_closed = true;
                }
            }
        }
        if is_closed {
            self.compartments.postpone();
        }
    }
}

/// Clones the process from here.
fn clone(new: &mut NewProcess<'_>) -> Result<Made, Errno> {
    let (ours, theirs) = bulkhead_sys::socket::control_pair()?;
    let descriptors = new.descriptors;
    let stdio = new.stdio.child.as_ref().map(|ends| ends.each_ref().map(AsFd::as_fd));
    let surroundings = Surroundings { descriptors, control: theirs.as_fd(), stdio };
    let beside = new.beside.map(|pidfd| Beside { pidfd, namespaces: new.namespaces });
    let cgroup = new.cgroup.and_then(|index| descriptors.get(usize::from(index.0)));
    let spawned = new.plan.spawn(&surroundings, cgroup.map(AsFd::as_fd), beside, &[])?;
    Ok(Made::Now(spawned, ours))
}

/// Ends and reaps a child that cannot be watched, and so could not be waited for later.
fn end_now(pid: u32) {
    // A child that nobody has reaped: its number is its own.
    if let Some(pid) = Pid::from_raw(pid as i32) {
        let _ = kill_process(pid, Signal::KILL);
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
    }
}

impl Parent<'_> {
    /// Does for a cloned child what only the host's root may, and lets it begin.
    fn take_in(&mut self, process: &mut Process, child: Child) -> Result<(), Failure> {
        process.pid = child.pid;
        match self.poller.watch(child.pidfd, Source::Pidfd(process.id), EventFlags::IN) {
            Ok(pidfd) => process.pidfd = Some(pidfd),
            Err(errno) => {
                end_now(child.pid);
                return Err(Failure::of_parent("watch the process", errno));
            }
        }
        let Origin::Plan(plan) = &process.origin else {
            return Err(Failure::of_parent("make a process that exists", Errno::EXIST));
        };
        if plan.namespaces & CLONE_NEWUSER != 0
            && !process.mapped
            && let Some(range) = process.range
        {
            self.ready.map_ids(child.pid, range).map_err(|errno| {
                let (first, size) = (range.first, range.size);
                Failure::of_parent(
                    &format!("map {size} ids from {first} into the user namespace"),
                    errno,
                )
            })?;
        }
        if process.confined {
            return Ok(());
        }
        self.ready.confine(child.pid, plan)?;
        bulkhead_failpoint::pass("warden.confined");
        if let Some(control) = &process.control {
            rustix::io::write(control, b"m")
                .map_err(|errno| Failure::of_parent("let it begin", errno))?;
        }
        Ok(())
    }

    fn handle(&mut self, process: &mut Process, report: Report, descriptor: Option<OwnedFd>) {
        match (report, descriptor) {
            (Report::Cloned { pid }, pidfd) => {
                // a child of the warden, which alone could free the pid by reaping it
                let open = || pidfd_open(Pid::from_raw(pid as i32).ok_or(Errno::SRCH)?, PidfdFlags::empty());
                let taken = match pidfd.map_or_else(open, Ok) {
                    Ok(pidfd) => self.take_in(process, Child { pid, pidfd }),
                    Err(errno) => {
                        end_now(pid);
                        Err(Failure::of_parent("open the process", errno))
                    }
                };
                match taken {
                    Ok(()) => self.announce_clone(process),
                    Err(failure) => process.give_up(failure),
                }
            }
            (Report::Terminal, Some(master)) => {
                let connected = process.io.connect_terminal(self.poller, process.id, master);
                if let Err(errno) = connected {
                    process.give_up(Failure::of_parent("watch its terminal", errno));
                }
            }
            (Report::Ready, _) => {
                process.prepared = true;
                // it may have been told to go on already
                if process.phase == Phase::Preparing {
                    process.phase = Phase::Created;
                }
                self.announce_clone(process);
            }
            (Report::Failed(failure), _) => process.failure = Some(failure),
            (Report::Terminal, None)
            // steps of bundles, which have no place in an engine's plan
            | (Report::Unshared | Report::Mounted | Report::Listener, _) => {
                process.give_up(Failure::of_parent("understand the child", Errno::PROTO));
            }
        }
    }

    /// Answers who asked for a container, once it is as far as they want it.
    ///
    /// It may be ready before its helper has told its pid.
    fn announce_clone(&mut self, process: &mut Process) {
        let far = process.phase == Phase::Created || process.answer_early;
        if process.pid == 0 || !far || process.answered || !process.is_container() {
            return;
        }
        let netns = self.ready.proc_file(process.pid, "ns/net", OFlags::RDONLY);
        // one that has died already: its end is the answer
        let (Ok(netns), Some(pidfd)) = (netns, process.pidfd_copy()) else { return };
        process.answered = true;
        bulkhead_failpoint::pass("warden.created");
        let descriptors = vec![pidfd, netns];
        if let Some(caller) = process.caller.take() {
            let reply = Reply::Created { pid: process.pid };
            self.connections.answer(self.poller, caller, Ok(reply), descriptors);
        }
    }

    /// The control socket is closed: the program was executed, or the child is dying.
    pub(super) fn all_is_said(&mut self, process: &mut Process) {
        let started = match process.phase {
            Phase::Starting => process.prepared,
            Phase::Preparing => !process.is_container() && process.pid != 0,
            _ => false,
        };
        if process.caller.is_none() {
            return;
        }
        if !started || process.failure.is_some() {
            // The answer is given when it is reaped, so that nothing is left of it by then.
            process.failure.get_or_insert_with(|| Failure {
                step: u16::MAX,
                errno: Errno::SRCH.raw_os_error(),
                detail: "it was killed before it was ready".to_owned(),
            });
            return;
        }
        process.phase = Phase::Running;
        process.origin = Origin::Executed;
        bulkhead_failpoint::pass("warden.running");
        // It has gone while this was being made.
        if process.bound.as_ref().is_some_and(|it| !self.connections.is_connected(it.client)) {
            self.ready.end(process);
        }
        let (reply, descriptors) = match process.is_container() {
            true => match process.handover() {
                Ok((state, descriptors)) => (Reply::Handover(Box::new(state)), descriptors),
                // It cannot be handed over later; that is no reason not to run.
                Err(_) => (Reply::Done, Vec::new()),
            },
            false => {
                let pidfd = process.pidfd_copy().into_iter().collect();
                (Reply::Executed { pid: process.pid }, pidfd)
            }
        };
        if let Some(caller) = process.caller.take() {
            self.connections.answer(self.poller, caller, Ok(reply), descriptors);
        }
    }
}

impl Ready {
    /// Opens a file of `/proc/PID`, of a child that has not been reaped.
    pub(super) fn proc_file(&self, pid: u32, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        let path = format!("{pid}/{name}");
        rustix::fs::openat(&self.proc, path, flags, rustix::fs::Mode::empty())
    }

    /// Sets what a process may not set by itself.
    pub(super) fn confine(&self, pid: u32, plan: &Plan) -> Result<(), Failure> {
        if let Some(score) = plan.oom_score_adj {
            self.proc_file(pid, "oom_score_adj", OFlags::WRONLY)
                .and_then(|file| rustix::io::write(file, score.to_string().as_bytes()))
                .map_err(|errno| {
                    Failure::of_parent(&format!("set oom_score_adj to {score}"), errno)
                })?;
        }
        let pid = Pid::from_raw(pid as i32);
        let limits = &plan.limits;
        // the warden's own is raised, for its many descriptors
        let usual = (Resource::Nofile, self.descriptors);
        let unset = !limits.iter().any(|(resource, _)| *resource == Resource::Nofile);
        for (resource, limit) in unset.then_some(&usual).into_iter().chain(limits) {
            rustix::process::prlimit(pid, *resource, *limit).map_err(|errno| {
                Failure::of_parent(&format!("error setting rlimit {resource:?}"), errno)
            })?;
        }
        Ok(())
    }

    /// Writes the id mappings. Root writes them, so setgroups(2) stays allowed.
    pub(super) fn map_ids(&self, pid: u32, range: IdMap) -> Result<(), Errno> {
        let lines = range.lines();
        for name in ["uid_map", "gid_map"] {
            let file = self.proc_file(pid, name, OFlags::WRONLY)?;
            rustix::io::write(file, lines.as_bytes())?;
        }
        Ok(())
    }
}
