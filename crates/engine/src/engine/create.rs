//! `docker create`: everything is resolved and checked, then recorded in one transaction.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_network::named;
use bulkhead_sys::path;
use bulkhead_types::{Id, IdMap, Timestamp};
use rustix::fs::{Mode, OFlags};

use crate::blocking::{Blocking, blocking};
use crate::clone_mount::is_directory;
use crate::containers::{Entry, Record};
use crate::error::io_error;
use crate::mount_sources::no_bind_source;
use crate::namespaces::{NamespaceMode, NamespaceModes, find_other};
use crate::transaction::Transaction;
use crate::{
    Container, CreateContainer, Engine, EngineError, LogDriver, MissingSource, MountOptions,
    MountPoint, MountRequest, MountType, NetworkStack, Networking, health, image_defaults,
    mount_requests, names, user_ids, validate,
};

impl Engine {
    pub async fn create(
        self: &Arc<Self>,
        create: CreateContainer,
    ) -> Result<Container, EngineError> {
        let engine = Arc::clone(self);
        blocking(move |may_block| engine.create_now(may_block, create, false)).await
    }

    pub(crate) fn create_now(
        self: &Arc<Self>,
        may_block: &Blocking,
        create: CreateContainer,
        throw_away: bool,
    ) -> Result<Container, EngineError> {
        let CreateContainer { name, image: image_name, mut config, mut host, endpoints } = create;
        let image = self.images.records().find(&image_name)?;
        let image_config = self.content.config(image.stored.id)?;
        // Of what the request says, not of what the image brings.
        validate::check_shared_network(&config, &host)?;
        if let Some(check) = &config.healthcheck {
            health::validate(check)?;
        }
        let own_directory = config.working_dir.clone();
        image_defaults::merge(&mut config, &image_config.config);
        let arguments = image_defaults::arguments(&config)?;
        validate::check(&config, &mut host)?;
        self.check_log(&host)?;
        let inherited = self.mounts_from_others(&host)?;
        let wanted = mount_requests::wanted(&config, &host, inherited)?;
        let sources = wanted.iter().filter(|mount| mount.kind() == MountType::Bind);
        let sources = sources.map(|mount| mount.source.as_str());
        let ids =
            user_ids::wanted(&config.user, &host.group_add, sources, &image.layers, &self.content)?;
        let id = Id::random();

        // One creation at a time from here: names and ranges are chosen and recorded together.
        let allocation = self.allocation.hold(may_block);
        let endpoints = match config.network_disabled {
            true => Vec::new(),
            false => self.networks.endpoints(&host.network_mode, endpoints, config.mac_address)?,
        };
        let container = {
            let state = self.containers.lock();
            if self.images.records().get(image.stored.id).is_none() {
                return Err(EngineError::no_image(&image_name));
            }
            let name = names::choose(&state, name)?;
            let modes = NamespaceModes::resolve(&state, &host)?;
            if let NamespaceMode::Named(name) = &modes.network {
                named::open_for_container(name)?;
            }
            modes.record(&mut host);
            for link in &host.links {
                state.find(&link.container).map_err(|_| {
                    let name = &link.container;
                    EngineError::invalid(format!("could not get container for {name}"))
                })?;
            }
            if config.hostname.is_empty() {
                config.hostname = match (&modes.network, &modes.uts) {
                    (NamespaceMode::Host, _) | (_, NamespaceMode::Host) => self.hostname.clone(),
                    (NamespaceMode::Container(other), _) => {
                        state.entry(*other)?.record.container.config.hostname.clone()
                    }
                    _ => id.short(),
                };
            }
            let users = self.user_ids.namespace(&modes, &state, &host)?;
            let id_range = self.user_ids.lease(&state, users, &ids)?;
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
                endpoints,
                network: Networking::detached(match modes.network_stack(&host) {
                    NetworkStack::Bridge if config.network_disabled => NetworkStack::None,
                    stack => stack,
                }),
                mounts: Vec::new(),
                log_path: match host.log_driver {
                    LogDriver::None => String::new(),
                    _ => self.data_dir.log_path(id).display().to_string(),
                },
                config,
                host,
            }
        };
        let (points, volumes) = self.resolve_volumes(wanted)?;
        let container = Container { mounts: points, ..container };
        let record = Record {
            container,
            layers: image.layers,
            stopped_by_user: false,
            throw_away,
            ended_unhealthy: false,
        };
        let container = record.container.clone();
        let mut transaction = Transaction::default();
        for volume in &volumes {
            self.volumes.put(&mut transaction, volume);
        }
        let entry = Entry::new(record.clone());
        // Nobody starts it before it is furnished.
        let operation = Arc::clone(&entry.operation).try_lock_owned();
        self.containers.insert(&mut transaction, entry);
        transaction.commit(&self.records, may_block)?;
        drop(allocation);
        for volume in &volumes {
            self.events.volume(&volume.name, "create");
        }
        self.events.container(&container, "create", &[]);
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
        let directory = self.container_directory(record)?;
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
            let other = find_other(&state, &from.container)?;
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
                        let made = self.volumes.new_record(&name, anonymous);
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
