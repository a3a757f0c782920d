//! Writes the upper directory of an overlay as a layer's archive.

use std::collections::HashMap;
use std::ffi::CString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bulkhead_types::IdMap;
use rustix::fs::{FileType, Mode, OFlags, Stat, major, minor};

use crate::error::{ImageError, While};
use crate::tar::{Entry, Kind, TarWriter};
use crate::unpack::is_whiteout;
use crate::{directory, metadata};

/// What an id that a user namespace does not map is shown as (/proc/sys/kernel/overflowuid).
const NOBODY: u32 = 65534;

/// Writes everything below `upper`, in the order of names, so that equal trees give equal bytes.
///
/// Whiteouts and opaque marks become the image specification's `.wh.` files, hard links are kept,
/// sockets are left out (nobody listens on them in an image), and ids are translated by `range`.
pub(crate) fn archive(
    upper: BorrowedFd<'_>,
    range: Option<IdMap>,
    sink: &mut dyn Write,
) -> Result<(), ImageError> {
    let mut archive = TarWriter::new(io::BufWriter::with_capacity(64 << 10, sink));
    let mut walk = Walk { archive: &mut archive, range, links: HashMap::new() };
    walk.walk(upper)?;
    let buffered = archive.finish().doing(|| "write the layer".to_owned())?;
    drop(buffered);
    Ok(())
}

struct Walk<'a, W: Write> {
    archive: &'a mut TarWriter<W>,
    range: Option<IdMap>,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
}

/// A directory on the way: what is left to do in it.
struct Level {
    directory: OwnedFd,
    path: Vec<u8>,
    /// Last name first.
    names: Vec<CString>,
}

impl<W: Write> Walk<'_, W> {
    fn walk(&mut self, upper: BorrowedFd<'_>) -> Result<(), ImageError> {
        let what = || "read the container's files".to_owned();
        let root = directory::open(upper, ".").doing(what)?;
        let stat = rustix::fs::fstat(&root).doing(what)?;
        // The merged `/` has the mode and owner of the topmost layer's root.
        self.entry(root.as_fd(), &stat, b"./".to_vec(), Kind::Directory).doing(what)?;
        let mut levels = vec![self.enter(root, Vec::new())?];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.pop() else {
                levels.pop();
                continue;
            };
            let path = join(&level.path, name.to_bytes());
            let shown = || format!("read {} of the container", String::from_utf8_lossy(&path));
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&level.directory, &name, flags, Mode::empty());
            let file = file.doing(shown)?;
            let stat = rustix::fs::fstat(&file).doing(shown)?;
            if let Some(directory) = self.member(file, &stat, &level.path, &name)? {
                let inner = self.enter(directory, path)?;
                levels.push(inner);
            }
        }
        Ok(())
    }

    fn enter(&mut self, directory: OwnedFd, path: Vec<u8>) -> Result<Level, ImageError> {
        let what = || format!("read {} of the container", String::from_utf8_lossy(&path));
        let mut names = directory::names(directory.as_fd()).doing(what)?;
        names.reverse();
        if metadata::is_opaque(directory.as_fd()).doing(what)? {
            self.mark(join(&path, b".wh..wh..opq")).doing(what)?;
        }
        Ok(Level { directory, path, names })
    }

    /// Writes one member; a directory is returned, to be walked next.
    fn member(
        &mut self,
        file: OwnedFd,
        stat: &Stat,
        parent: &[u8],
        name: &CString,
    ) -> Result<Option<OwnedFd>, ImageError> {
        let name = name.to_bytes();
        let mut path = join(parent, name);
        let shown = String::from_utf8_lossy(&path).into_owned();
        let what = || format!("store {shown}");
        if is_whiteout(stat) {
            let path = join(parent, &[b".wh.", name].concat());
            return self.mark(path).doing(what).map(|()| None);
        }
        if name.starts_with(b".wh.") {
            return Err(ImageError::BadLayer(format!(
                "{shown} cannot be stored, because names that start with .wh. mean deleted files \
                 in an image; remove or rename it"
            )));
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                let kind = Kind::HardLink { target: first.clone() };
                return self.entry(file.as_fd(), stat, path, kind).doing(what).map(|()| None);
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.clone());
        }
        let (major, minor) = (major(stat.st_rdev), minor(stat.st_rdev));
        let kind = match kind {
            FileType::RegularFile => {
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                let source = std::fs::File::open(directory::path_of(file.as_fd())).doing(what)?;
                self.entry(file.as_fd(), stat, path, Kind::File { size }).doing(what)?;
                io::copy(&mut source.take(size), self.archive).doing(what)?;
                return Ok(None);
            }
            FileType::Directory => {
                let directory = directory::open(file.as_fd(), ".").doing(what)?;
                path.push(b'/');
                self.entry(file.as_fd(), stat, path, Kind::Directory).doing(what)?;
                return Ok(Some(directory));
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&file, "", Vec::new()).doing(what)?;
                Kind::Symlink { target: target.into_bytes() }
            }
            FileType::CharacterDevice => Kind::CharDevice { major, minor },
            FileType::BlockDevice => Kind::BlockDevice { major, minor },
            FileType::Fifo => Kind::Fifo,
            FileType::Socket | FileType::Unknown => return Ok(None),
        };
        self.entry(file.as_fd(), stat, path, kind).doing(what)?;
        Ok(None)
    }

    fn entry(
        &mut self,
        file: BorrowedFd<'_>,
        stat: &Stat,
        path: Vec<u8>,
        kind: Kind,
    ) -> io::Result<()> {
        let mut read = metadata::read(file, stat)?;
        if matches!(kind, Kind::HardLink { .. }) {
            read.xattrs.clear(); // they are the first name's
        }
        for (name, value) in &mut read.xattrs {
            if name == b"security.capability" {
                portable_capability(value);
            }
        }
        let inside = |id| match self.range {
            Some(range) => range.inside(id).unwrap_or(NOBODY),
            None => id,
        };
        self.archive.start(&Entry {
            path,
            kind,
            mode: read.mode,
            uid: inside(read.uid),
            gid: inside(read.gid),
            mtime: read.mtime,
            xattrs: read.xattrs,
        })
    }

    /// An empty file whose name says what is gone.
    fn mark(&mut self, path: Vec<u8>) -> io::Result<()> {
        self.archive.start(&Entry {
            path,
            kind: Kind::File { size: 0 },
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: crate::tar::Time::default(),
            xattrs: Vec::new(),
        })
    }
}

/// Turns capabilities of revision 3, which name the host id of a namespace's root, into revision
/// 2, which mean any namespace's root (capabilities(7), "File capability extended attribute").
fn portable_capability(value: &mut Vec<u8>) {
    const REVISION_3: u8 = 3;
    const REVISION_2: u8 = 2;
    if value.len() == 24 && value[3] == REVISION_3 {
        value[3] = REVISION_2;
        value.truncate(20);
    }
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}
