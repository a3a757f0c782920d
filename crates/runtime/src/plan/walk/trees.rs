//! What is put in place: new file systems, clones of trees, nodes of the host.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use bulkhead_sys::mount::{
    Attributes, Depth, Propagation, change_attributes, set_attributes, set_private, set_propagation,
};
use bulkhead_sys::{path, weak};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::to_errno;
use crate::plan::{NewMount, Node, Tree};

/// Refuses to mount something else in the place of procfs, or over files of it by whatever path they were found: what programs, and
/// runtimes, read and write there is to be the kernel's (CVE-2019-16884; runc: `checkProcMount`).
///
/// lxcfs gives containers figures of their own; those files are for reading only.
pub(super) fn refuse_over_proc(
    path: &Path,
    target: BorrowedFd<'_>,
    tree: Option<BorrowedFd<'_>>,
    detail: &mut String,
) -> Result<(), Errno> {
    let is_proc = |fd: BorrowedFd<'_>| -> Result<bool, Errno> {
        Ok(rustix::fs::fstatfs(fd)?.f_type as u64 == PROC_SUPER_MAGIC)
    };
    if path == Path::new("/proc") && !weak::without("procfs") {
        if tree.map_or(Ok(false), is_proc)? {
            return Ok(());
        }
        *detail = "\"/proc\" cannot be mounted because it is not of type proc".to_owned();
        return Err(Errno::PERM);
    }
    const FIGURES: [&str; 11] = [
        "/proc/cpuinfo",
        "/proc/diskstats",
        "/proc/loadavg",
        "/proc/meminfo",
        "/proc/net/dev",
        "/proc/slabinfo",
        "/proc/stat",
        "/proc/swaps",
        "/proc/sys/crypto/fips_enabled",
        "/proc/sys/kernel/ns_last_pid",
        "/proc/uptime",
    ];
    let is_figure = || FIGURES.iter().any(|figure| path == Path::new(figure));
    if !is_proc(target)? || is_figure() {
        return Ok(());
    }
    *detail = format!("{:?} cannot be mounted because it is inside /proc", path.display());
    Err(Errno::PERM)
}

pub(super) fn make(mount: &NewMount, mode: Option<u32>) -> Result<OwnedFd, Errno> {
    let context = fsopen(mount.kind.as_str(), FsOpenFlags::FSOPEN_CLOEXEC)?;
    // shown by mount(8) and df(1), which say "none" otherwise
    if !mount.source.is_empty() {
        fsconfig_set_string(&context, "source", mount.source.as_str())?;
    }
    for (key, value) in &mount.options {
        match value {
            Some(value) => fsconfig_set_string(&context, key.as_str(), value.as_str())?,
            None => fsconfig_set_flag(&context, key.as_str())?,
        }
    }
    for flag in &mount.kept_flags {
        if !mount.options.iter().any(|(key, _)| key == flag) {
            fsconfig_set_flag(&context, flag.as_str())?;
        }
    }
    if let Some(mode) = mode {
        fsconfig_set_string(&context, "mode", format!("{mode:o}"))?;
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::from_bits_retain(mount.attributes.0 as u32);
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Binds the host's node of the same path, after a look at what it is. The host's root is still
/// this process's.
pub(super) fn bind_node(node: &Node, target: &OwnedFd) -> Result<(), Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let tree = open_tree(CWD, node.path.as_path(), flags)?;
    let stat = rustix::fs::fstat(&tree)?;
    if FileType::from_raw_mode(stat.st_mode) != node.kind || stat.st_rdev != node.device {
        return Err(Errno::PERM);
    }
    let closed = Attributes::NOSUID.with(Attributes::NOEXEC);
    set_attributes(tree.as_fd(), Depth::One, closed)?;
    put(tree.as_fd(), target.as_fd())?;
    set_private(tree.as_fd(), Depth::One)
}

/// How the mounts of this namespace propagate from now on. A new mount namespace has the host's
/// shared ones as peers: what is mounted before this would show up there.
pub(super) fn set_root_propagation(propagation: Propagation, recursive: bool) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(c"/", flags, Mode::empty())?;
    propagate(root.as_fd(), &[(propagation, recursive)])
}

pub(super) fn propagate(mount: BorrowedFd<'_>, list: &[(Propagation, bool)]) -> Result<(), Errno> {
    list.iter().try_for_each(|(propagation, recursive)| {
        set_propagation(mount, if *recursive { Depth::Tree } else { Depth::One }, *propagation)
    })
}

pub(super) fn clone_host_tree(tree: &Tree) -> Result<OwnedFd, Errno> {
    let Tree::Host { path, recursive, changes } = tree else { return Err(Errno::INVAL) };
    let source = to_errno(path::open_host(path, OFlags::PATH))?;
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, *recursive);
    let tree = open_tree(source, c"", flags)?;
    for change in changes {
        change_attributes(tree.as_fd(), change.depth, change.clear, change.set)?;
    }
    Ok(tree)
}

pub(super) fn clone_tree(at: impl AsFd, path: &str) -> Result<OwnedFd, Errno> {
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

/// linux/magic.h
pub(super) const PROC_SUPER_MAGIC: u64 = 0x9fa0;
