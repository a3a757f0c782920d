//! Control groups: a container's place in every hierarchy of the host, v1, v2 or both.
//!
//! [`Hierarchies::detect`] says what the host has, [`Cgroup::create`] makes a group with its limits
//! and device rules, and [`Cgroup::join`] gives the descriptors with which a child enters it.
//! Nothing is moved here: whoever moves a whole process (`cgroup.procs`) waits some 11 ms for RCU
//! after a quiet moment. A child is born in its v2 group, and moves its one thread into v1's.
//!
//! A [`Cgroup`] holds a descriptor for every hierarchy, about ten on v1: open it when it is needed
//! rather than keep one for every container.

use std::collections::BTreeMap;

use rustix::io::Errno;

mod convert;
mod create;
mod device;
mod error;
mod file;
mod freezer;
mod hierarchy;
mod inherit;
mod join;
mod limits;
mod members;
mod oci_stats;
mod oom;
mod path;
mod resources;
mod stats;
pub mod systemd;
mod v1;
mod v2;
mod write;

pub use create::CreateOptions;
pub use device::{DeviceAccess, DeviceKind, DeviceRule, Devices, InvalidDeviceRule};
pub use error::CgroupError;
pub use hierarchy::{Hierarchies, Layout, Mode as HostMode, V1Mount};
pub use join::Join;
pub use limits::Limits;
pub use oom::OomWatch;
pub use path::oci_path;
pub use stats::{BlockIoCount, Stats, Throttling};

use file::Directory;
use hierarchy::{Hierarchy, Version};

/// One group in every hierarchy.
#[derive(Debug)]
pub struct Cgroup {
    path: String,
    mode: HostMode,
    groups: Vec<Group>,
    /// Whether there is a group in each hierarchy where there should be one.
    complete: bool,
    /// The controllers of hierarchies that a runtime without privileges had to leave out.
    refused: Vec<String>,
}

/// One group in one hierarchy.
#[derive(Debug)]
struct Group {
    directory: Directory,
    version: Version,
    controllers: Vec<String>,
    /// Whether it has just been made, so that all it has is the kernel's defaults.
    fresh: bool,
}

impl Group {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|it| it == controller)
    }
}

impl Cgroup {
    /// Opens what is there of `path`, which may be nothing (see [`Self::exists`]).
    pub fn open(hierarchies: &Hierarchies, path: &str) -> Result<Self, CgroupError> {
        let path = if path.starts_with('/') {
            components(path)?;
            path.to_owned()
        } else {
            oci_path(path, "")?
        };
        Self::open_each(hierarchies, &path, |hierarchy| {
            path::below(hierarchies, hierarchy, &path).map(|it| Some(it.into_owned()))
        })
    }

    /// Opens what is there of the paths that [`Self::paths`] gave. Hierarchies without one are left
    /// out; of those with one each is needed to [`Self::join`].
    ///
    /// # Errors
    /// [`CgroupError::InvalidPath`] if one is not below its hierarchy.
    pub fn open_saved(
        hierarchies: &Hierarchies,
        paths: &BTreeMap<String, String>,
    ) -> Result<Self, CgroupError> {
        let name = paths.values().next().map_or("", |path| path.rsplit('/').next().unwrap_or(""));
        Self::open_each(hierarchies, &format!("/{name}"), |hierarchy| {
            let saved = match hierarchy.version {
                Version::V2 => paths.get(""),
                Version::V1 => hierarchy.controllers.iter().find_map(|name| paths.get(name)),
            };
            let Some(saved) = saved else { return Ok(None) };
            let relative = saved.strip_prefix(&hierarchy.root.path);
            let relative = relative.filter(|path| components(path).is_ok());
            match relative {
                Some(relative) => Ok(Some(relative[1..].to_owned())),
                None => Err(CgroupError::InvalidPath(saved.clone())),
            }
        })
    }

    fn open_each(
        hierarchies: &Hierarchies,
        path: &str,
        way: impl Fn(&Hierarchy) -> Result<Option<String>, CgroupError>,
    ) -> Result<Self, CgroupError> {
        let mut groups = Vec::new();
        let mut wanted = 0;
        for hierarchy in &hierarchies.all {
            let Some(relative) = way(hierarchy)? else { continue };
            wanted += 1;
            match hierarchy.root.open(if relative.is_empty() { "." } else { &relative }) {
                Ok(directory) => match Group::open(hierarchy, directory) {
                    Ok(group) => groups.push(group),
                    // removed since, as systemd does with the last process
                    Err(error) if error.is_gone() => {}
                    Err(error) => return Err(error),
                },
                Err(Errno::NOENT) => {}
                Err(errno) => {
                    let file = hierarchy.root.file(&relative);
                    return Err(CgroupError::Open { file, cause: errno.into() });
                }
            }
        }
        let (mode, complete) = (hierarchies.mode(), groups.len() == wanted);
        Ok(Self { path: path.to_owned(), mode, groups, complete, refused: Vec::new() })
    }

    /// Whether any hierarchy has the group.
    pub fn exists(&self) -> bool {
        !self.groups.is_empty()
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// Sets the limits that are given and leaves the others. Device rules stay as they are.
    pub fn update(&self, limits: &Limits) -> Result<(), CgroupError> {
        self.set(&limits.to_oci(), resources::Swap::IfAccounted)
    }

    /// Where the group is, as absolute paths: by controller on v1, and by the empty name for v2, as
    /// `cgroup_paths` in runc's state.json.
    pub fn paths(&self) -> BTreeMap<String, String> {
        let mut paths = BTreeMap::new();
        for group in &self.groups {
            let path = &group.directory.path;
            match group.version {
                Version::V2 => drop(paths.insert(String::new(), path.clone())),
                Version::V1 => {
                    let names = group.controllers.iter();
                    paths.extend(names.map(|name| (name.clone(), path.clone())));
                }
            }
        }
        paths
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
            // nothing to hand down, nothing to read
            Version::V2 if hierarchy.controllers.is_empty() => Vec::new(),
            Version::V2 => words(&file::read(&directory, "cgroup.controllers")?),
        };
        Ok(Self { directory, version: hierarchy.version, controllers, fresh: false })
    }
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
