//! The signal state of a process that has one thread.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

mod name;

pub use name::number;

use crate::{check, process::last_error};

/// A signal that [`wait`] took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    pub number: i32,
    /// The kernel sent it, not a process: `Ctrl-C` at the terminal, for example.
    pub from_kernel: bool,
}

/// `SIGCHLD`.
pub const CHILD: i32 = libc::SIGCHLD;

/// `SIGWINCH`.
pub const WINDOW_CHANGED: i32 = libc::SIGWINCH;

/// Sends a signal by a pidfd (pidfd_send_signal(2)); any number that the kernel takes.
pub fn send(pidfd: BorrowedFd<'_>, number: i32) -> Result<(), Errno> {
    // SAFETY: the call takes a descriptor that is open as long as it is borrowed, and no siginfo.
    crate::check_value(unsafe {
        let none = std::ptr::null::<libc::siginfo_t>();
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, none, 0)
    })
    .map(drop)
}

/// Blocks every signal that can be blocked, and takes back whatever was ignored, which children
/// would inherit through exec.
pub fn block_all() -> Result<(), Errno> {
    // the kernel's `struct sigaction`: no handler (SIG_DFL), flags, restorer, mask of 64 bits
    let default = [0u64; 4];
    for number in 1..=64 {
        // SAFETY: `default` lives across the call and installs no code. Not libc's signal(), which
        // leaves out 32 and 33; numbers that cannot be changed give EINVAL.
        unsafe {
            let none = std::ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), none, size_of::<u64>());
        }
    }
    set_mask(true)
}

/// Makes this process end at a write to a pipe that nobody reads any more, as `| head` expects of a
/// command; Rust programs ignore SIGPIPE from their start.
pub fn end_at_broken_pipes() {
    // SAFETY: SIG_DFL installs no code, and the number is a signal that may be changed.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

/// Lets every signal through again.
pub fn unblock_all() -> Result<(), Errno> {
    set_mask(false)
}

/// Waits for the next signal; they must be blocked (sigwaitinfo(2)).
pub fn wait() -> Result<Taken, Errno> {
    // SAFETY: all-zero bytes are a valid siginfo_t, a struct of integers.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let all = set(true);
    // SAFETY: both pointers are to locals that live across the call.
    let number = unsafe { libc::sigwaitinfo(&raw const all, &raw mut info) };
    if number < 0 {
        return Err(last_error());
    }
    Ok(Taken { number, from_kernel: info.si_code == libc::SI_KERNEL })
}

/// Makes a descriptor that is readable when a signal has come (signalfd(2)); they must be blocked.
pub fn descriptor() -> Result<OwnedFd, Errno> {
    let all = set(true);
    // SAFETY: the set lives across the call, and -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const all, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(last_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nothing else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes the next signal from a [`descriptor`]; `None` if none has come.
pub fn take(descriptor: BorrowedFd<'_>) -> Result<Option<Taken>, Errno> {
    // the number is the first word of `struct signalfd_siginfo`, the code the third
    let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(descriptor, &mut info) {
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(errno) => Err(errno),
        Ok(_) => {
            let word = |at: usize| {
                i32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]])
            };
            Ok(Some(Taken { number: word(0), from_kernel: word(8) == libc::SI_KERNEL }))
        }
    }
}

/// Sends `number` to a child that has not been waited for, so that its pid is still its own.
pub fn send_to_child(pid: u32, number: i32) -> Result<(), Errno> {
    // SAFETY: kill(2) takes no pointers.
    check(unsafe { libc::kill(pid as libc::pid_t, number) })
}

/// Reaps one ended child, whichever: (pid, wait status); `None` if none has ended.
pub fn reap_any() -> Result<Option<(u32, i32)>, Errno> {
    let mut status = 0;
    // SAFETY: `status` lives across the call.
    match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
        -1 => Err(last_error()),
        0 => Ok(None),
        pid => Ok(Some((pid as u32, status))),
    }
}

/// The exit status that a shell reports for a wait status: 128 + the number for a signal.
pub fn exit_code(wait_status: i32) -> i32 {
    if libc::WIFSIGNALED(wait_status) {
        128 + libc::WTERMSIG(wait_status)
    } else {
        libc::WEXITSTATUS(wait_status)
    }
}

fn set(full: bool) -> libc::sigset_t {
    // SAFETY: all-zero bytes are a valid sigset_t, and both calls only write to it.
    unsafe {
        let mut set = std::mem::zeroed();
        if full {
            libc::sigfillset(&raw mut set);
        } else {
            libc::sigemptyset(&raw mut set);
        }
        set
    }
}

fn set_mask(full: bool) -> Result<(), Errno> {
    let set = set(full);
    // SAFETY: `set` lives across the call; the old mask is not asked for.
    check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) })
}
