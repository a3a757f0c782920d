//! One attached client: Docker's frames out, standard input in.

use std::io::IoSlice;
use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};

use super::poller::{Poller, Source, Watched};

#[derive(Debug)]
pub(super) struct Attached {
    socket: Watched,
    /// Whether what it sends is the process's input.
    pub stdin: bool,
    outputs: [bool; 2],
    /// What the client has not taken yet. Output is not read while there is any, so this is the
    /// rest of one chunk of each stream, and after the process's end also what its pipes held.
    queue: Vec<u8>,
    /// How much of `queue` is sent.
    sent: usize,
    /// It gets what is in the log first, from somebody else; until then all is kept.
    held: bool,
}

/// Whether a client is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reached {
    Yes,
    Gone,
}

impl Attached {
    pub fn new(
        poller: &mut Poller,
        socket: OwnedFd,
        source: Source,
        stdin: bool,
        outputs: [bool; 2],
    ) -> Result<Self, Errno> {
        rustix::fs::fcntl_setfl(&socket, OFlags::RDWR | OFlags::NONBLOCK)?;
        let socket = poller.watch(socket, source, EventFlags::IN)?;
        Ok(Self { socket, stdin, outputs, queue: Vec::new(), sent: 0, held: false })
    }

    pub fn token(&self) -> u64 {
        self.socket.token
    }

    pub fn wants(&self, stream: usize) -> bool {
        self.outputs[stream]
    }

    /// Whether it has not taken all that it was given.
    pub fn is_behind(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Keeps everything for it until [`Self::release`].
    pub fn hold(&mut self) {
        self.held = true;
    }

    pub fn is_held(&self) -> bool {
        self.held
    }

    pub fn release(&mut self) -> Reached {
        self.held = false;
        self.flush()
    }

    /// Sends a frame, and keeps what the socket does not take: all of a frame arrives, or the
    /// client is gone.
    pub fn give(&mut self, head: &[u8], bytes: &[u8]) -> Reached {
        let mut sent = 0;
        if !self.is_behind() && !self.held {
            match self.send(&[IoSlice::new(head), IoSlice::new(bytes)]) {
                Ok(count) => sent = count,
                Err(Errno::AGAIN) => {}
                Err(_) => return Reached::Gone,
            }
        }
        self.queue.extend_from_slice(&head[sent.min(head.len())..]);
        self.queue.extend_from_slice(&bytes[sent.saturating_sub(head.len())..]);
        Reached::Yes
    }

    /// Sends what is kept, as far as the socket takes it.
    pub fn flush(&mut self) -> Reached {
        while self.is_behind() && !self.held {
            match self.send(&[IoSlice::new(&self.queue[self.sent..])]) {
                Ok(count) => self.sent += count,
                Err(Errno::AGAIN) => break,
                Err(_) => return Reached::Gone,
            }
            if self.sent == self.queue.len() {
                // Not only cleared: most clients are never behind again.
                (self.queue, self.sent) = (Vec::new(), 0);
            }
        }
        Reached::Yes
    }

    fn send(&self, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        rustix::io::retry_on_intr(|| {
            let mut ancillary = SendAncillaryBuffer::default();
            rustix::net::sendmsg(&self.socket, parts, &mut ancillary, flags)
        })
    }

    /// Takes what the client has sent; 0 at the end.
    pub fn read(&self, into: &mut [u8]) -> Result<usize, Errno> {
        rustix::io::read(&self.socket, into)
    }

    /// Waits for what the client can do now.
    pub fn adjust(&mut self, poller: &Poller, takes_input: bool) {
        let mut wanted = EventFlags::empty();
        // One without input is read all the same when it goes, to notice that; but the end of its
        // sending is told again and again, and only HUP (always told) is news after it.
        if self.stdin && takes_input {
            wanted |= EventFlags::IN;
        }
        if self.is_behind() && !self.held {
            wanted |= EventFlags::OUT;
        }
        poller.want(&mut self.socket, wanted);
    }

    /// From now on its events are not its process's any more.
    pub fn leave_process(&mut self, poller: &mut Poller) {
        self.stdin = false;
        poller.reassign(&self.socket, Source::Lingering);
        self.adjust(poller, false);
    }

    /// Tells the client that this was all.
    pub fn close(self, poller: &mut Poller) {
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
        // A Unix socket that is closed with input unread ends its peer's reading with ECONNRESET
        // in the place of an end (unix_release_sock in the kernel's net/unix/af_unix.c).
        let mut bytes = [0; 16 << 10];
        let read = |bytes: &mut [u8]| {
            rustix::net::recv(&self.socket, bytes, RecvFlags::DONTWAIT).map(|(count, _)| count)
        };
        while read(&mut bytes).is_ok_and(|count| count > 0) {}
        poller.unwatch(self.socket);
    }
}
