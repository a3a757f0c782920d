//! Messages between the warden and its clients: postcard in SEQPACKET packets, with descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bulkhead_sys::packet;
use bulkhead_types::{Id, IdMap};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::protocol::{CreateContainer, Event, Exec, Known, StartFailure};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    Create(Box<CreateContainer>),
    Start(Id),
    Exec(Box<Exec>),
    Attach {
        id: Id,
        stdin: bool,
        stdout: bool,
        stderr: bool,
        /// The client gets what is logged first: nothing is sent to it until its release.
        after_log: bool,
    },
    Release {
        id: Id,
        client: u64,
    },
    Resize {
        id: Id,
        rows: u16,
        columns: u16,
    },
    List,
    Namespaces(Id),
    Handover(Id),
    Adopt(Box<HandoverState>),
    UserNamespace(IdMap),
    Forget(Id),
    /// Ends a bound exec, with all that it has started.
    End(Id),
    ShutDown,
    /// How many compartments are kept ready from now on, where that is to change.
    Compartments(Option<u8>),
    /// For whose logs a warden before this one has left something.
    UnfinishedLogs,
    /// Finish the log of a container that has ended; its directory comes with it. Without: forget it.
    FinishLog {
        id: Id,
        log: Option<LogHandover>,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Numbered {
    pub number: u64,
    pub request: Request,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Message {
    Reply { number: u64, reply: Result<Reply, Fault> },
    Event(Event),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    Done,
    Created {
        pid: u32,
    },
    Executed {
        pid: u32,
    },
    /// With a descriptor for each whose flag is set; `more` messages follow.
    List {
        known: Vec<(Known, bool)>,
        more: bool,
    },
    Namespaces(Vec<String>),
    /// With the files of the log, oldest first.
    Attached {
        client: u64,
        /// How much of the newest file is to be read.
        size: u64,
    },
    /// With its descriptors: the process's pidfd, and those of the streams.
    Handover(Box<HandoverState>),
    /// With a pidfd for each.
    Compartments(Vec<u32>),
    Ids(Vec<Id>),
}

/// What a warden needs to take over a container that another one made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HandoverState {
    pub id: Id,
    pub pid: u32,
    pub ids: Option<IdMap>,
    /// Those that are not the host's, `CLONE_NEW…`.
    pub namespaces: i32,
    pub streams: StreamsHandover,
}

/// Of the standard streams. The descriptors: the log's directory, the outputs (or the terminal), the
/// input, each if there is one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StreamsHandover {
    pub terminal: bool,
    pub stdin_once: bool,
    pub log: Option<LogHandover>,
    pub outputs: [bool; 2],
    pub input: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogHandover {
    pub name: String,
    pub max_size: u64,
    pub max_files: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Fault {
    Start(StartFailure),
    Unknown(Id),
    Refused(String),
}

/// A packet that is ready to be sent.
#[derive(Debug)]
pub struct Packet<F = OwnedFd>(packet::Packet<F>);

impl<F: AsFd> Packet<F> {
    pub fn new(message: &impl Serialize, descriptors: Vec<F>) -> Result<Self, Errno> {
        packet::Packet::new(encode(message)?, descriptors).map(Self)
    }

    pub fn send(&self, socket: BorrowedFd<'_>, flags: SendFlags) -> Result<(), Errno> {
        self.0.send(socket, flags)
    }
}

/// Takes one message; `None` at the end of the connection.
pub fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    flags: RecvFlags,
) -> Result<Option<(T, Vec<OwnedFd>)>, Errno> {
    let Some((payload, descriptors)) = packet::receive(socket, flags)? else { return Ok(None) };
    Ok(Some((decode(&payload)?, descriptors)))
}

/// What a packet holds of a message, without the byte that says where it is.
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, Errno> {
    postcard::to_extend(message, Vec::new()).map_err(|_| Errno::INVAL)
}

/// Reads one message of a packet, without the byte that says where it is.
pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Errno> {
    postcard::from_bytes(payload).map_err(|_| Errno::PROTO)
}
