//! `docker create`: everything is resolved and checked, then recorded in one transaction.

use std::sync::Arc;

use bulkhead_runtime::capabilities;
use bulkhead_types::{Id, IdMap, Name, Timestamp};

use crate::blocking::{Blocking, blocking};
use crate::state::{Record, Slot, State};
use crate::transaction::Transaction;
use crate::{
    Class, Container, CreateContainer, Engine, EngineError, MountPoint, MountType, NetworkPlace,
    Status, hosts, image_defaults, limits, links, mount_requests, names, security, signals,
    specification, sysctls,
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
        state: &State,
        host: &crate::HostConfig,
    ) -> Result<Users, EngineError> {
        match shares.users(state, host)? {
            Users::Own if self.supports_idmapped_layers => Ok(Users::Own),
            Users::Own if host.userns_mode.is_empty() => Ok(Users::Host),
            Users::Own => {
                Err(EngineError::new(Class::Unsupported, crate::engine::NO_IDMAPPED_LAYERS))
            }
            users => Ok(users),
        }
    }

    pub(crate) fn create_now(
        &self,
        may_block: &Blocking,
        create: CreateContainer,
        throw_away: bool,
    ) -> Result<Container, EngineError> {
        let CreateContainer { name, image: image_name, mut config, mut host } = create;
        let image = self.images.find(&image_name)?;
        let image_config = self.content.config(image.stored.id)?;
        image_defaults::merge(&mut config, &image_config.config);
        let arguments = image_defaults::arguments(&config)?;
        check(&config, &mut host)?;
        let wanted = mount_requests::wanted(&config, &host)?;
        let sources = wanted.iter().filter(|mount| mount.kind == MountType::Bind);
        let sources = sources.map(|mount| mount.source.as_str());
        let ids = self.wanted_ids(&config.user, &host.group_add, sources, &image.layers)?;
        let id = Id::random();

        // One creation at a time from here: names and ranges are chosen and recorded together.
        let _creating =
            self.allocation_lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let container = {
            let state = self.state();
            if self.images.get(image.stored.id).is_none() {
                return Err(EngineError::not_found(format!("No such image: {image_name}")));
            }
            let name = choose_name(&state, name)?;
            let shares = Shares::resolve(&state, &host)?;
            for link in &host.links {
                state.find(links::parse(link)?.0).map_err(|_| {
                    let name = links::parse(link).map_or(link.as_str(), |(name, _)| name);
                    EngineError::invalid(format!("could not get container for {name}"))
                })?;
            }
            if config.hostname.is_empty() {
                config.hostname = match (&shares.network, &shares.uts) {
                    (Share::Host, _) | (_, Share::Host) => self.hostname.clone(),
                    (Share::Container(other), _) => {
                        state.slot(*other)?.record.container.config.hostname.clone()
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
                network: NetworkPlace {
                    mode: match &shares.network {
                        Share::Private if host.network_mode == "none" => "none".to_owned(),
                        Share::Private if config.network_disabled => "none".to_owned(),
                        Share::Private => "bridge".to_owned(),
                        Share::Host => "host".to_owned(),
                        Share::Container(other) => format!("container:{other}"),
                    },
                    ..NetworkPlace::default()
                },
                mounts: Vec::new(),
                log_path: match host.log_driver.as_str() {
                    "none" => String::new(),
                    _ => self.data_dir.log_path(id).display().to_string(),
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
        transaction.expect_absent(Record::key(id));
        transaction.put(Record::key(id), &record.clone(), || {
            let mut state = self.state();
            state.names.insert(container.name.clone(), id);
            state.containers.insert(id, Slot::new(record));
        });
        transaction.commit(&self.store, may_block)?;
        for volume in &volumes {
            self.publish("volume", "create", &volume.name, [("driver".into(), "local".into())]);
        }
        self.publish_container(&container, "create", &[]);
        Ok(container)
    }

    /// Names the volumes of a container: those that exist, and new records for those that do not.
    fn resolve_volumes(
        &self,
        wanted: Vec<mount_requests::Wanted>,
    ) -> Result<(Vec<MountPoint>, Vec<crate::Volume>), EngineError> {
        let mut new = Vec::new();
        let mut points = Vec::new();
        for mount in wanted {
            let mut point = MountPoint {
                kind: mount.kind,
                name: None,
                source: mount.source.clone(),
                target: mount.target,
                readonly: mount.readonly,
            };
            match mount.kind {
                MountType::Volume => {
                    let name = match mount.source.as_str() {
                        "" => Id::random().to_string(),
                        name => name.to_owned(),
                    };
                    let known = self.volumes.get(&name).is_some()
                        || new.iter().any(|volume: &crate::Volume| volume.name == name);
                    if !known {
                        new.push(self.new_volume(&name, mount.source.is_empty()));
                    }
                    point.source = self.data_dir.volume_path(&name).display().to_string();
                    point.name = Some(name);
                }
                MountType::Bind
                    if !mount.make_source && std::fs::symlink_metadata(&mount.source).is_err() =>
                {
                    return Err(EngineError::invalid(format!(
                        "invalid mount config for type \"bind\": bind source path does not \
                             exist: {}",
                        mount.source
                    )));
                }
                _ => {}
            }
            points.push(point);
        }
        Ok((points, new))
    }
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
    pub(crate) fn resolve(state: &State, host: &crate::HostConfig) -> Result<Self, EngineError> {
        let share = |what: &str, mode: &str| -> Result<Share, EngineError> {
            match mode {
                "" | "private" | "shareable" => Ok(Share::Private),
                "none" if what == "IPC" => Ok(Share::Private),
                "host" => Ok(Share::Host),
                _ => match mode.strip_prefix("container:") {
                    Some(name) if !name.is_empty() => Ok(Share::Container(state.find(name)?)),
                    _ => Err(EngineError::invalid(format!("invalid {what} mode: {mode}"))),
                },
            }
        };
        let network = match host.network_mode.as_str() {
            "" | "default" | "bridge" | "none" => Share::Private,
            "host" => Share::Host,
            mode if mode.starts_with("container:") => share("network", mode)?,
            // Not "not found": the CLI takes that for a missing image, and starts to pull it.
            name => return Err(EngineError::invalid(format!("network {name} not found"))),
        };
        Ok(Self {
            network,
            pid: share("PID", &host.pid_mode)?,
            ipc: share("IPC", &host.ipc_mode)?,
            uts: share("UTS", &host.uts_mode)?,
            cgroup: share("cgroup namespace", &host.cgroupns_mode)?,
        })
    }

    pub(crate) fn users(
        &self,
        state: &State,
        host: &crate::HostConfig,
    ) -> Result<Users, EngineError> {
        let shared = [&self.network, &self.pid, &self.ipc, &self.uts, &self.cgroup];
        let of_host = [&self.network, &self.pid, &self.ipc].contains(&&Share::Host);
        if host.userns_mode == "host" || host.privileged || of_host {
            return Ok(Users::Host);
        }
        if !host.userns_mode.is_empty() && host.userns_mode != "private" {
            return Err(EngineError::invalid(format!("invalid USER mode: {}", host.userns_mode)));
        }
        let mut users: Option<Option<IdMap>> = None;
        for share in shared {
            let Share::Container(other) = share else { continue };
            let range = state.slot(*other)?.record.container.id_range;
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

fn choose_name(state: &State, wanted: Option<Name>) -> Result<Name, EngineError> {
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
    specification::check_log(host)?;
    hosts::check(config, host)?;
    sysctls::check(host)?;
    security::parse(&host.security_opt)?;
    capabilities::resolve(&host.cap_add, &host.cap_drop, host.privileged)
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
    match host.restart_policy.name.as_str() {
        "" | "no" | "always" | "unless-stopped" => {
            if host.restart_policy.maximum_retries != 0 {
                return Err(EngineError::invalid(
                    "invalid restart policy: maximum retry count can only be used with \
                     'on-failure'",
                ));
            }
        }
        "on-failure" => {}
        other => {
            return Err(EngineError::invalid(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', \
                 'on-failure', or 'unless-stopped'"
            )));
        }
    }
    if host.auto_remove && !matches!(host.restart_policy.name.as_str(), "" | "no") {
        return Err(EngineError::invalid(
            "can't create 'AutoRemove' container with restart policy",
        ));
    }
    match host.log_driver.as_str() {
        "" | "json-file" | "none" | "local" => {}
        other => {
            return Err(EngineError::invalid(format!(
                "logger: no log driver named '{other}' is registered"
            )));
        }
    }
    let joins = host.network_mode.starts_with("container:");
    let conflict = |what: &str| Err(EngineError::invalid(format!("conflicting options: {what}")));
    if joins && !config.hostname.is_empty() {
        return conflict("hostname and the network mode");
    }
    if joins && !host.links.is_empty() {
        return conflict(
            "container type network can't be used with links. This would result in undefined \
             behavior",
        );
    }
    if host.network_mode == "host" && !host.links.is_empty() {
        return conflict(
            "host type networking can't be used with links. This would result in undefined \
             behavior",
        );
    }
    if joins && (!host.port_bindings.is_empty() || host.publish_all_ports) {
        return conflict("port publishing and the container type network mode");
    }
    if !matches!(host.network_mode.as_str(), "" | "default" | "bridge") {
        // Docker discards them too: there is no bridge to publish from.
        host.port_bindings.clear();
        host.publish_all_ports = false;
    }
    Ok(())
}

impl Record {
    pub(crate) fn set_status(&mut self, status: Status) {
        self.container.state.status = status;
        self.container.state.paused = status == Status::Paused;
    }
}
