//! A terminal with a program on it, as a person has one.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::Daemon;

/// How long a program may take to show what is waited for.
const LIMIT: Duration = Duration::from_secs(60);

/// The keyboard and screen of a line for the shell.
#[derive(Debug)]
pub struct Terminal {
    keyboard: File,
    child: Child,
    /// All that was shown since the last wait.
    screen: String,
}

impl Terminal {
    /// Runs the line where [`Daemon::shell`] does, with a session and a controlling terminal of its own.
    pub fn open(daemon: &Daemon, line: &str) -> Result<Self> {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&keyboard)?;
        unlockpt(&keyboard)?;
        let name = ptsname(&keyboard, Vec::new())?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let program: OwnedFd = rustix::fs::open(name, flags, Mode::empty())?;
        let size = rustix::termios::Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&program, size)?;
        let mut command: Command = daemon.inside("setsid".as_ref());
        command.args(["--ctty", "--wait", "sh", "-c", line]).env("TERM", "xterm");
        command.stdin(Stdio::from(program.try_clone()?));
        command.stdout(Stdio::from(program.try_clone()?)).stderr(Stdio::from(program));
        let child = command.spawn().context("run setsid")?;
        Ok(Self { keyboard: keyboard.into(), child, screen: String::new() })
    }

    pub fn press(&mut self, keys: &[u8]) -> Result<()> {
        self.keyboard.write_all(keys).context("press keys")
    }

    /// Returns when `text` is shown, with all that came before it since the last wait.
    pub fn until(&mut self, text: &str) -> Result<String> {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(at) = self.screen.find(text) {
                let rest = self.screen.split_off(at + text.len());
                return Ok(std::mem::replace(&mut self.screen, rest));
            }
            if !self.read(end)? {
                bail!("{text:?} is not shown, but {:?}", self.screen);
            }
        }
    }

    /// Everything up to the end of the line's last program, and its exit status.
    pub fn end(mut self) -> Result<(i32, String)> {
        let end = Instant::now() + LIMIT;
        while self.read(end)? {}
        let status = self.child.wait()?;
        Ok((status.code().unwrap_or(-1), self.screen.clone()))
    }

    /// Whether there was something more.
    fn read(&mut self, end: Instant) -> Result<bool> {
        let left = end.saturating_duration_since(Instant::now());
        let limit =
            Timespec { tv_sec: left.as_secs().try_into()?, tv_nsec: left.subsec_nanos().into() };
        let mut polled = [PollFd::new(&self.keyboard, PollFlags::IN)];
        if poll(&mut polled, Some(&limit))? == 0 {
            return Ok(false);
        }
        let mut bytes = [0; 4096];
        match self.keyboard.read(&mut bytes) {
            Ok(count) => {
                self.screen.push_str(&String::from_utf8_lossy(&bytes[..count]));
                Ok(count > 0)
            }
            // nobody has the other end any more (pty(7))
            Err(cause) if cause.raw_os_error() == Some(5) => Ok(false),
            Err(cause) => Err(cause.into()),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // of a test that has failed; the shell's programs are hung up with their terminal
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
