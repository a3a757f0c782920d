//! The warden has died while the engine lives: another one takes over what runs.
//!
//! The engine keeps, for every container, copies of the descriptors that the warden holds (see
//! [`bulkhead_warden::Handover`]). By these a new warden goes on with the log, the streams and the
//! wait for the end. A process that was started by `exec` is not handed over: whoever waited for its
//! output has lost it with the warden, and must not take what follows for a success.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bulkhead_types::{Id, Timestamp};
use bulkhead_warden::{Exit, UnfinishedLog, WardenError};
use rustix::process::{Signal, pidfd_send_signal};

use crate::blocking::{Blocking, blocking};
use crate::data_dir::log_name;
use crate::{Container, Engine, EngineError, Status};

/// Between two attempts to start a warden.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The error of a container whose warden died together with its engine, or that no new warden could
/// take over.
pub(crate) const LOST: &str = "the process that held this container's output and exit code (the \
    warden) ended before it: how the program ended is not known";

impl Engine {
    /// Starts another warden, and hands it what runs.
    pub(crate) async fn replace_warden(self: Arc<Self>) {
        let at = Timestamp::now();
        tracing::error!(
            "the warden has ended without being asked to; another one is started, which takes over \
             the containers that run"
        );
        // Before there is another, whose own would be among them.
        self.end_execs();
        let mut wait = FIRST_WAIT;
        loop {
            if self.is_ending() {
                return;
            }
            let engine = Arc::clone(&self);
            let connected = blocking(move |_| {
                engine.warden.reconnect()?;
                engine.warden.compartments(Some(engine.options.compartments))?;
                Ok(())
            });
            match connected.await {
                Ok(()) => break,
                Err(error) => tracing::error!(%error, "start another warden"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        let (mut adopted, mut ended) = (0, 0);
        let ids = self.containers.ids();
        for id in ids {
            // A start that the old one had begun is waited for.
            let Ok(guard) = self.containers.exclusive(id).await else { continue };
            let engine = Arc::clone(&self);
            let handed_over = blocking(move |may_block| {
                let _guard = guard;
                engine.hand_over(may_block, id)
            });
            match handed_over.await {
                Ok(None) => {}
                // It has died too, and whoever replaces it goes over all of them again.
                Ok(Some(HandedOver::Left)) => return,
                Ok(Some(HandedOver::Adopted)) => adopted += 1,
                Ok(Some(HandedOver::Ended)) => ended += 1,
                Err(error) => tracing::error!(container = %id.short(), %error, "hand over"),
            }
        }
        let engine = Arc::clone(&self);
        let finished = blocking(move |_| {
            engine.finish_logs();
            Ok(())
        });
        if let Err(error) = finished.await {
            tracing::error!(%error, "finish the logs of containers that have ended");
        }
        let text = format!(
            "the warden ended without being asked to at {at}: another one took over {adopted} \
             containers, and {ended} were ended because it could not"
        );
        tracing::warn!("{text}");
        *self.warden_death.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    /// Hands a new warden the logs of containers that have ended and for which the one before has left
    /// what a full disk had refused. Those that run have theirs with them.
    pub(crate) fn finish_logs(&self) {
        let ids = match self.warden.unfinished_logs() {
            Ok(ids) => ids,
            Err(error) => return tracing::error!(%error, "ask which logs are unfinished"),
        };
        for id in ids {
            let log = match self.containers.shared_record(id) {
                Ok(record) => self.unfinished_log(&record.container),
                Err(_) => Ok(None),
            };
            let done = log.and_then(|log| match log {
                Some(log) => Ok(self.warden.finish_log(id, log)?),
                None => Ok(self.warden.discard_log(id)?),
            });
            match done {
                Ok(()) => {}
                Err(error) => tracing::error!(container = %id.short(), %error, "finish its log"),
            }
        }
    }

    fn unfinished_log(&self, container: &Container) -> Result<Option<UnfinishedLog>, EngineError> {
        let host = &container.host;
        Ok(match host.log_options.recorded(host.log_driver) {
            None => None,
            Some(local) => Some(UnfinishedLog {
                directory: self.data_dir.container(container.id)?,
                name: log_name(container.id),
                max_size: local.max_size,
                max_files: local.max_files,
            }),
        })
    }

    /// What `docker info` says of it.
    pub(crate) fn warden_warning(&self) -> Option<String> {
        self.warden_death.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The caller holds the container's operation lock. `None` for one that does not run.
    fn hand_over(
        self: &Arc<Self>,
        may_block: &Blocking,
        id: Id,
    ) -> Result<Option<HandedOver>, EngineError> {
        let (is_running, handover) = {
            let state = self.containers.lock();
            let entry = state.entry(id)?;
            (entry.record.is_running(), entry.runtime.handover.clone())
        };
        if !is_running {
            return Ok(None);
        }
        let refused = match handover.map(|handover| self.warden.adopt(&handover)) {
            Some(Ok(())) => return Ok(Some(HandedOver::Adopted)),
            Some(Err(WardenError::Gone(_))) => return Ok(Some(HandedOver::Left)),
            Some(Err(error)) => error.to_string(),
            None => "its descriptors were not kept".to_owned(),
        };
        tracing::error!(container = %id.short(), refused, "a container that runs is not taken over");
        self.end_lost(may_block, id);
        Ok(Some(HandedOver::Ended))
    }

    /// Ends a container that runs, if at all, without a warden, and records why. The caller holds
    /// its operation lock.
    pub(crate) fn end_lost(self: &Arc<Self>, may_block: &Blocking, id: Id) {
        let pidfd =
            self.containers.lock().entry(id).ok().and_then(|entry| entry.runtime.pidfd.clone());
        if let Some(pidfd) = pidfd {
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        }
        let now = Timestamp::now().as_nanosecond();
        // Docker's code for an end that nobody saw
        self.end_now(may_block, id, Exit { code: 255, at: i64::try_from(now).unwrap_or(i64::MAX) });
        // One with `--rm` is gone by now.
        let Ok(record) = self.containers.record(id) else { return };
        if matches!(record.container.state.status, Status::Exited | Status::Restarting) {
            let noted = self.containers.change(may_block, id, |record| {
                record.container.state.error = LOST.to_owned();
            });
            if let Err(error) = noted {
                tracing::error!(container = %id.short(), %error, "record why it ended");
            }
        }
    }

    fn end_execs(self: &Arc<Self>) {
        for id in self.execs.kill_all() {
            let at = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
            // 128 and SIGKILL
            Arc::clone(self).exec_ended(id, Exit { code: 137, at });
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HandedOver {
    Adopted,
    Ended,
    /// The warden is gone before it took it.
    Left,
}
