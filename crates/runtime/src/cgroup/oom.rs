//! Hearing of the kernel's kills for want of memory, by a descriptor for each group.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use super::hierarchy::Version;
use super::{Cgroup, CgroupError, file};

/// Tells when the kernel has run out of a group's memory: its descriptor is ready then.
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
    /// Kills that [`Self::take`] has told of; `None` on v1, which tells of the moment itself.
    told: Option<AtomicU64>,
}

impl Cgroup {
    /// Watches from now on; `None` where nothing counts memory.
    ///
    /// On v1 that is an eventfd (Linux: admin-guide/cgroup-v1/memory.rst, "OOM Control"), on v2 the file
    /// `memory.events`, which poll(2) knows to have changed (admin-guide/cgroup-v2.rst).
    pub fn watch_oom(&self) -> Result<Option<OomWatch>, CgroupError> {
        let Some(group) = self.with_controller("memory") else { return Ok(None) };
        let directory = &group.directory;
        let open = |name: &str| {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(&directory.fd, name, flags, Mode::empty()).map_err(|errno| CgroupError::Open {
                file: directory.file(name),
                cause: errno.into(),
            })
        };
        if group.version == Version::V2 {
            let watch = OomWatch { fd: open("memory.events")?, told: Some(AtomicU64::new(0)) };
            // from the first reading on, a change is one since then
            let told = watch.kills().unwrap_or(0);
            watch.told.iter().for_each(|count| count.store(told, Ordering::Relaxed));
            return Ok(Some(watch));
        }
        let control = open("memory.oom_control")?;
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|errno| {
            CgroupError::Open { file: "an eventfd".into(), cause: errno.into() }
        })?;
        let line = format!("{} {}", fd.as_raw_fd(), control.as_raw_fd());
        file::write(directory, "cgroup.event_control", &line)?;
        Ok(Some(OomWatch { fd, told: None }))
    }
}

impl OomWatch {
    /// Whether to wait for `POLLPRI`, and not for `POLLIN`.
    pub fn is_priority(&self) -> bool {
        self.told.is_some()
    }

    /// Whether it has happened since the last call; the descriptor is not ready after it.
    pub fn take(&self) -> Result<bool, Errno> {
        match &self.told {
            Some(told) => {
                let kills = self.kills()?;
                Ok(told.swap(kills, Ordering::Relaxed) < kills)
            }
            None => match rustix::io::read(&self.fd, &mut [0; 8]) {
                Ok(_) => Ok(true),
                Err(Errno::AGAIN | Errno::INTR) => Ok(false),
                Err(errno) => Err(errno),
            },
        }
    }

    fn kills(&self) -> Result<u64, Errno> {
        let mut text = [0; 512];
        let length = rustix::io::pread(&self.fd, &mut text, 0)?;
        let text = String::from_utf8_lossy(&text[..length]);
        Ok(file::field(&text, "oom_kill").unwrap_or(0))
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for OomWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
