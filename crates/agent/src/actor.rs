//! One task's life: look, decide, do one thing, and again.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_aws_api::acs::{DesiredStatus, TaskStatus};
use serde_json::Value;
use tokio::sync::{Notify, mpsc};

use crate::create;
use crate::engine::{Engine, EngineError};
use crate::health::HealthBoard;
use crate::options::Options;
use crate::plan::{self, Found, Learned, Phase, Step};
use crate::reports::{self, Pulls, Report};
use crate::start_timeout;
use crate::state::{SavedTask, StateError, StateFile, random_hex};
use bulkhead_types::{Chain, Timestamp};

/// Runs one task, whose saved form is in the state file under `arn`, until its containers are removed.
pub(crate) struct Actor {
    pub arn: String,
    pub engine: Engine,
    pub options: Arc<Options>,
    pub state: Arc<StateFile>,
    pub reports: mpsc::UnboundedSender<Report>,
    pub health: Arc<HealthBoard>,
    /// Something may have changed: the engine's containers, or what is wanted.
    pub wake: Arc<Notify>,
}

impl Actor {
    pub(crate) async fn run(self) {
        if let Err(error) = self.live().await {
            // the containers stay as they are; the next start of the agent takes the task up again
            tracing::error!(task = self.arn, error = %Chain(&error), "the task is left alone");
        }
    }

    async fn live(&self) -> Result<(), StateError> {
        let mut learned = Learned::default();
        let mut pulls = Pulls::default();
        let mut digests: BTreeMap<String, String> = BTreeMap::new();
        let mut reported: Option<Value> = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let Some(task) = self.saved() else { return Ok(()) };
            if let Some(finished_at) = task.finished_at {
                self.health.forget(&self.arn);
                return self.after_the_end(&task, finished_at).await;
            }
            let mut found = match self.engine.find(&self.arn).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(task = self.arn, error = %Chain(&error), "waiting for the engine");
                    self.woken_or(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
            };
            pause = FIRST_PAUSE;
            for (name, container) in &mut found {
                container.image_digest = digests.get(name).cloned();
            }
            plan::forgive_cut_off_starts(&task, &mut found);
            self.health.note(&task.payload, &found);
            self.remember_found(&task, &found)?;
            self.note_vanished(&task, &found, &mut learned);
            if plan::all_started(&task.payload, &found) && learned.failures.is_empty() {
                let report =
                    reports::describe(&task.payload, TaskStatus::Running, &found, &learned, pulls);
                self.report(&mut reported, report, false);
            }
            let failed = |name: &str, kind: &str, error: &EngineError, learned: &mut Learned| {
                let text = format!("{kind}: {error}");
                tracing::warn!(task = self.arn, container = name, text, "a container failed");
                learned.failures.insert(name.to_owned(), text);
            };
            match plan::next(&task, &found, &learned) {
                Step::Pull(name) => {
                    pulls.started.get_or_insert_with(now);
                    let image = image_of(&task, &name);
                    tracing::info!(task = self.arn, image, "pulling");
                    let pull = self.engine.pull(&image, &self.options.registries);
                    match self.unless_stopped(pull).await {
                        Some(Ok(())) => {
                            let digest = self.engine.digest(&image).await;
                            // one pull serves every container of that image
                            for container in &task.payload.containers {
                                if container.image == image {
                                    learned.pulled.insert(container.name.clone());
                                    let known = digest
                                        .clone()
                                        .map(|digest| (container.name.clone(), digest));
                                    digests.extend(known);
                                }
                            }
                        }
                        Some(Err(EngineError::Unreachable(_))) => self.woken_or(pause).await,
                        Some(Err(error)) => {
                            failed(&name, "CannotPullContainerError", &error, &mut learned)
                        }
                        None => {}
                    }
                    pulls.stopped = Some(now());
                }
                Step::Create(name) => match self.create(&task, &name, &found).await {
                    Ok(id) => self.remember(|task| drop(task.made.insert(name, id)))?,
                    Err(EngineError::Unreachable(_)) => self.woken_or(pause).await,
                    Err(error) => failed(&name, "CannotCreateContainerError", &error, &mut learned),
                },
                Step::Start(name) => {
                    tracing::info!(task = self.arn, container = name, "starting");
                    match self.engine.start(&id_of(&found, &name)).await {
                        Ok(()) => {}
                        Err(EngineError::Unreachable(_)) => self.woken_or(pause).await,
                        Err(error) => {
                            failed(&name, "CannotStartContainerError", &error, &mut learned)
                        }
                    }
                }
                Step::Stop(name) => {
                    let container =
                        task.payload.containers.iter().find(|container| container.name == name);
                    let grace = container
                        .and_then(|container| container.stop_timeout)
                        .unwrap_or(STOP_TIMEOUT);
                    tracing::info!(task = self.arn, container = name, "stopping");
                    let seconds = i32::try_from(grace).unwrap_or(i32::MAX);
                    if let Err(error) = self.engine.stop(&id_of(&found, &name), seconds).await {
                        // it still runs, so giving up is no choice
                        tracing::warn!(task = self.arn, container = name, error = %Chain(&error), "the stop is tried again");
                        self.woken_or(LONGEST_PAUSE).await;
                    }
                }
                // an event wakes us; the timeout is for one that an engine might lose
                Step::Wait => match start_timeout::first_to_end(&task.payload, &found) {
                    None => self.woken_or(LOOK_AGAIN).await,
                    Some(wait) => {
                        let left = wait.until.duration_since(Timestamp::now());
                        match Duration::try_from(left) {
                            Ok(left) if !left.is_zero() => {
                                self.woken_or(left.min(LOOK_AGAIN)).await;
                            }
                            _ => {
                                let text = wait.to_string();
                                tracing::warn!(
                                    task = self.arn,
                                    container = wait.waiting,
                                    text,
                                    "given up"
                                );
                                learned.failures.insert(wait.waiting, text);
                            }
                        }
                    }
                },
                Step::Finish => {
                    let report = reports::describe(
                        &task.payload,
                        TaskStatus::Stopped,
                        &found,
                        &learned,
                        pulls,
                    );
                    tracing::info!(task = self.arn, "stopped");
                    self.remember(|task| {
                        task.finished_at = Some(now() / 1000);
                        task.last_report = Some(report);
                    })?;
                }
            }
        }
    }

    async fn create(
        &self,
        task: &SavedTask,
        name: &str,
        found: &BTreeMap<String, Found>,
    ) -> Result<String, EngineError> {
        let payload = &task.payload;
        let container = payload.containers.iter().find(|container| container.name == name);
        let container = container
            .ok_or_else(|| EngineError::Refused(format!("no container {name} in the task")))?;
        for volume in create::docker_volumes(payload, container) {
            self.engine.provide_volume(&volume).await?;
        }
        let names =
            found.iter().map(|(name, found)| (name.clone(), found.docker_name.clone())).collect();
        let body = create::body(payload, container, &names).map_err(|error| {
            EngineError::Refused(format!("invalid container settings: {error}"))
        })?;
        let docker_name =
            format!("ecs-{}-{}-{name}-{}", payload.family, payload.version, random_hex(18));
        self.engine.create(&docker_name, &body).await
    }

    /// Delivers the last report if that is still to do, and removes the containers when their time has come.
    async fn after_the_end(&self, task: &SavedTask, finished_at: i64) -> Result<(), StateError> {
        if let Some(report) = task.last_report.as_ref().filter(|_| !task.told) {
            let report = Report { task: self.arn.clone(), request: report.clone(), last: true };
            // the receiver lives as long as the agent
            let _ = self.reports.send(report);
        }
        let keep = i64::try_from(self.options.keep_stopped.as_secs()).unwrap_or(i64::MAX);
        let left = finished_at.saturating_add(keep).saturating_sub(now() / 1000);
        tokio::time::sleep(Duration::from_secs(u64::try_from(left).unwrap_or(0))).await;
        loop {
            match self.remove_all(task).await {
                Ok(()) => break,
                Err(error) => {
                    tracing::warn!(task = self.arn, error = %Chain(&error), "the removal is tried again");
                    tokio::time::sleep(LONGEST_PAUSE).await;
                }
            }
        }
        // a report that is not taken yet keeps the record, but not the containers
        while self.saved().is_some_and(|task| !task.told) {
            tokio::time::sleep(LONGEST_PAUSE).await;
        }
        self.state.change(|state| drop(state.tasks.remove(&self.arn)))
    }

    async fn remove_all(&self, task: &SavedTask) -> Result<(), EngineError> {
        for container in self.engine.find(&self.arn).await?.values() {
            self.engine.remove(&container.id).await?;
        }
        for volume in create::task_volumes(&task.payload) {
            self.engine.remove_volume(&volume).await?;
        }
        Ok(())
    }

    fn saved(&self) -> Option<SavedTask> {
        self.state.read(|state| state.tasks.get(&self.arn).cloned())
    }

    fn remember(&self, edit: impl FnOnce(&mut SavedTask)) -> Result<(), StateError> {
        self.state.change(|state| {
            if let Some(task) = state.tasks.get_mut(&self.arn) {
                edit(task);
            }
        })
    }

    /// Adopts containers that were made or started just before the agent died.
    fn remember_found(
        &self,
        task: &SavedTask,
        found: &BTreeMap<String, Found>,
    ) -> Result<(), StateError> {
        let made = |(name, _): (&String, &Found)| task.made.contains_key(name);
        let started = |(name, found): (&String, &Found)| {
            found.phase == Phase::Created || task.started.contains(name)
        };
        if found.iter().all(made) && found.iter().all(started) {
            return Ok(());
        }
        self.remember(|task| {
            for (name, found) in found {
                task.made.insert(name.clone(), found.id.clone());
                if found.phase != Phase::Created {
                    task.started.insert(name.clone());
                }
            }
        })
    }

    fn note_vanished(
        &self,
        task: &SavedTask,
        found: &BTreeMap<String, Found>,
        learned: &mut Learned,
    ) {
        for name in task.made.keys().filter(|name| !found.contains_key(*name)) {
            let text = "ContainerVanishedError: the container was removed while its task ran";
            learned.failures.entry(name.clone()).or_insert_with(|| text.into());
        }
    }

    fn report(&self, reported: &mut Option<Value>, request: Value, last: bool) {
        if reported.as_ref() == Some(&request) {
            return;
        }
        *reported = Some(request.clone());
        let _ = self.reports.send(Report { task: self.arn.clone(), request, last });
    }

    /// Runs `work`, unless the task is to stop first.
    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                result = &mut work => return Some(result),
                () = self.wake.notified() => {
                    if self.saved().is_none_or(|task| task.payload.desired_status == DesiredStatus::Stopped) {
                        return None;
                    }
                }
            }
        }
    }

    async fn woken_or(&self, pause: Duration) {
        let _ = tokio::time::timeout(pause, self.wake.notified()).await;
    }
}

fn image_of(task: &SavedTask, name: &str) -> String {
    let container = task.payload.containers.iter().find(|container| container.name == name);
    container.map(|container| container.image.clone()).unwrap_or_default()
}

fn id_of(found: &BTreeMap<String, Found>, name: &str) -> String {
    found.get(name).map(|found| found.id.clone()).unwrap_or_default()
}

/// Milliseconds since 1970.
fn now() -> i64 {
    Timestamp::now().as_millisecond()
}

/// Seconds from SIGTERM to SIGKILL where the task says nothing (ECS_CONTAINER_STOP_TIMEOUT).
const STOP_TIMEOUT: i64 = 30;
const LOOK_AGAIN: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
