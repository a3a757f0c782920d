//! For the tests of every crate: a test that the machine cannot run is skipped, and counted. And
//! calls that only a test wants to make.

use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd};

use rustix::io::Errno;

mod call;

pub use call::{Abi, Called, call, name};

/// Says that the running test could not be done here. Use as `return skip("no cgroup v2")`.
///
/// The line goes to the file that `BULKHEAD_SKIPPED` names, which `cargo xtask test` counts, so
/// that a missing kernel feature never looks like a pass.
#[allow(clippy::disallowed_methods, reason = "the runner of tests says by it where to write")]
pub fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    eprintln!("skipped {test}: {reason}");
    if let Some(path) = std::env::var_os("BULKHEAD_SKIPPED") {
        let line = format!("{test}: {reason}\n");
        let written = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        written.expect("the list of skipped tests can be written");
    }
}

/// Makes a datagram socket by the raw call, all 64 bits of `family` as they are.
pub fn socket(family: u64) -> Result<OwnedFd, Errno> {
    const DATAGRAM: u64 = libc::SOCK_DGRAM as u64 | libc::SOCK_CLOEXEC as u64;
    // SAFETY: socket(2) takes three numbers and touches no memory of this process.
    let fd = unsafe { libc::syscall(libc::SYS_socket, family, DATAGRAM, 0u64) };
    owned(fd)
}

/// Makes a datagram socket as a 32-bit program does: `socketcall(SYS_SOCKET, …)` by `int 0x80`.
///
/// `None` where the kernel does not run 32-bit calls, which would be a signal here.
#[cfg(target_arch = "x86_64")]
pub fn socketcall32(family: u32) -> Option<Result<OwnedFd, Errno>> {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

    let disabled = std::fs::read_to_string("/proc/cmdline").ok()?.contains("ia32_emulation=");
    if disabled || !std::path::Path::new("/proc/sys/abi/vsyscall32").exists() {
        return None;
    }
    const SOCKETCALL: u64 = 102;
    const SYS_SOCKET: u64 = 1;
    const LENGTH: usize = 4096;
    // MAP_32BIT: the call takes a 32-bit pointer
    let flags = MapFlags::PRIVATE | MapFlags::from_bits_retain(libc::MAP_32BIT as u32);
    // SAFETY: a new anonymous mapping at an address of the kernel's choice overlaps nothing.
    let page = unsafe {
        mmap_anonymous(std::ptr::null_mut(), LENGTH, ProtFlags::READ | ProtFlags::WRITE, flags)
    };
    let page = page.ok()?;
    let kind = (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC) as u32;
    // SAFETY: `page` is mapped, writable, page-aligned and known to this function alone.
    unsafe { page.cast::<[u32; 3]>().write([family, kind, 0]) };
    let result: u64;
    // SAFETY: the kernel reads three words at `page` and changes rax, and on old kernels r8 to r11,
    // all declared; rbx, which the compiler keeps for itself, is put back.
    unsafe {
        std::arch::asm!(
            "xchg {call}, rbx",
            "int 0x80",
            "xchg {call}, rbx",
            call = inout(reg) SYS_SOCKET => _,
            inlateout("rax") SOCKETCALL => result,
            in("rcx") page,
            in("rdx") 0u64,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            options(nostack),
        );
    }
    // SAFETY: the mapping was made above, and nothing points to it any more.
    let _ = unsafe { munmap(page, LENGTH) };
    // the result is 32 bits with a sign
    let result = result as u32 as i32;
    Some(if result < 0 { Err(Errno::from_raw_os_error(-result)) } else { owned(result.into()) })
}

fn owned(fd: libc::c_long) -> Result<OwnedFd, Errno> {
    match i32::try_from(fd) {
        // SAFETY: the kernel has just made this descriptor for the caller, who knows of no other
        // owner.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(crate::process::last_error()),
    }
}
