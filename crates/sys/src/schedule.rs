//! How the kernel schedules this thread, where its memory lies, and what it takes itself for.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::{check, check_value};

/// The arguments of sched_setattr(2) in the kernel's layout (`struct sched_attr`, version 0).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[repr(C)]
pub struct Attributes {
    /// Of this structure; [`set_attributes`] sees to it.
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    /// Nanoseconds, as the two below; only for `SCHED_DEADLINE`.
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// Sets policy and priority of this thread (sched_setattr(2)).
pub fn set_attributes(attributes: Attributes) -> Result<(), Errno> {
    let attributes = Attributes { size: size_of::<Attributes>() as u32, ..attributes };
    // SAFETY: the structure has the kernel's layout, tells its true size and lives across the call.
    check_value(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })
        .map(drop)
}

/// Sets this thread's I/O priority: a class in the bits from 13 on, a level below (ioprio_set(2)).
pub fn set_io_priority(value: u16) -> Result<(), Errno> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: ioprio_set(2) takes three numbers.
    check_value(unsafe {
        libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, libc::c_int::from(value))
    })
    .map(drop)
}

/// Sets the memory policy of this thread: `MPOL_…` with its flags, and the nodes it speaks of as a
/// bit mask (set_mempolicy(2)).
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> Result<(), Errno> {
    // the kernel reads one bit less than it is told
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: `mask` is null with a length of 0, or points to `nodes`, which lives across the call
    // and holds the `bits - 1` bits that are read.
    check_value(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}

/// Sets the execution domain (personality(2)).
pub fn set_personality(persona: u32) -> Result<(), Errno> {
    // SAFETY: personality(2) takes one number.
    check(unsafe { libc::personality(persona.into()) })
}

/// Lets this thread run on these processors, by number, alone (sched_setaffinity(2)).
pub fn set_affinity(processors: &[u32]) -> Result<(), Errno> {
    let words = processors.iter().max().map_or(1, |most| *most as usize / 64 + 1);
    let mut mask = vec![0u64; words];
    for &processor in processors {
        mask[processor as usize / 64] |= 1 << (processor % 64);
    }
    // SAFETY: the mask lives across the call, which is told its size in bytes.
    check_value(unsafe {
        libc::syscall(libc::SYS_sched_setaffinity, 0, mask.len() * 8, mask.as_ptr())
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_what_the_kernel_shows() {
        let child = crate::process::clone3(0, None, || {
            let set = set_attributes(Attributes { policy: 3, nice: 5, ..Attributes::default() })
                .and_then(|()| set_io_priority(2 << 13 | 6))
                .and_then(|()| set_affinity(&[0]))
                .and_then(|()| set_personality(0x0040000));
            // SAFETY: these read numbers of this thread.
            let (policy, priority, persona) = unsafe {
                (
                    libc::sched_getscheduler(0),
                    libc::syscall(libc::SYS_ioprio_get, 1, 0),
                    libc::personality(0xffff_ffff),
                )
            };
            let right = set.is_ok() && policy == 3 && priority == 2 << 13 | 6;
            i32::from(!(right && persona == 0x0040000))
        });
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        use std::os::fd::AsFd;
        let child = child.unwrap();
        let ended = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED);
        assert_eq!(ended.unwrap().unwrap().exit_status(), Some(0));
    }
}
