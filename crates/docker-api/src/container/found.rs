//! A file or a tree of a container as an archive, for `docker cp`.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use bulkhead_sys::path as below;
use bulkhead_types::{IdMap, Timestamp};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use serde_json::{Value, json};

/// One entry of a container's file system: what it is, and its name.
#[derive(Debug)]
pub(crate) struct Found {
    /// `O_PATH`, not followed.
    entry: OwnedFd,
    /// The last component, as the archive and the answer's header name it: `.` where the contents
    /// of a directory are asked for, and `/` for the root.
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
                _ if bytes.ends_with(b"/.") => OsString::from("."),
                (_, Some(name)) => name.to_owned(),
                (Ok((_, name)), None) => name,
                (Err(_), None) => OsString::from("/"),
            };
            let stat = rustix::fs::fstat(&holder)?;
            return Ok(Found { entry: holder, name, stat });
        }
    };
    let entry = rustix::fs::openat(
        &holder,
        &name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let stat = rustix::fs::fstat(&entry)?;
    Ok(Found { entry, name, stat })
}

impl Found {
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
        // A name in an archive is the beginning that the docker client takes off again.
        let name = match self.name.as_bytes() {
            b"/" => b"",
            name => name,
        };
        bulkhead_archive::pack(to, self.entry.as_fd(), name, range)
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
    use std::fs::File;
    use std::os::unix::fs::symlink;

    use bulkhead_archive::{Limits, Reader};

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
        let mut reader = Reader::plain(&bytes[..], Limits::COPY);
        std::iter::from_fn(|| reader.next_entry().expect("an own archive"))
            .map(|entry| String::from_utf8(entry.path).expect("text"))
            .collect()
    }

    #[test]
    fn trees_are_packed_under_their_own_name() {
        let (_place, root) = tree();
        for (path, packed) in [
            ("/etc", vec!["etc/", "etc/deep/", "etc/deep/file"]),
            ("/etc/.", vec!["./", "./deep/", "./deep/file"]),
            ("/", vec!["/", "/etc/", "/etc/deep/", "/etc/deep/file", "/link"]),
            ("/etc/deep/file", vec!["file"]),
            ("/link", vec!["link"]),
            ("/link/", vec!["link/", "link/file"]),
            ("/link/.", vec!["./", "./file"]),
            ("/link/file", vec!["file"]),
        ] {
            let found = find(root.as_fd(), Path::new(path)).expect(path);
            assert_eq!(names(&found), packed, "{path}");
        }
        assert!(find(root.as_fd(), Path::new("/nope")).is_err());
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
