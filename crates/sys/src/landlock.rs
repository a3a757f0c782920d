//! landlock(7): what a process and its later children may not do any more.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use crate::check_value;

/// `LANDLOCK_ACCESS_FS_…` of linux/landlock.h.
pub mod fs {
    pub const EXECUTE: u64 = 1 << 0;
    pub const WRITE_FILE: u64 = 1 << 1;
    pub const READ_FILE: u64 = 1 << 2;
    pub const READ_DIR: u64 = 1 << 3;
    /// From ABI 2; without it moving a file to another directory is always refused.
    pub const REFER: u64 = 1 << 13;
    /// From ABI 3.
    pub const TRUNCATE: u64 = 1 << 14;
    /// From ABI 5.
    pub const IOCTL_DEV: u64 = 1 << 15;
    /// Those that count for a file that is no directory; a rule for one takes no others.
    pub const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;

    /// All that an ABI knows.
    pub fn known(abi: u32) -> u64 {
        let newest = match abi {
            0 => return 0,
            1 => 1 << 12,
            2 => REFER,
            3 | 4 => TRUNCATE,
            _ => IOCTL_DEV,
        };
        newest | (newest - 1)
    }
}

/// `LANDLOCK_ACCESS_NET_…`, from ABI 4.
pub mod net {
    pub const BIND_TCP: u64 = 1 << 0;
    pub const CONNECT_TCP: u64 = 1 << 1;
}

/// `LANDLOCK_SCOPE_…`, from ABI 6.
pub mod scope {
    pub const ABSTRACT_UNIX_SOCKET: u64 = 1 << 0;
    pub const SIGNAL: u64 = 1 << 1;
}

/// What a ruleset refuses unless one of its rules allows it (`struct landlock_ruleset_attr`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Handled {
    pub fs: u64,
    pub net: u64,
    /// No rule allows anything of these.
    pub scoped: u64,
}

/// The newest ABI that the kernel has; 0 where it has no Landlock or has it switched off.
pub fn abi() -> u32 {
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    let none = std::ptr::null::<Handled>();
    // SAFETY: with this flag a null pointer of size 0 is what landlock_create_ruleset(2) asks for.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            none,
            0usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(version).unwrap_or(0)
}

/// Makes a ruleset. `EINVAL` and `E2BIG` for what the kernel's ABI does not know, `ENOMSG` if it
/// handles nothing.
pub fn create_ruleset(handled: Handled) -> Result<OwnedFd, Errno> {
    // SAFETY: the structure lives across the call, which is told its true size and only reads it;
    // older kernels, which know less of it, check that the rest is zero.
    let fd = check_value(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const handled,
            size_of::<Handled>(),
            0u32,
        )
    })?;
    // SAFETY: the call succeeded, so this is a new descriptor that nobody else knows of.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Allows `access` (of [`fs`], all of it handled) for `parent` and what is below it.
pub fn allow_beneath(
    ruleset: BorrowedFd<'_>,
    parent: BorrowedFd<'_>,
    access: u64,
) -> Result<(), Errno> {
    const LANDLOCK_RULE_PATH_BENEATH: u32 = 1;
    #[repr(C, packed)]
    struct PathBeneath {
        allowed_access: u64,
        parent_fd: i32,
    }
    let rule = PathBeneath { allowed_access: access, parent_fd: parent.as_raw_fd() };
    // SAFETY: for this kind of rule the kernel reads a packed landlock_path_beneath_attr, whose
    // layout `PathBeneath` has; it lives across the call.
    unsafe { add_rule(ruleset, LANDLOCK_RULE_PATH_BENEATH, (&raw const rule).cast()) }
}

/// Allows `access` (of [`net`], all of it handled) for a TCP port; 0 is any that the kernel picks.
pub fn allow_port(ruleset: BorrowedFd<'_>, port: u16, access: u64) -> Result<(), Errno> {
    const LANDLOCK_RULE_NET_PORT: u32 = 2;
    #[repr(C)]
    struct NetPort {
        allowed_access: u64,
        port: u64,
    }
    let rule = NetPort { allowed_access: access, port: port.into() };
    // SAFETY: for this kind of rule the kernel reads a landlock_net_port_attr, whose layout
    // `NetPort` has; it lives across the call.
    unsafe { add_rule(ruleset, LANDLOCK_RULE_NET_PORT, (&raw const rule).cast()) }
}

/// Restricts this thread and its later children for good.
///
/// Needs `no_new_privs` or `CAP_SYS_ADMIN` in the user namespace (`EPERM`).
pub fn restrict_self(ruleset: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: landlock_restrict_self(2) takes no pointers.
    check_value(unsafe {
        libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0u32)
    })
    .map(drop)
}

/// # Safety
/// `rule` points to the structure of this kind of rule.
unsafe fn add_rule(
    ruleset: BorrowedFd<'_>,
    kind: u32,
    rule: *const libc::c_void,
) -> Result<(), Errno> {
    // SAFETY: the caller vouches for `rule`, which the kernel only reads.
    check_value(unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), kind, rule, 0u32)
    })
    .map(drop)
}
