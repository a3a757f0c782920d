//! What the builder needs of the engine: images, containers for RUN, and the cache of steps.

use std::collections::BTreeMap;
use std::sync::Arc;

use bulkhead_builder::{BuildError, Cache, CachedStep, Executor, Output, RunStep};
use bulkhead_engine::{BuildCache, Class, Engine, Image, Step};
use bulkhead_image::{Credentials, Layer, StoredImage};
use bulkhead_types::{Digest, Reference};

use crate::lines::Lines;

/// One build's view of the engine.
#[derive(Debug)]
pub(crate) struct EngineExecutor {
    pub(crate) engine: Arc<Engine>,
    /// By registry, from `X-Registry-Config`.
    pub(crate) credentials: BTreeMap<String, Credentials>,
    /// Where a pull's progress goes; `None` for a quiet build.
    pub(crate) lines: Option<Lines>,
}

impl Executor for EngineExecutor {
    async fn image(
        &self,
        reference: &Reference,
        pull: bool,
        _output: &Output,
    ) -> Result<StoredImage, BuildError> {
        let stored = |image: Image| StoredImage { id: image.id, manifest: image.manifest };
        if !pull {
            match self.engine.image(&reference.to_string()) {
                Ok(image) => return Ok(stored(image)),
                Err(error) if error.class == Class::NotFound => {}
                Err(error) => return Err(BuildError::Engine(error.message)),
            }
        }
        let lines = self.lines.clone();
        let progress = Arc::new(move |progress| {
            if let Some(lines) = &lines {
                lines.progress(progress);
            }
        });
        let credentials = self.credentials.get(reference.domain()).cloned();
        match self.engine.pull(reference, credentials, progress).await {
            Ok(image) => Ok(stored(image)),
            Err(error) => Err(BuildError::Engine(error.message)),
        }
    }

    async fn run(&self, step: RunStep, output: &Output) -> Result<Option<Layer>, BuildError> {
        let command = step.arguments.join(" ");
        let step = Step {
            arguments: step.arguments,
            environment: step.environment,
            working_directory: step.working_directory,
            user: step.user,
            network: step.network.unwrap_or_else(|| "default".to_owned()),
            extra_hosts: step.extra_hosts,
            layers: step.layers,
        };
        match self.engine.run_step(step, output).await {
            Ok((0, layer)) => Ok(layer),
            Ok((code, _)) => Err(BuildError::Failed { command, code }),
            Err(error) => Err(BuildError::Engine(error.message)),
        }
    }
}

/// The engine's build cache as the builder's.
#[derive(Debug)]
pub(crate) struct EngineCache(pub(crate) BuildCache);

impl Cache for EngineCache {
    fn find(&self, key: Digest) -> Option<CachedStep> {
        let step = self.0.lookup(key)?;
        Some(CachedStep { layer: step.layer, created: step.created })
    }

    fn remember(&self, key: Digest, step: CachedStep) {
        let step = bulkhead_engine::CachedStep {
            layer: step.layer,
            created: step.created,
            description: String::new(),
            parent: None,
        };
        // The builder's trait is synchronous: the runtime's thread is given up for the time.
        let store = || tokio::runtime::Handle::current().block_on(self.0.store(key, step));
        if let Err(error) = tokio::task::block_in_place(store) {
            // The build is right all the same, only slower the next time.
            tracing::warn!(%error, "remember a build step");
        }
    }
}
