//! Control groups: a container's place in every hierarchy of the host, v1, v2 or both.
//!
//! [`Hierarchies::detect`] says what the host has, [`Cgroup::create`] makes a group with its limits
//! and device rules, and [`Cgroup::join`] gives the descriptors with which a child enters it.
//! Nothing is moved here: the first write to a `cgroup.procs` after a quiet moment waits some 11 ms
//! for RCU, so the child does that itself, while others work.
//!
//! A [`Cgroup`] holds a descriptor for every hierarchy, about ten on v1: open it when it is needed
//! rather than keep one for every container.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;

mod device;
mod file;
mod freezer;
mod hierarchy;
mod limits;
mod members;
mod stats;

pub use device::{DeviceAccess, DeviceKind, DeviceRule, Devices, InvalidDeviceRule};
pub use hierarchy::{Hierarchies, Layout, Mode as HostMode, V1Mount};
pub use limits::Limits;
pub use stats::Stats;

use file::Directory;
use hierarchy::{Hierarchy, Version};

/// What went wrong, with the file and the value.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error(
        "no cgroup hierarchy is mounted, and without one containers can be neither limited nor \
         stopped as a whole: mount it with `mount -t cgroup2 none /sys/fs/cgroup`"
    )]
    NotMounted,
    #[error("invalid cgroup path {0:?}: write an absolute path without `.` and `..`")]
    InvalidPath(String),
    #[error("this host has no cgroup controller `{controller}`, which a limit of {path} needs")]
    NoController { controller: &'static str, path: String },
    #[error("a limit of memory and swap needs a limit of memory")]
    SwapWithoutMemory,
    #[error("cgroup {0} is in use by other processes")]
    Occupied(String),
    #[error("cgroup {0} does not exist in every hierarchy any more")]
    Gone(String),
    #[error("open {file}: {cause}")]
    Open { file: String, cause: io::Error },
    #[error("read {file}: {cause}")]
    Read { file: String, cause: io::Error },
    #[error("read {file}: unexpected content {text:?}")]
    Unexpected { file: String, text: String },
    #[error("write {value} to {file}: {cause}")]
    Write { value: String, file: String, cause: io::Error },
    #[error("mkdir {directory}: {cause}")]
    Create { directory: String, cause: io::Error },
    #[error("rmdir {directory}: {cause}")]
    Remove { directory: String, cause: io::Error },
    #[error("restrict devices in {directory} by a BPF program: {cause}")]
    Devices { directory: String, cause: io::Error },
    #[error("cgroup {path} was not {wanted} within {seconds} seconds")]
    Timeout { path: String, wanted: &'static str, seconds: u64 },
    #[error("signal the processes of cgroup {path}: {cause}")]
    Signal { path: String, cause: io::Error },
}

/// One group in every hierarchy.
#[derive(Debug)]
pub struct Cgroup {
    path: String,
    groups: Vec<Group>,
    /// Whether there is a group in each of the host's hierarchies.
    complete: bool,
}

/// One group in one hierarchy.
#[derive(Debug)]
struct Group {
    directory: Directory,
    version: Version,
    controllers: Vec<String>,
}

impl Group {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|it| it == controller)
    }
}

/// The descriptors by which a process enters a cgroup.
#[derive(Debug)]
pub struct Join {
    /// v1: `cgroup.procs` of every hierarchy, open for writing; a process joins by writing `0`.
    pub procs: Vec<OwnedFd>,
    /// The directory of the v2 group for `CLONE_INTO_CGROUP`, on hybrid hosts too.
    pub v2_dir: Option<OwnedFd>,
}

impl Cgroup {
    /// Makes `path` (absolute below the hierarchies' roots, such as `/bulkhead/ID`) in every
    /// hierarchy and sets its limits; on failure what was made is removed.
    ///
    /// Missing parents are made and stay. An empty group of the same name, left by a crash, is
    /// replaced. On v2 the controllers are enabled for the whole way down.
    ///
    /// # Errors
    /// [`CgroupError::Occupied`] if the group exists and has processes,
    /// [`CgroupError::NoController`] if the host lacks what a limit needs (see
    /// [`Limits::without_absent`]), else the call that failed.
    pub fn create(
        hierarchies: &Hierarchies,
        path: &str,
        limits: &Limits,
    ) -> Result<Self, CgroupError> {
        let components = components(path)?;
        let mut cgroup = Self { path: path.to_owned(), groups: Vec::new(), complete: true };
        let made = hierarchies
            .all
            .iter()
            .try_for_each(|hierarchy| {
                cgroup.groups.push(make(hierarchy, &components, limits)?);
                Ok(())
            })
            .and_then(|()| cgroup.check(limits))
            .and_then(|()| cgroup.update(limits))
            .and_then(|()| cgroup.restrict_devices(&limits.devices));
        if let Err(error) = made {
            // the first error is the one to tell
            let _ = cgroup.delete();
            return Err(error);
        }
        Ok(cgroup)
    }

    /// Opens what is there of `path`, which may be nothing (see [`Self::exists`]).
    pub fn open(hierarchies: &Hierarchies, path: &str) -> Result<Self, CgroupError> {
        let relative = components(path)?.join("/");
        let mut groups = Vec::new();
        for hierarchy in &hierarchies.all {
            match hierarchy.root.open(&relative) {
                Ok(directory) => groups.push(Group::open(hierarchy, directory)?),
                Err(Errno::NOENT) => {}
                Err(errno) => {
                    let file = hierarchy.root.file(&relative);
                    return Err(CgroupError::Open { file, cause: errno.into() });
                }
            }
        }
        let complete = groups.len() == hierarchies.all.len();
        Ok(Self { path: path.to_owned(), groups, complete })
    }

    /// Whether any hierarchy has the group.
    pub fn exists(&self) -> bool {
        !self.groups.is_empty()
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// Opens the ways in.
    ///
    /// # Errors
    /// [`CgroupError::Gone`] if a hierarchy lacks the group: to join the rest would be to run
    /// without limits.
    pub fn join(&self) -> Result<Join, CgroupError> {
        if !self.complete {
            return Err(CgroupError::Gone(self.path.clone()));
        }
        let mut join = Join { procs: Vec::new(), v2_dir: None };
        for group in &self.groups {
            let (name, flags) = match group.version {
                Version::V1 => ("cgroup.procs", OFlags::WRONLY | OFlags::NOFOLLOW),
                Version::V2 => (".", OFlags::RDONLY | OFlags::DIRECTORY),
            };
            let fd = openat(&group.directory.fd, name, flags | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| CgroupError::Open {
                    file: group.directory.file(name),
                    cause: errno.into(),
                })?;
            match group.version {
                Version::V1 => join.procs.push(fd),
                Version::V2 => join.v2_dir = Some(fd),
            }
        }
        Ok(join)
    }

    /// Sets the limits that are given and leaves the others. Device rules stay as they are.
    pub fn update(&self, limits: &Limits) -> Result<(), CgroupError> {
        self.check(limits)?;
        self.groups.iter().try_for_each(|group| limits::apply(group, limits))
    }

    fn check(&self, limits: &Limits) -> Result<(), CgroupError> {
        let absent = limits.needed().find(|name| !self.groups.iter().any(|group| group.has(name)));
        match absent {
            Some(controller) => {
                Err(CgroupError::NoController { controller, path: self.path.clone() })
            }
            None => Ok(()),
        }
    }

    fn restrict_devices(&self, devices: &Devices) -> Result<(), CgroupError> {
        let Some(rules) = devices.rules() else { return Ok(()) };
        if let Some(group) = self.groups.iter().find(|group| group.has("devices")) {
            file::write(&group.directory, "devices.deny", "a")?;
            let rules = rules.iter().map(ToString::to_string);
            return file::write_each(&group.directory, "devices.allow", rules);
        }
        let Some(group) = self.groups.iter().find(|group| group.version == Version::V2) else {
            return Err(CgroupError::NoController {
                controller: "devices",
                path: self.path.clone(),
            });
        };
        let attach = || {
            use std::os::fd::AsFd;
            let program = bulkhead_sys::bpf::load_cgroup_device(&device::compile(&rules))?;
            bulkhead_sys::bpf::attach_cgroup_device(group.directory.fd.as_fd(), program.as_fd())
        };
        attach().map_err(|cause| CgroupError::Devices {
            directory: group.directory.path.clone(),
            cause,
        })
    }

    fn v2(&self) -> Option<&Group> {
        self.groups.iter().find(|group| group.version == Version::V2)
    }

    fn with_controller(&self, controller: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.has(controller))
    }
}

impl Group {
    fn open(hierarchy: &Hierarchy, directory: Directory) -> Result<Self, CgroupError> {
        let controllers = match hierarchy.version {
            Version::V1 => hierarchy.controllers.clone(),
            Version::V2 => words(&file::read(&directory, "cgroup.controllers")?),
        };
        Ok(Self { directory, version: hierarchy.version, controllers })
    }
}

/// Makes the group and its parents in one hierarchy.
fn make(hierarchy: &Hierarchy, path: &[&str], limits: &Limits) -> Result<Group, CgroupError> {
    let open = |parent: &Directory, name: &str| {
        let wrap =
            |errno: Errno| CgroupError::Open { file: parent.file(name), cause: errno.into() };
        parent.open(name).map_err(wrap)
    };
    let mut at = open(&hierarchy.root, ".")?;
    at.path.clone_from(&hierarchy.root.path);
    for (index, name) in path.iter().enumerate() {
        if hierarchy.version == Version::V2 {
            enable_controllers(&at, limits)?;
        }
        let create = || mkdirat(&at.fd, *name, Mode::from_raw_mode(0o755));
        let is_last = index + 1 == path.len();
        let result = match create() {
            Err(Errno::EXIST) if is_last => {
                match rustix::fs::unlinkat(&at.fd, *name, rustix::fs::AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT) => create(),
                    Err(Errno::BUSY) => return Err(CgroupError::Occupied(at.file(name))),
                    Err(errno) => Err(errno),
                }
            }
            Err(Errno::EXIST) => Ok(()),
            other => other,
        };
        result.map_err(|errno| CgroupError::Create {
            directory: at.file(name),
            cause: errno.into(),
        })?;
        let has_cpuset = hierarchy.controllers.iter().any(|it| it == "cpuset");
        let child = open(&at, name).and_then(|child| {
            if hierarchy.version == Version::V1 && has_cpuset {
                inherit_cpuset(&at, &child)?;
            }
            Ok(child)
        });
        if child.is_err() && is_last {
            // the caller knows of finished groups only
            let _ = rustix::fs::unlinkat(&at.fd, *name, rustix::fs::AtFlags::REMOVEDIR);
        }
        at = child?;
    }
    Group::open(hierarchy, at)
}

/// Gives a new v1 cpuset group its parent's processors and memory nodes: it starts with none, and
/// nothing can run in it.
fn inherit_cpuset(parent: &Directory, child: &Directory) -> Result<(), CgroupError> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        if file::read(child, name)?.trim().is_empty() {
            file::write(child, name, file::read(parent, name)?.trim())?;
        }
    }
    Ok(())
}

/// Hands a v2 group's controllers on to its children, those that it has.
///
/// # Errors
/// Only for a controller that `limits` need: the kernel refuses with `EBUSY` while processes live
/// in the parent itself, as they may in a container's own root.
fn enable_controllers(parent: &Directory, limits: &Limits) -> Result<(), CgroupError> {
    let available = words(&file::read(parent, "cgroup.controllers")?);
    let enabled = words(&file::read(parent, "cgroup.subtree_control")?);
    for controller in ["cpu", "cpuset", "io", "memory", "pids"] {
        let has = |names: &[String]| names.iter().any(|it| it == controller);
        if !has(&available) || has(&enabled) {
            continue;
        }
        let result = file::write(parent, "cgroup.subtree_control", &format!("+{controller}"));
        if limits.needed().any(|needed| needed == controller) {
            result?;
        }
    }
    Ok(())
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn components(path: &str) -> Result<Vec<&str>, CgroupError> {
    let invalid = || CgroupError::InvalidPath(path.to_owned());
    let relative = path.strip_prefix('/').ok_or_else(invalid)?;
    let components: Vec<&str> = relative.split('/').collect();
    let valid = |name: &&str| {
        !matches!(*name, "" | "." | "..") && name.len() <= 255 && !name.contains(['\0', '\n'])
    };
    if components.iter().all(valid) { Ok(components) } else { Err(invalid()) }
}

#[cfg(test)]
mod tests;
