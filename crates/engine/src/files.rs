//! The files of a container, running or not: for `docker cp`, `docker export` and `docker commit`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_image::Layer;
use bulkhead_types::{Id, IdMap};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat};
use tokio::sync::OwnedMutexGuard;

use crate::blocking::blocking;
use crate::error::io_error;
use crate::{Container, Engine, EngineError, MountPoint, MountType, Status};

/// Where a path of a container is, and whose the files there are.
#[derive(Debug)]
pub struct ContainerFiles {
    /// What the container sees as `/`, or a volume of its. Resolve names below it with
    /// `bulkhead_sys::path` only.
    pub root: OwnedFd,
    /// The path below `root`, absolute.
    pub path: PathBuf,
    /// The host ids that the container sees as 0, 1, 2 …; `None`: those are the files' own.
    pub range: Option<IdMap>,
    /// Keeps a container that does not run from being started or removed meanwhile.
    _held: Option<OwnedMutexGuard<()>>,
}

impl Engine {
    /// Opens what holds `path` in a container: a volume or bound directory, or else the root, the
    /// running one's own or what a start would show.
    pub async fn files(
        self: &Arc<Self>,
        id: Id,
        path: &Path,
    ) -> Result<ContainerFiles, EngineError> {
        let guard = self.exclusive(id).await?;
        let engine = Arc::clone(self);
        let path = Path::new("/").join(path);
        blocking(move |_| {
            let record = engine.record(id)?;
            let range = record.container.id_range;
            if let Some((root, path)) = engine.mounted(&record.container, &path)? {
                // Mounts are id-mapped: on disk the owners are those that the container sees.
                return Ok(ContainerFiles { root, path, range: None, _held: Some(guard) });
            }
            if record.is_running() {
                drop(guard);
                return Ok(ContainerFiles {
                    root: engine.live_root(id)?,
                    path,
                    range,
                    _held: None,
                });
            }
            let users = match range {
                Some(range) => Some(engine.warden.user_namespace(range)?),
                None => None,
            };
            let directory = engine.data_dir.make_container(id, range)?;
            let root = engine.rootfs(&record, &directory, users.as_ref())?;
            Ok(ContainerFiles { root, path, range, _held: Some(guard) })
        })
        .await
    }

    /// The volume or bound directory that `path` is in, by its name alone, and the rest of it.
    fn mounted(
        &self,
        container: &Container,
        path: &Path,
    ) -> Result<Option<(OwnedFd, PathBuf)>, EngineError> {
        let inside = |mount: &&MountPoint| path.starts_with(&mount.target);
        let mounts = container.mounts.iter().filter(inside);
        let Some(mount) = mounts.max_by_key(|mount| mount.target.len()) else { return Ok(None) };
        let root = match (mount.kind(), &mount.name) {
            (MountType::Volume, Some(name)) => self.data_dir.volume(name)?,
            (MountType::Bind, _) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                match bulkhead_sys::path::open_host(Path::new(&mount.source), flags) {
                    Ok(root) => root,
                    // A file: the running container's root shows it, if anything does.
                    Err(_) => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        let rest = path.strip_prefix(&mount.target).unwrap_or(Path::new(""));
        Ok(Some((root, Path::new("/").join(rest))))
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
        self: &Arc<Self>,
        id: Id,
        pause: bool,
    ) -> Result<Option<Layer>, EngineError> {
        let guard = self.exclusive(id).await?;
        let engine = Arc::clone(self);
        blocking(move |_| {
            let _guard = guard;
            let container = engine.record(id)?.container;
            let directory = engine.data_dir.make_container(id, container.id_range)?;
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

    /// What the container changed in its image, sorted by path (`docker diff`).
    pub async fn changes(self: &Arc<Self>, id: Id) -> Result<Vec<Change>, EngineError> {
        let guard = self.exclusive(id).await?;
        let engine = Arc::clone(self);
        blocking(move |_| {
            let _guard = guard;
            let record = engine.record(id)?;
            let directory = engine.data_dir.make_container(id, record.container.id_range)?;
            let layers = record.layers.iter().rev().map(|layer| engine.content.layer(*layer));
            let layers = layers.collect::<Result<Vec<_>, _>>()?;
            let upper = bulkhead_sys::path::open(
                directory.as_fd(),
                Path::new("upper"),
                OFlags::PATH | OFlags::DIRECTORY,
                Mode::empty(),
            );
            let upper = upper.map_err(io_error("upper"))?;
            let mut changes = Vec::new();
            compare(upper.as_fd(), Path::new("/"), &layers, &mut changes)
                .map_err(io_error(format!("list the changes of container {}", id.short())))?;
            Ok(changes)
        })
        .await
    }
}

/// A path that a container's files differ in from its image's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub path: PathBuf,
    pub kind: ChangeKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    Modified,
    Added,
    Deleted,
}

/// What the engine puts into every container itself: places to mount on.
const OWN: [&str; 8] = [
    "/.dockerenv",
    "/dev",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/mtab",
    "/etc/resolv.conf",
    "/proc",
    "/sys",
];

/// Walks the upper directory of an overlay; `layers` are below it, the highest first.
fn compare(
    directory: BorrowedFd<'_>,
    path: &Path,
    layers: &[OwnedFd],
    changes: &mut Vec<Change>,
) -> std::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(directory, ".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(&directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(std::ffi::OsStr::from_bytes(entry.file_name().to_bytes()).to_owned());
        }
    }
    names.sort();
    for name in names {
        let path = path.join(&name);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let entry = match rustix::fs::openat(&directory, &name, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => continue,
            other => other?,
        };
        let stat = rustix::fs::fstat(&entry)?;
        let kind = match (is_whiteout(&stat), below(&path, layers)) {
            (true, _) => ChangeKind::Deleted,
            _ if OWN.iter().any(|own| path == Path::new(own)) => continue,
            (false, true) => ChangeKind::Modified,
            (false, false) => ChangeKind::Added,
        };
        changes.push(Change { path: path.clone(), kind });
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let before = changes.len();
            compare(entry.as_fd(), &path, layers, changes)?;
            // It is in the upper directory only to hold what the engine put there.
            if changes.len() == before && path == Path::new("/etc") {
                changes.pop();
            }
        }
    }
    Ok(())
}

/// Whether the image has something at `path`.
fn below(path: &Path, layers: &[OwnedFd]) -> bool {
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    for layer in layers {
        if let Ok(found) = bulkhead_sys::path::open(layer.as_fd(), path, flags, Mode::empty()) {
            return rustix::fs::fstat(found).is_ok_and(|stat| !is_whiteout(&stat));
        }
    }
    false
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}
