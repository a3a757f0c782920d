//! What is heard from a new process and from the helper that clones it.

use std::os::fd::{AsFd, OwnedFd};

use bulkhead_runtime::plan::Report;

use crate::error::{Error, Result};

/// What the child and the helper that clones it say, the helper's word of the clone first.
///
/// They write to one socket, so the child may be ahead of the helper.
#[derive(Debug)]
pub struct Reports<'a> {
    control: &'a OwnedFd,
    /// What the child waits for an answer to.
    early: Option<Heard>,
}

type Heard = (Report, Option<OwnedFd>);

impl<'a> Reports<'a> {
    pub fn new(control: &'a OwnedFd) -> Self {
        Self { control, early: None }
    }

    /// The next one; `None` when all who could say something have ended. `cloned` is whether the
    /// child is known.
    pub fn next(&mut self, cloned: bool) -> Result<Option<Heard>> {
        loop {
            if cloned && self.early.is_some() {
                return Ok(self.early.take());
            }
            let heard = Report::wait(self.control.as_fd())
                .map_err(Error::system("hear from the container's process"))?;
            match heard {
                Some((Report::Ready | Report::Mounted, _)) if !cloned => self.early = heard,
                heard => return Ok(heard),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_runtime::plan::Failure;
    use rustix::io::Errno;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn sockets() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn a_child_that_is_ahead_of_its_helper_is_heard_after_it() {
        for early in [Report::Ready, Report::Mounted] {
            let (ours, theirs) = sockets();
            early.send(theirs.as_fd(), None);
            Report::Cloned { pid: 7 }.send(theirs.as_fd(), None);
            drop(theirs);
            let mut reports = Reports::new(&ours);
            assert_eq!(reports.next(false).unwrap().unwrap().0, Report::Cloned { pid: 7 });
            assert_eq!(reports.next(true).unwrap().unwrap().0, early);
            assert!(reports.next(true).unwrap().is_none());
        }
    }

    #[test]
    fn a_failure_waits_for_nothing() {
        let (ours, theirs) = sockets();
        let failure = Failure::of_parent("clone", Errno::AGAIN);
        Report::Failed(failure.clone()).send(theirs.as_fd(), None);
        let heard = Reports::new(&ours).next(false).unwrap().unwrap().0;
        assert_eq!(heard, Report::Failed(failure));
    }
}
