//! Mounts of the host, cloned and id-mapped into a container's user namespace.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bulkhead_sys::mount::{self, Depth};
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;

/// Whether what is bound from the host is seen with its mounts below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Below {
    With,
    Without,
}

/// Clones the mount at `source` and maps its owners through `users`. A file system that cannot be
/// id-mapped (such as most network and FUSE ones) is bound as it is: its files then belong to
/// nobody inside, which fails closed.
pub(crate) fn clone_mount(
    source: BorrowedFd<'_>,
    users: Option<BorrowedFd<'_>>,
    below: Below,
) -> Result<OwnedFd, Errno> {
    let clone = clone_shared(source, users, below)?;
    // Neither side sees what the other mounts later.
    mount::set_private(clone.as_fd(), Depth::Tree)?;
    Ok(clone)
}

/// The same, but what is mounted later on either side may show up on the other, as the source's
/// mount has it.
pub(crate) fn clone_shared(
    source: BorrowedFd<'_>,
    users: Option<BorrowedFd<'_>>,
    below: Below,
) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    if below == Below::With {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let clone = rustix::mount::open_tree(source, "", flags)?;
    map_owners(clone.as_fd(), users, below)?;
    Ok(clone)
}

pub(crate) fn map_owners(
    clone: BorrowedFd<'_>,
    users: Option<BorrowedFd<'_>>,
    below: Below,
) -> Result<(), Errno> {
    let Some(users) = users else { return Ok(()) };
    let mapped = match mount::set_id_mapping(clone, Depth::Tree, users) {
        // One of the mounts below cannot be: map at least the one that was asked for.
        Err(Errno::INVAL) if below == Below::With => {
            mount::set_id_mapping(clone, Depth::One, users)
        }
        other => other,
    };
    match mapped {
        // EINVAL: the file system has no id-mapped mounts; EPERM: it is id-mapped already.
        Ok(()) | Err(Errno::INVAL | Errno::PERM | Errno::NOSYS) => Ok(()),
        Err(errno) => Err(errno),
    }
}

pub(crate) fn is_directory(fd: &OwnedFd) -> std::io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) == FileType::Directory)
}
