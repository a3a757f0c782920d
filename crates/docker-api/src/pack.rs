//! A file or a tree of a container as an archive, for `docker cp`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use bulkhead_sys::path as below;
use bulkhead_types::{IdMap, Timestamp};
use rustix::fs::{Dir, FileType, Mode, OFlags, Stat};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

/// One entry of a container's file system: what it is, and its name.
#[derive(Debug)]
pub(crate) struct Found {
    /// `O_PATH`, not followed.
    entry: OwnedFd,
    /// What holds it, for opening it anew; itself when it is `/`.
    holder: OwnedFd,
    /// The last component, as the archive and the answer's header name it.
    pub(crate) name: OsString,
    stat: Stat,
}

/// Finds `path` below `root`. A symbolic link at the end is found itself, unless a slash follows.
pub(crate) fn find(root: BorrowedFd<'_>, path: &Path) -> io::Result<Found> {
    let bytes = path.as_os_str().as_bytes();
    let as_directory = bytes.ends_with(b"/") || bytes.ends_with(b"/.");
    // A path without a last component (`/`, `..`) is a directory under its own name.
    let (holder, name) = match below::open_parent(root, path, false) {
        Ok(found) if !as_directory => found,
        other => {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let holder = below::open(root, path, flags, Mode::empty())?;
            let name = match (other, path.file_name()) {
                (_, Some(name)) => name.to_owned(),
                (Ok((_, name)), None) => name,
                (Err(_), None) => OsString::from("/"),
            };
            let entry = rustix::io::dup(&holder)?;
            let stat = rustix::fs::fstat(&entry)?;
            return Ok(Found { entry, holder, name, stat });
        }
    };
    let entry = rustix::fs::openat(
        &holder,
        &name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let stat = rustix::fs::fstat(&entry)?;
    Ok(Found { entry, holder, name, stat })
}

impl Found {
    pub(crate) fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Directory
    }

    /// Docker's `ContainerPathStat`.
    pub(crate) fn view(&self) -> Value {
        let target = match FileType::from_raw_mode(self.stat.st_mode) {
            FileType::Symlink => read_link(self.entry.as_fd()).unwrap_or_default(),
            _ => OsString::new(),
        };
        let modified =
            Timestamp::new(self.stat.st_mtime, i32::try_from(self.stat.st_mtime_nsec).unwrap_or(0));
        json!({
            "name": self.name.to_string_lossy(),
            "size": self.stat.st_size,
            "mode": go_mode(self.stat.st_mode),
            "mtime": modified.unwrap_or(Timestamp::UNIX_EPOCH).to_string(),
            "linkTarget": target.to_string_lossy(),
        })
    }

    /// Writes the entry, and below it everything, as a tar archive. Owners are what the container
    /// sees.
    pub(crate) fn pack(&self, to: impl Write, range: Option<IdMap>) -> io::Result<()> {
        let mut packer = Packer { archive: Builder::new(to), range };
        let name = match self.name.as_bytes() {
            b"/" => PathBuf::from("."),
            _ => PathBuf::from(&self.name),
        };
        if self.is_directory() {
            packer.tree(self.entry.as_fd(), &name, &self.stat)?;
        } else {
            packer.entry(self.holder.as_fd(), &self.name, &name, &self.stat)?;
        }
        packer.archive.into_inner()?.flush()
    }
}

struct Packer<W: Write> {
    archive: Builder<W>,
    range: Option<IdMap>,
}

/// A directory on the way.
struct Level {
    directory: OwnedFd,
    path: PathBuf,
    /// What is left to do in it, last name first.
    names: Vec<OsString>,
}

impl<W: Write> Packer<W> {
    /// A list of what is left to do, not a recursion: a container can nest directories deeper than
    /// the stack of a thread goes.
    fn tree(&mut self, directory: BorrowedFd<'_>, path: &Path, stat: &Stat) -> io::Result<()> {
        let mut levels = vec![self.enter(directory, path.to_owned(), stat)?];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.pop() else {
                levels.pop();
                continue;
            };
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let entry = match rustix::fs::openat(&level.directory, &name, flags, Mode::empty()) {
                Ok(entry) => entry,
                // gone since it was listed: the container goes on meanwhile
                Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            };
            let stat = rustix::fs::fstat(&entry)?;
            let path = level.path.join(&name);
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                levels.push(self.enter(entry.as_fd(), path, &stat)?);
            } else {
                self.entry(level.directory.as_fd(), &name, &path, &stat)?;
            }
        }
        Ok(())
    }

    /// Writes a directory's own entry and lists it.
    fn enter(
        &mut self,
        directory: BorrowedFd<'_>,
        path: PathBuf,
        stat: &Stat,
    ) -> io::Result<Level> {
        let mut header = self.header(stat, EntryType::Directory);
        self.archive.append_data(&mut header, &path, io::empty())?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(directory, ".", flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if !matches!(&name[..], b"." | b"..") {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort_by(|one, other| other.cmp(one));
        Ok(Level { directory, path, names })
    }

    /// Anything but a directory, named `name` in `holder` and `path` in the archive.
    fn entry(
        &mut self,
        holder: BorrowedFd<'_>,
        name: &OsString,
        path: &Path,
        stat: &Stat,
    ) -> io::Result<()> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
                let file = below::open(holder, Path::new(name), flags, Mode::empty())?;
                // What is open now may be larger or smaller than what was found, or no file.
                let stat = rustix::fs::fstat(&file)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Ok(());
                }
                let mut header = self.header(&stat, EntryType::Regular);
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                header.set_size(size);
                let content = Exactly { file: File::from(file), left: size };
                self.archive.append_data(&mut header, path, content)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(holder, name.as_os_str(), Vec::new())?;
                let target = OsString::from_vec(target.into_bytes());
                let mut header = self.header(stat, EntryType::Symlink);
                self.archive.append_link(&mut header, path, target)
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                let kind = match FileType::from_raw_mode(stat.st_mode) {
                    FileType::CharacterDevice => EntryType::Char,
                    _ => EntryType::Block,
                };
                let mut header = self.header(stat, kind);
                header.set_device_major(rustix::fs::major(stat.st_rdev))?;
                header.set_device_minor(rustix::fs::minor(stat.st_rdev))?;
                self.archive.append_data(&mut header, path, io::empty())
            }
            FileType::Fifo => {
                let mut header = self.header(stat, EntryType::Fifo);
                self.archive.append_data(&mut header, path, io::empty())
            }
            // sockets have no form in an archive
            _ => Ok(()),
        }
    }

    fn header(&self, stat: &Stat, kind: EntryType) -> Header {
        let inside = |id: u32| match self.range {
            // ids outside the range are what the container sees as nobody
            Some(range) => range.inside(id).unwrap_or(65_534),
            None => id,
        };
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(inside(stat.st_uid).into());
        header.set_gid(inside(stat.st_gid).into());
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        header.set_size(0);
        header
    }
}

/// As many bytes as the header promised, whatever happens to the file: zeros follow what is cut.
struct Exactly {
    file: File,
    left: u64,
}

impl io::Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let mut count = self.file.read(&mut buffer[..wanted])?;
        if count == 0 && wanted > 0 {
            buffer[..wanted].fill(0);
            count = wanted;
        }
        self.left -= count as u64;
        Ok(count)
    }
}

fn read_link(link: BorrowedFd<'_>) -> io::Result<OsString> {
    Ok(OsString::from_vec(rustix::fs::readlinkat(link, "", Vec::new())?.into_bytes()))
}

/// Go's `os.FileMode`, whose bits for the kind are not the kernel's (Go: src/io/fs/fs.go).
fn go_mode(mode: u32) -> u32 {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        _ => 0,
    };
    let special = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let special = special.iter().filter(|(bit, _)| mode & bit != 0).map(|(_, go)| go).sum::<u32>();
    kind | special | (mode & 0o777)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> (tempfile::TempDir, OwnedFd) {
        let place = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(place.path().join("etc/deep")).expect("a directory");
        std::fs::write(place.path().join("etc/deep/file"), "content").expect("a file");
        symlink("/etc/deep", place.path().join("link")).expect("a link");
        let root = OwnedFd::from(File::open(place.path()).expect("a directory"));
        (place, root)
    }

    fn names(found: &Found) -> Vec<String> {
        let mut bytes = Vec::new();
        found.pack(&mut bytes, None).expect("an archive");
        let mut archive = tar::Archive::new(&bytes[..]);
        let entries = archive.entries().expect("entries");
        entries
            .map(|entry| entry.expect("an entry").path().expect("a path").display().to_string())
            .collect()
    }

    #[test]
    fn a_tree_deeper_than_the_stack_is_packed() {
        let (place, root) = tree();
        let mut at = rustix::io::dup(&root).expect("a descriptor");
        for _ in 0..500 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).expect("a directory");
            at = rustix::fs::openat(&at, "d", OFlags::PATH, Mode::empty()).expect("it is there");
        }
        let count = std::thread::scope(|scope| {
            let small = std::thread::Builder::new().stack_size(160 << 10);
            let pack = || names(&find(root.as_fd(), Path::new("/d")).expect("it is there")).len();
            small.spawn_scoped(scope, pack).expect("a thread").join().expect("it does not crash")
        });
        assert_eq!(count, 500);
        drop(place);
    }

    #[test]
    fn trees_are_packed_under_their_own_name() {
        let (_place, root) = tree();
        for (path, packed) in [
            ("/etc", vec!["etc", "etc/deep", "etc/deep/file"]),
            ("/etc/deep/file", vec!["file"]),
            ("/link", vec!["link"]),
            ("/link/", vec!["link", "link/file"]),
            ("/link/file", vec!["file"]),
        ] {
            let found = find(root.as_fd(), Path::new(path)).expect(path);
            let names: Vec<String> =
                names(&found).iter().map(|name| name.trim_end_matches('/').to_owned()).collect();
            assert_eq!(names, packed, "{path}");
        }
        assert!(find(root.as_fd(), Path::new("/nope")).is_err());
        assert!(find(root.as_fd(), Path::new("/")).expect("the root").is_directory());
    }

    #[test]
    fn modes_are_gos() {
        let (_place, root) = tree();
        let link = find(root.as_fd(), Path::new("link")).expect("a link").view();
        assert_eq!((&link["name"], &link["linkTarget"]), (&json!("link"), &json!("/etc/deep")));
        assert_eq!(go_mode(0o100_644), 0o644);
        assert_eq!(go_mode(0o040_755), 1 << 31 | 0o755);
        assert_eq!(go_mode(0o104_755), 1 << 23 | 0o755);
        assert_eq!(go_mode(0o120_777), 1 << 27 | 0o777);
    }
}
