//! Volumes and networks as Docker shows them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_types::{Id, Name, Timestamp};

use crate::blocking::blocking;
use crate::mount_requests::invalid_volume_name;
use crate::settle::{Kind, intend, intent};
use crate::transaction::Transaction;
use crate::{Engine, EngineError, NetworkView, Volume, pool};

impl Engine {
    pub fn networks(&self) -> Vec<NetworkView> {
        let created = self.network.created;
        let view = |id: Id, name: &str, driver: &str| NetworkView {
            id,
            name: name.to_owned(),
            driver: driver.to_owned(),
            created,
            subnet: None,
            internal: false,
            containers: BTreeMap::new(),
        };
        let state = self.state();
        let mut bridge = view(self.network.id, "bridge", "bridge");
        let own = &self.network.bridge;
        bridge.subnet = Some((pool::network(own.gateway, own.prefix), own.prefix, own.gateway));
        bridge.internal = own.internal;
        for slot in state.containers.values() {
            let container = &slot.record.container;
            let place = &container.network;
            if let (Some(endpoint), Some(mac), Some(address)) =
                (place.endpoint_id, place.mac, place.address)
            {
                let entry = (container.name.to_string(), endpoint, mac, address);
                bridge.containers.insert(container.id, entry);
            }
        }
        // Ids of networks that are no bridge mean nothing but must stay the same.
        let derived = |name: &str| {
            let digest =
                bulkhead_types::Digest::of(format!("{}/{name}", self.network.id).as_bytes());
            digest.hex().parse().expect("a digest has as many digits as an id")
        };
        vec![bridge, view(derived("host"), "host", "host"), view(derived("none"), "none", "null")]
    }

    pub fn volumes(&self) -> Vec<Volume> {
        self.state().volumes.values().cloned().collect()
    }

    pub async fn create_volume(
        self: &Arc<Self>,
        name: Option<&str>,
        labels: BTreeMap<String, String>,
    ) -> Result<Volume, EngineError> {
        let anonymous = name.is_none_or(str::is_empty);
        let name = match name {
            Some(name) if !name.is_empty() => {
                name.parse::<Name>().map_err(|_| invalid_volume_name(name))?.to_string()
            }
            _ => Id::random().to_string(),
        };
        let engine = Arc::clone(self);
        blocking(move |may_block| {
            let _creating =
                engine.allocation_lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some(volume) = engine.state().volumes.get(&name) {
                return Ok(volume.clone());
            }
            let volume = Volume { labels, ..engine.new_volume(&name, anonymous) };
            let mut transaction = Transaction::default();
            engine.put_volume(&mut transaction, &volume);
            transaction.commit(&engine.store, may_block)?;
            bulkhead_failpoint::pass("volume.recorded");
            engine.data_dir.volume(&name)?;
            engine.publish("volume", "create", &name, [("driver".into(), "local".into())]);
            Ok(volume)
        })
        .await
    }

    pub async fn remove_volume(
        self: &Arc<Self>,
        name: &str,
        force: bool,
    ) -> Result<(), EngineError> {
        let engine = Arc::clone(self);
        let name = name.to_owned();
        blocking(move |may_block| {
            let _creating =
                engine.allocation_lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let users: Vec<String> = {
                let state = engine.state();
                if !state.volumes.contains_key(&name) {
                    return match force {
                        true => Ok(()),
                        false => Err(EngineError::not_found(format!("get {name}: no such volume"))),
                    };
                }
                let uses = |container: &crate::Container| {
                    container.mounts.iter().any(|mount| mount.name.as_ref() == Some(&name))
                };
                state
                    .containers
                    .values()
                    .filter(|slot| uses(&slot.record.container))
                    .map(|slot| slot.record.container.id.to_string())
                    .collect()
            };
            if !users.is_empty() {
                return Err(EngineError::conflict(format!(
                    "remove {name}: volume is in use - [{}]",
                    users.join(", ")
                )));
            }
            let mut transaction = Transaction::default();
            engine.delete_volume(&mut transaction, &name);
            transaction.commit(&engine.store, may_block)?;
            bulkhead_failpoint::pass("volume.removal-recorded");
            engine.publish("volume", "destroy", &name, [("driver".into(), "local".into())]);
            engine.data_dir.remove_volume(&name)?;
            engine.removed(Kind::Volume, &name);
            Ok(())
        })
        .await
    }

    pub(crate) fn put_volume<'a>(&'a self, transaction: &mut Transaction<'a>, volume: &Volume) {
        let new = volume.clone();
        transaction.put(volume_key(&volume.name), volume, move || {
            self.state().volumes.insert(new.name.clone(), new);
        });
        transaction.delete(intent(Kind::Volume, &volume.name), || {});
    }

    /// Also says in the store that its directory is to go; whoever removed it calls
    /// [`Engine::removed`].
    pub(crate) fn delete_volume<'a>(&'a self, transaction: &mut Transaction<'a>, name: &str) {
        intend(transaction, Kind::Volume, name);
        // Of an earlier volume of this name: its end is not this one's.
        let key = intent(Kind::Volume, name);
        self.finished_removals().retain(|finished| *finished != key);
        let name = name.to_owned();
        transaction.delete(volume_key(&name), move || {
            self.state().volumes.remove(&name);
        });
    }

    pub(crate) fn new_volume(&self, name: &str, anonymous: bool) -> Volume {
        Volume {
            name: name.to_owned(),
            created: Timestamp::now(),
            mountpoint: self.data_dir.volume_path(name).display().to_string(),
            labels: BTreeMap::new(),
            anonymous,
        }
    }
}

fn volume_key(name: &str) -> String {
    format!("volume/{name}")
}
