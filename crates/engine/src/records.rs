//! The engine's records on disk, and the removals that are not finished.
//!
//! A removal is recorded with an intent, `removing/KIND/NAME`, in one transaction; it goes when the
//! directory has gone. So a directory without a record is removed only if the store says that it was
//! to go: others are moved aside (see `recover.rs`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_store::{Compare, Durability, Embedded, Revision, Store, Write};

use crate::EngineError;
use crate::blocking::Blocking;
use crate::data_dir::{DataDir, Kind};

const INTENTS: &str = "removing/";

/// The store of one engine. Written to by `Transaction::commit` alone.
#[derive(Debug)]
pub(crate) struct Records {
    store: Embedded,
    /// Keys of intents whose directories have gone. Held over the flush that deletes them, so that
    /// none of a later removal of the same name goes with them.
    finished_removals: Mutex<Vec<String>>,
    /// After the store: fields are dropped in this order, and whoever gets the directory's lock finds
    /// the store free.
    _data_dir: Arc<DataDir>,
}

impl Records {
    /// Fails if another engine has the file, and if it is none of ours.
    pub(crate) fn open(data_dir: Arc<DataDir>) -> Result<Self, EngineError> {
        let store = Embedded::open(&data_dir.data.join("engine.redb"))?;
        Ok(Self { store, finished_removals: Mutex::default(), _data_dir: data_dir })
    }

    /// For reading.
    pub(crate) fn store(&self) -> &dyn Store {
        &self.store
    }

    /// Changes with every commit.
    pub(crate) fn revisions(&self) -> tokio::sync::watch::Receiver<Revision> {
        self.store.revisions()
    }

    /// Whether this may not be all that was ever recorded here: it was made anew, or put back.
    pub(crate) fn history_is_lost(&self) -> bool {
        self.store.history_is_lost()
    }

    pub(crate) fn confirm_history(&self) {
        self.store.confirm();
    }

    /// One flush of the disk at most, with which the intents of finished removals go too: a flush of
    /// their own would cost every removal as much as the removal.
    pub(crate) fn commit(
        &self,
        _: &Blocking,
        durability: Durability,
        compare: &[Compare],
        writes: Vec<Write>,
    ) -> Result<(), EngineError> {
        let mut finished = self.finished();
        if finished.is_empty() {
            drop(finished);
            if !writes.is_empty() {
                self.store.commit_to(durability, compare, &writes)?;
            }
            return Ok(());
        }
        // Before the others: whoever makes a volume of the same name again has the last word.
        let mut all: Vec<Write> = finished.iter().cloned().map(Write::Delete).collect();
        all.extend(writes);
        self.store.commit_to(durability, compare, &all)?;
        finished.clear();
        Ok(())
    }

    /// An intent of this name is about to be recorded: an earlier one that is finished is not its end.
    pub(crate) fn forget_finished_removal(&self, kind: Kind, name: &str) {
        let key = removal_key(kind, name);
        self.finished().retain(|finished| *finished != key);
    }

    /// Notes that a directory has gone.
    pub(crate) fn removed(&self, kind: Kind, name: &str) {
        self.finished().push(removal_key(kind, name));
    }

    /// Deletes the intents of what has gone. Not doing so costs a few bytes.
    pub(crate) fn forget_finished_removals(&self, may_block: &Blocking) {
        if let Err(error) = self.commit(may_block, Durability::Process, &[], Vec::new()) {
            tracing::warn!(%error, "forget removals that are finished");
        }
    }

    /// The names of all directories of this kind that are to go.
    pub(crate) fn removals(&self, kind: Kind) -> Vec<String> {
        let prefix = removal_key(kind, "");
        let entries = self.store.range(&prefix).unwrap_or_default();
        entries.iter().map(|entry| entry.key[prefix.len()..].to_owned()).collect()
    }

    fn finished(&self) -> MutexGuard<'_, Vec<String>> {
        self.finished_removals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn removal_key(kind: Kind, name: &str) -> String {
    format!("{INTENTS}{}/{name}", kind.name())
}
