//! Making processes and turning them into others: clone3(2), setns(2), execve(2), identities.

use std::ffi::{CStr, CString, c_char};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{check, check_value};

mod borrowed;
mod title;

pub use borrowed::clone3_borrowing;
pub use title::{remember_title_area, set_title};

pub use libc::{
    CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER,
    CLONE_NEWUTS, CLONE_PARENT,
};

/// `CLONE_NEWTIME`; clone3(2) takes it, clone(2) has no room for it.
pub const CLONE_NEWTIME: i32 = 0x80;

/// A child that [`clone3`] made.
#[derive(Debug)]
pub struct Child {
    /// In the caller's pid namespace.
    pub pid: u32,
    pub pidfd: OwnedFd,
}

/// Makes a child in the new namespaces of `flags` (`CLONE_NEW…`, `CLONE_PARENT`) and runs `child`
/// in it; what `child` returns is the exit status.
///
/// With `cgroup`, a directory of cgroup v2, the child is born in it (`CLONE_INTO_CGROUP`). It has a
/// copy of the memory, as after fork(2): where the caller has other threads, `child` must not
/// allocate or take locks, or it may wait for ever. Errors are clone3(2)'s.
pub fn clone3(
    flags: i32,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> i32,
) -> Result<Child, Errno> {
    let mut pidfd: RawFd = -1;
    let mut arguments = arguments(flags, cgroup)?;
    arguments.flags |= libc::CLONE_PIDFD as u64;
    arguments.pidfd = &raw mut pidfd as u64;
    // SAFETY: `arguments` and `pidfd` live across the call. Neither CLONE_VM nor a stack is passed
    // (flags were checked), so the child returns here on its own copy of this stack, and
    // nothing it does can touch the caller's memory.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>())
    };
    match check_value(pid)? {
        0 => {
            // a panic must not unwind into the caller's copy of the stack
            let _bomb = ExitOnDrop;
            exit_now(child())
        }
        pid => Ok(Child {
            pid: pid as u32,
            // SAFETY: the kernel has stored a new descriptor there, since CLONE_PIDFD was given
            // and the call succeeded; nothing else knows of it.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
    }
}

/// What the kernel is asked for: see clone3(2). No pidfd and no stack yet.
fn arguments(flags: i32, cgroup: Option<BorrowedFd<'_>>) -> Result<libc::clone_args, Errno> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    const ALLOWED: i32 = CLONE_NEWCGROUP
        | CLONE_NEWIPC
        | CLONE_NEWNET
        | CLONE_NEWNS
        | CLONE_NEWPID
        | CLONE_NEWUSER
        | CLONE_NEWUTS
        | CLONE_NEWTIME
        | CLONE_PARENT;
    if flags & !ALLOWED != 0 {
        return Err(Errno::INVAL);
    }
    // SAFETY: all-zero bytes are a valid `clone_args`, a struct of integers.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags as u64;
    // EINVAL with CLONE_PARENT, where the caller's own is used
    if flags & CLONE_PARENT == 0 {
        arguments.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    Ok(arguments)
}

/// Makes a child as fork(2) does, and runs `child` in it; returns its pid.
///
/// Unlike [`clone3`] it passes seccomp filters, which cannot see clone3(2)'s flags and so refuse it.
/// What the child may do is said there.
pub fn fork(child: impl FnOnce() -> i32) -> Result<u32, Errno> {
    // SAFETY: neither CLONE_VM nor a stack is passed, so the child returns here on its own copy of
    // this stack, and nothing it does can touch the caller's memory; all pointers are null.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    match check_value(pid)? {
        0 => {
            let _bomb = ExitOnDrop;
            exit_now(child())
        }
        pid => Ok(pid as u32),
    }
}

struct ExitOnDrop;

impl Drop for ExitOnDrop {
    fn drop(&mut self) {
        exit_now(70) // EX_SOFTWARE of sysexits.h
    }
}

/// Ends the process without running exit handlers (`_exit(2)`).
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Moves this thread into namespaces: `fd` is one of `/proc/PID/ns/…` or a pidfd (setns(2)).
pub fn setns(fd: BorrowedFd<'_>, kinds: i32) -> Result<(), Errno> {
    // SAFETY: setns(2) takes no pointers; `fd` is open for the time of the borrow.
    check(unsafe { libc::setns(fd.as_raw_fd(), kinds) })
}

/// A list of strings in the form that execve(2) wants, made before the fork.
pub struct Arguments {
    strings: Vec<CString>,
    /// Into `strings`, whose heap buffers do not move, and a null pointer at the end.
    pointers: Vec<*const c_char>,
}

impl Arguments {
    pub fn new(strings: Vec<CString>) -> Self {
        let mut pointers: Vec<_> = strings.iter().map(|string| string.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Self { strings, pointers }
    }

    /// Adds one at the end.
    pub fn push(&mut self, string: CString) {
        *self.pointers.last_mut().expect("new() ends the list with a null pointer") =
            string.as_ptr();
        self.pointers.push(std::ptr::null());
        self.strings.push(string);
    }

    pub fn strings(&self) -> &[CString] {
        &self.strings
    }
}

impl Serialize for Arguments {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.strings.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Arguments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Deserialize::deserialize(deserializer).map(Self::new)
    }
}

impl std::fmt::Debug for Arguments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.strings.fmt(f)
    }
}

/// Replaces the process; returns only when that failed.
pub fn execve(program: &CStr, arguments: &Arguments, environment: &Arguments) -> Errno {
    // SAFETY: `program` ends with a zero byte, and an `Arguments` holds pointers to strings that it
    // owns and a null pointer at the end.
    unsafe {
        libc::execve(program.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr());
    }
    last_error()
}

/// Replaces the process by the program that `program` is a descriptor of; returns only when that
/// failed (execveat(2), `AT_EMPTY_PATH`).
pub fn execve_at(program: BorrowedFd<'_>, arguments: &Arguments, environment: &Arguments) -> Errno {
    // SAFETY: the path is a constant that ends with a zero byte, and an `Arguments` holds pointers
    // to strings that it owns and a null pointer at the end.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
    }
    last_error()
}

/// Marks every descriptor from `first` on close-on-exec (close_range(2), Linux 5.11).
pub fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: close_range(2) takes no pointers, and with this flag closes nothing now.
    check_value(unsafe {
        libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC)
    })
    .map(drop)
}

/// Closes every descriptor from `first` on.
///
/// For a process that owns none of them any more, such as one that has just started or that will
/// only wait; an `OwnedFd` that is dropped later closes somebody else's descriptor.
pub fn close_from(first: u32) -> Result<(), Errno> {
    // SAFETY: close_range(2) takes no pointers. That no owner is left is the documented duty of the
    // caller; a breach closes a wrong descriptor but touches no memory.
    check_value(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// Closes one descriptor, for a child that will not use it again; see [`close_from`].
pub fn close_one(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let fd = fd.as_raw_fd();
    // SAFETY: as in `close_from`.
    check_value(unsafe { libc::syscall(libc::SYS_close_range, fd, fd, 0) }).map(drop)
}

/// Closes every descriptor that is not in `keep`, which is in ascending order.
///
/// For a child that will only use those and then execve(2) or exit, see [`close_from`].
pub fn close_all_but(keep: &[u32]) -> Result<(), Errno> {
    let mut first = 0;
    for &kept in keep {
        if first < kept {
            // SAFETY: as in `close_from`.
            check_value(unsafe { libc::syscall(libc::SYS_close_range, first, kept - 1, 0) })?;
        }
        first = kept + 1;
    }
    close_from(first)
}

/// Gives this thread alone the effective user and group id `id`, with the capabilities it has: what
/// it makes belongs to that id.
///
/// The real ids stay as they are: what the kernel takes away for the effective ones can be had back.
pub fn act_as(id: u32) -> std::io::Result<()> {
    use rustix::process::{Gid, Uid, getgid, getuid};
    use rustix::thread::{capabilities, set_capabilities, set_thread_res_gid, set_thread_res_uid};
    let (user, group) = (getuid(), getgid());
    set_thread_res_gid(group, Gid::from_raw(id), group)?;
    set_thread_res_uid(user, Uid::from_raw(id), user)?;
    let mut sets = capabilities(None)?;
    sets.effective = sets.permitted;
    Ok(set_capabilities(None, sets)?)
}

/// Becomes `uid` and `gid` for good, with these supplementary groups; only this thread.
///
/// Where setgroups(2) is denied (user_namespaces(7)), having no groups to set is no error.
pub fn set_identity(uid: u32, gid: u32, groups: &[u32]) -> Result<(), Errno> {
    // SAFETY: the pointer and the length are those of a slice that lives across the call.
    let set = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    match check_value(set) {
        Err(Errno::PERM) if groups.is_empty() => {}
        other => drop(other?),
    }
    set_ids(uid, gid)
}

/// The same, but keeps the supplementary groups that this process has.
pub fn set_ids(uid: u32, gid: u32) -> Result<(), Errno> {
    // SAFETY: setresgid(2) takes no pointers.
    check_value(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) })?;
    // SAFETY: setresuid(2) takes no pointers.
    check_value(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// Lets the permitted capabilities survive the next change of uid (`PR_SET_KEEPCAPS`, prctl(2)).
pub fn keep_capabilities() -> Result<(), Errno> {
    // SAFETY: PR_SET_KEEPCAPS takes one integer.
    check(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) })
}

/// Makes this process the one that orphans among its descendants get as parent
/// (`PR_SET_CHILD_SUBREAPER`, prctl(2)).
pub fn become_subreaper() -> Result<(), Errno> {
    // SAFETY: PR_SET_CHILD_SUBREAPER takes one integer.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) })
}

/// How a process ended that has been reaped, whoever did that, as wait(2) would say it; `None` for
/// one that has not been reaped (`PIDFD_GET_INFO`, Linux 6.15; the pidfd must be of before its end).
/// Older kernels: `ENOTTY` or `EINVAL`, or `None` where they know the call and not the status.
pub fn reaped_status(pidfd: BorrowedFd<'_>) -> Result<Option<i32>, Errno> {
    /// `struct pidfd_info` of the kernel's include/uapi/linux/pidfd.h, as of its first version.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        cgroup: u64,
        /// Of the process, its group, its parent, and its eight ids.
        ids: [u32; 11],
        exit_code: i32,
    }
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    /// `_IOWR(0xff, 11, struct pidfd_info)`.
    const PIDFD_GET_INFO: u32 = 3 << 30 | (size_of::<Info>() as u32) << 16 | 0xff << 8 | 11;
    let mut info = Info { mask: PIDFD_INFO_EXIT, ..Info::default() };
    // SAFETY: PIDFD_GET_INFO reads and writes as many bytes as its number says, those of `info`,
    // which lives past the call; `pidfd` is open as long as it is borrowed.
    check(unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO as _, &raw mut info) })?;
    Ok((info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code))
}

/// Takes capability `bit` out of the bounding set; `EINVAL` beyond the kernel's last one.
pub fn drop_from_bounding_set(bit: u32) -> Result<(), Errno> {
    // SAFETY: PR_CAPBSET_DROP takes one integer.
    check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, bit as libc::c_ulong, 0, 0, 0) })
}

/// Replaces the session keyring, which is inherited otherwise, by an empty one of its own
/// (keyctl(2), `KEYCTL_JOIN_SESSION_KEYRING`).
pub fn new_session_keyring() -> Result<(), Errno> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring, keyctl_join_session_keyring(3).
    let key = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<c_char>())
    };
    check_value(key).map(drop)
}

pub(crate) fn last_error() -> Errno {
    Errno::from_raw_os_error(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use rustix::process::{WaitId, WaitIdOptions, waitid};

    use super::*;

    fn status(child: &Child) -> i32 {
        let ended = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED);
        ended.unwrap().unwrap().exit_status().unwrap()
    }

    #[test]
    fn a_child_is_pid_1_in_its_own_namespaces() {
        let child = clone3(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWTIME, None, || {
            rustix::process::getpid().as_raw_nonzero().get() + 41
        });
        assert_eq!(status(&child.unwrap()), 42);
        assert_eq!(clone3(libc::CLONE_VM, None, || 0).unwrap_err(), Errno::INVAL);
    }

    #[test]
    fn the_status_of_a_reaped_child_is_known_to_its_pidfd() {
        let child = clone3(0, None, || 44).unwrap();
        let ready = rustix::event::PollFd::new(&child.pidfd, rustix::event::PollFlags::IN);
        rustix::event::poll(&mut [ready], None).unwrap();
        match reaped_status(child.pidfd.as_fd()) {
            Err(Errno::NOTTY | Errno::INVAL) => {
                assert_eq!(status(&child), 44, "an older kernel");
                return;
            }
            waits => assert_eq!(waits, Ok(None)),
        }
        assert_eq!(status(&child), 44);
        match reaped_status(child.pidfd.as_fd()) {
            // 6.13 and 6.14 have the call, and no status
            Ok(Some(status)) => assert_eq!(status, 44 << 8),
            other => assert_eq!(other, Err(Errno::SRCH)),
        }
    }

    #[test]
    fn a_forked_child_runs_and_ends() {
        let pid = fork(|| 43).unwrap();
        let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
        let ended = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED).unwrap().unwrap();
        assert_eq!(ended.exit_status(), Some(43));
    }

    #[test]
    fn a_panic_ends_the_child_only() {
        let child = clone3(0, None, || std::panic::resume_unwind(Box::new(()))).unwrap();
        assert_eq!(status(&child), 70);
    }

    #[test]
    fn exec_passes_arguments_and_closes_descriptors() {
        let (mut read, mut write) = std::io::pipe().unwrap();
        let words = |words: &[&str]| {
            Arguments::new(words.iter().map(|word| CString::new(*word).unwrap()).collect())
        };
        let arguments = words(&["sh", "-c", "echo $0 $NAME; ls /proc/self/fd | wc -l", "zero"]);
        let mut environment = words(&["PATH=/bin"]);
        environment.push(c"NAME=value".into());
        let child = clone3(0, None, || {
            rustix::stdio::dup2_stdout(&write).unwrap();
            rustix::io::fcntl_setfd(&write, rustix::io::FdFlags::empty()).unwrap();
            close_on_exec_from(3).unwrap();
            execve(c"/bin/sh", &arguments, &environment).raw_os_error()
        });
        write.flush().unwrap();
        drop(write);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "zero value\n4\n", "0, 1, 2 and the directory itself");
        assert_eq!(status(&child.unwrap()), 0);
    }
}
