//! The build context: an archive in a request's body, unpacked into a directory of its own.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bulkhead_spec::Id;
use bulkhead_sys::path as below;
use flate2::bufread::MultiGzDecoder;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

/// What stands before the name of every context's directory.
const PREFIX: &str = "build-";

#[derive(Debug, thiserror::Error)]
pub(crate) enum ContextError {
    #[error("the build context cannot be kept in {directory}: {cause}")]
    Directory { directory: String, cause: io::Error },
    #[error("the build context is not a tar archive, or is cut off: {0}")]
    Damaged(io::Error),
    #[error("the build context is compressed with {0}; send it plain or compressed with gzip")]
    Compression(&'static str),
    #[error("{path} in the build context cannot be unpacked: {cause}")]
    Entry { path: String, cause: io::Error },
}

/// A directory below the engine's own that is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct ContextDirectory {
    holder: OwnedFd,
    name: OsString,
}

impl ContextDirectory {
    pub(crate) fn make(temporary: &Path) -> Result<Self, ContextError> {
        let fault =
            |cause| ContextError::Directory { directory: temporary.display().to_string(), cause };
        let holder = open_holder(temporary).map_err(fault)?;
        let name = OsString::from(format!("{PREFIX}{}", Id::random().short()));
        rustix::fs::mkdirat(&holder, &name, Mode::from_raw_mode(0o700))
            .map_err(|errno| fault(errno.into()))?;
        Ok(Self { holder, name })
    }

    pub(crate) fn open(&self) -> Result<OwnedFd, ContextError> {
        below::open(
            self.holder.as_fd(),
            Path::new(&self.name),
            OFlags::RDONLY | OFlags::DIRECTORY,
            Mode::empty(),
        )
        .map_err(|cause| ContextError::Directory {
            directory: self.name.to_string_lossy().into_owned(),
            cause,
        })
    }
}

impl Drop for ContextDirectory {
    fn drop(&mut self) {
        if let Err(error) = below::remove_tree(self.holder.as_fd(), &self.name) {
            tracing::warn!("a build context is left over until the next start: {error}");
        }
    }
}

fn open_holder(temporary: &Path) -> io::Result<OwnedFd> {
    std::fs::create_dir_all(temporary)?;
    File::open(temporary).map(OwnedFd::from)
}

/// Removes what builds of an engine that was killed have left.
pub(crate) fn sweep(temporary: &Path) {
    let removed = open_holder(temporary).and_then(|holder| {
        for entry in std::fs::read_dir(temporary)? {
            let name = entry?.file_name();
            if name.as_bytes().starts_with(PREFIX.as_bytes()) {
                below::remove_tree(holder.as_fd(), &name)?;
            }
        }
        Ok(())
    });
    if let Err(error) = removed {
        tracing::warn!("old build contexts in {} remain: {error}", temporary.display());
    }
}

/// Unpacks an archive, plain or gzip, below `root`.
///
/// Nothing outside `root` is touched, whatever names and links the archive has. Owners are not
/// kept: in an image, what COPY brings belongs to 0:0 unless the Dockerfile says otherwise.
pub(crate) fn unpack(stream: impl Read, root: BorrowedFd<'_>) -> Result<(), ContextError> {
    let mut stream = BufReader::with_capacity(1 << 16, stream);
    let head = stream.fill_buf().map_err(ContextError::Damaged)?;
    match head {
        [0x1f, 0x8b, ..] => entries(MultiGzDecoder::new(stream), root),
        [b'B', b'Z', b'h', ..] => Err(ContextError::Compression("bzip2")),
        [0xfd, b'7', b'z', ..] => Err(ContextError::Compression("xz")),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Err(ContextError::Compression("zstd")),
        _ => entries(stream, root),
    }
}

fn entries(stream: impl Read, root: BorrowedFd<'_>) -> Result<(), ContextError> {
    let mut archive = Archive::new(stream);
    for entry in archive.entries().map_err(ContextError::Damaged)? {
        let mut entry = entry.map_err(ContextError::Damaged)?;
        let path = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        unpack_entry(&mut entry, &path, root)
            .map_err(|cause| ContextError::Entry { path: path.display().to_string(), cause })?;
    }
    // What follows the archive's end (padding) is read, so that the sender is not cut off.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(ContextError::Damaged)?;
    Ok(())
}

fn unpack_entry(
    entry: &mut Entry<'_, impl Read>,
    path: &Path,
    root: BorrowedFd<'_>,
) -> io::Result<()> {
    let header = entry.header();
    let kind = header.entry_type();
    let mode = Mode::from_raw_mode(header.mode()? & 0o7777);
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(header.mtime().unwrap_or(0));
    if kind.is_dir() {
        let directory = below::create_dir_all(root, path, Mode::from_raw_mode(0o755))?;
        return set_mode(directory.as_fd(), mode);
    }
    let (parent, name) = match below::open_parent(root, path, true) {
        Ok(found) => found,
        // pax global headers and the like have no name
        Err(_) if !(kind.is_file() || kind.is_symlink() || kind.is_hard_link()) => return Ok(()),
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
            file.set_modified(modified)?;
            rustix::fs::fchmod(&file, mode)?;
        }
        EntryType::Symlink => {
            let target = link_target(entry)?;
            make_room(&parent, &name)?;
            rustix::fs::symlinkat(target, &parent, &name)?;
        }
        EntryType::Link => {
            let target = link_target(entry)?;
            let (holder, target) = below::open_parent(root, Path::new(&target), false)?;
            make_room(&parent, &name)?;
            rustix::fs::linkat(&holder, &target, &parent, &name, AtFlags::empty())?;
        }
        EntryType::Fifo => {
            make_room(&parent, &name)?;
            rustix::fs::mknodat(&parent, &name, FileType::Fifo, mode, 0)?;
        }
        EntryType::Char | EntryType::Block => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is a device; name it in .dockerignore",
            ));
        }
        // pax and GNU headers, which the reader has already taken in
        _ => {}
    }
    Ok(())
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

/// An `O_PATH` descriptor cannot be given to fchmod(2), but opening it anew can be.
fn set_mode(directory: BorrowedFd<'_>, mode: Mode) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let directory = below::open(directory, Path::new("."), flags, Mode::empty())?;
    Ok(rustix::fs::fchmod(directory, mode)?)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use tar::{Builder, Header};

    use super::*;

    struct Place {
        directory: tempfile::TempDir,
        context: ContextDirectory,
    }

    fn place() -> Place {
        let directory = tempfile::tempdir().expect("a directory");
        let context = ContextDirectory::make(directory.path()).expect("a context");
        Place { directory, context }
    }

    impl Place {
        fn unpack(&self, archive: &[u8]) -> Result<(), ContextError> {
            unpack(archive, self.context.open().expect("it is there").as_fd())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(&self.context.name).join(name)
        }
    }

    /// Names as they are, which the tar crate's own builder refuses to write.
    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = Header::new_gnu();
            header.as_gnu_mut().expect("gnu").name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o640);
            header.set_mtime(1);
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
        let place = place();
        let plain = archive(&[
            ("./", EntryType::Directory, ""),
            ("a/b/file", EntryType::Regular, "one"),
            ("link", EntryType::Symlink, "a/b/file"),
            ("hard", EntryType::Link, "a/b/file"),
            ("a/b/file", EntryType::Regular, "two"),
        ]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).expect("memory");
        place.unpack(&gzip.finish().expect("memory")).expect("a context");
        let read = |name: &str| std::fs::read_to_string(place.path(name)).expect(name);
        assert_eq!((read("link"), read("hard")), ("two".to_owned(), "one".to_owned()));
    }

    #[test]
    fn nothing_leaves_the_directory() {
        let place = place();
        let victim = place.directory.path().join("victim");
        std::fs::write(&victim, "untouched").expect("a file");
        let hostile = archive(&[
            ("up", EntryType::Symlink, "../"),
            ("up/victim", EntryType::Regular, "owned"),
            ("../victim", EntryType::Regular, "owned"),
            ("/victim", EntryType::Regular, "owned"),
            ("a/../../victim", EntryType::Regular, "owned"),
        ]);
        place.unpack(&hostile).expect("every name has a place inside");
        assert_eq!(std::fs::read_to_string(&victim).expect("it is there"), "untouched");
        let stolen = archive(&[("passwd", EntryType::Link, "../victim2")]);
        assert!(place.unpack(&stolen).is_err());
    }

    #[test]
    fn wrong_archives_say_what_is_wrong() {
        let place = place();
        for (bytes, part) in [
            (b"not a tar archive, but long enough to be looked at".repeat(20), "not a tar archive"),
            (b"BZh91AY".to_vec(), "bzip2"),
            (archive(&[("sda", EntryType::Block, "")]), "device"),
        ] {
            let error = place.unpack(&bytes).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn contexts_are_removed() {
        let place = place();
        let path = place.path("");
        assert!(path.exists());
        drop(place.context);
        assert!(!path.exists());
        let left = place.directory.path().join("build-old/deep");
        std::fs::create_dir_all(&left).expect("a directory");
        sweep(place.directory.path());
        assert_eq!(std::fs::read_dir(place.directory.path()).expect("it is there").count(), 0);
    }
}
