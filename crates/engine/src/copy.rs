//! Copies a directory of a container into a volume.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bulkhead_archive::{attributes, set_attributes};
use bulkhead_sys::path::{Visit, Visited, Walk, of_descriptor};
use bulkhead_types::IdMap;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
};

/// Copies what is in `source` into `target`, with modes, owners, times, links, file capabilities
/// and users' attributes; owners are translated from `range` to what the container sees, since the
/// volume is id-mapped when it is mounted. Device nodes, sockets and pipes are left out.
pub(crate) fn copy_directory(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    range: Option<IdMap>,
) -> io::Result<()> {
    let mut walk = Walk::new(source)?;
    // The directories on the way, with what they are copies of. The volume's root takes the
    // directory's own traits too, as Docker's copy-up does.
    let mut levels = vec![(source.try_clone_to_owned()?, target.try_clone_to_owned()?)];
    while let Some(visit) = walk.visit()? {
        let (_, holder) = levels.last().expect("the first level is left after the walk");
        match visit {
            Visit::Enter(visited) => {
                let made = make_directory(holder, visited.name())?;
                levels.push((visited.file, made));
            }
            Visit::File(visited) => copy_file(&visited, holder, range)?,
            Visit::Leave => copy_level(levels.pop(), range)?,
        }
    }
    copy_level(levels.pop(), range)
}

/// Last, since what is made inside changes the times.
fn copy_level(level: Option<(OwnedFd, OwnedFd)>, range: Option<IdMap>) -> io::Result<()> {
    let Some((source, target)) = level else { return Ok(()) };
    copy_traits(source.as_fd(), target.as_fd(), &rustix::fs::fstat(&source)?, range)
}

/// One component, no links: nothing that runs meanwhile can lead the copy away.
const INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

fn make_directory(holder: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    rustix::fs::mkdirat(holder, name, Mode::RWXU)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::openat2(holder, name, flags, Mode::empty(), INSIDE)?)
}

fn copy_file(visited: &Visited, holder: &OwnedFd, range: Option<IdMap>) -> io::Result<()> {
    let (stat, name) = (&visited.stat, visited.name());
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            // Through /proc, because an O_PATH descriptor cannot be read.
            let mut from = File::open(of_descriptor(visited.file.as_fd()))?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(stat.st_mode) & Mode::RWXU;
            let mut to = File::from(rustix::fs::openat2(holder, name, flags, mode, INSIDE)?);
            io::copy(&mut from, &mut to)?;
            copy_traits(from.as_fd(), to.as_fd(), stat, range)
        }
        FileType::Symlink => {
            let link = rustix::fs::readlinkat(&visited.file, "", Vec::new())?;
            rustix::fs::symlinkat(&link, holder, name)?;
            let (user, group) = owner(stat, range);
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            Ok(rustix::fs::chownat(holder, name, Some(user), Some(group), flags)?)
        }
        _ => Ok(()),
    }
}

fn copy_traits(
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    stat: &Stat,
    range: Option<IdMap>,
) -> io::Result<()> {
    let (user, group) = owner(stat, range);
    rustix::fs::fchown(target, Some(user), Some(group))?;
    // After the owner: chown(2) clears set-user-id bits and file capabilities.
    rustix::fs::fchmod(target, Mode::from_raw_mode(stat.st_mode))?;
    set_attributes(target, &attributes(source, range)?, None)?;
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec.cast_signed()),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec.cast_signed()),
    };
    Ok(rustix::fs::futimens(target, &times)?)
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
        let value = [&[1, 0, 0, 2, 0, 32, 0, 0][..], &[0; 12]].concat();
        let given = vec![(b"security.capability".to_vec(), value)];
        set_attributes(File::open(&file).unwrap().as_fd(), &given, Some(range)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", source.path().join("sub/link")).unwrap();
        std::fs::set_permissions(source.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
        let (from, to) = (File::open(source.path()).unwrap(), File::open(target.path()).unwrap());
        copy_directory(from.as_fd(), to.as_fd(), Some(range)).unwrap();
        let copy = target.path().join("sub/file");
        let meta = std::fs::metadata(&copy).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (33, 34, 0o4750));
        assert_eq!(meta.mtime_nsec(), std::fs::metadata(&file).unwrap().mtime_nsec());
        assert_eq!(std::fs::read_to_string(&copy).unwrap(), "text");
        let copied = File::open(&copy).unwrap();
        assert_eq!(attributes(copied.as_fd(), None).unwrap(), given, "as any root sees it");
        let link = std::fs::read_link(target.path().join("sub/link")).unwrap();
        assert_eq!(link.to_str(), Some("/etc/passwd"));
        assert_eq!(std::fs::metadata(target.path()).unwrap().mode() & 0o7777, 0o1777);
    }
}
