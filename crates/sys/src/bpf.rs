//! bpf(2), as far as device control on cgroup v2 needs it: load one program, attach it, replace it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One eBPF instruction in the kernel's layout (linux/bpf.h, `struct bpf_insn`).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    pub code: u8,
    /// Destination register in the low four bits, source register in the high four.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

/// Loads a program of type `BPF_PROG_TYPE_CGROUP_DEVICE`; the kernel verifies it.
///
/// Needs CAP_BPF or CAP_SYS_ADMIN. Errors are those of bpf(2): `EPERM`, `EINVAL` and `EACCES` (the
/// verifier's), `ENOSYS` where the kernel was built without it.
pub fn load_cgroup_device(program: &[Instruction]) -> io::Result<OwnedFd> {
    let license = c"Apache-2.0";
    let attributes = Load {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len())
            .map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..Load::default()
    };
    // SAFETY: `attributes` is the prefix of `union bpf_attr` that BPF_PROG_LOAD reads, its size is
    // passed with it, and `program` and `license`, to which it points, are borrowed past the call.
    let fd =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, SIZE_LOAD) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: BPF_PROG_LOAD has just returned this descriptor (close-on-exec, as all of bpf's are),
    // and nothing else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches a device program to a cgroup v2 directory, beside those that are there already: an
/// access has to pass all of them. The cgroup keeps the program when `program` is closed.
pub fn attach_cgroup_device(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    attach(BPF_PROG_ATTACH, cgroup, program, BPF_F_ALLOW_MULTI, 0)
}

/// Attaches a device program in the place of another, in one step (since Linux 5.6).
pub fn replace_cgroup_device(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    old: BorrowedFd<'_>,
) -> io::Result<()> {
    let flags = BPF_F_ALLOW_MULTI | BPF_F_REPLACE;
    attach(BPF_PROG_ATTACH, cgroup, program, flags, old.as_raw_fd())
}

pub fn detach_cgroup_device(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    attach(BPF_PROG_DETACH, cgroup, program, 0, 0)
}

/// Lists the device programs of a cgroup v2 directory by their ids, not those of its parents.
pub fn cgroup_device_programs(cgroup: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    // as many as a cgroup can have (linux/bpf-cgroup: BPF_CGROUP_MAX_PROGS)
    let mut ids = [0_u32; 64];
    let mut attributes = Query {
        target: cgroup.as_raw_fd(),
        attach_type: BPF_CGROUP_DEVICE,
        program_ids: ids.as_mut_ptr() as u64,
        program_count: ids.len() as u32,
        ..Query::default()
    };
    // SAFETY: `attributes` is all of `union bpf_attr` that BPF_PROG_QUERY reads and writes, with
    // `revision`, which Linux 6.17 writes whatever size is passed; `ids`, to which it points, has
    // room for the count that it says and is not touched otherwise until the call is over.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut attributes, SIZE_QUERY) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ids.iter().take(attributes.program_count as usize).copied().collect())
}

/// Opens a loaded program; needs CAP_SYS_ADMIN.
pub fn open_program(id: u32) -> io::Result<OwnedFd> {
    let attributes = GetById { id, next_id: 0, open_flags: 0 };
    // SAFETY: `attributes` is the prefix of `union bpf_attr` that BPF_PROG_GET_FD_BY_ID reads, its
    // size is passed with it, and it holds no pointers.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_GET_FD_BY_ID, &raw const attributes, SIZE_GET_BY_ID)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: BPF_PROG_GET_FD_BY_ID has just returned this descriptor (close-on-exec, as all of
    // bpf's are), and nothing else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn attach(
    command: libc::c_int,
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    flags: u32,
    replace: i32,
) -> io::Result<()> {
    let attributes = Attach {
        target: cgroup.as_raw_fd(),
        program: program.as_raw_fd(),
        attach_type: BPF_CGROUP_DEVICE,
        flags,
        replace,
    };
    // SAFETY: `attributes` is the prefix of `union bpf_attr` that BPF_PROG_ATTACH and
    // BPF_PROG_DETACH read, its size is passed with it, and it holds no pointers.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw const attributes, SIZE_ATTACH) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `union bpf_attr` of BPF_PROG_LOAD up to `expected_attach_type`.
#[repr(C)]
#[derive(Debug, Default)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface_index: u32,
    expected_attach_type: u32,
}

/// `union bpf_attr` of BPF_PROG_ATTACH and BPF_PROG_DETACH up to `replace_bpf_fd`. Kernels that do
/// not know that field ask that it be 0.
#[repr(C)]
#[derive(Debug)]
struct Attach {
    target: i32,
    program: i32,
    attach_type: u32,
    flags: u32,
    replace: i32,
}

/// `union bpf_attr` of BPF_PROG_QUERY, whole.
#[repr(C)]
#[derive(Debug, Default)]
struct Query {
    target: i32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    program_count: u32,
    padding: u32,
    program_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// `union bpf_attr` of BPF_PROG_GET_FD_BY_ID.
#[repr(C)]
#[derive(Debug)]
struct GetById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

const SIZE_QUERY: libc::c_uint = size_of::<Query>() as libc::c_uint;
const SIZE_GET_BY_ID: libc::c_uint = size_of::<GetById>() as libc::c_uint;
const SIZE_LOAD: libc::c_uint = size_of::<Load>() as libc::c_uint;
const SIZE_ATTACH: libc::c_uint = size_of::<Attach>() as libc::c_uint;

// linux/bpf.h
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_F_REPLACE: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifier_takes_a_valid_program_and_refuses_an_invalid_one() {
        // r0 = 1; exit
        let allow = [
            Instruction { code: 0xb7, registers: 0, offset: 0, immediate: 1 },
            Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 },
        ];
        match load_cgroup_device(&allow) {
            Ok(_) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => {
                return crate::testing::skip("bpf(2) is not to be had here");
            }
            Err(error) => panic!("bpf(BPF_PROG_LOAD): {error}"),
        }
        let refused = load_cgroup_device(&allow[1..]).unwrap_err();
        assert!(matches!(refused.raw_os_error(), Some(libc::EACCES | libc::EINVAL)), "{refused}");
    }
}
