//! What a child that has ended has used.

use std::time::Duration;

use rustix::io::Errno;

use crate::check_value;

/// How a child ended, and what it and those of its own children that it waited for have used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status; 128 and the signal's number where one ended it.
    pub status: i32,
    /// The largest resident set of any of these processes, in kB (`ru_maxrss`, getrusage(2)).
    ///
    /// What a process was before its execve(2) counts as well: after vfork(2) that is its parent.
    pub peak_resident: u64,
    /// The time that they had a processor, in the kernel too (`ru_utime` and `ru_stime`).
    pub processor: Duration,
}

/// Waits for the end of the child `pid` and reaps it (wait4(2)).
pub fn reap(pid: u32) -> Result<Ended, Errno> {
    let mut status = 0;
    // SAFETY: all-zero bytes are a valid `rusage`, a struct of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to locals that live across the call.
        let waited = unsafe { libc::wait4(pid as libc::pid_t, &raw mut status, 0, &raw mut usage) };
        match check_value(waited.into()) {
            Err(Errno::INTR) => {}
            other => {
                other?;
                break;
            }
        }
    }
    let status = if libc::WIFSIGNALED(status) {
        128 + libc::WTERMSIG(status)
    } else {
        libc::WEXITSTATUS(status)
    };
    let time = |value: libc::timeval| {
        let microseconds = u64::try_from(value.tv_sec * 1_000_000 + value.tv_usec).unwrap_or(0);
        Duration::from_micros(microseconds)
    };
    Ok(Ended {
        status,
        peak_resident: u64::try_from(usage.ru_maxrss).unwrap_or(0),
        processor: time(usage.ru_utime) + time(usage.ru_stime),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::fork;

    #[test]
    fn the_peak_is_of_what_was_touched() {
        const SIZE: usize = 32 << 20;
        let small = reap(fork(|| 7).unwrap()).unwrap();
        let large = fork(|| i32::from(std::hint::black_box(vec![1u8; SIZE])[SIZE / 2]));
        let large = reap(large.unwrap()).unwrap();
        assert_eq!((small.status, large.status), (7, 1));
        assert!(large.peak_resident >= small.peak_resident + (SIZE as u64 >> 11), "{large:?}");
        assert_eq!(reap(1).unwrap_err(), Errno::CHILD);
    }
}
