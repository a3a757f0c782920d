//! The processes of a cgroup: listing, killing, waiting until there are none, removing the group.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::file::{self, Directory};
use super::hierarchy::Version;
use super::{Cgroup, CgroupError, Group};

impl Cgroup {
    /// Lists the host's pids of all processes, those in groups below this one too.
    ///
    /// For showing (`docker top`); what is to be signalled goes through [`Self::kill`].
    pub fn pids(&self) -> Result<Vec<u32>, CgroupError> {
        let mut pids = BTreeSet::new();
        // on a hybrid host either side may hold one that the other lost
        for group in self.listed() {
            collect(&group.directory, &mut pids)?;
        }
        Ok(pids.into_iter().collect())
    }

    /// Sends SIGKILL to all processes at once, frozen ones too, so that none can fork away.
    ///
    /// Does not wait for their end.
    pub fn kill(&self) -> Result<(), CgroupError> {
        if let Some(group) = self.v2() {
            match file::try_write(&group.directory, "cgroup.kill", "1") {
                // what is in v1 groups only, or frozen there, is seen to below
                Ok(()) | Err(Errno::NOENT | Errno::NODEV) => {}
                Err(errno) => {
                    let file = group.directory.file("cgroup.kill");
                    return Err(CgroupError::Write {
                        value: "1".into(),
                        file,
                        cause: errno.into(),
                    });
                }
            }
        }
        if self.pids()?.is_empty() {
            return Ok(());
        }
        // a group that cannot be frozen (a process stuck in the kernel) is killed all the same
        let _ = self.freeze_v1();
        let killed = self.kill_each();
        // always, or the killed would not die: crun 1.29.1 fixed just that
        match self.thaw() {
            // systemd removes a scope with its last process
            Err(error) if !error.is_gone() => Err(error),
            _ => killed,
        }
    }

    /// Signals until every pid that is listed has been signalled once.
    fn kill_each(&self) -> Result<(), CgroupError> {
        const ROUNDS: usize = 64;
        let signal_error =
            |errno: Errno| CgroupError::Signal { path: self.path.clone(), cause: errno.into() };
        let mut signalled = BTreeSet::new();
        for _ in 0..ROUNDS {
            let candidates: Vec<(u32, OwnedFd)> = self
                .pids()?
                .into_iter()
                .filter(|pid| !signalled.contains(pid))
                .filter_map(|pid| Some((pid, open_pidfd(pid)?)))
                .collect();
            if candidates.is_empty() {
                return Ok(());
            }
            // A pid may have been given to a stranger between the list and its pidfd; whoever is
            // still listed now was ours when the pidfd was opened.
            let listed: BTreeSet<u32> = self.pids()?.into_iter().collect();
            for (pid, pidfd) in candidates {
                if listed.contains(&pid) {
                    match pidfd_send_signal(&pidfd, Signal::KILL) {
                        Ok(()) | Err(Errno::SRCH) => {}
                        Err(errno) => return Err(signal_error(errno)),
                    }
                    signalled.insert(pid);
                }
            }
        }
        Err(signal_error(Errno::AGAIN))
    }

    /// Waits until no process is left, at most `patience`; returns whether that is so.
    pub fn wait_empty(&self, patience: Duration) -> Result<bool, CgroupError> {
        let deadline = Instant::now() + patience;
        if let Some(group) = self.v2()
            && !wait_event(&group.directory, "populated", 0, deadline)?
        {
            return Ok(false);
        }
        loop {
            let pids = self.pids()?;
            if pids.is_empty() {
                return Ok(true);
            }
            let pidfds: Vec<OwnedFd> = pids.into_iter().filter_map(open_pidfd).collect();
            for pidfd in &pidfds {
                if !wait_readable(pidfd, PollFlags::IN, deadline) {
                    return Ok(false);
                }
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::yield_now();
        }
    }

    /// Removes the group from every hierarchy, with the groups that were made below it.
    ///
    /// What is missing is fine. Dying processes are waited for, two seconds at most; living ones
    /// are an error: [`Self::kill`] first. Goes on past a failure and returns the first.
    pub fn delete(&self) -> Result<(), CgroupError> {
        const TIMEOUT: Duration = Duration::from_secs(2);
        let deadline = Instant::now() + TIMEOUT;
        let results: Vec<_> =
            self.groups.iter().map(|group| self.remove(group, deadline)).collect();
        results.into_iter().collect()
    }

    /// Removes the group from every hierarchy if it has no process and nothing below it, and returns
    /// whether that is so: where it is, nothing has to be listed or read.
    pub fn delete_unused(&self) -> Result<bool, CgroupError> {
        for Group { directory, .. } in &self.groups {
            match unlinkat(&directory.fd, own_name(directory), AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT | Errno::NODEV) => {}
                Err(Errno::BUSY) => return Ok(false),
                Err(errno) => {
                    let directory = directory.path.clone();
                    return Err(CgroupError::Remove { directory, cause: errno.into() });
                }
            }
        }
        Ok(true)
    }

    fn remove(&self, group: &Group, deadline: Instant) -> Result<(), CgroupError> {
        let directory = &group.directory;
        let name = own_name(directory);
        let mut attempt = 0;
        loop {
            let mut removed = unlinkat(&directory.fd, &name, AtFlags::REMOVEDIR);
            if removed == Err(Errno::BUSY) {
                removed = remove_children(directory)
                    .and_then(|()| unlinkat(&directory.fd, &name, AtFlags::REMOVEDIR));
            }
            match removed {
                Ok(()) | Err(Errno::NOENT | Errno::NODEV) => return Ok(()),
                Err(Errno::BUSY) if Instant::now() < deadline => {
                    self.wait_empty(deadline.saturating_duration_since(Instant::now()))?;
                    // the list is empty a moment before the last task is off the kernel's books
                    back_off(&mut attempt);
                }
                Err(errno) => {
                    let directory = directory.path.clone();
                    return Err(CgroupError::Remove { directory, cause: errno.into() });
                }
            }
        }
    }

    /// The groups whose lists of processes count: v2, and one of v1.
    fn listed(&self) -> impl Iterator<Item = &Group> {
        let v1 = self
            .with_controller("freezer")
            .filter(|group| group.version == Version::V1)
            .or_else(|| self.groups.iter().find(|group| group.version == Version::V1));
        self.v2().into_iter().chain(v1)
    }
}

/// By the parent as the group itself knows it: no path is walked again.
fn own_name(directory: &Directory) -> String {
    format!("../{}", directory.path.rsplit('/').next().unwrap_or_default())
}

/// Waits until `key VALUE` stands in `cgroup.events`, which the kernel announces by POLLPRI.
pub(super) fn wait_event(
    directory: &Directory,
    key: &str,
    value: u64,
    deadline: Instant,
) -> Result<bool, CgroupError> {
    let name = "cgroup.events";
    let read_error = |cause: io::Error| CgroupError::Read { file: directory.file(name), cause };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match openat(&directory.fd, name, flags, Mode::empty()) {
        Ok(file) => file,
        // a group that is gone has no members
        Err(Errno::NOENT | Errno::NODEV) => return Ok(true),
        Err(errno) => return Err(read_error(errno.into())),
    };
    loop {
        let mut buffer = [0; 256];
        let length = match rustix::io::pread(&file, &mut buffer, 0) {
            Ok(length) => length,
            Err(Errno::NODEV) => return Ok(true),
            Err(errno) => return Err(read_error(errno.into())),
        };
        let text = String::from_utf8_lossy(&buffer[..length]);
        if file::field(&text, key) == Some(value) {
            return Ok(true);
        }
        if !wait_readable(&file, PollFlags::PRI, deadline) {
            return Ok(false);
        }
    }
}

/// Lets others run before a state without an event is looked at again: first by yielding, then by a
/// millisecond of poll(2).
pub(super) fn back_off(attempt: &mut u32) {
    *attempt += 1;
    if *attempt < 50 {
        std::thread::yield_now();
    } else {
        let millisecond = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        // a signal ends it early, which is fine
        let _ = poll(&mut [], Some(&millisecond));
    }
}

fn wait_readable(fd: &impl AsFd, events: PollFlags, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(fd, events)], Some(&timeout)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

fn open_pidfd(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

fn collect(directory: &Directory, pids: &mut BTreeSet<u32>) -> Result<(), CgroupError> {
    let gone = |error: &io::Error| {
        [Errno::NOENT, Errno::NODEV]
            .iter()
            .any(|it| error.raw_os_error() == Some(it.raw_os_error()))
    };
    match file::try_read(directory, "cgroup.procs") {
        // 0 is a process of another pid namespace
        Ok(text) => {
            let listed = text.lines().filter_map(|line| line.parse::<u32>().ok());
            // 0 is a process of another pid namespace
            pids.extend(listed.filter(|pid| *pid > 0));
        }
        Err(error) if gone(&error) => return Ok(()),
        Err(cause) => {
            return Err(CgroupError::Read { file: directory.file("cgroup.procs"), cause });
        }
    }
    let children = children(directory)
        .map_err(|errno| CgroupError::Read { file: directory.path.clone(), cause: errno.into() })?;
    children.iter().try_for_each(|child| collect(child, pids))
}

fn remove_children(directory: &Directory) -> Result<(), Errno> {
    for child in children(directory)? {
        remove_children(&child)?;
        let name = child.path.rsplit('/').next().unwrap_or_default();
        match unlinkat(&directory.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn children(directory: &Directory) -> Result<Vec<Directory>, Errno> {
    let mut found = Vec::new();
    let entries = match Dir::read_from(&directory.fd) {
        Ok(entries) => entries,
        Err(Errno::NOENT | Errno::NODEV) => return Ok(found),
        Err(errno) => return Err(errno),
    };
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(Errno::NOENT | Errno::NODEV) => break,
            Err(errno) => return Err(errno),
        };
        let Ok(name) = entry.file_name().to_str() else { continue };
        if entry.file_type() != FileType::Directory || name == "." || name == ".." {
            continue;
        }
        match directory.open(name) {
            Ok(child) => found.push(child),
            Err(Errno::NOENT | Errno::NODEV) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(found)
}
