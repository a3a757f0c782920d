//! What of the machine the runtimes see: mount namespaces with the peers' chroot as root.
//!
//! All runtimes, Bulkhead too, run in the same two: one with the cgroups as on this machine, one with
//! cgroup v2 alone, which crun asks for. They end with the last process in them.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use bulkhead_sys::process::{CLONE_NEWNS, setns};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
    mount_change, unmount,
};
use rustix::thread::UnshareFlags;

/// A mount namespace.
#[derive(Debug)]
pub struct View {
    pub name: &'static str,
    namespace: OwnedFd,
    pub mounts: String,
}

impl View {
    /// Goes there, root and current directory as well.
    pub fn enter(&self) -> Result<()> {
        setns(self.namespace.as_fd(), CLONE_NEWNS).with_context(|| format!("enter {}", self.name))
    }

    fn of_here(name: &'static str) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let namespace = rustix::fs::open("/proc/self/ns/mnt", flags, Mode::empty())?;
        Ok(Self { name, namespace, mounts: std::fs::read_to_string("/proc/self/mountinfo")? })
    }
}

/// The tmpfs in both views that all which the bench makes is in.
pub const PLACE: &str = "/mnt";

/// Where `program` is in the views.
pub const PROGRAM: &str = "/mnt/program/bulkhead";

/// The v2 view, and unless the machine has nothing else the view of its own cgroups. This process
/// is in one of them afterwards, and in no way back.
pub fn open(peers: &Path, program: &Path) -> Result<Vec<View>> {
    let none = c"";
    bulkhead_sys::unshare(UnshareFlags::NEWNS).context("unshare the mount namespace")?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private)?;
    mount_bind(peers, peers).with_context(|| format!("bind {}", peers.display()))?;
    mount("proc", peers.join("proc"), "proc", MountFlags::empty(), none)?;
    mount_bind_recursive("/sys", peers.join("sys"))?;
    mount_bind_recursive("/dev", peers.join("dev"))?;
    mount("tmpfs", peers.join("run"), "tmpfs", MountFlags::empty(), c"mode=755")?;
    let place = peers.join(PLACE.trim_start_matches('/'));
    mount("tmpfs", &place, "tmpfs", MountFlags::empty(), c"mode=755")?;
    // on its own file system, as the peers' programs are
    let there = peers.join(PROGRAM.trim_start_matches('/'));
    std::fs::create_dir_all(there.parent().context("it is below a directory")?)?;
    std::fs::write(&there, "")?;
    mount_bind(program, &there).with_context(|| format!("bind {}", program.display()))?;
    rustix::process::chdir(peers)?;
    rustix::process::pivot_root(".", ".").context("pivot_root")?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;

    const CGROUPS: &str = "/sys/fs/cgroup";
    const CGROUP2_MAGIC: u64 = 0x6367_7270;
    if rustix::fs::statfs(CGROUPS)?.f_type as u64 == CGROUP2_MAGIC {
        return Ok(vec![View::of_here("v2")?]);
    }
    let own = View::of_here("hybrid")?;
    bulkhead_sys::unshare(UnshareFlags::NEWNS)?;
    let flags = CString::new(cgroup2_flags(&std::fs::read_to_string("/proc/self/mountinfo")?))?;
    unmount(CGROUPS, UnmountFlags::DETACH)?;
    mount("cgroup2", CGROUPS, "cgroup2", MountFlags::empty(), Some(flags.as_c_str()))
        .context("mount cgroup2")?;
    Ok(vec![View::of_here("v2")?, own])
}

/// `nsdelegate` and its like, which a mount without them would take from the whole host.
fn cgroup2_flags(mountinfo: &str) -> String {
    let options = |line: &str| {
        let (_, file_system) = line.split_once(" - ")?;
        let mut fields = file_system.split(' ');
        (fields.next()? == "cgroup2").then(|| fields.nth(1).unwrap_or_default().to_owned())
    };
    let options = mountinfo.lines().find_map(options).unwrap_or_default();
    let flags: Vec<&str> = options.split(',').filter(|it| !matches!(*it, "rw" | "ro")).collect();
    flags.join(",")
}
