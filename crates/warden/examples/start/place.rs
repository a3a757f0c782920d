//! Where the bench has its files: a layer of busybox, and directories for overlays.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bulkhead_runtime::cgroup::{Hierarchies, Layout};
use bulkhead_sys::mount::{Depth, set_private};
use bulkhead_types::IdMap;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen,
};

use crate::Result;

pub const RANGE: IdMap = IdMap::new(1_000_000, 65_536);

/// Removed with everything in it.
pub struct Place(PathBuf);

impl Place {
    pub fn make() -> Result<Self> {
        // not in a tmpfs, where an overlay costs less
        let path = PathBuf::from(format!("/var/tmp/bulkhead-start-{}", std::process::id()));
        let layer = path.join("layer");
        for name in ["bin", "dev", "etc", "proc", "sys"] {
            fs::create_dir_all(layer.join(name))?;
        }
        fs::copy("/bin/busybox", layer.join("bin/busybox"))?;
        std::os::unix::fs::symlink("busybox", layer.join("bin/true"))?;
        for name in ["", "bin", "dev", "etc", "proc", "sys", "bin/busybox"] {
            std::os::unix::fs::chown(layer.join(name), Some(RANGE.first), Some(RANGE.first))?;
        }
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The directories of one container's overlay; removed when the container has gone.
pub struct Upper(PathBuf);

impl Upper {
    pub fn make(place: &Path, name: &str) -> Result<Self> {
        let path = place.join(name);
        for name in ["upper", "work"] {
            fs::create_dir_all(path.join(name))?;
            std::os::unix::fs::chown(path.join(name), Some(RANGE.first), Some(RANGE.first))?;
        }
        Ok(Self(path))
    }
}

impl Drop for Upper {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A detached overlay of the layer.
pub fn overlay(place: &Path, upper: &Upper) -> Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "lowerdir", place.join("layer"))?;
    fsconfig_set_string(&context, "upperdir", upper.0.join("upper"))?;
    fsconfig_set_string(&context, "workdir", upper.0.join("work"))?;
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// Puts cgroup v2 alone where the host has its cgroups, for this process and its children.
pub fn enter_view_of_v2() -> Result<()> {
    bulkhead_sys::unshare(rustix::thread::UnshareFlags::NEWNS)?;
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    set_private(std::os::fd::AsFd::as_fd(&root), Depth::Tree)?;
    // what a mount without them would take from the whole host
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let flags = std::ffi::CString::new(Layout::parse(&mounts, &groups).v2_flags.join(","))?;
    while rustix::mount::unmount("/sys/fs/cgroup", UnmountFlags::DETACH).is_ok() {}
    let (none, flags) = (MountFlags::empty(), Some(flags.as_c_str()));
    rustix::mount::mount("cgroup2", "/sys/fs/cgroup", "cgroup2", none, flags)?;
    Ok(())
}

/// What this process sees of cgroups, in words.
pub fn cgroups() -> Result<String> {
    Ok(format!("cgroups: {:?}", Hierarchies::detect()?.mode()))
}

/// A detached mount of a file of this namespace.
pub fn clone_of(path: &str) -> Result<OwnedFd> {
    let flags = rustix::mount::OpenTreeFlags::OPEN_TREE_CLONE
        | rustix::mount::OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(rustix::mount::open_tree(CWD, path, flags)?)
}
