//! The build cache: what steps of builds came to, what that takes on disk, and its end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bulkhead_image::Content;
use bulkhead_types::image::Descriptor;
use bulkhead_types::{Digest, Timestamp};
use serde::{Deserialize, Serialize};

use crate::EngineError;
use crate::records::Records;
use crate::transaction::Transaction;

/// What a step of a build came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CachedStep {
    /// Its layer as an archive, and the diff id of the unpacked one. `None`: it changed no file.
    pub layer: Option<(Descriptor, Digest)>,
    /// When the step was done (RFC 3339): a build that is cached as a whole gives the same image.
    #[serde(default)]
    pub created: String,
    /// The instruction, for people.
    #[serde(default)]
    pub description: String,
    /// The key of the step that it stands on.
    #[serde(default)]
    pub parent: Option<Digest>,
}

/// A step in the cache, as `docker system df` and `docker builder prune` look at it.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheEntry {
    pub key: Digest,
    pub step: CachedStep,
    /// Bytes of its layer, packed and unpacked; `None` if they are not known.
    pub size: Option<u64>,
    /// `None`: never since it was made.
    pub last_used: Option<Timestamp>,
    pub uses: u64,
    /// Images that stand on its layer: it takes no room of its own, and pruning it frees none.
    pub images: Vec<Digest>,
}

/// What [`BuildCache::prune`] removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrunedCache {
    pub keys: Vec<Digest>,
    /// Bytes of layers that nothing else stands on.
    pub bytes: u64,
}

/// Bytes of a step's layer, packed and unpacked.
pub(crate) fn size_of(step: &CachedStep, content: &Content) -> Option<u64> {
    match &step.layer {
        None => Some(0),
        Some((descriptor, diff_id)) => {
            let packed = content.blob_size(descriptor.digest).ok()?;
            Some(packed + content.layer_size(*diff_id).ok()?)
        }
    }
}

/// What the store keeps of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    #[serde(flatten)]
    pub(crate) step: CachedStep,
    /// Unknown of those that an earlier version stored.
    #[serde(default)]
    pub(crate) size: Option<u64>,
    #[serde(default)]
    pub(crate) last_used: Option<Timestamp>,
    #[serde(default)]
    pub(crate) uses: u64,
}

/// The records of the cache, under `step/` in the store. Their lock is taken last: nothing else is
/// locked under it.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    steps: BTreeMap<Digest, Step>,
    /// Used since they were last written.
    used: BTreeSet<Digest>,
}

impl Steps {
    const PREFIX: &str = "step/";

    pub(crate) fn recover(&self, records: &Records) -> Result<(), EngineError> {
        let entries = records.store().range(Self::PREFIX)?;
        let mut known = self.known();
        for entry in entries {
            let key = entry.key.trim_start_matches(Self::PREFIX).parse();
            match (key, serde_json::from_slice(&entry.value)) {
                (Ok(key), Ok(step)) => drop(known.steps.insert(key, step)),
                // A build is right without it, only slower.
                _ => tracing::warn!(key = entry.key, "a cached build step is not understood"),
            }
        }
        Ok(())
    }

    /// What the cache stands on: blobs and diff ids.
    pub(crate) fn content(&self) -> Vec<Digest> {
        let known = self.known();
        let layers = known.steps.values().filter_map(|record| record.step.layer.as_ref());
        layers.flat_map(|(descriptor, diff_id)| [descriptor.digest, *diff_id]).collect()
    }

    /// Writes with `transaction` which steps were used: on the occasion, since a flush of the disk
    /// for each use would slow down every cached build.
    pub(crate) fn note_uses<'a>(&'a self, transaction: &mut Transaction<'a>) {
        let used: Vec<(Digest, Step)> = {
            let mut known = self.known();
            let used = std::mem::take(&mut known.used);
            let record = |key: Digest| Some((key, known.steps.get(&key)?.clone()));
            used.into_iter().filter_map(record).collect()
        };
        for (key, record) in used {
            transaction.put(Self::key(key), &record, || {});
        }
    }

    pub(crate) fn use_step(&self, key: Digest) -> Option<CachedStep> {
        let mut known = self.known();
        let record = known.steps.get_mut(&key)?;
        record.last_used = Some(Timestamp::now());
        record.uses += 1;
        let step = record.step.clone();
        known.used.insert(key);
        Some(step)
    }

    pub(crate) fn all(&self) -> Vec<(Digest, Step)> {
        self.known().steps.iter().map(|(key, record)| (*key, record.clone())).collect()
    }

    pub(crate) fn put<'a>(&'a self, transaction: &mut Transaction<'a>, key: Digest, record: Step) {
        transaction.put(Self::key(key), &record.clone(), move || {
            self.known().steps.insert(key, record);
        });
    }

    pub(crate) fn delete<'a>(&'a self, transaction: &mut Transaction<'a>, key: Digest) {
        transaction.delete(Self::key(key), move || {
            let mut known = self.known();
            known.steps.remove(&key);
            known.used.remove(&key);
        });
    }

    fn key(key: Digest) -> String {
        format!("{}{key}", Self::PREFIX)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_store::Write;

    use std::sync::Arc;

    use super::*;
    use crate::data_dir::DataDir;

    #[test]
    fn steps_of_an_earlier_version_are_still_known() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(Arc::new(DataDir::open(directory.path()).unwrap())).unwrap();
        let (blob, layer) = (Digest::of(b"blob"), Digest::of(b"layer"));
        let old = [
            format!(
                r#"{{"layer":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{blob}","size":4}},"{layer}"],"created":"2025-01-01T00:00:00Z"}}"#
            ),
            r#"{"layer":null}"#.to_owned(),
            "of a version before that".to_owned(),
        ];
        let keys = [b"1", b"2", b"3"].map(|text| Digest::of(text));
        for (key, text) in keys.iter().zip(old) {
            records
                .store()
                .commit(&[], &[Write::Put(format!("step/{key}"), text.into_bytes())])
                .unwrap();
        }
        let steps = Steps::default();
        steps.recover(&records).unwrap();
        let step = steps.use_step(keys[0]).unwrap();
        assert_eq!(step.layer.unwrap().1, layer);
        assert_eq!(step.created, "2025-01-01T00:00:00Z");
        assert!(steps.use_step(keys[1]).unwrap().layer.is_none());
        assert!(steps.use_step(keys[2]).is_none());
        assert_eq!(steps.content(), [blob, layer]);
    }
}
