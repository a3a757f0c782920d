//! Files as members of an archive: a container's for `docker cp` and `export`, or a layer's.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use bulkhead_sys::path::{Visit, Walk, of_descriptor};
use bulkhead_types::IdMap;
use rustix::fs::{AtFlags, FileType, Stat, StatxFlags, major, minor};

use crate::{Entry, Kind, Time, Writer, attributes};

/// What an id that a user namespace does not map is shown as (/proc/sys/kernel/overflowuid).
const NOBODY: u32 = 65_534;

/// Writes `file` (`O_PATH` will do) under `name`, and if it is a directory everything below it, in
/// the order of names; the kernel's own file systems (/proc, /sys) are empty. The name may be empty for `/` (members are `/`, `/etc/`), or `.` for what is
/// in a directory (`./`, `./file`): the docker client renames members by their beginning.
pub fn pack(
    to: impl Write,
    file: BorrowedFd<'_>,
    name: &[u8],
    range: Option<IdMap>,
) -> io::Result<()> {
    let mut packer = Packer::new(to, range);
    let stat = rustix::fs::fstat(file)?;
    packer.member(file, &stat, name)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        packer.below(file, &[name, b"/"].concat(), Mounts::WithoutTheKernels)?;
    }
    packer.finish().map(drop)
}

/// Writes everything below `directory`, but not itself, by paths that are relative to it. What is
/// mounted there is left out: `docker export` has no volumes in it.
pub fn pack_contents(
    to: impl Write,
    directory: BorrowedFd<'_>,
    range: Option<IdMap>,
) -> io::Result<()> {
    let mut packer = Packer::new(to, range);
    packer.below(directory, b"", Mounts::LeftOut)?;
    packer.finish().map(drop)
}

/// Writes files one by one. Owners and file capabilities are what is seen inside `range`; an owner
/// outside it is nobody. Second names of a file become hard links to the first.
#[derive(Debug)]
pub struct Packer<W: Write> {
    writer: Writer<W>,
    range: Option<IdMap>,
    everything_is_roots: bool,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Packer<W> {
    pub fn new(to: W, range: Option<IdMap>) -> Self {
        let writer = Writer::new(to);
        Self { writer, range, everything_is_roots: false, links: HashMap::new() }
    }

    /// Writes everything as root's, whoever owns it: a build context.
    pub fn of_root(to: W) -> Self {
        Self { everything_is_roots: true, ..Self::new(to, None) }
    }

    fn below(
        &mut self,
        directory: BorrowedFd<'_>,
        prefix: &[u8],
        mounts: Mounts,
    ) -> io::Result<()> {
        let own = mount_of(directory)?;
        let mut walk = Walk::new(directory)?;
        while let Some(visit) = walk.visit()? {
            let is_directory = matches!(visit, Visit::Enter(_));
            let (Visit::Enter(visited) | Visit::File(visited)) = visit else { continue };
            let file = visited.file.as_fd();
            let left_out = match mounts {
                Mounts::LeftOut => mount_of(file)? != own,
                Mounts::WithoutTheKernels => is_directory && is_kernels(file)?,
            };
            // The place where something is mounted is a directory of its own right.
            if left_out && !is_directory {
                continue;
            }
            let path = [prefix, visited.path.as_os_str().as_bytes()].concat();
            self.member(file, &visited.stat, &path)?;
            if left_out {
                walk.skip();
            }
        }
        Ok(())
    }

    /// Writes one file with its content; a socket is left out, since nobody listens on it in an
    /// archive. `file` may be an `O_PATH` descriptor, and `stat` is its own.
    ///
    /// A file that changes meanwhile has as many bytes as `stat` says: zeros follow what was cut.
    pub fn member(&mut self, file: BorrowedFd<'_>, stat: &Stat, path: &[u8]) -> io::Result<()> {
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let mut path = path.to_vec();
        let (major, minor) = (major(stat.st_rdev), minor(stat.st_rdev));
        let mut kind = match file_type {
            FileType::RegularFile => Kind::File { size: u64::try_from(stat.st_size).unwrap_or(0) },
            FileType::Directory => Kind::Directory,
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(file, "", Vec::new())?;
                Kind::Symlink { target: target.into_bytes() }
            }
            FileType::CharacterDevice => Kind::CharDevice { major, minor },
            FileType::BlockDevice => Kind::BlockDevice { major, minor },
            FileType::Fifo => Kind::Fifo,
            FileType::Socket | FileType::Unknown => return Ok(()),
        };
        if file_type == FileType::Directory && !path.ends_with(b"/") {
            path.push(b'/');
        }
        if file_type != FileType::Directory && stat.st_nlink > 1 {
            match self.links.get(&(stat.st_dev, stat.st_ino)) {
                Some(first) => kind = Kind::HardLink { target: first.clone() },
                None => drop(self.links.insert((stat.st_dev, stat.st_ino), path.clone())),
            }
        }
        // A link has none for us, and those of a further name are the first one's.
        let xattrs = match kind {
            Kind::HardLink { .. } | Kind::Symlink { .. } => Vec::new(),
            _ => attributes(file, self.range)?,
        };
        let inside = |id| match self.range {
            _ if self.everything_is_roots => 0,
            Some(range) => range.inside(id).unwrap_or(NOBODY),
            None => id,
        };
        let entry = Entry {
            path,
            kind,
            mode: stat.st_mode & 0o7777,
            uid: inside(stat.st_uid),
            gid: inside(stat.st_gid),
            mtime: Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 },
            xattrs,
        };
        let Kind::File { size } = entry.kind else { return self.writer.start(&entry) };
        // Through /proc, because an O_PATH descriptor cannot be read.
        let content = std::fs::File::open(of_descriptor(file))?;
        self.writer.start(&entry)?;
        io::copy(&mut content.take(size), &mut self.writer).map(drop)
    }

    /// Writes a file that is not one of a tree.
    pub fn file(&mut self, entry: &Entry, content: &[u8]) -> io::Result<()> {
        self.writer.file(entry, content)
    }

    /// Ends the archive.
    pub fn finish(self) -> io::Result<W> {
        self.writer.finish()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mounts {
    LeftOut,
    WithoutTheKernels,
}

/// The number of the mount that a file is on.
fn mount_of(file: BorrowedFd<'_>) -> io::Result<u64> {
    let stat = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    Ok(stat.stx_mnt_id)
}

/// Whether a directory is no storage but a view of the kernel, where files have no end or no size
/// (linux/magic.h: procfs, sysfs, cgroups of both versions, devpts).
fn is_kernels(directory: BorrowedFd<'_>) -> io::Result<bool> {
    const KERNELS: [u64; 5] = [0x9fa0, 0x6265_6572, 0x0027_e0eb, 0x6367_7270, 0x1cd1];
    let magic = rustix::fs::fstatfs(directory)?.f_type;
    Ok(KERNELS.contains(&(magic as u64)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::Path;

    use rustix::fs::{Mode, OFlags};

    use super::*;
    use crate::{Limits, Reader};

    fn members(bytes: &[u8]) -> Vec<Entry> {
        let mut reader = Reader::plain(bytes, Limits::COPY);
        std::iter::from_fn(|| reader.next_entry().expect("an own archive")).collect()
    }

    fn names(members: &[Entry]) -> Vec<String> {
        members.iter().map(|entry| String::from_utf8_lossy(&entry.path).into_owned()).collect()
    }

    fn open(path: &Path) -> OwnedFd {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        rustix::fs::open(path, flags, Mode::empty()).expect("it is there")
    }

    #[test]
    fn trees_are_packed_under_the_name_that_is_asked_for() {
        let top = tempfile::tempdir().expect("a directory");
        fs::create_dir(top.path().join("deep")).expect("a directory");
        fs::write(top.path().join("deep/file"), "text").expect("a file");
        fs::hard_link(top.path().join("deep/file"), top.path().join("twin")).expect("a link");
        symlink("/etc", top.path().join("link")).expect("a link");
        let root = open(top.path());
        for (name, packed) in [
            ("d", ["d/", "d/deep/", "d/deep/file", "d/link", "d/twin"]),
            (".", ["./", "./deep/", "./deep/file", "./link", "./twin"]),
            ("", ["/", "/deep/", "/deep/file", "/link", "/twin"]),
        ] {
            let mut bytes = Vec::new();
            pack(&mut bytes, root.as_fd(), name.as_bytes(), None).expect("an archive");
            let members = members(&bytes);
            assert_eq!(names(&members), packed);
            let first = packed[2].as_bytes().to_vec();
            assert_eq!(members[4].kind, Kind::HardLink { target: first });
            let stat = fs::metadata(top.path().join("deep/file")).expect("it is there");
            let (seconds, part) = (members[2].mtime.seconds, members[2].mtime.nanoseconds);
            assert_eq!((seconds, i64::from(part)), (stat.mtime(), stat.mtime_nsec()));
        }
        let mut bytes = Vec::new();
        pack_contents(&mut bytes, root.as_fd(), None).expect("an archive");
        assert_eq!(names(&members(&bytes)), ["deep/", "deep/file", "link", "twin"]);
        let mut bytes = Vec::new();
        pack(&mut bytes, open(&top.path().join("link")).as_fd(), b"l", None).expect("an archive");
        assert_eq!(members(&bytes)[0].kind, Kind::Symlink { target: b"/etc".to_vec() });
    }

    #[test]
    fn owners_and_capabilities_are_those_inside() {
        let top = tempfile::tempdir().expect("a directory");
        let range = IdMap::new(700_000, 65_536);
        for (name, owner) in [("mine", 700_033), ("root's", 0)] {
            let path = top.path().join(name);
            fs::write(&path, "").expect("a file");
            std::os::unix::fs::chown(&path, Some(owner), Some(owner)).expect("as root");
        }
        let value = [&[1, 0, 0, 2, 0, 32, 0, 0][..], &[0; 12]].concat();
        let given = vec![(b"security.capability".to_vec(), value)];
        let file = open(&top.path().join("mine"));
        crate::set_attributes(file.as_fd(), &given, Some(range)).expect("as root");
        let mut bytes = Vec::new();
        pack_contents(&mut bytes, open(top.path()).as_fd(), Some(range)).expect("an archive");
        let members = members(&bytes);
        assert_eq!((members[0].uid, members[0].gid), (33, 33));
        assert_eq!(members[0].xattrs, given);
        assert_eq!((members[1].uid, members[1].gid), (NOBODY, NOBODY));
    }

    #[test]
    fn a_tree_deeper_than_the_stack_is_packed() {
        let top = tempfile::tempdir().expect("a directory");
        let mut at = open(top.path());
        for _ in 0..500 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).expect("a directory");
            at = rustix::fs::openat(&at, "d", OFlags::PATH, Mode::empty()).expect("it is there");
        }
        let bytes = std::thread::scope(|scope| {
            let small = std::thread::Builder::new().stack_size(160 << 10);
            let packing = || {
                let mut bytes = Vec::new();
                pack_contents(&mut bytes, open(top.path()).as_fd(), None).map(|()| bytes)
            };
            let thread = small.spawn_scoped(scope, packing).expect("a thread");
            thread.join().expect("it does not crash").expect("an archive")
        });
        assert_eq!(members(&bytes).len(), 500);
    }
}
