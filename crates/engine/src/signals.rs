//! Signals as Docker's users write them.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use crate::EngineError;

/// One of the kernel's 64, real-time ones included: systemd, for one, is stopped by `SIGRTMIN+3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signal(i32);

impl Signal {
    pub(crate) const KILL: Self = Self(9);

    /// The number, as events and the kernel have it.
    pub(crate) fn as_raw(self) -> i32 {
        self.0
    }

    pub(crate) fn send(self, pidfd: &OwnedFd) -> Result<(), Errno> {
        bulkhead_sys::signal::send(pidfd.as_fd(), self.0)
    }
}

/// Reads `KILL`, `SIGKILL`, `sigkill`, `9`, `RTMIN+3`, `RTMAX-2`.
pub(crate) fn parse(text: &str) -> Result<Signal, EngineError> {
    bulkhead_sys::signal::number(text)
        .map(Signal)
        .ok_or_else(|| EngineError::invalid(format!("invalid signal: {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_of_the_kernel_is_one() {
        for number in 1..=64 {
            assert_eq!(parse(&number.to_string()).unwrap().as_raw(), number);
        }
        for (text, number) in [("SIGRTMIN+3", 37), ("rtmax-2", 62), ("SIGRTMAX", 64), ("TERM", 15)]
        {
            assert_eq!(parse(text).unwrap().as_raw(), number, "{text}");
        }
        for wrong in ["", "0", "65", "-9", "SIG", "RTMIN+31", "RTMAX-31"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
