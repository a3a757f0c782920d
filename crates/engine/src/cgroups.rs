//! The engine's cgroups: one below its parent for every container.

use std::time::Duration;

use bulkhead_runtime::cgroup::{Cgroup, Hierarchies, Layout};
use bulkhead_store::{Store, load, put};
use bulkhead_types::Id;

use crate::EngineError;

/// The cgroups of one engine, all below one of its own.
#[derive(Debug)]
pub(crate) struct Cgroups {
    pub(crate) hierarchies: Hierarchies,
    /// `/bulkhead/ID-OF-THE-ENGINE`.
    root: String,
}

impl Cgroups {
    /// Finds the hierarchies of this host, and the cgroup of this engine in them.
    pub(crate) fn open(store: &dyn Store, parent: &str, engine: Id) -> Result<Self, EngineError> {
        let hierarchies = Hierarchies::detect()?;
        Ok(Self { hierarchies, root: choose_root(store, parent, engine)? })
    }

    /// Where a container's cgroup is, from the root of each hierarchy.
    pub(crate) fn path(&self, id: Id) -> String {
        self.path_of(&id.to_string())
    }

    fn path_of(&self, name: &str) -> String {
        format!("{}/{name}", self.root)
    }

    pub(crate) fn of(&self, id: Id) -> Result<Cgroup, EngineError> {
        Ok(Cgroup::open(&self.hierarchies, &self.path(id))?)
    }

    /// Kills whatever is left in a container's cgroup and removes it; none is no error.
    pub(crate) fn remove(&self, id: Id) -> Result<(), EngineError> {
        self.remove_at(&self.path(id))
    }

    /// [`Self::remove`] of one that [`Self::names`] has.
    pub(crate) fn remove_named(&self, name: &str) -> Result<(), EngineError> {
        self.remove_at(&self.path_of(name))
    }

    fn remove_at(&self, path: &str) -> Result<(), EngineError> {
        let cgroup = Cgroup::open(&self.hierarchies, path)?;
        if !cgroup.exists() {
            return Ok(());
        }
        cgroup.kill()?;
        cgroup.wait_empty(Duration::from_secs(5))?;
        Ok(cgroup.delete()?)
    }

    /// The names of all cgroups of this engine, in any hierarchy.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = mount_points()
            .filter_map(|mount| std::fs::read_dir(format!("{mount}{}", self.root)).ok())
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
    pub(crate) fn remove_root(&self) -> Result<(), EngineError> {
        self.remove_at(&self.root)?;
        let parent = self.root.rsplit_once('/').map_or("", |(parent, _)| parent);
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
fn choose_root(store: &dyn Store, parent: &str, engine: Id) -> Result<String, EngineError> {
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
