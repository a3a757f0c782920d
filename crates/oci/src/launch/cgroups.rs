//! The container's cgroups, and what it sees of them.

use std::os::fd::OwnedFd;

use bulkhead_runtime::cgroup::{Hierarchies, HostMode, Layout};
use bulkhead_runtime::plan::{CgroupMount, Host};
use bulkhead_types::oci::NamespaceKind;

use super::Launch;
use crate::error::{Error, Result};

impl Launch<'_> {
    pub(super) fn make_cgroup(&mut self) -> Result<Option<OwnedFd>> {
        if self.record.cgroup.is_none() {
            // a host without cgroups has none to show either
            self.hierarchies = Hierarchies::detect().ok();
            self.opened.sources.cgroup = self.cgroup_mount()?;
            return Ok(None);
        }
        let hierarchies = self.hierarchies.insert(Hierarchies::detect()?);
        if self.record.cgroup.unit.is_some() {
            self.opened.sources.cgroup = self.cgroup_mount()?;
            return Ok(None);
        }
        let cgroup = self.record.cgroup.make(hierarchies, &self.config, self.log)?;
        let join = self.cgroup.insert(cgroup).join()?;
        for procs in join.procs {
            let index = self.opened.keep(procs)?;
            self.opened.sources.cgroup_v1_procs.push(index);
        }
        self.opened.sources.cgroup = self.cgroup_mount()?;
        Ok(join.v2_dir)
    }

    /// What the container is to see at `/sys/fs/cgroup`.
    fn cgroup_mount(&mut self) -> Result<CgroupMount> {
        let is_shown = |kind| self.config.mounts.iter().any(|mount| mount.kind == kind);
        let shown = is_shown("cgroup") || is_shown("cgroup2");
        let Some(hierarchies) = self.hierarchies.as_ref().filter(|_| shown) else {
            return Ok(CgroupMount::default());
        };
        let namespaces = self.config.linux.iter().flat_map(|linux| &linux.namespaces);
        let own = namespaces.filter(|namespace| namespace.kind == NamespaceKind::Cgroup);
        let own: Vec<bool> = own.map(|namespace| namespace.path.is_empty()).collect();
        let mut host = Host::from(hierarchies);
        // one that is joined may be the host's after all
        if own != [true] {
            let read = |file: &str| {
                std::fs::read_to_string(file).map_err(Error::system(format!("read {file}")))
            };
            let layout = Layout::parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?);
            if own.is_empty()
                && is_shown("cgroup")
                && hierarchies.mode() != HostMode::V2
                && let Some(groups) = self.opened.open_groups(&layout, &self.record.cgroup.paths)?
            {
                return Ok(CgroupMount::Groups(groups));
            }
            host.cgroup2_flags = layout.v2_flags;
        }
        Ok(CgroupMount::Hierarchies(host))
    }
}
