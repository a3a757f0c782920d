//! What a group has from its parents: their directories, on v2 their controllers, on v1 processors
//! and memory nodes.

use bulkhead_types::oci::Resources;
use rustix::io::Errno;

use super::file::{self, Directory, mkdir, open};
use super::hierarchy::{Hierarchy, Version};
use super::resources::needs_on_v2;
use super::{CgroupError, words};

/// Hands a v2 group's controllers on to its children, those that it has.
///
/// # Errors
/// Only for a controller that `resources` need: where processes live in the parent itself, as they
/// may in a container's own root, the kernel hands nothing on (`EBUSY`; cgroups(7), "no internal
/// processes").
pub(super) fn enable_controllers(
    parent: &Directory,
    resources: &Resources,
) -> Result<(), CgroupError> {
    let enabled = words(&file::read(parent, "cgroup.subtree_control")?);
    let mut missing = words(&file::read(parent, "cgroup.controllers")?);
    missing.retain(|it| !enabled.contains(it));
    if missing.is_empty() {
        return Ok(());
    }
    let all: Vec<String> = missing.iter().map(|it| format!("+{it}")).collect();
    if has_processes(parent) {
        // A controller of threads (cpu, cpuset, pids) it would hand on even so, and then be a root of
        // threads, below which no group takes processes any more (cgroups(7), "Thread mode").
        let needed = missing.iter().zip(all).find(|(it, _)| needs_on_v2(resources, it));
        return needed.map_or(Ok(()), |(_, value)| {
            let file = parent.file("cgroup.subtree_control");
            Err(CgroupError::Write { value, file, cause: Errno::BUSY.into() })
        });
    }
    if file::try_write(parent, "cgroup.subtree_control", &all.join(" ")).is_ok() {
        return Ok(());
    }
    // all or none is the kernel's way, so one by one
    for (controller, value) in missing.iter().zip(all) {
        let result = file::write(parent, "cgroup.subtree_control", &value);
        if needs_on_v2(resources, controller) {
            result?;
        }
    }
    Ok(())
}

/// Whether processes live in a group itself. Of the root, which may have some and hand controllers on,
/// this is never said; it has no type.
fn has_processes(group: &Directory) -> bool {
    let read = |name| file::try_read(group, name).unwrap_or_default();
    read("cgroup.type").trim() == "domain" && !read("cgroup.procs").is_empty()
}

/// Makes what is missing on the way to a group. Groups in a v1 cpuset that is made here begin with its
/// processors and memory nodes: where each is given them by writing, the kernel goes through all of its
/// siblings and builds the scheduler's domains anew (`cpuset_write_resmask`), 1 ms among a thousand.
pub(super) fn make_parents(hierarchy: &Hierarchy, relative: &str) -> Result<(), CgroupError> {
    for (index, _) in relative.match_indices('/') {
        let parent = &relative[..index];
        match mkdir(&hierarchy.root, parent) {
            Ok(()) if hierarchy.version == Version::V1 && hierarchy.has("cpuset") => {
                file::write(&open(&hierarchy.root, parent)?, "cgroup.clone_children", "1")?;
            }
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => {
                let directory = hierarchy.root.file(parent);
                return Err(CgroupError::Create { directory, cause: errno.into() });
            }
        }
    }
    Ok(())
}

/// Gives a v1 cpuset group its parent's processors and memory nodes, but for those that resources
/// name: it starts with none, and nothing can run in it, unless the parent's `cgroup.clone_children`
/// has given it the same already. Returns false if the parent has none.
pub(super) fn inherit_cpuset(
    directory: &Directory,
    resources: &Resources,
) -> Result<bool, CgroupError> {
    let cpu = resources.cpu.as_ref();
    for (name, given) in [
        ("cpuset.cpus", cpu.is_some_and(|it| !it.cpus.is_empty())),
        ("cpuset.mems", cpu.is_some_and(|it| !it.mems.is_empty())),
    ] {
        if !file::read(directory, name)?.trim().is_empty() {
            continue;
        }
        let parent = file::read(directory, &format!("../{name}"))?;
        if parent.trim().is_empty() {
            return Ok(false);
        }
        if !given {
            file::write(directory, name, parent.trim())?;
        }
    }
    Ok(true)
}

pub(super) fn inherit_on_the_way(root: &Directory, relative: &str) -> Result<(), CgroupError> {
    for (index, _) in relative.match_indices('/') {
        inherit_cpuset(&open(root, &relative[..index])?, &Resources::default())?;
    }
    Ok(())
}
