//! Dockerfiles: parsed, turned into a graph of stages and steps, run with a cache into an image.
//!
//! Running a step is the engine's work, behind [`Executor`]; this crate decides what runs.
#![forbid(unsafe_code)]
#![allow(clippy::todo, unused_variables, dead_code, unused_imports)]

mod expand;
mod parse;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bulkhead_image::{Content, StoredImage};
use bulkhead_spec::{Digest, Reference, image};

/// What the user asked to build.
#[derive(Debug)]
pub struct BuildRequest {
    /// The unpacked context, resolved below this directory only.
    pub context: OwnedFd,
    /// The Dockerfile's path in the context.
    pub dockerfile: String,
    pub arguments: BTreeMap<String, Option<String>>,
    pub labels: BTreeMap<String, String>,
    pub target: Option<String>,
    pub no_cache: bool,
    pub pull: bool,
    pub network: Option<String>,
    pub extra_hosts: Vec<String>,
    /// `--build-context NAME=VALUE`: `docker-image://REFERENCE` is what `FROM NAME` and
    /// `COPY --from=NAME` mean instead.
    pub contexts: BTreeMap<String, String>,
}

/// A container for one RUN step.
#[derive(Debug, Clone)]
pub struct RunStep {
    pub arguments: Vec<String>,
    pub environment: Vec<String>,
    pub working_directory: String,
    pub user: String,
    pub network: Option<String>,
    pub extra_hosts: Vec<String>,
    /// Layers below, lowest first (diff ids).
    pub layers: Vec<Digest>,
}

/// How the engine runs what a build needs.
pub trait Executor: Send + Sync {
    /// Finds an image locally, or pulls it (always when `pull`).
    fn image(
        &self,
        reference: &Reference,
        pull: bool,
        output: &Output,
    ) -> impl Future<Output = Result<StoredImage, BuildError>> + Send;

    /// Runs a step in a throw-away container with the same isolation as `docker run`, sends its
    /// output to `output`, and commits what it changed. `None`: it changed nothing.
    fn run(
        &self,
        step: RunStep,
        output: &Output,
    ) -> impl Future<Output = Result<Option<bulkhead_image::Layer>, BuildError>> + Send;
}

/// Text that the user sees while the build goes (Docker's `{"stream": …}`).
pub type Output = dyn Fn(&str) + Send + Sync;

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Names the file and the line, such as `Dockerfile:3: unknown instruction: RUNN`.
    #[error("dockerfile parse error on line {line}: {message}")]
    Dockerfile { line: usize, message: String },
    #[error("the Dockerfile {0} is not in the build context")]
    NoDockerfile(String),
    #[error("The command '{command}' returned a non-zero code: {code}")]
    Failed { command: String, code: u8 },
    #[error("{what}: {cause}")]
    Io { what: String, cause: std::io::Error },
    #[error(transparent)]
    Image(#[from] bulkhead_image::ImageError),
    /// From the executor: the engine's own words.
    #[error("{0}")]
    Engine(String),
}

/// Builds, and returns the image. The cache lives in `cache`, keyed by parent layers and step.
pub async fn build<E: Executor>(
    request: BuildRequest,
    content: Arc<Content>,
    cache: &dyn Cache,
    executor: &E,
    output: &Output,
) -> Result<StoredImage, BuildError> {
    todo!()
}

/// Remembers which layer a step made: key → layer and image configuration so far.
pub trait Cache: Send + Sync {
    fn find(&self, key: Digest) -> Option<CachedStep>;
    fn remember(&self, key: Digest, step: CachedStep);
}

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct CachedStep {
    /// `None`: the step changed no file.
    pub layer: Option<(image::Descriptor, Digest)>,
}
