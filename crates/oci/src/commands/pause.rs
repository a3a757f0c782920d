use bulkhead_runtime::cgroup::Cgroup;
use bulkhead_types::oci::Status;

use crate::arguments::{Command, Global};
use crate::directory::Directory;
use crate::error::{Error, Result};

pub fn pause(global: &Global, command: &Command) -> Result<u8> {
    let (status, cgroup) = open(global, command)?;
    match status {
        Status::Created | Status::Running => cgroup.freeze()?,
        Status::Paused => return Err(Error::Refused("container is already paused".to_owned())),
        _ => return Err(Error::Refused("container not running".to_owned())),
    }
    Ok(0)
}

pub fn resume(global: &Global, command: &Command) -> Result<u8> {
    let (status, cgroup) = open(global, command)?;
    if status != Status::Paused {
        return Err(Error::Refused("container not paused".to_owned()));
    }
    cgroup.thaw()?;
    Ok(0)
}

fn open(global: &Global, command: &Command) -> Result<(Status, Cgroup)> {
    let directory = Directory::open(&global.root, command.id()?)?;
    let (record, status) = directory.look()?;
    let cgroup = record.as_ref().map(|record| record.cgroup.open()).transpose()?.flatten();
    let none = || {
        Error::Refused(
            "the container has no cgroup, and without one it cannot be paused".to_owned(),
        )
    };
    match cgroup.filter(Cgroup::exists) {
        Some(cgroup) => Ok((status, cgroup)),
        None if status == Status::Stopped => Err(Error::NotRunning),
        None => Err(none()),
    }
}
