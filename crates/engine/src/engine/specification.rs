//! A container's record as the runtime's specification, with the descriptors that go with it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bulkhead_network::named;
use bulkhead_runtime::cgroup::{Cgroup, DeviceRule};
use bulkhead_runtime::{
    ContainerSpec, FdIndex, Mount, MountKind, Namespaces, ProcessSpec, Source, User, defaults,
};
use bulkhead_types::Id;
use bulkhead_warden::{Attachment, CreateContainer, Log};
use rustix::fs::OFlags;

use crate::clone_mount::{Below, clone_mount};
use crate::confinement::{Privilege, confinement};
use crate::containers::Record;
use crate::data_dir::log_name;
use crate::descriptors::Descriptors;
use crate::error::io_error;
use crate::mount_sources::file_mount;
use crate::namespaces::{NamespaceMode, NamespaceModes};
use crate::{
    Container, Engine, EngineError, HostConfig, IpcMode, NetworkMode, image_defaults, shared_memory,
};

/// What was made for a start and goes into the message.
pub(crate) struct Parts {
    pub rootfs: OwnedFd,
    pub descriptors: Descriptors,
    pub mounts: Vec<Mount>,
    pub devices: Vec<bulkhead_runtime::Device>,
}

/// Who attached before the start, and the size of their terminal.
pub(crate) struct Clients {
    pub waiting: Vec<(std::os::unix::net::UnixStream, crate::Streams)>,
    pub terminal_size: (u16, u16),
}

impl Engine {
    /// The file systems and devices of a container; the slow half of its specification.
    pub(crate) fn parts(
        &self,
        container: &Container,
        modes: &NamespaceModes,
        rootfs: OwnedFd,
        users: Option<&OwnedFd>,
    ) -> Result<(Parts, Vec<DeviceRule>), EngineError> {
        let mut descriptors = Descriptors::default();
        let borrowed = users.map(OwnedFd::as_fd);
        let wanted = self.user_mounts(container, borrowed, &mut descriptors)?;
        let owner = match &modes.network {
            NamespaceMode::Container(other) => self.network_owner(*other),
            _ => container.id,
        };
        let host = &container.host;
        let shm_size = if host.shm_size == 0 { defaults::SHM_SIZE } else { host.shm_size };
        let mut mounts = defaults::mounts(host.privileged, shm_size);
        if let Some(shm) = mounts.iter_mut().find(|mount| mount.target == "/dev/shm") {
            match &modes.ipc {
                // only network namespaces have names
                NamespaceMode::Private | NamespaceMode::Named(_) => {}
                NamespaceMode::Host => shm.kind = host_shm(borrowed, &mut descriptors)?,
                NamespaceMode::Container(other) => {
                    let namespace = self.namespace_of(*other, "mnt")?;
                    let failed = io_error("share /dev/shm of the container that is joined");
                    let fd = descriptors.add(shared_memory::of(&namespace).map_err(failed)?);
                    shm.kind = MountKind::Detached { fd, is_directory: true };
                }
            }
        }
        if let NamespaceMode::Named(name) = &modes.network
            && container.id_range.is_some()
            && let Some(sys) = mounts.iter_mut().find(|mount| mount.target == "/sys")
        {
            // In a user namespace of its own it may not mount that of a namespace of somebody else's.
            let netns = named::open_for_container(name)?;
            let fd = descriptors.add(named::sysfs(netns.as_fd())?);
            sys.kind = MountKind::Detached { fd, is_directory: true };
        }
        if host.ipc_mode == IpcMode::None {
            mounts.retain(|mount| mount.target != "/dev/shm");
        }
        mounts.retain(|mount| !wanted.iter().any(|other| other.target == mount.target));
        let mut own = Vec::new();
        for name in ["resolv.conf", "hostname", "hosts"] {
            if !wanted.iter().any(|mount| mount.target == format!("/etc/{name}")) {
                let owner = if name == "hostname" { container.id } else { owner };
                // as Docker: `--read-only` goes for them too
                let readonly = host.readonly_rootfs;
                own.push(file_mount(
                    &self.data_dir,
                    owner,
                    name,
                    borrowed,
                    readonly,
                    &mut descriptors,
                )?);
            }
        }
        own.extend(wanted);
        // Stable: what lies on another mount comes after it.
        own.sort_by_key(|mount| mount.target.matches('/').count());
        mounts.extend(own);
        let (devices, rules) = self.devices(container, &mut descriptors)?;
        Ok((Parts { rootfs, descriptors, mounts, devices }, rules))
    }

    /// The warden's message for a container and the descriptors that travel with it.
    pub(crate) fn message(
        &self,
        record: &Record,
        modes: &NamespaceModes,
        parts: Parts,
        cgroup: &Cgroup,
        links: Vec<String>,
        clients: Clients,
    ) -> Result<(CreateContainer, Vec<OwnedFd>), EngineError> {
        let Clients { waiting, terminal_size } = clients;
        let Parts { rootfs, mut descriptors, mounts, devices } = parts;
        let container = &self.with_defaults(&record.container);
        let (config, host) = (&container.config, &container.host);
        let security = &host.security_opt;
        let (capabilities, seccomp) = confinement(container, Privilege::Usual)?;
        let unmasked = host.privileged || security.unmasked;
        let rootfs = descriptors.add(rootfs);
        let namespaces = self.namespaces_of(container, modes, &mut descriptors)?;
        let (cgroup_v1_procs, cgroup_v2) = cgroup_descriptors(cgroup, &mut descriptors)?;
        let cgroup_v1_groups = match namespaces.cgroup {
            Source::Private => own_groups(cgroup, &mut descriptors),
            Source::Host | Source::Join(_) => Vec::new(),
        };
        let mut sysctls = Vec::new();
        if namespaces.net == Source::Private {
            sysctls =
                defaults::network_sysctls(container.id_range.map_or(u32::MAX, |map| map.size));
        }
        if namespaces.user == Source::Private {
            sysctls.extend(defaults::user_sysctls());
        }
        for (name, value) in &host.sysctls {
            sysctls.retain(|(own, _)| own != name);
            sysctls.push((name.clone(), value.clone()));
        }
        let own_uts = namespaces.uts == Source::Private;
        let spec = ContainerSpec {
            hostname: if own_uts { config.hostname.clone() } else { String::new() },
            domainname: if own_uts { config.domainname.clone() } else { String::new() },
            namespaces,
            id_range: container.id_range,
            rootfs,
            rootfs_readonly: host.readonly_rootfs,
            mounts,
            devices,
            masked_paths: match &host.masked_paths {
                Some(paths) if !host.privileged => paths.clone(),
                _ => defaults::masked_paths(unmasked),
            },
            readonly_paths: match &host.readonly_paths {
                Some(paths) if !host.privileged => paths.clone(),
                _ => defaults::readonly_paths(unmasked),
            },
            sysctls,
            cgroup_v1_procs,
            cgroup_v2,
            cgroup_v1_groups,
            process: ProcessSpec {
                arguments: container.arguments.clone(),
                environment: image_defaults::environment(config, links),
                working_directory: match config.working_dir.as_str() {
                    "" => "/".to_owned(),
                    directory => directory.to_owned(),
                },
                user: User { name: config.user.clone(), additional_groups: host.group_add.clone() },
                terminal: config.tty,
                terminal_size,
                capabilities,
                no_new_privileges: security.no_new_privileges,
                seccomp,
                rlimits: rlimits(host),
                oom_score_adj: (host.oom_score_adj != 0)
                    .then(|| i16::try_from(host.oom_score_adj).unwrap_or(0)),
                init: host.init.unwrap_or(false),
                landlock: security.landlock.clone(),
            },
        };
        let log = match host.log_options.recorded(host.log_driver) {
            None => Log::None,
            Some(local) => Log::JsonFile {
                directory: descriptors.add(self.data_dir.container(container.id)?),
                name: log_name(container.id),
                max_size: local.max_size,
                max_files: local.max_files,
            },
        };
        let attachments = waiting
            .into_iter()
            .map(|(socket, streams)| Attachment {
                socket: descriptors.add(socket.into()),
                stdin: streams.stdin,
                stdout: streams.stdout,
                stderr: streams.stderr,
            })
            .collect();
        let message = CreateContainer {
            id: container.id,
            spec,
            log,
            stdin_open: config.open_stdin,
            stdin_once: config.stdin_once,
            attachments,
            // its links are plugged while it makes its mounts
            answer_early: true,
        };
        Ok((message, descriptors.into_inner()))
    }

    /// The container as it starts: with what the daemon's configuration says where nobody else does.
    pub(crate) fn with_defaults(&self, container: &Container) -> Container {
        let mut container = container.clone();
        self.settings().containers.fill(&mut container.host);
        container
    }

    /// The container whose network it is that `id` is in: the one that it joined may itself have
    /// joined another, and only the owner has the files about it.
    fn network_owner(&self, id: Id) -> Id {
        let state = self.containers.lock();
        let mut owner = id;
        // A container joins one that was there before it, so this ends.
        while let Ok(entry) = state.entry(owner)
            && let NetworkMode::Container(joined) = &entry.record.container.host.network_mode
            && let Ok(next) = state.find(joined)
            && next != owner
        {
            owner = next;
        }
        owner
    }

    fn namespaces_of(
        &self,
        container: &Container,
        modes: &NamespaceModes,
        descriptors: &mut Descriptors,
    ) -> Result<Namespaces, EngineError> {
        let mut joined: Option<Id> = None;
        let mut source = |mode: &NamespaceMode, kind: &str| -> Result<Source, EngineError> {
            Ok(match mode {
                NamespaceMode::Private => Source::Private,
                NamespaceMode::Host => Source::Host,
                NamespaceMode::Named(name) => {
                    Source::Join(descriptors.add(named::open_for_container(name)?))
                }
                NamespaceMode::Container(other) => {
                    joined = Some(*other);
                    Source::Join(descriptors.add(self.namespace_of(*other, kind)?))
                }
            })
        };
        let mut namespaces = Namespaces {
            pid: source(&modes.pid, "pid")?,
            net: source(&modes.network, "net")?,
            ipc: source(&modes.ipc, "ipc")?,
            mnt: Source::Private,
            uts: source(&modes.uts, "uts")?,
            user: Source::Host,
            cgroup: source(&modes.cgroup, "cgroup")?,
            time: Source::Private,
        };
        namespaces.user = match (container.id_range, joined) {
            (None, _) => Source::Host,
            (Some(_), None) => Source::Private,
            (Some(_), Some(other)) => {
                Source::Join(descriptors.add(self.namespace_of(other, "user")?))
            }
        };
        Ok(namespaces)
    }

    pub(crate) fn namespace_of(&self, id: Id, kind: &str) -> Result<OwnedFd, EngineError> {
        let all = self.warden.namespaces(id)?;
        let found = all.into_iter().find(|(name, _)| name == kind);
        found
            .map(|(_, fd)| fd)
            .ok_or_else(|| EngineError::invalid(format!("there is no namespace of kind {kind}")))
    }
}

/// The cgroup's files by number.
pub(crate) fn cgroup_descriptors(
    cgroup: &Cgroup,
    descriptors: &mut Descriptors,
) -> Result<(Vec<FdIndex>, Option<FdIndex>), EngineError> {
    let join = cgroup.join()?;
    let v1 = join.procs.into_iter().map(|fd| descriptors.add(fd)).collect();
    Ok((v1, join.v2_dir.map(|fd| descriptors.add(fd))))
}

/// The groups of v1, as what a container sees of them. One that cannot be cloned, as in a mount namespace
/// that somebody else has locked, is mounted anew.
fn own_groups(cgroup: &Cgroup, descriptors: &mut Descriptors) -> Vec<(String, FdIndex)> {
    let clone = |(name, directory)| match clone_mount(directory, None, Below::Without) {
        Ok(group) => Some((name, descriptors.add(group))),
        Err(error) => {
            tracing::debug!(name, %error, "clone the mount of a cgroup");
            None
        }
    };
    cgroup.v1_directories().filter_map(clone).collect()
}

fn host_shm(
    users: Option<BorrowedFd<'_>>,
    descriptors: &mut Descriptors,
) -> Result<MountKind, EngineError> {
    let shm = bulkhead_sys::path::open_host("/dev/shm".as_ref(), OFlags::PATH)
        .map_err(io_error("/dev/shm"))?;
    let clone = clone_mount(shm.as_fd(), users, Below::Without)
        .map_err(|errno| io_error("/dev/shm")(errno.into()))?;
    Ok(MountKind::Detached { fd: descriptors.add(clone), is_directory: true })
}

pub(crate) fn rlimits(host: &HostConfig) -> Vec<(String, u64, u64)> {
    let mut limits = defaults::rlimits();
    let value = |limit: i64| u64::try_from(limit).unwrap_or(u64::MAX);
    for limit in &host.ulimits {
        limits.retain(|(own, _, _)| own != limit.name());
        limits.push((limit.name().to_owned(), value(limit.soft()), value(limit.hard())));
    }
    limits
}
