//! Making a process: descriptors, the clone, the id mappings, and the reports of the child.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bulkhead_runtime::plan::{Beside, Failure, Report, Spawned, Surroundings};
use bulkhead_runtime::{FdIndex, Plan};
use bulkhead_sys::process::{CLONE_NEWUSER, Child};
use bulkhead_types::{Id, IdMap};
use rustix::event::epoll::EventFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Resource, WaitId, WaitIdOptions, pidfd_open, waitid};

use super::compartments::{Taken, sockets};
use super::io::{Io, Stdio};
use super::process::{Phase, Process};
use super::{Caller, Source, Warden, now};
use crate::protocol::{Event, Exit};
use crate::wire::{Fault, Reply};

/// What a new process is made of.
pub(super) struct Order<'a> {
    pub id: Id,
    pub container: Id,
    pub plan: Plan,
    pub descriptors: &'a [OwnedFd],
    pub cgroup: Option<FdIndex>,
    pub range: Option<IdMap>,
    pub namespaces: i32,
    pub answer_early: bool,
    /// The process whose namespaces are joined, for exec.
    pub beside: Option<BorrowedFd<'a>>,
    pub stdio: Stdio,
    pub io: Io,
}

/// How a process came about.
enum Made {
    /// A compartment that was ready makes it.
    Ahead(Taken),
    /// With the socket to the child.
    Now(Spawned, OwnedFd),
}

impl Warden {
    /// Clones the process and lets it walk its plan.
    pub(super) fn spawn(&mut self, mut order: Order<'_>, caller: Caller) -> Result<(), Errno> {
        let (id, range, descriptors) = (order.id, order.range, order.descriptors);
        self.compartments.postpone();
        let mut taken = None;
        if let (Some(range), None, true) = (range, order.beside, order.plan.fits_ahead()) {
            let bytes = order.plan.encode().map_err(|_| Errno::INVAL)?;
            taken = self.order_compartment(&bytes, range, &order);
            if taken.is_none() {
                order.plan = Plan::decode(&bytes).map_err(|_| Errno::INVAL)?;
            }
        }
        let made = match taken {
            Some(taken) => Made::Ahead(taken),
            None => {
                let (ours, theirs) = sockets()?;
                let stdio = order.stdio.child.as_ref().map(|ends| ends.each_ref().map(AsFd::as_fd));
                let surroundings = Surroundings { descriptors, control: theirs.as_fd(), stdio };
                let beside =
                    order.beside.map(|pidfd| Beside { pidfd, namespaces: order.namespaces });
                let cgroup = order.cgroup.and_then(|it| descriptors.get(usize::from(it.0)));
                Made::Now(
                    order.plan.spawn(&surroundings, cgroup.map(AsFd::as_fd), beside, &[])?,
                    ours,
                )
            }
        };

        let mut process = Process {
            id,
            container: order.container,
            plan: order.plan,
            pid: 0,
            pidfd: None,
            control: None,
            helper: None,
            phase: Phase::Preparing,
            caller: Some(caller),
            forgetting: None,
            failure: None,
            range,
            confined: matches!(made, Made::Ahead(Taken { confined: true, .. })),
            mapped: matches!(made, Made::Ahead(_)),
            answer_early: order.answer_early,
            answered: false,
            prepared: false,
            namespaces: order.namespaces,
            io: order.io,
            ended: None,
            deadline: None,
        };
        // From here on the child exists: what goes wrong ends it, and its end is the answer.
        let prepared = self.connect_output(&mut process, order.stdio.ours);
        let mut prepared = prepared.map_err(|errno| Failure::of_parent("watch its streams", errno));
        let spawned = match made {
            Made::Ahead(Taken { control, pidfd, .. }) => {
                self.sources.insert(control.token, Source::Control(id));
                self.sources.insert(pidfd.token, Source::Helper(id));
                process.control = Some(control);
                process.helper = Some(pidfd);
                None
            }
            Made::Now(spawned, ours) => {
                match self.watch(ours, Source::Control(id), EventFlags::IN) {
                    Ok(control) => process.control = Some(control),
                    Err(errno) => {
                        prepared = prepared
                            .and(Err(Failure::of_parent("watch its control socket", errno)));
                    }
                }
                Some(spawned)
            }
        };
        match spawned {
            Some(Spawned::Process(child)) => match self.adopt(&mut process, child).and(prepared) {
                Ok(()) => self.tell_of_clone(&mut process),
                Err(failure) => self.give_up(&mut process, failure),
            },
            spawned => {
                if let Some(Spawned::Helper(child)) = spawned {
                    let helper = self.watch(child.pidfd, Source::Helper(id), EventFlags::IN)?;
                    process.helper = Some(helper);
                }
                if let Err(failure) = prepared {
                    self.give_up(&mut process, failure);
                }
            }
        }
        self.processes.insert(id, process);
        Ok(())
    }

    /// Does for a cloned child what only the host's root may, and lets it begin.
    fn adopt(&mut self, process: &mut Process, child: Child) -> Result<(), Failure> {
        process.pid = child.pid;
        let watched = self.watch(child.pidfd, Source::Pidfd(process.id), EventFlags::IN);
        process.pidfd =
            Some(watched.map_err(|errno| Failure::of_parent("watch the process", errno))?);
        if process.plan.namespaces & CLONE_NEWUSER != 0
            && !process.mapped
            && let Some(range) = process.range
        {
            self.map_ids(child.pid, range).map_err(|errno| {
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
        self.confine(child.pid, &process.plan)?;
        if let Some(control) = &process.control {
            rustix::io::write(control, b"m")
                .map_err(|errno| Failure::of_parent("let it begin", errno))?;
        }
        Ok(())
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
        let usual = (Resource::Nofile, self.ready.descriptors);
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

    /// Takes what a child has said.
    pub(super) fn hear(&mut self, id: Id) {
        let Some(mut process) = self.processes.remove(&id) else { return };
        while let Some(control) = &process.control {
            match Report::receive(control.as_fd()) {
                Err(Errno::AGAIN) => break,
                Ok(Some((report, descriptor))) => self.heed(&mut process, report, descriptor),
                Ok(None) | Err(_) => {
                    if let Some(control) = process.control.take() {
                        self.unwatch(control);
                    }
                    self.said_all(&mut process);
                }
            }
        }
        self.processes.insert(id, process);
    }

    fn heed(&mut self, process: &mut Process, report: Report, descriptor: Option<OwnedFd>) {
        match (report, descriptor) {
            (Report::Cloned { pid }, pidfd) => {
                // a child of the warden, which alone could free the pid by reaping it
                let open = || pidfd_open(Pid::from_raw(pid as i32).ok_or(Errno::SRCH)?, PidfdFlags::empty());
                let adopted = pidfd
                    .map_or_else(open, Ok)
                    .map_err(|errno| Failure::of_parent("open the process", errno))
                    .and_then(|pidfd| self.adopt(process, Child { pid, pidfd }));
                match adopted {
                    Ok(()) => self.tell_of_clone(process),
                    Err(failure) => self.give_up(process, failure),
                }
            }
            (Report::Terminal, Some(master)) => {
                if let Err(errno) = self.connect_terminal(process, master) {
                    self.give_up(process, Failure::of_parent("watch its terminal", errno));
                }
            }
            (Report::Ready, _) => {
                process.prepared = true;
                // it may have been told to go on already
                if process.phase == Phase::Preparing {
                    process.phase = Phase::Created;
                }
                self.tell_of_clone(process);
            }
            (Report::Failed(failure), _) => process.failure = Some(failure),
            (Report::Terminal, None)
            // steps of bundles, which have no place in an engine's plan
            | (Report::Unshared | Report::Mounted | Report::Listener, _) => {
                self.give_up(process, Failure::of_parent("understand the child", Errno::PROTO));
            }
        }
    }

    /// Answers who asked for a container, once it is as far as they want it.
    ///
    /// It may be ready before its helper has told its pid.
    fn tell_of_clone(&mut self, process: &mut Process) {
        let far = process.phase == Phase::Created || process.answer_early;
        if process.pid == 0 || !far || process.answered || !process.is_container() {
            return;
        }
        let netns = self.proc_file(process.pid, "ns/net", OFlags::RDONLY);
        // one that has died already: its end is the answer
        let (Ok(netns), Some(pidfd)) = (netns, process.pidfd_copy()) else { return };
        process.answered = true;
        let descriptors = vec![pidfd, netns];
        if let Some(caller) = process.caller.take() {
            self.answer(caller, Ok(Reply::Created { pid: process.pid }), descriptors);
        }
    }

    /// The warden could not do its part: the child is ended.
    fn give_up(&mut self, process: &mut Process, failure: Failure) {
        process.failure = Some(failure);
        if let Some(pidfd) = &process.pidfd {
            let kill = rustix::process::Signal::KILL;
            let _ = rustix::process::pidfd_send_signal(pidfd, kill);
        }
    }

    /// The control socket is closed: the program was executed, or the child is dying.
    fn said_all(&mut self, process: &mut Process) {
        let started = match process.phase {
            Phase::Starting => process.prepared,
            Phase::Preparing => !process.is_container() && process.pid != 0,
            _ => false,
        };
        self.compartments.postpone();
        let Some(caller) = process.caller.take() else { return };
        if started && process.failure.is_none() {
            process.phase = Phase::Running;
            if process.is_container() {
                self.answer(caller, Ok(Reply::Done), Vec::new());
            } else {
                let pidfd = process.pidfd_copy().into_iter().collect();
                self.answer(caller, Ok(Reply::Executed { pid: process.pid }), pidfd);
            }
            return;
        }
        let failure = process.failure.clone().unwrap_or_else(|| Failure {
            step: u16::MAX,
            errno: Errno::SRCH.raw_os_error(),
            detail: "it was killed before it was ready".to_owned(),
        });
        // The answer is given when it is reaped, so that nothing is left of it by then.
        process.failure = Some(failure);
        process.caller = Some(caller);
    }

    /// The process's pidfd is readable: it has ended.
    pub(super) fn reap(&mut self, id: Id) {
        // its last words come first
        self.hear(id);
        let Some(mut process) = self.processes.remove(&id) else { return };
        let Some(pidfd) = &process.pidfd else {
            self.processes.insert(id, process);
            return;
        };
        let code = match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => code as u8,
                (None, signal) => 128u8.saturating_add(signal.unwrap_or(0) as u8),
            },
            Ok(None) | Err(_) => 255,
        };
        // One that init or the helper keeps back: an ended process cannot say more. What it was is
        // still to be answered, with a pidfd.
        if let Some(control) = process.control.take() {
            self.unwatch(control);
            self.said_all(&mut process);
        }
        if let Some(pidfd) = process.pidfd.take() {
            self.unwatch(pidfd);
        }
        process.ended = Some(Exit { code, at: now() });
        self.drain(&mut process);
        self.processes.insert(id, process);
        self.finish_if_drained(id);
    }

    pub(super) fn reap_helper(&mut self, id: Id) {
        self.hear(id);
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some(helper) = process.helper.take() else { return };
        let failed = process.pid == 0;
        let _ = waitid(WaitId::PidFd(helper.as_fd()), WaitIdOptions::EXITED);
        self.unwatch(helper);
        if failed {
            self.hear(id);
            self.finish(id, Exit { code: 255, at: now() });
        }
    }

    /// The process has ended and its output is written: everybody is told.
    pub(super) fn finish(&mut self, id: Id, exit: Exit) {
        let Some(mut process) = self.processes.remove(&id) else { return };
        let ran = process.phase == Phase::Running;
        let unmade = process.phase == Phase::Preparing && !process.answered;
        process.phase = Phase::Exited(exit);
        self.close_output(&mut process);
        let container = process.container;
        if !ran {
            let killed =
                || Failure { step: u16::MAX, errno: 3, detail: "it was killed".to_owned() };
            process.failure.get_or_insert_with(killed);
        }
        if let (Some(caller), Some(failure)) = (process.caller.take(), process.failure.clone()) {
            self.answer(caller, Err(Fault::Start(process.start_failure(&failure))), Vec::new());
        }
        let forgetting = process.forgetting.take();
        // What was never created has been told to the caller, who asked for it.
        if forgetting.is_none() && !unmade {
            self.processes.insert(id, process);
        }
        if ran {
            self.record(container, id, exit);
            self.publish(&Event::Exited { container, id, exit });
        }
        if let Some(caller) = forgetting {
            self.answer(caller, Ok(Reply::Done), Vec::new());
        }
    }
}
