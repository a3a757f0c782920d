//! seccomp(2) filters: programs of classic BPF over `struct seccomp_data`.

use std::os::fd::{FromRawFd, OwnedFd};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::check_value;

/// One instruction (`struct sock_filter` of linux/filter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(C)]
pub struct Instruction {
    pub code: u16,
    pub jump_true: u8,
    pub jump_false: u8,
    pub k: u32,
}

/// How a filter is installed (`SECCOMP_FILTER_FLAG_…` of seccomp(2)), as bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flags(u32);

impl Flags {
    pub const NONE: Self = Self(0);

    /// Logs every action but `ALLOW`, as far as `actions_logged` has them.
    pub const LOG: Self = Self(libc::SECCOMP_FILTER_FLAG_LOG as u32);

    /// Leaves the mitigation of speculative store bypass as it is.
    pub const SPEC_ALLOW: Self = Self(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32);

    /// Only a fatal signal interrupts a call once the listener has received it. The kernel takes it
    /// together with a listener only, since Linux 5.19.
    pub const WAIT_KILLABLE_RECV: Self = Self(libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32);

    const NEW_LISTENER: Self = Self(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32);

    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Installs a filter for this thread and all its later children.
///
/// Needs `no_new_privs` or `CAP_SYS_ADMIN` in the user namespace (`EACCES`). A program that is
/// empty, longer than 4,096 instructions or malformed is refused with `EINVAL`, and so is a flag
/// that the kernel does not know.
pub fn install(program: &[Instruction], flags: Flags) -> Result<(), Errno> {
    set_filter(program, flags).map(drop)
}

/// The same, and returns the descriptor by which another process answers the calls that the program
/// ends with `SECCOMP_RET_USER_NOTIF` (seccomp_unotify(2)). It is closed on exec.
///
/// A thread has one listener at most (`EBUSY`). From here on this thread waits for the listener's
/// holder in each call that is so answered.
pub fn install_with_listener(program: &[Instruction], flags: Flags) -> Result<OwnedFd, Errno> {
    let fd = set_filter(program, flags.with(Flags::NEW_LISTENER))?;
    let fd = i32::try_from(fd).map_err(|_| Errno::OVERFLOW)?;
    // SAFETY: with SECCOMP_FILTER_FLAG_NEW_LISTENER the result is a descriptor that the kernel has
    // just made for the caller, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether the kernel knows a program's result, the action's bits without data
/// (`SECCOMP_GET_ACTION_AVAIL`, Linux 4.14).
pub fn is_action_available(action: u32) -> bool {
    // SAFETY: the kernel reads one u32 at the pointer during the call; it lives that long.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action)
    };
    check_value(result).is_ok()
}

/// Whether the kernel knows these flags: it looks at them before it looks for the program, which is
/// at address 0 here (`EFAULT`), so that nothing is installed.
pub fn are_flags_available(flags: Flags) -> bool {
    // alone it is refused (Linux: kernel/seccomp.c, seccomp_set_mode_filter)
    let flags = match flags.has(Flags::WAIT_KILLABLE_RECV) {
        true => flags.with(Flags::NEW_LISTENER),
        false => flags,
    };
    // SAFETY: the kernel reads a header at address 0, fails to, and changes nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags.0,
            std::ptr::null::<libc::sock_fprog>(),
        )
    };
    check_value(result) == Err(Errno::FAULT)
}

fn set_filter(program: &[Instruction], flags: Flags) -> Result<libc::c_long, Errno> {
    let header = libc::sock_fprog {
        len: program.len().try_into().map_err(|_| Errno::INVAL)?,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `header` points to `len` instructions of the layout of `struct sock_filter`
    // (`Instruction` is repr(C) with its fields), which the kernel only reads during the call.
    check_value(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags.0, &raw const header)
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    const ALLOW: Instruction =
        Instruction { code: 0x06, jump_true: 0, jump_false: 0, k: 0x7fff_0000 };

    /// In a thread of its own: a filter stays with the thread that installs it.
    fn confined<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
        let thread = std::thread::spawn(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            test()
        });
        thread.join().unwrap()
    }

    #[test]
    fn a_filter_is_installed_with_its_flags() {
        let all = Flags::LOG.with(Flags::SPEC_ALLOW);
        assert_eq!(confined(move || install(&[ALLOW], all)), Ok(()));
        assert_eq!(confined(|| install(&[], Flags::NONE)), Err(Errno::INVAL));
        assert_eq!(confined(|| install(&[ALLOW; 4097], Flags::NONE)), Err(Errno::INVAL));
        let bad = Instruction { code: 0xffff, ..ALLOW };
        assert_eq!(confined(move || install(&[bad], Flags::NONE)), Err(Errno::INVAL));
        // only a listener makes a call wait
        let alone = confined(|| install(&[ALLOW], Flags::WAIT_KILLABLE_RECV));
        assert_eq!(alone, Err(Errno::INVAL));
    }

    #[test]
    fn a_listener_is_a_descriptor_closed_on_exec() {
        let (cloexec, second) = confined(|| {
            let flags = Flags::LOG.with(Flags::WAIT_KILLABLE_RECV);
            let listener = install_with_listener(&[ALLOW], flags).unwrap();
            let cloexec = rustix::io::fcntl_getfd(listener.as_fd()).unwrap();
            (cloexec, install_with_listener(&[ALLOW], Flags::NONE).map(drop))
        });
        assert_eq!(cloexec, rustix::io::FdFlags::CLOEXEC);
        assert_eq!(second, Err(Errno::BUSY));
    }

    #[test]
    fn the_kernel_says_what_it_knows() {
        for action in [0x7fff_0000, 0x0005_0000, 0, 0x8000_0000, 0x7ffc_0000, 0x7fc0_0000] {
            assert!(is_action_available(action), "{action:#x}");
        }
        assert!(!is_action_available(0x1234_0000));
        for flags in [Flags::LOG, Flags::SPEC_ALLOW, Flags::WAIT_KILLABLE_RECV] {
            assert!(are_flags_available(flags), "{flags:?}");
        }
        assert!(!are_flags_available(Flags(1 << 20)));
        // the question has installed nothing
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        assert!(status.contains("Seccomp:\t0\n"), "{status}");
    }

    #[test]
    fn flags_are_a_set() {
        let both = Flags::LOG.with(Flags::SPEC_ALLOW);
        assert!(both.has(Flags::LOG) && both.has(Flags::NONE) && !Flags::LOG.has(both));
        assert_eq!(both.without(Flags::LOG), Flags::SPEC_ALLOW);
    }
}
