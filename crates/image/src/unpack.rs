//! Unpacks one layer's archive into a directory, in the form overlayfs wants.
//!
//! Every name is resolved below the directory by `bulkhead_sys::path`, then used by (parent
//! descriptor, last component) or by a descriptor of the new file; nothing is changed through a
//! symbolic link. Deletions become overlayfs's own marks: a whiteout is a character device 0:0,
//! an opaque directory has the attribute `trusted.overlay.opaque` (Linux:
//! Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories").

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use bulkhead_archive::{Entry, Kind, Limits, Reader, Time};
use bulkhead_sys::path as below;
use bulkhead_types::IdMap;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, XattrFlags, makedev};
use rustix::io::Errno;

use crate::compression::Plain;
use crate::directory;
use crate::error::{ImageError, While};
use crate::lower::{self, Found};
use crate::metadata::{self, Metadata, OPAQUE, is_whiteout};

/// Bytes of a path, as PATH_MAX without its NUL.
const PATH_LIMIT: usize = 4095;
const NAME_LIMIT: usize = 255;

/// What came out of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub(crate) diff_id: bulkhead_types::Digest,
    /// Bytes of all files' content.
    pub(crate) size: u64,
    /// One owner or group of each window of ids ([`IdMap::WINDOW`]) that is beyond what every
    /// container has.
    pub(crate) owners: BTreeSet<u32>,
}

/// Unpacks the (compressed) archive `stream` into the empty directory `root`.
pub(crate) fn unpack(
    stream: impl Read,
    root: OwnedFd,
    parents: &[OwnedFd],
) -> Result<Unpacked, ImageError> {
    let plain = Plain::new(stream).map_err(unreadable)?;
    let mut archive = Reader::plain(plain, Limits::LAYER);
    let mut unpacker = Unpacker {
        root,
        parents,
        holder: None,
        directories: Vec::new(),
        size: 0,
        owners: BTreeSet::new(),
    };
    metadata::set_mode(unpacker.root.as_fd(), 0o755).doing(|| "set the mode of /".to_owned())?;
    while let Some(entry) = archive.next_entry().map_err(unreadable)? {
        unpacker.apply(&entry, &mut archive)?;
    }
    unpacker.finish()?;
    let (size, owners) = (unpacker.size, unpacker.owners);
    let diff_id = archive.into_inner().drain().map_err(unreadable)?;
    Ok(Unpacked { diff_id, size, owners })
}

/// A stream error is the archive's fault, unless the disk could not be read.
fn unreadable(error: io::Error) -> ImageError {
    match error.raw_os_error() {
        Some(_) => ImageError::Io { what: "read the layer".to_owned(), cause: error },
        None => ImageError::BadLayer(error.to_string()),
    }
}

#[derive(Debug)]
struct Unpacker<'a> {
    root: OwnedFd,
    /// Lower layers, lowest first.
    parents: &'a [OwnedFd],
    /// The directory of the last member, which is the next one's more often than not.
    holder: Option<(Vec<u8>, OwnedFd)>,
    /// Times of directories, to be set when nothing is made in them any more.
    directories: Vec<(Vec<u8>, Time)>,
    size: u64,
    /// See [`Unpacked::owners`].
    owners: BTreeSet<u32>,
}

impl Unpacker<'_> {
    fn apply(&mut self, entry: &Entry, content: &mut impl Read) -> Result<(), ImageError> {
        for id in [entry.uid, entry.gid] {
            // an archive of a great many owners is not to fill the memory: no map has them all
            if id >= IdMap::SIZE && self.owners.len() < 64 {
                self.owners.insert(id - id % IdMap::WINDOW);
            }
        }
        let path = clean(&entry.path)?;
        if path.is_empty() {
            if entry.kind != Kind::Directory {
                return Err(bad(&entry.path, "stands for the layer's root and is no directory"));
            }
            self.directories.push((Vec::new(), entry.mtime));
            return metadata::apply(self.root.as_fd(), &Metadata::of(entry))
                .doing(|| "set the attributes of /".to_owned());
        }
        let (parent, name) = split(&path);
        let what = || format!("unpack {}", shown(&path));
        if let Some(hidden) = name.strip_prefix(b".wh.") {
            return match hidden {
                b".wh..opq" => self.make_opaque(parent).doing(what),
                // aufs kept its own files under such names; they mean nothing here.
                _ if hidden.starts_with(b".wh.") => Ok(()),
                b"" | b"." | b".." => Err(bad(&entry.path, "is a whiteout of no name")),
                name => self.whiteout(parent, name).doing(what),
            };
        }
        match entry.kind {
            Kind::Directory => self.directory(parent, name, entry).doing(what)?,
            Kind::CharDevice { major: 0, minor: 0 } => self.whiteout(parent, name).doing(what)?,
            Kind::HardLink { ref target } => {
                let target = clean(target)?;
                self.hard_link(parent, name, &target, entry)?;
            }
            _ => {
                self.make_room(parent, name).doing(what)?;
                let holder = self.holder(parent).doing(what)?;
                create(holder.as_fd(), name, entry, content).map_err(|error| {
                    if error.raw_os_error().is_some() {
                        ImageError::Io { what: what(), cause: error }
                    } else {
                        unreadable(error)
                    }
                })?;
                if let Kind::File { size } = entry.kind {
                    self.size += size;
                }
            }
        }
        Ok(())
    }

    fn directory(&mut self, parent: &[u8], name: &[u8], entry: &Entry) -> io::Result<()> {
        let holder = self.holder(parent)?;
        let replaced = match stat(holder.as_fd(), name)? {
            Some(old) if FileType::from_raw_mode(old.st_mode) == FileType::Directory => false,
            Some(_) => {
                // What hid the lower layers' directory of this name did so for good.
                self.remove(parent, name)?;
                true
            }
            None => false,
        };
        let holder = self.holder(parent)?;
        match rustix::fs::mkdirat(&holder, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let directory = directory::open(holder.as_fd(), name)?;
        metadata::apply(directory.as_fd(), &Metadata::of(entry))?;
        if replaced {
            mark_opaque(directory.as_fd())?;
        }
        self.directories.push((join(parent, name), entry.mtime));
        Ok(())
    }

    /// Gives the file `target` another name. One that only a lower layer has is copied up: two
    /// overlay layers cannot share an inode.
    fn hard_link(
        &mut self,
        parent: &[u8],
        name: &[u8],
        target: &[u8],
        entry: &Entry,
    ) -> Result<(), ImageError> {
        let what = || format!("link {} to {}", shown(&entry.path), shown(target));
        if target.is_empty() {
            return Err(bad(&entry.path, "is a hard link to the root"));
        }
        let path = join(parent, name);
        let target_path = Path::new(OsStr::from_bytes(target));
        let here = match below::open_parent(self.root.as_fd(), target_path, false) {
            Ok((holder, last)) => {
                let found = stat(holder.as_fd(), last.as_bytes()).doing(what)?;
                found.filter(|stat| !is_whiteout(stat)).map(|stat| (holder, last, stat))
            }
            Err(error) if is_absent(&error) => None,
            Err(error) => return Err(error).doing(what),
        };
        if let Some((holder, last, found)) = here {
            if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                return Err(bad(&entry.path, "is a hard link to a directory"));
            }
            let to = self.holder(parent).doing(what)?;
            if stat(to.as_fd(), name)
                .doing(what)?
                .is_some_and(|old| (old.st_dev, old.st_ino) == (found.st_dev, found.st_ino))
            {
                return Ok(()); // it is the same file already
            }
            // Removing first could remove the target's own directory: a link never replaces one.
            self.make_room_for_link(parent, name, target).doing(what)?;
            let to = self.holder(parent).doing(what)?;
            return rustix::fs::linkat(
                &holder,
                &last,
                &to,
                OsStr::from_bytes(name),
                AtFlags::empty(),
            )
            .doing(what);
        }
        match lower::find(self.parents, target).doing(what)? {
            Some(Found { file, stat }) => {
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    return Err(bad(&entry.path, "is a hard link to a directory"));
                }
                self.make_room(parent, name).doing(what)?;
                let to = self.holder(parent).doing(what)?;
                self.size += lower::copy(file.as_fd(), &stat, to.as_fd(), name).doing(what)?;
                Ok(())
            }
            None => Err(ImageError::BadLayer(format!(
                "{} is a hard link to {}, which does not exist",
                shown(&path),
                shown(target)
            ))),
        }
    }

    fn make_room_for_link(&mut self, parent: &[u8], name: &[u8], target: &[u8]) -> io::Result<()> {
        let path = join(parent, name);
        if target.starts_with(&[&path[..], b"/"].concat()) {
            return Err(io::Error::from(Errno::ISDIR));
        }
        self.make_room(parent, name)
    }

    /// Hides `name` of the lower layers. What this very layer has under the name stays (image
    /// specification, "Whiteouts"), but a directory no longer shows what lies below it.
    fn whiteout(&mut self, parent: &[u8], name: &[u8]) -> io::Result<()> {
        let holder = self.holder(parent)?;
        match stat(holder.as_fd(), name)? {
            None => {
                let (mode, device) = (Mode::empty(), makedev(0, 0));
                rustix::fs::mknodat(&holder, name, FileType::CharacterDevice, mode, device)?;
                Ok(())
            }
            Some(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {
                mark_opaque(directory::open(holder.as_fd(), name)?.as_fd())
            }
            Some(_) => Ok(()),
        }
    }

    fn make_opaque(&mut self, path: &[u8]) -> io::Result<()> {
        let directory = self.holder(path)?;
        mark_opaque(directory::open(directory.as_fd(), ".")?.as_fd())
    }

    /// Removes what an earlier member left under the name of this one.
    fn make_room(&mut self, parent: &[u8], name: &[u8]) -> io::Result<()> {
        let holder = self.holder(parent)?;
        match stat(holder.as_fd(), name)? {
            Some(_) => self.remove(parent, name),
            None => Ok(()),
        }
    }

    fn remove(&mut self, parent: &[u8], name: &[u8]) -> io::Result<()> {
        let holder = self.holder(parent)?;
        let result = below::remove_tree(holder.as_fd(), OsStr::from_bytes(name));
        self.holder = None; // it may have been inside, or behind a link that is gone
        result
    }

    /// The directory `path`, made if it is missing.
    fn holder(&mut self, path: &[u8]) -> io::Result<OwnedFd> {
        if let Some((held, directory)) = &self.holder
            && held == path
        {
            return directory.try_clone();
        }
        let directory = self.enter(path)?;
        self.holder = Some((path.to_vec(), directory.try_clone()?));
        Ok(directory)
    }

    fn enter(&mut self, path: &[u8]) -> io::Result<OwnedFd> {
        let open = |root: BorrowedFd<'_>, path: &[u8]| {
            let path = if path.is_empty() { &b"."[..] } else { path };
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            below::open(root, Path::new(OsStr::from_bytes(path)), flags, Mode::empty())
        };
        match open(self.root.as_fd(), path) {
            Err(error) if is_absent(&error) => {}
            other => return other,
        }
        let mut end = 0;
        while end < path.len() {
            let start = if end == 0 { 0 } else { end + 1 };
            end = path[start..].iter().position(|b| *b == b'/').map_or(path.len(), |n| start + n);
            match open(self.root.as_fd(), &path[..end]) {
                Ok(_) => continue,
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(error),
            }
            let holder = open(self.root.as_fd(), path[..start].strip_suffix(b"/").unwrap_or(b""))?;
            let name = &path[start..end];
            match stat(holder.as_fd(), name)? {
                // Nobody has described the directory; it looks as it does in the layers below.
                None => {
                    rustix::fs::mkdirat(&holder, name, Mode::RWXU)?;
                    let made = directory::open(holder.as_fd(), name)?;
                    metadata::set_mode(made.as_fd(), 0o755)?;
                    if let Some(found) = lower::find(self.parents, &path[..end])?
                        && FileType::from_raw_mode(found.stat.st_mode) == FileType::Directory
                    {
                        let original = metadata::read(found.file.as_fd(), &found.stat)?;
                        metadata::apply(made.as_fd(), &original)?;
                        self.directories.push((path[..end].to_vec(), original.mtime));
                    }
                }
                Some(found) if is_whiteout(&found) => {
                    rustix::fs::unlinkat(&holder, name, AtFlags::empty())?;
                    rustix::fs::mkdirat(&holder, name, Mode::RWXU)?;
                    let made = directory::open(holder.as_fd(), name)?;
                    metadata::set_mode(made.as_fd(), 0o755)?;
                    mark_opaque(made.as_fd())?;
                }
                // a link that leads to nowhere, yet
                Some(found) if FileType::from_raw_mode(found.st_mode) == FileType::Symlink => {
                    let path = Path::new(OsStr::from_bytes(&path[..end]));
                    let mode = Mode::from_raw_mode(0o755);
                    below::create_dir_all(self.root.as_fd(), path, mode)?;
                }
                Some(_) => return Err(Errno::NOTDIR.into()),
            }
        }
        open(self.root.as_fd(), path)
    }

    fn finish(&mut self) -> Result<(), ImageError> {
        for (path, time) in std::mem::take(&mut self.directories) {
            let what = || format!("set the time of {}", shown(&path));
            let target = OsStr::from_bytes(if path.is_empty() { b"." } else { &path });
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            match below::open(self.root.as_fd(), Path::new(target), flags, Mode::empty()) {
                Ok(directory) => metadata::set_time(directory.as_fd(), time).doing(what)?,
                Err(error) if is_absent(&error) => {} // a later member has replaced it
                Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {}
                Err(error) => return Err(error).doing(what),
            }
        }
        Ok(())
    }
}

/// Makes a file that is no directory and no link to another member; nothing has its name.
fn create(
    holder: BorrowedFd<'_>,
    name: &[u8],
    entry: &Entry,
    content: &mut impl Read,
) -> io::Result<()> {
    let name = OsStr::from_bytes(name);
    match &entry.kind {
        Kind::File { .. } => {
            let flags =
                OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(holder, name, flags, Mode::RUSR | Mode::WUSR)?;
            let mut file = std::fs::File::from(fd);
            io::copy(content, &mut file)?;
            metadata::apply(file.as_fd(), &Metadata::of(entry))?;
            metadata::set_time(file.as_fd(), entry.mtime)
        }
        Kind::Symlink { target } => {
            if target.is_empty() || target.len() > PATH_LIMIT {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "{} is a symbolic link to a name of {} bytes",
                        name.display(),
                        target.len()
                    ),
                ));
            }
            rustix::fs::symlinkat(OsStr::from_bytes(target), holder, name)?;
            metadata::set_link(holder, name, entry.uid, entry.gid, entry.mtime)
        }
        Kind::BlockDevice { major, minor } => {
            node(holder, name, FileType::BlockDevice, makedev(*major, *minor), entry)
        }
        Kind::CharDevice { major, minor } => {
            node(holder, name, FileType::CharacterDevice, makedev(*major, *minor), entry)
        }
        Kind::Fifo => node(holder, name, FileType::Fifo, 0, entry),
        Kind::Directory | Kind::HardLink { .. } => {
            unreachable!("the caller makes directories and hard links itself")
        }
    }
}

fn node(
    holder: BorrowedFd<'_>,
    name: &OsStr,
    kind: FileType,
    device: u64,
    entry: &Entry,
) -> io::Result<()> {
    rustix::fs::mknodat(holder, name, kind, Mode::empty(), device)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(holder, name, flags, Mode::empty())?;
    metadata::apply(file.as_fd(), &Metadata::of(entry))?;
    metadata::set_time(file.as_fd(), entry.mtime)
}

fn mark_opaque(directory: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(directory, OPAQUE, b"y", XattrFlags::empty())?)
}

fn stat(holder: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(holder, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn is_absent(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    number == Some(Errno::NOENT.raw_os_error()) || number == Some(Errno::NOTDIR.raw_os_error())
}

/// Drops leading slashes, `.` and doubled slashes; refuses what could not be meant well.
fn clean(path: &[u8]) -> Result<Vec<u8>, ImageError> {
    let mut cleaned = Vec::with_capacity(path.len());
    let components: Vec<_> =
        path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    for (index, component) in components.iter().enumerate() {
        if *component == b".." {
            return Err(bad(path, "leads out of its directory"));
        }
        if component.contains(&0) {
            return Err(bad(path, "holds a NUL"));
        }
        if component.len() > NAME_LIMIT {
            return Err(bad(path, "has a component of more than 255 bytes"));
        }
        if index + 1 < components.len() && component.starts_with(b".wh.") {
            return Err(bad(path, "lies in a whiteout"));
        }
        if !cleaned.is_empty() {
            cleaned.push(b'/');
        }
        cleaned.extend_from_slice(component);
    }
    if cleaned.len() > PATH_LIMIT {
        return Err(bad(path, "is longer than 4,095 bytes"));
    }
    Ok(cleaned)
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

/// A name from an archive in a message: not all of a name of 1 MiB.
fn shown(path: &[u8]) -> String {
    let start = &path[..path.len().min(200)];
    let dots = if start.len() < path.len() { "…" } else { "" };
    format!("{}{dots}", OsString::from_vec(start.to_vec()).display())
}

fn bad(path: &[u8], complaint: &str) -> ImageError {
    ImageError::BadLayer(format!("{:?} {complaint}", shown(path)))
}

#[cfg(test)]
mod tests;
