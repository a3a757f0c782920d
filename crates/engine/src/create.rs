//! `docker create`: everything is resolved and checked, then recorded in one transaction.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_runtime::capabilities;
use bulkhead_sys::path;
use bulkhead_types::{Id, IdMap, Name, Timestamp};
use rustix::fs::{Mode, OFlags};

use crate::blocking::{Blocking, blocking};
use crate::containers::{Entry, Known, Record};
use crate::error::io_error;
use crate::mount_sources::is_directory;
use crate::transaction::Transaction;
use crate::{
    CgroupnsMode, Class, Container, CreateContainer, Engine, EngineError, IpcMode, LogDriver,
    MissingSource, MountOptions, MountPoint, MountRequest, MountType, NetworkMode, NetworkStack,
    Networking, PidMode, RestartPolicy, Status, UsernsMode, UtsMode, hosts, image_defaults, limits,
    mount_requests, names, signals, sysctls,
};

/// Where one of a container's namespaces comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Share {
    Private,
    Host,
    Container(Id),
}

impl Engine {
    pub async fn create(
        self: &Arc<Self>,
        create: CreateContainer,
    ) -> Result<Container, EngineError> {
        let engine = Arc::clone(self);
        blocking(move |may_block| engine.create_now(may_block, create, false)).await
    }

    /// Whose ids a container has, on a host that may be unable to give it its own.
    pub(crate) fn users(
        &self,
        shares: &Shares,
        state: &Known,
        host: &crate::HostConfig,
    ) -> Result<Users, EngineError> {
        match shares.users(state, host)? {
            Users::Own if self.supports_idmapped_layers => Ok(Users::Own),
            Users::Own if host.userns_mode == UsernsMode::Default => Ok(Users::Host),
            Users::Own => {
                Err(EngineError::new(Class::Unsupported, crate::engine::NO_IDMAPPED_LAYERS))
            }
            users => Ok(users),
        }
    }

    pub(crate) fn create_now(
        self: &Arc<Self>,
        may_block: &Blocking,
        create: CreateContainer,
        throw_away: bool,
    ) -> Result<Container, EngineError> {
        let CreateContainer { name, image: image_name, mut config, mut host } = create;
        let image = self.images.find(&image_name)?;
        let image_config = self.content.config(image.stored.id)?;
        // Of what the request says, not of what the image brings.
        check_shared_network(&config, &host)?;
        let own_directory = config.working_dir.clone();
        image_defaults::merge(&mut config, &image_config.config);
        let arguments = image_defaults::arguments(&config)?;
        check(&config, &mut host)?;
        let inherited = self.mounts_from_others(&host)?;
        let wanted = mount_requests::wanted(&config, &host, inherited)?;
        let sources = wanted.iter().filter(|mount| mount.kind() == MountType::Bind);
        let sources = sources.map(|mount| mount.source.as_str());
        let ids = self.wanted_ids(&config.user, &host.group_add, sources, &image.layers)?;
        let id = Id::random();

        // One creation at a time from here: names and ranges are chosen and recorded together.
        let allocation =
            self.allocation_lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let container = {
            let state = self.containers.lock();
            if self.images.get(image.stored.id).is_none() {
                return Err(EngineError::not_found(format!("No such image: {image_name}")));
            }
            let name = choose_name(&state, name)?;
            let shares = Shares::resolve(&state, &host)?;
            shares.record(&mut host);
            for link in &host.links {
                state.find(&link.container).map_err(|_| {
                    let name = &link.container;
                    EngineError::invalid(format!("could not get container for {name}"))
                })?;
            }
            if config.hostname.is_empty() {
                config.hostname = match (&shares.network, &shares.uts) {
                    (Share::Host, _) | (_, Share::Host) => self.hostname.clone(),
                    (Share::Container(other), _) => {
                        state.entry(*other)?.record.container.config.hostname.clone()
                    }
                    _ => id.short(),
                };
            }
            let users = self.users(&shares, &state, &host)?;
            let id_range = self.lease_ids(&state, users, &ids)?;
            Container {
                id,
                name,
                created: Timestamp::now(),
                image: image_name,
                image_id: image.stored.id,
                arguments,
                id_range,
                state: crate::State::default(),
                restart_count: 0,
                network: Networking::detached(match shares.network {
                    Share::Private
                        if host.network_mode == NetworkMode::None || config.network_disabled =>
                    {
                        NetworkStack::None
                    }
                    Share::Private => NetworkStack::Bridge,
                    Share::Host => NetworkStack::Host,
                    Share::Container(other) => NetworkStack::Container(other),
                }),
                mounts: Vec::new(),
                log_path: match host.log_driver {
                    LogDriver::None => String::new(),
                    LogDriver::JsonFile => self.data_dir.log_path(id).display().to_string(),
                },
                config,
                host,
            }
        };
        let (points, volumes) = self.resolve_volumes(wanted)?;
        let container = Container { mounts: points, ..container };
        let record = Record { container, layers: image.layers, stopped_by_user: false, throw_away };
        let container = record.container.clone();
        let mut transaction = Transaction::default();
        for volume in &volumes {
            self.put_volume(&mut transaction, volume);
        }
        let entry = Entry::new(record.clone());
        // Nobody starts it before it is furnished.
        let operation = Arc::clone(&entry.operation).try_lock_owned();
        self.containers.insert(&mut transaction, entry);
        transaction.commit(&self.records, may_block)?;
        drop(allocation);
        for volume in &volumes {
            self.publish("volume", "create", &volume.name, [("driver".into(), "local".into())]);
        }
        self.publish_container(&container, "create", &[]);
        if let Err(error) = self.furnish(&record, &own_directory) {
            // As if it had never been: nobody has heard its id.
            if let Err(fault) = self.drop_container(may_block, id, true, self.cleaning()) {
                tracing::warn!(container = %container.name, error = %fault, "undo a creation");
            }
            return Err(error);
        }
        drop(operation);
        Ok(container)
    }

    /// Makes in the new container what Docker makes when it is created and not when it starts: the
    /// directory that `-w` names, and in its empty volumes what the image has there (moby:
    /// daemon/create_unix.go).
    fn furnish(&self, record: &Record, working_directory: &str) -> Result<(), EngineError> {
        let container = &record.container;
        let volumes: Vec<&MountPoint> =
            container.mounts.iter().filter(|mount| self.is_to_be_filled(mount)).collect();
        if volumes.is_empty() && working_directory.is_empty() {
            return Ok(());
        }
        let users = match container.id_range {
            Some(range) => Some(self.warden.user_namespace(range)?),
            None => None,
        };
        let directory = self.data_dir.make_container(container.id, container.id_range)?;
        let root = self.rootfs(record, &directory, users.as_ref())?;
        if !working_directory.is_empty() {
            make_working_directory(root.as_fd(), working_directory, container.id_range)?;
        }
        for mount in volumes {
            self.fill(mount, root.as_fd(), container.id_range)?;
        }
        Ok(())
    }

    /// What `--volumes-from` adds, in the order in which it was said.
    fn mounts_from_others(
        &self,
        host: &crate::HostConfig,
    ) -> Result<Vec<MountRequest>, EngineError> {
        let state = self.containers.lock();
        let mut mounts = Vec::new();
        for from in &host.volumes_from {
            let other = find(&state, &from.container)?;
            let points = &state.entry(other)?.record.container.mounts;
            mounts.extend(points.iter().map(|point| MountRequest::inherited(point, from.readonly)));
        }
        Ok(mounts)
    }

    /// Names the volumes of a container: those that exist, and new records for those that do not.
    fn resolve_volumes(
        &self,
        wanted: Vec<MountRequest>,
    ) -> Result<(Vec<MountPoint>, Vec<crate::Volume>), EngineError> {
        let mut new = Vec::new();
        let mut points = Vec::new();
        for mount in wanted {
            let MountRequest { source, target, readonly, options } = mount;
            let mut point =
                MountPoint { name: None, source, target, readonly, options: options.clone() };
            match options {
                MountOptions::Volume(volume) => {
                    let anonymous = point.source.is_empty();
                    let name = match anonymous {
                        true => Id::random().to_string(),
                        false => point.source.clone(),
                    };
                    let known = self.volumes.get(&name).is_some()
                        || new.iter().any(|volume: &crate::Volume| volume.name == name);
                    if !known {
                        let made = self.new_volume(&name, anonymous);
                        let labels = made.labels.into_iter().chain(volume.labels).collect();
                        let options = volume.driver_options;
                        new.push(crate::Volume { labels, options, ..made });
                    }
                    point.source = self.data_dir.volume_path(&name).display().to_string();
                    point.name = Some(name);
                }
                MountOptions::Bind(bind)
                    if bind.missing == MissingSource::Refuse
                        && std::fs::symlink_metadata(&point.source).is_err() =>
                {
                    return Err(no_bind_source(&point.source));
                }
                MountOptions::Bind(_) | MountOptions::Tmpfs(_) => {}
            }
            points.push(point);
        }
        Ok((points, new))
    }
}

fn own_by_root(new: &OwnedFd, range: IdMap) -> std::io::Result<()> {
    let (user, group) =
        (rustix::fs::Uid::from_raw(range.first), rustix::fs::Gid::from_raw(range.first));
    let empty = rustix::fs::AtFlags::EMPTY_PATH;
    Ok(rustix::fs::chownat(new, "", Some(user), Some(group), empty)?)
}

/// Makes a directory that is missing; a file in its place is told.
fn make_working_directory(
    root: BorrowedFd<'_>,
    directory: &str,
    range: Option<IdMap>,
) -> Result<(), EngineError> {
    let path = Path::new(directory);
    match path::open(root, path, OFlags::PATH, Mode::empty()) {
        Ok(found) if !is_directory(&found).map_err(io_error(directory))? => {
            return Err(EngineError::invalid(format!(
                "Cannot mkdir: {directory} is not a directory"
            )));
        }
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error(format!("open {directory}"))(error)),
    }
    // Each that is made belongs to root inside.
    let mut made = PathBuf::from("/");
    for part in path.components().skip(1) {
        made.push(part);
        if path::open(root, &made, OFlags::PATH, Mode::empty()).is_ok() {
            continue;
        }
        let new = path::create_dir_all(root, &made, Mode::from_raw_mode(0o755))
            .map_err(io_error(format!("make {}", made.display())))?;
        if let Some(range) = range {
            own_by_root(&new, range).map_err(io_error(format!("make {}", made.display())))?;
        }
    }
    Ok(())
}

pub(crate) fn no_bind_source(path: &str) -> EngineError {
    EngineError::invalid(format!(
        "invalid mount config for type \"bind\": bind source path does not exist: {path}"
    ))
}

/// Looks up a container that a request names beside its own. Not "not found": clients take that for
/// a missing image, and start to pull it (moby answers so too: daemon/volumes.go).
fn find(state: &Known, name: &str) -> Result<Id, EngineError> {
    state.find(name).map_err(|error| match error.class {
        Class::NotFound => EngineError::invalid(error.message),
        _ => error,
    })
}

/// The namespaces that a container does not have for itself.
#[derive(Debug)]
pub(crate) struct Shares {
    pub network: Share,
    pub pid: Share,
    pub ipc: Share,
    pub uts: Share,
    pub cgroup: Share,
}

/// Which user namespace a container gets.
pub(crate) enum Users {
    Own,
    Host,
    /// That of the containers whose namespaces it joins: only there does their owner's power count.
    Of(IdMap),
}

impl Shares {
    pub(crate) fn resolve(state: &Known, host: &crate::HostConfig) -> Result<Self, EngineError> {
        let of = |name: &str| find(state, name).map(Share::Container);
        let network = match &host.network_mode {
            NetworkMode::Bridge | NetworkMode::None => Share::Private,
            NetworkMode::Host => Share::Host,
            NetworkMode::Container(name) => of(name)?,
            // Not "not found": the CLI takes that for a missing image, and starts to pull it.
            NetworkMode::Named(name) => {
                return Err(EngineError::invalid(format!("network {name} not found")));
            }
        };
        let pid = match &host.pid_mode {
            PidMode::Private => Share::Private,
            PidMode::Host => Share::Host,
            PidMode::Container(name) => of(name)?,
        };
        let ipc = match &host.ipc_mode {
            IpcMode::None | IpcMode::Private | IpcMode::Shareable => Share::Private,
            IpcMode::Host => Share::Host,
            IpcMode::Container(name) => of(name)?,
        };
        let uts = match &host.uts_mode {
            UtsMode::Private => Share::Private,
            UtsMode::Host => Share::Host,
            UtsMode::Container(name) => of(name)?,
        };
        let cgroup = match &host.cgroupns_mode {
            CgroupnsMode::Private => Share::Private,
            CgroupnsMode::Host => Share::Host,
            CgroupnsMode::Container(name) => of(name)?,
        };
        Ok(Self { network, pid, ipc, uts, cgroup })
    }

    /// Writes the ids of the containers that are joined where the request had names: a name may
    /// mean another container tomorrow.
    fn record(&self, host: &mut crate::HostConfig) {
        let id = |share: &Share| match share {
            Share::Container(id) => Some(id.to_string()),
            Share::Private | Share::Host => None,
        };
        if let Some(id) = id(&self.network) {
            host.network_mode = NetworkMode::Container(id);
        }
        if let Some(id) = id(&self.pid) {
            host.pid_mode = PidMode::Container(id);
        }
        if let Some(id) = id(&self.ipc) {
            host.ipc_mode = IpcMode::Container(id);
        }
        if let Some(id) = id(&self.uts) {
            host.uts_mode = UtsMode::Container(id);
        }
        if let Some(id) = id(&self.cgroup) {
            host.cgroupns_mode = CgroupnsMode::Container(id);
        }
    }

    pub(crate) fn users(
        &self,
        state: &Known,
        host: &crate::HostConfig,
    ) -> Result<Users, EngineError> {
        let shared = [&self.network, &self.pid, &self.ipc, &self.uts, &self.cgroup];
        let of_host = [&self.network, &self.pid, &self.ipc].contains(&&Share::Host);
        if host.userns_mode == UsernsMode::Host || host.privileged || of_host {
            return Ok(Users::Host);
        }
        let mut users: Option<Option<IdMap>> = None;
        for share in shared {
            let Share::Container(other) = share else { continue };
            let range = state.entry(*other)?.record.container.id_range;
            if users.is_some_and(|known| known != range) {
                return Err(EngineError::new(
                    Class::Unsupported,
                    "the containers whose namespaces are joined have different user namespaces; \
                     join one container, or start them with --userns=host",
                ));
            }
            users = Some(range);
        }
        Ok(match users {
            None => Users::Own,
            Some(None) => Users::Host,
            Some(Some(range)) => Users::Of(range),
        })
    }

    /// The containers that must run for this one to start.
    pub(crate) fn containers(&self) -> impl Iterator<Item = Id> {
        [&self.network, &self.pid, &self.ipc, &self.uts, &self.cgroup].into_iter().filter_map(
            |share| match share {
                Share::Container(id) => Some(*id),
                _ => None,
            },
        )
    }
}

fn choose_name(state: &Known, wanted: Option<Name>) -> Result<Name, EngineError> {
    if let Some(name) = wanted {
        return match state.names.get(&name) {
            None => Ok(name),
            Some(owner) => Err(name_conflict(&name, *owner)),
        };
    }
    for attempt in 0..1000 {
        let name = names::random(attempt).parse().expect("drawn names are names: tested");
        if !state.names.contains_key(&name) {
            return Ok(name);
        }
    }
    Err(EngineError::internal("no free name was drawn in 1000 attempts; give one with --name"))
}

pub(crate) fn name_conflict(name: &Name, owner: Id) -> EngineError {
    EngineError::conflict(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You \
         have to remove (or rename) that container to be able to reuse that name."
    ))
}

/// What can be said of a request without knowing other containers.
pub(crate) fn check(
    config: &crate::ContainerConfig,
    host: &mut crate::HostConfig,
) -> Result<(), EngineError> {
    limits::check(host)?;
    hosts::check(config, host)?;
    sysctls::check(host)?;
    capabilities::resolve(
        bulkhead_runtime::Capabilities::NONE,
        &host.cap_add,
        &host.cap_drop,
        host.privileged,
    )
    .map_err(|error| EngineError::invalid(error.to_string()))?;
    if let Some(signal) = &config.stop_signal {
        signals::parse(signal)?;
    }
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(EngineError::invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        )));
    }
    if host.auto_remove && host.restart_policy != RestartPolicy::No {
        return Err(EngineError::invalid(
            "can't create 'AutoRemove' container with restart policy",
        ));
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(EngineError::invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    if host.network_mode != NetworkMode::Bridge {
        // Docker discards them too: there is no bridge to publish from.
        host.port_bindings.clear();
        host.publish_all_ports = false;
    }
    Ok(())
}

/// Refuses what would change a network or a host name that is not the container's own (moby:
/// daemon/pkg/opts and runconfig/hostconfig_unix.go).
fn check_shared_network(
    config: &crate::ContainerConfig,
    host: &crate::HostConfig,
) -> Result<(), EngineError> {
    let conflict = |what: &str| Err(EngineError::invalid(format!("conflicting options: {what}")));
    let has_name = !config.hostname.is_empty() || !config.domainname.is_empty();
    if host.uts_mode != UtsMode::Private && has_name {
        return conflict("hostname and the UTS mode");
    }
    let joins = matches!(host.network_mode, NetworkMode::Container(_));
    if !host.links.is_empty() && (joins || host.network_mode == NetworkMode::Host) {
        let what = if joins { "container type network" } else { "host type networking" };
        return conflict(&format!(
            "{what} can't be used with links. This would result in undefined behavior"
        ));
    }
    if !joins {
        return Ok(());
    }
    if !config.hostname.is_empty() {
        return conflict("hostname and the network mode");
    }
    if !host.dns.is_empty() || !host.dns_search.is_empty() || !host.dns_options.is_empty() {
        return conflict("dns and the network mode");
    }
    if !host.extra_hosts.is_empty() {
        return conflict("custom host-to-IP mapping and the network mode");
    }
    if !host.port_bindings.is_empty() || host.publish_all_ports {
        return conflict("port publishing and the container type network mode");
    }
    if !config.exposed_ports.is_empty() {
        return conflict("port exposing and the container type network mode");
    }
    Ok(())
}

impl Record {
    pub(crate) fn set_status(&mut self, status: Status) {
        self.container.state.status = status;
        self.container.state.paused = status == Status::Paused;
    }
}
