//! The containers: their records and names, and what only this process knows of them.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_store::{Durability, Store, load_all};
use bulkhead_types::{Digest, Id, Name};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedMutexGuard, watch};

use crate::blocking::Blocking;
use crate::ports::Reservation;
use crate::records::Records;
use crate::transaction::Transaction;
use crate::{Container, EngineError, PortBinding, Status, Streams};

const PREFIX: &str = "container/";

/// What the store keeps of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub container: Container,
    /// Diff ids of the image's layers, lowest first.
    pub layers: Vec<Digest>,
    /// `docker stop` or `kill` ended it, so its policy leaves it alone.
    #[serde(default)]
    pub stopped_by_user: bool,
    /// A step of a build: it goes when it has ended, and when an engine that opens finds it.
    #[serde(default)]
    pub throw_away: bool,
    /// Its health check ends it, to start it anew: whoever finds its end does so.
    #[serde(default)]
    pub ended_unhealthy: bool,
}

impl Record {
    pub(crate) fn set_status(&mut self, status: Status) {
        self.container.state.status = status;
        self.container.state.paused = status == Status::Paused;
    }

    /// What its changes have to survive, decided here for all of them. A power cut ends every
    /// container, and one that goes with its end (`--rm`, a step of a build) has nothing to come back
    /// to after it: its records do not wait for the disk. They survive the engine's end, as it does.
    pub(crate) fn durability(&self) -> Durability {
        match self.throw_away || self.container.host.auto_remove {
            true => Durability::Process,
            false => Durability::Disk,
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.container.state.status, Status::Running | Status::Paused)
    }
}

/// A container as it was at one moment, shared with the engine.
#[derive(Debug, Clone)]
pub struct ContainerSnapshot(Arc<Record>);

impl Deref for ContainerSnapshot {
    type Target = Container;

    fn deref(&self) -> &Container {
        &self.0.container
    }
}

/// A container with what only this process knows of it.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Shared with whoever shows it: a list of a thousand copies none.
    pub record: Arc<Record>,
    pub runtime: Runtime,
    /// Held by what changes the container; every writer of `record` holds it.
    pub operation: Arc<tokio::sync::Mutex<()>>,
    pub lifecycle: watch::Sender<Lifecycle>,
}

impl Entry {
    pub(crate) fn new(record: Record) -> Self {
        let lifecycle = Lifecycle {
            running: record.is_running(),
            code: record.container.state.exit_code,
            ..Lifecycle::default()
        };
        Self {
            record: Arc::new(record),
            runtime: Runtime::default(),
            operation: Arc::default(),
            lifecycle: watch::Sender::new(lifecycle),
        }
    }
}

/// What waiters look at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lifecycle {
    /// How often it has ended since this engine opened.
    pub ends: u64,
    /// With which status it ended last.
    pub code: u8,
    /// Running, paused, or about to be restarted by its policy.
    pub running: bool,
    pub removed: bool,
}

/// A task that ends with whoever keeps it.
#[derive(Debug)]
pub(crate) struct AbortOnDrop(pub tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What this process alone knows of a container while it runs.
#[derive(Debug, Default)]
pub(crate) struct Runtime {
    pub pidfd: Option<Arc<OwnedFd>>,
    /// What another warden needs to go on with it.
    pub handover: Option<Arc<bulkhead_warden::Handover>>,
    pub ports: Vec<Reservation>,
    /// Its network namespace, so that the links can outlast it for a moment.
    pub netns: Option<Arc<OwnedFd>>,
    /// Hears of kills for want of memory, and whether one was told.
    pub oom: Option<AbortOnDrop>,
    pub oom_told: bool,
    /// Probes it.
    pub health: Option<AbortOnDrop>,
    /// It was found unhealthy, and is being ended for it.
    pub ending_unhealthy: bool,
    /// Clients that attached before the start.
    pub waiting: Vec<(UnixStream, Streams)>,
    /// What a client asked for before there was a terminal.
    pub terminal_size: (u16, u16),
    /// The wait before the last start by policy.
    pub last_wait: std::time::Duration,
    /// Its end is not on disk yet, and the warden keeps it; see `settle.rs`.
    pub unrecorded: bool,
    /// How many `docker restart` end it just now, to start it again.
    pub restarting: u32,
    /// `docker rm -f` ends it: its end and its removal are one change of the records.
    pub removal: Option<Removal>,
    /// Counts starts and stops by users, so that a restart that was planned before is dropped.
    pub generation: u64,
}

/// What goes with a container that is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    Alone,
    /// And the volumes without a name that only it has.
    WithVolumes,
}

/// The containers, under `container/` in the store. Whoever changes a record holds the container's
/// operation lock, which is taken before this one's.
#[derive(Debug)]
pub(crate) struct Containers {
    records: Arc<Records>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
pub(crate) struct Known {
    pub entries: BTreeMap<Id, Entry>,
    pub names: HashMap<Name, Id>,
}

/// How many run according to the store: for what is decided before anything is recovered.
pub(crate) fn running(store: &dyn Store) -> Result<usize, EngineError> {
    let records: Vec<(String, Record)> = load_all(store, PREFIX)?;
    Ok(records.iter().filter(|(_, record)| record.is_running()).count())
}

impl Containers {
    pub(crate) fn new(records: Arc<Records>) -> Self {
        Self { records, known: Mutex::default() }
    }

    /// Reads what is recorded; none of it runs as far as this knows.
    pub(crate) fn recover(&self) -> Result<(), EngineError> {
        let records: Vec<(String, Record)> = load_all(self.records.store(), PREFIX)?;
        let mut known = self.lock();
        for (_, record) in records {
            known.insert(Entry::new(record));
        }
        Ok(())
    }

    /// Held for moments: nothing blocks under it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn find(&self, text: &str) -> Result<Id, EngineError> {
        self.lock().find(text)
    }

    pub(crate) fn record(&self, id: Id) -> Result<Record, EngineError> {
        Ok(Record::clone(&self.lock().entry(id)?.record))
    }

    /// [`Self::record`] for whoever only looks at it.
    pub(crate) fn shared_record(&self, id: Id) -> Result<Arc<Record>, EngineError> {
        Ok(Arc::clone(&self.lock().entry(id)?.record))
    }

    /// Every container's id, lowest first.
    pub(crate) fn ids(&self) -> Vec<Id> {
        self.lock().entries.keys().copied().collect()
    }

    /// Every container but the steps of builds, newest first.
    pub(crate) fn snapshots(&self) -> Vec<ContainerSnapshot> {
        let known = self.lock();
        let records = known.entries.values().map(|entry| &entry.record);
        let shown = records.filter(|record| !record.throw_away);
        let mut all: Vec<_> = shown.map(|record| ContainerSnapshot(Arc::clone(record))).collect();
        drop(known);
        all.sort_by_key(|container| std::cmp::Reverse(container.created));
        all
    }

    /// Takes the right to change a container; waits for whoever changes it now.
    pub(crate) async fn exclusive(&self, id: Id) -> Result<OwnedMutexGuard<()>, EngineError> {
        let lock = Arc::clone(&self.lock().entry(id)?.operation);
        let guard = lock.lock_owned().await;
        // It may have been removed while this waited.
        self.lock().entry(id)?;
        Ok(guard)
    }

    /// The containers that have this volume, lowest id first.
    pub(crate) fn users_of_volume(&self, name: &str) -> Vec<Id> {
        let known = self.lock();
        let uses = |entry: &&Entry| {
            entry.record.container.mounts.iter().any(|mount| mount.name.as_deref() == Some(name))
        };
        known.entries.values().filter(uses).map(|entry| entry.record.container.id).collect()
    }

    /// The edit that adds a container; none may have its id.
    pub(crate) fn insert<'a>(&'a self, transaction: &mut Transaction<'a>, entry: Entry) {
        let key = key(entry.record.container.id);
        transaction.expect_absent(key.clone());
        let record = Arc::clone(&entry.record);
        let insert = move || self.lock().insert(entry);
        transaction.put_to(record.durability(), key, &*record, insert);
    }

    /// The edit that makes `record` the record of its container, under the name that it has there.
    pub(crate) fn put<'a>(&'a self, transaction: &mut Transaction<'a>, record: &Record) {
        let new = record.clone();
        let key = key(record.container.id);
        transaction.put_to(record.durability(), key, record, move || self.lock().set_record(new));
    }

    /// The edit that writes a record whose copy in memory changes at another moment.
    pub(crate) fn put_on_disk(&self, transaction: &mut Transaction<'_>, record: &Record) {
        transaction.put_to(record.durability(), key(record.container.id), record, || {});
    }

    /// Records a change that need not survive a power cut, which ends the container anyway. The caller
    /// holds its operation lock.
    pub(crate) fn note(
        &self,
        may_block: &Blocking,
        id: Id,
        change: impl FnOnce(&mut Record),
    ) -> Result<(), EngineError> {
        let mut record = self.record(id)?;
        change(&mut record);
        let mut transaction = Transaction::default();
        let new = record.clone();
        let in_memory = move || self.lock().set_record(new);
        transaction.put_to(Durability::Process, key(id), &record, in_memory);
        transaction.commit(&self.records, may_block)
    }

    /// The edit that removes a container; `removed` gets what was known of it.
    pub(crate) fn delete<'a>(
        &'a self,
        transaction: &mut Transaction<'a>,
        id: Id,
        removed: &'a mut Option<Entry>,
    ) {
        let durability = self.lock().entry(id).map(|entry| entry.record.durability());
        let remove = move || *removed = self.lock().remove(id);
        transaction.delete_to(durability.unwrap_or(Durability::Disk), key(id), remove);
    }

    /// Records a change of a container, on disk and then in memory. The caller holds its operation
    /// lock.
    pub(crate) fn change(
        &self,
        may_block: &Blocking,
        id: Id,
        change: impl FnOnce(&mut Record),
    ) -> Result<Container, EngineError> {
        let mut record = self.record(id)?;
        change(&mut record);
        let mut transaction = Transaction::default();
        self.put(&mut transaction, &record);
        transaction.commit(&self.records, may_block)?;
        Ok(record.container)
    }
}

impl Known {
    pub(crate) fn insert(&mut self, entry: Entry) {
        let container = &entry.record.container;
        if !entry.record.throw_away {
            self.names.insert(container.name.clone(), container.id);
        }
        self.entries.insert(container.id, entry);
    }

    pub(crate) fn set_record(&mut self, new: Record) {
        let id = new.container.id;
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let old = std::mem::replace(&mut entry.record, Arc::new(new));
        let name = &entry.record.container.name;
        if old.container.name != *name {
            self.names.remove(&old.container.name);
            self.names.insert(name.clone(), id);
        }
    }

    /// Takes a container out, and its name unless another has it by now.
    pub(crate) fn remove(&mut self, id: Id) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        let name = &entry.record.container.name;
        if self.names.get(name) == Some(&id) {
            self.names.remove(name);
        }
        Some(entry)
    }

    /// Finds a container by name, id or unambiguous start of an id, in this order.
    pub(crate) fn find(&self, text: &str) -> Result<Id, EngineError> {
        let missing = || EngineError::not_found(format!("No such container: {text}"));
        if let Ok(id) = text.parse::<Id>()
            && self.entries.contains_key(&id)
        {
            return Ok(id);
        }
        let name = text.strip_prefix('/').unwrap_or(text);
        if let Ok(name) = name.parse::<Name>()
            && let Some(id) = self.names.get(&name)
        {
            return Ok(*id);
        }
        if text.is_empty() || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(missing());
        }
        let mut matching = self.entries.keys().filter(|id| id.to_string().starts_with(text));
        match (matching.next(), matching.next()) {
            (None, _) => Err(missing()),
            (Some(id), None) => Ok(*id),
            (Some(_), Some(_)) => Err(EngineError::invalid(format!(
                "multiple IDs found with provided prefix: {text}"
            ))),
        }
    }

    pub(crate) fn entry(&self, id: Id) -> Result<&Entry, EngineError> {
        let missing = || EngineError::not_found(format!("No such container: {id}"));
        self.entries.get(&id).ok_or_else(missing)
    }

    pub(crate) fn entry_mut(&mut self, id: Id) -> Result<&mut Entry, EngineError> {
        let missing = || EngineError::not_found(format!("No such container: {id}"));
        self.entries.get_mut(&id).ok_or_else(missing)
    }

    /// Every host port that a container holds now.
    pub(crate) fn published(&self) -> Vec<PortBinding> {
        self.entries
            .values()
            .flat_map(|entry| entry.runtime.ports.iter().map(|reservation| reservation.binding))
            .collect()
    }
}

fn key(id: Id) -> String {
    format!("{PREFIX}{id}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Class;

    #[test]
    fn containers_are_found_by_name_id_and_prefix() {
        let mut state = Known::default();
        let mut ids = Vec::new();
        for name in ["one", "two"] {
            let container = crate::container::tests::container(name);
            ids.push(container.id);
            let record = Record {
                container,
                layers: vec![],
                stopped_by_user: false,
                throw_away: false,
                ended_unhealthy: false,
            };
            state.insert(Entry::new(record));
        }
        assert_eq!(state.find("/one").unwrap(), ids[0]);
        assert_eq!(state.find(&ids[1].to_string()).unwrap(), ids[1]);
        assert_eq!(state.find(&ids[1].short()).unwrap(), ids[1]);
        for (text, class) in [("three", Class::NotFound), ("", Class::NotFound)] {
            let error = state.find(text).unwrap_err();
            assert_eq!(error.class, class);
            assert_eq!(error.message, format!("No such container: {text}"));
        }
    }
}
