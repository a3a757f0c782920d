//! The build cache as clients have it: looked up, listed and pruned.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_types::Digest;

use crate::blocking::{Blocking, blocking};
use crate::build_cache::{CacheEntry, CachedStep, PrunedCache, Step, size_of};
use crate::transaction::Transaction;
use crate::{Engine, EngineError};

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
