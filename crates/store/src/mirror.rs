//! What the store holds, in memory: reads never wait for the disk.

use std::collections::BTreeMap;

use crate::{Change, Compare, Revision, Write};

#[derive(Debug, Default)]
pub(crate) struct Mirror {
    pub revision: Revision,
    pub entries: BTreeMap<String, (Revision, Vec<u8>)>,
}

impl Mirror {
    /// Whether what `changes` come to needs no more room than there is: they give some back, or write
    /// known keys anew with little more in them. An end that must be recorded is of this kind.
    pub(crate) fn relieves(&self, changes: &[Change]) -> bool {
        const LITTLE: usize = 1024;
        let (mut before, mut after, mut new_keys) = (0, 0, false);
        for change in changes {
            let known = self.entries.get(&change.key);
            before += known.map_or(0, |(_, value)| change.key.len() + value.len());
            after += change.value.as_ref().map_or(0, |value| change.key.len() + value.len());
            new_keys |= known.is_none();
        }
        after <= before || (!new_keys && after <= before + LITTLE)
    }

    pub(crate) fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::Absent(key) => !self.entries.contains_key(key),
            Compare::Exists(key) => self.entries.contains_key(key),
            Compare::Unchanged(key, revision) => {
                self.entries.get(key).is_some_and(|(modified, _)| modified == revision)
            }
        }
    }

    /// What `writes` come to: the last write of a key counts, absent keys are not deleted.
    pub(crate) fn changes(&self, writes: &[Write]) -> Vec<Change> {
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

    pub(crate) fn apply(&mut self, revision: Revision, changes: &[Change]) {
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
