//! Runs the graph: each operation from the cache or done now, those of independent stages at once.

mod context;
mod copy;
mod directory;
mod from;
mod layer;
mod remote;
mod run;
mod schedule;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use bulkhead_image::{Content, StoredImage};
use bulkhead_types::{Digest, Reference, Timestamp};
use tokio::sync::{OnceCell, watch};

use crate::BuildError;
use crate::cache::{self, Cache, CachedStep};
use crate::event::{Event, Events, Vertex, Warning};
use crate::graph::Graph;
use crate::ignore::Ignore;
use crate::instruction::{Instruction, Kind};
use crate::parse;
use crate::plan::{self, Choices, Plan};
use crate::request::{BuildRequest, Executor, Pull};
use crate::state::{Scope, State};

/// Builds, and returns the image.
///
/// `events` are told what is planned and what comes of it. What a step made is remembered in
/// `cache`, and used again while its layer is in `content`.
pub async fn build<E: Executor>(
    request: BuildRequest,
    content: Arc<Content>,
    cache: &dyn Cache,
    executor: &E,
    events: &Events,
) -> Result<StoredImage, BuildError> {
    let text = context::dockerfile(&request)?;
    let dockerfile = parse::parse(&text)?;
    for warning in &dockerfile.warnings {
        events.send(Event::Warning(Warning::Dockerfile(warning.clone()))).await;
    }
    let choices = Choices {
        arguments: &request.arguments,
        target: request.target.as_deref(),
        contexts: &request.contexts,
    };
    let plan = plan::plan(dockerfile, choices)?;
    let graph = Graph::new(&plan, &request.arguments)?;
    let ignore = Arc::new(context::ignore(&request)?);
    let platform = plan::platform_arguments(request.target.as_deref());
    let (context, scratch, rest) = split(request);
    let build = Build {
        request: &rest,
        context,
        scratch,
        ignore,
        plan: &plan,
        platform: &platform,
        content,
        cache,
        executor,
        events,
        images: Mutex::default(),
        finished: watch::Sender::default(),
    };
    build.run_all(&graph).await
}

/// Says what is wrong with a Dockerfile that can be told without its context.
pub fn check(
    text: &str,
    arguments: &BTreeMap<String, Option<String>>,
    target: Option<&str>,
    contexts: &BTreeMap<String, String>,
) -> Result<(), BuildError> {
    let plan = plan::plan(parse::parse(text)?, Choices { arguments, target, contexts })?;
    Graph::new(&plan, arguments).map(drop)
}

/// The request without its descriptors: that of the context is shared with the threads that read
/// it.
fn split(mut request: BuildRequest) -> (Arc<OwnedFd>, OwnedFd, Options) {
    let options = Options {
        arguments: std::mem::take(&mut request.arguments),
        labels: std::mem::take(&mut request.labels),
        no_cache: request.no_cache,
        pull: request.pull,
        network: request.network.take(),
    };
    (Arc::new(request.context), request.scratch, options)
}

/// What of the request the steps need.
#[derive(Debug)]
struct Options {
    arguments: BTreeMap<String, Option<String>>,
    labels: BTreeMap<String, String>,
    no_cache: bool,
    pull: bool,
    network: Option<String>,
}

/// Runs operations, those of independent stages at once: a stage's own state goes from one of its
/// operations to the next, and is shared when it is whole.
struct Build<'a, E> {
    request: &'a Options,
    context: Arc<OwnedFd>,
    scratch: OwnedFd,
    ignore: Arc<Ignore>,
    plan: &'a Plan,
    platform: &'a BTreeMap<String, String>,
    content: Arc<Content>,
    cache: &'a dyn Cache,
    executor: &'a E,
    events: &'a Events,
    /// Images that were found or pulled for this build.
    images: Mutex<BTreeMap<Reference, Arc<OnceCell<StoredImage>>>>,
    /// Stages that are whole, by their number in the plan.
    finished: watch::Sender<BTreeMap<usize, Arc<State>>>,
}

/// An operation that is being done.
#[derive(Debug, Clone, Copy)]
struct Running<'a> {
    vertex: &'a Vertex,
    /// The stage's number in the plan.
    stage: usize,
}

impl<E: Executor> Build<'_, E> {
    async fn instruction(
        &self,
        running: Running<'_>,
        state: &mut State,
        instruction: &Instruction,
    ) -> Result<(), BuildError> {
        let done = self.perform(running, state, instruction).await;
        let vertex = running.vertex;
        match &done {
            Ok(()) => self.completed(vertex, state.chain).await,
            Err(_) => self.events.send(Event::Failed(vertex.digest)).await,
        }
        done
    }

    async fn perform(
        &self,
        running: Running<'_>,
        state: &mut State,
        instruction: &Instruction,
    ) -> Result<(), BuildError> {
        let at = |message| BuildError::Dockerfile { line: instruction.line, message };
        let vertex = running.vertex;
        match &instruction.kind {
            Kind::Run(run) => self.run(vertex, state, run, instruction.line).await?,
            Kind::Copy(copy) => self.copy(running, state, copy, instruction).await?,
            Kind::Workdir(path) => {
                self.working_directory(vertex, state, path, instruction.line).await?;
            }
            kind => {
                let scope = Scope {
                    escape: self.plan.escape,
                    given: &self.request.arguments,
                    globals: &self.plan.global_values,
                    platform: self.platform,
                };
                let chain = state.chain;
                let created_by = state.apply(instruction, scope).map_err(at)?;
                let created_by = created_by.expect("all that works on files is matched above");
                let key = cache::key([&chain.hex(), created_by.as_str()]);
                let (step, cached) = match self.cached(key) {
                    Some(step) => (step, true),
                    None => (CachedStep { layer: None, created: now() }, false),
                };
                self.done(vertex, state, key, step, cached, created_by).await;
                if let Kind::Arg(names) = kind {
                    state.declared.extend(names.iter().map(|(name, _)| name.clone()));
                    // An argument counts where it is used: RUN has all of them in its key.
                    state.chain = chain;
                }
            }
        }
        state
            .check_weight()
            .map_err(|message| BuildError::Step { line: instruction.line, message })?;
        if state.layers.len() > MAX_LAYERS {
            return Err(BuildError::Step {
                line: instruction.line,
                message: format!("max depth exceeded: an image has at most {MAX_LAYERS} layers"),
            });
        }
        Ok(())
    }

    /// Looks a step up; what is found is whole.
    fn cached(&self, key: Digest) -> Option<CachedStep> {
        if self.request.no_cache {
            return None;
        }
        self.cache.find(key).filter(|step| step.is_whole(&self.content))
    }

    /// Makes a step part of the stage, and remembers it unless that is where it came from.
    async fn done(
        &self,
        vertex: &Vertex,
        state: &mut State,
        key: Digest,
        step: CachedStep,
        cached: bool,
        created_by: String,
    ) {
        if cached {
            self.events.send(Event::CacheHit(vertex.digest)).await;
        } else {
            self.cache.remember(key, step.clone(), created_by.clone(), state.step).await;
        }
        state.record(created_by, &step, key);
    }

    /// Finds an image, once per build however often it is named.
    async fn image(
        &self,
        vertex: &Vertex,
        reference: &Reference,
    ) -> Result<StoredImage, BuildError> {
        let known = {
            let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(images.entry(reference.clone()).or_default())
        };
        let pull = if self.request.pull { Pull::Always } else { Pull::IfMissing };
        let find = || self.executor.image(reference, pull, vertex.digest, self.events);
        known.get_or_try_init(find).await.cloned()
    }

    async fn completed(&self, vertex: &Vertex, image: Digest) {
        self.events.send(Event::Completed { vertex: vertex.digest, image: Some(image) }).await;
    }
}

fn now() -> String {
    Timestamp::now().to_string()
}

/// As Docker's overlay2 driver has it; the kernel stops at 500 (`OVL_MAX_STACK`).
const MAX_LAYERS: usize = 127;

#[cfg(test)]
mod tests;
