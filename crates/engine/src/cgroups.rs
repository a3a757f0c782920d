//! The engine's cgroups: one below its parent for every container.

use std::time::Duration;

use bulkhead_runtime::cgroup::{Cgroup, Layout};
use bulkhead_store::{Store, load, put};
use bulkhead_types::Id;

use crate::{Engine, EngineError};

impl Engine {
    /// Where a container's cgroup is, from the root of each hierarchy.
    pub(crate) fn cgroup_path(&self, id: Id) -> String {
        format!("{}/{id}", self.cgroup_root)
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

    /// The names of all cgroups of this engine, in any hierarchy.
    pub(crate) fn cgroups(&self) -> Vec<String> {
        let mut names: Vec<String> = mount_points()
            .filter_map(|mount| std::fs::read_dir(format!("{mount}{}", self.cgroup_root)).ok())
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

    /// Removes the engine's own cgroup, and the one above if no other engine has one in it.
    pub(crate) fn remove_cgroup_root(&self) -> Result<(), EngineError> {
        self.remove_cgroup(&self.cgroup_root)?;
        let parent = self.cgroup_root.rsplit_once('/').map_or("", |(parent, _)| parent);
        for mount in mount_points().filter(|_| !parent.is_empty()) {
            // Refused by the kernel, as it should be, while anything is in it.
            let _ = std::fs::remove_dir(format!("{mount}{parent}"));
        }
        Ok(())
    }
}

/// Decides which cgroup is this engine's: one of its own below the parent that it was told, so that
/// what it takes for orphans is never another engine's. The one that is recorded stays as long as
/// there are containers, wherever the parent is said to be now.
pub(crate) fn choose_root(
    store: &dyn Store,
    parent: &str,
    engine: Id,
) -> Result<String, EngineError> {
    const KEY: &str = "engine/cgroup";
    let wanted = format!("/{}/{}", parent.trim_matches('/'), engine.short());
    let recorded: Option<String> = load(store, KEY)?;
    match recorded {
        Some(recorded) if recorded == wanted || parent.is_empty() => Ok(recorded),
        Some(recorded) if !store.range("container/")?.is_empty() => {
            tracing::warn!(%recorded, %wanted, "the cgroup stays until no container is left");
            Ok(recorded)
        }
        _ => {
            store.commit(&[], &[put(KEY, &wanted)])?;
            Ok(wanted)
        }
    }
}

fn mount_points() -> impl Iterator<Item = String> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let layout = Layout::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
    layout.v1.into_iter().map(|mount| mount.mount_point).chain(layout.v2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_keeps_its_cgroup_while_it_has_containers() {
        let directory = tempfile::tempdir().unwrap();
        let store = bulkhead_store::Embedded::open(&directory.path().join("store")).unwrap();
        let id = Id::random();
        let own = |parent: &str| format!("/{parent}/{}", id.short());
        assert_eq!(choose_root(&store, "one", id).unwrap(), own("one"));
        assert_eq!(choose_root(&store, "/two/", id).unwrap(), own("two"));
        store.commit(&[], &[put("container/x", &1)]).unwrap();
        assert_eq!(choose_root(&store, "one", id).unwrap(), own("two"));
    }
}
