//! Messages between the warden and its clients: postcard in SEQPACKET packets, with descriptors.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bulkhead_types::{Id, IdMap};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
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

/// The most descriptors that one message carries (unix(7), `SCM_MAX_FD`).
pub const MAX_DESCRIPTORS: usize = 253;

/// What fits into a packet for sure; more travels in a memfd, as the last descriptor.
const LARGEST_PACKET: usize = 64 << 10;

/// A packet that is ready to be sent.
#[derive(Debug)]
pub struct Packet<F = OwnedFd> {
    bytes: Vec<u8>,
    descriptors: Vec<F>,
    /// What is too long for a packet.
    memory: Option<OwnedFd>,
}

impl<F: AsFd> Packet<F> {
    pub fn new(message: &impl Serialize, descriptors: Vec<F>) -> Result<Self, Errno> {
        let mut memory = None;
        let mut bytes = postcard::to_extend(message, vec![0]).map_err(|_| Errno::INVAL)?;
        if bytes.len() > LARGEST_PACKET {
            let outside = rustix::fs::memfd_create(c"bulkhead message", MemfdFlags::CLOEXEC)?;
            let mut file = File::from(outside);
            let written = file.write_all(&bytes[1..]).and_then(|()| file.rewind());
            written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            memory = Some(file.into());
            bytes = vec![1];
        }
        if descriptors.len() + usize::from(memory.is_some()) > MAX_DESCRIPTORS {
            return Err(Errno::TOOMANYREFS);
        }
        Ok(Self { bytes, descriptors, memory })
    }

    pub fn send(&self, socket: BorrowedFd<'_>, flags: SendFlags) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<_> = self
            .descriptors
            .iter()
            .map(AsFd::as_fd)
            .chain(self.memory.iter().map(AsFd::as_fd))
            .collect();
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        let parts = [IoSlice::new(&self.bytes)];
        let flags = flags | SendFlags::NOSIGNAL;
        rustix::io::retry_on_intr(|| rustix::net::sendmsg(socket, &parts, &mut ancillary, flags))
            .map(drop)
    }
}

/// Takes one message; `None` at the end of the connection.
pub fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    flags: RecvFlags,
) -> Result<Option<(T, Vec<OwnedFd>)>, Errno> {
    let mut bytes = vec![0; LARGEST_PACKET + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)
    })?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(list) = message {
            descriptors.extend(list);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Errno::MSGSIZE);
    }
    let mut outside = Vec::new();
    let payload = match bytes[..received.bytes].split_first() {
        None => return Ok(None),
        Some((0, payload)) => payload,
        Some(_) => {
            let memory = descriptors.pop().ok_or(Errno::PROTO)?;
            File::from(memory).read_to_end(&mut outside).map_err(|_| Errno::PROTO)?;
            &outside
        }
    };
    Ok(Some((decode(payload)?, descriptors)))
}

/// What a packet holds of a message, without the byte that says where it is.
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, Errno> {
    postcard::to_extend(message, Vec::new()).map_err(|_| Errno::INVAL)
}

/// Reads one message of a packet, without the byte that says where it is.
pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Errno> {
    postcard::from_bytes(payload).map_err(|_| Errno::PROTO)
}
