//! One change of the records: on disk first, then in memory.

use bulkhead_store::{Compare, Write, put};
use serde::Serialize;

use crate::EngineError;
use crate::blocking::Blocking;
use crate::records::Records;

/// Records edits of records, each with what it means for the copy in memory. [`Self::commit`] writes
/// them in one store transaction and then makes the edits in memory; if it fails, memory stays as it
/// was. Two transactions on the same record are kept apart by a lock of the caller's.
#[derive(Default)]
pub(crate) struct Transaction<'a> {
    compare: Vec<Compare>,
    writes: Vec<Write>,
    effects: Vec<Box<dyn FnOnce() + Send + 'a>>,
}

impl<'a> Transaction<'a> {
    /// The commit fails if there is a record under `key` already.
    pub(crate) fn expect_absent(&mut self, key: String) {
        self.compare.push(Compare::Absent(key));
    }

    pub(crate) fn put<T: Serialize>(
        &mut self,
        key: String,
        record: &T,
        in_memory: impl FnOnce() + Send + 'a,
    ) {
        self.writes.push(put(key, record));
        self.effects.push(Box::new(in_memory));
    }

    /// An edit that only memory has, such as an index.
    pub(crate) fn in_memory(&mut self, edit: impl FnOnce() + Send + 'a) {
        self.effects.push(Box::new(edit));
    }

    pub(crate) fn delete(&mut self, key: String, in_memory: impl FnOnce() + Send + 'a) {
        self.writes.push(Write::Delete(key));
        self.effects.push(Box::new(in_memory));
    }

    /// Blocks for one flush of the disk. The caller holds no lock of what the edits change.
    pub(crate) fn commit(self, records: &Records, may_block: &Blocking) -> Result<(), EngineError> {
        records.commit(may_block, &self.compare, self.writes)?;
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
}
