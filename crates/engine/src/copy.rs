//! Copies a directory of a container into a volume.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bulkhead_types::IdMap;
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
};

/// Copies what is in `source` into `target`, with modes, owners, times, links and extended
/// attributes; owners are translated from `range` to what the container sees, since the volume is
/// id-mapped when it is mounted. Device nodes, sockets and pipes are left out.
pub(crate) fn copy_directory(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    range: Option<IdMap>,
) -> std::io::Result<()> {
    // A list of what is left to do, not a recursion: an image can nest directories deeper than the
    // stack of a thread goes.
    let mut levels =
        vec![Level::enter(source.try_clone_to_owned()?, target.try_clone_to_owned()?)?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.pop() else {
            // last, since what is made inside changes the times; the volume's root takes the
            // directory's own traits too, as Docker's copy-up does
            let (from, to) = (level.source.as_fd(), level.target.as_fd());
            copy_traits(from, to, &rustix::fs::fstat(from)?, range)?;
            levels.pop();
            continue;
        };
        if let Some((from, to)) = copy_entry(level, &name, range)? {
            levels.push(Level::enter(from, to)?);
        }
    }
    Ok(())
}

/// A directory on the way.
struct Level {
    source: OwnedFd,
    target: OwnedFd,
    /// What is left to do in it.
    names: Vec<CString>,
}

impl Level {
    fn enter(source: OwnedFd, target: OwnedFd) -> std::io::Result<Self> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&source)? {
            let name = entry?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name);
            }
        }
        Ok(Self { source, target, names })
    }
}

/// Copies one entry; a directory is made, and returned to be filled.
fn copy_entry(
    level: &Level,
    name: &CStr,
    range: Option<IdMap>,
) -> std::io::Result<Option<(OwnedFd, OwnedFd)>> {
    let (source, target) = (level.source.as_fd(), level.target.as_fd());
    let stat = rustix::fs::statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode);
    let read = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    // One component, no links: nothing that runs meanwhile can lead the walk away.
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let flags = read | OFlags::DIRECTORY;
            let from = rustix::fs::openat2(source, name, flags, Mode::empty(), inside)?;
            rustix::fs::mkdirat(target, name, Mode::RWXU)?;
            let to = rustix::fs::openat2(target, name, flags, Mode::empty(), inside)?;
            return Ok(Some((from, to)));
        }
        FileType::RegularFile => {
            let from = rustix::fs::openat2(source, name, read, Mode::empty(), inside)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let to = rustix::fs::openat2(target, name, flags, mode & Mode::RWXU, inside)?;
            let (mut from, mut to) = (File::from(from), File::from(to));
            std::io::copy(&mut from, &mut to)?;
            copy_traits(from.as_fd(), to.as_fd(), &stat, range)?;
        }
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(source, name, Vec::new())?;
            rustix::fs::symlinkat(&link, target, name)?;
            let (user, group) = owner(&stat, range);
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(target, name, Some(user), Some(group), flags)?;
        }
        _ => {}
    }
    Ok(None)
}

fn copy_traits(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    stat: &Stat,
    range: Option<IdMap>,
) -> std::io::Result<()> {
    let (user, group) = owner(stat, range);
    rustix::fs::fchown(target, Some(user), Some(group))?;
    // After the owner: chown(2) clears set-user-id bits.
    rustix::fs::fchmod(target, Mode::from_raw_mode(stat.st_mode))?;
    copy_attributes(source, target)?;
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec.cast_signed()),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec.cast_signed()),
    };
    Ok(rustix::fs::futimens(target, &times)?)
}

/// Copies `user.*` attributes; overlay's own, security labels and file capabilities stay behind.
fn copy_attributes(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> std::io::Result<()> {
    let mut names = vec![0_u8; 65_536];
    let length = match rustix::fs::flistxattr(source, names.as_mut_slice()) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if !name.starts_with(b"user.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let mut value = vec![0_u8; 65_536];
        let length = rustix::fs::fgetxattr(source, name, value.as_mut_slice())?;
        rustix::fs::fsetxattr(target, name, &value[..length], rustix::fs::XattrFlags::empty())?;
    }
    Ok(())
}

fn owner(stat: &Stat, range: Option<IdMap>) -> (Uid, Gid) {
    let inside = |id: u32| range.and_then(|range| range.inside(id)).unwrap_or(id);
    (Uid::from_raw(inside(stat.st_uid)), Gid::from_raw(inside(stat.st_gid)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn a_tree_deeper_than_the_stack_is_copied() {
        use std::ffi::OsStr;
        let source = tempfile::tempdir().unwrap();
        let target = tempfile::tempdir().unwrap();
        // three descriptors for each level on the way; more is an error, not a crash
        let mut at = OwnedFd::from(File::open(source.path()).unwrap());
        for _ in 0..250 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, "d", OFlags::PATH, Mode::empty()).unwrap();
        }
        let (from, to) = (File::open(source.path()).unwrap(), File::open(target.path()).unwrap());
        let copy = || copy_directory(from.as_fd(), to.as_fd(), None);
        std::thread::scope(|scope| {
            let small = std::thread::Builder::new().stack_size(160 << 10);
            small.spawn_scoped(scope, copy).unwrap().join().unwrap().unwrap();
        });
        let mut deep = target.path().to_owned();
        deep.extend(std::iter::repeat_n("d", 250));
        assert!(deep.is_dir());
        for directory in [&from, &to] {
            bulkhead_sys::path::remove_tree(directory.as_fd(), OsStr::new("d")).unwrap();
        }
    }

    #[test]
    fn owners_modes_links_and_times_are_kept() {
        let source = tempfile::tempdir().unwrap();
        let target = tempfile::tempdir().unwrap();
        let range = IdMap::new(700_000, IdMap::SIZE);
        let file = source.path().join("sub/file");
        std::fs::create_dir(source.path().join("sub")).unwrap();
        std::fs::write(&file, "text").unwrap();
        std::os::unix::fs::chown(&file, Some(700_033), Some(700_034)).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o4750)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", source.path().join("sub/link")).unwrap();
        std::fs::set_permissions(source.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
        let (from, to) = (File::open(source.path()).unwrap(), File::open(target.path()).unwrap());
        copy_directory(from.as_fd(), to.as_fd(), Some(range)).unwrap();
        let copy = target.path().join("sub/file");
        let meta = std::fs::metadata(&copy).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (33, 34, 0o4750));
        assert_eq!(meta.mtime_nsec(), std::fs::metadata(&file).unwrap().mtime_nsec());
        assert_eq!(std::fs::read_to_string(&copy).unwrap(), "text");
        let link = std::fs::read_link(target.path().join("sub/link")).unwrap();
        assert_eq!(link.to_str(), Some("/etc/passwd"));
        assert_eq!(std::fs::metadata(target.path()).unwrap().mode() & 0o7777, 0o1777);
    }
}
