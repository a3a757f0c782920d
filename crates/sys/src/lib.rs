//! The kernel: the only crate with `unsafe`.
//!
//! What rustix has is used from rustix directly; this crate adds the calls it lacks, the one path
//! layer, and nothing that knows what a container is.

pub mod bpf;
pub mod landlock;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod packet;
pub mod path;
pub mod process;
pub mod schedule;
pub mod seccomp;
pub mod shared;
pub mod signal;
pub mod socket;
pub mod testing;
mod unshare;
pub mod usage;
pub mod weak;

pub use unshare::unshare;

use rustix::io::Errno;

fn check(result: libc::c_int) -> Result<(), Errno> {
    check_value(result.into()).map(drop)
}

fn check_value(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result < 0 { Err(process::last_error()) } else { Ok(result) }
}
