//! Copies a directory of a container into a volume.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use bulkhead_spec::IdRange;
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
};

/// Copies what is in `source` into `target`, with modes, owners, times, links and extended
/// attributes; owners are translated from `range` to what the container sees, since the volume is
/// id-mapped when it is mounted. Device nodes, sockets and pipes are left out.
pub(crate) fn copy_directory(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    range: Option<IdRange>,
) -> std::io::Result<()> {
    for entry in Dir::read_from(source)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
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
                copy_directory(from.as_fd(), to.as_fd(), range)?;
                copy_traits(from.as_fd(), to.as_fd(), &stat, range)?;
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
    }
    // The volume's root takes the directory's own traits, as Docker's copy-up does.
    let stat = rustix::fs::fstat(source)?;
    copy_traits(source, target, &stat, range)
}

fn copy_traits(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    stat: &Stat,
    range: Option<IdRange>,
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

fn owner(stat: &Stat, range: Option<IdRange>) -> (Uid, Gid) {
    let inside = |id: u32| range.and_then(|range| range.inside(id)).unwrap_or(id);
    (Uid::from_raw(inside(stat.st_uid)), Gid::from_raw(inside(stat.st_gid)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn owners_modes_links_and_times_are_kept() {
        let source = tempfile::tempdir().unwrap();
        let target = tempfile::tempdir().unwrap();
        let range = IdRange { first: 700_000, size: IdRange::SIZE };
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
