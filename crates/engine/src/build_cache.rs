//! The build cache: what steps of builds came to, what that takes on disk, and its end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_image::Content;
use bulkhead_types::image::Descriptor;
use bulkhead_types::{Digest, Timestamp};
use serde::{Deserialize, Serialize};

use crate::blocking::{Blocking, blocking};
use crate::records::Records;
use crate::transaction::Transaction;
use crate::{Engine, EngineError};

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

/// The build cache of an engine.
#[derive(Debug, Clone)]
pub struct BuildCache {
    engine: Arc<Engine>,
}

impl Engine {
    pub fn build_cache(self: &Arc<Self>) -> BuildCache {
        BuildCache { engine: Arc::clone(self) }
    }
}

impl BuildCache {
    /// What the step with this key came to. Its content may be gone; the builder looks.
    pub fn lookup(&self, key: Digest) -> Option<CachedStep> {
        self.engine.steps.use_step(key)
    }

    /// Remembers a step; its content is kept from now on. To be called while content is held, see
    /// [`Engine::hold_content`].
    pub async fn store(&self, key: Digest, step: CachedStep) -> Result<(), EngineError> {
        let engine = Arc::clone(&self.engine);
        blocking(move |may_block| {
            let size = size_of(&step, &engine.content);
            let record = Step { step, size, last_used: None, uses: 0 };
            let mut transaction = Transaction::default();
            engine.steps.put(&mut transaction, key, record);
            transaction.commit(&engine.records, may_block)
        })
        .await
    }

    /// Every step, in the order of their keys.
    pub async fn list(&self) -> Result<Vec<CacheEntry>, EngineError> {
        let engine = Arc::clone(&self.engine);
        blocking(move |may_block| Ok(engine.cache_entries(may_block))).await
    }

    /// Forgets the steps that `chosen` chooses and frees the layers that nothing else needs.
    pub async fn prune(
        &self,
        chosen: impl Fn(&CacheEntry) -> bool + Send + 'static,
    ) -> Result<PrunedCache, EngineError> {
        let engine = Arc::clone(&self.engine);
        blocking(move |may_block| engine.prune_cache(may_block, &chosen)).await
    }
}

impl Engine {
    fn cache_entries(&self, _: &Blocking) -> Vec<CacheEntry> {
        let mut images: BTreeMap<Digest, Vec<Digest>> = BTreeMap::new();
        for record in self.images.records().all() {
            for layer in &record.layers {
                images.entry(*layer).or_default().push(record.stored.id);
            }
        }
        let entry = |(key, record): (Digest, Step)| CacheEntry {
            key,
            size: record.size.or_else(|| size_of(&record.step, &self.content)),
            last_used: record.last_used,
            uses: record.uses,
            images: record
                .step
                .layer
                .as_ref()
                .and_then(|(_, diff_id)| images.get(diff_id).cloned())
                .unwrap_or_default(),
            step: record.step,
        };
        self.steps.all().into_iter().map(entry).collect()
    }

    fn prune_cache(
        self: &Arc<Self>,
        may_block: &Blocking,
        chosen: &dyn Fn(&CacheEntry) -> bool,
    ) -> Result<PrunedCache, EngineError> {
        let entries: Vec<CacheEntry> =
            self.cache_entries(may_block).into_iter().filter(|entry| chosen(entry)).collect();
        let mut transaction = Transaction::default();
        for entry in &entries {
            self.steps.delete(&mut transaction, entry.key);
        }
        transaction.commit(&self.records, may_block)?;
        let needed = self.needed_content(may_block);
        let mut freed = BTreeMap::new();
        for entry in &entries {
            if let Some((_, diff_id)) = entry.step.layer
                && !needed.contains(&diff_id)
            {
                freed.insert(diff_id, entry.size.unwrap_or(0));
            }
        }
        if !self.sweep(may_block)? {
            self.sweep_later();
        }
        Ok(PrunedCache {
            keys: entries.into_iter().map(|entry| entry.key).collect(),
            bytes: freed.into_values().sum(),
        })
    }
}

/// Bytes of a step's layer, packed and unpacked.
fn size_of(step: &CachedStep, content: &Content) -> Option<u64> {
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
struct Step {
    #[serde(flatten)]
    step: CachedStep,
    /// Unknown of those that an earlier version stored.
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    last_used: Option<Timestamp>,
    #[serde(default)]
    uses: u64,
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

    fn use_step(&self, key: Digest) -> Option<CachedStep> {
        let mut known = self.known();
        let record = known.steps.get_mut(&key)?;
        record.last_used = Some(Timestamp::now());
        record.uses += 1;
        let step = record.step.clone();
        known.used.insert(key);
        Some(step)
    }

    fn all(&self) -> Vec<(Digest, Step)> {
        self.known().steps.iter().map(|(key, record)| (*key, record.clone())).collect()
    }

    fn put<'a>(&'a self, transaction: &mut Transaction<'a>, key: Digest, record: Step) {
        transaction.put(Self::key(key), &record.clone(), move || {
            self.known().steps.insert(key, record);
        });
    }

    fn delete<'a>(&'a self, transaction: &mut Transaction<'a>, key: Digest) {
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
