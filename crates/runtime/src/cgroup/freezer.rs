//! Freezing and thawing, by whichever freezer the processes are in.

use std::time::{Duration, Instant};

use super::file::{self, Directory};
use super::hierarchy::Version;
use super::members::{back_off, wait_event};
use super::{Cgroup, CgroupError, Group};

const TIMEOUT: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Stops every process until [`Self::thaw`], and returns when all have stopped.
    ///
    /// # Errors
    /// [`CgroupError::Timeout`] if one is stuck in the kernel for ten seconds; then all run again.
    pub fn freeze(&self) -> Result<(), CgroupError> {
        // v2's freezer is told of by events and lets the frozen be killed, so it comes first; but
        // on a hybrid host only if the processes are there
        let frozen = match (self.v2(), self.v1_freezer()) {
            (Some(v2), v1) if v1.is_none() || is_populated(&v2.directory)? => {
                freeze_v2(&v2.directory)
            }
            (_, Some(v1)) => freeze_v1(&v1.directory),
            (_, None) => {
                let path = self.path.clone();
                return Err(CgroupError::NoController { controller: "freezer", path });
            }
        };
        match frozen {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.thaw()?;
                let path = self.path.clone();
                Err(CgroupError::Timeout { path, wanted: "frozen", seconds: TIMEOUT.as_secs() })
            }
            Err(error) => {
                let _ = self.thaw();
                Err(error)
            }
        }
    }

    /// Lets every process run again; one that was not frozen does not notice.
    pub fn thaw(&self) -> Result<(), CgroupError> {
        let v2 = match self.v2() {
            Some(group) => file::write(&group.directory, "cgroup.freeze", "0"),
            None => Ok(()),
        };
        let v1 = match self.v1_freezer() {
            Some(group) => file::write(&group.directory, "freezer.state", "THAWED"),
            None => Ok(()),
        };
        v2.and(v1)
    }

    /// Whether the group is frozen, or on its way there.
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        if let Some(group) = self.v2()
            && file::read(&group.directory, "cgroup.freeze")?.trim() == "1"
        {
            return Ok(true);
        }
        match self.v1_freezer() {
            Some(group) => Ok(file::read(&group.directory, "freezer.state")?.trim() != "THAWED"),
            None => Ok(false),
        }
    }

    /// Whether the group itself is to freeze, rather than one above it.
    pub(super) fn is_frozen_itself(&self) -> Result<bool, CgroupError> {
        if let Some(group) = self.v1_freezer() {
            return match file::try_read(&group.directory, "freezer.self_freezing") {
                Ok(text) => Ok(text.trim() == "1"),
                // older than the file: the state has to do
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.is_frozen(),
                Err(cause) => {
                    let file = group.directory.file("freezer.self_freezing");
                    Err(CgroupError::Read { file, cause })
                }
            };
        }
        self.is_frozen()
    }

    /// Freezes by v1 alone, where there is such a freezer.
    pub(super) fn freeze_v1(&self) -> Result<bool, CgroupError> {
        self.v1_freezer().map_or(Ok(false), |group| freeze_v1(&group.directory))
    }

    fn v1_freezer(&self) -> Option<&Group> {
        self.with_controller("freezer").filter(|group| group.version == Version::V1)
    }
}

fn is_populated(directory: &Directory) -> Result<bool, CgroupError> {
    let text = file::read(directory, "cgroup.events")?;
    Ok(file::field(&text, "populated") == Some(1))
}

fn freeze_v2(directory: &Directory) -> Result<bool, CgroupError> {
    file::write(directory, "cgroup.freeze", "1")?;
    wait_event(directory, "frozen", 1, Instant::now() + TIMEOUT)
}

/// v1 tells of no event: the state is FREEZING until it is read as FROZEN.
fn freeze_v1(directory: &Directory) -> Result<bool, CgroupError> {
    let deadline = Instant::now() + TIMEOUT;
    let mut attempt = 0;
    while Instant::now() < deadline {
        // written again each time: a process forked meanwhile is caught (Linux:
        // admin-guide/cgroup-v1/freezer-subsystem.rst)
        file::write(directory, "freezer.state", "FROZEN")?;
        if file::read(directory, "freezer.state")?.trim() == "FROZEN" {
            return Ok(true);
        }
        back_off(&mut attempt);
    }
    Ok(false)
}
