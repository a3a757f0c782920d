//! What a namespace descriptor knows of its relatives (ioctl_ns(2)).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use crate::check_value;

// _IO(0xb7, …) of linux/nsfs.h
const NS_GET_USERNS: libc::c_ulong = 0xb701;
const NS_GET_PARENT: libc::c_ulong = 0xb702;
const NS_GET_OWNER_UID: libc::c_ulong = 0xb704;

/// Opens the user namespace that owns this namespace; for a user namespace that is its parent.
///
/// `EPERM` where it lies outside the caller's own user namespace, or there is none.
pub fn owner(namespace: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    relative(namespace, NS_GET_USERNS)
}

/// Opens the namespace in which this pid or user namespace was made.
///
/// `EPERM` where it lies outside the caller's own, or there is none; `EINVAL` for other kinds.
pub fn parent(namespace: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    relative(namespace, NS_GET_PARENT)
}

/// The uid, as the caller's user namespace has it, of who made this user namespace.
///
/// `EINVAL` for other kinds.
pub fn owner_uid(namespace: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut uid: libc::uid_t = 0;
    // SAFETY: NS_GET_OWNER_UID writes one uid_t through the pointer, which is to one that lives
    // across the call.
    let result = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_OWNER_UID as _, &raw mut uid) };
    check_value(result.into()).map(|_| uid)
}

/// Whether this process is in the host's own user namespace, the one whose ids are mapped to
/// themselves, all of them (user_namespaces(7)).
///
/// A container that maps them all looks the same from within.
pub fn is_initial_user() -> bool {
    let whole = |map: String| map.split_whitespace().eq(["0", "0", "4294967295"]);
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(whole)
}

fn relative(namespace: BorrowedFd<'_>, request: libc::c_ulong) -> Result<OwnedFd, Errno> {
    // SAFETY: both requests take no argument and touch no memory of this process.
    let fd = check_value(unsafe { libc::ioctl(namespace.as_raw_fd(), request as _) }.into())?;
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else knows of.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

    use super::*;
    use crate::process::{CLONE_NEWPID, CLONE_NEWUSER, clone3};

    fn open(pid: u32, kind: &str) -> std::fs::File {
        std::fs::File::open(format!("/proc/{pid}/ns/{kind}")).unwrap()
    }

    fn inode(fd: impl AsFd) -> u64 {
        rustix::fs::fstat(fd).unwrap().st_ino
    }

    #[test]
    fn a_new_namespace_names_its_parent_and_its_owner() {
        let own = std::process::id();
        let (read, write) = std::io::pipe().unwrap();
        let child = clone3(CLONE_NEWUSER | CLONE_NEWPID, None, || {
            drop(write);
            rustix::io::read(&read, &mut [0]).map_or(1, |_| 0)
        })
        .unwrap();
        let (pid, user) = (open(child.pid, "pid"), open(child.pid, "user"));
        assert_eq!(inode(parent(pid.as_fd()).unwrap()), inode(open(own, "pid")));
        assert_eq!(inode(owner(pid.as_fd()).unwrap()), inode(&user));
        assert_eq!(inode(parent(user.as_fd()).unwrap()), inode(open(own, "user")));
        assert_eq!(owner_uid(user.as_fd()).unwrap(), rustix::process::geteuid().as_raw());
        assert_eq!(owner_uid(pid.as_fd()), Err(Errno::INVAL));
        assert_eq!(parent(open(own, "uts").as_fd()).unwrap_err(), Errno::INVAL);
        pidfd_send_signal(&child.pidfd, Signal::KILL).unwrap();
        waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
    }
}
