//! Any system call with any numbers, made where it can harm nobody: in a child of its own.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

use crate::process;

/// The ways in which a program of this machine can call the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abi {
    Native,
    /// `int 0x80`, with the numbers and the 32-bit arguments of a 32-bit program.
    #[cfg(target_arch = "x86_64")]
    I386,
    /// Bit 30 of the number.
    #[cfg(target_arch = "x86_64")]
    X32,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Called {
    Done,
    Refused(Errno),
    /// The kernel ended the process by this signal.
    Killed(i32),
    /// It has not returned within two seconds.
    Blocked,
}

impl std::fmt::Display for Called {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done => write!(f, "ok"),
            Self::Refused(errno) => write!(f, "{}", name(*errno)),
            Self::Killed(signal) => write!(f, "signal {signal}"),
            Self::Blocked => write!(f, "blocked"),
        }
    }
}

/// Makes a call in a child that then ends. `i386` takes the first five arguments.
///
/// What the call does to memory, descriptors or credentials is done to the child's alone; what it
/// does to the machine is for the caller to choose well.
///
/// # Errors
/// The caller's own trouble: no child could be made.
pub fn call(abi: Abi, number: u32, arguments: [u64; 6]) -> Result<Called, Errno> {
    let pid = process::fork(|| {
        let result = match abi {
            // SAFETY: this is a forked child with memory of its own, which after the call does
            // nothing but _exit(2): whatever the call has done to that memory, no Rust code goes
            // on to use it.
            Abi::Native => unsafe { native(number.into(), arguments) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Abi::I386 => unsafe { i386(number, arguments) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Abi::X32 => unsafe { native(u64::from(number) | X32_BIT, arguments) },
        };
        // an errno is below 134 on Linux, an exit status below 256
        process::exit_now(if (-4095..0).contains(&result) { -result as i32 } else { 0 })
    })?;
    let pid = Pid::from_raw(pid as i32).ok_or(Errno::SRCH)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let in_time = ends(&pidfd);
    if !in_time {
        pidfd_send_signal(&pidfd, Signal::KILL)?;
    }
    let ended = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED)?.ok_or(Errno::CHILD)?;
    Ok(match (in_time, ended.exit_status()) {
        (false, _) => Called::Blocked,
        (true, Some(0)) => Called::Done,
        (true, Some(errno)) => Called::Refused(Errno::from_raw_os_error(errno)),
        (true, None) => Called::Killed(ended.terminating_signal().unwrap_or(0)),
    })
}

/// The name by which errno(3) knows it, as far as a test asks for it; else its number.
pub fn name(errno: Errno) -> String {
    let known = match errno {
        Errno::PERM => "EPERM",
        Errno::ACCESS => "EACCES",
        Errno::ROFS => "EROFS",
        Errno::NOENT => "ENOENT",
        Errno::NOSYS => "ENOSYS",
        Errno::SRCH => "ESRCH",
        Errno::INVAL => "EINVAL",
        Errno::FAULT => "EFAULT",
        Errno::BADF => "EBADF",
        Errno::AFNOSUPPORT => "EAFNOSUPPORT",
        Errno::AGAIN => "EAGAIN",
        Errno::NODEV => "ENODEV",
        Errno::NXIO => "ENXIO",
        Errno::NOTDIR => "ENOTDIR",
        Errno::ISDIR => "EISDIR",
        Errno::EXIST => "EEXIST",
        Errno::BUSY => "EBUSY",
        Errno::TXTBSY => "ETXTBSY",
        Errno::NOSPC => "ENOSPC",
        Errno::MFILE => "EMFILE",
        Errno::NFILE => "ENFILE",
        Errno::NOMEM => "ENOMEM",
        Errno::IO => "EIO",
        Errno::OPNOTSUPP => "EOPNOTSUPP",
        Errno::LOOP => "ELOOP",
        Errno::XDEV => "EXDEV",
        Errno::NOTTY => "ENOTTY",
        other => return format!("errno {}", other.raw_os_error()),
    };
    known.to_owned()
}

fn ends(pidfd: &OwnedFd) -> bool {
    let patience = Timespec { tv_sec: 2, tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&patience)) {
            Err(Errno::INTR) => {}
            other => return other.is_ok_and(|ready| ready > 0),
        }
    }
}

#[cfg(target_arch = "x86_64")]
const X32_BIT: u64 = 0x4000_0000;

/// # Safety
/// The call may do anything to this process: it must end right after.
unsafe fn native(number: u64, arguments: [u64; 6]) -> i64 {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the caller's duty.
    let result = unsafe { libc::syscall(number as libc::c_long, a, b, c, d, e, f) };
    // libc has taken the errno out of it
    if result == -1 { -i64::from(process::last_error().raw_os_error()) } else { 0 }
}

/// # Safety
/// The call may do anything to this process: it must end right after.
#[cfg(target_arch = "x86_64")]
unsafe fn i386(number: u32, arguments: [u64; 6]) -> i64 {
    let [a, b, c, d, e, _] = arguments.map(|argument| u64::from(argument as u32));
    let result: u64;
    // SAFETY: the registers that the call takes or changes are declared; rbx, which the compiler
    // keeps for itself, is put back. What happens to memory is the caller's duty.
    unsafe {
        std::arch::asm!(
            "xchg {first}, rbx",
            "int 0x80",
            "xchg {first}, rbx",
            first = inout(reg) a => _,
            inlateout("rax") u64::from(number) => result,
            in("rcx") b,
            in("rdx") c,
            in("rsi") d,
            in("rdi") e,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            options(nostack),
        );
    }
    i64::from(result as u32 as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_the_childs_alone() {
        let close = libc::SYS_close as u32;
        assert_eq!(call(Abi::Native, close, [1, 0, 0, 0, 0, 0]).unwrap(), Called::Done);
        rustix::io::fcntl_getfd(rustix::stdio::stdout()).unwrap();
        let refused = call(Abi::Native, close, [9999, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!(refused.to_string(), "EBADF");
        let raised = call(Abi::Native, libc::SYS_kill as u32, [0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!(raised, Called::Done);
        let none = call(Abi::Native, 100_000, [0; 6]).unwrap();
        assert_eq!(none.to_string(), "ENOSYS");
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_32_bit_call_has_its_own_numbers() {
        if !std::path::Path::new("/proc/sys/abi/vsyscall32").exists() {
            return crate::testing::skip("no 32-bit calls");
        }
        // 6 is close(2) there, and lstat(2) otherwise
        assert_eq!(call(Abi::I386, 6, [9999, 0, 0, 0, 0, 0]).unwrap().to_string(), "EBADF");
        assert_eq!(call(Abi::I386, 6, [0; 6]).unwrap(), Called::Done);
    }
}
