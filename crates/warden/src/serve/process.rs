use std::os::fd::OwnedFd;

use bulkhead_runtime::Plan;
use bulkhead_runtime::plan::Failure;
use bulkhead_types::{Id, IdMap};

use super::io::Io;
use super::{Caller, Watched};
use crate::protocol::{Exit, Known, StartFailure, State};

/// A process that the warden has cloned: a container's first, or one that exec added.
pub(super) struct Process {
    pub id: Id,
    /// Itself for a container's first process.
    pub container: Id,
    pub plan: Plan,
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
    /// Has ended, and its output is still being read.
    pub ended: Option<Exit>,
    /// When its output is given up, nanoseconds of the monotonic clock.
    pub deadline: Option<i64>,
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
    pub fn is_container(&self) -> bool {
        self.id == self.container
    }

    pub fn is_running(&self) -> bool {
        self.pidfd.is_some()
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
        StartFailure { message: self.plan.describe(failure), errno: failure.errno }
    }

    pub fn pidfd_copy(&self) -> Option<OwnedFd> {
        self.pidfd.as_ref().and_then(|pidfd| pidfd.fd.try_clone().ok())
    }
}
