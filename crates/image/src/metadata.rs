//! Owner, mode, time and extended attributes of a file in a layer, by descriptor only.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::directory::path_of;
use crate::tar::{Entry, Time};

/// Overlayfs's mark on a directory that hides its namesakes below; its value is `y`.
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";

#[derive(Debug, Clone)]
pub(crate) struct Metadata {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
    pub(crate) mtime: Time,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Metadata {
    pub(crate) fn of(entry: &Entry) -> Self {
        Self {
            uid: entry.uid,
            gid: entry.gid,
            mode: entry.mode,
            mtime: entry.mtime,
            xattrs: entry.xattrs.clone(),
        }
    }
}

/// Sets owner, mode and attributes; the time is [`set_time`]'s, which has to come last.
///
/// `file` may be an `O_PATH` descriptor, but not of a symbolic link.
pub(crate) fn apply(file: BorrowedFd<'_>, metadata: &Metadata) -> io::Result<()> {
    let path = path_of(file);
    // In this order: chown(2) takes away setuid bits and file capabilities.
    let (uid, gid) = owner(metadata.uid, metadata.gid)?;
    rustix::fs::chownat(file, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
    set_mode(file, metadata.mode)?;
    for (name, value) in metadata.xattrs.iter().filter(|(name, _)| is_kept(name)) {
        match rustix::fs::setxattr(&path, OsStr::from_bytes(name), value, XattrFlags::empty()) {
            // As Docker: `user.` is refused on devices, and not every file system has ACLs.
            Err(Errno::NOTSUP | Errno::PERM) if !name.starts_with(b"security.") => {}
            other => other?,
        }
    }
    Ok(())
}

pub(crate) fn set_mode(file: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::chmodat(CWD, path_of(file), Mode::from_raw_mode(mode), AtFlags::empty())?)
}

/// Sets both times: layers carry no access time, and a fresh one would differ at each unpacking.
pub(crate) fn set_time(file: BorrowedFd<'_>, time: Time) -> io::Result<()> {
    Ok(rustix::fs::utimensat(CWD, path_of(file), &both(time), AtFlags::empty())?)
}

/// Sets owner and time of a symbolic link, which has no mode and no attributes for us.
pub(crate) fn set_link(
    holder: BorrowedFd<'_>,
    name: &OsStr,
    uid: u32,
    gid: u32,
    time: Time,
) -> io::Result<()> {
    let (uid, gid) = owner(uid, gid)?;
    rustix::fs::chownat(holder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(rustix::fs::utimensat(holder, name, &both(time), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// -1 is no owner: to chown(2) it means that nothing changes.
fn owner(uid: u32, gid: u32) -> io::Result<(Uid, Gid)> {
    if uid == u32::MAX || gid == u32::MAX {
        return Err(Errno::INVAL.into());
    }
    Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
}

/// Reads the metadata of a file (`O_PATH` will do; a symbolic link has no attributes for us).
pub(crate) fn read(file: BorrowedFd<'_>, stat: &Stat) -> io::Result<Metadata> {
    let mut xattrs = Vec::new();
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        for name in names(file)?.into_iter().filter(|name| is_kept(name)) {
            if let Some(value) = value(file, &name)? {
                xattrs.push((name, value));
            }
        }
        xattrs.sort();
    }
    Ok(Metadata {
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode: stat.st_mode & 0o7777,
        mtime: Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 },
        xattrs,
    })
}

/// Whether a directory carries overlayfs's mark.
pub(crate) fn is_opaque(directory: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(value(directory, OPAQUE.as_bytes())?.is_some_and(|value| value == b"y"))
}

/// An attribute's value; `None` if the file has no such attribute.
pub(crate) fn value(file: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let path = path_of(file);
    let mut buffer = vec![0; 256];
    loop {
        match rustix::fs::getxattr(&path, OsStr::from_bytes(name), &mut buffer[..]) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(Some(buffer));
            }
            Err(Errno::RANGE) => buffer.resize(buffer.len() * 4, 0), // ends at 64 KiB: xattr(7)
            Err(Errno::NODATA | Errno::NOTSUP) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

fn names(file: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let path = path_of(file);
    let mut buffer = vec![0; 1024];
    loop {
        match rustix::fs::listxattr(&path, &mut buffer[..]) {
            Ok(length) => {
                let names = buffer[..length].split(|byte| *byte == 0);
                return Ok(names.filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect());
            }
            Err(Errno::RANGE) => buffer.resize(buffer.len() * 4, 0),
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Which attributes belong to an image. `trusted.` ones would be commands to our own overlay
/// mounts, and labels (`security.selinux`, `security.ima`) are the host's to give.
fn is_kept(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || matches!(
            name,
            b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default"
        )
}

fn both(time: Time) -> Timestamps {
    let moment = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: moment, last_modification: moment }
}
