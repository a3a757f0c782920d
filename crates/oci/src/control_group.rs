//! A container's cgroup as the commands see it: made by the files of the kernel or through systemd,
//! found again by what the record says, removed with all that is in it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use bulkhead_runtime::cgroup::systemd::{self, Instance, Manager, SystemdError, Unit};
use bulkhead_runtime::cgroup::{Cgroup, CreateOptions, Hierarchies, HostMode, Join, oci_path};
use bulkhead_types::oci::{Config, NamespaceKind, Resources};
use rustix::fs::{Mode, OFlags, openat};
use serde::{Deserialize, Serialize};

use crate::caller;
use crate::error::{Error, Result};
use crate::log::Log;

/// Where a container's cgroup is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// As [`oci_path`] gives it; empty without cgroups.
    pub path: String,
    /// Absolute, by controller, once it is made: a relative `path` is so only to one who is in the
    /// same cgroup.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub paths: BTreeMap<String, String>,
    /// `cgroupsPath`, where systemd made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

impl Place {
    /// Where the cgroup of `config` is to be.
    pub fn of(config: &Config, id: &str, by_systemd: bool) -> Result<Self> {
        let path = config.linux.as_ref().map_or("", |linux| linux.cgroups_path.as_str());
        if !by_systemd {
            return Ok(Self { path: oci_path(path, id)?, ..Self::default() });
        }
        if !systemd::is_running() {
            let text = "systemd cgroup flag passed, but systemd support for managing cgroups is \
                        not available: this host does not run systemd";
            return Err(Error::Refused(text.to_owned()));
        }
        let unit = Unit::parse(path, id, is_users()?)?;
        Ok(Self { path: format!("/{}", unit.name), unit: Some(path.to_owned()), ..Self::default() })
    }

    pub fn is_none(&self) -> bool {
        self.path.is_empty()
    }

    /// What is there of it; `None` without cgroups.
    pub fn open(&self) -> Result<Option<Cgroup>> {
        if self.is_none() {
            return Ok(None);
        }
        let hierarchies = Hierarchies::detect()?;
        if self.paths.is_empty() && self.unit.is_some() {
            // killed before systemd had answered: it knows the process, if there is one
            return Ok(None);
        }
        Ok(Some(if self.paths.is_empty() {
            Cgroup::open(&hierarchies, &self.path)?
        } else {
            Cgroup::open_saved(&hierarchies, &self.paths)?
        }))
    }

    /// Changes limits; of what belongs together, `resources` has all.
    pub fn update(&self, id: &str, resources: &Resources) -> Result<()> {
        let cgroup = self.open()?.filter(Cgroup::exists).ok_or_else(|| {
            Error::Refused("the container has no cgroup whose limits could be changed".to_owned())
        })?;
        match &self.unit {
            None => Ok(cgroup.update_oci(resources)?),
            Some(path) => {
                let unit = unit(path, id)?;
                Ok(manager()?.update(&unit, &cgroup, resources)?)
            }
        }
    }

    /// Removes it, as [`Self::open`] gave it; what is gone already is fine.
    pub fn remove(&self, id: &str, cgroup: Option<&Cgroup>) -> Result<()> {
        match (&self.unit, cgroup) {
            (None, Some(cgroup)) => Ok(cgroup.delete()?),
            (None, None) => Ok(()),
            (Some(path), Some(cgroup)) => Ok(manager()?.remove(&unit(path, id)?, cgroup)?),
            (Some(_), None) => Ok(()),
        }
    }

    /// Makes it by the files of the kernel, but for its device rules.
    pub fn make(
        &mut self,
        hierarchies: &Hierarchies,
        config: &Config,
        log: &Log,
    ) -> Result<Cgroup> {
        let none = Resources::default();
        let resources = config.linux.as_ref().and_then(|linux| linux.resources.as_ref());
        warn(resources, log);
        let options = CreateOptions { devices_later: true, ..options(config, hierarchies) };
        let path = &self.path;
        let cgroup = Cgroup::create_oci(hierarchies, path, resources.unwrap_or(&none), &options)?;
        self.paths = cgroup.paths();
        Ok(cgroup)
    }

    /// Makes it through systemd, with `pid`, a child that waits, in it.
    pub fn make_by_systemd(
        &mut self,
        hierarchies: &Hierarchies,
        id: &str,
        config: &Config,
        pid: u32,
        log: &Log,
    ) -> Result<()> {
        let none = Resources::default();
        let resources = config.linux.as_ref().and_then(|linux| linux.resources.as_ref());
        warn(resources, log);
        let unit = unit(self.unit.as_deref().unwrap_or_default(), id)?;
        let more = systemd::annotated_properties(&config.annotations)?;
        let options = options(config, hierarchies);
        let resources = resources.unwrap_or(&none);
        let cgroup = manager()?.create(hierarchies, &unit, pid, resources, more, &options)?;
        self.paths = cgroup.paths();
        enter(&cgroup.join()?, pid)
    }
}

/// Sets the device rules of what [`Place::make`] made.
pub fn limit_devices(cgroup: &Cgroup, hierarchies: &Hierarchies, config: &Config) -> Result<()> {
    let resources = config.linux.as_ref().and_then(|linux| linux.resources.as_ref());
    let rules = resources.map_or(&[][..], |resources| &resources.devices);
    Ok(cgroup.limit_devices(rules, &options(config, hierarchies))?)
}

/// Moves a child into groups, by its pid.
fn enter(join: &Join, pid: u32) -> Result<()> {
    let failed = || Error::system(format!("move process {pid} into its cgroup"));
    let mut files: Vec<OwnedFd> = Vec::new();
    if let Some(directory) = &join.v2_dir {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(directory, "cgroup.procs", flags, Mode::empty());
        files.push(file.map_err(failed())?);
    }
    let all = join.procs.iter().map(AsFd::as_fd).chain(files.iter().map(AsFd::as_fd));
    for file in all {
        rustix::io::write(file, pid.to_string().as_bytes()).map_err(failed())?;
    }
    Ok(())
}

fn options(config: &Config, hierarchies: &Hierarchies) -> CreateOptions {
    let linux = config.linux.as_ref();
    CreateOptions {
        delegate_to: owner(config).filter(|_| hierarchies.mode() == HostMode::V2),
        reuse_existing: true,
        rootless: linux.is_none_or(|linux| linux.cgroups_path.is_empty())
            && !caller::is_host_root(),
        devices_later: false,
    }
}

/// Who the container's root is on the host, where it is to own its cgroup: it has user and cgroup
/// namespaces of its own and sees its cgroup writable (config-linux.md, "Cgroup ownership").
fn owner(config: &Config) -> Option<(u32, u32)> {
    let linux = config.linux.as_ref()?;
    let own = |kind| {
        linux.namespaces.iter().any(|namespace| namespace.kind == kind && namespace.path.is_empty())
    };
    let writable = config.mounts.iter().any(|mount| {
        mount.kind.starts_with("cgroup") && !mount.options.iter().any(|option| option == "ro")
    });
    if !own(NamespaceKind::User) || !own(NamespaceKind::Cgroup) || !writable {
        return None;
    }
    let root = |maps: &[bulkhead_types::oci::IdMapping]| {
        maps.iter().find(|map| map.container_id == 0).map(|map| map.host_id)
    };
    Some((root(&linux.uid_mappings)?, root(&linux.gid_mappings)?))
}

fn warn(resources: Option<&Resources>, log: &Log) {
    let Some(memory) = resources.and_then(|resources| resources.memory) else { return };
    if memory.kernel.is_some() || memory.kernel_tcp.is_some() {
        log.warn("limits of kernel memory have no effect: kernels no longer have them");
    }
}

fn unit(path: &str, id: &str) -> Result<Unit> {
    Ok(Unit::parse(path, id, is_users()?)?)
}

fn manager() -> std::result::Result<Manager, SystemdError> {
    Manager::connect(&caller::systemd()?)
}

fn is_users() -> std::result::Result<bool, SystemdError> {
    Ok(matches!(caller::systemd()?, Instance::User(_)))
}
