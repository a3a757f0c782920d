use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use bulkhead_sys::{path, weak};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::{Report, Walk, to_errno, trees};

impl Walk<'_> {
    /// Makes a terminal in the container's devpts, gives its master to the parent and keeps the
    /// other side; with `console` it becomes `/dev/console` too.
    pub(super) fn open_terminal(
        &mut self,
        rows: u16,
        columns: u16,
        console: bool,
    ) -> Result<(), Errno> {
        let root: OwnedFd;
        let root = match self.root {
            Some(root) => root,
            None => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                root = rustix::fs::open(c"/", flags, Mode::empty())?;
                root.as_fd()
            }
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let directory = to_errno(path::open(root, Path::new("/dev/pts"), flags, Mode::empty()))?;
        // In a running container anything may lie there (CVE-2025-52565): only the multiplexer of
        // a devpts is opened, in that mount and through no link.
        const DEVPTS: u64 = 0x1cd1;
        if rustix::fs::fstatfs(&directory)?.f_type as u64 != DEVPTS {
            return Err(Errno::NODEV);
        }
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let master = rustix::fs::openat2(&directory, c"ptmx", flags, Mode::empty(), within)?;
        let stat = rustix::fs::fstat(&master)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice
            || stat.st_rdev != rustix::fs::makedev(5, 2)
        {
            return Err(Errno::NODEV);
        }
        unlockpt(&master)?;
        let terminal = ioctl_tiocgptpeer(
            &master,
            OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
        )?;
        if (rows, columns) != (0, 0) {
            let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            tcsetwinsize(&terminal, size)?;
        }
        if console {
            let target = self.file(Path::new("/dev/console"))?;
            if weak::without("console") {
                // by name, wherever that leads by now; late, so that a test need not wait for a hit
                (0..200).for_each(|_| rustix::thread::sched_yield());
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                let named = rustix::fs::openat(root, c"dev/pts/0", flags, Mode::empty())?;
                trees::bind(named.as_fd(), target.as_fd())?;
            } else {
                trees::bind(terminal.as_fd(), target.as_fd())?;
            }
        }
        Report::Terminal.send(self.surroundings.control, Some(master.as_fd()));
        self.terminal = Some(terminal);
        Ok(())
    }

    /// A session of its own, with standard input, output and error in place.
    pub(super) fn new_session(&mut self, terminal: bool) -> Result<(), Errno> {
        rustix::process::setsid()?;
        let of_terminal;
        let stdio = match (&self.terminal, self.surroundings.stdio) {
            (Some(terminal), _) if terminal_wanted(terminal) => {
                rustix::process::ioctl_tiocsctty(terminal)?;
                of_terminal = [terminal.as_fd(); 3];
                of_terminal
            }
            (_, Some(stdio)) if !terminal => stdio,
            _ => return Err(Errno::NOTTY),
        };
        rustix::stdio::dup2_stdin(stdio[0])?;
        rustix::stdio::dup2_stdout(stdio[1])?;
        rustix::stdio::dup2_stderr(stdio[2])
    }
}

fn terminal_wanted(terminal: &OwnedFd) -> bool {
    rustix::termios::isatty(terminal)
}
