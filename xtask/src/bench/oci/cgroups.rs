//! The cgroups that the bench makes, in every hierarchy below one name.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bulkhead_sys::signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

const ROOT: &str = "/sys/fs/cgroup";

/// The directories of `name` in the hierarchies that are mounted here.
pub fn all(name: &str) -> Vec<PathBuf> {
    let mut found = vec![Path::new(ROOT).join(name)];
    if let Ok(entries) = std::fs::read_dir(ROOT) {
        found.extend(entries.filter_map(Result::ok).map(|entry| entry.path().join(name)));
    }
    found.retain(|path| path.join("cgroup.procs").exists());
    found
}

/// Ends every process below `directory` and removes it.
pub fn remove(directory: &Path) -> Result<()> {
    for child in children(directory) {
        remove(&child)?;
    }
    loop {
        let procs = std::fs::read_to_string(directory.join("cgroup.procs"));
        let Some(pid) = procs.unwrap_or_default().lines().find_map(|pid| pid.parse().ok()) else {
            break;
        };
        end(pid)?;
    }
    match std::fs::remove_dir(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove the cgroup {}", directory.display()))
        }
        _ => Ok(()),
    }
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries.filter_map(Result::ok).map(|it| it.path()).filter(|it| it.is_dir()).collect()
}

fn end(pid: i32) -> Result<()> {
    let Some(pid) = Pid::from_raw(pid) else { return Ok(()) };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    loop {
        let soon = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&soon))?;
        // Those whose parents have ended are ours. The first process of a pid namespace is not gone
        // before the others have been reaped (pid_namespaces(7)).
        while let Ok(Some(_)) = signal::reap_any() {}
        if ended > 0 {
            return Ok(());
        }
    }
}
