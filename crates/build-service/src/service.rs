//! One build from its context to a named image.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use bulkhead_builder::{BuildError, BuildRequest, DockerfileSource, Events};
use bulkhead_engine::{
    CacheEntry, ContentHold, Engine, EngineError, HostConfig, ImageAction, PrunedCache,
};
use bulkhead_image::StoredImage;
use bulkhead_types::{Digest, Reference};

use crate::cache::EngineCache;
use crate::context::{self, ContextDirectory, ContextError};
use crate::credentials::CredentialSource;
use crate::executor::EngineExecutor;
use crate::prune::{self, PruneOptions};

/// What a front end was asked to build.
#[derive(Debug, Default)]
pub struct Build {
    pub dockerfile: DockerfileSource,
    /// `--build-arg`; `None` is a name without a value, which is as if it were not given.
    pub arguments: BTreeMap<String, Option<String>>,
    pub labels: BTreeMap<String, String>,
    pub target: Option<String>,
    pub no_cache: bool,
    /// Asks the registry for base images that are here already.
    pub pull: bool,
    /// Names of images instead of those in FROM and COPY --from, as `docker-image://REFERENCE`.
    pub contexts: BTreeMap<String, String>,
    pub credentials: CredentialSource,
    /// What holds for the containers of all RUN steps: network, hosts, limits.
    pub host: HostConfig,
}

/// An image that has no name yet. As long as this is held, what it consists of stays.
#[derive(Debug)]
pub struct Built {
    pub image: StoredImage,
    _content: ContentHold,
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

    /// Says what is wrong with a build that can be told without its context.
    pub fn check(build: &Build) -> Result<(), ServiceError> {
        let DockerfileSource::Text(text) = &build.dockerfile else { return Ok(()) };
        let target = build.target.as_deref();
        Ok(bulkhead_builder::check(text, &build.arguments, target, &build.contexts)?)
    }

    /// Builds. The context is removed in the background afterwards.
    pub async fn build(
        &self,
        build: Build,
        context: ContextDirectory,
        events: &Events,
    ) -> Result<Built, ServiceError> {
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
        let held = self.engine.images().hold_content().await;
        let content = self.engine.content();
        let built = bulkhead_builder::build(request, content, &cache, &executor, events).await?;
        drop(context);
        Ok(Built { image: built, _content: held })
    }

    /// Gives an image its names, or none, and makes it one of the engine's.
    pub async fn publish(
        &self,
        built: Built,
        references: Vec<Reference>,
    ) -> Result<StoredImage, ServiceError> {
        let names: Vec<String> = references.iter().map(Reference::familiar).collect();
        let named = self.engine.add_image(built.image.clone(), references).await;
        named.map_err(ServiceError::Engine)?;
        for name in names {
            self.engine.image_event(built.image.id, ImageAction::Tag, &name);
        }
        Ok(built.image)
    }

    /// An image's configuration, as its bytes are.
    pub async fn configuration(&self, image: &StoredImage) -> Result<Vec<u8>, ServiceError> {
        let (content, id) = (self.engine.content(), image.id);
        let read = tokio::task::spawn_blocking(move || content.read(id)).await;
        read.map_err(|panic| panic.to_string())
            .and_then(|read| read.map_err(|error| error.to_string()))
            .map_err(|why| ServiceError::Engine(EngineError::internal(why)))
    }

    /// The address by which containers of RUN reach this host, where there is one.
    pub fn host_gateway(&self) -> Option<std::net::Ipv4Addr> {
        let bridge = self.engine.network("bridge").ok()?.network?;
        Some(bridge.ipv4?.gateway)
    }

    /// The steps of the build cache.
    pub async fn cached(&self) -> Result<Vec<CacheEntry>, EngineError> {
        self.engine.build_cache().list().await
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
