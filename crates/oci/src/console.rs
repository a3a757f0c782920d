//! Handing descriptors to whoever called the runtime, by Unix sockets that they listen on.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};

use crate::error::{Error, Result};

/// Connects to the stream socket at `path`, before anything is made that would have to be undone.
pub fn connect(path: &Path, what: &str) -> Result<OwnedFd> {
    let connect = || {
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok::<_, rustix::io::Errno>(socket)
    };
    connect().map_err(Error::system(format!("connect to the {what} {}", path.display())))
}

/// Sends one descriptor with a text beside it, as runc does (libcontainer/utils, `SendFile`).
pub fn send(socket: &OwnedFd, text: &[u8], descriptors: &[&OwnedFd], what: &str) -> Result<()> {
    let borrowed: Vec<_> = descriptors.iter().map(|fd| fd.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&borrowed));
    rustix::net::sendmsg(socket, &[IoSlice::new(text)], &mut ancillary, SendFlags::NOSIGNAL)
        .map(drop)
        .map_err(Error::system(format!("send to the {what}")))
}
