//! The volumes: their records, and what a client does with them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_store::load_all;
use bulkhead_types::{Id, Name, Timestamp};

use crate::blocking::blocking;
use crate::data_dir::Kind;
use crate::mount_requests::invalid_volume_name;
use crate::records::Records;
use crate::transaction::Transaction;
use crate::{DriverOptions, Engine, EngineError, Volume};

impl Engine {
    pub fn volumes(&self) -> Vec<Volume> {
        self.volumes.all()
    }

    pub async fn create_volume(
        self: &Arc<Self>,
        name: Option<&str>,
        labels: BTreeMap<String, String>,
        options: DriverOptions,
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
            let _creating = engine.allocation_lock.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(volume) = engine.volumes.get(&name) {
                // Made again with other options it would not be what was asked for.
                return match options == volume.options || options == DriverOptions::default() {
                    true => Ok(volume),
                    false => Err(EngineError::conflict(format!(
                        "volume {name} exists with other options; remove it first"
                    ))),
                };
            }
            let made = engine.new_volume(&name, anonymous);
            let labels = made.labels.clone().into_iter().chain(labels).collect();
            let volume = Volume { labels, options, ..made };
            let mut transaction = Transaction::default();
            engine.put_volume(&mut transaction, &volume);
            transaction.commit(&engine.records, may_block)?;
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
            let _creating = engine.allocation_lock.lock().unwrap_or_else(PoisonError::into_inner);
            let users: Vec<String> = {
                if engine.volumes.get(&name).is_none() {
                    return match force {
                        true => Ok(()),
                        false => Err(EngineError::not_found(format!("get {name}: no such volume"))),
                    };
                }
                let uses = |container: &crate::Container| {
                    container.mounts.iter().any(|mount| mount.name.as_ref() == Some(&name))
                };
                engine
                    .containers
                    .lock()
                    .entries
                    .values()
                    .filter(|entry| uses(&entry.record.container))
                    .map(|entry| entry.record.container.id.to_string())
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
            transaction.commit(&engine.records, may_block)?;
            bulkhead_failpoint::pass("volume.removal-recorded");
            engine.publish("volume", "destroy", &name, [("driver".into(), "local".into())]);
            engine.data_dir.remove_volume(&name)?;
            engine.records.removed(Kind::Volume, &name);
            Ok(())
        })
        .await
    }

    pub(crate) fn put_volume<'a>(&'a self, transaction: &mut Transaction<'a>, volume: &Volume) {
        self.volumes.put(transaction, volume);
        self.records.cancel_removal(transaction, Kind::Volume, &volume.name);
    }

    /// Also says in the store that its directory is to go; whoever removed it calls
    /// [`Records::removed`].
    pub(crate) fn delete_volume<'a>(&'a self, transaction: &mut Transaction<'a>, name: &str) {
        self.records.intend_removal(transaction, Kind::Volume, name);
        self.volumes.delete(transaction, name);
    }

    pub(crate) fn new_volume(&self, name: &str, anonymous: bool) -> Volume {
        Volume {
            name: name.to_owned(),
            created: Timestamp::now(),
            mountpoint: self.data_dir.volume_path(name).display().to_string(),
            // By it Docker's clients tell them apart (moby: daemon/volume/service, AnonymousLabel).
            labels: anonymous
                .then(|| ("com.docker.volume.anonymous".to_owned(), String::new()))
                .into_iter()
                .collect(),
            anonymous,
            options: DriverOptions::default(),
        }
    }
}

/// The volumes, under `volume/` in the store. Their lock is taken last: nothing else is locked
/// under it.
#[derive(Debug, Default)]
pub(crate) struct Volumes {
    known: Mutex<BTreeMap<String, Volume>>,
}

impl Volumes {
    pub(crate) fn recover(&self, records: &Records) -> Result<(), EngineError> {
        let found: Vec<(String, Volume)> = load_all(records.store(), "volume/")?;
        self.known().extend(found.into_iter().map(|(_, volume)| (volume.name.clone(), volume)));
        Ok(())
    }

    pub(crate) fn get(&self, name: &str) -> Option<Volume> {
        self.known().get(name).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Volume> {
        self.known().values().cloned().collect()
    }

    pub(crate) fn put<'a>(&'a self, transaction: &mut Transaction<'a>, volume: &Volume) {
        let new = volume.clone();
        transaction.put(volume_key(&volume.name), volume, move || {
            self.known().insert(new.name.clone(), new);
        });
    }

    pub(crate) fn delete<'a>(&'a self, transaction: &mut Transaction<'a>, name: &str) {
        let name = name.to_owned();
        transaction.delete(volume_key(&name), move || {
            self.known().remove(&name);
        });
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Volume>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn volume_key(name: &str) -> String {
    format!("volume/{name}")
}
