//! Making a group in every hierarchy, with as few calls as will do: the first container of a parent
//! pays for its way down, the others make one directory and open it.

use bulkhead_types::oci::{DeviceAccessRule, Resources};
use rustix::fs::{AtFlags, Gid, Uid, chownat, unlinkat};
use rustix::io::Errno;

use super::file::{self, Directory, mkdir, open};
use super::hierarchy::{Hierarchies, Hierarchy, Mode, Version};
use super::inherit::{enable_controllers, inherit_cpuset, inherit_on_the_way, make_parents};
use super::path::below;
use super::resources::{Swap, needs_on_v2, wanted};
use super::{Cgroup, CgroupError, Group, Limits, components, oci_path, words};

/// How an OCI container's group is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CreateOptions {
    /// Whom the group's directory and the files of `/sys/kernel/cgroup/delegate` are given to, as
    /// user and group of the host; on v2 alone, for v1 delegates nothing safely (config-linux.md,
    /// "Cgroup ownership").
    pub delegate_to: Option<(u32, u32)>,
    /// Whether a group that is there and empty is taken as it is, rather than made anew. As it is
    /// to runc: somebody may have prepared it.
    pub reuse_existing: bool,
    /// Whether hierarchies without permission are left out: where the runtime is not root and
    /// config.json has no `cgroupsPath` (runc's condition).
    pub rootless: bool,
    /// Device rules are left to [`Cgroup::limit_devices`]: loading their program takes the kernel
    /// longer than all the rest, and can be done while the container's process makes its mounts.
    pub devices_later: bool,
}

impl Cgroup {
    /// Makes `path` in every hierarchy and sets its limits; on failure what was made is removed.
    ///
    /// `path` is absolute below the hierarchies' roots, such as `/bulkhead/ID`. Missing parents are
    /// made and stay. An empty group of the same name, left by a crash, is replaced. On v2 the
    /// controllers are enabled for the whole way down.
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
        components(path)?;
        let resources = limits.to_oci();
        let creation = Creation {
            resources: &resources,
            existing: Existing::Replace,
            swap: Swap::IfAccounted,
            rootless: false,
            devices_later: false,
        };
        creation.run(hierarchies, path, None)
    }

    /// Makes the group of an OCI container and sets its resources; `path` is of [`oci_path`].
    ///
    /// What runc always allows of devices is added to the rules. On failure what was made is
    /// removed, but for parents.
    ///
    /// # Errors
    /// [`CgroupError::NotEmpty`] and [`CgroupError::Frozen`] if the group is there and in use, else
    /// as [`Self::update_oci`].
    pub fn create_oci(
        hierarchies: &Hierarchies,
        path: &str,
        resources: &Resources,
        options: &CreateOptions,
    ) -> Result<Self, CgroupError> {
        let take = if options.reuse_existing { Take::Unused } else { Take::None };
        Self::create_taking(hierarchies, path, resources, options, take)
    }

    pub(super) fn create_taking(
        hierarchies: &Hierarchies,
        path: &str,
        resources: &Resources,
        options: &CreateOptions,
        take: Take,
    ) -> Result<Self, CgroupError> {
        let creation = Creation {
            resources,
            existing: Existing::Take(take),
            swap: Swap::Required,
            rootless: options.rootless,
            devices_later: options.devices_later,
        };
        creation.run(hierarchies, &oci_path(path, "")?, options.delegate_to)
    }

    /// Sets the device rules of a group that was made without ([`CreateOptions::devices_later`]),
    /// before its first process runs a program.
    pub fn limit_devices(
        &self,
        rules: &[DeviceAccessRule],
        options: &CreateOptions,
    ) -> Result<(), CgroupError> {
        restrict_devices(self, rules, options.rootless)
    }

    /// Gives a v2 group away, so that who gets it can make groups in it, and no more.
    fn delegate(&self, (user, group): (u32, u32)) -> Result<(), CgroupError> {
        let Some(v2) = self.v2().filter(|_| self.mode == Mode::V2) else { return Ok(()) };
        // config-linux.md has the list for kernels that do not tell
        let list = std::fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap_or_else(|_| {
            "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".to_owned()
        });
        let owner = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
        for name in std::iter::once(".").chain(list.split_whitespace()) {
            if name.contains('/') {
                continue;
            }
            match chownat(&v2.directory.fd, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => {
                    let file = v2.directory.file(name);
                    return Err(CgroupError::Delegate { file, cause: errno.into() });
                }
            }
        }
        Ok(())
    }
}

fn restrict_devices(
    cgroup: &Cgroup,
    rules: &[DeviceAccessRule],
    rootless: bool,
) -> Result<(), CgroupError> {
    match cgroup.restrict_devices(rules) {
        // nothing to restrict by, and no device that could be made or opened without it
        Err(_) if rootless || !privileged() => Ok(()),
        other => other,
    }
}

/// What is to be made.
struct Creation<'a> {
    resources: &'a Resources,
    existing: Existing,
    swap: Swap,
    rootless: bool,
    devices_later: bool,
}

/// What becomes of a group that is there already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Existing {
    /// Replaced if it can be removed, else refused.
    Replace,
    Take(Take),
}

/// Which groups that are there already are taken as they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    /// Replaced; refused if it has processes or is frozen.
    None,
    /// Refused if it has processes or is frozen.
    Unused,
    /// As systemd leaves it.
    WithProcesses,
}

impl Creation<'_> {
    fn run(
        &self,
        hierarchies: &Hierarchies,
        path: &str,
        owner: Option<(u32, u32)>,
    ) -> Result<Cgroup, CgroupError> {
        if !self.resources.unified.is_empty() && hierarchies.mode() != Mode::V2 {
            return Err(CgroupError::UnifiedOnV1);
        }
        let mut cgroup = Cgroup {
            path: path.to_owned(),
            mode: hierarchies.mode(),
            groups: Vec::with_capacity(hierarchies.all.len()),
            complete: true,
            refused: Vec::new(),
        };
        let mut checked =
            matches!(self.existing, Existing::Replace | Existing::Take(Take::WithProcesses));
        let made = hierarchies
            .all
            .iter()
            .try_for_each(|hierarchy| {
                match self.make(hierarchies, hierarchy, path, &mut checked) {
                    Ok(group) => cgroup.groups.push(group),
                    Err(error) if self.rootless && error.is_permission() => {
                        // without a limit to set, none is missed; on v2 as runc says it
                        if hierarchies.mode() == Mode::V2
                            && wanted(self.resources, Mode::V2).next().is_some()
                        {
                            return Err(CgroupError::RootlessLimits(Box::new(error)));
                        }
                        cgroup.refused.extend(hierarchy.controllers.iter().cloned());
                        cgroup.refused.push(String::new());
                    }
                    Err(error) => return Err(error),
                }
                Ok(())
            })
            .and_then(|()| cgroup.set(self.resources, self.swap))
            .and_then(|()| {
                if self.devices_later {
                    return Ok(());
                }
                restrict_devices(&cgroup, &self.resources.devices, self.rootless)
            })
            .and_then(|()| owner.map_or(Ok(()), |owner| cgroup.delegate(owner)));
        if let Err(error) = made {
            // the first error is the one to tell; what others had made is not ours to remove
            cgroup.groups.retain(|group| group.fresh);
            let _ = cgroup.delete();
            return Err(error);
        }
        cgroup.groups.iter_mut().for_each(|group| group.fresh = false);
        Ok(cgroup)
    }

    /// Makes the group and its parents in one hierarchy.
    fn make(
        &self,
        hierarchies: &Hierarchies,
        hierarchy: &Hierarchy,
        path: &str,
        checked: &mut bool,
    ) -> Result<Group, CgroupError> {
        let root = &hierarchy.root;
        let relative: &str = &below(hierarchies, hierarchy, path)?;
        let mut created = mkdir(root, relative);
        if created == Err(Errno::NOENT) {
            make_parents(hierarchy, relative)?;
            created = mkdir(root, relative);
        }
        let fresh = match created {
            Ok(()) => true,
            Err(Errno::EXIST) => {
                if !*checked {
                    refuse_used(hierarchies, path)?;
                    *checked = true;
                }
                self.replace(root, relative)?
            }
            Err(errno) => {
                let directory = root.file(relative);
                return Err(CgroupError::Create { directory, cause: errno.into() });
            }
        };
        let finished = open(root, relative).and_then(|directory| {
            let controllers = self.finish(hierarchies.mode(), hierarchy, relative, &directory)?;
            Ok(Group { directory, version: hierarchy.version, controllers, fresh })
        });
        match finished {
            Ok(group) => Ok(group),
            Err(error) => {
                if fresh {
                    // the caller knows of finished groups only
                    let _ = unlinkat(&root.fd, relative, AtFlags::REMOVEDIR);
                }
                Err(error)
            }
        }
    }

    /// Deals with a group that is there; returns whether it was made anew.
    fn replace(&self, root: &Directory, relative: &str) -> Result<bool, CgroupError> {
        if let Existing::Take(Take::Unused | Take::WithProcesses) = self.existing {
            return Ok(false);
        }
        let removed = match unlinkat(&root.fd, relative, AtFlags::REMOVEDIR) {
            // it has groups below it
            Err(Errno::BUSY) if self.existing != Existing::Replace => return Ok(false),
            Err(Errno::BUSY) => return Err(CgroupError::Occupied(root.file(relative))),
            Ok(()) | Err(Errno::NOENT) => mkdir(root, relative),
            Err(errno) => Err(errno),
        };
        removed.map(|()| true).map_err(|errno| CgroupError::Create {
            directory: root.file(relative),
            cause: errno.into(),
        })
    }

    /// Makes a group usable, with processors and memory nodes on v1, with controllers on v2, and
    /// says which controllers it has.
    fn finish(
        &self,
        mode: Mode,
        hierarchy: &Hierarchy,
        relative: &str,
        directory: &Directory,
    ) -> Result<Vec<String>, CgroupError> {
        if hierarchy.version == Version::V1 {
            let inherit = || inherit_cpuset(directory, self.resources);
            if hierarchy.has("cpuset") && !inherit()? {
                inherit_on_the_way(&hierarchy.root, relative)?;
                inherit()?;
            }
            return Ok(hierarchy.controllers.clone());
        }
        // beside v1, where nobody expects controllers, those that are asked for
        let wants = |it: &String| mode == Mode::V2 || needs_on_v2(self.resources, it);
        if !hierarchy.controllers.iter().any(wants) {
            return Ok(Vec::new());
        }
        if mode == Mode::V2 {
            self.check_type(directory)?;
        }
        let read = || Ok(words(&file::read(directory, "cgroup.controllers")?));
        let controllers: Vec<String> = read()?;
        if hierarchy.controllers.iter().any(|it| wants(it) && !controllers.contains(it)) {
            self.enable_on_the_way(&hierarchy.root, relative)?;
            return read();
        }
        Ok(controllers)
    }

    /// A group below one with processes is "domain invalid": it can be made to hold threads, with
    /// the controllers that admit it, or nothing (cgroups(7), "Thread mode").
    fn check_type(&self, directory: &Directory) -> Result<(), CgroupError> {
        let kind = file::read(directory, "cgroup.type")?;
        let kind = kind.trim();
        if kind == "domain" {
            return Ok(());
        }
        let needs_domain = |it: &str| matches!(it, "memory" | "blkio" | "cpu" | "hugetlb");
        if wanted(self.resources, Mode::V2).any(needs_domain) {
            let directory = directory.path.clone();
            return Err(CgroupError::NotDomain { directory, kind: kind.to_owned() });
        }
        if kind == "domain invalid" {
            // joining it says what is wrong if this does not do
            let _ = file::try_write(directory, "cgroup.type", "threaded");
        }
        Ok(())
    }

    fn enable_on_the_way(&self, root: &Directory, relative: &str) -> Result<(), CgroupError> {
        enable_controllers(root, self.resources)?;
        for (index, _) in relative.match_indices('/') {
            enable_controllers(&open(root, &relative[..index])?, self.resources)?;
        }
        Ok(())
    }
}

/// Refuses what runc refuses: a group with processes of its own, and one that would freeze the
/// container before it runs.
fn refuse_used(hierarchies: &Hierarchies, path: &str) -> Result<(), CgroupError> {
    let cgroup = Cgroup::open(hierarchies, path)?;
    match cgroup.pids()?.len() {
        0 if cgroup.is_frozen_itself()? => Err(CgroupError::Frozen),
        0 => Ok(()),
        count => Err(CgroupError::NotEmpty(count)),
    }
}

/// Whether this process is root of the host.
fn privileged() -> bool {
    rustix::process::geteuid().is_root() && bulkhead_sys::namespace::is_initial_user()
}
