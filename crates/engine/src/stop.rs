//! `docker stop` and `restart`, and what every verb that ends a container needs.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_store::put;
use bulkhead_types::Id;
use tokio::sync::watch;

use crate::blocking::blocking;
use crate::signals::Signal;
use crate::start::Cause;
use crate::state::{Progress, Record};
use crate::{Container, Engine, EngineError, RestartPolicy, Status, Stopped, signals};

/// As long as it lives, a container that goes with its end (`--rm`) stays when it ends (moby:
/// daemon/restart.go turns AutoRemove off for this time).
#[derive(Debug)]
struct Restarting {
    engine: Arc<Engine>,
    id: Id,
}

impl Restarting {
    fn begin(engine: &Arc<Engine>, id: Id) -> Result<Self, EngineError> {
        engine.state().slot_mut(id)?.live.restarting += 1;
        Ok(Self { engine: Arc::clone(engine), id })
    }
}

impl Drop for Restarting {
    /// One that was stopped and does not run again, as its client has gone or it does not start,
    /// goes now.
    fn drop(&mut self) {
        let goes = match self.engine.state().slot_mut(self.id) {
            Ok(slot) => {
                // A start that failed has begun the count anew.
                slot.live.restarting = slot.live.restarting.saturating_sub(1);
                let container = &slot.record.container;
                slot.live.restarting == 0
                    && container.host.auto_remove
                    && container.state.status == Status::Exited
            }
            Err(_) => false,
        };
        if goes {
            let (engine, id) = (Arc::clone(&self.engine), self.id);
            self.engine.runtime.spawn(async move {
                if let Err(error) = engine.remove(id, false, true).await {
                    tracing::warn!(container = %id.short(), %error, "remove after a restart");
                }
            });
        }
    }
}

/// Seconds between the stop signal and SIGKILL.
const STOP_TIMEOUT: i64 = 10;

impl Engine {
    /// Sends the stop signal, then SIGKILL after `timeout` seconds (the container's, else 10).
    pub async fn stop(
        self: &Arc<Self>,
        id: Id,
        timeout: Option<i64>,
        signal: Option<&str>,
    ) -> Result<Stopped, EngineError> {
        let guard = self.exclusive(id).await?;
        let container = self.record(id)?.container;
        match container.state.status {
            Status::Running | Status::Paused => {}
            Status::Restarting => {
                self.cancel_restart(id).await?;
                return Ok(Stopped::Now);
            }
            _ => return Ok(Stopped::Already),
        }
        let text = signal
            .map(str::to_owned)
            .or_else(|| container.config.stop_signal.clone())
            .filter(|signal| !signal.is_empty())
            .unwrap_or_else(|| "SIGTERM".to_owned());
        let signal = signals::parse(&text)?;
        self.mark_stopped(id).await?;
        let (pidfd, mut progress) = self.watch_end(id)?;
        drop(guard);
        let ends = progress.borrow_and_update().ends;
        let ended = |progress: &Progress| progress.ends > ends || progress.removed;

        let number = signal.as_raw().to_string();
        self.publish_container(&container, "kill", &[("signal", number)]);
        self.send(id, &pidfd, signal)?;
        let timeout = timeout.or(container.config.stop_timeout).unwrap_or(STOP_TIMEOUT);
        // A frozen process never handles the signal, so there is nothing to wait for.
        let paused = container.state.status == Status::Paused;
        let in_time = match u64::try_from(timeout) {
            Ok(_) if paused && signal != Signal::KILL => false,
            Ok(seconds) => {
                let wait = progress.wait_for(ended);
                tokio::time::timeout(Duration::from_secs(seconds), wait).await.is_ok()
            }
            Err(_) => progress.wait_for(ended).await.is_ok(),
        };
        if !in_time {
            self.send(id, &pidfd, Signal::KILL)?;
            killed(&container, progress.wait_for(ended)).await?;
        }
        self.publish_container(&container, "stop", &[]);
        Ok(Stopped::Now)
    }

    pub async fn restart(
        self: &Arc<Self>,
        id: Id,
        timeout: Option<i64>,
    ) -> Result<(), EngineError> {
        let restarting = Restarting::begin(self, id)?;
        self.stop(id, timeout, None).await?;
        let guard = self.exclusive(id).await?;
        let engine = Arc::clone(self);
        blocking(move |may_block| {
            let _guard = guard;
            engine.start_now(may_block, id, Cause::User)
        })
        .await?;
        drop(restarting);
        self.publish_container(&self.record(id)?.container, "restart", &[]);
        Ok(())
    }

    /// What it takes to end a running container and to see that it has.
    pub(crate) fn watch_end(
        &self,
        id: Id,
    ) -> Result<(Arc<OwnedFd>, watch::Receiver<Progress>), EngineError> {
        let state = self.state();
        let slot = state.slot(id)?;
        let pidfd = slot.live.pidfd.clone();
        let pidfd = pidfd.ok_or_else(|| EngineError::not_running(&slot.record.container))?;
        Ok((pidfd, slot.progress.subscribe()))
    }

    /// Signals the container's first process; one that has just ended is no error. SIGKILL also
    /// thaws: a frozen process would not die of it on cgroup v1.
    pub(crate) fn send(&self, id: Id, pidfd: &OwnedFd, signal: Signal) -> Result<(), EngineError> {
        match signal.send(pidfd) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => return Err(EngineError::internal(format!("send a signal: {errno}"))),
        }
        let paused = self.record(id).is_ok_and(|it| it.container.state.status == Status::Paused);
        if signal == Signal::KILL && paused {
            self.cgroup(id)?.thaw()?;
        }
        Ok(())
    }

    /// Notes that the user ends it, so that its policy leaves it alone. On disk only where a policy
    /// would ask after a crash.
    pub(crate) async fn mark_stopped(self: &Arc<Self>, id: Id) -> Result<(), EngineError> {
        let mut record = self.record(id)?;
        // What ends with the engine goes on with the next one.
        if record.stopped_by_user || self.is_ending() {
            return Ok(());
        }
        record.stopped_by_user = true;
        if record.container.host.restart_policy != RestartPolicy::No {
            let engine = Arc::clone(self);
            blocking(move |may_block| engine.commit(may_block, &[put(Record::key(id), &record)]))
                .await?;
        }
        self.state().slot_mut(id)?.record.stopped_by_user = true;
        Ok(())
    }

    pub(crate) async fn cancel_restart(self: &Arc<Self>, id: Id) -> Result<(), EngineError> {
        let engine = Arc::clone(self);
        let ending = self.is_ending();
        blocking(move |may_block| {
            engine.change(may_block, id, |record| {
                record.stopped_by_user |= !ending;
                record.set_status(Status::Exited);
            })
        })
        .await?;
        let mut state = self.state();
        let slot = state.slot_mut(id)?;
        slot.live.generation += 1;
        slot.progress.send_modify(|progress| progress.running = false);
        Ok(())
    }
}

/// Waits for the end that follows SIGKILL, but not for ever: a process may hang in the kernel.
pub(crate) async fn killed<T>(
    container: &Container,
    end: impl Future<Output = T>,
) -> Result<(), EngineError> {
    const TIMEOUT: Duration = Duration::from_secs(30);
    let hangs = |_| {
        EngineError::internal(format!(
            "container {} did not end within 30 seconds of SIGKILL; one of its processes may hang \
             in the kernel, waiting for a device or a network file system",
            container.name
        ))
    };
    tokio::time::timeout(TIMEOUT, end).await.map(drop).map_err(hangs)
}
