use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::broadcast;

use crate::disk::{Disk, Room};
use crate::journal::Journal;
use crate::mirror::Mirror;
use crate::witness::Witness;
use crate::{Change, Compare, Durability, Entry, Revision, Store, StoreError, Write};

/// key → (revision that wrote it, value)
const ENTRIES: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("entries");
/// `revision` → the last one
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const REVISION: &str = "revision";
/// Drawn when the store is made.
const IDENTITY: &str = "identity";

/// Transactions that a slow watcher may be behind before its channel ends.
const WATCH_BACKLOG: usize = 1024;

/// The store of one machine: a database, and a journal of what it does not have yet.
///
/// Everything is mirrored in memory: what an engine or a control plane of one machine records is
/// megabytes at most, and a read must never wait for the disk. A commit goes to the files first and
/// then to the mirror, so what was read is never lost by a crash.
///
/// A transaction that need not survive a power cut ([`Durability::Process`]) is added to the journal
/// alone; the next one that must, or one for which the journal has no room, takes all of them into
/// the database with itself, in one transaction there.
///
/// After an error of the disk the file is opened again, and the transaction that failed is taken back
/// if it had happened: what a caller was told and what the file holds stay the same. A transaction
/// that needs more room than it gives back is refused before anything is written when the disk has
/// none; one that gives room back, or changes records in place, has the file's reserve.
#[derive(Debug)]
pub struct Embedded {
    path: PathBuf,
    file: Mutex<Opened>,
    mirror: RwLock<Mirror>,
    watchers: Mutex<Vec<Watcher>>,
    revision: tokio::sync::watch::Sender<Revision>,
    witness: Witness,
}

#[derive(Debug)]
struct Opened {
    /// `None` after an error, until the file can be opened again.
    database: Option<(Database, Arc<Room>)>,
    /// What the transaction that failed last would have changed, while it is not known whether it did.
    unsettled: Vec<Change>,
    /// The last transaction that the database has.
    recorded: Revision,
    /// `None` where it could not be made: on a full disk.
    journal: Option<Journal>,
    /// The keys that were changed by transactions that only the journal has.
    journaled: BTreeSet<String>,
}

#[derive(Debug)]
struct Watcher {
    prefix: String,
    sender: broadcast::Sender<Arc<Vec<Change>>>,
}

impl Embedded {
    /// Opens the store, making the file if there is none. The file is locked as long as this lives.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let (disk, room) = Disk::create(path).map_err(|cause| failed(path, cause.into()))?;
        let database = database(path, disk)?;
        // On a full disk it opens all the same, so that something can be removed.
        if let Err(error) = room.reserve() {
            tracing::warn!(store = %path.display(), %error, "no room is reserved for removals");
        }
        let mut mirror = mirror_of(&database).map_err(|cause| failed(path, cause))?;
        let (identity, is_new) = identity(&database).map_err(|cause| failed(path, cause))?;
        let recorded = mirror.revision;
        let is_older = is_new && recorded > 0;
        // It knows of the database alone: what the journal has may be gone after a power cut, and
        // nothing was put back then.
        let witness = Witness::open(path, identity, recorded, is_older);
        let mut journaled = BTreeSet::new();
        let journal = match Journal::open(path, identity, recorded) {
            Ok((journal, records)) => {
                for (revision, changes) in records {
                    journaled.extend(changes.iter().map(|change| change.key.clone()));
                    mirror.apply(revision, &changes);
                }
                Some(journal)
            }
            Err(error) if is_full(&error) => {
                tracing::warn!(store = %path.display(), %error, "every change waits for the disk");
                None
            }
            Err(error) => return Err(failed(path, error.into())),
        };
        let (revision, _) = tokio::sync::watch::channel(mirror.revision);
        let opened = Opened {
            database: Some((database, room)),
            unsettled: Vec::new(),
            recorded,
            journal,
            journaled,
        };
        Ok(Self {
            path: path.to_owned(),
            file: Mutex::new(opened),
            mirror: RwLock::new(mirror),
            watchers: Mutex::default(),
            revision,
            witness,
        })
    }

    /// Whether this store may not know all that it has known: it is new, or was lost, emptied or put
    /// back to an earlier moment. So until [`Self::confirm`], over restarts too.
    pub fn history_is_lost(&self) -> bool {
        self.witness.is_lost()
    }

    /// What the store does not know was taken care of: from now on it knows everything.
    pub fn confirm(&self) {
        let opened = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        self.witness.confirm(opened.recorded);
    }

    /// The last transaction; changes with each, so that who failed learns when the store works again.
    pub fn revisions(&self) -> tokio::sync::watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// Opens the file after an error, and takes back what the caller was told had failed.
    fn open_again(&self, opened: &mut Opened) -> Result<(), StoreError> {
        // The locks go with it.
        opened.database = None;
        let failed = |cause| failed(&self.path, cause);
        let (disk, room) = Disk::open(&self.path).map_err(|cause| failed(cause.into()))?;
        let database = database(&self.path, disk)?;
        let mirror = self.mirror.read().unwrap_or_else(PoisonError::into_inner);
        if revision_of(&database).map_err(failed)? != opened.recorded {
            // It happened, and what the journal has with it.
            let before: Vec<_> = opened
                .unsettled
                .iter()
                .map(|change| {
                    let row = mirror.entries.get(&change.key);
                    (change.key.as_str(), row.map(|(modified, value)| (*modified, &**value)))
                })
                .collect();
            write(&database, mirror.revision, before.into_iter()).map_err(failed)?;
            opened.has_recorded(mirror.revision);
        }
        opened.unsettled.clear();
        opened.database = Some((database, room));
        tracing::info!(store = %self.path.display(), "opened again after an error");
        Ok(())
    }

    /// Takes a transaction, and all that only the journal has, into the database.
    fn record(
        &self,
        opened: &mut Opened,
        revision: Revision,
        changes: &[Change],
    ) -> Result<(), StoreError> {
        let written = {
            let mirror = self.mirror.read().unwrap_or_else(PoisonError::into_inner);
            let mut rows: BTreeMap<&str, Option<(Revision, &[u8])>> = BTreeMap::new();
            for key in &opened.journaled {
                let row = mirror.entries.get(key);
                rows.insert(key, row.map(|(modified, value)| (*modified, value.as_slice())));
            }
            for change in changes {
                let row = change.value.as_deref().map(|value| (revision, value));
                rows.insert(&change.key, row);
            }
            match &opened.database {
                Some((database, _)) => write(database, revision, rows.into_iter()),
                None => Err(redb::Error::DatabaseClosed),
            }
        };
        if let Err(cause) = written {
            opened.unsettled = changes.to_vec();
            return Err(match self.open_again(opened) {
                Ok(()) => failed(&self.path, cause),
                Err(again) => StoreError::Unknown {
                    path: self.path.display().to_string(),
                    cause: Box::new(cause),
                    again: Box::new(again),
                },
            });
        }
        bulkhead_failpoint::pass("store.committed");
        opened.has_recorded(revision);
        self.witness.write(revision);
        Ok(())
    }

    fn tell_watchers(&self, changes: &[Change]) {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|watcher| watcher.sender.receiver_count() > 0);
        for watcher in watchers.iter() {
            let seen: Vec<Change> = changes
                .iter()
                .filter(|change| change.key.starts_with(&watcher.prefix))
                .cloned()
                .collect();
            if !seen.is_empty() {
                // Fails only when the last receiver has just gone.
                let _ = watcher.sender.send(Arc::new(seen));
            }
        }
    }
}

impl Opened {
    /// Whether the journal has taken a transaction; the database has to where it has not.
    fn add_to_journal(&mut self, revision: Revision, changes: &[Change]) -> bool {
        let Some(journal) = &mut self.journal else { return false };
        if let Err(error) = journal.append(revision, changes) {
            if !is_full(&error) {
                tracing::warn!(%error, "write to the store's journal");
            }
            return false;
        }
        bulkhead_failpoint::pass("store.journaled");
        self.journaled.extend(changes.iter().map(|change| change.key.clone()));
        true
    }

    /// The database has all transactions up to this one.
    fn has_recorded(&mut self, revision: Revision) {
        self.recorded = revision;
        self.journaled.clear();
        if let Some(journal) = &mut self.journal {
            journal.begin_again();
        }
    }
}

impl Store for Embedded {
    fn read(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let mirror = self.mirror.read().unwrap_or_else(PoisonError::into_inner);
        Ok(mirror.entries.get(key).map(|(modified, value)| Entry {
            key: key.to_owned(),
            value: value.clone(),
            modified: *modified,
        }))
    }

    fn range(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        let mirror = self.mirror.read().unwrap_or_else(PoisonError::into_inner);
        Ok(mirror
            .entries
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, (modified, value))| Entry {
                key: key.clone(),
                value: value.clone(),
                modified: *modified,
            })
            .collect())
    }

    fn commit_to(
        &self,
        durability: Durability,
        compare: &[Compare],
        writes: &[Write],
    ) -> Result<Revision, StoreError> {
        // Held to the end: commits happen one after the other, and watchers see them in order.
        let mut opened = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (revision, changes, relieves) = {
            let mirror = self.mirror.read().unwrap_or_else(PoisonError::into_inner);
            if !compare.iter().all(|compare| mirror.holds(compare)) {
                return Err(StoreError::Conflict);
            }
            let changes = mirror.changes(writes);
            let relieves = mirror.relieves(&changes);
            (mirror.revision + 1, changes, relieves)
        };
        if changes.is_empty() {
            return Ok(revision - 1);
        }
        if opened.database.is_none() {
            self.open_again(&mut opened)?;
        }
        let failed = |cause: std::io::Error| failed(&self.path, cause.into());
        bulkhead_failpoint::hit("store.commit").map_err(failed)?;
        // Also for what goes to the journal alone: the database has to take it some time.
        if let Some((_, room)) = &opened.database
            && !relieves
        {
            room.reserve().map_err(failed)?;
        }
        let journaled =
            durability == Durability::Process && opened.add_to_journal(revision, &changes);
        if !journaled {
            self.record(&mut opened, revision, &changes)?;
        }
        self.mirror.write().unwrap_or_else(PoisonError::into_inner).apply(revision, &changes);
        self.tell_watchers(&changes);
        self.revision.send_replace(revision);
        Ok(revision)
    }

    fn watch(&self, prefix: &str) -> broadcast::Receiver<Arc<Vec<Change>>> {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watcher) = watchers.iter().find(|watcher| watcher.prefix == prefix) {
            return watcher.sender.subscribe();
        }
        let (sender, receiver) = broadcast::channel(WATCH_BACKLOG);
        watchers.push(Watcher { prefix: prefix.to_owned(), sender });
        receiver
    }
}

fn database(path: &Path, disk: Disk) -> Result<Database, StoreError> {
    // The mirror answers reads, so redb's page cache (1 GiB by default) only serves commits.
    let opened = Database::builder().set_cache_size(4 << 20).create_with_backend(disk);
    opened.map_err(|error| match error {
        redb::DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(path.display().to_string()),
        other => match failed(path, other.into()) {
            StoreError::Database { path, cause } => StoreError::Open { path, cause },
            error => error,
        },
    })
}

fn mirror_of(database: &Database) -> Result<Mirror, redb::Error> {
    let mut mirror = Mirror { revision: revision_of(database)?, ..Mirror::default() };
    let transaction = database.begin_read()?;
    let entries = match transaction.open_table(ENTRIES) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(mirror),
        Err(error) => return Err(error.into()),
    };
    for row in entries.iter()? {
        let (key, value) = row?;
        let (modified, bytes) = value.value();
        mirror.entries.insert(key.value().to_owned(), (modified, bytes.to_vec()));
    }
    Ok(mirror)
}

/// The store's identity, drawn if it has none, and whether it was.
fn identity(database: &Database) -> Result<(u64, bool), redb::Error> {
    let known = match database.begin_read()?.open_table(COUNTERS) {
        Ok(counters) => counters.get(IDENTITY)?.map(|identity| identity.value()),
        Err(redb::TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(error.into()),
    };
    if let Some(identity) = known {
        return Ok((identity, false));
    }
    // Each has keys of its own from the kernel's random numbers.
    let identity = RandomState::new().hash_one(IDENTITY);
    let transaction = database.begin_write()?;
    transaction.open_table(COUNTERS)?.insert(IDENTITY, identity)?;
    transaction.open_table(ENTRIES)?;
    transaction.commit()?;
    Ok((identity, true))
}

fn revision_of(database: &Database) -> Result<Revision, redb::Error> {
    let transaction = database.begin_read()?;
    let counters = match transaction.open_table(COUNTERS) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    Ok(counters.get(REVISION)?.map_or(0, |revision| revision.value()))
}

/// One transaction: each key with the revision that wrote it and its value, or without any.
fn write<'a>(
    database: &Database,
    revision: Revision,
    rows: impl Iterator<Item = (&'a str, Option<(Revision, &'a [u8])>)>,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut entries = transaction.open_table(ENTRIES)?;
        for (key, row) in rows {
            match row {
                Some((modified, value)) => {
                    entries.insert(key, (modified, value))?;
                }
                None => {
                    entries.remove(key)?;
                }
            }
        }
        transaction.open_table(COUNTERS)?.insert(REVISION, revision)?;
    }
    transaction.commit()?;
    Ok(())
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// What an error of redb's is for callers: they can mend a full disk, and try again after others.
fn failed(path: &Path, cause: redb::Error) -> StoreError {
    let path = path.display().to_string();
    match cause {
        redb::Error::Io(cause) if is_full(&cause) => StoreError::Full { path, cause },
        redb::Error::Io(cause) => StoreError::Io { path, cause },
        cause => StoreError::Database { path, cause: Box::new(cause) },
    }
}
