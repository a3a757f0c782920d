//! From `config.json` to a plan.
//!
//! A pure function: what comes from the host has been opened before and is named by its place in
//! the list of descriptors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bulkhead_sys::mount::Propagation;
use bulkhead_sys::process::{
    CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWTIME,
    CLONE_NEWUSER, CLONE_NEWUTS,
};
use bulkhead_types::oci::{self, NamespaceKind};

use super::compile::{absolute, sysctl_path};
use super::{Entrance, Host, Plan, PlanError, Step, Tree};
use crate::seccomp::Compiled;
use crate::{FdIndex, mount_options};

mod devices;
mod kernel;
mod mounts;
mod process;

pub use kernel::{memory_policy_flags, memory_policy_modes};

/// Where a container's parts on the host are found.
#[derive(Debug, Default)]
pub struct BundleSources {
    /// The root, resolved to an absolute path of the host.
    pub rootfs_path: PathBuf,
    /// A detached clone of the root's mount; without it the child clones `rootfs_path` itself.
    pub rootfs: Option<FdIndex>,
    /// Detached clones of bind mounts' sources, with their attributes, by the mount's place in
    /// `config.json`; the child clones the others itself.
    pub binds: BTreeMap<usize, FdIndex>,
    /// Targets of sources that are symbolic links and to be copied as such.
    pub links: BTreeMap<usize, String>,
    /// The namespaces that `config.json` gives by path.
    pub namespaces: Vec<(NamespaceKind, FdIndex)>,
    /// `cgroup.procs` of every v1 hierarchy that the child joins.
    pub cgroup_v1_procs: Vec<FdIndex>,
    pub cgroup: CgroupMount,
    /// Nodes for a user namespace that the host does not have as they are wanted, by their path in
    /// the container, each as a detached mount.
    pub devices: BTreeMap<String, FdIndex>,
    /// Files for what the `createContainer` hooks write. Those of `startContainer` get none: they are
    /// programs of the image, and could open the host's file once more, with other rights.
    pub hook_stdout: Option<FdIndex>,
    pub hook_stderr: Option<FdIndex>,
    /// The socket on which `start` calls; without it the parent itself lets the container go on.
    pub listener: Option<FdIndex>,
}

/// What a mount of the type `cgroup` shows.
#[derive(Debug)]
pub enum CgroupMount {
    /// The host's hierarchies, seen from the container's cgroup namespace (or the host's).
    Hierarchies(Host),
    /// v1 without a cgroup namespace: the container's own groups as detached mounts, by the name of
    /// the hierarchy's directory.
    Groups(Vec<(String, FdIndex)>),
}

impl Default for CgroupMount {
    fn default() -> Self {
        Self::Hierarchies(Host::default())
    }
}

/// What the runtime's command line says besides `config.json`.
#[derive(Debug, Clone)]
pub struct BundleOptions {
    pub id: String,
    pub bundle: PathBuf,
    /// Enter the root by moving it onto `/`.
    pub no_pivot: bool,
    /// Give the container a session keyring of its own.
    pub new_keyring: bool,
    /// Descriptors from 3 on that the program keeps.
    pub preserve_fds: u32,
    /// `linux.seccomp`, compiled.
    pub filter: Option<Compiled>,
}

impl Plan {
    /// Compiles the first process of a bundle's container.
    pub fn bundle(
        config: &oci::Config,
        sources: &BundleSources,
        options: &BundleOptions,
    ) -> Result<Self, PlanError> {
        let linux = config.linux.as_ref();
        let namespaces = Kinds::of(config)?;
        // Only a start needs one (config.md, "Process").
        let none = oci::Process { cwd: "/".to_owned(), ..oci::Process::default() };
        let process = config.process.as_ref().unwrap_or(&none);
        let state = oci::State {
            oci_version: config.oci_version.clone(),
            id: options.id.clone(),
            // runtime.md: from the moment on when the environment is made
            status: oci::Status::Created,
            pid: 0,
            bundle: options.bundle.to_string_lossy().into_owned(),
            annotations: config.annotations.clone(),
        };
        let hooks = config.hooks.clone().unwrap_or_default();
        let labelled = !process.apparmor_profile.is_empty() || !process.selinux_label.is_empty();

        let mut steps = Vec::with_capacity(64);
        steps.extend(sources.cgroup_v1_procs.iter().map(|&procs| Step::JoinCgroup { procs }));
        if namespaces.private & CLONE_NEWCGROUP != 0 {
            // Only now: the namespace's root is the cgroup that its maker is in.
            steps.push(Step::NewCgroupNamespace);
        }
        let own_users = namespaces.private & CLONE_NEWUSER != 0;
        let maps_root =
            linux.is_some_and(|it| it.uid_mappings.iter().any(|map| map.container_id == 0));
        if own_users && maps_root || namespaces.is_joined(CLONE_NEWUSER) {
            steps.push(Step::BecomeRoot { keep_groups: keeps_groups(config) });
        }
        if namespaces.private & CLONE_NEWNET != 0 {
            // Docker's and containerd's networks expect it of the runtime
            steps.push(Step::BringUpLoopback);
        }
        let own_mounts = namespaces.has(CLONE_NEWNS);
        let propagation = root_propagation(config)?;
        if own_mounts {
            steps.push(outer_propagation(propagation));
            let at = sources.rootfs_path.clone();
            steps.push(Step::AttachRoot { root: root_tree(sources), at });
        } else {
            steps.push(Step::OpenRoot { path: sources.rootfs_path.clone() });
        }
        let sysctls = linux.map(|it| &it.sysctl).into_iter().flatten();
        let sysctls: Vec<Step> = sysctls
            .map(|(name, value)| {
                namespaces.check_sysctl(name, value, &config.domainname)?;
                let path = sysctl_path(name)?;
                Ok(Step::Sysctl { name: name.clone(), path, value: value.clone() })
            })
            .collect::<Result<_, PlanError>>()?;
        if !sysctls.is_empty() || labelled {
            steps.push(Step::OpenProc);
        }
        if own_mounts {
            mounts::steps(config, sources, propagation, &mut steps)?;
            devices::steps(config, sources, &mut steps)?;
        } else if !config.mounts.is_empty() {
            return Err(PlanError::Invalid(
                "config.json has mounts but no mount namespace of its own, so they would be made \
                 on the host: add {\"type\": \"mount\"} to linux.namespaces or leave the mounts out"
                    .to_owned(),
            ));
        }
        if process.terminal {
            let (rows, columns) =
                process.console_size.map_or((0, 0), |size| (size.height, size.width));
            steps.push(Step::OpenTerminal { rows, columns, console: own_mounts });
        }
        if !hooks.prestart.is_empty()
            || !hooks.create_runtime.is_empty()
            || !hooks.create_container.is_empty()
        {
            steps.push(Step::AwaitHooks);
        }
        if !hooks.create_container.is_empty() {
            steps.push(Step::Hooks {
                name: "createContainer".into(),
                hooks: hooks.create_container,
                state: state.clone(),
                stdout: sources.hook_stdout,
                stderr: sources.hook_stderr,
            });
        }
        let directory = absolute(&process.cwd)?;
        if directory != Path::new("/") {
            steps.push(Step::MakeDirectory { path: directory });
        }
        if own_mounts {
            let list = |paths: Option<&Vec<String>>| {
                let paths = paths.into_iter().flatten();
                paths.map(|path| absolute(path)).collect::<Result<Vec<_>, _>>()
            };
            for path in list(linux.map(|it| &it.readonly_paths))? {
                steps.push(Step::MakeReadonly { path });
            }
            for path in list(linux.map(|it| &it.masked_paths))? {
                steps.push(Step::Mask { path });
            }
            if config.root.as_ref().is_some_and(|root| root.readonly) {
                steps.push(Step::SealRoot);
            }
        }
        steps.extend(sysctls);
        steps.push(Step::EnterRoot(match (own_mounts, options.no_pivot) {
            (false, _) => Entrance::Change,
            (true, true) => Entrance::Move,
            (true, false) => Entrance::Pivot,
        }));
        if own_mounts
            && let Some((propagation, recursive)) = propagation
            && propagation != Propagation::Private
        {
            steps.push(Step::RootPropagation { propagation, recursive });
        }
        namespaces.name_host(config, &mut steps)?;
        let joined: Vec<_> =
            sources.namespaces.iter().map(|(kind, fd)| (*fd, flag(*kind))).collect();
        let time_offsets = kernel::time_offsets(config)?;
        let tail = process::Tail {
            process,
            config,
            hooks: hooks.start_container,
            state,
            listener: sources.listener,
            options,
        };
        Self {
            namespaces: namespaces.private & !CLONE_NEWCGROUP,
            // A helper tells of the child that it has cloned, which must not be heard before that:
            // hooks and the record want its pid.
            waits: own_users || !joined.is_empty() || !time_offsets.is_empty(),
            joined,
            time_offsets,
            ..Self::oci_process(&tail)?
        }
        .after(steps)
    }
}

/// `CLONE_NEW…` of a kind.
pub(crate) fn flag(kind: NamespaceKind) -> i32 {
    match kind {
        NamespaceKind::Cgroup => CLONE_NEWCGROUP,
        NamespaceKind::Ipc => CLONE_NEWIPC,
        NamespaceKind::Mount => CLONE_NEWNS,
        NamespaceKind::Network => CLONE_NEWNET,
        NamespaceKind::Pid => CLONE_NEWPID,
        NamespaceKind::Time => CLONE_NEWTIME,
        NamespaceKind::User => CLONE_NEWUSER,
        NamespaceKind::Uts => CLONE_NEWUTS,
    }
}

/// The namespaces of `config.json` as `CLONE_NEW…`.
#[derive(Debug, Clone, Copy)]
struct Kinds {
    private: i32,
    joined: i32,
}

impl Kinds {
    fn of(config: &oci::Config) -> Result<Self, PlanError> {
        let mut kinds = Self { private: 0, joined: 0 };
        let Some(linux) = &config.linux else { return Ok(kinds) };
        for namespace in &linux.namespaces {
            let flag = flag(namespace.kind);
            if (kinds.private | kinds.joined) & flag != 0 {
                let name = namespace.kind.name();
                let text = format!("malformed spec file: duplicated ns {name:?}");
                return Err(PlanError::Invalid(text));
            }
            let set =
                if namespace.path.is_empty() { &mut kinds.private } else { &mut kinds.joined };
            *set |= flag;
        }
        let maps = !linux.uid_mappings.is_empty() || !linux.gid_mappings.is_empty();
        if kinds.private & CLONE_NEWUSER != 0 {
            if linux.uid_mappings.is_empty() || linux.gid_mappings.is_empty() {
                return Err(PlanError::Invalid(
                    "a user namespace needs ids: config.json has no linux.uidMappings or no \
                     linux.gidMappings"
                        .to_owned(),
                ));
            }
        } else if maps && kinds.joined & CLONE_NEWUSER == 0 {
            return Err(PlanError::Invalid(
                "user namespace mappings specified, but user namespace isn't enabled in the \
                 config"
                    .to_owned(),
            ));
        }
        if !linux.time_offsets.is_empty() && kinds.private & CLONE_NEWTIME == 0 {
            return Err(PlanError::Invalid(
                "linux.timeOffsets needs a time namespace of the container's own: add {\"type\": \
                 \"time\"} to linux.namespaces"
                    .to_owned(),
            ));
        }
        Ok(kinds)
    }

    fn is_joined(self, flag: i32) -> bool {
        self.joined & flag != 0
    }

    fn has(self, flag: i32) -> bool {
        (self.private | self.joined) & flag != 0
    }

    /// A sysctl is written only where it cannot reach the host's (runc: libcontainer/configs/
    /// validate, `sysctl`).
    fn check_sysctl(self, name: &str, value: &str, domainname: &str) -> Result<(), PlanError> {
        let plain = name.replace('/', ".");
        let refused = |text: String| Err(PlanError::Invalid(text));
        let ipc = [
            "kernel.msgmax",
            "kernel.msgmnb",
            "kernel.msgmni",
            "kernel.sem",
            "kernel.shmall",
            "kernel.shmmax",
            "kernel.shmmni",
            "kernel.shm_rmid_forced",
        ];
        let allowed = if plain == "kernel.domainname" {
            if !domainname.is_empty() && domainname != value {
                let text =
                    format!("sysctl {name:?} conflicts with the field domainname of config.json");
                return refused(text);
            }
            self.has(CLONE_NEWUTS)
        } else if plain == "kernel.hostname" {
            return refused(format!(
                "sysctl {name:?} conflicts with the field hostname of config.json"
            ));
        } else if plain.starts_with("net.") {
            self.has(CLONE_NEWNET)
        } else if ipc.contains(&plain.as_str()) || plain.starts_with("fs.mqueue.") {
            self.has(CLONE_NEWIPC)
        } else if plain.starts_with("user.") {
            self.has(CLONE_NEWUSER)
        } else {
            false
        };
        if allowed {
            Ok(())
        } else {
            refused(format!("sysctl {name:?} is not in a separate kernel namespace"))
        }
    }

    fn name_host(self, config: &oci::Config, steps: &mut Vec<Step>) -> Result<(), PlanError> {
        let names = [("hostname", &config.hostname), ("domainname", &config.domainname)];
        for (field, name) in names {
            if name.is_empty() {
                continue;
            }
            if !self.has(CLONE_NEWUTS) {
                let text = format!("unable to set {field} without a private UTS namespace");
                return Err(PlanError::Invalid(text));
            }
            steps.push(match field {
                "hostname" => Step::Hostname(name.clone()),
                _ => Step::Domainname(name.clone()),
            });
        }
        Ok(())
    }
}

/// Whether processes keep the supplementary groups of whoever calls the runtime, and get none of
/// `additionalGids`: crun.1, `run.oci.keep_original_groups`. `podman run --group-add keep-groups` asks
/// for it, so that a user's container comes to files that only a group of the user's may open.
///
/// The one value that podman writes is the one that counts: more groups are more rights.
fn keeps_groups(config: &oci::Config) -> bool {
    config.annotations.get(KEEP_GROUPS).is_some_and(|value| value == "1")
}

const KEEP_GROUPS: &str = "run.oci.keep_original_groups";

fn root_tree(sources: &BundleSources) -> Tree {
    match sources.rootfs {
        Some(fd) => Tree::Detached(fd),
        None => {
            Tree::Host { path: sources.rootfs_path.clone(), recursive: true, changes: Vec::new() }
        }
    }
}

fn root_propagation(config: &oci::Config) -> Result<Option<(Propagation, bool)>, PlanError> {
    let name = config.linux.as_ref().map_or("", |it| it.rootfs_propagation.as_str());
    if name.is_empty() {
        return Ok(None);
    }
    let found = mount_options::propagation(name);
    let text = || format!("rootfsPropagation={name} is not supported");
    found.map(Some).ok_or_else(|| PlanError::Invalid(text()))
}

/// The host's mounts show up in the container's copy of them unless it is private, and never the
/// other way round.
fn outer_propagation(root: Option<(Propagation, bool)>) -> Step {
    let propagation = match root {
        Some((Propagation::Private | Propagation::Unbindable, _)) => Propagation::Private,
        _ => Propagation::Slave,
    };
    Step::Propagation { propagation, recursive: true }
}

#[cfg(test)]
mod tests;
