use std::collections::HashSet;
use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

/// Bytes of the files below `directory`, as their lengths say; a file with several names counts
/// once, directories not at all (moby: daemon/internal/directory, `calcSize`).
///
/// No symbolic link is followed and no mount below is entered. What vanishes meanwhile is passed
/// over: the tree may be in use.
pub fn disk_usage(directory: BorrowedFd<'_>) -> io::Result<u64> {
    let device = rustix::fs::fstat(directory)?.st_dev;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let root = rustix::fs::openat(directory, c".", flags, Mode::empty())?;
    let mut total = 0u64;
    let mut seen = HashSet::new();
    // At most one descriptor a level: the names of a directory are read before it is left.
    let mut levels = vec![(root, None::<Vec<CString>>)];
    while let Some((open, children)) = levels.pop() {
        let mut children = match children {
            Some(children) => children,
            None => scan(&open, device, &mut seen, &mut total)?,
        };
        let Some(child) = children.pop() else { continue };
        let inner = rustix::fs::openat(&open, &child, flags, Mode::empty());
        levels.push((open, Some(children)));
        match inner {
            Ok(inner) if rustix::fs::fstat(&inner)?.st_dev == device => levels.push((inner, None)),
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(total)
}

/// Adds the files of one directory, and returns the names of the directories in it.
fn scan(
    directory: &OwnedFd,
    device: u64,
    seen: &mut HashSet<u64>,
    total: &mut u64,
) -> io::Result<Vec<CString>> {
    let mut children = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(directory.as_fd(), &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        let name = entry.file_name();
        let status = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(status) => status,
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno.into()),
        };
        match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory => children.push(name.to_owned()),
            _ if status.st_dev != device => {}
            _ if status.st_nlink > 1 && !seen.insert(status.st_ino) => {}
            _ => *total += u64::try_from(status.st_size).unwrap_or(0),
        }
    }
    Ok(children)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_count_once_and_links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::fs::create_dir_all(path.join("a/b")).unwrap();
        std::fs::write(path.join("a/one"), [0; 1000]).unwrap();
        std::fs::hard_link(path.join("a/one"), path.join("a/b/again")).unwrap();
        std::fs::write(path.join("a/b/two"), [0; 500]).unwrap();
        std::os::unix::fs::symlink("/usr", path.join("away")).unwrap();
        let open = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        assert_eq!(disk_usage(open.as_fd()).unwrap(), 1000 + 500 + "/usr".len() as u64);
    }

    #[test]
    fn a_tree_may_be_deep() {
        let directory = tempfile::tempdir().unwrap();
        let root = rustix::fs::open(directory.path(), OFlags::PATH, Mode::empty()).unwrap();
        let deep: std::path::PathBuf = std::iter::repeat_n("d", 100).collect();
        let bottom = crate::path::create_dir_all(root.as_fd(), &deep, Mode::RWXU).unwrap();
        let flags = OFlags::WRONLY | OFlags::CREATE;
        let file = rustix::fs::openat(&bottom, "f", flags, Mode::RUSR).unwrap();
        rustix::fs::ftruncate(&file, 7).unwrap();
        assert_eq!(disk_usage(root.as_fd()).unwrap(), 7);
    }
}
