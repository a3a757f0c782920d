//! `docker stop` and `restart`, and what every verb that ends a container needs.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_types::Id;
use tokio::sync::watch;

use crate::blocking::blocking;
use crate::containers::{Lifecycle, Record};
use crate::engine::start::Cause;
use crate::signals::Signal;
use crate::transaction::Transaction;
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
        engine.containers.lock().entry_mut(id)?.runtime.restarting += 1;
        Ok(Self { engine: Arc::clone(engine), id })
    }
}

impl Drop for Restarting {
    /// One that was stopped and does not run again, as its client has gone or it does not start,
    /// goes now.
    fn drop(&mut self) {
        let goes = match self.engine.containers.lock().entry_mut(self.id) {
            Ok(entry) => {
                // A start that failed has begun the count anew.
                entry.runtime.restarting = entry.runtime.restarting.saturating_sub(1);
                let container = &entry.record.container;
                entry.runtime.restarting == 0
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
        let guard = self.containers.exclusive(id).await?;
        let container = self.containers.record(id)?.container;
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
        let timeout = timeout.or(container.config.stop_timeout);
        self.end_running(guard, &container, signal, timeout).await?;
        self.events.container(&container, "stop", &[]);
        Ok(Stopped::Now)
    }

    /// Ends a container that runs or is paused: by `signal`, then by SIGKILL after `timeout` seconds
    /// (10 unless it is said, never if it is negative). `guard` is its operation lock, which is let
    /// go before the end.
    pub(crate) async fn end_running(
        self: &Arc<Self>,
        guard: tokio::sync::OwnedMutexGuard<()>,
        container: &Container,
        signal: Signal,
        timeout: Option<i64>,
    ) -> Result<(), EngineError> {
        let id = container.id;
        let (pidfd, mut lifecycle) = self.watch_end(id)?;
        drop(guard);
        let ends = lifecycle.borrow_and_update().ends;
        let ended = |lifecycle: &Lifecycle| lifecycle.ends > ends || lifecycle.removed;

        let number = signal.as_raw().to_string();
        self.events.container(container, "kill", &[("signal", number)]);
        self.send(id, &pidfd, signal)?;
        let timeout = timeout.unwrap_or(STOP_TIMEOUT);
        // A frozen process never handles the signal, so there is nothing to wait for.
        let paused = container.state.status == Status::Paused;
        let in_time = match u64::try_from(timeout) {
            Ok(_) if paused && signal != Signal::KILL => false,
            Ok(seconds) => {
                let wait = lifecycle.wait_for(ended);
                tokio::time::timeout(Duration::from_secs(seconds), wait).await.is_ok()
            }
            Err(_) => lifecycle.wait_for(ended).await.is_ok(),
        };
        if !in_time {
            let number = Signal::KILL.as_raw().to_string();
            self.events.container(container, "kill", &[("signal", number)]);
            self.send(id, &pidfd, Signal::KILL)?;
            killed(container, lifecycle.wait_for(ended)).await?;
        }
        Ok(())
    }

    pub async fn restart(
        self: &Arc<Self>,
        id: Id,
        timeout: Option<i64>,
    ) -> Result<(), EngineError> {
        let restarting = Restarting::begin(self, id)?;
        self.stop(id, timeout, None).await?;
        let guard = self.containers.exclusive(id).await?;
        let engine = Arc::clone(self);
        blocking(move |may_block| {
            let _guard = guard;
            engine.start_now(may_block, id, Cause::User)
        })
        .await?;
        drop(restarting);
        self.events.container(&self.containers.record(id)?.container, "restart", &[]);
        Ok(())
    }

    /// What it takes to end a running container and to see that it has.
    pub(crate) fn watch_end(
        &self,
        id: Id,
    ) -> Result<(Arc<OwnedFd>, watch::Receiver<Lifecycle>), EngineError> {
        let state = self.containers.lock();
        let entry = state.entry(id)?;
        let pidfd = entry.runtime.pidfd.clone();
        let pidfd = pidfd.ok_or_else(|| EngineError::not_running(id))?;
        Ok((pidfd, entry.lifecycle.subscribe()))
    }

    /// Signals the container's first process; one that has just ended is no error. SIGKILL also
    /// thaws: a frozen process would not die of it on cgroup v1.
    pub(crate) fn send(&self, id: Id, pidfd: &OwnedFd, signal: Signal) -> Result<(), EngineError> {
        match signal.send(pidfd) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(errno) => return Err(EngineError::internal(format!("send a signal: {errno}"))),
        }
        let paused =
            self.containers.record(id).is_ok_and(|it| it.container.state.status == Status::Paused);
        if signal == Signal::KILL && paused {
            self.cgroups.of(id)?.thaw()?;
        }
        Ok(())
    }

    /// Notes that the user ends it, so that its policy leaves it alone. On disk only where a policy
    /// would ask after a crash.
    pub(crate) async fn mark_stopped(self: &Arc<Self>, id: Id) -> Result<(), EngineError> {
        let record = self.containers.record(id)?;
        // What ends with the engine goes on with the next one.
        if record.stopped_by_user || self.is_ending() {
            return Ok(());
        }
        if record.container.host.restart_policy != RestartPolicy::No || record.ended_unhealthy {
            let engine = Arc::clone(self);
            let stopped = Record { stopped_by_user: true, ..record };
            blocking(move |may_block| {
                let mut transaction = Transaction::default();
                engine.containers.put_on_disk(&mut transaction, &stopped);
                transaction.commit(&engine.records, may_block)
            })
            .await?;
        }
        // Not the record that was read above: others may change it meanwhile.
        Arc::make_mut(&mut self.containers.lock().entry_mut(id)?.record).stopped_by_user = true;
        Ok(())
    }

    pub(crate) async fn cancel_restart(self: &Arc<Self>, id: Id) -> Result<(), EngineError> {
        let engine = Arc::clone(self);
        let ending = self.is_ending();
        blocking(move |may_block| {
            engine.containers.change(may_block, id, |record| {
                record.stopped_by_user |= !ending;
                record.set_status(Status::Exited);
            })
        })
        .await?;
        let mut state = self.containers.lock();
        let entry = state.entry_mut(id)?;
        entry.runtime.generation += 1;
        entry.lifecycle.send_modify(|lifecycle| lifecycle.running = false);
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
