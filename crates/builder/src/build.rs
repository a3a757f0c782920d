//! Walks the plan: each stage, each instruction, each from the cache or done now.

mod context;
mod files;
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bulkhead_image::{Content, StoredImage};
use bulkhead_types::{Digest, Reference, Timestamp};

use crate::BuildError;
use crate::cache::{self, Cache, CachedStep};
use crate::ignore::Ignore;
use crate::instruction::{Instruction, Kind};
use crate::parse;
use crate::plan::{self, Base, Choices, Plan};
use crate::request::{BuildRequest, Executor, Output};
use crate::state::{Scope, State};

/// Builds, and returns the image.
///
/// `output` gets the classic builder's lines, which docker-py reads: `Step 1/6 : FROM ubuntu`,
/// ` ---> Using cache`, ` ---> Running in …`, ` ---> …`. What a step made is remembered in
/// `cache`, and used again while its layer is in `content`.
pub async fn build<E: Executor>(
    request: BuildRequest,
    content: Arc<Content>,
    cache: &dyn Cache,
    executor: &E,
    output: &Output,
) -> Result<StoredImage, BuildError> {
    let text = context::dockerfile(&request)?;
    let dockerfile = parse::parse(&text)?;
    for warning in &dockerfile.warnings {
        output(&format!("[WARNING]: {warning}\n"));
    }
    let choices = Choices {
        arguments: &request.arguments,
        target: request.target.as_deref(),
        contexts: &request.contexts,
    };
    let plan = plan::plan(dockerfile, choices)?;
    let ignore = Arc::new(context::ignore(&request)?);
    let platform = plan::platform_arguments(request.target.as_deref());
    let (context, rest) = split(request);
    let mut build = Build {
        request: &rest,
        context,
        ignore,
        plan: &plan,
        platform: &platform,
        content,
        cache,
        executor,
        output,
        step: 0,
        steps: plan.steps(),
        stages: BTreeMap::new(),
        images: BTreeMap::new(),
        declared: BTreeSet::new(),
    };
    build.stages().await
}

/// The request without its descriptor, which is shared with the threads that read the context.
fn split(mut request: BuildRequest) -> (Arc<OwnedFd>, Options) {
    let options = Options {
        arguments: std::mem::take(&mut request.arguments),
        labels: std::mem::take(&mut request.labels),
        no_cache: request.no_cache,
        pull: request.pull,
        network: request.network.take(),
        extra_hosts: std::mem::take(&mut request.extra_hosts),
    };
    (Arc::new(request.context), options)
}

/// What of the request the steps need.
#[derive(Debug)]
struct Options {
    arguments: BTreeMap<String, Option<String>>,
    labels: BTreeMap<String, String>,
    no_cache: bool,
    pull: bool,
    network: Option<String>,
    extra_hosts: Vec<String>,
}

struct Build<'a, E> {
    request: &'a Options,
    context: Arc<OwnedFd>,
    ignore: Arc<Ignore>,
    plan: &'a Plan,
    platform: &'a BTreeMap<String, String>,
    content: Arc<Content>,
    cache: &'a dyn Cache,
    executor: &'a E,
    output: &'a Output,
    /// How many `Step n/m` lines were put out, and how many there will be.
    step: usize,
    steps: usize,
    /// Stages that are built, by their number in the plan.
    stages: BTreeMap<usize, State>,
    /// Images that were found or pulled for this build.
    images: BTreeMap<Reference, StoredImage>,
    /// Names of all ARG instructions that were reached.
    declared: BTreeSet<String>,
}

impl<E: Executor> Build<'_, E> {
    async fn stages(&mut self) -> Result<StoredImage, BuildError> {
        for argument in &self.plan.globals {
            self.announce(&argument.text);
            self.declare(argument);
        }
        let mut last = None;
        for index in &self.plan.order {
            let state = self.stage(*index).await?;
            self.stages.insert(*index, state);
            last = Some(*index);
        }
        let target = last.and_then(|index| self.stages.remove(&index));
        let mut state = target.expect("a plan builds its target last");
        self.warn_of_unused_arguments();
        if !self.request.labels.is_empty() {
            state.base = None;
            let labels = state.image.config.labels.get_or_insert_default();
            labels.extend(self.request.labels.clone());
        }
        match state.base {
            // Nothing but FROM: the base itself, whose bytes must stay what they are.
            Some(id) => {
                let known = self.images.values().find(|image| image.id == id);
                Ok(known.expect("every base came from `image`").clone())
            }
            None => Ok(self.content.write_image(&state.image, &state.layers)?),
        }
    }

    async fn stage(&mut self, index: usize) -> Result<State, BuildError> {
        let plan = self.plan;
        let stage = &plan.stages[index];
        self.announce(&stage.text);
        let mut state = match &stage.base {
            Base::Scratch => State::scratch(),
            Base::Stage(base) => {
                self.stages.get(base).expect("a plan orders stages by need").next_stage()
            }
            Base::Image(reference) => {
                let image = self.image(reference).await?;
                let config = self.content.config(image.id)?;
                let layers = self.content.manifest(image.id)?.layers;
                (self.output)(&format!(" ---> {}\n", image.id.short()));
                State::on(image.id, config, layers)
            }
        };
        if !matches!(stage.base, Base::Image(_)) {
            self.report(&state);
        }
        let triggers = state.image.config.on_build.take().unwrap_or_default();
        if !triggers.is_empty() {
            // The triggers are for the first image made from theirs, not for the ones after it.
            state.base = None;
            let plural = if triggers.len() == 1 { "" } else { "s" };
            (self.output)(&format!("# Executing {} build trigger{plural}\n", triggers.len()));
        }
        for trigger in triggers {
            let instruction = read_trigger(&trigger, stage.line, self.plan.escape)?;
            (self.output)(&format!("{trigger}\n"));
            self.instruction(index, &mut state, &instruction).await?;
        }
        for instruction in &stage.instructions {
            self.announce(&instruction.text);
            self.instruction(index, &mut state, instruction).await?;
        }
        Ok(state)
    }

    async fn instruction(
        &mut self,
        stage: usize,
        state: &mut State,
        instruction: &Instruction,
    ) -> Result<(), BuildError> {
        let at = |message| BuildError::Dockerfile { line: instruction.line, message };
        match &instruction.kind {
            Kind::Run(run) => self.run(state, run, instruction.line).await?,
            Kind::Copy(copy) => self.copy(stage, state, copy, instruction).await?,
            Kind::Workdir(path) => self.working_directory(state, path, instruction.line).await?,
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
                self.done(state, key, step, cached, created_by);
                if matches!(kind, Kind::Arg(_)) {
                    self.declare(instruction);
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
        self.report(state);
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
    fn done(
        &self,
        state: &mut State,
        key: Digest,
        step: CachedStep,
        cached: bool,
        created_by: String,
    ) {
        state.record(created_by, &step, key);
        if cached {
            (self.output)(" ---> Using cache\n");
        } else {
            self.cache.remember(key, step);
        }
    }

    /// Finds an image, once per build however often it is named.
    async fn image(&mut self, reference: &Reference) -> Result<StoredImage, BuildError> {
        if let Some(image) = self.images.get(reference) {
            return Ok(image.clone());
        }
        let image = self.executor.image(reference, self.request.pull, self.output).await?;
        self.images.insert(reference.clone(), image.clone());
        Ok(image)
    }

    fn announce(&mut self, text: &str) {
        self.step += 1;
        (self.output)(&format!("Step {}/{} : {text}\n", self.step, self.steps));
    }

    fn report(&self, state: &State) {
        (self.output)(&format!(" ---> {}\n", state.chain.short()));
    }

    fn declare(&mut self, instruction: &Instruction) {
        if let Kind::Arg(names) = &instruction.kind {
            self.declared.extend(names.iter().map(|(name, _)| name.clone()));
        }
    }

    fn warn_of_unused_arguments(&self) {
        let unused: Vec<_> = self
            .request
            .arguments
            .keys()
            .filter(|name| !self.declared.contains(*name) && !run::is_predefined(name))
            .map(String::as_str)
            .collect();
        if !unused.is_empty() {
            let names = unused.join(" ");
            (self.output)(&format!(
                "[Warning] One or more build-args [{names}] were not consumed\n"
            ));
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
