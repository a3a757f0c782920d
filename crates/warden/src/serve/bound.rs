//! Execs that may not outlast who asked for them: the probes of health checks.
//!
//! One of these is the first of its session, and so of its process group. What it starts is found by
//! that, and by descent: what makes a session of its own and is not its child any more is not found,
//! and ends with the container.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};

use super::Ready;
use super::connections::Caller;

/// What ties an exec to its client.
pub(super) struct Bound {
    /// The connection that asked for it.
    pub client: u64,
    /// The container's group of v2, which lists its processes. Where there is v1 alone, only the
    /// process group is found.
    cgroup: Option<OwnedFd>,
}

/// Whether the container's processes are looked at one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scan {
    Always,
    /// Unless there are so many that it would hold up the others: at the usual end of a probe, which
    /// has left nothing.
    IfShort,
}

/// How many are looked at with [`Scan::IfShort`]: each costs some microseconds.
const SHORT: usize = 128;

/// How often those that were forked meanwhile are looked for.
const ROUNDS: usize = 16;

impl Bound {
    pub(super) fn new(caller: Caller, cgroup: Option<&OwnedFd>) -> Self {
        // Without a copy there is less to find, and no reason not to run.
        let cgroup = cgroup.and_then(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 3).ok());
        Self { client: caller.client(), cgroup }
    }

    /// Ends all that the exec has started, but not itself. `leader` is a child that has not been
    /// reaped, so that its number, and those of its group and session, are its own.
    pub(super) fn end_remains(&self, ready: &Ready, leader: u32, scan: Scan) {
        let Some(group) = i32::try_from(leader).ok().and_then(Pid::from_raw) else { return };
        if scan == Scan::Always {
            self.end_related(ready, leader, scan);
        }
        // One that has not made its session yet has no group either.
        let _ = kill_process_group(group, Signal::KILL);
        if scan == Scan::IfShort {
            self.end_related(ready, leader, scan);
        }
    }

    /// Looks again until nothing new is found: what is killed cannot fork any more.
    fn end_related(&self, ready: &Ready, leader: u32, scan: Scan) {
        let Some(cgroup) = &self.cgroup else { return };
        let mut killed = HashSet::new();
        for _ in 0..ROUNDS {
            let listed = listed(cgroup);
            if scan == Scan::IfShort && listed.len() > SHORT {
                return;
            }
            let seen = listed.iter().filter_map(|pid| Some((*pid, Kin::read(ready, *pid)?)));
            let seen: HashMap<u32, Kin> = seen.collect();
            let found = related(&seen, leader);
            let mut is_new = false;
            for pid in found {
                let Some(pidfd) = open(pid) else { continue };
                // Its number may have been another's before it was opened.
                if Kin::read(ready, pid).as_ref() == seen.get(&pid) {
                    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
                    is_new |= killed.insert(pid);
                }
            }
            if !is_new {
                return;
            }
        }
    }
}

/// To whom a process belongs, by proc_pid_stat(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kin {
    parent: u32,
    session: u32,
    /// Ticks since boot: with the number it is one process alone.
    started: u64,
}

impl Kin {
    /// `None` for one that is gone, or has ended.
    fn read(ready: &Ready, pid: u32) -> Option<Self> {
        let stat = ready.proc_file(pid, "stat", OFlags::RDONLY).ok()?;
        Self::parse(&std::io::read_to_string(std::fs::File::from(stat)).ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The name may have anything in it, and is in parentheses; the state is the third field.
        let mut fields = stat.rsplit_once(") ")?.1.split_ascii_whitespace();
        if matches!(fields.next()?, "Z" | "X") {
            return None;
        }
        let parent = fields.next()?.parse().ok()?;
        let session = fields.nth(1)?.parse().ok()?;
        let started = fields.nth(15)?.parse().ok()?;
        Some(Self { parent, session, started })
    }
}

/// Those of the session of `leader`, and all that descend from it or from them.
fn related(seen: &HashMap<u32, Kin>, leader: u32) -> Vec<u32> {
    let is_related = |pid: &u32| {
        let mut pid = *pid;
        // No more steps than there are processes: numbers that were read at different moments could
        // make a circle.
        for _ in 0..seen.len() {
            let Some(kin) = seen.get(&pid) else { return false };
            if kin.session == leader || kin.parent == leader {
                return true;
            }
            pid = kin.parent;
        }
        false
    };
    seen.keys().filter(|pid| **pid != leader).filter(|pid| is_related(pid)).copied().collect()
}

fn listed(cgroup: &OwnedFd) -> Vec<u32> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::openat(cgroup, "cgroup.procs", flags, Mode::empty()) else {
        return Vec::new();
    };
    let text = std::io::read_to_string(std::fs::File::from(file)).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
}

fn open(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_is_read_whatever_its_name_is() {
        let line = |name: &str, state: &str| {
            format!("7 ({name}) {state} 5 7 6 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 1234 1 1")
        };
        let kin = Kin { parent: 5, session: 6, started: 1234 };
        assert_eq!(Kin::parse(&line("sh", "S")), Some(kin));
        assert_eq!(Kin::parse(&line("a) R 1 1", "R")), Some(kin));
        assert_eq!(Kin::parse(&line("sh", "Z")), None, "it has ended");
        assert_eq!(Kin::parse("7 (sh"), None);
    }

    #[test]
    fn session_and_descent_make_a_probes_own() {
        let kin = |parent, session| Kin { parent, session, started: 0 };
        let seen = HashMap::from([
            (1, kin(0, 1)),    // the container's first
            (10, kin(0, 10)),  // the probe
            (11, kin(10, 10)), // its child
            (12, kin(11, 12)), // a session of its own, by descent
            (13, kin(1, 10)),  // an orphan of its session
            (14, kin(13, 14)), // its child
            (20, kin(1, 1)),   // the service's
            (30, kin(31, 30)), // a circle
            (31, kin(30, 30)),
        ]);
        let mut found = related(&seen, 10);
        found.sort_unstable();
        assert_eq!(found, [11, 12, 13, 14]);
    }
}
