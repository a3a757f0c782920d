//! What a command and a container's process say to each other, and small duties between them.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use bulkhead_runtime::plan::{Failure, Report};
use bulkhead_types::oci::{self, Config};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::error::{Error, Result};
use crate::listener;

/// The process that is about to be executed.
#[derive(Debug, Clone, Copy)]
pub struct Process<'a> {
    pub pidfd: &'a OwnedFd,
    pub pid: u32,
}

/// Waits for the end of the socket, which the exec closes.
pub fn await_execution(
    control: &OwnedFd,
    process: Process<'_>,
    config: &Config,
    state: impl Fn() -> oci::State,
    failed: impl Fn(&Failure) -> Error,
) -> Result<()> {
    loop {
        let report = Report::wait(control.as_fd());
        match report.map_err(Error::system("hear from the container's process"))? {
            None => return Ok(()),
            Some((Report::Failed(failure), _)) => return Err(failed(&failure)),
            Some((Report::Listener, Some(memory))) => {
                listener::pass_on(&memory, process.pidfd, process.pid, config, state())?;
            }
            Some(_) => {}
        }
    }
}

/// One byte that lets the child go on, and the pid that it has here.
pub fn say(control: &OwnedFd, pid: u32) -> Result<()> {
    let mut message = [b'g'; 5];
    message[1..].copy_from_slice(&pid.to_le_bytes());
    match rustix::net::send(control, &message, rustix::net::SendFlags::NOSIGNAL) {
        // it has ended, and its last report says why
        Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
        Err(errno) => Err(Error::system("let the container's process go on")(errno)),
    }
}

/// Gives up what the caller has been bound to (taskset(1), `CPUAffinity=` of systemd): that is no
/// limit of the container, which has its cgroup's (runc #4041). The kernel leaves out what is not
/// there, or not in the cpuset.
pub fn leave_processors() {
    let mut all = rustix::thread::CpuSet::new();
    for processor in 0..rustix::thread::CpuSet::MAX_CPU {
        all.set(processor);
    }
    // a runtime that may not stays where it is
    let _ = rustix::thread::sched_setaffinity(None, &all);
}

/// Waits for the end of a child.
pub fn reap(pidfd: &OwnedFd) {
    while let Err(Errno::INTR) = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {}
}

/// Written beside and renamed: whoever waits for the file finds a whole number in it.
pub fn write_pid_file(path: &Path, pid: u32) -> Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, pid.to_string())
        .and_then(|()| std::fs::rename(&partial, path))
        .map_err(Error::system(format!("write the pid file {}", path.display())))
}

pub fn reason(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}
