//! What a container changed in its image: `docker commit` and `docker diff`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_image::Layer;
use bulkhead_sys::path::{Visit, Walk};
use bulkhead_types::Id;
use rustix::fs::{FileType, Mode, OFlags, Stat};

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
            compare(upper.as_fd(), &layers)
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

/// Walks the upper directory of an overlay; `layers` are below it, the highest first.
fn compare(upper: BorrowedFd<'_>, layers: &[OwnedFd]) -> std::io::Result<Vec<Change>> {
    let mut changes: Vec<Change> = Vec::new();
    // How many changes there were when each directory on the way was entered.
    let mut entered = Vec::new();
    let mut walk = Walk::new(upper)?;
    while let Some(visit) = walk.visit()? {
        let (visited, is_directory) = match visit {
            Visit::Enter(visited) => (visited, true),
            Visit::File(visited) => (visited, false),
            Visit::Leave => {
                // It is in the upper directory only to hold what the engine put there.
                let etc = changes.last().is_some_and(|change| change.path == Path::new("/etc"));
                if entered.pop() == Some(changes.len()) && etc {
                    changes.pop();
                }
                continue;
            }
        };
        let path = Path::new("/").join(&visited.path);
        let kind = match (is_whiteout(&visited.stat), below(&path, layers)) {
            (true, _) => ChangeKind::Deleted,
            _ if OWN.iter().any(|own| path == Path::new(own)) => {
                walk.skip();
                continue;
            }
            (false, true) => ChangeKind::Modified,
            (false, false) => ChangeKind::Added,
        };
        changes.push(Change { path, kind });
        if is_directory {
            entered.push(changes.len());
        }
    }
    Ok(changes)
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
