//! The files of a container, running or not: for `docker cp` and `docker export`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use bulkhead_runtime::{Mount, MountKind};
use bulkhead_sys::mount::{self, Attributes, Depth};
use bulkhead_sys::path;
use bulkhead_types::{Id, IdMap};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatVfsMountFlags, StatxFlags};
use rustix::mount::{MountPropagationFlags, MoveMountFlags, mount_change, move_mount};
use rustix::thread::UnshareFlags;
use tokio::sync::OwnedMutexGuard;

use crate::blocking::blocking;
use crate::containers::Record;
use crate::descriptors::Descriptors;
use crate::error::io_error;
use crate::{Engine, EngineError};

/// What a container sees as `/`, and whose the files there are.
#[derive(Debug)]
pub struct ContainerFiles {
    /// With volumes and what is bound into it. Resolve names below it with `bulkhead_sys::path`
    /// only.
    pub root: OwnedFd,
    /// The host ids that the container sees as 0, 1, 2 …; `None`: those are the files' own.
    pub range: Option<IdMap>,
    /// The mounts of a container that does not run live as long as this.
    _mounts: Option<OwnedFd>,
    /// Keeps a container that does not run from being started or removed meanwhile.
    _held: Option<OwnedMutexGuard<()>>,
}

impl ContainerFiles {
    /// Refuses, in Docker's words, a directory that nothing can be written to (moby:
    /// daemon/archive_unix.go, `checkIfPathIsInAVolume`).
    pub fn check_writable(&self, directory: BorrowedFd<'_>) -> Result<(), EngineError> {
        let failed = || io_error("look at the directory to copy to");
        let flags = rustix::fs::fstatvfs(directory).map_err(|e| failed()(e.into()))?.f_flag;
        if !flags.contains(StatVfsMountFlags::RDONLY) {
            return Ok(());
        }
        let mount_of = |fd: BorrowedFd<'_>| {
            rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
                .map(|stat| stat.stx_mnt_id)
                .map_err(|e| failed()(e.into()))
        };
        Err(EngineError::invalid(match mount_of(directory)? == mount_of(self.root.as_fd())? {
            true => "container rootfs is marked read-only",
            false => "mounted volume is marked read-only",
        }))
    }
}

impl Engine {
    /// Opens the root of a container: the running one's own, or what a start would show.
    pub async fn files(self: &Arc<Self>, id: Id) -> Result<ContainerFiles, EngineError> {
        let guard = self.containers.exclusive(id).await?;
        let engine = Arc::clone(self);
        blocking(move |_| {
            let record = engine.containers.record(id)?;
            let range = record.container.id_range;
            if record.is_running() {
                drop(guard);
                let root = engine.live_root(id)?;
                return Ok(ContainerFiles { root, range, _mounts: None, _held: None });
            }
            let (root, mounts) = engine.mounted_root(&record)?;
            Ok(ContainerFiles { root, range, _mounts: Some(mounts), _held: Some(guard) })
        })
        .await
    }

    /// The root of a container that does not run, and the mount namespace that keeps its mounts.
    fn mounted_root(&self, record: &Record) -> Result<(OwnedFd, OwnedFd), EngineError> {
        let container = &record.container;
        let users = match container.id_range {
            Some(range) => Some(self.warden.user_namespace(range)?),
            None => None,
        };
        let directory = self.container_directory(record)?;
        let root = self.rootfs(record, &directory, users.as_ref())?;
        let mut descriptors = Descriptors::default();
        let users = users.as_ref().map(OwnedFd::as_fd);
        let mut mounts = self.user_mounts(container, users, &mut descriptors)?;
        // Stable: what lies on another mount comes after it.
        mounts.sort_by_key(|mount| mount.target.matches('/').count());
        let assembly = Assembly {
            root: root.as_fd(),
            readonly: container.host.readonly_rootfs,
            mounts: &mounts,
            descriptors: &descriptors.into_inner(),
            owner: container.id_range.map(|range| range.first),
        };
        let what = || io_error(format!("mount the files of container {}", container.id.short()));
        let mounts = assembly.run().map_err(what())?;
        Ok((root, mounts))
    }

    /// The root of the container's first process, through /proc.
    fn live_root(&self, id: Id) -> Result<OwnedFd, EngineError> {
        let (pid, pidfd) = {
            let state = self.containers.lock();
            let entry = state.entry(id)?;
            (entry.record.container.state.pid, entry.runtime.pidfd.clone())
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
}

/// A root and what is mounted in it, put together where nobody else sees it.
struct Assembly<'a> {
    root: BorrowedFd<'a>,
    readonly: bool,
    mounts: &'a [Mount],
    descriptors: &'a [OwnedFd],
    /// The host id that the container sees as 0, whose missing mount points are.
    owner: Option<u32>,
}

impl Assembly<'_> {
    /// Mounts all of it in a new mount namespace, which is returned: the mounts end with it.
    fn run(&self) -> std::io::Result<OwnedFd> {
        // A thread of its own, since a namespace is a thread's until it ends.
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, || self.mount())?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn mount(&self) -> std::io::Result<OwnedFd> {
        bulkhead_sys::unshare(UnshareFlags::NEWNS)?;
        // The host shall not see what is mounted here.
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        if let Some(owner) = self.owner {
            bulkhead_sys::process::act_as(owner)?;
        }
        // Where it is does not matter: it is used by its descriptor. Mounts in it want a place.
        move_mount(self.root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        for mount in self.mounts {
            self.mount_one(mount)?;
        }
        if self.readonly {
            mount::set_attributes(self.root, Depth::One, Attributes::RDONLY)?;
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(CWD, "/proc/thread-self/ns/mnt", flags, Mode::empty())?)
    }

    fn mount_one(&self, mount: &Mount) -> std::io::Result<()> {
        let fd = match mount.kind {
            MountKind::Detached { fd, .. } | MountKind::Bound { fd, .. } => fd,
            // A tmpfs is empty until the start, and gone with it.
            _ => return Ok(()),
        };
        let source = self.descriptors[usize::from(fd.0)].as_fd();
        // What is bound with mounts that come later would pass these on.
        mount::set_private(source, Depth::Tree)?;
        let target = Path::new(&mount.target);
        let source_type = FileType::from_raw_mode(rustix::fs::fstat(source)?.st_mode);
        let target = match source_type == FileType::Directory {
            true => path::create_dir_all(self.root, target, Mode::from_raw_mode(0o755)),
            false => path::open_or_create_file(self.root, target, Mode::from_raw_mode(0o644)),
        }?;
        // One that is bound is read-only already, if it is to be.
        if mount.readonly && matches!(mount.kind, MountKind::Detached { .. }) {
            mount::set_attributes(source, Depth::Tree, Attributes::RDONLY)?;
        }
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        Ok(move_mount(source, "", target, "", flags)?)
    }
}
