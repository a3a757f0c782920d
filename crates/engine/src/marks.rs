//! What a container has in its root besides its image: the two files by which programs find out that
//! they are in one, and what is mounted there.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use bulkhead_sys::path::{self, Visited, Walk};
use bulkhead_types::IdMap;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

/// Makes `/.dockerenv`, and `/etc/mtab` where the image has none (moby: daemon/initlayer), as the
/// container's root. What cannot be made is gone without: no program needs them to run.
pub(crate) fn put(root: BorrowedFd<'_>, ids: Option<IdMap>) {
    let owner = ids.map_or(0, |ids| ids.first);
    let made = mark(root, owner).and_then(|()| link(root, owner));
    if let Err(error) = made {
        tracing::debug!(%error, "make /.dockerenv and /etc/mtab");
    }
}

/// Whether a file of an upper directory is of the engine's making and nobody's work: a mark, or an
/// empty place to mount on. Docker has these in a layer of their own, between the image's and the
/// container's (moby: daemon/initlayer), which `docker commit` does not take.
pub(crate) fn is_own(file: &Visited) -> bool {
    let kind = FileType::from_raw_mode(file.stat.st_mode);
    match file.path.to_str() {
        Some(".dockerenv" | "etc/hostname" | "etc/hosts" | "etc/resolv.conf") => {
            kind == FileType::RegularFile && file.stat.st_size == 0
        }
        Some("etc/mtab") => {
            kind == FileType::Symlink
                && rustix::fs::readlinkat(&file.file, "", Vec::new())
                    .is_ok_and(|target| target.as_bytes() == MTAB.as_bytes())
        }
        Some("dev" | "proc" | "sys") => {
            let is_empty = || Walk::new(file.file.as_fd())?.visit().map(|first| first.is_none());
            kind == FileType::Directory && is_empty().unwrap_or(false)
        }
        _ => false,
    }
}

/// Bytes of what [`put`] has made below `upper`, which nobody wrote.
pub(crate) fn size(upper: BorrowedFd<'_>) -> u64 {
    let made = path::open_parent(upper, Path::new("/etc/mtab"), false)
        .and_then(|(parent, name)| Ok(rustix::fs::readlinkat(&parent, &name, Vec::new())?));
    match made {
        Ok(target) if target.as_bytes() == MTAB.as_bytes() => MTAB.len() as u64,
        _ => 0,
    }
}

const MTAB: &str = "/proc/mounts";

fn mark(root: BorrowedFd<'_>, owner: u32) -> std::io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::openat(root, ".dockerenv", flags, Mode::from_raw_mode(0o755)) {
        Ok(_) => give(root, OsStr::new(".dockerenv"), owner),
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn link(root: BorrowedFd<'_>, owner: u32) -> std::io::Result<()> {
    let open = || path::open_parent(root, Path::new("/etc/mtab"), false);
    let (parent, name) = match open() {
        // An image of one program has no /etc, and the container's root makes more in it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            rustix::fs::mkdirat(root, "etc", Mode::from_raw_mode(0o755))?;
            give(root, OsStr::new("etc"), owner)?;
            open()?
        }
        opened => opened?,
    };
    match rustix::fs::symlinkat(MTAB, &parent, &name) {
        Ok(()) => give(parent.as_fd(), &name, owner),
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn give(directory: BorrowedFd<'_>, name: &OsStr, owner: u32) -> std::io::Result<()> {
    let (user, group) = (Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)));
    Ok(rustix::fs::chownat(directory, name, user, group, AtFlags::SYMLINK_NOFOLLOW)?)
}
