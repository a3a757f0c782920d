use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use bulkhead_sys::mount::{Attributes, Depth, Propagation, set_attributes, set_private};
use bulkhead_sys::{path, weak};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsmount, fsopen, move_mount,
};

use super::trees::{
    PROC_SUPER_MAGIC, clone_host_tree, clone_tree, make, propagate, put, refuse_over_proc,
};
use super::{Walk, to_errno};
use crate::FdIndex;
use crate::plan::{Entrance, NewMount, Refused, Tree};

impl Walk<'_> {
    /// The root's mount goes on `at`, to be pivoted to later: a place in the warden's own small
    /// root, or the path of a bundle's root, where hooks look for it.
    pub(super) fn attach_root(&mut self, root: &Tree, at: &Path) -> Result<(), Errno> {
        match root {
            Tree::Detached(index) => self.root = Some(self.descriptor(*index)?),
            Tree::Host { .. } => self.host_root = Some(clone_host_tree(root)?),
        }
        let root = self.root()?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        match move_mount(root, c"", CWD, at, flags) {
            // a directory on the way that is closed to the ids of a user namespace
            Err(Errno::ACCESS) => move_mount(root, c"", CWD, c"/", flags)?,
            other => other?,
        }
        set_private(root, Depth::Tree)
    }

    /// The root of a process that shares its mount namespace.
    pub(super) fn open_root(&mut self, at: &Path) -> Result<(), Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        self.host_root = Some(to_errno(path::open_host(at, flags))?);
        Ok(())
    }

    /// A procfs of the container's own pid namespace that is mounted nowhere. Where the kernel
    /// refuses one, the container's `/proc` has to do, if that is what it is.
    pub(super) fn open_proc(&mut self) -> Result<(), Errno> {
        let own = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|context| {
            fsconfig_create(&context)?;
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        });
        let proc = match own {
            Err(Errno::PERM) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let proc = rustix::fs::open(c"/proc", flags, Mode::empty())?;
                if rustix::fs::fstatfs(&proc)?.f_type as u64 != PROC_SUPER_MAGIC {
                    return Err(Errno::NODEV);
                }
                proc
            }
            other => other?,
        };
        self.proc = Some(proc);
        Ok(())
    }

    pub(super) fn mount(&mut self, mount: &NewMount, target: &Path) -> Result<(), Errno> {
        // What is masked later is found through these two, so a link must not redirect them
        // (CVE-2019-19921).
        let strict = matches!(mount.kind.as_str(), "proc" | "sysfs");
        let path = target;
        let hides = mount.hides_mode() && self.if_existing(path)?.is_some();
        let target = self.directory(path, strict)?;
        if mount.kind != "proc" {
            refuse_over_proc(path, target.as_fd(), None, &mut self.detail)?;
        }
        // As under runc: what a tmpfs hides tells its mode, where no option does. What was made for it
        // tells nothing, and the kernel's own mode is 1777.
        let mode = if hides { Some(rustix::fs::fstat(&target)?.st_mode & 0o7777) } else { None };
        let made = match make(mount, mode) {
            Err(Errno::PERM) => match &mount.refused {
                Refused::Fail => return Err(Errno::PERM),
                Refused::Skip => return Ok(()),
                Refused::Bind(source) => {
                    let tree = clone_tree(CWD, source)?;
                    set_attributes(tree.as_fd(), Depth::Tree, mount.attributes)?;
                    tree
                }
            },
            // a controller that the host has in another hierarchy, or no longer; but not an option of
            // config.json that this kernel does not know
            Err(errno)
                if mount.refused == Refused::Skip
                    && !(errno == Errno::INVAL && mount.is_cgroup2_with_options()) =>
            {
                return Ok(());
            }
            other => other?,
        };
        if mount.copy_up {
            self.copy_up(target.as_fd(), made.as_fd())?;
        }
        put(made.as_fd(), target.as_fd())?;
        propagate(made.as_fd(), &mount.propagation)
    }

    /// Attaches a tree that has all its attributes but for how it propagates.
    pub(super) fn bind(
        &mut self,
        tree: &Tree,
        at: &Path,
        follow: bool,
        propagation: &[(Propagation, bool)],
    ) -> Result<(), Errno> {
        let own;
        let mount = match tree {
            Tree::Detached(index) => self.descriptor(*index)?,
            Tree::Host { .. } => {
                own = clone_host_tree(tree)?;
                own.as_fd()
            }
        };
        let kind = FileType::from_raw_mode(rustix::fs::fstat(mount)?.st_mode);
        let target = match (kind, follow) {
            (FileType::Directory, follow) => self.directory(at, !follow)?,
            (_, true) => self.file(at)?,
            (_, false) => {
                let flags = OFlags::PATH | OFlags::NOFOLLOW;
                match to_errno(path::open(self.root()?, at, flags, Mode::empty())) {
                    Err(Errno::NOENT) => self.file(at)?,
                    other => other?,
                }
            }
        };
        refuse_over_proc(at, target.as_fd(), Some(mount), &mut self.detail)?;
        put(mount, target.as_fd())?;
        propagate(mount, propagation)
    }

    pub(super) fn attach(
        &mut self,
        mount: FdIndex,
        target: &Path,
        directory: bool,
        attributes: Attributes,
    ) -> Result<(), Errno> {
        let mount = self.descriptor(mount)?;
        let at = target;
        let target = if directory { self.directory(at, false)? } else { self.file(at)? };
        refuse_over_proc(at, target.as_fd(), Some(mount), &mut self.detail)?;
        put(mount, target.as_fd())?;
        // What is cloned from a shared mount (all of them, under systemd) is its peer: what the
        // container mounts below would show up on the host.
        set_private(mount, Depth::Tree)?;
        if attributes != Attributes::default() {
            set_attributes(mount, Depth::Tree, attributes)?;
        }
        Ok(())
    }

    pub(super) fn link(&mut self, at: &Path, to: &str, replace: bool) -> Result<(), Errno> {
        let (parent, name) = to_errno(path::open_parent(self.root()?, at, true))?;
        match rustix::fs::symlinkat(to, &parent, &name) {
            Err(Errno::EXIST) if replace => {
                let there = rustix::fs::readlinkat(&parent, &name, Vec::new());
                if there.is_ok_and(|target| target.as_bytes() == to.as_bytes()) {
                    return Ok(());
                }
                rustix::fs::unlinkat(&parent, &name, rustix::fs::AtFlags::empty())?;
                rustix::fs::symlinkat(to, parent, name)
            }
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
        let blank = make(
            &NewMount {
                kind: "tmpfs".to_owned(),
                source: "tmpfs".to_owned(),
                propagation: Vec::new(),
                copy_up: false,
                kept_flags: Vec::new(),
                options: vec![
                    ("nr_blocks".into(), Some("1".into())),
                    ("nr_inodes".into(), Some("1".into())),
                ],
                attributes: Attributes::RDONLY
                    .with(Attributes::NOSUID)
                    .with(Attributes::NODEV)
                    .with(Attributes::NOEXEC),
                refused: Refused::Fail,
            },
            None,
        )?;
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

    /// A directory, and no link to one, which an image could have put there.
    pub(super) fn check_directory(&mut self, at: &Path) -> Result<(), Errno> {
        if weak::without("paths") {
            return Ok(());
        }
        self.directory(at, true).map(drop)
    }

    /// Makes a directory of the root, for the process to start in.
    pub(super) fn make_directory(&mut self, at: &Path) -> Result<(), Errno> {
        if weak::without("descriptors") {
            return Ok(());
        }
        self.directory(at, false).map(drop)
    }

    /// Written through a procfs of our own: in the container's, another file may lie in the place
    /// of this one (CVE-2025-52881).
    pub(super) fn set_sysctl(&mut self, name: &Path, value: &str) -> Result<(), Errno> {
        let proc = self.proc.as_ref().ok_or(Errno::NOENT)?;
        if weak::without("procfs") {
            // by the container's path, whatever lies there
            let name = Path::new("/proc/sys").join(name);
            let flags = OFlags::WRONLY | OFlags::TRUNC;
            let file = to_errno(path::open(self.root()?, &name, flags, Mode::empty()))?;
            return rustix::io::write(file, value.as_bytes()).map(drop);
        }
        let name = Path::new("sys").join(name);
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(proc, &name, flags, Mode::empty(), within)?;
        rustix::io::write(file, value.as_bytes()).map(drop)
    }

    pub(super) fn set_propagation_of_root(
        &mut self,
        propagation: Propagation,
        recursive: bool,
    ) -> Result<(), Errno> {
        propagate(self.root()?, &[(propagation, recursive)])
    }

    /// pivot_root(2) with both places the same, as its manual page shows: the old root lies over
    /// the new one and is then detached, with everything of the host that was seen through it.
    pub(super) fn enter_root(&mut self, entrance: Entrance) -> Result<(), Errno> {
        rustix::process::fchdir(self.root()?)?;
        match entrance {
            Entrance::Pivot => {
                rustix::process::pivot_root(c".", c".")?;
                rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
            }
            // The root lies over `/` already. What is below stays, out of sight.
            Entrance::Move | Entrance::Change => rustix::process::chroot(c".")?,
        }
        rustix::process::chdir(c"/")
    }

    /// The parent's `/dev/null`, after a look at what it is: bound over a masked file, anything
    /// else would show the host's (CVE-2025-31133).
    fn null(&mut self) -> Result<BorrowedFd<'_>, Errno> {
        if self.null.is_none() && weak::without("null") {
            // the container's, wherever a link of it leads
            let null = rustix::fs::openat(self.root()?, c"dev/null", OFlags::PATH, Mode::empty());
            self.null = Some(null?);
        }
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
        let root = self.root()?;
        if strict && !weak::without("strict") {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            match to_errno(path::open(root, at, flags, Mode::empty())) {
                Err(Errno::NOENT) => {}
                other => return other,
            }
        }
        to_errno(path::create_dir_all(root, at, Mode::from_raw_mode(0o755)))
    }

    pub(super) fn file(&self, at: &Path) -> Result<OwnedFd, Errno> {
        let mode = Mode::from_raw_mode(0o644);
        to_errno(path::open_or_create_file(self.root()?, at, mode))
    }
}
