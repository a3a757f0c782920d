use std::os::fd::AsFd;

use bulkhead_sys::process::CLONE_NEWPID;
use bulkhead_sys::signal;
use bulkhead_types::oci::Status;
use rustix::io::Errno;

use super::state::alive;
use crate::arguments::{Command, Global};
use crate::directory::Directory;
use crate::error::{Error, Result};

const KILL: i32 = 9;

pub fn run(global: &Global, command: &Command) -> Result<u8> {
    let directory = Directory::open(&global.root, command.id()?)?;
    let number = parse(command.operands.get(1).map_or("TERM", String::as_str))?;
    let (record, status) = directory.look()?;
    let Some(record) = record else { return Err(Error::NotRunning) };
    let all = command.has("all");
    // A container that shares its pid namespace may go on without its first process.
    let shares_pids = record.namespaces & CLONE_NEWPID == 0;
    if all || shares_pids && number == KILL {
        let cgroup = record.cgroup.open()?.filter(|cgroup| cgroup.exists());
        match cgroup {
            Some(cgroup) if number == KILL => {
                if !alive(status) && cgroup.pids()?.is_empty() {
                    return if all { Ok(0) } else { Err(Error::NotRunning) };
                }
                cgroup.kill()?;
                return Ok(0);
            }
            Some(cgroup) => {
                for pid in cgroup.pids()? {
                    let identity = crate::record::Identity::of(pid).ok();
                    if let Some(pidfd) = identity.and_then(crate::record::Identity::open) {
                        let _ = signal::send(pidfd.as_fd(), number);
                    }
                }
                return Ok(0);
            }
            None if !alive(status) => return if all { Ok(0) } else { Err(Error::NotRunning) },
            None => {}
        }
    }
    if !alive(status) {
        return Err(Error::NotRunning);
    }
    let pidfd = record.process.and_then(crate::record::Identity::open).ok_or(Error::NotRunning)?;
    match signal::send(pidfd.as_fd(), number) {
        Ok(()) => {}
        Err(Errno::SRCH) => return Err(Error::NotRunning),
        Err(errno) => return Err(Error::system(format!("send signal {number}"))(errno)),
    }
    if number == KILL
        && status == Status::Paused
        && let Some(cgroup) = record.cgroup.open()?
    {
        // on v1 what is frozen does not die
        cgroup.thaw()?;
    }
    Ok(0)
}

fn parse(text: &str) -> Result<i32> {
    // kill(2): 0 only asks whether there is somebody
    if text == "0" {
        return Ok(0);
    }
    signal::number(text).ok_or_else(|| {
        let text =
            format!("unknown signal {text:?}: write a number from 1 to 64 or a name such as TERM");
        Error::Usage(text)
    })
}
