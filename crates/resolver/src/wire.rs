//! Messages between the resolver and its clients: postcard in SEQPACKET packets, with descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bulkhead_sys::packet::{self, MAX_DESCRIPTORS, Packet};
use bulkhead_types::Id;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::protocol::{Container, Sockets};

/// Each is answered by one reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Takes a container, or what has changed of one. With descriptors if `sockets` says so, which
    /// replace those that it had.
    Put {
        container: Container,
        sockets: Option<SocketCounts>,
    },
    Remove(Id),
    /// Those after this one, as many as fit into a reply.
    List {
        after: Option<Id>,
    },
    ShutDown,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    Done,
    /// With the descriptors of all of them, in their order; none, when there are no more.
    List {
        containers: Vec<(Container, Option<SocketCounts>)>,
    },
    Refused(String),
}

/// How many descriptors belong to a container: the one for UDP, the one for TCP, and these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketCounts {
    pub upstream_udp: u8,
    pub upstream_tcp: u8,
}

impl SocketCounts {
    /// Those of `sockets`, of which no more than fit into a message are told.
    pub fn of(sockets: &Sockets) -> Self {
        let count = |all: &[OwnedFd]| u8::try_from(all.len()).unwrap_or(u8::MAX).min(MOST_UPSTREAM);
        Self {
            upstream_udp: count(&sockets.upstream_udp),
            upstream_tcp: count(&sockets.upstream_tcp),
        }
    }

    pub fn total(self) -> usize {
        2 + usize::from(self.upstream_udp) + usize::from(self.upstream_tcp)
    }

    pub fn borrow(self, sockets: &Sockets) -> Vec<BorrowedFd<'_>> {
        let udp = sockets.upstream_udp.iter().take(self.upstream_udp.into());
        let tcp = sockets.upstream_tcp.iter().take(self.upstream_tcp.into());
        let own = [&sockets.udp, &sockets.tcp].into_iter();
        own.chain(udp).chain(tcp).map(AsFd::as_fd).collect()
    }

    /// Takes the sockets off the front of a message's descriptors.
    pub fn take(self, descriptors: &mut impl Iterator<Item = OwnedFd>) -> Option<Sockets> {
        let (udp, tcp) = (descriptors.next()?, descriptors.next()?);
        let mut some = |count: u8| -> Option<Vec<OwnedFd>> {
            (0..count).map(|_| descriptors.next()).collect()
        };
        let (upstream_udp, upstream_tcp) = (some(self.upstream_udp)?, some(self.upstream_tcp)?);
        Some(Sockets { udp, tcp, upstream_udp, upstream_tcp })
    }
}

/// Of each kind: two kinds and the two listeners fit into a message.
const MOST_UPSTREAM: u8 = 100;
const _: () = assert!(2 * MOST_UPSTREAM as usize + 2 < MAX_DESCRIPTORS);

pub(crate) fn packet<F: AsFd>(
    message: &impl Serialize,
    descriptors: Vec<F>,
) -> Result<Packet<F>, Errno> {
    let payload = postcard::to_extend(message, Vec::new()).map_err(|_| Errno::INVAL)?;
    Packet::new(payload, descriptors)
}

pub(crate) fn send<F: AsFd>(
    socket: BorrowedFd<'_>,
    message: &impl Serialize,
    descriptors: Vec<F>,
) -> Result<(), Errno> {
    packet(message, descriptors)?.send(socket, SendFlags::empty())
}

/// Takes one message; `None` at the end of the connection.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    flags: RecvFlags,
) -> Result<Option<(T, Vec<OwnedFd>)>, Errno> {
    let Some((payload, descriptors)) = packet::receive(socket, flags)? else { return Ok(None) };
    Ok(Some((postcard::from_bytes(&payload).map_err(|_| Errno::PROTO)?, descriptors)))
}
