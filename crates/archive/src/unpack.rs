//! Archives that clients send, unpacked below a directory: build contexts and `docker cp`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bulkhead_sys::path as below;
use bulkhead_types::IdMap;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::{CopyError, Entry, Kind, Limits, Reader, Time, copy, set_attributes};

#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("the archive is not a tar archive, or is damaged: {0}")]
    Damaged(io::Error),
    #[error("{path} in the archive cannot be unpacked: {cause}")]
    Entry { path: String, cause: io::Error },
    #[error("cannot overwrite {what} {path} with {by}")]
    Replaces { what: &'static str, path: String, by: &'static str },
}

impl UnpackError {
    /// Whether it was this machine's fault, such as a full disk, and not the archive's.
    pub fn is_ours(&self) -> bool {
        let full = |cause: &io::Error| {
            matches!(
                Errno::from_io_error(cause),
                Some(Errno::NOSPC | Errno::DQUOT | Errno::IO | Errno::ROFS | Errno::MFILE)
            )
        };
        matches!(self, Self::Entry { cause, .. } if full(cause))
    }
}

/// Whose the unpacked files are.
#[derive(Debug, Clone, Copy)]
pub enum Owners {
    /// The engine's: in an image, what COPY brings belongs to 0:0 unless the Dockerfile says
    /// otherwise, so the context's owners are not kept.
    Engine,
    /// The archive's, as a container sees them whose ids are this range (`None`: the host's).
    Archive(Option<IdMap>),
}

/// Where an archive goes, and how.
#[derive(Debug)]
pub struct Unpack<'a> {
    /// Nothing outside is touched, whatever names and links the archive has.
    pub root: BorrowedFd<'a>,
    /// The directory below `root` that the archive's names start from.
    pub below: &'a Path,
    pub owners: Owners,
    /// Refuse to put a directory where there is none, and the other way round.
    pub keep_kinds: bool,
    pub limits: Limits,
}

impl Unpack<'_> {
    /// Unpacks an archive, compressed or not, to its end.
    pub fn run(&self, stream: impl Read + Send) -> Result<(), UnpackError> {
        let Owners::Archive(Some(range)) = self.owners else { return self.members(stream) };
        // In a volume's id-mapped mount only the container's ids can make files (EOVERFLOW), so a
        // thread of its own becomes the container's root.
        let unstarted = |cause| UnpackError::Entry { path: "/".to_owned(), cause };
        let unpacking = || {
            bulkhead_sys::process::act_as(range.first).map_err(unstarted)?;
            self.members(stream)
        };
        let joined = std::thread::scope(|scope| {
            std::thread::Builder::new().spawn_scoped(scope, unpacking).map(|thread| thread.join())
        });
        match joined.map_err(unstarted)? {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    fn members(&self, stream: impl Read) -> Result<(), UnpackError> {
        let mut archive = Reader::open(stream, self.limits).map_err(UnpackError::Damaged)?;
        // Set when nothing is made in them any more.
        let mut times = Vec::new();
        while let Some(entry) = archive.next_entry().map_err(UnpackError::Damaged)? {
            let name = Path::new(OsStr::from_bytes(&entry.path));
            let path = self.below.join(name.strip_prefix("/").unwrap_or(name));
            let failed = |cause| UnpackError::Entry { path: path.display().to_string(), cause };
            if self.keep_kinds {
                self.check_kind(&path, &entry)?;
            }
            match &entry.kind {
                Kind::Directory => {
                    self.directory_entry(&path, &entry).map_err(failed)?;
                    times.push((path, entry.mtime));
                }
                Kind::File { .. } => {
                    let mut begun = self.begin(&path).map_err(failed)?;
                    copy(&mut archive, &mut begun.file).map_err(|error| match error {
                        CopyError::Read(cause) => UnpackError::Damaged(cause),
                        CopyError::Write(cause) => failed(cause),
                    })?;
                    self.traits(begun.file.as_fd(), &entry).map_err(failed)?;
                    begun.finish().map_err(failed)?;
                }
                _ => self.other(&path, &entry).map_err(failed)?,
            }
        }
        for (path, time) in times {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { &path };
            // A later member may have replaced it.
            if let Ok(directory) = below::open(self.root, path, flags, Mode::empty()) {
                rustix::fs::futimens(directory, &both(time)).map_err(|errno| {
                    UnpackError::Entry { path: path.display().to_string(), cause: errno.into() }
                })?;
            }
        }
        archive.finish().map_err(UnpackError::Damaged)
    }

    fn check_kind(&self, path: &Path, entry: &Entry) -> Result<(), UnpackError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let Ok(found) = below::open(self.root, path, flags, Mode::empty()) else { return Ok(()) };
        let Ok(stat) = rustix::fs::fstat(&found) else { return Ok(()) };
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let (what, by) = match (is_directory, entry.kind == Kind::Directory) {
            (true, false) => ("directory", "non-directory"),
            (false, true) => ("non-directory", "directory"),
            _ => return Ok(()),
        };
        Err(UnpackError::Replaces { what, path: path.display().to_string(), by })
    }

    fn directory_entry(&self, path: &Path, entry: &Entry) -> io::Result<()> {
        let made = match self.directory(path) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                let (parent, name) = self.parent(path)?;
                make_room(&parent, &name)?;
                self.directory(path)?
            }
            other => other?,
        };
        self.traits(made.as_fd(), entry)
    }

    /// Makes a file, beside what has its name: that stays until the file is whole.
    fn begin(&self, path: &Path) -> io::Result<Begun> {
        let (parent, name) = self.parent(path)?;
        let is_taken = rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        let own = match is_taken {
            true => {
                OsString::from(format!(".unpacking-{}", rustix::thread::gettid().as_raw_nonzero()))
            }
            false => name.clone(),
        };
        if is_taken {
            // what one that was killed has left
            make_room(&parent, &own)?;
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::from_raw_mode(0o600);
        let file = below::open(parent.as_fd(), Path::new(&own), flags, mode).map(File::from)?;
        Ok(Begun { file, parent, own, name, is_whole: false })
    }

    fn other(&self, path: &Path, entry: &Entry) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        match &entry.kind {
            Kind::HardLink { target } => {
                let target = self.below.join(link_target(target)?);
                let target = target.strip_prefix("/").unwrap_or(&target);
                let (holder, target) = below::open_parent(self.root, target, false)?;
                if same_file(&holder, &target, &parent, &name)? {
                    return Ok(());
                }
                make_room(&parent, &name)?;
                rustix::fs::linkat(&holder, &target, &parent, &name, AtFlags::empty())?;
                Ok(())
            }
            Kind::Symlink { target } => {
                let target = link_target(target)?;
                make_room(&parent, &name)?;
                rustix::fs::symlinkat(target, &parent, &name)?;
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                if let Some((uid, gid)) = self.owner(entry.uid, entry.gid)? {
                    rustix::fs::chownat(&parent, &name, Some(uid), Some(gid), flags)?;
                }
                Ok(rustix::fs::utimensat(&parent, &name, &both(entry.mtime), flags)?)
            }
            Kind::Fifo => {
                make_room(&parent, &name)?;
                rustix::fs::mknodat(&parent, &name, FileType::Fifo, Mode::RWXU, 0)?;
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = rustix::fs::openat(&parent, &name, flags, Mode::empty())?;
                self.traits(made.as_fd(), entry)
            }
            Kind::BlockDevice { .. } | Kind::CharDevice { .. } => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is a device, which no archive may bring; leave it out",
            )),
            Kind::Directory | Kind::File { .. } => {
                unreachable!("the caller makes files and directories itself")
            }
        }
    }

    /// Owner, mode, attributes and time, in the order that keeps all of them: chown(2) takes away
    /// setuid bits and file capabilities. `file` may be an `O_PATH` descriptor.
    fn traits(&self, file: BorrowedFd<'_>, entry: &Entry) -> io::Result<()> {
        let range = match self.owners {
            Owners::Archive(range) => range,
            Owners::Engine => None,
        };
        if let Some((uid, gid)) = self.owner(entry.uid, entry.gid)? {
            rustix::fs::chownat(file, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
        }
        let path = below::of_descriptor(file);
        rustix::fs::chmodat(CWD, &path, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
        set_attributes(file, &entry.xattrs, range)?;
        Ok(rustix::fs::utimensat(CWD, &path, &both(entry.mtime), AtFlags::empty())?)
    }

    /// The host's ids for an archive's, `None` to leave a new file with the engine's.
    fn owner(&self, uid: u32, gid: u32) -> io::Result<Option<(Uid, Gid)>> {
        let Owners::Archive(range) = self.owners else { return Ok(None) };
        let outside = |id: u32| range.map_or(Some(id), |range| range.outside(id));
        // -1 is no owner: to chown(2) it means that nothing changes.
        match (outside(uid), outside(gid)) {
            (Some(uid), Some(gid)) if uid != u32::MAX && gid != u32::MAX => {
                Ok(Some((Uid::from_raw(uid), Gid::from_raw(gid))))
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("its owner {uid}:{gid} is not an id that the container has"),
            )),
        }
    }

    /// Opens the directory that holds `path`, making what is missing.
    fn parent(&self, path: &Path) -> io::Result<(OwnedFd, OsString)> {
        match below::open_parent(self.root, path, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        if let Some(parent) = path.parent() {
            self.directory(parent)?;
        }
        below::open_parent(self.root, path, true)
    }

    /// Opens a directory; it and those on the way that are made belong to the container's root.
    fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut prefix = PathBuf::new();
        for component in path.components() {
            prefix.push(component);
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            match below::open(self.root, &prefix, flags, Mode::empty()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Ok(_) => continue,
                Err(error) => return Err(error),
            }
            let made = below::create_dir_all(self.root, &prefix, Mode::from_raw_mode(0o755))?;
            if let Some((uid, gid)) = self.owner(0, 0)? {
                rustix::fs::chownat(&made, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
            }
        }
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        below::create_dir_all(self.root, path, Mode::from_raw_mode(0o755))
    }
}

/// A file that is being written. Where that fails (the disk is full, the archive ends) it is removed, and what had
/// its name before is still there.
struct Begun {
    file: File,
    parent: OwnedFd,
    /// The name that it has now.
    own: OsString,
    name: OsString,
    is_whole: bool,
}

impl Begun {
    fn finish(mut self) -> io::Result<()> {
        if self.own != self.name {
            let renamed = rustix::fs::renameat(&self.parent, &self.own, &self.parent, &self.name);
            if let Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) = renamed {
                make_room(&self.parent, &self.name)?;
                rustix::fs::renameat(&self.parent, &self.own, &self.parent, &self.name)?;
            } else {
                renamed?;
            }
        }
        self.is_whole = true;
        Ok(())
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.is_whole {
            // The error that is on its way is the one to tell.
            let _ = rustix::fs::unlinkat(&self.parent, &self.own, AtFlags::empty());
        }
    }
}

fn link_target(target: &[u8]) -> io::Result<&OsStr> {
    match target {
        b"" => Err(io::Error::new(io::ErrorKind::InvalidData, "it is a link without a target")),
        target => Ok(OsStr::from_bytes(target)),
    }
}

/// The last entry of a name wins, as in tar(1).
fn make_room(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    below::remove_tree(parent.as_fd(), name)
}

fn same_file(holder: &OwnedFd, target: &OsStr, parent: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    let found = rustix::fs::statat(holder, target, AtFlags::SYMLINK_NOFOLLOW)?;
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(old) => Ok((old.st_dev, old.st_ino) == (found.st_dev, found.st_ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn both(time: Time) -> Timestamps {
    let moment = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: moment, last_modification: moment }
}

#[cfg(test)]
mod tests;
