use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

use super::Walk;

/// Deeper trees are refused, rather than running out of stack.
const DEEPEST: u32 = 128;

impl Walk<'_> {
    /// Copies what is in the directory `from` into `to`: owners, modes, links and all
    /// (`tmpcopyup` of runc).
    pub(super) fn copy_up(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
    ) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let from = rustix::fs::openat(from, c".", flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&from)?;
        let to = rustix::fs::openat(to, c".", flags, Mode::empty())?;
        copy_directory(&from, &to, 0)?;
        give(&to, &stat)
    }
}

fn copy_directory(from: &OwnedFd, to: &OwnedFd, depth: u32) -> Result<(), Errno> {
    if depth == DEEPEST {
        return Err(Errno::NAMETOOLONG);
    }
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(from, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            copy(from, to, name, depth)?;
        }
    }
    Ok(())
}

/// No link is followed: each entry is opened as what it was seen to be.
fn copy(from: &OwnedFd, to: &OwnedFd, name: &CStr, depth: u32) -> Result<(), Errno> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let none = Mode::empty();
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
            let inner_from = rustix::fs::openat(from, name, read | OFlags::DIRECTORY, none)?;
            let inner_to = rustix::fs::openat(to, name, read | OFlags::DIRECTORY, none)?;
            copy_directory(&inner_from, &inner_to, depth + 1)?;
            give(&inner_to, &stat)
        }
        FileType::RegularFile => {
            let source = rustix::fs::openat(from, name, read | OFlags::NONBLOCK, none)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let target = rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))?;
            copy_bytes(&source, &target)?;
            give(&target, &stat)
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target, to, name)?;
            chown(to.as_fd(), name, &stat)
        }
        kind => {
            match rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev) {
                // a device in a user namespace
                Err(Errno::PERM) => return Ok(()),
                other => other?,
            }
            chown(to.as_fd(), name, &stat)
        }
    }
}

fn copy_bytes(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    const AT_ONCE: usize = 1 << 30;
    while rustix::fs::sendfile(to, from, None, AT_ONCE)? > 0 {}
    Ok(())
}

fn give(file: &OwnedFd, stat: &Stat) -> Result<(), Errno> {
    let (uid, gid) = owner(stat);
    rustix::fs::fchown(file, Some(uid), Some(gid))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(stat.st_mode & 0o7777))
}

fn chown(directory: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<(), Errno> {
    let (uid, gid) = owner(stat);
    rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}

fn owner(stat: &Stat) -> (rustix::fs::Uid, rustix::fs::Gid) {
    (
        rustix::fs::Uid::from_raw_unchecked(stat.st_uid),
        rustix::fs::Gid::from_raw_unchecked(stat.st_gid),
    )
}
