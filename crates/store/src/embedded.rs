use std::collections::BTreeMap;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::broadcast;

use crate::{Change, Compare, Entry, Revision, Store, StoreError, Write};

/// key → (revision that wrote it, value)
const ENTRIES: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("entries");
/// `revision` → the last one
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
const REVISION: &str = "revision";

/// Transactions that a slow watcher may be behind before its channel ends.
const WATCH_BACKLOG: usize = 1024;

/// The store of one machine, in one file.
///
/// Everything is mirrored in memory: what an engine or a control plane of one machine records is
/// megabytes at most, and a read must never wait for the disk. A commit goes to the disk first and
/// then to the mirror, so what was read is never lost by a crash.
#[derive(Debug)]
pub struct Embedded {
    database: Mutex<Database>,
    mirror: RwLock<Mirror>,
    watchers: Mutex<Vec<Watcher>>,
}

#[derive(Debug, Default)]
struct Mirror {
    revision: Revision,
    entries: BTreeMap<String, (Revision, Vec<u8>)>,
}

#[derive(Debug)]
struct Watcher {
    prefix: String,
    sender: broadcast::Sender<Arc<Vec<Change>>>,
}

impl Embedded {
    /// Opens the store, making the file if there is none. The file is locked as long as this lives.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        // Records hold what containers and tasks were given as their environment: secrets, often.
        // Made here for root alone; one that an earlier version made is closed to others.
        let file = std::fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .and_then(|file| file.set_permissions(std::fs::Permissions::from_mode(0o600)));
        file.map_err(|error| StoreError::Database(format!("{}: {error}", path.display())))?;
        // The mirror answers reads, so redb's page cache (1 GiB by default) only serves commits.
        let database = Database::builder().set_cache_size(4 << 20).create(path).map_err(
            |error| match error {
                redb::DatabaseError::DatabaseAlreadyOpen => {
                    StoreError::InUse(path.display().to_string())
                }
                other => StoreError::Database(format!("{}: {other}", path.display())),
            },
        )?;
        let mirror = Mirror::read(&database)?;
        Ok(Self {
            database: Mutex::new(database),
            mirror: RwLock::new(mirror),
            watchers: Mutex::default(),
        })
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

    fn commit(&self, compare: &[Compare], writes: &[Write]) -> Result<Revision, StoreError> {
        // Held to the end: commits happen one after the other, and watchers see them in order.
        let database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let (revision, changes) = {
            let mirror = self.mirror.read().unwrap_or_else(PoisonError::into_inner);
            if !compare.iter().all(|compare| mirror.holds(compare)) {
                return Err(StoreError::Conflict);
            }
            (mirror.revision + 1, mirror.changes(writes))
        };
        if changes.is_empty() {
            return Ok(revision - 1);
        }
        write(&database, revision, &changes).map_err(database_error)?;
        self.mirror.write().unwrap_or_else(PoisonError::into_inner).apply(revision, &changes);
        self.tell_watchers(&changes);
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

impl Mirror {
    fn read(database: &Database) -> Result<Self, StoreError> {
        let transaction = database.begin_read().map_err(database_error)?;
        let entries = match transaction.open_table(ENTRIES) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Self::default()),
            Err(error) => return Err(database_error(error)),
        };
        let mut mirror = Self::default();
        for row in entries.iter().map_err(database_error)? {
            let (key, value) = row.map_err(database_error)?;
            let (modified, bytes) = value.value();
            mirror.entries.insert(key.value().to_owned(), (modified, bytes.to_vec()));
        }
        let counters = transaction.open_table(COUNTERS).map_err(database_error)?;
        let revision = counters.get(REVISION).map_err(database_error)?;
        mirror.revision = revision.map_or(0, |revision| revision.value());
        Ok(mirror)
    }

    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::Absent(key) => !self.entries.contains_key(key),
            Compare::Exists(key) => self.entries.contains_key(key),
            Compare::Unchanged(key, revision) => {
                self.entries.get(key).is_some_and(|(modified, _)| modified == revision)
            }
        }
    }

    /// What `writes` come to: the last write of a key counts, absent keys are not deleted.
    fn changes(&self, writes: &[Write]) -> Vec<Change> {
        let mut last = BTreeMap::new();
        for write in writes {
            match write {
                Write::Put(key, value) => last.insert(key, Some(value)),
                Write::Delete(key) => last.insert(key, None),
            };
        }
        last.into_iter()
            .filter(|(key, value)| value.is_some() || self.entries.contains_key(*key))
            .map(|(key, value)| Change {
                revision: self.revision + 1,
                key: key.clone(),
                value: value.cloned(),
            })
            .collect()
    }

    fn apply(&mut self, revision: Revision, changes: &[Change]) {
        self.revision = revision;
        for change in changes {
            match &change.value {
                Some(value) => {
                    self.entries.insert(change.key.clone(), (revision, value.clone()));
                }
                None => {
                    self.entries.remove(&change.key);
                }
            }
        }
    }
}

fn write(database: &Database, revision: Revision, changes: &[Change]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut entries = transaction.open_table(ENTRIES)?;
        for change in changes {
            match &change.value {
                Some(value) => {
                    entries.insert(change.key.as_str(), (revision, value.as_slice()))?;
                }
                None => {
                    entries.remove(change.key.as_str())?;
                }
            }
        }
        transaction.open_table(COUNTERS)?.insert(REVISION, revision)?;
    }
    transaction.commit()?;
    Ok(())
}

fn database_error(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Database(error.into().to_string())
}
