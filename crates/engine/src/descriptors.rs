//! The descriptors that travel to the warden with a request, and their numbers.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bulkhead_runtime::FdIndex;

#[derive(Debug, Default)]
pub(crate) struct Descriptors(Vec<OwnedFd>);

impl Descriptors {
    pub(crate) fn add(&mut self, fd: OwnedFd) -> FdIndex {
        let index = u16::try_from(self.0.len()).expect("a container has fewer than 65,536 mounts");
        self.0.push(fd);
        FdIndex(index)
    }

    pub(crate) fn get(&self, index: FdIndex) -> BorrowedFd<'_> {
        self.0[usize::from(index.0)].as_fd()
    }

    pub(crate) fn into_inner(self) -> Vec<OwnedFd> {
        self.0
    }
}
