//! Messages of any length with descriptors, over a socket of type SEQPACKET (unix(7)).

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// The most descriptors that one message carries (unix(7), `SCM_MAX_FD`).
pub const MAX_DESCRIPTORS: usize = 253;

/// What fits into a packet for sure; more travels in a memfd, as the last descriptor.
const LARGEST: usize = 64 << 10;

/// The first byte of a packet: the message follows, or it is in the memory.
const HERE: u8 = 0;
const IN_MEMORY: u8 = 1;

/// A packet that is ready to be sent.
#[derive(Debug)]
pub struct Packet<F = OwnedFd> {
    payload: Vec<u8>,
    descriptors: Vec<F>,
    /// What is too long for a packet.
    memory: Option<OwnedFd>,
}

impl<F: AsFd> Packet<F> {
    pub fn new(payload: Vec<u8>, descriptors: Vec<F>) -> Result<Self, Errno> {
        let mut packet = Self { payload, descriptors, memory: None };
        if packet.payload.len() > LARGEST {
            let outside = rustix::fs::memfd_create(c"bulkhead message", MemfdFlags::CLOEXEC)?;
            let mut file = File::from(outside);
            let written = file.write_all(&packet.payload).and_then(|()| file.rewind());
            written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            packet.memory = Some(file.into());
            packet.payload = Vec::new();
        }
        if packet.descriptors.len() + usize::from(packet.memory.is_some()) > MAX_DESCRIPTORS {
            return Err(Errno::TOOMANYREFS);
        }
        Ok(packet)
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
        let kind = [if self.memory.is_some() { IN_MEMORY } else { HERE }];
        let parts = [IoSlice::new(&kind), IoSlice::new(&self.payload)];
        let flags = flags | SendFlags::NOSIGNAL;
        rustix::io::retry_on_intr(|| rustix::net::sendmsg(socket, &parts, &mut ancillary, flags))
            .map(drop)
    }
}

/// A message and its descriptors.
pub type Received = (Vec<u8>, Vec<OwnedFd>);

/// Takes one message and its descriptors, which are closed on exec; `None` at the end of the
/// connection. One that is cut short is `EMSGSIZE`, one of another form `EPROTO`.
pub fn receive(socket: BorrowedFd<'_>, flags: RecvFlags) -> Result<Option<Received>, Errno> {
    let (mut kind, mut payload) = ([HERE], vec![0; LARGEST]);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let received = rustix::io::retry_on_intr(|| {
        let mut parts = [IoSliceMut::new(&mut kind), IoSliceMut::new(&mut payload)];
        rustix::net::recvmsg(socket, &mut parts, &mut ancillary, flags)
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
    let Some(length) = received.bytes.checked_sub(kind.len()) else { return Ok(None) };
    payload.truncate(length);
    if kind[0] != HERE {
        let memory = descriptors.pop().ok_or(Errno::PROTO)?;
        payload.clear();
        File::from(memory).read_to_end(&mut payload).map_err(|_| Errno::PROTO)?;
    }
    Ok(Some((payload, descriptors)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_any_length_arrive_with_their_descriptors() {
        let (one, other) = crate::socket::control_pair().unwrap();
        for length in [0, 1, LARGEST, LARGEST + 1, 3 * LARGEST] {
            let payload: Vec<u8> = (0..length).map(|index| index as u8).collect();
            let descriptor = rustix::fs::memfd_create(c"x", MemfdFlags::CLOEXEC).unwrap();
            let packet = Packet::new(payload.clone(), vec![descriptor]).unwrap();
            packet.send(one.as_fd(), SendFlags::empty()).unwrap();
            let (received, descriptors) =
                receive(other.as_fd(), RecvFlags::empty()).unwrap().unwrap();
            assert_eq!((received == payload, descriptors.len()), (true, 1), "{length}");
        }
        drop(one);
        assert!(receive(other.as_fd(), RecvFlags::empty()).unwrap().is_none());
    }
}
