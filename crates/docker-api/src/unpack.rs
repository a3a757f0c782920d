//! Archives that clients send, unpacked below a directory: build contexts and `docker cp`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bulkhead_sys::path as below;
use bulkhead_types::IdMap;
use flate2::bufread::MultiGzDecoder;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    #[error("the archive is not a tar archive, or is cut off: {0}")]
    Damaged(io::Error),
    #[error("the archive is compressed with {0}; send it plain or compressed with gzip")]
    Compression(&'static str),
    #[error("{path} in the archive cannot be unpacked: {cause}")]
    Entry { path: String, cause: io::Error },
    #[error("cannot overwrite {what} {path} with {by}")]
    Replaces { what: &'static str, path: String, by: &'static str },
}

/// Whose the unpacked files are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Owners {
    /// The engine's: in an image, what COPY brings belongs to 0:0 unless the Dockerfile says
    /// otherwise, so the context's owners are not kept.
    Engine,
    /// The archive's, as a container sees them whose ids are this range (`None`: the host's).
    Archive(Option<IdMap>),
}

/// Where an archive goes, and how.
#[derive(Debug)]
pub(crate) struct Unpack<'a> {
    /// Nothing outside is touched, whatever names and links the archive has.
    pub(crate) root: BorrowedFd<'a>,
    /// The directory below `root` that the archive's names start from.
    pub(crate) below: &'a Path,
    pub(crate) owners: Owners,
    /// Refuse to put a directory where there is none, and the other way round.
    pub(crate) keep_kinds: bool,
}

impl Unpack<'_> {
    /// Unpacks an archive, plain or gzip, to its end.
    pub(crate) fn run(&self, stream: impl Read + Send) -> Result<(), UnpackError> {
        let Owners::Archive(Some(range)) = self.owners else { return self.stream(stream) };
        // In a volume's id-mapped mount only the container's ids can make files (EOVERFLOW), so a
        // thread of its own becomes the container's root.
        let unstarted = |cause| UnpackError::Entry { path: "/".to_owned(), cause };
        let unpacking = || {
            become_root_of(range).map_err(unstarted)?;
            self.stream(stream)
        };
        let joined = std::thread::scope(|scope| {
            std::thread::Builder::new().spawn_scoped(scope, unpacking).map(|thread| thread.join())
        });
        match joined.map_err(unstarted)? {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    fn stream(&self, stream: impl Read) -> Result<(), UnpackError> {
        let mut stream = BufReader::with_capacity(1 << 16, stream);
        let head = stream.fill_buf().map_err(UnpackError::Damaged)?;
        match head {
            [0x1f, 0x8b, ..] => self.entries(MultiGzDecoder::new(stream)),
            [b'B', b'Z', b'h', ..] => Err(UnpackError::Compression("bzip2")),
            [0xfd, b'7', b'z', ..] => Err(UnpackError::Compression("xz")),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Err(UnpackError::Compression("zstd")),
            _ => self.entries(stream),
        }
    }

    fn entries(&self, stream: impl Read) -> Result<(), UnpackError> {
        let mut archive = Archive::new(stream);
        for entry in archive.entries().map_err(UnpackError::Damaged)? {
            let mut entry = entry.map_err(UnpackError::Damaged)?;
            let name = entry.path_bytes().into_owned();
            let name = Path::new(OsStr::from_bytes(&name));
            let path = self.below.join(name.strip_prefix("/").unwrap_or(name));
            if self.keep_kinds {
                self.check_kind(&path, entry.header().entry_type())?;
            }
            self.entry(&mut entry, &path)
                .map_err(|cause| UnpackError::Entry { path: path.display().to_string(), cause })?;
        }
        // What follows the archive's end (padding) is read, so that the sender is not cut off.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(UnpackError::Damaged)?;
        Ok(())
    }

    fn check_kind(&self, path: &Path, kind: EntryType) -> Result<(), UnpackError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let Ok(found) = below::open(self.root, path, flags, Mode::empty()) else { return Ok(()) };
        let Ok(stat) = rustix::fs::fstat(&found) else { return Ok(()) };
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let (what, by) = match (is_directory, kind.is_dir()) {
            (true, false) => ("directory", "non-directory"),
            (false, true) => ("non-directory", "directory"),
            _ => return Ok(()),
        };
        Err(UnpackError::Replaces { what, path: path.display().to_string(), by })
    }

    fn entry(&self, entry: &mut Entry<'_, impl Read>, path: &Path) -> io::Result<()> {
        let header = entry.header();
        let kind = header.entry_type();
        let mode = Mode::from_raw_mode(header.mode()? & 0o7777);
        let owner = self.owner(header.uid().unwrap_or(0), header.gid().unwrap_or(0))?;
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(header.mtime().unwrap_or(0));
        if kind.is_dir() {
            let directory = self.directory(path)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            // an `O_PATH` descriptor cannot be given to fchmod(2)
            let directory = below::open(directory.as_fd(), Path::new("."), flags, Mode::empty())?;
            if let Some((uid, gid)) = owner {
                rustix::fs::fchown(&directory, Some(uid), Some(gid))?;
            }
            return Ok(rustix::fs::fchmod(directory, mode)?);
        }
        let (parent, name) = match self.parent(path) {
            Ok(found) => found,
            // pax global headers and the like have no name
            Err(_) if !(kind.is_file() || kind.is_symlink() || kind.is_hard_link()) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                make_room(&parent, &name)?;
                let file = below::open(
                    parent.as_fd(),
                    Path::new(&name),
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW,
                    Mode::from_raw_mode(0o600),
                )?;
                let mut file = File::from(file);
                io::copy(entry, &mut file)?;
                if let Some((uid, gid)) = owner {
                    rustix::fs::fchown(&file, Some(uid), Some(gid))?;
                }
                file.set_modified(modified)?;
                rustix::fs::fchmod(&file, mode)?;
                return Ok(());
            }
            EntryType::Link => {
                let target = self.below.join(link_target(entry)?);
                let (holder, target) = below::open_parent(self.root, &target, false)?;
                make_room(&parent, &name)?;
                rustix::fs::linkat(&holder, &target, &parent, &name, AtFlags::empty())?;
                return Ok(());
            }
            EntryType::Symlink => {
                let target = link_target(entry)?;
                make_room(&parent, &name)?;
                rustix::fs::symlinkat(target, &parent, &name)?;
            }
            EntryType::Fifo => {
                make_room(&parent, &name)?;
                rustix::fs::mknodat(&parent, &name, FileType::Fifo, mode, 0)?;
            }
            EntryType::Char | EntryType::Block => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "it is a device, which no archive may bring; leave it out",
                ));
            }
            // pax and GNU headers, which the reader has already taken in
            _ => return Ok(()),
        }
        if let Some((uid, gid)) = owner {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(&parent, &name, Some(uid), Some(gid), flags)?;
        }
        Ok(())
    }

    /// The host's ids for an archive's, `None` to leave a new file with the engine's.
    fn owner(&self, uid: u64, gid: u64) -> io::Result<Option<(Uid, Gid)>> {
        let Owners::Archive(range) = self.owners else { return Ok(None) };
        let outside = |id: u64| -> Option<u32> {
            let id = u32::try_from(id).ok()?;
            range.map_or(Some(id), |range| range.outside(id))
        };
        match (outside(uid), outside(gid)) {
            (Some(uid), Some(gid)) => Ok(Some((Uid::from_raw(uid), Gid::from_raw(gid)))),
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

/// Gives this thread the effective ids of a container's root, and keeps its capabilities.
fn become_root_of(range: IdMap) -> io::Result<()> {
    use rustix::thread::{capabilities, set_capabilities, set_thread_res_gid, set_thread_res_uid};
    let first = Gid::from_raw(range.first);
    set_thread_res_gid(rustix::process::getgid(), first, rustix::process::getgid())?;
    let (own, first) = (rustix::process::getuid(), Uid::from_raw(range.first));
    // The real id stays root's: what the kernel takes away for the effective one can be had back.
    set_thread_res_uid(own, first, own)?;
    let mut sets = capabilities(None)?;
    sets.effective = sets.permitted;
    Ok(set_capabilities(None, sets)?)
}

fn link_target(entry: &Entry<'_, impl Read>) -> io::Result<OsString> {
    match entry.link_name_bytes() {
        Some(target) if !target.is_empty() => Ok(OsStr::from_bytes(&target).to_owned()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it is a link without a target")),
    }
}

/// The last entry of a name wins, as in tar(1).
fn make_room(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tar::{Builder, Header};

    use super::*;

    fn unpack(place: &Path, archive: &[u8]) -> Result<(), UnpackError> {
        let root = OwnedFd::from(File::open(place).expect("a directory"));
        let unpack = Unpack {
            root: root.as_fd(),
            below: Path::new(""),
            owners: Owners::Engine,
            keep_kinds: false,
        };
        unpack.run(archive)
    }

    /// Names as they are, which the tar crate's own builder refuses to write.
    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = Header::new_gnu();
            header.as_gnu_mut().expect("gnu").name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o750);
            header.set_mtime(1);
            header.set_uid(7);
            header.set_gid(8);
            let data = match kind {
                EntryType::Symlink | EntryType::Link => {
                    header.set_link_name_literal(content).expect("short");
                    ""
                }
                _ => content,
            };
            header.set_size(data.len() as u64);
            header.set_cksum();
            builder.append(&header, data.as_bytes()).expect("memory");
        }
        builder.into_inner().expect("memory")
    }

    #[test]
    fn files_links_and_directories_are_unpacked() {
        let place = tempfile::tempdir().expect("a directory");
        let plain = archive(&[
            ("./", EntryType::Directory, ""),
            ("a/b/file", EntryType::Regular, "one"),
            ("link", EntryType::Symlink, "a/b/file"),
            ("hard", EntryType::Link, "a/b/file"),
            ("a/b/file", EntryType::Regular, "two"),
        ]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).expect("memory");
        unpack(place.path(), &gzip.finish().expect("memory")).expect("a context");
        let read = |name: &str| std::fs::read_to_string(place.path().join(name)).expect(name);
        assert_eq!((read("link"), read("hard")), ("two".to_owned(), "one".to_owned()));
    }

    #[test]
    fn nothing_leaves_the_directory() {
        let outer = tempfile::tempdir().expect("a directory");
        let place = outer.path().join("inner");
        std::fs::create_dir(&place).expect("a directory");
        let victim = outer.path().join("victim");
        std::fs::write(&victim, "untouched").expect("a file");
        let hostile = archive(&[
            ("up", EntryType::Symlink, "../"),
            ("up/victim", EntryType::Regular, "owned"),
            ("../victim", EntryType::Regular, "owned"),
            ("/victim", EntryType::Regular, "owned"),
            ("a/../../victim", EntryType::Regular, "owned"),
        ]);
        unpack(&place, &hostile).expect("every name has a place inside");
        assert_eq!(std::fs::read_to_string(&victim).expect("it is there"), "untouched");
        assert_eq!(std::fs::read_to_string(place.join("victim")).expect("inside"), "owned");
        assert!(unpack(&place, &archive(&[("passwd", EntryType::Link, "../victim2")])).is_err());
    }

    #[test]
    fn wrong_archives_say_what_is_wrong() {
        let place = tempfile::tempdir().expect("a directory");
        for (bytes, part) in [
            (b"not a tar archive, but long enough to be looked at".repeat(20), "not a tar archive"),
            (b"BZh91AY".to_vec(), "bzip2"),
            (archive(&[("sda", EntryType::Block, "")]), "device"),
        ] {
            let error = unpack(place.path(), &bytes).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn owners_are_the_containers() {
        use std::os::unix::fs::MetadataExt;
        let place = tempfile::tempdir().expect("a directory");
        let root = OwnedFd::from(File::open(place.path()).expect("a directory"));
        let range = IdMap::new(100_000, 65_536);
        let unpack = Unpack {
            root: root.as_fd(),
            below: Path::new("etc"),
            owners: Owners::Archive(Some(range)),
            keep_kinds: true,
        };
        let archive = |kind| archive(&[("new/file", kind, "")]);
        unpack.run(&archive(EntryType::Regular)[..]).expect("an archive");
        let owner = |path: &str| {
            let metadata = std::fs::metadata(place.path().join(path)).expect(path);
            (metadata.uid(), metadata.gid())
        };
        assert_eq!(owner("etc/new"), (100_000, 100_000));
        assert_eq!(owner("etc/new/file"), (100_007, 100_008));
        let error = unpack.run(&archive(EntryType::Directory)[..]).expect_err("a file is there");
        assert_eq!(error.to_string(), "cannot overwrite non-directory etc/new/file with directory");
    }
}
