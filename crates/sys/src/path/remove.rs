use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;

/// Removes `name` in `parent` with all that is in it; a missing `name` is fine.
///
/// No symbolic link is followed. The tree may be deeper than the limit of open files: what lies
/// below 64 levels is first moved up. A mount point inside is an error (`EBUSY`).
pub fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let name = CString::new(name.as_bytes()).map_err(|_| io::Error::from(Errno::INVAL))?;
    if matches!(name.to_bytes(), b"" | b"." | b"..") || name.to_bytes().contains(&b'/') {
        return Err(Errno::INVAL.into());
    }
    match rustix::fs::unlinkat(parent, &name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut levels = Vec::new();
    if let Some(first) = Level::enter(parent, name)? {
        levels.push(first);
    }
    let mut moved = 0u64;
    while let Some(mut level) = levels.pop() {
        if let Some(child) = level.children.pop() {
            let top = levels.first_mut();
            match rustix::fs::unlinkat(&level.directory, &child, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => levels.push(level),
                Err(Errno::NOTEMPTY | Errno::EXIST) => match top {
                    Some(top) if DEEPEST <= level.depth => {
                        moved += 1;
                        let shallow = CString::new(format!(".removed-{moved}"))
                            .expect("the text above holds no zero byte");
                        rustix::fs::renameat(&level.directory, &child, &top.directory, &shallow)?;
                        top.children.push(shallow);
                        levels.push(level);
                    }
                    _ => {
                        let inner = Level::enter(level.directory.as_fd(), child)?;
                        let depth = level.depth + 1;
                        levels.push(level);
                        levels.extend(inner.map(|inner| Level { depth, ..inner }));
                    }
                },
                // replaced by a file since it was listed
                Err(Errno::NOTDIR) => {
                    rustix::fs::unlinkat(&level.directory, &child, AtFlags::empty())?;
                    levels.push(level);
                }
                Err(error) => return Err(error.into()),
            }
            continue;
        }
        let holder = levels.last().map_or(parent, |outer| outer.directory.as_fd());
        match rustix::fs::unlinkat(holder, &level.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            // Listing while removing may skip entries, and somebody may still write there.
            Err(Errno::NOTEMPTY | Errno::EXIST) if level.scans < SCANS => {
                rustix::fs::seek(&level.directory, SeekFrom::Start(0))?;
                level.scan()?;
                levels.push(level);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A directory on the way down.
struct Level {
    directory: OwnedFd,
    name: CString,
    children: Vec<CString>,
    depth: usize,
    scans: u32,
}

/// Open directories at one time; the usual limit of open files is 1,024.
const DEEPEST: usize = 64;
/// How often a directory that fills up again is emptied.
const SCANS: u32 = 64;

impl Level {
    /// Opens the directory and unlinks its files; `None` if it is gone by now.
    fn enter(parent: BorrowedFd<'_>, name: CString) -> io::Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match rustix::fs::openat(parent, &name, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(None),
            // NOTDIR: a file, ELOOP: a link, that took the directory's place
            Err(Errno::NOTDIR | Errno::LOOP) => {
                rustix::fs::unlinkat(parent, &name, AtFlags::empty())?;
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let mut level = Self { directory, name, children: Vec::new(), depth: 0, scans: 0 };
        level.scan()?;
        Ok(Some(level))
    }

    fn scan(&mut self) -> io::Result<()> {
        self.scans += 1;
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut entries = RawDir::new(self.directory.as_fd(), &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name: &CStr = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if entry.file_type() == FileType::Directory {
                self.children.push(name.to_owned());
                continue;
            }
            match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => self.children.push(name.to_owned()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
