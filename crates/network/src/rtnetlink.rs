//! The one place that knows the rtnetlink crates: a socket, and requests over it.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

/// A rtnetlink socket of the namespace in which it was opened, rtnetlink(7).
#[derive(Debug)]
pub(crate) struct Rtnetlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// One change and the flags (`NLM_F_CREATE`, `NLM_F_EXCL`, …) it is asked with.
pub(crate) type Change = (RouteNetlinkMessage, u16);

impl Rtnetlink {
    /// Opens a socket in the network namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        // without it every refusal would carry the whole request back
        socket.set_cap_ack(true)?;
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(RECEIVE) })
    }

    /// Sends all `changes` in one datagram and returns the kernel's answer to each: a refused one
    /// does not stop those after it.
    pub(crate) fn change(&mut self, changes: Vec<Change>) -> io::Result<Vec<io::Result<()>>> {
        let first = self.sequence.wrapping_add(1);
        let mut datagram = Vec::new();
        let mut answers: Vec<Option<io::Result<()>>> = Vec::new();
        for (message, flags) in changes {
            self.encode(message, flags | NLM_F_ACK, &mut datagram);
            answers.push(None);
        }
        if datagram.is_empty() {
            return Ok(Vec::new()); // sending nothing is refused with ENODATA
        }
        self.socket.send(&datagram, 0)?;
        while answers.iter().any(Option::is_none) {
            self.receive(|message| {
                let index = message.header.sequence_number.wrapping_sub(first) as usize;
                if let (NetlinkPayload::Error(error), Some(slot)) =
                    (message.payload, answers.get_mut(index))
                {
                    *slot = Some(match error.code {
                        None => Ok(()),
                        Some(_) => Err(error.to_io()),
                    });
                }
                Ok(true)
            })?;
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// Sends `changes` and fails with the first that was refused.
    pub(crate) fn change_all(&mut self, changes: Vec<Change>) -> io::Result<()> {
        self.change(changes)?.into_iter().collect()
    }

    /// Asks for one object; `NotFound` or what the kernel says where there is none.
    pub(crate) fn one(&mut self, request: RouteNetlinkMessage) -> io::Result<RouteNetlinkMessage> {
        let mut found = self.ask(request, 0)?;
        found.pop().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// Asks for all objects of a kind.
    pub(crate) fn all(
        &mut self,
        request: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.ask(request, NLM_F_DUMP)
    }

    fn ask(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut datagram = Vec::new();
        self.encode(request, flags, &mut datagram);
        let wanted = self.sequence;
        self.socket.send(&datagram, 0)?;
        let (mut found, mut more) = (Vec::new(), true);
        while more {
            self.receive(|message| {
                // an answer to a request of ours that failed half-way is not ours any more
                if message.header.sequence_number != wanted {
                    return Ok(true);
                }
                more = match message.payload {
                    NetlinkPayload::InnerMessage(inner) => {
                        found.push(inner);
                        flags & NLM_F_DUMP == NLM_F_DUMP
                    }
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => false,
                    _ => true,
                };
                Ok(more)
            })?;
        }
        Ok(found)
    }

    fn encode(&mut self, message: RouteNetlinkMessage, flags: u16, datagram: &mut Vec<u8>) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let start = datagram.len();
        datagram.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut datagram[start..]);
    }

    /// Receives one datagram and hands its messages over until `each` says no more.
    fn receive(
        &mut self,
        mut each: impl FnMut(NetlinkMessage<RouteNetlinkMessage>) -> io::Result<bool>,
    ) -> io::Result<()> {
        self.buffer.clear();
        loop {
            match self.socket.recv(&mut self.buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(_) => break,
            }
        }
        let mut rest = self.buffer.as_slice();
        while rest.len() >= HEADER {
            let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            if length < HEADER || length > rest.len() {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            }
            let message = NetlinkMessage::deserialize(&rest[..length])
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            if !each(message)? {
                break;
            }
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
        }
        Ok(())
    }
}

/// The kernel never puts more than this into one datagram of a dump (`NLMSG_GOODSIZE`, and at most
/// what the reader's buffer held before: 32 KiB).
const RECEIVE: usize = 32 * 1024;
const HEADER: usize = 16;
