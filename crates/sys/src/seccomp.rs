//! seccomp(2) filters: programs of classic BPF over `struct seccomp_data`.

use rustix::io::Errno;

use crate::check_value;

/// One instruction (`struct sock_filter` of linux/filter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    pub code: u16,
    pub jump_true: u8,
    pub jump_false: u8,
    pub k: u32,
}

/// Installs a filter for this thread and all its later children.
///
/// Needs `no_new_privs` or `CAP_SYS_ADMIN` in the user namespace (`EACCES`). A program that is
/// empty, longer than 4,096 instructions or malformed is refused with `EINVAL`.
pub fn install(program: &[Instruction]) -> Result<(), Errno> {
    let header = libc::sock_fprog {
        len: program.len().try_into().map_err(|_| Errno::INVAL)?,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `header` points to `len` instructions of the layout of `struct sock_filter`
    // (`Instruction` is repr(C) with its fields), which the kernel only reads during the call.
    check_value(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const header)
    })
    .map(drop)
}
