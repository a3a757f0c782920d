//! What the warden knows of one process.

use std::os::fd::{BorrowedFd, OwnedFd};

use bulkhead_runtime::plan::Failure;
use bulkhead_runtime::{FdIndex, Plan};
use bulkhead_types::{Id, IdMap};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::bound::Bound;
use super::connections::Caller;
use super::poller::Watched;
use super::streams::{Io, Stdio};
use crate::protocol::{Exit, Known, StartFailure, State};
use crate::wire::HandoverState;

/// What a new process is made of.
pub(super) struct NewProcess<'a> {
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
    pub bound: Option<Bound>,
}

/// A process that the warden has cloned: a container's first, or one that exec added.
pub(super) struct Process {
    pub id: Id,
    /// Itself for a container's first process.
    pub container: Id,
    pub origin: Origin,
    /// 0 until it is cloned.
    pub pid: u32,
    pub pidfd: Option<Watched>,
    pub control: Option<Watched>,
    pub helper: Option<Watched>,
    pub phase: Phase,
    /// It has said that it is prepared up to its exec.
    pub prepared: bool,
    /// Who waits for the next phase.
    pub caller: Option<Caller>,
    /// Who waits for its end, to have it forgotten.
    pub forgetting: Option<Caller>,
    /// What it said of its failure; the answer is given when it says no more.
    pub failure: Option<Failure>,
    pub range: Option<IdMap>,
    /// Its ids, limits and score were set before it was cloned.
    pub confined: bool,
    /// Its ids were, at least.
    pub mapped: bool,
    /// Who asked for the container is told as soon as it has a pid.
    pub answer_early: bool,
    /// Who asked for the container has been told of it.
    pub answered: bool,
    /// The namespaces that are not the host's, `CLONE_NEW…`.
    pub namespaces: i32,
    pub io: Io,
    /// It may not outlast who asked for it.
    pub bound: Option<Bound>,
    /// Has ended, and its output is still being read.
    pub ended: Option<Exit>,
    /// When its output is given up, nanoseconds of the monotonic clock.
    pub deadline: Option<i64>,
}

/// Where a process comes from.
pub(super) enum Origin {
    /// This warden makes it.
    Plan(Box<Plan>),
    /// This warden made it, and its program has been executed: the plan, some 30 kB, has been walked to
    /// its end and can explain nothing any more.
    Executed,
    /// A warden before this one made it, and an engine handed it over. It is not this one's child.
    Adopted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Walks the plan; a container up to the point where it waits.
    Preparing,
    Created,
    /// A container that was told to go on.
    Starting,
    Running,
    Exited(Exit),
}

impl Process {
    pub fn new(new: NewProcess<'_>, caller: Caller) -> Self {
        Self {
            id: new.id,
            container: new.container,
            origin: Origin::Plan(Box::new(new.plan)),
            pid: 0,
            pidfd: None,
            control: None,
            helper: None,
            phase: Phase::Preparing,
            prepared: false,
            caller: Some(caller),
            forgetting: None,
            failure: None,
            range: new.range,
            confined: false,
            mapped: false,
            answer_early: new.answer_early,
            answered: false,
            namespaces: new.namespaces,
            io: new.io,
            bound: new.bound,
            ended: None,
            deadline: None,
        }
    }

    /// When something is to be done about it, though nothing happens: the end of its output's time,
    /// or the next attempt to write its log.
    pub fn next_moment(&self) -> Option<i64> {
        self.deadline.into_iter().chain(self.io.log_retry()).min()
    }

    /// One that runs, and was made by another warden.
    pub fn adopted(handover: &HandoverState, pidfd: Watched, io: Io) -> Self {
        Self {
            id: handover.id,
            container: handover.id,
            origin: Origin::Adopted,
            pid: handover.pid,
            pidfd: Some(pidfd),
            control: None,
            helper: None,
            phase: Phase::Running,
            prepared: true,
            caller: None,
            forgetting: None,
            failure: None,
            range: handover.ids,
            confined: true,
            mapped: true,
            answer_early: false,
            answered: true,
            namespaces: handover.namespaces,
            io,
            bound: None,
            ended: None,
            deadline: None,
        }
    }

    /// What another warden needs to take it over, and the descriptors: a pidfd and its streams'.
    pub fn handover(&self) -> Result<(HandoverState, Vec<OwnedFd>), Errno> {
        let (streams, more) = self.io.handover()?;
        let state = HandoverState {
            id: self.id,
            pid: self.pid,
            ids: self.range,
            namespaces: self.namespaces,
            streams,
        };
        let pidfd = self.pidfd.as_ref().ok_or(Errno::SRCH)?;
        let pidfd = rustix::io::fcntl_dupfd_cloexec(&pidfd.fd, 3)?;
        Ok((state, std::iter::once(pidfd).chain(more).collect()))
    }

    pub fn is_container(&self) -> bool {
        self.id == self.container
    }

    pub fn known(&self) -> Known {
        let state = match self.phase {
            Phase::Preparing | Phase::Created => State::Created,
            Phase::Starting | Phase::Running => State::Running,
            Phase::Exited(exit) => State::Exited(exit),
        };
        Known { id: self.id, pid: self.pid, state }
    }

    pub fn start_failure(&self, failure: &Failure) -> StartFailure {
        let message = match &self.origin {
            Origin::Plan(plan) => plan.describe(failure),
            Origin::Executed | Origin::Adopted => failure.detail.clone(),
        };
        StartFailure { message, errno: failure.errno }
    }

    /// Asks the kernel.
    pub fn has_ended(&self) -> bool {
        let Some(pidfd) = &self.pidfd else { return true };
        let mut polled = [PollFd::new(&pidfd.fd, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    pub fn pidfd_copy(&self) -> Option<OwnedFd> {
        self.pidfd.as_ref().and_then(|pidfd| pidfd.fd.try_clone().ok())
    }

    /// The warden could not do its part: the child is ended, and says no more.
    pub fn give_up(&mut self, failure: Failure) {
        self.failure = Some(failure);
        if let Some(pidfd) = &self.pidfd {
            let kill = rustix::process::Signal::KILL;
            let _ = rustix::process::pidfd_send_signal(pidfd, kill);
        }
    }
}
