use std::os::fd::OwnedFd;
use std::path::Path;

use bulkhead_spec::{Id, IdRange};

use crate::protocol::{CreateContainer, Event, Exec, Known, StartFailure};

/// A connection to the warden.
///
/// Every method blocks until the warden has answered (a millisecond or so): async callers use
/// `spawn_blocking`. Calls from several threads overlap; answers are matched by request number.
#[derive(Debug)]
pub struct Client {}

/// What the engine gets for a container that is cloned and waits.
#[derive(Debug)]
pub struct Created {
    pub pid: u32,
    pub pidfd: OwnedFd,
    /// `/proc/PID/ns/net`, to be given its links.
    pub netns: OwnedFd,
}

#[derive(Debug, thiserror::Error)]
pub enum WardenError {
    #[error("the warden is gone: {0}")]
    Gone(std::io::Error),
    #[error(transparent)]
    Start(#[from] StartFailure),
    #[error("no such process: {0}")]
    Unknown(Id),
    #[error("the warden's answer was not understood: {0}")]
    Protocol(String),
}

#[allow(clippy::todo, unused_variables)]
impl Client {
    /// Connects to the warden that listens on `socket` (SEQPACKET), or starts one: `program
    /// warden --socket …` in a session of its own, so that it outlives its starter.
    ///
    /// `on_event` is called from the client's reader thread for every [`Event`].
    pub fn connect_or_start(
        socket: &Path,
        program: &Path,
        on_event: impl Fn(Event) + Send + 'static,
    ) -> Result<Self, WardenError> {
        todo!()
    }

    pub fn create(
        &self,
        request: CreateContainer,
        fds: Vec<OwnedFd>,
    ) -> Result<Created, WardenError> {
        todo!()
    }

    /// Lets a created container go on to its exec; returns when the exec has happened or failed.
    pub fn start(&self, id: Id) -> Result<(), WardenError> {
        todo!()
    }

    /// Returns the new process's pid and pidfd when its exec has happened.
    pub fn exec(&self, request: Exec, fds: Vec<OwnedFd>) -> Result<(u32, OwnedFd), WardenError> {
        todo!()
    }

    /// Attaches `socket` (see [`crate::Attachment`]) to a running container or exec.
    pub fn attach(
        &self,
        id: Id,
        socket: OwnedFd,
        stdin: bool,
        stdout: bool,
        stderr: bool,
    ) -> Result<(), WardenError> {
        todo!()
    }

    /// Sets the terminal's size, for a container or an exec.
    pub fn resize(&self, id: Id, rows: u16, columns: u16) -> Result<(), WardenError> {
        todo!()
    }

    /// Everything the warden knows, with pidfds in the same order for those that have not exited.
    pub fn list(&self) -> Result<Vec<(Known, Option<OwnedFd>)>, WardenError> {
        todo!()
    }

    /// Duplicates the namespace descriptors of a running container: (name, fd) for each of
    /// `pid net ipc mnt uts user cgroup time`.
    pub fn namespaces(&self, id: Id) -> Result<Vec<(String, OwnedFd)>, WardenError> {
        todo!()
    }

    /// A user namespace with this mapping, for id-mapped mounts. Made once for a range and kept.
    pub fn user_namespace(&self, range: IdRange) -> Result<OwnedFd, WardenError> {
        todo!()
    }

    /// Drops what is known of an exited container or exec; kills a created one that never started.
    pub fn forget(&self, id: Id) -> Result<(), WardenError> {
        todo!()
    }

    /// Ends the warden; refused while a container runs.
    pub fn shut_down(&self) -> Result<(), WardenError> {
        todo!()
    }
}
