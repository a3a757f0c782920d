//! What is asked of the builder, and what it asks of the engine.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;

use bulkhead_image::{Layer, StoredImage};
use bulkhead_types::{BuildStep, Digest, Reference, Timestamp};

use crate::BuildError;
use crate::event::Events;

/// What the user asked to build.
#[derive(Debug)]
pub struct BuildRequest {
    /// The unpacked context, resolved below this directory only.
    pub context: OwnedFd,
    /// An empty directory for what the build fetches, removed by the caller.
    pub scratch: OwnedFd,
    pub dockerfile: DockerfileSource,
    /// `--build-arg`; `None` is a name without a value, which is as if it were not given.
    pub arguments: BTreeMap<String, Option<String>>,
    pub labels: BTreeMap<String, String>,
    pub target: Option<String>,
    pub no_cache: bool,
    pub pull: bool,
    /// The steps' network in Docker's words. It counts for the cache, and `host` allows
    /// `RUN --network=host`.
    pub network: Option<String>,
    /// `--build-context NAME=VALUE`: `docker-image://REFERENCE` is what `FROM NAME` and
    /// `COPY --from=NAME` mean instead.
    pub contexts: BTreeMap<String, String>,
}

/// Where a Dockerfile is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerfileSource {
    /// Its path in the context; empty for `Dockerfile`. What of the context does not count, a file of
    /// patterns says: `PATH.dockerignore`, else `.dockerignore` at the top.
    InContext(String),
    /// Its text, beside a context that holds just what counts.
    Text(String),
}

impl Default for DockerfileSource {
    fn default() -> Self {
        Self::InContext(String::new())
    }
}

/// How the engine runs what a build needs. `vertex` is the operation that the events are about.
pub trait Executor: Send + Sync {
    /// Finds an image locally, or pulls it.
    fn image(
        &self,
        reference: &Reference,
        pull: Pull,
        vertex: Digest,
        events: &Events,
    ) -> impl Future<Output = Result<StoredImage, BuildError>> + Send;

    /// Fetches the file at an http or https address into `to`, within limits of size and time.
    fn fetch(
        &self,
        address: &str,
        to: File,
        vertex: Digest,
        events: &Events,
    ) -> impl Future<Output = Result<Fetched, BuildError>> + Send;

    /// Runs a step in a throw-away container with the same isolation as `docker run`, tells what
    /// it writes, and commits what it changed. `None`: it changed nothing.
    fn run(
        &self,
        step: BuildStep,
        vertex: Digest,
        events: &Events,
    ) -> impl Future<Output = Result<Option<Layer>, BuildError>> + Send;
}

/// What came from an address.
#[derive(Debug, Clone, Copy)]
pub struct Fetched {
    pub digest: Digest,
    /// When the file was changed last, if its server says so.
    pub modified: Option<Timestamp>,
}

/// When a base image is asked for at its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    IfMissing,
    Always,
}
