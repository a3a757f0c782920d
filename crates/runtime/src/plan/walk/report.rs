//! What a child tells its parent, as packets of a socket.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

use crate::plan::Failure;

/// What a child tells its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// An intermediate process has made the real one. Its pidfd comes along, unless it tells of itself.
    Cloned {
        pid: u32,
    },
    /// The master of the new terminal comes along.
    Terminal,
    /// Everything up to [`Step::AwaitGo`] is done.
    Ready,
    Failed(Failure),
    /// The helper is in a new user namespace and waits for its id mappings.
    Unshared,
    /// The mounts are made; the hooks that the parent runs come now.
    Mounted,
    /// A seccomp listener is about to be; a [`Handover`] of its descriptor comes along.
    Listener,
}

impl Report {
    pub fn send(&self, control: BorrowedFd<'_>, descriptor: Option<BorrowedFd<'_>>) {
        let (kind, step, number, text) = match self {
            Self::Cloned { pid } => (0, 0, *pid as i32, ""),
            Self::Terminal => (1, 0, 0, ""),
            Self::Ready => (2, 0, 0, ""),
            Self::Failed(failure) => (3, failure.step, failure.errno, failure.detail.as_str()),
            Self::Unshared => (4, 0, 0, ""),
            Self::Mounted => (5, 0, 0, ""),
            Self::Listener => (6, 0, 0, ""),
        };
        let mut head = [kind; 7];
        head[1..3].copy_from_slice(&step.to_le_bytes());
        head[3..7].copy_from_slice(&number.to_le_bytes());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let descriptors: [_; 1];
        if let Some(descriptor) = descriptor {
            descriptors = [descriptor];
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        let parts = [IoSlice::new(&head), IoSlice::new(text.as_bytes())];
        // A parent that is gone cannot be told; the socket's end tells everything to one that is not.
        let _ = rustix::net::sendmsg(control, &parts, &mut ancillary, SendFlags::NOSIGNAL);
    }

    /// Takes the next report without waiting; `None` at the end of the socket, which means that the
    /// program was executed (or that the child was killed).
    pub fn receive(control: BorrowedFd<'_>) -> Result<Option<(Self, Option<OwnedFd>)>, Errno> {
        Self::take(control, RecvFlags::DONTWAIT)
    }

    /// The same, but waits for it.
    pub fn wait(control: BorrowedFd<'_>) -> Result<Option<(Self, Option<OwnedFd>)>, Errno> {
        loop {
            match Self::take(control, RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                // one side of a socket pair that was killed with messages unread
                Err(Errno::CONNRESET) => return Ok(None),
                other => return other,
            }
        }
    }

    fn take(
        control: BorrowedFd<'_>,
        flags: RecvFlags,
    ) -> Result<Option<(Self, Option<OwnedFd>)>, Errno> {
        let mut bytes = [0; 1024];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        let received = rustix::net::recvmsg(
            control,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            flags,
        )?;
        let descriptor = ancillary.drain().find_map(|message| match message {
            rustix::net::RecvAncillaryMessage::ScmRights(mut list) => list.next(),
            _ => None,
        });
        let Some((head, text)) = bytes[..received.bytes].split_first_chunk::<7>() else {
            return if received.bytes == 0 { Ok(None) } else { Err(Errno::PROTO) };
        };
        let [kind, s0, s1, n0, n1, n2, n3] = *head;
        let number = i32::from_le_bytes([n0, n1, n2, n3]);
        let report = match kind {
            0 => Self::Cloned { pid: number as u32 },
            1 => Self::Terminal,
            2 => Self::Ready,
            4 => Self::Unshared,
            5 => Self::Mounted,
            6 => Self::Listener,
            _ => Self::Failed(Failure {
                step: u16::from_le_bytes([s0, s1]),
                errno: number,
                detail: String::from_utf8_lossy(text).into_owned(),
            }),
        };
        Ok(Some((report, descriptor)))
    }
}
