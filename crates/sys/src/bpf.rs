//! bpf(2), as far as device control on cgroup v2 needs it: load one program, attach it.

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
    let attributes = Attach {
        target: cgroup.as_raw_fd(),
        program: program.as_raw_fd(),
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: `attributes` is the prefix of `union bpf_attr` that BPF_PROG_ATTACH reads, its size
    // is passed with it, and it holds no pointers.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attributes, SIZE_ATTACH)
    };
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

/// `union bpf_attr` of BPF_PROG_ATTACH up to `attach_flags`.
#[repr(C)]
#[derive(Debug)]
struct Attach {
    target: i32,
    program: i32,
    attach_type: u32,
    flags: u32,
}

const SIZE_LOAD: libc::c_uint = size_of::<Load>() as libc::c_uint;
const SIZE_ATTACH: libc::c_uint = size_of::<Attach>() as libc::c_uint;

// linux/bpf.h
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

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
