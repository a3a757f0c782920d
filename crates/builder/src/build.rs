//! Runs the graph: each operation from the cache or done now.

mod context;
mod files;
mod remote;
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use bulkhead_image::{Content, StoredImage};
use bulkhead_types::{Digest, Reference, Timestamp};

use crate::BuildError;
use crate::cache::{self, Cache, CachedStep};
use crate::event::{Event, Events, Vertex, Warning};
use crate::graph::{self, Action, Graph};
use crate::ignore::Ignore;
use crate::instruction::{Instruction, Kind};
use crate::parse;
use crate::plan::{self, Base, Choices, Plan, Stage};
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
    };
    build.run_all(&graph).await
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

/// Runs operations. Nothing in here changes but the images that were found, so operations of
/// independent stages may run at once; a stage's own state goes from one of its operations to the
/// next.
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
    images: Mutex<BTreeMap<Reference, StoredImage>>,
}

/// Stages as far as they are built, by their number in the plan.
type Stages = BTreeMap<usize, State>;

/// An operation that is being done: what its work is told, and the stages it may read.
#[derive(Debug, Clone, Copy)]
struct Running<'a> {
    vertex: &'a Vertex,
    /// The stage's number in the plan.
    stage: usize,
    stages: &'a Stages,
}

impl<E: Executor> Build<'_, E> {
    /// Does the operations one after the other, in the graph's order.
    async fn run_all(&self, graph: &Graph<'_>) -> Result<StoredImage, BuildError> {
        self.events.send(Event::Planned(graph.vertices())).await;
        let mut stages = Stages::new();
        let mut last = None;
        for operation in &graph.operations {
            let vertex = &operation.vertex;
            self.events.send(Event::Started(vertex.digest)).await;
            match operation.action {
                Action::Declare(_) => {}
                Action::From(index, stage) => {
                    let state = self.from(vertex, index, stage, &stages).await?;
                    stages.insert(index, state);
                    last = Some(index);
                }
                Action::Step(index, instruction) => {
                    let mut state = stages.remove(&index).expect("FROM comes first in a stage");
                    let running = Running { vertex, stage: index, stages: &stages };
                    self.instruction(running, &mut state, instruction).await?;
                    stages.insert(index, state);
                }
            }
        }
        let target = last.and_then(|index| stages.remove(&index));
        let target = target.expect("a graph makes its target last");
        self.warn_of_unused_arguments(graph, stages.values().chain([&target])).await;
        self.finish(target)
    }

    fn finish(&self, mut state: State) -> Result<StoredImage, BuildError> {
        if !self.request.labels.is_empty() {
            state.base = None;
            let labels = state.image.config.labels.get_or_insert_default();
            labels.extend(self.request.labels.clone());
        }
        match state.base {
            // Nothing but FROM: the base itself, whose bytes must stay what they are.
            Some(id) => {
                let images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
                let known = images.values().find(|image| image.id == id);
                Ok(known.expect("every base came from `image`").clone())
            }
            None => Ok(self.content.write_image(&state.image, &state.layers)?),
        }
    }

    /// Begins a stage, and does the triggers that its base has for it.
    async fn from(
        &self,
        vertex: &Vertex,
        index: usize,
        stage: &Stage,
        stages: &Stages,
    ) -> Result<State, BuildError> {
        let mut state = match &stage.base {
            Base::Scratch => State::scratch(),
            Base::Stage(base) => {
                stages.get(base).expect("a graph has a stage after those it needs").next_stage()
            }
            Base::Image(reference) => {
                let image = self.image(vertex, reference).await?;
                let config = self.content.config(image.id)?;
                let layers = self.content.manifest(image.id)?.layers;
                State::on(image.id, config, layers)
            }
        };
        self.completed(vertex, state.base.unwrap_or(state.chain)).await;
        let triggers = state.image.config.on_build.take().unwrap_or_default();
        if triggers.is_empty() {
            return Ok(state);
        }
        // The triggers are for the first image made from theirs, not for the ones after it.
        state.base = None;
        let mut end = vertex.digest;
        let mut steps = Vec::new();
        for trigger in triggers {
            let instruction = read_trigger(&trigger, stage.line, self.plan.escape)?;
            let mut vertex = graph::step(&instruction, vec![end]);
            vertex.name = trigger;
            end = vertex.digest;
            steps.push((vertex, instruction));
        }
        let vertices = steps.iter().map(|(vertex, _)| vertex.clone()).collect();
        self.events.send(Event::Triggered(vertices)).await;
        for (vertex, instruction) in &steps {
            self.events.send(Event::Started(vertex.digest)).await;
            let running = Running { vertex, stage: index, stages };
            self.instruction(running, &mut state, instruction).await?;
        }
        Ok(state)
    }

    async fn instruction(
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
        self.completed(vertex, state.chain).await;
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
            let images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
            images.get(reference).cloned()
        };
        if let Some(image) = known {
            return Ok(image);
        }
        let pull = if self.request.pull { Pull::Always } else { Pull::IfMissing };
        let image = self.executor.image(reference, pull, vertex.digest, self.events).await?;
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        images.insert(reference.clone(), image.clone());
        Ok(image)
    }

    async fn completed(&self, vertex: &Vertex, image: Digest) {
        self.events.send(Event::Completed { vertex: vertex.digest, image }).await;
    }

    async fn warn_of_unused_arguments(
        &self,
        graph: &Graph<'_>,
        stages: impl Iterator<Item = &State>,
    ) {
        let mut declared: BTreeSet<&String> = stages.flat_map(|state| &state.declared).collect();
        for operation in &graph.operations {
            if let Action::Declare(Instruction { kind: Kind::Arg(names), .. }) = operation.action {
                declared.extend(names.iter().map(|(name, _)| name));
            }
        }
        let given = self.request.arguments.keys();
        let unused: Vec<String> = given
            .filter(|name| !declared.contains(name) && !run::is_predefined(name))
            .cloned()
            .collect();
        if !unused.is_empty() {
            self.events.send(Event::Warning(Warning::UnusedArguments(unused))).await;
        }
    }
}

/// A trigger is a small Dockerfile of one instruction; its faults are of the line with FROM.
fn read_trigger(text: &str, line: usize, escape: char) -> Result<Instruction, BuildError> {
    let directive = if escape == '\\' { "" } else { "# escape=`\n" };
    let at = |message: String| BuildError::Dockerfile {
        line,
        message: format!("ONBUILD {text}: {message}"),
    };
    let parsed = parse::parse(&format!("{directive}{text}\n"));
    let mut lines = parsed.map_err(|error| at(error.to_string()))?.lines;
    if lines.len() != 1 {
        return Err(at("is not one instruction".to_owned()));
    }
    let instruction = Instruction::read(lines.remove(0)).map_err(at)?;
    if matches!(instruction.kind, Kind::From(_) | Kind::OnBuild(_) | Kind::Maintainer(_)) {
        return Err(at("isn't allowed as an ONBUILD trigger".to_owned()));
    }
    Ok(Instruction { line, ..instruction })
}

fn now() -> String {
    Timestamp::now().to_string()
}

/// As Docker's overlay2 driver has it; the kernel stops at 500 (`OVL_MAX_STACK`).
const MAX_LAYERS: usize = 127;

#[cfg(test)]
mod tests;
