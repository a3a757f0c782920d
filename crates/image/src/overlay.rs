//! The root file system of a container: an overlay, mounted by descriptors.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use bulkhead_sys::mount::{self, Depth};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_string, fsmount, fsopen,
    mount_change, move_mount, open_tree,
};
use rustix::thread::UnshareFlags;

use crate::error::{ImageError, While};
use crate::{directory, metadata};

/// Mounts an overlay of `layers` (lowest first, none for `FROM scratch`) and `upper`, detached.
///
/// `mapping` is a user namespace: the layers are id-mapped by it, so files keep their owners on
/// disk and inside; what is written goes to `upper` with the host ids of the range. `None`: no
/// user namespace. A kernel without id-mapped overlay layers (before 5.19) is `Unsupported`.
///
/// The merged `/` shows the owner and mode of `upper` itself, so an empty `upper` gets the owner of
/// the topmost layer's root first, mapped, and always mode 755. `upper` and `work` are on one file system; `work` is
/// an empty directory or one that served the same `upper` before. An opaque root directory, which
/// overlayfs would not heed, leaves out the layers below it.
pub fn mount_overlay(
    layers: &[OwnedFd],
    upper: BorrowedFd<'_>,
    work: BorrowedFd<'_>,
    mapping: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, ImageError> {
    let what = || "mount the container's root file system".to_owned();
    let mut lower = Vec::with_capacity(layers.len());
    for layer in layers.iter().rev() {
        lower.push(clone_mapped(layer.as_fd(), mapping)?);
        if metadata::is_opaque(layer.as_fd()).doing(what)? {
            break;
        }
    }
    adopt_root(lower.first().map(AsFd::as_fd), upper, mapping)?;
    if lower.is_empty() {
        lower.push(tmpfs().doing(what)?);
    }
    // O_PATH descriptors are not taken before Linux 6.15.
    let parts = Parts {
        upper: directory::open(upper, ".").doing(what)?,
        work: directory::open(work, ".").doing(what)?,
        lower: lower
            .iter()
            .map(|lower| directory::open(lower.as_fd(), "."))
            .collect::<io::Result<_>>()
            .doing(what)?,
        clones: lower,
    };
    match by_descriptor(&parts) {
        // "lowerdir+" by descriptor came with Linux 6.13, detached layers with 6.15.
        Err(Errno::INVAL | Errno::BADF | Errno::NOSYS | Errno::OPNOTSUPP) => match by_path(parts) {
            Err(error) if mapping.is_some() && error.kind() == io::ErrorKind::InvalidInput => {
                Err(unmappable(&error)).doing(what)
            }
            other => other.doing(what),
        },
        other => other.doing(what),
    }
}

/// Tries in an empty directory whether layers there can have the owners of `mapping`'s user
/// namespace; what was made there is for the caller to remove.
pub fn can_map_owners(
    scratch: BorrowedFd<'_>,
    mapping: BorrowedFd<'_>,
) -> Result<bool, ImageError> {
    let what = || "try an overlay with mapped owners".to_owned();
    let [layer, upper, work] = ["layer", "upper", "work"].map(|name| {
        rustix::fs::mkdirat(scratch, name, Mode::RWXU)?;
        directory::open(scratch, name)
    });
    let (layer, upper, work) = (layer.doing(what)?, upper.doing(what)?, work.doing(what)?);
    match mount_overlay(&[layer], upper.as_fd(), work.as_fd(), Some(mapping)) {
        Ok(_) => Ok(true),
        Err(ImageError::Io { cause, .. }) if cause.kind() == io::ErrorKind::Unsupported => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn unmappable(cause: &io::Error) -> io::Error {
    let message = format!(
        "{cause}; this kernel or file system cannot map the owners of layers (Linux 5.19 with ext4, \
         xfs or btrfs can); use --userns=host"
    );
    io::Error::new(io::ErrorKind::Unsupported, message)
}

struct Parts {
    upper: OwnedFd,
    work: OwnedFd,
    /// Topmost first.
    lower: Vec<OwnedFd>,
    /// The mounts that `lower` are the roots of.
    clones: Vec<OwnedFd>,
}

/// Files are whole in themselves (no metacopy, no redirect) so that an upper directory can be
/// made a layer, and inode numbers need not outlive the mount (no index).
const OPTIONS: [(&str, &str); 4] =
    [("index", "off"), ("metacopy", "off"), ("redirect_dir", "nofollow"), ("xino", "off")];

fn by_descriptor(parts: &Parts) -> rustix::io::Result<OwnedFd> {
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for lower in &parts.lower {
        fsconfig_set_fd(&overlay, "lowerdir+", lower)?;
    }
    let hidden = seen_from_parent(&parts.upper, &parts.work);
    let (upper, work) =
        hidden.as_ref().map_or((&parts.upper, &parts.work), |hidden| (&hidden.upper, &hidden.work));
    fsconfig_set_fd(&overlay, "upperdir", upper)?;
    fsconfig_set_fd(&overlay, "workdir", work)?;
    create(&overlay)
}

/// Two directories of one mount that is in no mount namespace.
struct Hidden {
    upper: OwnedFd,
    work: OwnedFd,
    /// The mount itself: it is taken apart with this descriptor, and an overlay takes no directory of
    /// one that was (Linux: fs/namespace.c, `dissolve_on_fput` and `clone_private_mount`).
    _mount: OwnedFd,
}

/// The two directories through a detached mount of the directory that holds both: the container's
/// table of mounts then shows `/upper` and `/work`, and not where the host keeps its containers.
/// `None` where they have no parent in common.
fn seen_from_parent(upper: &OwnedFd, work: &OwnedFd) -> Option<Hidden> {
    let parent = directory::open(upper.as_fd(), "..").ok()?;
    let mount = clone_mapped(parent.as_fd(), None).ok()?;
    let again = |directory: &OwnedFd| {
        let path = std::fs::read_link(bulkhead_sys::path::of_descriptor(directory.as_fd())).ok()?;
        let found = directory::open(mount.as_fd(), path.file_name()?).ok()?;
        let (is, was) = (rustix::fs::fstat(&found).ok()?, rustix::fs::fstat(directory).ok()?);
        ((is.st_dev, is.st_ino) == (was.st_dev, was.st_ino)).then_some(found)
    };
    let (upper, work) = (again(upper)?, again(work)?);
    Some(Hidden { upper, work, _mount: mount })
}

fn create(overlay: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    fsconfig_set_string(overlay, "source", "overlay")?;
    for (key, value) in OPTIONS {
        fsconfig_set_string(overlay, key, value)?;
    }
    fsconfig_create(overlay)?;
    fsmount(overlay, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// For older kernels, which want layers that are mounted somewhere, and their paths.
///
/// That somewhere is a mount namespace of a thread that ends here: no mount is ever seen by
/// others, and a crash leaves none.
fn by_path(parts: Parts) -> io::Result<OwnedFd> {
    std::thread::scope(|scope| {
        let mounting = std::thread::Builder::new().name("mount-overlay".to_owned());
        let mounting = mounting.spawn_scoped(scope, || mount_by_path(parts))?;
        mounting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn mount_by_path(parts: Parts) -> io::Result<OwnedFd> {
    let Parts { upper, work, clones, .. } = parts;
    let own = [Place::of(upper)?, Place::of(work)?];
    bulkhead_sys::unshare(UnshareFlags::NEWNS)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    // Kept to the end: before Linux 6.5 paths are looked up only when the overlay is made.
    let [upper, work] = own.map(Place::open_again);
    let (upper, work) = (upper?, work?);
    let holder = tmpfs()?;
    // Paths go on to start at the root below, so this hides nothing from us.
    move_mount(&holder, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    let mut lower = Vec::with_capacity(clones.len());
    for (index, clone) in clones.iter().enumerate() {
        let name = format!("{index}");
        rustix::fs::mkdirat(&holder, &name, Mode::RWXU)?;
        move_mount(clone, "", &holder, &name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        lower.push(bulkhead_sys::path::of_descriptor(clone.as_fd()));
    }
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&overlay, "lowerdir", lower.join(":"))?;
    fsconfig_set_string(&overlay, "upperdir", bulkhead_sys::path::of_descriptor(upper.as_fd()))?;
    fsconfig_set_string(&overlay, "workdir", bulkhead_sys::path::of_descriptor(work.as_fd()))?;
    Ok(create(&overlay)?)
}

/// Where a directory is, to find it again in a copy of the mount namespace: an overlay takes its
/// upper directory only by a mount of the namespace that mounts it.
struct Place {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Place {
    fn of(directory: OwnedFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(&directory)?;
        let path = std::fs::read_link(bulkhead_sys::path::of_descriptor(directory.as_fd()))?;
        Ok(Self { path, device: stat.st_dev, inode: stat.st_ino })
    }

    fn open_again(self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = bulkhead_sys::path::open_host(&self.path, flags)?;
        let stat = rustix::fs::fstat(&directory)?;
        if (stat.st_dev, stat.st_ino) != (self.device, self.inode) {
            return Err(Errno::STALE.into()); // it was moved in between
        }
        Ok(directory)
    }
}

/// A detached mount of the layer, with owners as `mapping` has them.
fn clone_mapped(
    directory: BorrowedFd<'_>,
    mapping: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, ImageError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let clone = open_tree(directory, "", flags).doing(|| "clone a layer's mount".to_owned())?;
    if let Some(userns) = mapping {
        match mount::set_id_mapping(clone.as_fd(), Depth::One, userns) {
            Err(error @ (Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)) => {
                return Err(unmappable(&error.into()))
                    .doing(|| "map the owners of a layer".to_owned());
            }
            other => other.doing(|| "map the owners of a layer".to_owned())?,
        }
    }
    Ok(clone)
}

/// Gives an empty `upper` the owner of `top`, a mapped layer's root, and mode 755.
///
/// An archive made in a private directory has `./` at 700, and users other than root have to get in
/// all the same: no image decides the mode of `/` with Docker either (moby:
/// daemon/graphdriver/overlay2/overlay.go, create).
fn adopt_root(
    top: Option<BorrowedFd<'_>>,
    upper: BorrowedFd<'_>,
    mapping: Option<BorrowedFd<'_>>,
) -> Result<(), ImageError> {
    let what = || "prepare the container's root directory".to_owned();
    let upper = directory::open(upper, ".").doing(what)?;
    if !directory::names(upper.as_fd()).doing(what)?.is_empty() {
        return Ok(());
    }
    let stat = match top {
        Some(top) => rustix::fs::fstat(top).doing(what)?,
        None => {
            // Without a layer it belongs to the container's root; the kernel tells who that is.
            rustix::fs::fchown(&upper, Some(Uid::ROOT), Some(Gid::ROOT)).doing(what)?;
            let mapped = clone_mapped(upper.as_fd(), mapping)?;
            rustix::fs::fstat(&mapped).doing(what)?
        }
    };
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::fchown(&upper, Some(uid), Some(gid)).doing(what)?;
    rustix::fs::fchmod(&upper, Mode::from_raw_mode(0o755)).doing(what)
}

fn tmpfs() -> rustix::io::Result<OwnedFd> {
    let file_system = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&file_system)?;
    fsmount(&file_system, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

#[cfg(test)]
mod tests;
