//! One build from its context to a named image.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use bulkhead_builder::{BuildError, BuildRequest, Events};
use bulkhead_engine::{Engine, EngineError, HostConfig, ImageAction, PrunedCache};
use bulkhead_image::{Credentials, StoredImage};
use bulkhead_types::{Digest, Reference};

use crate::cache::EngineCache;
use crate::context::{self, ContextDirectory, ContextError};
use crate::executor::EngineExecutor;
use crate::prune::{self, PruneOptions};

/// What a front end was asked to build.
#[derive(Debug, Default)]
pub struct Build {
    /// The Dockerfile's path in the context; empty for `Dockerfile`.
    pub dockerfile: String,
    /// `--build-arg`; `None` is a name without a value, which is as if it were not given.
    pub arguments: BTreeMap<String, Option<String>>,
    pub labels: BTreeMap<String, String>,
    pub target: Option<String>,
    pub no_cache: bool,
    /// Asks the registry for base images that are here already.
    pub pull: bool,
    /// Names of images instead of those in FROM and COPY --from, as `docker-image://REFERENCE`.
    pub contexts: BTreeMap<String, String>,
    /// The image's names.
    pub references: Vec<Reference>,
    /// By registry.
    pub credentials: BTreeMap<String, Credentials>,
    /// What holds for the containers of all RUN steps: network, hosts, limits.
    pub host: HostConfig,
}

/// Builds on one engine.
#[derive(Debug, Clone)]
pub struct BuildService {
    engine: Arc<Engine>,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error(transparent)]
    Build(BuildError),
    #[error(transparent)]
    Context(#[from] ContextError),
    #[error(transparent)]
    Engine(EngineError),
}

impl From<BuildError> for ServiceError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Executor(error) => match error.downcast::<EngineError>() {
                Ok(error) => Self::Engine(*error),
                Err(error) => Self::Build(BuildError::Executor(error)),
            },
            error => Self::Build(error),
        }
    }
}

impl BuildService {
    pub fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    /// Removes the contexts that builds of a killed engine have left. Must run before the first
    /// build.
    pub fn sweep_contexts(&self) {
        context::sweep(&self.directory());
    }

    /// A new directory for a context. Blocks.
    pub fn context(&self) -> Result<ContextDirectory, ContextError> {
        ContextDirectory::make(&self.directory())
    }

    /// Builds, and gives the image its names. The context is removed in the background afterwards.
    pub async fn run(
        &self,
        build: Build,
        context: ContextDirectory,
        events: &Events,
    ) -> Result<StoredImage, ServiceError> {
        self.engine.check_steps(&build.host).map_err(ServiceError::Engine)?;
        let network = Some(build.host.network_mode.to_string());
        let request = BuildRequest {
            context: context.open()?,
            scratch: context.scratch()?,
            dockerfile: build.dockerfile,
            arguments: build.arguments,
            labels: build.labels,
            target: build.target,
            no_cache: build.no_cache,
            pull: build.pull,
            network: network.filter(|mode| mode != "bridge"),
            contexts: build.contexts,
        };
        let executor = EngineExecutor {
            engine: Arc::clone(&self.engine),
            credentials: build.credentials,
            host: build.host,
        };
        let cache = EngineCache(self.engine.build_cache());
        // Until the image has its names, a removal of another must not sweep its layers.
        let _unnamed = self.engine.images().hold_content().await;
        let content = self.engine.content();
        let built = bulkhead_builder::build(request, content, &cache, &executor, events).await?;
        // Removing the context is work for a thread that may block.
        tokio::task::spawn_blocking(move || drop(context));
        let names: Vec<String> = build.references.iter().map(Reference::familiar).collect();
        let named = self.engine.add_image(built.clone(), build.references).await;
        named.map_err(ServiceError::Engine)?;
        for name in names {
            self.engine.image_event(built.id, ImageAction::Tag, &name);
        }
        Ok(built)
    }

    /// Removes steps from the build cache, and the layers that nothing else stands on.
    pub async fn prune(&self, options: PruneOptions) -> Result<PrunedCache, EngineError> {
        let cache = self.engine.build_cache();
        let entries = cache.list().await?;
        let free = match rustix::fs::statvfs(&self.engine.options().data) {
            Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
            Err(errno) if options.min_free != 0 => {
                return Err(EngineError::internal(format!(
                    "the free space of the data directory is not known: {errno}"
                )));
            }
            Err(_) => 0,
        };
        let chosen: BTreeSet<Digest> =
            prune::choose(&entries, &options, free).into_iter().collect();
        cache.prune(move |entry| chosen.contains(&entry.key)).await
    }

    /// Where contexts are unpacked.
    fn directory(&self) -> PathBuf {
        self.engine.options().data.join("builds")
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_engine::Class;

    use super::*;

    #[test]
    fn what_the_engine_said_comes_through_a_build_whole() {
        let error = EngineError::new(Class::Denied, "no access").with_hint("log in");
        let error = BuildError::Executor(error.into());
        assert_eq!(error.to_string(), "no access; log in");
        let ServiceError::Engine(error) = ServiceError::from(error) else { panic!("the engine's") };
        assert_eq!((error.class, error.hint.as_deref()), (Class::Denied, Some("log in")));
        let other = ServiceError::from(BuildError::Executor("a server's".into()));
        assert!(matches!(&other, ServiceError::Build(error) if error.to_string() == "a server's"));
    }
}
