//! `docker kill`.

use std::sync::Arc;
use std::time::Duration;

use bulkhead_types::Id;

use crate::signals::Signal;
use crate::{Engine, EngineError, Status, signals};

impl Engine {
    /// `signal` as Docker reads it: `KILL`, `SIGKILL`, `9`.
    pub async fn kill(self: &Arc<Self>, id: Id, signal: &str) -> Result<(), EngineError> {
        let signal = if signal.is_empty() { Signal::KILL } else { signals::parse(signal)? };
        let guard = self.containers.exclusive(id).await?;
        let container = self.containers.record(id)?.container;
        if !matches!(container.state.status, Status::Running | Status::Paused) {
            return Err(EngineError::not_running(id));
        }
        let stop_signal = container.config.stop_signal.as_deref().unwrap_or("SIGTERM");
        if signal == Signal::KILL || signals::parse(stop_signal).is_ok_and(|stop| stop == signal) {
            self.mark_stopped(id).await?;
        }
        let (pidfd, mut lifecycle) = self.watch_end(id)?;
        drop(guard);
        let ends = lifecycle.borrow_and_update().ends;
        self.events.container(&container, "kill", &[("signal", signal.as_raw().to_string())]);
        self.send(id, &pidfd, signal)?;
        if signal == Signal::KILL {
            // As Docker: after `docker kill` it does not run any more.
            let ended = lifecycle.wait_for(|lifecycle| lifecycle.ends > ends || lifecycle.removed);
            let _ = tokio::time::timeout(Duration::from_secs(10), ended).await;
        }
        Ok(())
    }
}
