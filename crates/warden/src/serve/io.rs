//! Standard streams: output to the log and to attached clients, input from these.

use std::os::fd::OwnedFd;

use bulkhead_sys::process::CLONE_NEWPID;
use bulkhead_types::{Id, IdMap};
use rustix::event::epoll::EventFlags;
use rustix::fs::{OFlags, Timespec};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::attached::Attached;
use super::log::LogFile;
use super::process::Process;
use super::{Source, Warden, Watched};

/// The warden's side of a process's standard streams.
#[derive(Default)]
pub(super) struct Io {
    /// Output and input both, when there is a terminal.
    pub terminal: bool,
    /// Standard output (or the terminal) and standard error.
    pub outputs: [Option<Watched>; 2],
    /// The pipe to standard input.
    pub input: Option<Watched>,
    /// What standard input has not taken yet.
    pub pending: Vec<u8>,
    /// Input ends when what is pending is written.
    pub input_ends: bool,
    pub stdin_once: bool,
    pub log: Option<LogFile>,
    pub attached: Vec<Attached>,
}

/// The pipes of a process without a terminal.
#[derive(Default)]
pub(super) struct Stdio {
    /// Input, output, error; `None` with a terminal.
    pub child: Option<[OwnedFd; 3]>,
    pub ours: Option<(Option<OwnedFd>, OwnedFd, OwnedFd)>,
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
            ours: Some((our_input, our_output, our_error)),
        })
    }
}

/// What one read takes; a pipe holds as much.
const CHUNK: usize = 64 << 10;
/// Attached clients are not read while so much input waits for the process.
pub(super) const MAX_PENDING: usize = 64 << 10;

impl Warden {
    pub(super) fn connect_output(
        &mut self,
        process: &mut Process,
        ours: Option<(Option<OwnedFd>, OwnedFd, OwnedFd)>,
    ) -> Result<(), Errno> {
        let Some((input, output, error)) = ours else { return Ok(()) };
        let id = process.id;
        process.io.outputs = [
            Some(self.watch(output, Source::Output(id, 0), EventFlags::IN)?),
            Some(self.watch(error, Source::Output(id, 1), EventFlags::IN)?),
        ];
        // nothing to wait for until something is pending; the end of the reader is always told
        process.io.input = match input {
            Some(input) => Some(self.watch(input, Source::Input(id), EventFlags::empty())?),
            None => None,
        };
        Ok(())
    }

    pub(super) fn connect_terminal(
        &mut self,
        process: &mut Process,
        master: OwnedFd,
    ) -> Result<(), Errno> {
        rustix::fs::fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK)?;
        let input = rustix::io::fcntl_dupfd_cloexec(&master, 3)?;
        process.io.outputs[0] =
            Some(self.watch(master, Source::Output(process.id, 0), EventFlags::IN)?);
        process.io.input =
            Some(self.watch(input, Source::Input(process.id), EventFlags::empty())?);
        Ok(())
    }

    pub(super) fn read_output(&mut self, id: Id, stream: usize) {
        let Some(mut process) = self.processes.remove(&id) else { return };
        self.pump(&mut process, stream);
        self.processes.insert(id, process);
        self.finish_if_drained(id);
    }

    /// Reads once; says whether there may be more.
    fn pump(&mut self, process: &mut Process, stream: usize) -> bool {
        let Some(output) = &process.io.outputs[stream] else { return false };
        let mut bytes = [0; CHUNK];
        match rustix::io::read(output, &mut bytes) {
            Ok(0) => {}
            Ok(count) => {
                let bytes = &bytes[..count];
                if let Some(log) = &mut process.io.log {
                    log.take(stream, bytes);
                }
                self.forward(process, stream, bytes);
                return true;
            }
            Err(Errno::INTR) => return true,
            Err(Errno::AGAIN) => return false,
            // EIO: the last one that had the terminal open has closed it
            Err(_) => {}
        }
        if let Some(output) = process.io.outputs[stream].take() {
            self.unwatch(output);
        }
        false
    }

    /// After the end of the process: takes what is there.
    pub(super) fn drain(&mut self, process: &mut Process) {
        for stream in 0..2 {
            while self.pump(process, stream) {}
        }
        if process.io.terminal {
            // What was written last may still be on its way through the terminal. With all of its
            // processes gone it hangs up; others may keep it open for as long as they like.
            let alone = process.is_container() && process.namespaces & CLONE_NEWPID != 0;
            let patience = if alone { 2_000_000_000 } else { 100_000_000 };
            process.deadline = Some(monotonic() + patience);
        } else if process.is_container() {
            for stream in 0..2 {
                if let Some(output) = process.io.outputs[stream].take() {
                    self.unwatch(output);
                }
            }
        }
    }

    pub(super) fn finish_if_drained(&mut self, id: Id) {
        let Some(process) = self.processes.get(&id) else { return };
        let Some(exit) = process.ended else { return };
        let waits = process.io.terminal && process.io.outputs[0].is_some();
        if matches!(process.phase, super::process::Phase::Exited(_)) {
            return;
        }
        if !waits || process.deadline.is_some_and(|deadline| deadline <= monotonic()) {
            self.finish(id, exit);
        }
    }

    /// Everything has been read: the rest of a line is logged, clients get what is queued.
    ///
    /// What an exec left in the background keeps its pipes, and is read from here to nowhere:
    /// closing them would end it by SIGPIPE.
    pub(super) fn close_output(&mut self, process: &mut Process) {
        if let Some(mut log) = process.io.log.take() {
            log.end();
        }
        if let Some(input) = process.io.input.take() {
            self.unwatch(input);
        }
        if process.io.terminal || process.forgetting.is_some() {
            for stream in 0..2 {
                if let Some(output) = process.io.outputs[stream].take() {
                    self.unwatch(output);
                }
            }
        }
        self.end_attached(process);
    }

    /// Writes what is pending to standard input.
    pub(super) fn write_input(&mut self, id: Id) {
        let Some(mut process) = self.processes.remove(&id) else { return };
        self.push_input(&mut process);
        self.processes.insert(id, process);
    }

    pub(super) fn push_input(&mut self, process: &mut Process) {
        let io = &mut process.io;
        let mut broken = false;
        while let (Some(input), false) = (&io.input, io.pending.is_empty()) {
            match rustix::io::write(input, &io.pending) {
                Ok(count) => drop(io.pending.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    broken = true;
                    break;
                }
            }
        }
        if broken || (io.pending.is_empty() && io.input_ends && !io.terminal) {
            io.pending.clear();
            if let Some(input) = io.input.take() {
                self.unwatch(input);
            }
        } else if let Some(input) = &mut io.input {
            let out = EventFlags::OUT;
            input.want(&self.epoll, if io.pending.is_empty() { EventFlags::empty() } else { out });
        }
        self.adjust_attached(process);
    }

    /// How long to wait for events at most.
    pub(super) fn next_deadline(&self) -> Option<Timespec> {
        let waiting = self.processes.values().filter(|it| it.io.outputs[0].is_some());
        let ends = waiting.filter_map(|it| it.deadline);
        let next = ends.chain(self.compartments.deadline()).min()?;
        let left = (next - monotonic()).max(0);
        Some(Timespec { tv_sec: left / 1_000_000_000, tv_nsec: left % 1_000_000_000 })
    }

    pub(super) fn pass_deadlines(&mut self) {
        let late: Vec<Id> = self
            .processes
            .values()
            .filter(|it| it.deadline.is_some_and(|deadline| deadline <= monotonic()))
            .map(|it| it.id)
            .collect();
        for id in late {
            self.finish_if_drained(id);
            if let Some(process) = self.processes.get_mut(&id) {
                process.deadline = None;
            }
        }
    }
}

pub(super) fn monotonic() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}
