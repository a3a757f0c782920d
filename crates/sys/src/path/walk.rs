use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// Goes through everything below a directory, depth first, in the order of names.
///
/// It keeps a list of what is left to do and does not recurse, since a stranger's tree can be
/// deeper than the stack of a thread goes. No symbolic link is followed. One descriptor is held for
/// each level on the way; what is gone since it was listed is left out.
#[derive(Debug)]
pub struct Walk {
    levels: Vec<Level>,
    /// A directory that was shown and is entered next.
    shown: Option<(OwnedFd, PathBuf)>,
    at: PathBuf,
}

/// What [`Walk::visit`] comes to.
#[derive(Debug)]
pub enum Visit {
    /// A directory; what is in it follows, then its [`Visit::Leave`].
    Enter(Visited),
    /// Anything else.
    File(Visited),
    /// All that is in the directory has been shown.
    Leave,
}

/// One file of any kind.
#[derive(Debug)]
pub struct Visited {
    /// `O_PATH`, of the file itself.
    pub file: OwnedFd,
    pub stat: Stat,
    /// Below the directory that the walk began in.
    pub path: PathBuf,
}

impl Visited {
    /// The last component of its path.
    pub fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }
}

#[derive(Debug)]
struct Level {
    directory: OwnedFd,
    path: PathBuf,
    /// Last name first.
    names: Vec<CString>,
}

impl Walk {
    /// Begins in `directory`, which is not shown itself (an `O_PATH` descriptor will do).
    pub fn new(directory: BorrowedFd<'_>) -> io::Result<Self> {
        let first = Level::enter(directory, PathBuf::new())?;
        Ok(Self { levels: vec![first], shown: None, at: PathBuf::new() })
    }

    /// The next thing; `None` once everything was shown. After an error the walk is over.
    pub fn visit(&mut self) -> io::Result<Option<Visit>> {
        let next = self.step();
        if next.is_err() {
            self.levels.clear();
        }
        next
    }

    /// Leaves out what is in the directory that was shown last; it gets no [`Visit::Leave`].
    pub fn skip(&mut self) {
        self.shown = None;
    }

    /// What the last step looked at: for errors.
    pub fn at(&self) -> &Path {
        &self.at
    }

    fn step(&mut self) -> io::Result<Option<Visit>> {
        if let Some((directory, path)) = self.shown.take() {
            self.levels.push(Level::enter(directory.as_fd(), path)?);
        }
        while let Some(level) = self.levels.last_mut() {
            let Some(name) = level.names.pop() else {
                self.levels.pop();
                // the first directory was not entered by a visit, so none is left
                return Ok((!self.levels.is_empty()).then_some(Visit::Leave));
            };
            let path = level.path.join(OsStr::from_bytes(name.to_bytes()));
            self.at.clone_from(&path);
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = match rustix::fs::openat(&level.directory, &name, flags, Mode::empty()) {
                Ok(file) => file,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            let stat = rustix::fs::fstat(&file)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                return Ok(Some(Visit::File(Visited { file, stat, path })));
            }
            self.shown = Some((file.try_clone()?, path.clone()));
            return Ok(Some(Visit::Enter(Visited { file, stat, path })));
        }
        Ok(None)
    }
}

impl Level {
    fn enter(directory: BorrowedFd<'_>, path: PathBuf) -> io::Result<Self> {
        // Anew, since an `O_PATH` descriptor cannot be listed.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(directory, ".", flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        names.sort_unstable_by(|one, other| other.cmp(one));
        Ok(Self { directory, path, names })
    }
}
