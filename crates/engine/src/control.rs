//! Stop, kill, pause, wait, rename, remove.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_store::put;
use bulkhead_types::{Id, Name};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::sync::watch;

use crate::blocking::{Blocking, blocking};
use crate::create::name_conflict;
use crate::start::Cause;
use crate::state::{Progress, Record};
use crate::transaction::Transaction;
use crate::{
    Container, Engine, EngineError, RestartPolicy, Status, Stopped, WaitCondition, signals,
};

/// Seconds between the stop signal and SIGKILL.
const STOP_TIMEOUT: i64 = 10;

impl Engine {
    /// Sends the stop signal, then SIGKILL after `timeout` seconds (the container's, else 10).
    pub async fn stop(
        self: &Arc<Self>,
        name: &str,
        timeout: Option<i64>,
        signal: Option<&str>,
    ) -> Result<Stopped, EngineError> {
        let (id, guard) = self.exclusive(name).await?;
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
        name: &str,
        timeout: Option<i64>,
    ) -> Result<(), EngineError> {
        let id = self.state().find(name)?;
        let name = id.to_string();
        self.stop(&name, timeout, None).await?;
        let (id, guard) = self.exclusive(&name).await?;
        let engine = Arc::clone(self);
        blocking(move |may_block| {
            let _guard = guard;
            engine.start_now(may_block, id, Cause::User)
        })
        .await?;
        self.publish_container(&self.record(id)?.container, "restart", &[]);
        Ok(())
    }

    /// `signal` as Docker reads it: `KILL`, `SIGKILL`, `9`.
    pub async fn kill(self: &Arc<Self>, name: &str, signal: &str) -> Result<(), EngineError> {
        let signal = if signal.is_empty() { Signal::KILL } else { signals::parse(signal)? };
        let (id, guard) = self.exclusive(name).await?;
        let container = self.record(id)?.container;
        if !matches!(container.state.status, Status::Running | Status::Paused) {
            return Err(EngineError::conflict(format!(
                "cannot kill container: {name}: container {id} is not running"
            )));
        }
        let stop_signal = container.config.stop_signal.as_deref().unwrap_or("SIGTERM");
        if signal == Signal::KILL || signals::parse(stop_signal).is_ok_and(|stop| stop == signal) {
            self.mark_stopped(id).await?;
        }
        let (pidfd, mut progress) = self.watch_end(id)?;
        drop(guard);
        let ends = progress.borrow_and_update().ends;
        self.publish_container(&container, "kill", &[("signal", signal.as_raw().to_string())]);
        self.send(id, &pidfd, signal)?;
        if signal == Signal::KILL {
            // As Docker: after `docker kill` it does not run any more.
            let ended = progress.wait_for(|progress| progress.ends > ends || progress.removed);
            let _ = tokio::time::timeout(Duration::from_secs(10), ended).await;
        }
        Ok(())
    }

    pub async fn pause(self: &Arc<Self>, name: &str) -> Result<(), EngineError> {
        self.freeze(name, Status::Running, Status::Paused).await
    }

    pub async fn unpause(self: &Arc<Self>, name: &str) -> Result<(), EngineError> {
        self.freeze(name, Status::Paused, Status::Running).await
    }

    async fn freeze(
        self: &Arc<Self>,
        name: &str,
        from: Status,
        to: Status,
    ) -> Result<(), EngineError> {
        let (id, guard) = self.exclusive(name).await?;
        let status = self.record(id)?.container.state.status;
        if status != from {
            return Err(EngineError::conflict(match (to, status) {
                (Status::Paused, Status::Paused) => format!("container {id} is already paused"),
                (Status::Paused, _) => format!("container {id} is not running"),
                _ => format!("Container {id} is not paused"),
            }));
        }
        let engine = Arc::clone(self);
        blocking(move |may_block| {
            let _guard = guard;
            let cgroup = engine.cgroup(id)?;
            let container = engine.change(may_block, id, |record| record.set_status(to))?;
            let done = match to {
                Status::Paused => cgroup.freeze(),
                _ => cgroup.thaw(),
            };
            if let Err(error) = done {
                engine.change(may_block, id, |record| record.set_status(from))?;
                return Err(error.into());
            }
            let action = if to == Status::Paused { "pause" } else { "unpause" };
            engine.publish_container(&container, action, &[]);
            Ok(())
        })
        .await
    }

    /// Resolves when the condition holds, with the exit code. The future is registered when this
    /// returns, so a start that comes later is not missed.
    pub fn wait(
        &self,
        name: &str,
        condition: WaitCondition,
    ) -> Result<impl Future<Output = Result<u8, EngineError>> + Send + use<>, EngineError> {
        let mut receiver = {
            let state = self.state();
            state.slot(state.find(name)?)?.progress.subscribe()
        };
        let ends = receiver.borrow_and_update().ends;
        Ok(async move {
            let done = receiver
                .wait_for(|progress| {
                    progress.removed
                        || match condition {
                            // An end counts even where a policy restarts it at once, as in Docker.
                            WaitCondition::NotRunning => !progress.running || progress.ends > ends,
                            WaitCondition::NextExit => progress.ends > ends,
                            WaitCondition::Removed => false,
                        }
                })
                .await
                .map(|progress| progress.code);
            // The sender goes only with the container, after it has said so.
            Ok(done.unwrap_or_else(|_| receiver.borrow().code))
        })
    }

    pub async fn rename(self: &Arc<Self>, name: &str, new: &str) -> Result<(), EngineError> {
        let new_name: Name = new.strip_prefix('/').unwrap_or(new).parse().map_err(|_| {
            EngineError::invalid(format!(
                "Error when allocating new name: Invalid container name ({new}), only \
                 [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            ))
        })?;
        let (id, guard) = self.exclusive(name).await?;
        let engine = Arc::clone(self);
        blocking(move |may_block| {
            let _guard = guard;
            engine.rename_now(may_block, id, new_name)
        })
        .await
    }

    fn rename_now(&self, may_block: &Blocking, id: Id, new_name: Name) -> Result<(), EngineError> {
        let _creating =
            self.allocation_lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let owner = self.state().names.get(&new_name).copied();
        match owner {
            Some(owner) if owner == id => {
                return Err(EngineError::invalid(
                    "Error when allocating new name: renaming a container with the same name as \
                     its current name",
                ));
            }
            Some(owner) => {
                let mut error = name_conflict(&new_name, owner);
                error.message = format!("Error when allocating new name: {}", error.message);
                return Err(error);
            }
            None => {}
        }
        let old = self.record(id)?.container.name;
        let mut record = self.record(id)?;
        record.container.name = new_name;
        let container = record.container.clone();
        let mut transaction = Transaction::default();
        self.put_record(&mut transaction, &record);
        transaction.in_memory(|| {
            let mut state = self.state();
            state.names.remove(&old);
            state.names.insert(container.name.clone(), id);
        });
        transaction.commit(&self.store, may_block)?;
        self.publish_container(&container, "rename", &[("oldName", format!("/{old}"))]);
        Ok(())
    }

    pub async fn remove(
        self: &Arc<Self>,
        name: &str,
        force: bool,
        volumes: bool,
    ) -> Result<(), EngineError> {
        let (id, mut guard) = self.exclusive(name).await?;
        let container = self.record(id)?.container;
        match container.state.status {
            Status::Running | Status::Paused | Status::Restarting if !force => {
                let why = match container.state.status {
                    Status::Paused => "container is paused and must be unpaused first",
                    Status::Restarting => {
                        "container is restarting: stop the container before removing or force remove"
                    }
                    _ => "container is running: stop the container before removing or force remove",
                };
                return Err(EngineError::conflict(format!(
                    "cannot remove container \"{}\": {why}",
                    container.name
                )));
            }
            Status::Running | Status::Paused => {
                self.mark_stopped(id).await?;
                let (pidfd, mut progress) = self.watch_end(id)?;
                let ends = progress.borrow_and_update().ends;
                drop(guard);
                self.send(id, &pidfd, Signal::KILL)?;
                killed(&container, progress.wait_for(|it| it.ends > ends || it.removed)).await?;
                guard = match self.exclusive(&id.to_string()).await {
                    Ok((_, guard)) => guard,
                    // `--rm` was faster.
                    Err(_) => return Ok(()),
                };
            }
            Status::Restarting => self.cancel_restart(id).await?,
            _ => {}
        }
        let engine = Arc::clone(self);
        blocking(move |may_block| {
            let _guard = guard;
            engine.drop_container(may_block, id, volumes, engine.cleaning())
        })
        .await
    }

    /// What it takes to end a running container and to see that it has.
    fn watch_end(&self, id: Id) -> Result<(Arc<OwnedFd>, watch::Receiver<Progress>), EngineError> {
        let state = self.state();
        let slot = state.slot(id)?;
        let pidfd = slot.live.pidfd.clone();
        let pidfd =
            pidfd.ok_or_else(|| EngineError::conflict(not_running(&slot.record.container)))?;
        Ok((pidfd, slot.progress.subscribe()))
    }

    /// Signals the container's first process; one that has just ended is no error. SIGKILL also
    /// thaws: a frozen process would not die of it on cgroup v1.
    fn send(&self, id: Id, pidfd: &OwnedFd, signal: Signal) -> Result<(), EngineError> {
        match pidfd_send_signal(pidfd, signal) {
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
    async fn mark_stopped(self: &Arc<Self>, id: Id) -> Result<(), EngineError> {
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

    async fn cancel_restart(self: &Arc<Self>, id: Id) -> Result<(), EngineError> {
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
async fn killed<T>(container: &Container, end: impl Future<Output = T>) -> Result<(), EngineError> {
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

pub(crate) fn not_running(container: &Container) -> String {
    format!("container {} is not running", container.id)
}
