use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use bulkhead_image::StoredImage;
use bulkhead_types::{Digest, Reference};

use crate::BuildError;

/// What the user asked to build.
#[derive(Debug)]
pub struct BuildRequest {
    /// The unpacked context, resolved below this directory only.
    pub context: OwnedFd,
    /// The Dockerfile's path in the context.
    pub dockerfile: String,
    /// `--build-arg`; `None` is a name without a value, which is as if it were not given.
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
