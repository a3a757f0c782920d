//! The tasks of this machine: what the control plane ordered, each with an actor that sees to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bulkhead_aws_api::acs::{DesiredStatus, PayloadMessage, PayloadTask};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use crate::actor::Actor;
use crate::engine::Engine;
use crate::health::HealthBoard;
use crate::options::Options;
use crate::reports::Report;
use crate::state::{SavedTask, StateError, StateFile};

/// The tasks of this machine, each with an actor.
pub(crate) struct Tasks {
    engine: Engine,
    pub(crate) options: Arc<Options>,
    pub(crate) state: Arc<StateFile>,
    reports: mpsc::UnboundedSender<Report>,
    health: Arc<HealthBoard>,
    wakers: Mutex<HashMap<String, Arc<Notify>>>,
    /// Aborted when the agent ends; the containers are not.
    actors: Mutex<JoinSet<()>>,
}

impl Tasks {
    pub(crate) fn new(
        engine: Engine,
        options: Arc<Options>,
        state: Arc<StateFile>,
        reports: mpsc::UnboundedSender<Report>,
        health: Arc<HealthBoard>,
    ) -> Self {
        let (wakers, actors) = (Mutex::default(), Mutex::default());
        Self { engine, options, state, reports, health, wakers, actors }
    }

    /// Has looked at what concerns one task, if it is ours.
    pub(crate) fn wake(&self, arn: &str) {
        let wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wake) = wakers.get(arn) {
            wake.notify_one();
        }
    }

    pub(crate) fn wake_all(&self) {
        for wake in self.wakers.lock().unwrap_or_else(PoisonError::into_inner).values() {
            wake.notify_one();
        }
    }

    /// Puts orders on disk and in motion.
    pub(crate) fn accept(&self, message: PayloadMessage) -> Result<(), StateError> {
        for payload in message.tasks {
            self.accept_task(payload)?;
        }
        Ok(())
    }

    fn accept_task(&self, payload: PayloadTask) -> Result<(), StateError> {
        let arn = payload.arn.to_string();
        tracing::info!(task = arn, desired = %payload.desired_status, "an order");
        let saved = self.state.read(|state| state.tasks.get(&arn).cloned());
        match saved {
            None => {
                self.state.change(|state| {
                    state.tasks.insert(arn.clone(), SavedTask { payload, ..SavedTask::default() })
                })?;
                self.start(&arn);
            }
            // the control plane asks again for what has ended: it missed the last report
            Some(saved) if saved.finished_at.is_some() => {
                if let Some(request) = saved.last_report {
                    let _ = self.reports.send(Report { task: arn, request, last: true });
                }
            }
            // a stop is never taken back
            Some(saved)
                if saved.payload.desired_status == DesiredStatus::Running
                    && payload.desired_status == DesiredStatus::Stopped =>
            {
                self.state.change(|state| {
                    if let Some(task) = state.tasks.get_mut(&arn) {
                        task.payload.desired_status = DesiredStatus::Stopped;
                    }
                })?;
                self.wake(&arn);
            }
            Some(_) => {}
        }
        Ok(())
    }

    pub(crate) fn start(&self, arn: &str) {
        let wake = Arc::new(Notify::new());
        self.wakers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(arn.to_owned(), Arc::clone(&wake));
        let actor = Actor {
            arn: arn.to_owned(),
            engine: self.engine.clone(),
            options: Arc::clone(&self.options),
            state: Arc::clone(&self.state),
            reports: self.reports.clone(),
            health: Arc::clone(&self.health),
            wake,
        };
        let mut actors = self.actors.lock().unwrap_or_else(PoisonError::into_inner);
        while actors.try_join_next().is_some() {}
        actors.spawn(actor.run());
    }
}
