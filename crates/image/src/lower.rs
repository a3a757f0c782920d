//! Looks a path up in the layers below, as a mounted overlay would show it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bulkhead_sys::path as below;
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::metadata::{self, is_whiteout};

#[derive(Debug)]
pub(crate) struct Found {
    /// `O_PATH`, of the file itself.
    pub(crate) file: OwnedFd,
    pub(crate) stat: Stat,
}

/// Finds `path` (clean, relative) in `layers` (lowest first), heeding whiteouts and opaque
/// directories. Symbolic links on the way are followed within their own layer.
pub(crate) fn find(layers: &[OwnedFd], path: &[u8]) -> io::Result<Option<Found>> {
    for layer in layers.iter().rev() {
        let mut hidden = false;
        let mut end = 0;
        while end < path.len() {
            let start = if end == 0 { 0 } else { end + 1 };
            end = path[start..].iter().position(|b| *b == b'/').map_or(path.len(), |n| start + n);
            let prefix = Path::new(OsStr::from_bytes(&path[..end]));
            let flags = OFlags::PATH | OFlags::NOFOLLOW;
            let file = match below::open(layer.as_fd(), prefix, flags, Mode::empty()) {
                Ok(file) => file,
                Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => break,
                Err(error) if error.raw_os_error() == Some(Errno::NOTDIR.raw_os_error()) => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            let stat = rustix::fs::fstat(&file)?;
            if is_whiteout(&stat) {
                return Ok(None);
            }
            if end == path.len() {
                return Ok(Some(Found { file, stat }));
            }
            hidden |= FileType::from_raw_mode(stat.st_mode) == FileType::Directory
                && metadata::is_opaque(file.as_fd())?;
        }
        if hidden {
            return Ok(None);
        }
    }
    Ok(None)
}

/// Copies a file that is no directory to `name`; returns the bytes of its content.
pub(crate) fn copy(
    file: BorrowedFd<'_>,
    stat: &Stat,
    holder: BorrowedFd<'_>,
    name: &[u8],
) -> io::Result<u64> {
    let name = OsStr::from_bytes(name);
    let original = metadata::read(file, stat)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            // Through /proc, because an O_PATH descriptor cannot be read.
            let source = std::fs::File::open(bulkhead_sys::path::of_descriptor(file))?;
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let target = rustix::fs::openat(holder, name, flags, Mode::RUSR | Mode::WUSR)?;
            let mut target = std::fs::File::from(target);
            let size = io::copy(&mut &source, &mut target)?;
            metadata::apply(target.as_fd(), &original)?;
            metadata::set_time(target.as_fd(), original.mtime)?;
            Ok(size)
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(file, "", Vec::new())?;
            rustix::fs::symlinkat(target, holder, name)?;
            metadata::set_link(holder, name, original.uid, original.gid, original.mtime)?;
            Ok(0)
        }
        kind => {
            rustix::fs::mknodat(holder, name, kind, Mode::empty(), stat.st_rdev)?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let node = rustix::fs::openat(holder, name, flags, Mode::empty())?;
            metadata::apply(node.as_fd(), &original)?;
            metadata::set_time(node.as_fd(), original.mtime)?;
            Ok(0)
        }
    }
}
