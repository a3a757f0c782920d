//! The engine's records on disk, and the removals that are not finished.
//!
//! A removal is recorded with an intent, `removing/KIND/NAME`, in one transaction; it goes when the
//! directory has gone. So a directory without a record is removed only if the store says that it was
//! to go: others are moved aside (see `recover.rs`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_store::{Compare, Embedded, Revision, Store, Write};
use bulkhead_types::Timestamp;

use crate::EngineError;
use crate::blocking::Blocking;
use crate::data_dir::{DataDir, Kind};
use crate::transaction::Transaction;

const INTENTS: &str = "removing/";

/// The store of one engine. Written to by [`Transaction::commit`] alone.
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

    /// One flush of the disk, with which the intents of finished removals go too: a flush of their
    /// own would cost every removal as much as the removal.
    pub(crate) fn commit(
        &self,
        _: &Blocking,
        compare: &[Compare],
        writes: Vec<Write>,
    ) -> Result<(), EngineError> {
        let mut finished = self.finished();
        if finished.is_empty() {
            drop(finished);
            if !writes.is_empty() {
                self.store.commit(compare, &writes)?;
            }
            return Ok(());
        }
        // Before the others: whoever makes a volume of the same name again has the last word.
        let mut all: Vec<Write> = finished.iter().cloned().map(Write::Delete).collect();
        all.extend(writes);
        self.store.commit(compare, &all)?;
        finished.clear();
        Ok(())
    }

    /// The edit that says that a directory is to go, beside the one that removes its record;
    /// whoever has removed the directory calls [`Self::removed`].
    pub(crate) fn intend_removal(&self, transaction: &mut Transaction<'_>, kind: Kind, name: &str) {
        let key = intent(kind, name);
        // Of an earlier one of this name: its end is not this one's.
        self.finished().retain(|finished| *finished != key);
        transaction.put(key, &Timestamp::now(), || {});
    }

    /// The edit that says that a directory of this name stays: it is made again.
    pub(crate) fn cancel_removal(&self, transaction: &mut Transaction<'_>, kind: Kind, name: &str) {
        transaction.delete(intent(kind, name), || {});
    }

    /// Notes that a directory has gone.
    pub(crate) fn removed(&self, kind: Kind, name: &str) {
        self.finished().push(intent(kind, name));
    }

    /// Deletes the intents of what has gone. Not doing so costs a few bytes.
    pub(crate) fn forget_finished_removals(&self, may_block: &Blocking) {
        if let Err(error) = self.commit(may_block, &[], Vec::new()) {
            tracing::warn!(%error, "forget removals that are finished");
        }
    }

    /// The names of all directories of this kind that are to go.
    pub(crate) fn removals(&self, kind: Kind) -> Vec<String> {
        let prefix = intent(kind, "");
        let entries = self.store.range(&prefix).unwrap_or_default();
        entries.iter().map(|entry| entry.key[prefix.len()..].to_owned()).collect()
    }

    fn finished(&self) -> MutexGuard<'_, Vec<String>> {
        self.finished_removals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn intent(kind: Kind, name: &str) -> String {
    format!("{INTENTS}{}/{name}", kind.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocking::blocking;

    #[tokio::test]
    async fn a_finished_removal_goes_with_the_next_commit_and_a_later_one_of_its_name_stays() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(Arc::new(DataDir::open(directory.path()).unwrap())).unwrap();
        blocking(move |may_block| {
            let intend = |name: &str| {
                let mut transaction = Transaction::default();
                records.intend_removal(&mut transaction, Kind::Volume, name);
                transaction.commit(&records, may_block)
            };
            intend("one")?;
            intend("two")?;
            assert_eq!(records.removals(Kind::Volume), ["one", "two"]);
            assert!(records.removals(Kind::Container).is_empty());
            records.removed(Kind::Volume, "one");
            records.removed(Kind::Volume, "two");
            intend("two")?;
            assert_eq!(records.removals(Kind::Volume), ["two"]);
            records.forget_finished_removals(may_block);
            assert_eq!(records.removals(Kind::Volume), ["two"]);
            Ok(())
        })
        .await
        .unwrap();
    }
}
