//! Owner, mode, time and extended attributes of a file in a layer, by descriptor only.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;

use bulkhead_archive::{Entry, Time, attribute, attributes, set_attributes};
use bulkhead_sys::path::of_descriptor;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

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
    // In this order: chown(2) takes away setuid bits and file capabilities.
    let (uid, gid) = owner(metadata.uid, metadata.gid)?;
    rustix::fs::chownat(file, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
    set_mode(file, metadata.mode)?;
    // A layer is stored as any namespace's root sees it: id-mapped mounts give it its owners.
    set_attributes(file, &metadata.xattrs, None)
}

pub(crate) fn set_mode(file: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::chmodat(CWD, of_descriptor(file), Mode::from_raw_mode(mode), AtFlags::empty())?)
}

/// Sets both times: layers carry no access time, and a fresh one would differ at each unpacking.
pub(crate) fn set_time(file: BorrowedFd<'_>, time: Time) -> io::Result<()> {
    Ok(rustix::fs::utimensat(CWD, of_descriptor(file), &both(time), AtFlags::empty())?)
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
    let xattrs = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => Vec::new(),
        _ => attributes(file, None)?,
    };
    Ok(Metadata {
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode: stat.st_mode & 0o7777,
        mtime: Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 },
        xattrs,
    })
}

/// Whether a directory carries overlayfs's mark.
pub fn is_opaque(directory: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(attribute(directory, OPAQUE.as_bytes())?.is_some_and(|value| value == b"y"))
}

fn both(time: Time) -> Timestamps {
    let moment = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: moment, last_modification: moment }
}

/// Whether a file stands for a deletion: overlayfs's character device 0:0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}
