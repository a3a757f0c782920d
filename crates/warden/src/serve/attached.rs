//! Attached clients: Docker's frames out, standard input in.

use std::os::fd::OwnedFd;

use bulkhead_types::Id;
use rustix::event::epoll::EventFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown};

use super::io::MAX_PENDING;
use super::process::Process;
use super::{Source, Warden, Watched};

#[derive(Debug)]
pub(super) struct Attached {
    socket: Watched,
    stdin: bool,
    outputs: [bool; 2],
    queue: Vec<u8>,
    /// How much of `queue` is sent.
    sent: usize,
    /// The process has ended; the socket goes when the queue is empty.
    ending: bool,
}

/// What is kept for a client that does not read; then it is dropped.
const MAX_QUEUED: usize = 4 << 20;

impl Warden {
    pub(super) fn attach(
        &mut self,
        process: &mut Process,
        socket: OwnedFd,
        [stdin, stdout, stderr]: [bool; 3],
    ) -> Result<(), Errno> {
        rustix::fs::fcntl_setfl(&socket, OFlags::RDWR | OFlags::NONBLOCK)?;
        let socket = self.watch(socket, Source::Attached(process.id), EventFlags::IN)?;
        // with a terminal there is one stream
        let outputs = [stdout || (process.io.terminal && stderr), stderr];
        let attached =
            Attached { socket, stdin, outputs, queue: Vec::new(), sent: 0, ending: false };
        process.io.attached.push(attached);
        self.adjust_attached(process);
        Ok(())
    }

    /// Gives output to those who want it.
    pub(super) fn forward(&mut self, process: &mut Process, stream: usize, bytes: &[u8]) {
        if process.io.attached.is_empty() {
            return;
        }
        // [stream, 0, 0, 0, length] (Docker's API, "Attach to a container", stream format)
        let mut head = [stream as u8 + 1, 0, 0, 0, 0, 0, 0, 0];
        head[4..].copy_from_slice(&(bytes.len() as u32).to_be_bytes());
        let framed = !process.io.terminal;
        for attached in process.io.attached.iter_mut().filter(|it| it.outputs[stream]) {
            if framed {
                attached.queue.extend_from_slice(&head);
            }
            attached.queue.extend_from_slice(bytes);
        }
        self.flush_attached(process);
    }

    fn flush_attached(&mut self, process: &mut Process) {
        let mut kept = Vec::with_capacity(process.io.attached.len());
        for mut attached in std::mem::take(&mut process.io.attached) {
            let written = attached.flush();
            let queued = attached.queue.len() - attached.sent;
            if written.is_err() || queued > MAX_QUEUED || (attached.ending && queued == 0) {
                let _ = rustix::net::shutdown(&attached.socket, Shutdown::Both);
                self.unwatch(attached.socket);
            } else {
                kept.push(attached);
            }
        }
        process.io.attached = kept;
        self.adjust_attached(process);
    }

    pub(super) fn serve_attached(&mut self, id: Id, token: u64, flags: EventFlags) {
        let Some(mut process) = self.processes.remove(&id) else { return };
        if flags.intersects(EventFlags::OUT) {
            self.flush_attached(&mut process);
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP)
        {
            self.read_attached(&mut process, token, flags);
        }
        self.processes.insert(id, process);
    }

    fn read_attached(&mut self, process: &mut Process, token: u64, flags: EventFlags) {
        let Some(index) = process.io.attached.iter().position(|it| it.socket.token == token) else {
            return;
        };
        let attached = &mut process.io.attached[index];
        let mut bytes = [0; 16 << 10];
        let gone = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        let ended = match rustix::io::read(&attached.socket, &mut bytes) {
            Ok(0) => true,
            Ok(count) => {
                if attached.stdin && process.io.input.is_some() && !process.io.input_ends {
                    process.io.pending.extend_from_slice(&bytes[..count]);
                    self.push_input(process);
                }
                return;
            }
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_) => true,
        };
        if !ended {
            return;
        }
        let had_input = std::mem::replace(&mut attached.stdin, false);
        if gone {
            let attached = process.io.attached.remove(index);
            self.unwatch(attached.socket);
        }
        if had_input && process.io.stdin_once && !process.io.terminal {
            process.io.input_ends = true;
            self.push_input(process);
        } else {
            self.adjust_attached(process);
        }
    }

    /// The process has ended: what is queued is still sent.
    pub(super) fn end_attached(&mut self, process: &mut Process) {
        for attached in &mut process.io.attached {
            attached.ending = true;
            attached.stdin = false;
        }
        self.flush_attached(process);
    }

    /// Waits for what each client can do now.
    pub(super) fn adjust_attached(&mut self, process: &mut Process) {
        let full = process.io.pending.len() >= MAX_PENDING;
        for attached in &mut process.io.attached {
            let mut wanted = EventFlags::empty();
            // One without input is read all the same, to notice when it goes; but the end of its
            // sending is told again and again, and only HUP (always told) is news after it.
            if attached.stdin && !full {
                wanted |= EventFlags::IN;
            }
            if attached.sent < attached.queue.len() {
                wanted |= EventFlags::OUT;
            }
            attached.socket.want(&self.epoll, wanted);
        }
    }

    pub(super) fn drop_attached(&mut self, process: &mut Process) {
        for attached in std::mem::take(&mut process.io.attached) {
            self.unwatch(attached.socket);
        }
    }
}

impl Attached {
    fn flush(&mut self) -> Result<(), Errno> {
        while self.sent < self.queue.len() {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match rustix::net::send(&self.socket, &self.queue[self.sent..], flags) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error),
            }
        }
        if self.sent == self.queue.len() {
            self.queue.clear();
            self.sent = 0;
        } else if self.sent > 1 << 20 {
            drop(self.queue.drain(..self.sent));
            self.sent = 0;
        }
        Ok(())
    }
}
