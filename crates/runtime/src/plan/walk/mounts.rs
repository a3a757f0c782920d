use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use bulkhead_sys::mount::{Attributes, Depth, set_attributes, set_private};
use bulkhead_sys::path;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
    open_tree,
};

use super::{Walk, to_errno};
use crate::FdIndex;
use crate::plan::{NewMount, Refused};

impl Walk<'_> {
    /// The root's mount goes on `/root` of the warden's own small root, to be pivoted to later.
    pub(super) fn attach_root(&mut self, root: FdIndex) -> Result<(), Errno> {
        let root = self.descriptor(root)?;
        move_mount(root, c"", CWD, c"/root", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        self.root = Some(root);
        set_private(root, Depth::Tree)
    }

    pub(super) fn mount(&mut self, mount: &NewMount, target: &Path) -> Result<(), Errno> {
        // What is masked later is found through these two, so a link must not redirect them
        // (CVE-2019-19921).
        let strict = matches!(mount.kind, "proc" | "sysfs");
        let target = self.directory(target, strict)?;
        let made = match make(mount) {
            Err(Errno::PERM) => match mount.refused {
                Refused::Fail => return Err(Errno::PERM),
                Refused::Skip => return Ok(()),
                Refused::Bind(source) => {
                    let tree = clone_tree(CWD, source)?;
                    set_attributes(tree.as_fd(), Depth::Tree, mount.attributes)?;
                    tree
                }
            },
            // a controller that the host has in another hierarchy, or no longer
            Err(_) if mount.refused == Refused::Skip => return Ok(()),
            other => other?,
        };
        put(made.as_fd(), target.as_fd())
    }

    pub(super) fn attach(
        &mut self,
        mount: FdIndex,
        target: &Path,
        directory: bool,
        attributes: Attributes,
    ) -> Result<(), Errno> {
        let mount = self.descriptor(mount)?;
        let target = if directory { self.directory(target, false)? } else { self.file(target)? };
        put(mount, target.as_fd())?;
        // What is cloned from a shared mount (all of them, under systemd) is its peer: what the
        // container mounts below would show up on the host.
        set_private(mount, Depth::Tree)?;
        if attributes != Attributes::default() {
            set_attributes(mount, Depth::Tree, attributes)?;
        }
        Ok(())
    }

    pub(super) fn link(&mut self, at: &Path, to: &str) -> Result<(), Errno> {
        let (parent, name) = to_errno(path::open_parent(self.root()?, at, true))?;
        match rustix::fs::symlinkat(to, parent, name) {
            Err(Errno::EXIST) => Ok(()),
            other => other,
        }
    }

    /// Makes a mount of this namespace read-only.
    pub(super) fn seal(&mut self, target: &Path) -> Result<(), Errno> {
        let target = self.existing(target)?;
        set_attributes(target.as_fd(), Depth::One, Attributes::RDONLY)
    }

    pub(super) fn seal_root(&mut self) -> Result<(), Errno> {
        set_attributes(self.root()?, Depth::One, Attributes::RDONLY)
    }

    pub(super) fn mask(&mut self, at: &Path) -> Result<(), Errno> {
        let Some(target) = self.if_existing(at)? else { return Ok(()) };
        let stat = rustix::fs::fstat(&target)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            let null = clone_tree(self.null()?, "")?;
            return put(null.as_fd(), target.as_fd());
        }
        if let Some(blank) = &self.blank {
            return put(clone_tree(blank.as_fd(), "")?.as_fd(), target.as_fd());
        }
        let blank = make(&NewMount {
            kind: "tmpfs",
            options: vec![
                ("nr_blocks".into(), Some("1".into())),
                ("nr_inodes".into(), Some("1".into())),
            ],
            attributes: Attributes::RDONLY
                .with(Attributes::NOSUID)
                .with(Attributes::NODEV)
                .with(Attributes::NOEXEC),
            refused: Refused::Fail,
        })?;
        put(blank.as_fd(), target.as_fd())?;
        self.blank = Some(blank);
        Ok(())
    }

    pub(super) fn make_readonly(&mut self, at: &Path) -> Result<(), Errno> {
        let Some(target) = self.if_existing(at)? else { return Ok(()) };
        let tree = clone_tree(target.as_fd(), "")?;
        set_attributes(tree.as_fd(), Depth::Tree, Attributes::RDONLY)?;
        put(tree.as_fd(), target.as_fd())
    }

    /// Makes a directory of the root, for the process to start in.
    pub(super) fn make_directory(&mut self, at: &Path) -> Result<(), Errno> {
        self.directory(at, false).map(drop)
    }

    /// Keeps `/proc/sys` as it is before it is made read-only.
    pub(super) fn keep_sysctls(&mut self) -> Result<(), Errno> {
        self.sysctls = self.if_existing(Path::new("/proc/sys"))?;
        Ok(())
    }

    pub(super) fn set_sysctl(&mut self, name: &Path, value: &str) -> Result<(), Errno> {
        let sysctls = self.sysctls.as_ref().ok_or(Errno::NOENT)?;
        let file = to_errno(path::open(sysctls.as_fd(), name, OFlags::WRONLY, Mode::empty()))?;
        rustix::io::write(file, value.as_bytes()).map(drop)
    }

    /// pivot_root(2) with both places the same, as its manual page shows: the old root lies over
    /// the new one and is then detached, with everything of the host that was seen through it.
    pub(super) fn enter_root(&mut self) -> Result<(), Errno> {
        rustix::process::fchdir(self.root()?)?;
        rustix::process::pivot_root(c".", c".")?;
        rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
        rustix::process::chdir(c"/")
    }

    /// The warden's `/dev/null`, after a look at what it is: bound over a masked file, anything
    /// else would show the host's (CVE-2025-31133).
    fn null(&mut self) -> Result<BorrowedFd<'_>, Errno> {
        if self.null.is_none() {
            let null =
                rustix::fs::open(c"/dev/null", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            let stat = rustix::fs::fstat(&null)?;
            let character = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
            if !character || stat.st_rdev != rustix::fs::makedev(1, 3) {
                return Err(Errno::NODEV);
            }
            self.null = Some(null);
        }
        self.null.as_ref().map(AsFd::as_fd).ok_or(Errno::BADF)
    }

    pub(super) fn existing(&self, at: &Path) -> Result<OwnedFd, Errno> {
        to_errno(path::open(self.root()?, at, OFlags::PATH, Mode::empty()))
    }

    fn if_existing(&self, at: &Path) -> Result<Option<OwnedFd>, Errno> {
        match self.existing(at) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn directory(&self, at: &Path, strict: bool) -> Result<OwnedFd, Errno> {
        let no_links = if strict { OFlags::NOFOLLOW } else { OFlags::empty() };
        let flags = OFlags::PATH | OFlags::DIRECTORY | no_links;
        match to_errno(path::open(self.root()?, at, flags, Mode::empty())) {
            Err(Errno::NOENT) => {
                to_errno(path::create_dir_all(self.root()?, at, Mode::from_raw_mode(0o755)))
            }
            other => other,
        }
    }

    pub(super) fn file(&self, at: &Path) -> Result<OwnedFd, Errno> {
        match self.existing(at) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let (parent, name) = to_errno(path::open_parent(self.root()?, at, true))?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(parent, name, flags | OFlags::WRONLY, Mode::from_raw_mode(0o644))
    }
}

fn make(mount: &NewMount) -> Result<OwnedFd, Errno> {
    let context = fsopen(mount.kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    // shown by mount(8) and df(1), which say "none" otherwise
    fsconfig_set_string(&context, "source", mount.kind)?;
    for (key, value) in &mount.options {
        match value {
            Some(value) => fsconfig_set_string(&context, key.as_str(), value.as_str())?,
            None => fsconfig_set_flag(&context, key.as_str())?,
        }
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::from_bits_retain(mount.attributes.0 as u32);
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn clone_tree(at: impl AsFd, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    let path = CString::new(path).map_err(|_| Errno::INVAL)?;
    open_tree(at, path, flags)
}

pub(super) fn put(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", target, c"", empty)
}

pub(super) fn bind(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    put(clone_tree(source, "")?.as_fd(), target)
}
