//! What a container changed in its image: `docker commit` and `docker diff`.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_image::{Layer, is_opaque};
use bulkhead_sys::path::{Visit, Walk};
use bulkhead_types::{Id, IdMap};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use crate::blocking::blocking;
use crate::error::io_error;
use crate::marks;
use crate::{Engine, EngineError, Status};

impl Engine {
    /// Makes a layer of what the container changed, frozen meanwhile if `pause`. `None`: nothing.
    pub async fn changed_layer(
        self: &Arc<Self>,
        id: Id,
        pause: bool,
    ) -> Result<Option<Layer>, EngineError> {
        let guard = self.containers.exclusive(id).await?;
        let engine = Arc::clone(self);
        blocking(move |_| {
            let _guard = guard;
            let record = engine.containers.record(id)?;
            let directory = engine.container_directory(&record)?;
            let container = record.container;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let upper = rustix::fs::openat(&directory, "upper", flags, Mode::empty())
                .map_err(|errno| io_error("upper")(errno.into()))?;
            let freeze = pause && container.state.status == Status::Running;
            if freeze {
                engine.cgroups.of(id)?.freeze()?;
            }
            let layer =
                engine.content.commit_changes(upper.as_fd(), container.id_range, &marks::is_own);
            if freeze {
                engine.cgroups.of(id)?.thaw()?;
            }
            Ok(layer?)
        })
        .await
    }

    /// What the container changed in its image, sorted by path (`docker diff`).
    pub async fn changes(self: &Arc<Self>, id: Id) -> Result<Vec<Change>, EngineError> {
        let guard = self.containers.exclusive(id).await?;
        let engine = Arc::clone(self);
        blocking(move |_| {
            let _guard = guard;
            let record = engine.containers.record(id)?;
            let directory = engine.container_directory(&record)?;
            let layers = record.layers.iter().rev().map(|layer| engine.content.layer(*layer));
            let layers = layers.collect::<Result<Vec<_>, _>>()?;
            let upper = bulkhead_sys::path::open(
                directory.as_fd(),
                Path::new("upper"),
                OFlags::PATH | OFlags::DIRECTORY,
                Mode::empty(),
            );
            let upper = upper.map_err(io_error("upper"))?;
            compare(upper.as_fd(), &layers, record.container.id_range)
                .map_err(io_error(format!("list the changes of container {}", id.short())))
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

/// A directory on the way of the walk.
struct Entered {
    /// How many changes there were before its own.
    before: usize,
    /// It is the image's in all but its time.
    is_same: bool,
}

/// Walks the upper directory of an overlay; `layers` are below it, the highest first. Ids in it are the host's, by
/// `ids`.
///
/// What is there and is no different is no change, as where Docker compares two trees (moby:
/// pkg/archive/changes_unix.go, `statDifferent`): a directory's time and size say nothing.
fn compare(
    upper: BorrowedFd<'_>,
    layers: &[OwnedFd],
    ids: Option<IdMap>,
) -> std::io::Result<Vec<Change>> {
    let mut changes: Vec<Change> = Vec::new();
    let mut entered: Vec<Entered> = Vec::new();
    let mut walk = Walk::new(upper)?;
    while let Some(visit) = walk.visit()? {
        let (visited, is_directory) = match visit {
            Visit::Enter(visited) => (visited, true),
            Visit::File(visited) => (visited, false),
            Visit::Leave => {
                let Some(Entered { before, is_same }) = entered.pop() else { continue };
                // It is in the upper directory only to hold what the engine put there, too.
                if changes.len() == before + 1
                    && (is_same || changes[before].path == Path::new("/etc"))
                {
                    changes.pop();
                }
                continue;
            }
        };
        let path = Path::new("/").join(&visited.path);
        if !is_whiteout(&visited.stat) && OWN.iter().any(|own| path == Path::new(own)) {
            walk.skip();
            continue;
        }
        let lower = below(&path, layers);
        let is_same = lower.is_some_and(|lower| is_same(&visited.stat, &lower, ids));
        let kind = match lower {
            _ if is_whiteout(&visited.stat) => ChangeKind::Deleted,
            Some(_) => ChangeKind::Modified,
            None => ChangeKind::Added,
        };
        if !is_directory {
            if !is_same {
                changes.push(Change { path, kind });
            }
            continue;
        }
        entered.push(Entered { before: changes.len(), is_same });
        changes.push(Change { path: path.clone(), kind });
        if lower.is_some() && is_opaque(visited.file.as_fd())? {
            changes.extend(hidden(visited.file.as_fd(), &path, layers)?);
        }
    }
    changes.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(changes)
}

/// What of the image is no longer in a directory that was removed and made anew.
fn hidden(
    directory: BorrowedFd<'_>,
    path: &Path,
    layers: &[OwnedFd],
) -> std::io::Result<Vec<Change>> {
    let mut names = BTreeSet::new();
    for layer in layers {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
        if let Ok(own) = bulkhead_sys::path::open(layer.as_fd(), path, flags, Mode::empty()) {
            for entry in rustix::fs::Dir::read_from(own)? {
                names.insert(OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned());
            }
        }
    }
    let is_gone = |name: &OsString| {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        name != "." && name != ".." && rustix::fs::statat(directory, name, flags).is_err()
    };
    let gone = names.into_iter().filter(is_gone).map(|name| path.join(name));
    let gone = gone.filter(|path| below(path, layers).is_some());
    Ok(gone.map(|path| Change { path, kind: ChangeKind::Deleted }).collect())
}

fn is_same(upper: &Stat, lower: &Stat, ids: Option<IdMap>) -> bool {
    let inside = |id: u32| ids.map_or(Some(id), |ids| ids.inside(id));
    let owned = inside(upper.st_uid) == Some(lower.st_uid)
        && inside(upper.st_gid) == Some(lower.st_gid)
        && upper.st_mode == lower.st_mode
        && upper.st_rdev == lower.st_rdev;
    let is_directory = FileType::from_raw_mode(upper.st_mode) == FileType::Directory;
    let time = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
    owned && (is_directory || time(upper) == time(lower))
}

/// What the image has at `path`.
fn below(path: &Path, layers: &[OwnedFd]) -> Option<Stat> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW;
    for layer in layers {
        if let Ok(found) = bulkhead_sys::path::open(layer.as_fd(), path, flags, Mode::empty()) {
            return rustix::fs::fstat(found).ok().filter(|stat| !is_whiteout(stat));
        }
    }
    None
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}
