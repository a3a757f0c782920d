//! Staying with a container until it ends: its signals, its terminal, its exit status.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bulkhead_sys::signal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use crate::error::{Error, Result};

/// The terminal of the person who called, in raw mode until this is dropped.
struct RawMode(Option<Termios>);

impl RawMode {
    fn enter() -> Self {
        let before = tcgetattr(rustix::stdio::stdin()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw);
        }
        Self(before)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, before);
        }
    }
}

/// What is waited with; made before the program starts, so that no signal is lost.
pub struct Foreground {
    signals: OwnedFd,
}

impl Foreground {
    pub fn prepare() -> Result<Self> {
        let signals = signal::block_all().and_then(|()| signal::descriptor());
        Ok(Self { signals: signals.map_err(Error::system("wait for signals"))? })
    }

    /// Passes signals on, and what is typed and written, until the process has ended; returns its
    /// exit status (128 and the signal's number where one ended it).
    pub fn stay(&self, pidfd: &OwnedFd, terminal: Option<&OwnedFd>) -> Result<u8> {
        let _raw = terminal.map(|_| RawMode::enter());
        if let Some(terminal) = terminal {
            copy_size(terminal);
        }
        let mut relay = Relay { input: terminal.is_some(), output: terminal.is_some() };
        loop {
            let stdin = rustix::stdio::stdin();
            let mut watched =
                vec![PollFd::new(pidfd, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
            if let Some(terminal) = terminal.filter(|_| relay.output) {
                watched.push(PollFd::new(terminal, PollFlags::IN));
            }
            let input = watched.len();
            if relay.input {
                watched.push(PollFd::new(&stdin, PollFlags::IN));
            }
            match poll(&mut watched, None) {
                Err(Errno::INTR) => continue,
                other => other.map_err(Error::system("wait for the container"))?,
            };
            let ready: Vec<bool> =
                watched.iter().map(|descriptor| !descriptor.revents().is_empty()).collect();
            if let Some(terminal) = terminal {
                if relay.output && ready.get(2) == Some(&true) {
                    relay.output = pass(terminal.as_fd(), rustix::stdio::stdout());
                }
                if relay.input && ready.get(input) == Some(&true) {
                    relay.input = pass(stdin, terminal.as_fd());
                }
            }
            if ready[1] {
                self.pass_signals(pidfd, terminal)?;
            }
            if ready[0] {
                if let Some(terminal) = terminal.filter(|_| relay.output) {
                    drain(terminal);
                }
                return exit_status(pidfd);
            }
        }
    }

    fn pass_signals(&self, pidfd: &OwnedFd, terminal: Option<&OwnedFd>) -> Result<()> {
        let failed = || Error::system("take a signal");
        while let Some(taken) = signal::take(self.signals.as_fd()).map_err(failed())? {
            match taken.number {
                // of hooks and helpers
                signal::CHILD => {}
                signal::WINDOW_CHANGED if terminal.is_some() => {
                    terminal.iter().for_each(|terminal| copy_size(terminal));
                }
                number => {
                    let _ = signal::send(pidfd.as_fd(), number);
                }
            }
        }
        Ok(())
    }
}

struct Relay {
    input: bool,
    output: bool,
}

/// Passes what is there from one to the other; false at its end.
fn pass(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut bytes = [0; 8192];
    match rustix::io::read(from, &mut bytes) {
        // EIO is a terminal whose other side is closed
        Ok(0) | Err(Errno::IO) => false,
        Ok(length) => write_all(to, &bytes[..length]),
        Err(Errno::INTR | Errno::AGAIN) => true,
        Err(_) => false,
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(&to, PollFlags::OUT)], None);
            }
            Err(_) => return false,
        }
    }
    true
}

/// What the container has written before its end.
fn drain(terminal: &OwnedFd) {
    let readable = || {
        let mut watched = [PollFd::new(terminal, PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut watched, Some(&now)).is_ok_and(|count| count > 0)
            && watched[0].revents().contains(PollFlags::IN)
    };
    while readable() && pass(terminal.as_fd(), rustix::stdio::stdout()) {}
}

fn copy_size(terminal: &OwnedFd) {
    if let Ok(size) = tcgetwinsize(rustix::stdio::stdin()) {
        let _ = tcsetwinsize(terminal, size);
    }
}

/// Reaps the process and tells how it ended.
pub fn exit_status(pidfd: &OwnedFd) -> Result<u8> {
    loop {
        match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::system("wait for the container")(errno)),
            Ok(None) => return Ok(255),
            Ok(Some(status)) => {
                return Ok(match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => code as u8,
                    (None, signal) => 128u8.saturating_add(signal.unwrap_or(0) as u8),
                });
            }
        }
    }
}
