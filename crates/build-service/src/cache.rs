//! The engine's build cache as the builder's.

use std::pin::Pin;

use bulkhead_builder::{Cache, CachedStep};
use bulkhead_engine::BuildCache;
use bulkhead_types::{Chain, Digest};

#[derive(Debug)]
pub(crate) struct EngineCache(pub(crate) BuildCache);

impl Cache for EngineCache {
    fn find(&self, key: Digest) -> Option<CachedStep> {
        let step = self.0.lookup(key)?;
        Some(CachedStep { layer: step.layer, created: step.created })
    }

    fn remember<'a>(
        &'a self,
        key: Digest,
        step: CachedStep,
        description: String,
        parent: Option<Digest>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        let CachedStep { layer, created } = step;
        let step = bulkhead_engine::CachedStep { layer, created, description, parent };
        Box::pin(async move {
            if let Err(error) = self.0.store(key, step).await {
                // The build is right all the same, only slower the next time.
                tracing::warn!(error = %Chain(&error), "remember a build step");
            }
        })
    }
}
