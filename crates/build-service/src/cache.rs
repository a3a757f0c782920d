//! The engine's build cache as the builder's.

use std::sync::Arc;

use bulkhead_builder::{Cache, CachedStep};
use bulkhead_engine::Engine;
use bulkhead_types::Digest;

#[derive(Debug)]
pub(crate) struct EngineCache(pub(crate) Arc<Engine>);

impl Cache for EngineCache {
    fn find(&self, key: Digest) -> Option<CachedStep> {
        // An entry that an older version wrote differently is no entry.
        serde_json::from_slice(&self.0.cached_step(key)?).ok()
    }

    fn remember(&self, key: Digest, step: &CachedStep, _description: &str) {
        match serde_json::to_vec(step) {
            Ok(bytes) => self.0.remember_step(key, bytes),
            Err(error) => tracing::warn!("a build step is not cached: {error}"),
        }
    }
}
