//! The descriptors that travel to the warden with a request, and their numbers.

use std::os::fd::OwnedFd;

use bulkhead_runtime::FdIndex;

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
