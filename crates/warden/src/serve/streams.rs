//! Standard streams: output to the log and to attached clients, input from these.
//!
//! An attached client holds the program back as the reader of a pipe does: while it has not taken
//! what it was given, the output that it wants is not read, so the program waits in its write(2)
//! once its pipe or terminal is full. Nobody else waits. A client that is gone holds nobody back.

use std::os::fd::OwnedFd;

use bulkhead_types::{Id, IdMap};
use rustix::event::epoll::EventFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{Winsize, tcsetwinsize};

use super::attached::{Attached, Reached};
use super::log::{LogFile, LogSnapshot};
use super::poller::{Poller, Source, Watched};
use crate::wire::StreamsHandover;

/// The warden's side of a process's standard streams.
#[derive(Default)]
pub(super) struct Io {
    /// Output and input both, when there is a terminal.
    pub terminal: bool,
    /// Standard output (or the terminal) and standard error.
    outputs: [Option<Watched>; 2],
    /// The pipe to standard input.
    input: Option<Watched>,
    /// What standard input has not taken yet.
    pending: Vec<u8>,
    /// The terminal is there, or was. What clients send before waits for it.
    had_terminal: bool,
    /// Input ends when what is pending is written.
    input_ends: bool,
    pub stdin_once: bool,
    pub log: Option<LogFile>,
    attached: Vec<Attached>,
    /// How much more is taken from the terminal of a process that has ended.
    rest: Option<usize>,
}

/// The pipes of a process without a terminal.
#[derive(Default)]
pub(super) struct Stdio {
    /// Input, output, error; `None` with a terminal.
    pub child: Option<[OwnedFd; 3]>,
    pub ours: Pipes,
}

/// The warden's ends of them.
#[derive(Default)]
pub(super) struct Pipes {
    pub input: Option<OwnedFd>,
    pub outputs: [Option<OwnedFd>; 2],
}

impl Stdio {
    /// Makes pipes that belong to the container's root, so that it may open `/dev/stdout` anew.
    pub fn pipes(null: &OwnedFd, stdin_open: bool, range: Option<IdMap>) -> Result<Self, Errno> {
        let owner = range.map_or(0, |range| range.first);
        let make = || {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            if owner != 0 {
                let uid = rustix::fs::Uid::from_raw(owner);
                let gid = rustix::fs::Gid::from_raw(owner);
                rustix::fs::fchown(&read, Some(uid), Some(gid))?;
            }
            Ok::<_, Errno>((read, write))
        };
        let nonblocking = |fd: &OwnedFd| rustix::fs::fcntl_setfl(fd, OFlags::NONBLOCK);
        let (input, our_input) = if stdin_open {
            let (read, write) = make()?;
            nonblocking(&write)?;
            (read, Some(write))
        } else {
            (rustix::io::fcntl_dupfd_cloexec(null, 3)?, None)
        };
        let (our_output, output) = make()?;
        let (our_error, error) = make()?;
        nonblocking(&our_output)?;
        nonblocking(&our_error)?;
        Ok(Self {
            child: Some([input, output, error]),
            ours: Pipes { input: our_input, outputs: [Some(our_output), Some(our_error)] },
        })
    }
}

/// What one read takes; a pipe holds as much.
const CHUNK: usize = 64 << 10;
/// Attached clients are not read while so much input waits for the process.
const MAX_PENDING: usize = 64 << 10;
/// What is taken from a terminal after the end of its process, at most: more than the kernel keeps
/// on its way through one (`TTYB_DEFAULT_MEM_LIMIT` in its drivers/tty/tty_buffer.c, 640 KiB), and
/// little enough where processes in the background write on.
const TERMINAL_REST: usize = 1 << 20;

/// What one read of an output came to.
enum Read {
    Bytes(usize),
    /// Nothing is there now.
    Nothing,
    /// Its end, or it had ended before.
    End,
}

/// What stands before so much output: `[stream, 0, 0, 0, length]` (Docker's API, "Attach to a
/// container", stream format), or nothing with a terminal.
fn head(terminal: bool, stream: usize, length: usize) -> Vec<u8> {
    if terminal {
        return Vec::new();
    }
    let mut head = vec![stream as u8 + 1, 0, 0, 0];
    head.extend_from_slice(&(length as u32).to_be_bytes());
    head
}

impl Io {
    pub fn new(terminal: bool, stdin_once: bool, log: Option<LogFile>) -> Self {
        Self { terminal, stdin_once, log, ..Self::default() }
    }

    pub fn connect_pipes(
        &mut self,
        poller: &mut Poller,
        id: Id,
        Pipes { input, outputs }: Pipes,
    ) -> Result<(), Errno> {
        for (stream, output) in outputs.into_iter().enumerate() {
            let Some(output) = output else { continue };
            let source = Source::Output(id, stream);
            self.outputs[stream] = Some(poller.watch(output, source, EventFlags::IN)?);
        }
        // nothing to wait for until something is pending; the end of the reader is always told
        self.input = match input {
            Some(input) => Some(poller.watch(input, Source::Input(id), EventFlags::empty())?),
            None => None,
        };
        self.adjust(poller);
        Ok(())
    }

    pub fn connect_terminal(
        &mut self,
        poller: &mut Poller,
        id: Id,
        master: OwnedFd,
    ) -> Result<(), Errno> {
        rustix::fs::fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK)?;
        let input = rustix::io::fcntl_dupfd_cloexec(&master, 3)?;
        self.outputs[0] = Some(poller.watch(master, Source::Output(id, 0), EventFlags::IN)?);
        self.input = Some(poller.watch(input, Source::Input(id), EventFlags::empty())?);
        self.had_terminal = true;
        self.push_input(poller);
        Ok(())
    }

    /// Sets the size of the terminal, if there is one.
    pub fn resize(&self, rows: u16, columns: u16) -> Option<Result<(), Errno>> {
        let terminal = self.outputs[0].as_ref().filter(|_| self.terminal)?;
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        Some(tcsetwinsize(terminal, size))
    }

    /// Output can be read, unless an attached client is behind.
    pub fn read_output(&mut self, poller: &mut Poller, stream: usize) {
        // The end of an output is told while it is not waited for, too.
        if !self.is_held_back(stream) {
            self.pump(poller, stream, self.rest.unwrap_or(CHUNK));
            self.adjust(poller);
        }
    }

    /// Reads once, `most` bytes at most, for the log and for attached clients.
    fn pump(&mut self, poller: &mut Poller, stream: usize, most: usize) -> Read {
        let Some(output) = &self.outputs[stream] else { return Read::End };
        let mut bytes = [0; CHUNK];
        match rustix::io::read(output, &mut bytes[..most.min(CHUNK)]) {
            Ok(0) => {}
            Ok(count) => {
                bulkhead_failpoint::pass("warden.output-read");
                if let Some(log) = &mut self.log {
                    log.take(stream, &bytes[..count]);
                }
                self.forward(poller, stream, &bytes[..count]);
                if let Some(rest) = &mut self.rest {
                    *rest -= count;
                    if *rest == 0 {
                        self.close_output(poller, stream);
                    }
                }
                return Read::Bytes(count);
            }
            Err(Errno::INTR) => return Read::Bytes(0),
            Err(Errno::AGAIN) => return Read::Nothing,
            // EIO: the last one that had the terminal open has closed it
            Err(_) => {}
        }
        self.close_output(poller, stream);
        Read::End
    }

    fn close_output(&mut self, poller: &mut Poller, stream: usize) {
        if let Some(output) = self.outputs[stream].take() {
            poller.unwatch(output);
        }
    }

    /// Gives output to those who want it.
    fn forward(&mut self, poller: &mut Poller, stream: usize, bytes: &[u8]) {
        let head = head(self.terminal, stream, bytes.len());
        let reach = |client: &mut Attached| match client.wants(stream) {
            true => client.give(&head, bytes),
            false => Reached::Yes,
        };
        self.keep_reached(poller, reach);
    }

    /// Does something with every attached client, and drops those that are gone.
    fn keep_reached(
        &mut self,
        poller: &mut Poller,
        mut reach: impl FnMut(&mut Attached) -> Reached,
    ) {
        let gone = self.attached.extract_if(.., |client| reach(client) == Reached::Gone);
        gone.for_each(|client| client.close(poller));
    }

    fn is_held_back(&self, stream: usize) -> bool {
        let is_behind = |client: &Attached| client.wants(stream) && client.is_behind();
        self.rest.is_none() && self.attached.iter().any(is_behind)
    }

    /// Waits for what can be done now.
    fn adjust(&mut self, poller: &Poller) {
        for stream in 0..2 {
            // Edge-triggered, so that an end that nobody takes yet is told once and not for ever.
            let flags = if self.is_held_back(stream) { EventFlags::ET } else { EventFlags::IN };
            if let Some(output) = &mut self.outputs[stream] {
                poller.want(output, flags);
            }
        }
        let takes_input = self.pending.len() < MAX_PENDING;
        for client in &mut self.attached {
            client.adjust(poller, takes_input);
        }
    }

    pub fn attach(
        &mut self,
        poller: &mut Poller,
        id: Id,
        socket: OwnedFd,
        [stdin, stdout, stderr]: [bool; 3],
    ) -> Result<(), Errno> {
        // with a terminal there is one stream
        let outputs = [stdout || (self.terminal && stderr), stderr];
        let client = Attached::new(poller, socket, Source::Attached(id), stdin, outputs)?;
        self.attached.push(client);
        self.adjust(poller);
        Ok(())
    }

    /// As [`Self::attach`], for a client that gets first what is logged already: that as it is now,
    /// and nothing is sent until [`Self::release`]. Returns the client's token.
    pub fn attach_after_log(
        &mut self,
        poller: &mut Poller,
        id: Id,
        socket: OwnedFd,
        streams: [bool; 3],
    ) -> Result<(u64, LogSnapshot), Errno> {
        let snapshot = match &self.log {
            Some(log) => log.snapshot()?,
            None => LogSnapshot::default(),
        };
        self.attach(poller, id, socket, streams)?;
        let client = self.attached.last_mut().ok_or(Errno::BADF)?;
        client.hold();
        for stream in 0..2 {
            // the beginning of a line is logged with its end, and so is not in the log yet
            let unwritten = self.log.as_ref().map_or_else(Vec::new, |log| log.unwritten(stream));
            if client.wants(stream) && !unwritten.is_empty() {
                client.give(&head(self.terminal, stream, unwritten.len()), &unwritten);
            }
        }
        let token = client.token();
        self.adjust(poller);
        Ok((token, snapshot))
    }

    /// Says whether the client is one of this process's.
    pub fn release(&mut self, poller: &mut Poller, token: u64) -> bool {
        let is_ours = self.attached.iter().any(|client| client.token() == token);
        let release = |client: &mut Attached| match client.token() == token {
            true => client.release(),
            false => Reached::Yes,
        };
        self.keep_reached(poller, release);
        self.adjust(poller);
        is_ours
    }

    /// What another warden needs of this, and the descriptors.
    ///
    /// Not the end of a standard input that is closed when its client goes: its program would never
    /// see that end while somebody holds another copy.
    pub fn handover(&self) -> Result<(StreamsHandover, Vec<OwnedFd>), Errno> {
        let log = self.log.as_ref().map(LogFile::handover).transpose()?;
        let input = self.input.as_ref().filter(|_| !self.terminal && !self.stdin_once);
        let kept = StreamsHandover {
            terminal: self.terminal,
            stdin_once: self.stdin_once,
            log: log.as_ref().map(|(log, _)| log.clone()),
            outputs: self.outputs.each_ref().map(Option::is_some),
            input: input.is_some(),
        };
        let copies = self
            .outputs
            .iter()
            .flatten()
            .chain(input)
            .map(|watched| rustix::io::fcntl_dupfd_cloexec(&watched.fd, 3));
        let directory = log.map(|(_, directory)| Ok(directory));
        Ok((kept, directory.into_iter().chain(copies).collect::<Result<_, Errno>>()?))
    }

    /// The other way round; the log is open already, and its descriptor is none of these.
    pub fn adopt(
        poller: &mut Poller,
        id: Id,
        kept: &StreamsHandover,
        log: Option<LogFile>,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Self, Errno> {
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next().ok_or(Errno::BADF);
        let mut outputs = [None, None];
        for stream in (0..2).filter(|stream| kept.outputs[*stream]) {
            outputs[stream] = Some(next()?);
        }
        let input = if kept.input { Some(next()?) } else { None };
        let mut io = Self::new(kept.terminal, kept.stdin_once, log);
        let connected = match (kept.terminal, outputs) {
            (true, [Some(master), _]) => io.connect_terminal(poller, id, master),
            (_, outputs) => io.connect_pipes(poller, id, Pipes { input, outputs }),
        };
        if let Err(errno) = connected {
            io.close(poller).outputs.into_iter().for_each(|output| poller.unwatch(output));
            return Err(errno);
        }
        Ok(io)
    }

    pub fn serve_attached(&mut self, poller: &mut Poller, token: u64, flags: EventFlags) {
        if flags.intersects(EventFlags::OUT) {
            let flush = |client: &mut Attached| {
                if client.token() == token { client.flush() } else { Reached::Yes }
            };
            self.keep_reached(poller, flush);
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP)
        {
            self.read_attached(poller, token, flags);
        }
        self.adjust(poller);
    }

    fn read_attached(&mut self, poller: &mut Poller, token: u64, flags: EventFlags) {
        let Some(index) = self.attached.iter().position(|it| it.token() == token) else { return };
        let client = &mut self.attached[index];
        let mut bytes = [0; 16 << 10];
        match client.read(&mut bytes) {
            Ok(count @ 1..) => {
                let awaits_terminal = self.terminal && !self.had_terminal;
                let is_open = self.input.is_some() || awaits_terminal;
                if client.stdin && is_open && !self.input_ends {
                    self.pending.extend_from_slice(&bytes[..count]);
                    self.push_input(poller);
                }
                return;
            }
            Err(Errno::AGAIN | Errno::INTR) => return,
            Ok(0) | Err(_) => {}
        }
        let had_input = std::mem::replace(&mut client.stdin, false);
        if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            self.attached.remove(index).close(poller);
        }
        if had_input && self.stdin_once && !self.terminal {
            self.input_ends = true;
            self.push_input(poller);
        }
    }

    /// Writes what is pending to standard input.
    pub fn push_input(&mut self, poller: &mut Poller) {
        let mut broken = false;
        while let (Some(input), false) = (&self.input, self.pending.is_empty()) {
            match rustix::io::write(input, &self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    broken = true;
                    break;
                }
            }
        }
        if broken || (self.pending.is_empty() && self.input_ends && !self.terminal) {
            self.pending.clear();
            if let Some(input) = self.input.take() {
                poller.unwatch(input);
            }
        } else if let Some(input) = &mut self.input {
            let out = EventFlags::OUT;
            poller.want(input, if self.pending.is_empty() { EventFlags::empty() } else { out });
        }
        self.adjust(poller);
    }

    /// The process has ended: takes what it had written until then, from whoever is behind too.
    ///
    /// What that can be is bounded, and so is how long it takes: what processes in the background
    /// write from now on is none of it. The rest of a terminal comes by and by.
    pub fn drain(&mut self, poller: &mut Poller) {
        if self.terminal {
            self.rest = Some(TERMINAL_REST);
            return self.adjust(poller);
        }
        for stream in 0..2 {
            let Some(output) = &self.outputs[stream] else { continue };
            let mut left = rustix::io::ioctl_fionread(output).unwrap_or(0) as usize;
            while left > 0 {
                match self.pump(poller, stream, left) {
                    Read::Bytes(count) => left -= count,
                    Read::Nothing | Read::End => break,
                }
            }
        }
    }

    /// Whether output of a process that has ended may still come.
    pub fn is_draining(&self) -> bool {
        self.terminal && self.outputs[0].is_some()
    }

    /// When the log is to be tried again, nanoseconds of the monotonic clock.
    pub fn log_retry(&self) -> Option<i64> {
        self.log.as_ref().and_then(LogFile::retry_at)
    }

    /// Nothing is read for the process any more: the rest of a line is logged.
    pub fn close(&mut self, poller: &mut Poller) -> Remains {
        let mut log = self.log.take();
        if let Some(log) = &mut log {
            log.end();
        }
        if let Some(input) = self.input.take() {
            poller.unwatch(input);
        }
        let outputs = self.outputs.iter_mut().filter_map(Option::take).collect();
        let attached = std::mem::take(&mut self.attached);
        Remains { attached, outputs, log: log.filter(LogFile::is_behind) }
    }
}

/// What is there still when nothing is read any more.
pub(super) struct Remains {
    pub attached: Vec<Attached>,
    /// Those that are open, since others write to them.
    pub outputs: Vec<Watched>,
    /// Where the disk has not taken all of it.
    pub log: Option<LogFile>,
}
