//! What the parent hears of a process that a helper may have cloned, in an order that makes sense.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use bulkhead_runtime::plan::Report;
use rustix::io::Errno;

type Message = (Report, Option<OwnedFd>);

/// The reports of a process and its helper.
///
/// The two write to one socket, and the process may be faster than the helper that tells of it: its
/// own reports are kept back until it is known.
pub struct Inbox<'a> {
    control: &'a OwnedFd,
    early: VecDeque<Message>,
}

impl<'a> Inbox<'a> {
    pub fn new(control: &'a OwnedFd) -> Self {
        Self { control, early: VecDeque::new() }
    }

    /// The next report; `unknown` while [`Report::Cloned`] has not come. `None` is the end.
    pub fn next(&mut self, unknown: bool) -> Result<Option<Message>, Errno> {
        if !unknown && let Some(message) = self.early.pop_front() {
            return Ok(Some(message));
        }
        loop {
            match Report::wait(self.control.as_fd())? {
                Some(message) if unknown && is_of_process(&message.0) => {
                    self.early.push_back(message);
                }
                other => return Ok(other),
            }
        }
    }
}

fn is_of_process(report: &Report) -> bool {
    matches!(report, Report::Terminal | Report::Mounted | Report::Ready)
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn a_process_is_known_before_it_is_ready() {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        for report in [Report::Mounted, Report::Ready, Report::Cloned { pid: 7 }] {
            report.send(theirs.as_fd(), None);
        }
        drop(theirs);
        let mut inbox = Inbox::new(&ours);
        let mut next = |unknown| inbox.next(unknown).unwrap().map(|(report, _)| report);
        assert_eq!(next(true), Some(Report::Cloned { pid: 7 }));
        assert_eq!(next(false), Some(Report::Mounted));
        assert_eq!(next(false), Some(Report::Ready));
        assert_eq!(next(false), None);
    }
}
