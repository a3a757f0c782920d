//! What rustix does not ask of sockets.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, socketpair};

/// A pair of sockets for messages between a parent and its child (unix(7), `SOCK_SEQPACKET`).
pub fn control_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// The descriptors that a service manager has left to this program, from 3 on, with close-on-exec set
/// (sd_listen_fds(3)). `count` is what it says that they are.
///
/// # Errors
/// EBADF, where one of them is not open.
///
/// # Panics
/// When it is called a second time: each descriptor has one owner.
pub fn take_inherited(count: u32) -> Result<Vec<OwnedFd>, Errno> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    assert!(!TAKEN.swap(true, Ordering::Relaxed), "inherited descriptors are taken once");
    let mut all = Vec::new();
    for number in (FIRST_INHERITED..).take(count as usize) {
        // SAFETY: fcntl reads the number and no memory; that it is open is what is asked.
        crate::check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
        // SAFETY: it is open, as fcntl has just said; who started this program gave it away, and it is
        // taken here alone, once.
        all.push(unsafe { OwnedFd::from_raw_fd(number) });
    }
    Ok(all)
}

/// `SD_LISTEN_FDS_START`
const FIRST_INHERITED: RawFd = 3;

/// Memory, in bytes, that holds what was sent on a Unix stream socket and not read by the peer yet;
/// 0 once all is read (unix(7), `SIOCOUTQ`).
///
/// Who is woken because something was read may ask before the kernel has let go of the last byte,
/// with which it holds the socket while it wakes (net/core/sock.c, `sock_wfree`). No buffer is as
/// small as that: one byte is nothing.
pub fn unread_by_peer(socket: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut unread: libc::c_int = 0;
    // SAFETY: `TIOCOUTQ` (the number of SIOCOUTQ) writes one int, to `unread`, which lives past the
    // call; `socket` is open as long as it is borrowed.
    crate::check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut unread) })?;
    Ok(if unread == 1 { 0 } else { unread.unsigned_abs() })
}

/// Brings up the loopback interface of this thread's network namespace (netdevice(7)).
pub fn bring_up_loopback() -> Result<(), Errno> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)?;
    // SAFETY: all-zero bytes are a valid ifreq, a name and a union of integers and addresses.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives across the call.
    crate::check(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request)
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_the_peer_has_read_is_known() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert_eq!(unread_by_peer(ours.as_fd()), Ok(0));
        ours.write_all(b"some").unwrap();
        assert_ne!(unread_by_peer(ours.as_fd()), Ok(0));
        theirs.read_exact(&mut [0; 4]).unwrap();
        assert_eq!(unread_by_peer(ours.as_fd()), Ok(0));
    }
}
