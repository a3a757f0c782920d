//! What is kept of a container between two commands.

use std::os::fd::OwnedFd;

use bulkhead_types::oci::{self, Config, Status};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::control_group::Place;

/// `state.json` in a container's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub id: String,
    pub oci_version: String,
    pub bundle: String,
    pub rootfs: String,
    /// Seconds since the epoch, RFC 3339.
    pub created: String,
    pub owner: String,
    pub cgroup: Place,
    /// `CLONE_NEW…` of the namespaces that are not the runtime's own.
    pub namespaces: i32,
    /// `None` until the process is cloned.
    pub process: Option<Identity>,
    /// The resctrl groups to remove with it, absolute, outermost first, a line each.
    #[serde(default)]
    pub resctrl: String,
}

/// A process that can be found again: the pid, and when it was started, since pids are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub pid: u32,
    /// Clock ticks since boot, field 22 of proc_pid_stat(5).
    pub start_time: u64,
}

impl Identity {
    /// Reads when `pid` was started; it must not be reaped meanwhile.
    pub fn of(pid: u32) -> std::io::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        match parse_stat(&stat) {
            Some((_, start_time)) => Ok(Self { pid, start_time }),
            None => Err(std::io::ErrorKind::InvalidData.into()),
        }
    }

    /// Opens the process, if it is alive: neither ended nor a zombie.
    pub fn open(self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH | _) => return None,
        };
        // Read after the pidfd was opened: what it shows is what the pidfd holds, or that is gone.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        let (state, start_time) = parse_stat(&stat)?;
        let alive = start_time == self.start_time && !matches!(state, 'Z' | 'X');
        alive.then_some(pidfd)
    }
}

/// The state letter and the start time. The name between them may hold anything, brackets too.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

impl Record {
    pub fn state(&self, status: Status, config: &Config) -> oci::State {
        let pid = match status {
            Status::Stopped | Status::Creating => 0,
            _ => self.process.map_or(0, |process| process.pid),
        };
        oci::State {
            oci_version: self.oci_version.clone(),
            id: self.id.clone(),
            status,
            pid,
            bundle: self.bundle.clone(),
            annotations: config.annotations.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_again_and_no_other_is_taken_for_it() {
        let own = Identity::of(std::process::id()).unwrap();
        assert!(own.open().is_some());
        assert!(Identity { start_time: own.start_time + 1, ..own }.open().is_none());
        assert!(Identity { pid: 0, ..own }.open().is_none());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let identity = Identity::of(child.id()).unwrap();
        child.wait().unwrap();
        assert!(identity.open().is_none());
    }

    #[test]
    fn a_name_with_brackets_hides_nothing() {
        let fields = "0 ".repeat(18);
        let stat = format!("7 (a) Z 1 (b)) S {fields}4711 0 0");
        assert_eq!(parse_stat(&stat), Some(('S', 4711)));
        assert_eq!(parse_stat("7 (x"), None);
    }
}
