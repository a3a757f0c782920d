//! One change of the records: on disk first, then in memory.

use bulkhead_store::{Compare, Durability, Write, put};
use bulkhead_types::Timestamp;
use serde::Serialize;

use crate::EngineError;
use crate::blocking::Blocking;
use crate::data_dir::Kind;
use crate::records::{Records, removal_key};

/// Records edits of records, each with what it means for the copy in memory. [`Self::commit`] writes
/// them in one store transaction and then makes the edits in memory; if it fails, memory stays as it
/// was. Two transactions on the same record are kept apart by a lock of the caller's.
///
/// It survives what the most demanding of its edits has to survive.
pub(crate) struct Transaction<'a> {
    durability: Durability,
    compare: Vec<Compare>,
    writes: Vec<Write>,
    effects: Vec<Box<dyn FnOnce() + Send + 'a>>,
}

impl Default for Transaction<'_> {
    fn default() -> Self {
        let durability = Durability::Process;
        Self { durability, compare: Vec::new(), writes: Vec::new(), effects: Vec::new() }
    }
}

impl<'a> Transaction<'a> {
    /// The commit fails if there is a record under `key` already.
    pub(crate) fn expect_absent(&mut self, key: String) {
        self.compare.push(Compare::Absent(key));
    }

    /// An edit that survives a power cut.
    pub(crate) fn put<T: Serialize>(
        &mut self,
        key: String,
        record: &T,
        in_memory: impl FnOnce() + Send + 'a,
    ) {
        self.put_to(Durability::Disk, key, record, in_memory);
    }

    pub(crate) fn put_to<T: Serialize>(
        &mut self,
        durability: Durability,
        key: String,
        record: &T,
        in_memory: impl FnOnce() + Send + 'a,
    ) {
        self.edit(durability, put(key, record), in_memory);
    }

    /// An edit that only memory has, such as an index.
    pub(crate) fn in_memory(&mut self, edit: impl FnOnce() + Send + 'a) {
        self.effects.push(Box::new(edit));
    }

    /// An edit that survives a power cut.
    pub(crate) fn delete(&mut self, key: String, in_memory: impl FnOnce() + Send + 'a) {
        self.delete_to(Durability::Disk, key, in_memory);
    }

    pub(crate) fn delete_to(
        &mut self,
        durability: Durability,
        key: String,
        in_memory: impl FnOnce() + Send + 'a,
    ) {
        self.edit(durability, Write::Delete(key), in_memory);
    }

    fn edit(&mut self, durability: Durability, write: Write, in_memory: impl FnOnce() + Send + 'a) {
        if durability == Durability::Disk {
            self.durability = durability;
        }
        self.writes.push(write);
        self.effects.push(Box::new(in_memory));
    }

    /// Says that a directory is to go, beside the edit that removes its record; whoever has removed
    /// the directory calls [`Records::removed`].
    pub(crate) fn intend_removal(&mut self, records: &Records, kind: Kind, name: &str) {
        // Of an earlier one of this name: its end is not this one's.
        records.forget_finished_removal(kind, name);
        // As durable as the removal.
        let key = removal_key(kind, name);
        self.put_to(Durability::Process, key, &Timestamp::now(), || {});
    }

    /// Says that a directory of this name stays: it is made again.
    pub(crate) fn cancel_removal(&mut self, kind: Kind, name: &str) {
        self.delete(removal_key(kind, name), || {});
    }

    /// Blocks for one flush of the disk, if it has to survive a power cut. The caller holds no lock of
    /// what the edits change.
    pub(crate) fn commit(self, records: &Records, may_block: &Blocking) -> Result<(), EngineError> {
        records.commit(may_block, self.durability, &self.compare, self.writes)?;
        for effect in self.effects {
            effect();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::blocking::blocking;
    use crate::data_dir::DataDir;

    #[tokio::test]
    async fn a_commit_that_fails_leaves_memory_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(Arc::new(DataDir::open(directory.path()).unwrap())).unwrap();
        blocking(move |may_block| {
            let memory = Mutex::new(Vec::new());
            let attempt = |value: u32| {
                let mut transaction = Transaction::default();
                transaction.expect_absent("a/1".to_owned());
                transaction.put("a/1".to_owned(), &value, || memory.lock().unwrap().push(value));
                transaction.delete("b/1".to_owned(), || memory.lock().unwrap().push(value + 1));
                transaction.commit(&records, may_block)
            };
            attempt(1)?;
            let error = attempt(7).unwrap_err();
            assert_eq!(error.class, crate::Class::Conflict);
            assert_eq!(*memory.lock().unwrap(), [1, 2]);
            assert_eq!(bulkhead_store::load(records.store(), "a/1")?, Some(1));
            Ok(())
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn a_finished_removal_goes_with_the_next_commit_and_a_later_one_of_its_name_stays() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(Arc::new(DataDir::open(directory.path()).unwrap())).unwrap();
        blocking(move |may_block| {
            let intend = |name: &str| {
                let mut transaction = Transaction::default();
                transaction.intend_removal(&records, Kind::Volume, name);
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
