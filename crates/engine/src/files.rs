//! The files of a container, running or not: for `docker cp`, `docker export` and `docker commit`.

use std::os::fd::{AsFd, OwnedFd};

use bulkhead_image::Layer;
use bulkhead_spec::{Id, IdRange};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags};
use tokio::sync::OwnedMutexGuard;

use crate::create::blocking;
use crate::error::io_error;
use crate::{Engine, EngineError, Status};

/// A container's root directory, and whose its files are.
#[derive(Debug)]
pub struct ContainerFiles {
    /// What the container sees as `/`. Resolve names below it with `bulkhead_sys::path` only.
    pub root: OwnedFd,
    /// The host ids that the container sees as 0, 1, 2 …; `None`: the host's own.
    pub range: Option<IdRange>,
    /// Keeps a container that does not run from being started or removed meanwhile.
    _held: Option<OwnedMutexGuard<()>>,
}

impl Engine {
    /// Opens a container's root: the running one's own with its volumes, or else what a start would
    /// show it, without volumes.
    pub async fn files(&self, name: &str) -> Result<ContainerFiles, EngineError> {
        let (id, guard) = self.exclusive(name).await?;
        let engine = self.arc();
        blocking(move || {
            let record = engine.record(id)?;
            let range = record.container.id_range;
            if record.is_running() {
                drop(guard);
                return Ok(ContainerFiles { root: engine.live_root(id)?, range, _held: None });
            }
            let users = match range {
                Some(range) => Some(engine.warden.user_namespace(range)?),
                None => None,
            };
            let directory = engine.places.make_container(id, range)?;
            let root = engine.rootfs(&record, &directory, users.as_ref())?;
            Ok(ContainerFiles { root, range, _held: Some(guard) })
        })
        .await
    }

    /// The root of the container's first process, through /proc.
    fn live_root(&self, id: Id) -> Result<OwnedFd, EngineError> {
        let (pid, pidfd) = {
            let state = self.state();
            let slot = state.slot(id)?;
            (slot.record.container.state.pid, slot.live.pidfd.clone())
        };
        let ended = || EngineError::conflict(format!("container {id} is not running"));
        let pidfd = pidfd.ok_or_else(ended)?;
        let what = || io_error(format!("open the root of container {}", id.short()));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let process = rustix::fs::openat(CWD, format!("/proc/{pid}"), flags, Mode::empty())
            .map_err(|_| ended())?;
        // The number was the container's if its process has not ended by now, and the directory
        // that was opened stays that process's.
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut fds, Some(&now)).map_err(|errno| what()(errno.into()))? != 0 {
            return Err(ended());
        }
        rustix::fs::openat(&process, "root", flags, Mode::empty())
            .map_err(|errno| what()(errno.into()))
    }

    /// Makes a layer of what the container changed, frozen meanwhile if `pause`. `None`: nothing.
    pub async fn changed_layer(
        &self,
        name: &str,
        pause: bool,
    ) -> Result<Option<Layer>, EngineError> {
        let (id, guard) = self.exclusive(name).await?;
        let engine = self.arc();
        blocking(move || {
            let _guard = guard;
            let container = engine.record(id)?.container;
            let directory = engine.places.make_container(id, container.id_range)?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let upper = rustix::fs::openat(&directory, "upper", flags, Mode::empty())
                .map_err(|errno| io_error("upper")(errno.into()))?;
            let freeze = pause && container.state.status == Status::Running;
            if freeze {
                engine.cgroup(id)?.freeze()?;
            }
            let layer = engine.content.commit_upper(upper.as_fd(), container.id_range);
            if freeze {
                engine.cgroup(id)?.thaw()?;
            }
            Ok(layer?)
        })
        .await
    }
}
