//! The volumes: their records, and what a client does with them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_store::load_all;
use bulkhead_types::{Id, Name, Timestamp};

use crate::allocation::AllocationLock;
use crate::bind::invalid_volume_name;
use crate::blocking::{Blocking, blocking};
use crate::data_dir::{DataDir, Kind};
use crate::events::Events;
use crate::records::Records;
use crate::transaction::Transaction;
use crate::{DriverOptions, EngineError, Volume};

/// The volumes of an engine, under `volume/` in the store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Volumes {
    parts: Arc<Parts>,
}

#[derive(Debug)]
struct Parts {
    records: Arc<Records>,
    data_dir: Arc<DataDir>,
    events: Arc<Events>,
    allocation: AllocationLock,
    /// Taken last: nothing else is locked under it.
    known: Mutex<BTreeMap<String, Volume>>,
}

impl Volumes {
    pub(crate) fn new(
        records: Arc<Records>,
        data_dir: Arc<DataDir>,
        events: Arc<Events>,
        allocation: AllocationLock,
    ) -> Self {
        let known = Mutex::default();
        Self { parts: Arc::new(Parts { records, data_dir, events, allocation, known }) }
    }

    pub(crate) fn recover(&self) -> Result<(), EngineError> {
        let found: Vec<(String, Volume)> = load_all(self.parts.records.store(), PREFIX)?;
        self.known().extend(found.into_iter().map(|(_, volume)| (volume.name.clone(), volume)));
        Ok(())
    }

    /// In the order of their names.
    pub fn list(&self) -> Vec<Volume> {
        self.known().values().cloned().collect()
    }

    pub fn get(&self, name: &str) -> Option<Volume> {
        self.known().get(name).cloned()
    }

    /// Makes a volume, or finds the one of this name if it has these options.
    pub async fn create(
        &self,
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
        let volumes = self.clone();
        blocking(move |may_block| {
            let Parts { records, data_dir, events, allocation, .. } = &*volumes.parts;
            let _allocating = allocation.hold(may_block);
            if let Some(volume) = volumes.get(&name) {
                // Made again with other options it would not be what was asked for.
                return match options == volume.options || options == DriverOptions::default() {
                    true => Ok(volume),
                    false => Err(EngineError::conflict(format!(
                        "volume {name} exists with other options; remove it first"
                    ))),
                };
            }
            let made = volumes.new_record(&name, anonymous);
            let labels = made.labels.clone().into_iter().chain(labels).collect();
            let volume = Volume { labels, options, ..made };
            let mut transaction = Transaction::default();
            volumes.put(&mut transaction, &volume);
            transaction.commit(records, may_block)?;
            bulkhead_failpoint::pass("volume.recorded");
            data_dir.volume(&name)?;
            events.volume(&name, "create");
            Ok(volume)
        })
        .await
    }

    /// Removes a volume that is in none of the containers that `users` finds.
    pub(crate) fn remove(
        &self,
        may_block: &Blocking,
        name: &str,
        force: bool,
        users: impl FnOnce() -> Vec<Id>,
    ) -> Result<(), EngineError> {
        let Parts { records, data_dir, events, allocation, .. } = &*self.parts;
        let _allocating = allocation.hold(may_block);
        if self.get(name).is_none() {
            return match force {
                true => Ok(()),
                false => Err(EngineError::not_found(format!("get {name}: no such volume"))),
            };
        }
        let users: Vec<String> = users().iter().map(Id::to_string).collect();
        if !users.is_empty() {
            return Err(EngineError::conflict(format!(
                "remove {name}: volume is in use - [{}]",
                users.join(", ")
            )));
        }
        let mut transaction = Transaction::default();
        self.delete(&mut transaction, name);
        transaction.commit(records, may_block)?;
        bulkhead_failpoint::pass("volume.removal-recorded");
        events.volume(name, "destroy");
        data_dir.remove_volume(name)?;
        records.removed(Kind::Volume, name);
        Ok(())
    }

    pub(crate) fn put<'a>(&'a self, transaction: &mut Transaction<'a>, volume: &Volume) {
        let new = volume.clone();
        transaction.put(key(&volume.name), volume, move || {
            self.known().insert(new.name.clone(), new);
        });
        transaction.cancel_removal(Kind::Volume, &volume.name);
    }

    /// Also says in the store that its directory is to go; whoever removed it calls
    /// [`Records::removed`].
    pub(crate) fn delete<'a>(&'a self, transaction: &mut Transaction<'a>, name: &str) {
        transaction.intend_removal(&self.parts.records, Kind::Volume, name);
        let name = name.to_owned();
        transaction.delete(key(&name), move || {
            self.known().remove(&name);
        });
    }

    pub(crate) fn new_record(&self, name: &str, anonymous: bool) -> Volume {
        Volume {
            name: name.to_owned(),
            created: Timestamp::now(),
            mountpoint: self.parts.data_dir.volume_path(name).display().to_string(),
            // By it Docker's clients tell them apart (moby: daemon/volume/service, AnonymousLabel).
            labels: anonymous
                .then(|| ("com.docker.volume.anonymous".to_owned(), String::new()))
                .into_iter()
                .collect(),
            anonymous,
            options: DriverOptions::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Volume>> {
        self.parts.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const PREFIX: &str = "volume/";

fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}
