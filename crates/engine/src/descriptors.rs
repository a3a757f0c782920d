//! The descriptors that travel to the warden with a request, and their numbers.

use std::os::fd::OwnedFd;

use bulkhead_runtime::FdIndex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

#[derive(Debug, Default)]
pub(crate) struct Descriptors(Vec<OwnedFd>);

impl Descriptors {
    pub(crate) fn add(&mut self, fd: OwnedFd) -> FdIndex {
        let index = u16::try_from(self.0.len()).expect("a container has fewer than 65,536 mounts");
        self.0.push(fd);
        FdIndex(index)
    }

    pub(crate) fn into_inner(self) -> Vec<OwnedFd> {
        self.0
    }
}

/// Whether the process has ended; does not wait (pidfd_open(2): it is readable then).
pub(crate) fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut watched = [PollFd::new(pidfd, PollFlags::IN)];
    poll(&mut watched, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}
