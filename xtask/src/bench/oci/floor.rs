//! What the kernel itself costs: the same container in plain code.
//!
//! One clone3, the mounts, device nodes, masks and read-only paths of the bundle, pivot_root,
//! execve, exit and wait; the cgroup is made and removed. No config.json, no record on disk, no
//! lookup of paths that an image could redirect, no capabilities, no filter.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bulkhead_sys::mount::{Attributes, Depth, Propagation, set_attributes, set_propagation};
use bulkhead_sys::process::{
    Arguments, CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID,
    CLONE_NEWUTS, clone3, execve,
};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};

use super::bundle::{MASKED, READONLY};
use super::runtime::Took;

/// One container with the root `root`, in a cgroup of its own below `parent` (cgroup v2).
pub fn run(root: &Path, parent: &Path) -> Result<Took> {
    let arguments = Arguments::new(vec![c"/noop".into()]);
    let environment = Arguments::new(Vec::new());
    let before = Instant::now();
    let path = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = parent.join("floor");
    rustix::fs::mkdir(&directory, Mode::from_raw_mode(0o755))?;
    let cgroup = rustix::fs::open(&directory, path, Mode::empty())?;
    let root = rustix::fs::open(root, path, Mode::empty())?;
    let root = clone_tree(root.as_fd(), c"")?;
    let namespaces =
        CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWCGROUP;
    let child = clone3(namespaces, Some(cgroup.as_fd()), || match make(root.as_fd()) {
        Ok(()) => execve(c"/noop", &arguments, &environment).raw_os_error(),
        Err(errno) => errno.raw_os_error(),
    })
    .context("clone3")?;
    let ended = bulkhead_sys::usage::reap(child.pid)?;
    rustix::fs::rmdir(&directory).context("remove the cgroup")?;
    let took = Took { wall: before.elapsed(), processor: ended.processor };
    ensure!(ended.status == 0, "the floor's child: {}", Errno::from_raw_os_error(ended.status));
    Ok(took)
}

const QUIET: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

fn make(root: BorrowedFd<'_>) -> Result<(), Errno> {
    let here = rustix::fs::open(c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    set_propagation(here.as_fd(), Depth::Tree, Propagation::Slave)?;
    move_mount(root, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    set_propagation(root, Depth::Tree, Propagation::Private)?;

    let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY;
    mount(root, c"proc", c"proc", &[], MountAttrFlags::empty())?;
    let dev = [(c"mode", c"755"), (c"size", c"65536k")];
    mount(root, c"tmpfs", c"dev", &dev, MountAttrFlags::MOUNT_ATTR_NOSUID)?;
    for directory in [c"dev/pts", c"dev/shm", c"dev/mqueue"] {
        rustix::fs::mkdirat(root, directory, Mode::from_raw_mode(0o755))?;
    }
    let terminals = [(c"ptmxmode", c"0666"), (c"mode", c"0620"), (c"gid", c"5")];
    mount(root, c"devpts", c"dev/pts", &terminals, QUIET - MountAttrFlags::MOUNT_ATTR_NODEV)?;
    let shm = [(c"mode", c"1777"), (c"size", c"65536k")];
    mount(root, c"tmpfs", c"dev/shm", &shm, QUIET)?;
    mount(root, c"mqueue", c"dev/mqueue", &[], QUIET)?;
    mount(root, c"sysfs", c"sys", &[], QUIET | read_only)?;
    mount(root, c"cgroup2", c"sys/fs/cgroup", &[], QUIET | read_only)?;

    let character = FileType::CharacterDevice;
    for (name, major, minor) in [
        (c"dev/null", 1, 3),
        (c"dev/zero", 1, 5),
        (c"dev/full", 1, 7),
        (c"dev/random", 1, 8),
        (c"dev/urandom", 1, 9),
        (c"dev/tty", 5, 0),
    ] {
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(root, name, character, Mode::from_raw_mode(0o666), device)?;
    }
    for (target, name) in [
        (c"/proc/self/fd", c"dev/fd"),
        (c"/proc/self/fd/0", c"dev/stdin"),
        (c"/proc/self/fd/1", c"dev/stdout"),
        (c"/proc/self/fd/2", c"dev/stderr"),
        (c"pts/ptmx", c"dev/ptmx"),
    ] {
        rustix::fs::symlinkat(target, root, name)?;
    }
    close(root)?;
    set_attributes(root, Depth::One, Attributes::RDONLY)?;

    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(c".", c".")?;
    unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")?;
    rustix::system::sethostname(b"bench")
}

/// The read-only and masked paths.
fn close(root: BorrowedFd<'_>) -> Result<(), Errno> {
    for path in READONLY {
        let tree = match clone_tree(root, path.trim_start_matches('/')) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        set_attributes(tree.as_fd(), Depth::Tree, Attributes::RDONLY)?;
        put(tree.as_fd(), root, path.trim_start_matches('/'))?;
    }
    let blank = fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&blank)?;
    let attributes = QUIET | MountAttrFlags::MOUNT_ATTR_RDONLY;
    let blank = fsmount(&blank, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    for path in MASKED {
        let path = path.trim_start_matches('/');
        let stat = match rustix::fs::statat(root, path, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        let over = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => clone_tree(blank.as_fd(), "")?,
            _ => clone_tree(root, "dev/null")?,
        };
        put(over.as_fd(), root, path)?;
    }
    Ok(())
}

fn mount(
    root: BorrowedFd<'_>,
    kind: &CStr,
    at: &CStr,
    options: &[(&CStr, &CStr)],
    attributes: MountAttrFlags,
) -> Result<(), Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(&context, *key, *value)?;
    }
    fsconfig_create(&context)?;
    let made = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    put(made.as_fd(), root, at)
}

fn put(
    mount: BorrowedFd<'_>,
    root: BorrowedFd<'_>,
    at: impl rustix::path::Arg,
) -> Result<(), Errno> {
    move_mount(mount, c"", root, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn clone_tree(
    at: BorrowedFd<'_>,
    path: impl rustix::path::Arg,
) -> Result<std::os::fd::OwnedFd, Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    open_tree(at, path, flags)
}
