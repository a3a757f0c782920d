//! The engine's cgroups: one below its parent for every container.

use std::time::Duration;

use bulkhead_runtime::cgroup::{Cgroup, Layout};
use bulkhead_spec::Id;

use crate::{Engine, EngineError};

impl Engine {
    /// Where a container's cgroup is, from the root of each hierarchy.
    pub(crate) fn cgroup_path(&self, id: Id) -> String {
        format!("/{}/{id}", self.options.cgroup_parent)
    }

    pub(crate) fn cgroup(&self, id: Id) -> Result<Cgroup, EngineError> {
        Ok(Cgroup::open(&self.hierarchies, &self.cgroup_path(id))?)
    }

    /// Kills whatever is left in a container's cgroup and removes it; none is no error.
    pub(crate) fn remove_cgroup(&self, path: &str) -> Result<(), EngineError> {
        let cgroup = Cgroup::open(&self.hierarchies, path)?;
        if !cgroup.exists() {
            return Ok(());
        }
        cgroup.kill()?;
        cgroup.wait_empty(Duration::from_secs(5))?;
        Ok(cgroup.delete()?)
    }

    /// The names of all cgroups below the parent, in any hierarchy.
    pub(crate) fn cgroups(&self) -> Vec<String> {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let layout = Layout::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
        let mounts = layout.v1.into_iter().map(|mount| mount.mount_point).chain(layout.v2);
        let mut names: Vec<String> = mounts
            .filter_map(|mount| {
                std::fs::read_dir(format!("{mount}/{}", self.options.cgroup_parent)).ok()
            })
            .flatten()
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let is_directory = entry.file_type().ok()?.is_dir();
                entry.file_name().into_string().ok().filter(|_| is_directory)
            })
            .collect();
        names.sort();
        names.dedup();
        names
    }
}
