//! Probes of health checks: when they run, what comes of them, and what follows.
//!
//! Each container with a check has one task, which sleeps by the async runtime's timers; no thread
//! is its own. A probe is an exec that is bound to this engine: the warden ends it, and what it has
//! started, with the engine's connection, and so does [`Probe`] whenever nobody waits for it any more.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bulkhead_types::{Id, Timestamp};
use bulkhead_warden::Lifetime;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use crate::blocking::{Blocking, blocking};
use crate::containers::{AbortOnDrop, Record};
use crate::error::io_error;
use crate::execs::ExecEntry;
use crate::health::{Health, HealthCheck, HealthResult, HealthStatus, OnFailure, ProbeOutput};
use crate::{Class, Container, CreateExec, Engine, EngineError, Kind, Status, signals};

/// How many probes are started at a time: the warden starts one after the other anyway, and a
/// thousand that are due at once shall not hold as many threads.
pub(crate) const STARTED_AT_ONCE: usize = 4;

/// How long the end of a probe that was killed is waited for: they shall not pile up.
const END_TIMEOUT: Duration = Duration::from_secs(30);

impl Engine {
    /// Begins to probe a container that runs and has a check; it ends with what is returned.
    pub(crate) fn watch_health(self: &Arc<Self>, container: &Container) -> Option<AbortOnDrop> {
        let watch = Watch {
            engine: Arc::downgrade(self),
            id: container.id,
            started: container.state.started_at?,
            check: check_of(container)?,
        };
        let watch = Arc::new(watch);
        Some(AbortOnDrop(self.runtime.spawn(async move { watch.run().await })))
    }

    /// Begins or ends to probe, as a container is now. The caller holds its operation lock.
    pub(crate) fn watch_health_while_running(self: &Arc<Self>, id: Id, container: &Container) {
        let runs = container.state.status == Status::Running;
        let watch = runs.then(|| self.watch_health(container)).flatten();
        if let Ok(entry) = self.containers.lock().entry_mut(id) {
            entry.runtime.health = watch;
        }
    }

    async fn begin_probe(
        self: &Arc<Self>,
        id: Id,
        check: &HealthCheck,
    ) -> Result<Probe, EngineError> {
        let permit = self.probe_starts.acquire().await;
        let record = self.containers.shared_record(id)?;
        super::attach::check_exec(&record.container)?;
        let create = CreateExec {
            cmd: check.command.clone(),
            attach_stdout: true,
            attach_stderr: true,
            ..CreateExec::default()
        };
        let exec = Id::random();
        let entry = ExecEntry::probe(id, create.clone());
        let running = entry.running.subscribe();
        self.execs.insert(exec, entry);
        let command = create.cmd.join(" ");
        for action in ["exec_create", "exec_start"] {
            let (action, id) = (format!("{action}: {command}"), exec.to_string());
            self.events.container(&record.container, &action, &[("execID", id)]);
        }
        let engine = Arc::clone(self);
        // It is in the answer, and so ended even where nobody waits for the answer any more.
        let begun = blocking(move |_| {
            let begun =
                engine.exec_now(id, exec, &record.container, create, false, Lifetime::Bound);
            let socket = match begun {
                Ok(socket) => socket,
                Err(error) => {
                    engine.execs.remove(exec);
                    return Err(error);
                }
            };
            Ok(Probe { engine: Arc::downgrade(&engine), exec, running, socket })
        });
        let begun = begun.await;
        drop(permit);
        begun
    }

    /// Notes what came of a probe of the life that began at `started`, and does what follows. The
    /// caller holds the container's operation lock.
    fn note_result(
        self: &Arc<Self>,
        may_block: &Blocking,
        watch: &Watch,
        result: HealthResult,
    ) -> Result<(), EngineError> {
        let id = watch.id;
        let record = self.containers.shared_record(id)?;
        if !watch.is_meant(&record.container) {
            return Ok(());
        }
        let before = record.container.state.health.clone();
        let before = before.unwrap_or_else(|| Health::starting(None));
        let ran = since(watch.started, result.start);
        let after = watch.check.judge(&before, ran, result);
        let on_failure = match record.stopped_by_user {
            true => OnFailure::None,
            false => after.calls_for(record.container.host.health_on_failure),
        };
        // An engine before this one was about to end it, and it has recovered.
        let recovered = record.ended_unhealthy && after.status == HealthStatus::Healthy;
        drop(record);
        let set = |record: &mut Record| {
            record.container.state.health = Some(after.clone());
            record.ended_unhealthy &= !recovered;
        };
        let mut noted = Ok(());
        if recovered || !after.is_as(&before) {
            noted = self.containers.note(may_block, id, set);
        }
        // What the store did not take, or what is not worth a write, counts all the same.
        set(Arc::make_mut(&mut self.containers.lock().entry_mut(id)?.record));
        if after.status != before.status {
            let container = self.containers.record(id)?.container;
            let action = format!("health_status: {}", after.status.name());
            self.events.container(&container, &action, &[]);
        }
        if on_failure != OnFailure::None {
            let engine = Arc::clone(self);
            self.runtime.spawn(async move {
                if let Err(error) = engine.end_unhealthy(id, on_failure).await {
                    tracing::warn!(container = %id.short(), %error, "end an unhealthy container");
                }
            });
        }
        noted
    }

    /// Ends a container that was found unhealthy, as it asked for.
    async fn end_unhealthy(
        self: &Arc<Self>,
        id: Id,
        on_failure: OnFailure,
    ) -> Result<(), EngineError> {
        let guard = self.containers.exclusive(id).await?;
        let record = self.containers.record(id)?;
        if record.container.state.status != Status::Running || record.stopped_by_user {
            return Ok(());
        }
        {
            let mut state = self.containers.lock();
            let runtime = &mut state.entry_mut(id)?.runtime;
            if std::mem::replace(&mut runtime.ending_unhealthy, true) {
                return Ok(());
            }
        }
        tracing::warn!(container = %record.container.name, ?on_failure, "it is unhealthy");
        if on_failure == OnFailure::Stop {
            drop(guard);
            return self.stop(id, None, None).await.map(drop);
        }
        let signal = match on_failure {
            OnFailure::Restart => {
                // Whoever finds its end, this engine or the next, starts it again.
                let engine = Arc::clone(self);
                blocking(move |may_block| {
                    engine.containers.note(may_block, id, |record| record.ended_unhealthy = true)
                })
                .await?;
                let own = record.container.config.stop_signal.as_deref();
                signals::parse(own.filter(|own| !own.is_empty()).unwrap_or("SIGTERM"))?
            }
            _ => signals::Signal::KILL,
        };
        let timeout = record.container.config.stop_timeout;
        self.end_running(guard, &record.container, signal, timeout).await
    }
}

/// What a container's config asks for.
pub(crate) fn check_of(container: &Container) -> Option<HealthCheck> {
    HealthCheck::of(container.config.healthcheck.as_ref(), container.config.shell.as_deref())
}

/// At a container's start.
pub(crate) fn health_at_start(container: &Container) -> Option<Health> {
    let last = container.state.health.clone();
    check_of(container).map(|_| Health::starting(last))
}

fn since(started: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(started)).unwrap_or_default()
}

/// The probes of one life of a container.
struct Watch {
    /// Not the engine itself: who waits for a probe does not keep it open.
    engine: Weak<Engine>,
    id: Id,
    /// Which life it is.
    started: Timestamp,
    check: HealthCheck,
}

impl Watch {
    async fn run(self: &Arc<Self>) {
        let mut is_first = true;
        while let Some(health) = self.health() {
            let now = Timestamp::now();
            let mut wait = self.check.wait(health.status, since(self.started, now));
            // Another engine has probed it before: its pauses go on.
            let last = health.log.last().filter(|last| last.start >= self.started);
            if let Some(last) = last.filter(|_| std::mem::take(&mut is_first)) {
                wait = HealthCheck::rest(wait, since(last.end, now), self.id);
            }
            is_first = false;
            tokio::time::sleep(wait).await;
            // One that nobody can judge says nothing: the next one will.
            let Some(result) = self.probe().await else { continue };
            self.note(result).await;
        }
    }

    /// `None` once this life is over.
    fn health(&self) -> Option<Health> {
        let record = self.engine.upgrade()?.containers.shared_record(self.id).ok()?;
        let health = || record.container.state.health.clone();
        let health = self.is_meant(&record.container).then(health)?;
        Some(health.unwrap_or_else(|| Health::starting(None)))
    }

    fn is_meant(&self, container: &Container) -> bool {
        let state = &container.state;
        state.status == Status::Running && state.started_at == Some(self.started)
    }

    /// Runs one probe to its end; `None` if what came of it says nothing of the container.
    async fn probe(&self) -> Option<HealthResult> {
        let start = Timestamp::now();
        let result = |exit_code, output| {
            Some(HealthResult { start, end: Timestamp::now(), exit_code, output })
        };
        let begun = self.engine.upgrade()?.begin_probe(self.id, &self.check).await;
        let mut probe = match begun {
            Ok(probe) => probe,
            // The container is about to end, or the warden has, or the engine is in trouble.
            Err(error)
                if error.kind == Kind::NotRunning
                    || matches!(error.class, Class::Conflict | Class::Unavailable) =>
            {
                return None;
            }
            Err(error) => return result(-1, error.to_string()),
        };
        let mut output = ProbeOutput::default();
        match tokio::time::timeout(self.check.timeout, probe.finish(&mut output)).await {
            Ok(Ok(code)) => result(code?.into(), output.text()),
            Ok(Err(error)) => result(-1, error.to_string()),
            Err(_) => {
                probe.end();
                let ended = tokio::time::timeout(END_TIMEOUT, probe.finish(&mut output));
                if ended.await.is_err() {
                    tracing::warn!(container = %self.id.short(), "a probe does not end");
                }
                result(-1, self.check.too_late(&output.text()))
            }
        }
    }

    async fn note(self: &Arc<Self>, result: HealthResult) {
        let Some(engine) = self.engine.upgrade() else { return };
        let Ok(guard) = engine.containers.exclusive(self.id).await else { return };
        let watch = Arc::clone(self);
        let noted = blocking(move |may_block| {
            let _guard = guard;
            engine.note_result(may_block, &watch, result)
        });
        if let Err(error) = noted.await {
            tracing::error!(container = %self.id.short(), %error, "record its health");
        }
    }
}

/// A probe that runs. Dropped before its end, it is ended.
#[derive(Debug)]
struct Probe {
    engine: Weak<Engine>,
    exec: Id,
    running: watch::Receiver<bool>,
    socket: Option<UnixStream>,
}

impl Probe {
    /// Reads what it says and waits for its end: its exit code, which is `None` where the end was
    /// not its own. May be given up and asked again.
    async fn finish(&mut self, output: &mut ProbeOutput) -> Result<Option<u8>, EngineError> {
        if let Some(socket) = self.socket.take() {
            socket.set_nonblocking(true).map_err(io_error("read a probe's output"))?;
            let copy = socket.try_clone().map_err(io_error("read a probe's output"))?;
            let mut reader = tokio::net::UnixStream::from_std(copy)
                .map_err(io_error("read a probe's output"))?;
            self.socket = Some(socket);
            let mut buffer = vec![0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut buffer).await {
                output.push(&buffer[..length]);
            }
            self.socket = None;
        }
        if self.running.wait_for(|running| !running).await.is_err() {
            return Ok(None);
        }
        let Some(engine) = self.engine.upgrade() else { return Ok(None) };
        let code = engine.execs.with(self.exec, |entry| entry.exit_code.filter(|_| !entry.lost));
        Ok(code.flatten())
    }

    fn end(&self) {
        let Some(engine) = self.engine.upgrade() else { return };
        let exec = self.exec;
        // One that has ended just now is not known any more, and nobody's fault.
        engine.runtime.clone().spawn_blocking(move || engine.warden.end(exec));
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let Some(engine) = self.engine.upgrade() else { return };
        if engine.execs.abandon(self.exec) {
            self.end();
        }
    }
}
