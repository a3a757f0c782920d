//! What clients ask for.

use std::os::fd::{AsFd, OwnedFd};

use bulkhead_runtime::plan::{KINDS, PlanError};
use bulkhead_runtime::{Plan, Source as NamespaceSource};
use bulkhead_sys::process::{CLONE_NEWUSER, clone3};
use bulkhead_types::{Id, IdMap};
use rustix::event::epoll::EventFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::Warden;
use super::backlog::Backlog;
use super::bound::Bound;
use super::connections::Caller;
use super::log::LogFile;
use super::poller::Source;
use super::process::{NewProcess, Phase, Process};
use super::streams::{Io, Stdio};
use crate::protocol::{Attachment, CreateContainer, Exec, Lifetime, Log, StartFailure, State};
use crate::wire::{Fault, HandoverState, LogHandover, Reply, Request};

impl Warden {
    pub(super) fn request(&mut self, caller: Caller, request: Request, descriptors: Vec<OwnedFd>) {
        let done = |()| (Reply::Done, Vec::new());
        let answer = match request {
            // these answer when the child has spoken
            Request::Create(request) => match self.create(*request, descriptors, caller) {
                Ok(()) => return,
                Err(fault) => Err(fault),
            },
            Request::Exec(request) => match self.exec(*request, descriptors, caller) {
                Ok(()) => return,
                Err(fault) => Err(fault),
            },
            Request::Start(id) => match self.start(id, caller) {
                Ok(()) => return,
                Err(fault) => Err(fault),
            },
            Request::Forget(id) => match self.forget(id, caller) {
                Ok(false) => return,
                Ok(true) => Ok(done(())),
                Err(fault) => Err(fault),
            },
            Request::List => return self.list(caller),
            Request::Attach { id, stdin, stdout, stderr, after_log } => {
                self.attach_later(id, descriptors, [stdin, stdout, stderr], after_log)
            }
            Request::Release { id, client } => {
                self.release(id, client);
                Ok(done(()))
            }
            Request::Resize { id, rows, columns } => self.resize(id, rows, columns).map(done),
            Request::End(id) => self.end(id).map(done),
            Request::Namespaces(id) => self.namespaces(id),
            Request::Handover(id) => self.handover(id),
            Request::Adopt(handover) => self.adopt(*handover, descriptors).map(done),
            Request::UnfinishedLogs => {
                self.unfinished_logs().map(|ids| (Reply::Ids(ids), Vec::new()))
            }
            Request::FinishLog { id, log } => {
                self.finish_log(id, log.as_ref(), descriptors.into_iter().next()).map(done)
            }
            Request::UserNamespace(range) => match self.user_namespace(range) {
                Ok(namespace) => Ok((Reply::Done, vec![namespace])),
                Err(errno) => Err(Fault::Refused(format!("make a user namespace: {errno}"))),
            },
            Request::Compartments(keep) => return self.keep_compartments(keep, caller),
            Request::ShutDown => self.shut_down().map(done),
        };
        match answer {
            Ok((reply, descriptors)) => self.answer(caller, Ok(reply), descriptors),
            Err(fault) => self.answer(caller, Err(fault), Vec::new()),
        }
    }

    fn create(
        &mut self,
        request: CreateContainer,
        descriptors: Vec<OwnedFd>,
        caller: Caller,
    ) -> Result<(), Fault> {
        let CreateContainer { id, spec, log, stdin_open, stdin_once, attachments, answer_early } =
            request;
        if self.processes.contains_key(&id) {
            return Err(Fault::Refused(format!("container {id} exists already")));
        }
        let plan = Plan::container(&spec, &self.ready.host).map_err(unplanned)?;
        let copy = |index: bulkhead_runtime::FdIndex| {
            let fd = descriptors.get(usize::from(index.0)).ok_or(Errno::BADF);
            fd.and_then(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 3))
        };
        let log = match log {
            Log::None => None,
            Log::JsonFile { directory, name, max_size, max_files } => {
                let log = LogHandover { name, max_size, max_files };
                let log = copy(directory).and_then(|directory| self.open_log(id, directory, &log));
                Some(log.map_err(|errno| failed("open the log", errno))?)
            }
        };
        let sources = [
            spec.namespaces.user,
            spec.namespaces.pid,
            spec.namespaces.net,
            spec.namespaces.ipc,
            spec.namespaces.mnt,
            spec.namespaces.uts,
            spec.namespaces.cgroup,
            spec.namespaces.time,
        ];
        let own = KINDS.iter().zip(sources).filter(|(_, it)| *it != NamespaceSource::Host);
        let namespaces = own.fold(0, |all, ((kind, _), _)| all | kind);
        let terminal = spec.process.terminal;
        let range = spec.id_range.filter(|_| spec.namespaces.user != NamespaceSource::Host);
        let stdio = self.stdio(terminal, stdin_open, range)?;
        let new = NewProcess {
            id,
            container: id,
            plan,
            descriptors: &descriptors,
            cgroup: spec.cgroup_v2,
            range,
            namespaces,
            answer_early,
            beside: None,
            stdio,
            io: Io::new(terminal, stdin_once, log),
            bound: None,
        };
        self.launch(new, &attachments, caller)
    }

    fn exec(
        &mut self,
        request: Exec,
        descriptors: Vec<OwnedFd>,
        caller: Caller,
    ) -> Result<(), Fault> {
        let Exec { container, id, process, .. } = request;
        let holder = self.processes.get(&container).ok_or(Fault::Unknown(container))?;
        if self.processes.contains_key(&id) {
            return Err(Fault::Refused(format!("exec {id} exists already")));
        }
        let (Phase::Running, Some(pidfd)) = (holder.phase, holder.pidfd_copy()) else {
            return Err(Fault::Refused(format!("container {container} is not running")));
        };
        let (range, namespaces) = (holder.range, holder.namespaces);
        let plan = Plan::exec(&process, &request.cgroup_v1_procs, namespaces).map_err(unplanned)?;
        let terminal = process.terminal;
        let bound = match request.lifetime {
            Lifetime::Free => None,
            Lifetime::Bound => {
                let cgroup = request.cgroup_v2.and_then(|it| descriptors.get(usize::from(it.0)));
                Some(Bound::new(caller, cgroup))
            }
        };
        let stdio = self.stdio(terminal, request.stdin_open, range)?;
        let new = NewProcess {
            id,
            container,
            plan,
            descriptors: &descriptors,
            cgroup: request.cgroup_v2,
            range,
            namespaces,
            answer_early: false,
            beside: Some(pidfd.as_fd()),
            stdio,
            io: Io::new(terminal, true, None),
            bound,
        };
        self.launch(new, &request.attachments, caller)
    }

    /// Makes a process, with the clients that wait for its output.
    fn launch(
        &mut self,
        new: NewProcess<'_>,
        attachments: &[Attachment],
        caller: Caller,
    ) -> Result<(), Fault> {
        let (id, descriptors) = (new.id, new.descriptors);
        self.spawn(new, caller).map_err(|errno| failed("clone", errno))?;
        let Some(process) = self.processes.get_mut(&id) else { return Ok(()) };
        for Attachment { socket, stdin, stdout, stderr } in attachments {
            let socket = descriptors.get(usize::from(socket.0));
            if let Some(Ok(socket)) = socket.map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 3)) {
                let streams = [*stdin, *stdout, *stderr];
                // one client less is no reason not to start
                let _ = process.io.attach(&mut self.poller, id, socket, streams);
            }
        }
        Ok(())
    }

    fn stdio(
        &self,
        terminal: bool,
        stdin_open: bool,
        range: Option<IdMap>,
    ) -> Result<Stdio, Fault> {
        if terminal {
            return Ok(Stdio::default());
        }
        Stdio::pipes(&self.ready.null, stdin_open, range)
            .map_err(|errno| failed("make pipes", errno))
    }

    fn attach_later(
        &mut self,
        id: Id,
        mut descriptors: Vec<OwnedFd>,
        streams: [bool; 3],
        after_log: bool,
    ) -> Result<(Reply, Vec<OwnedFd>), Fault> {
        let socket = descriptors.pop().ok_or_else(|| Fault::Refused("no socket".to_owned()))?;
        let process = self.processes.get_mut(&id).ok_or(Fault::Unknown(id))?;
        let (io, poller) = (&mut process.io, &mut self.poller);
        let attached = match after_log {
            false => io.attach(poller, id, socket, streams).map(|()| (Reply::Done, Vec::new())),
            true => io.attach_after_log(poller, id, socket, streams).map(|(client, snapshot)| {
                (Reply::Attached { client, size: snapshot.size }, snapshot.files)
            }),
        };
        if matches!(process.phase, Phase::Exited(_)) {
            self.close_streams(id);
        }
        attached.map_err(|errno| Fault::Refused(format!("attach: {errno}")))
    }

    /// Lets a client that was attached behind the log have what has come since.
    fn release(&mut self, id: Id, client: u64) {
        let process = self.processes.get_mut(&id);
        if !process.is_some_and(|process| process.io.release(&mut self.poller, client)) {
            self.lingering.release(&mut self.poller, client);
        }
    }

    /// What is needed to take a container over, for whoever keeps it until this warden is gone.
    fn handover(&self, id: Id) -> Result<(Reply, Vec<OwnedFd>), Fault> {
        let process = self.processes.get(&id).ok_or(Fault::Unknown(id))?;
        if !process.is_container() || process.phase != Phase::Running {
            return Err(Fault::Refused(format!("container {id} is not running")));
        }
        let handover = process.handover();
        let (state, descriptors) =
            handover.map_err(|errno| Fault::Refused(format!("copy its descriptors: {errno}")))?;
        Ok((Reply::Handover(Box::new(state)), descriptors))
    }

    /// Takes over a container that a warden before this one made.
    fn adopt(&mut self, state: HandoverState, mut descriptors: Vec<OwnedFd>) -> Result<(), Fault> {
        let id = state.id;
        match self.processes.get(&id) {
            None => {}
            // it was started after the other's end
            Some(own) if own.pid == state.pid => return Ok(()),
            Some(_) => return Err(Fault::Refused(format!("container {id} exists already"))),
        }
        if descriptors.is_empty() {
            return Err(Fault::Refused("no pidfd".to_owned()));
        }
        let pidfd = descriptors.remove(0);
        let log = match &state.streams.log {
            Some(_) if descriptors.is_empty() => {
                return Err(Fault::Refused("no directory of the log".to_owned()));
            }
            Some(log) => {
                let opened = self.open_log(id, descriptors.remove(0), log);
                Some(opened.map_err(|errno| Fault::Refused(format!("open its log: {errno}")))?)
            }
            None => None,
        };
        let poller = &mut self.poller;
        let pidfd = poller
            .watch(pidfd, Source::Pidfd(id), EventFlags::IN)
            .map_err(|errno| Fault::Refused(format!("watch the process: {errno}")))?;
        match Io::adopt(poller, id, &state.streams, log, descriptors) {
            Ok(io) => {
                self.processes.insert(id, Process::adopted(&state, pidfd, io));
                self.timed.insert(id);
                bulkhead_failpoint::pass("warden.adopted");
                Ok(())
            }
            Err(errno) => {
                poller.unwatch(pidfd);
                Err(Fault::Refused(format!("take over its streams: {errno}")))
            }
        }
    }

    /// Opens a container's log, with what waits for it.
    fn open_log(
        &mut self,
        id: Id,
        directory: OwnedFd,
        log: &LogHandover,
    ) -> Result<LogFile, Errno> {
        match self.lingering.take_log(id) {
            Some(last) => LogFile::open_after(directory, log, last),
            None => LogFile::open(directory, log, self.ready.spools.of(id)),
        }
    }

    /// Containers for whose logs a warden before this one has left something.
    fn unfinished_logs(&self) -> Result<Vec<Id>, Fault> {
        let mut ids =
            self.ready.spools.ids().map_err(|errno| {
                Fault::Refused(format!("look for what waits for logs: {errno}"))
            })?;
        ids.retain(|id| !self.has_log(*id));
        Ok(ids)
    }

    fn has_log(&self, id: Id) -> bool {
        let of_process = self.processes.get(&id).is_some_and(|process| process.io.log.is_some());
        of_process || self.lingering.has_log(id)
    }

    /// Finishes the log of a container that has ended, or forgets what waits for it.
    fn finish_log(
        &mut self,
        id: Id,
        log: Option<&LogHandover>,
        descriptor: Option<OwnedFd>,
    ) -> Result<(), Fault> {
        if self.has_log(id) {
            return Ok(());
        }
        let (Some(log), Some(directory)) = (log, descriptor) else {
            Backlog::open(self.ready.spools.of(id)).discard();
            return Ok(());
        };
        let mut log = self
            .open_log(id, directory, log)
            .map_err(|errno| Fault::Refused(format!("open the log: {errno}")))?;
        log.end();
        self.lingering.add_log(id, Some(log).filter(LogFile::is_behind));
        Ok(())
    }

    fn start(&mut self, id: Id, caller: Caller) -> Result<(), Fault> {
        self.compartments.postpone();
        let process = self.processes.get_mut(&id).ok_or(Fault::Unknown(id))?;
        match (process.phase, &process.failure) {
            (Phase::Created, _) => {}
            (Phase::Preparing, _) if process.answered => {}
            (Phase::Exited(_), Some(failure)) => {
                return Err(Fault::Start(process.start_failure(failure)));
            }
            _ => {
                return Err(Fault::Refused(format!("container {id} is not waiting for its start")));
            }
        }
        if let Some(control) = &process.control {
            match rustix::io::write(control, b"g") {
                Err(errno) if process.prepared => return Err(failed("start", errno)),
                // one that is dying says why by its end
                _ => {}
            }
        }
        process.phase = Phase::Starting;
        process.caller = Some(caller);
        bulkhead_failpoint::pass("warden.let-go");
        Ok(())
    }

    /// Says whether it is done; otherwise the caller is answered at the process's end.
    fn forget(&mut self, id: Id, caller: Caller) -> Result<bool, Fault> {
        let process = self.processes.get_mut(&id).ok_or(Fault::Unknown(id))?;
        match process.phase {
            Phase::Exited(_) => {
                // An exec that is still being made answers its caller when its helper has ended.
                let ended: Vec<Id> = self
                    .processes
                    .values()
                    .filter(|it| it.container == id && matches!(it.phase, Phase::Exited(_)))
                    .map(|it| it.id)
                    .collect();
                self.remove(id);
                ended.into_iter().for_each(|exec| self.remove(exec));
                bulkhead_failpoint::pass("warden.forgotten");
                Ok(true)
            }
            Phase::Preparing | Phase::Created => {
                process.forgetting = Some(caller);
                if let Some(pidfd) = &process.pidfd {
                    let _ = pidfd_send_signal(pidfd, Signal::KILL);
                }
                Ok(false)
            }
            // its start has failed, and its end is a moment away
            Phase::Starting if process.failure.is_some() => {
                process.forgetting = Some(caller);
                Ok(false)
            }
            Phase::Starting | Phase::Running => {
                Err(Fault::Refused(format!("container {id} is running: stop it first")))
            }
        }
    }

    fn list(&mut self, caller: Caller) {
        const AT_ONCE: usize = 200;
        let mut all = Vec::new();
        for process in self.processes.values().filter(|it| it.is_container()) {
            let ended = matches!(process.known().state, State::Exited(_));
            let pidfd = process.pidfd_copy().filter(|_| !ended);
            all.push((process.known(), pidfd));
        }
        loop {
            let later = all.split_off(all.len().min(AT_ONCE));
            let known = all.iter().map(|(known, pidfd)| (known.clone(), pidfd.is_some())).collect();
            let reply = Reply::List { known, more: !later.is_empty() };
            self.answer(caller, Ok(reply), all.into_iter().filter_map(|(_, fd)| fd).collect());
            if later.is_empty() {
                return;
            }
            all = later;
        }
    }

    fn resize(&mut self, id: Id, rows: u16, columns: u16) -> Result<(), Fault> {
        let process = self.processes.get(&id).ok_or(Fault::Unknown(id))?;
        match process.io.resize(rows, columns) {
            // As containerd's shim: clients ask without having looked, bollard for one.
            None => Ok(()),
            Some(Err(errno)) => Err(Fault::Refused(format!("resize: {errno}"))),
            Some(Ok(())) => Ok(()),
        }
    }

    fn namespaces(&mut self, id: Id) -> Result<(Reply, Vec<OwnedFd>), Fault> {
        let process = self.processes.get(&id).ok_or(Fault::Unknown(id))?;
        if process.pidfd.is_none() {
            return Err(Fault::Refused(format!("container {id} is not running")));
        }
        let (mut names, mut descriptors) = (Vec::new(), Vec::new());
        for name in ["pid", "net", "ipc", "mnt", "uts", "user", "cgroup", "time"] {
            let file = self.ready.proc_file(process.pid, &format!("ns/{name}"), OFlags::RDONLY);
            descriptors.push(file.map_err(|errno| Fault::Refused(format!("{name}: {errno}")))?);
            names.push(name.to_owned());
        }
        // One that was adopted may have been reaped, and its number been given to another.
        if process.has_ended() {
            return Err(Fault::Refused(format!("container {id} is not running")));
        }
        Ok((Reply::Namespaces(names), descriptors))
    }

    /// Makes a user namespace through a child that exists only for the moment.
    fn user_namespace(&mut self, range: IdMap) -> Result<OwnedFd, Errno> {
        if let Some(known) = self.user_namespaces.get(&range) {
            return rustix::io::fcntl_dupfd_cloexec(known, 3);
        }
        let child = clone3(CLONE_NEWUSER, None, || {
            loop {
                // ended by the parent; any signal but SIGKILL is blocked
                let _ = bulkhead_sys::signal::wait();
            }
        })?;
        let made = self
            .ready
            .map_ids(child.pid, range)
            .and_then(|()| self.ready.proc_file(child.pid, "ns/user", OFlags::RDONLY));
        pidfd_send_signal(&child.pidfd, Signal::KILL)?;
        waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED)?;
        let made = made?;
        let copy = rustix::io::fcntl_dupfd_cloexec(&made, 3)?;
        self.user_namespaces.insert(range, made);
        Ok(copy)
    }

    fn shut_down(&mut self) -> Result<(), Fault> {
        let alive = self.processes.values().filter(|it| it.pidfd.is_some()).count();
        if alive != 0 {
            return Err(Fault::Refused(format!("{alive} processes of containers are running")));
        }
        self.ending = true;
        Ok(())
    }
}

fn unplanned(error: PlanError) -> Fault {
    let errno = Errno::INVAL.raw_os_error();
    Fault::Start(StartFailure { message: error.to_string(), errno })
}

fn failed(what: &str, errno: Errno) -> Fault {
    let message = format!("{what}: {errno}");
    Fault::Start(StartFailure { message, errno: errno.raw_os_error() })
}
