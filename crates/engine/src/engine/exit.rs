//! What follows when a container has ended: record, restart, take down, tell.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_types::{Id, Timestamp};
use bulkhead_warden::Exit;

use crate::blocking::{Blocking, blocking};
use crate::containers::{Record, Removal};
use crate::data_dir::Kind;
use crate::engine::settle::WardenRecord;
use crate::engine::start::Cause;
use crate::health::Health;
use crate::restart::{Ended, decide};
use crate::transaction::Transaction;
use crate::{Container, Engine, EngineError, Networking, Status};

/// Held while a container that is gone for users is still being cleaned up.
#[derive(Debug)]
pub(crate) struct Cleaning {
    _guard: Option<tokio::sync::OwnedRwLockReadGuard<()>>,
}

impl Engine {
    /// Called for the warden's event, and by recovery for an end that nobody saw.
    pub(crate) async fn container_ended(self: &Arc<Self>, id: Id, exit: Exit) {
        let lock = self.containers.lock().entry(id).map(|entry| Arc::clone(&entry.operation));
        let Ok(lock) = lock else { return };
        // A start that is still going on is waited for: its end comes after it.
        let guard = lock.lock_owned().await;
        let engine = Arc::clone(self);
        let ended = blocking(move |may_block| {
            let _guard = guard;
            engine.end_now(may_block, id, exit);
            Ok(())
        })
        .await;
        if let Err(error) = ended {
            tracing::error!(container = %id.short(), %error, "after the container's end");
        }
    }

    /// The caller holds the container's operation lock.
    pub(crate) fn end_now(self: &Arc<Self>, may_block: &Blocking, id: Id, exit: Exit) {
        let Ok(record) = self.containers.record(id) else { return };
        if !record.is_running() {
            return;
        }
        let before = record.container.clone();
        // Taken before anybody hears of the end, so that a tear-down that follows waits for the rest.
        let cleaning = self.cleaning();
        let at = Timestamp::from_nanosecond(exit.at.into()).unwrap_or_else(|_| Timestamp::now());
        let oom_killed = self
            .cgroups
            .of(id)
            .and_then(|cgroup| Ok(cgroup.oom_kill_count()?))
            .is_ok_and(|count| count > 0);
        // one that was over before the watch heard of it
        if oom_killed && self.containers.lock().entry(id).is_ok_and(|entry| !entry.runtime.oom_told)
        {
            self.events.container(&before, "oom", &[]);
        }
        let last_wait = self
            .containers
            .lock()
            .entry(id)
            .map_or(Duration::ZERO, |entry| entry.runtime.last_wait);
        let wait = decide(
            before.host.restart_policy,
            Ended {
                exit_code: exit.code,
                restarts: before.restart_count,
                stopped_by_user: record.stopped_by_user,
                unhealthy: record.ended_unhealthy,
                ran: before
                    .state
                    .started_at
                    .and_then(|start| Duration::try_from(at.duration_since(start)).ok())
                    .unwrap_or_default(),
                last_wait,
            },
        );
        let wait = wait.filter(|_| !self.is_ending());
        // Before anybody hears of the end: whoever does may want the ports at once.
        let mut faults = self.networks.unpublish(&before);
        let mut netns = None;
        bulkhead_failpoint::pass("exit.unpublished");
        if let Ok(entry) = self.containers.lock().entry_mut(id) {
            entry.runtime.ports = Vec::new();
            entry.runtime.handover = None;
            entry.runtime.health = None;
            entry.runtime.last_wait = wait.unwrap_or_default();
            netns = entry.runtime.netns.take();
        }
        // Its name before its address, which another may have as soon as it needs one.
        faults.extend(self.name_service.detach(id).err());
        self.networks.unplug(&before, netns);
        let ended = |record: &mut Record| {
            record.ended_unhealthy = false;
            let container = &mut record.container;
            container.network = Networking::detached(container.network.stack);
            let health = container.state.health.take().map(Health::ended);
            container.state = crate::State {
                health,
                status: if wait.is_some() { Status::Restarting } else { Status::Exited },
                exit_code: exit.code,
                oom_killed,
                started_at: container.state.started_at,
                finished_at: Some(at),
                ..crate::State::default()
            };
            if wait.is_some() {
                container.restart_count += 1;
            }
        };
        // moby: daemon/monitor.go
        let lasted = before.state.started_at.map_or(0, |start| at.duration_since(start).as_secs());
        let died =
            [("exitCode", exit.code.to_string()), ("execDuration", lasted.max(0).to_string())];
        let (restarting, removal) = match self.containers.lock().entry(id) {
            Ok(entry) => (entry.runtime.restarting > 0, entry.runtime.removal),
            Err(_) => (false, None),
        };
        let goes = before.host.auto_remove && !record.throw_away && !restarting;
        let removal = removal.or_else(|| goes.then_some(Removal::WithVolumes));
        if wait.is_none()
            && let Some(removal) = removal
        {
            self.events.container(&before, "die", &died);
            self.events.volumes_of(&before, "unmount");
            self.events.networks_of(&before, "disconnect");
            self.finish(id, exit.code, false);
            let volumes = removal == Removal::WithVolumes;
            if let Err(error) = self.drop_container(may_block, id, volumes, cleaning) {
                tracing::error!(container = %before.name, %error, "record a removal");
                faults.extend(self.end_unrecorded(id, &before, ended));
            }
        } else if let Err(error) = self.containers.change(may_block, id, ended) {
            tracing::error!(container = %before.name, %error, "record the end");
            self.events.container(&before, "die", &died);
            self.events.volumes_of(&before, "unmount");
            self.events.networks_of(&before, "disconnect");
            self.finish(id, exit.code, wait.is_some());
            faults.extend(self.end_unrecorded(id, &before, ended));
        } else {
            bulkhead_failpoint::pass("exit.recorded");
            self.events.container(&before, "die", &died);
            self.events.volumes_of(&before, "unmount");
            self.events.networks_of(&before, "disconnect");
            self.finish(id, exit.code, wait.is_some());
            faults.extend(self.take_down(&before, None, WardenRecord::Forget));
        }
        for fault in faults {
            tracing::warn!(container = %before.name, error = %fault, "take down an ended container");
        }
        if let Some(wait) = wait {
            self.restart_later(id, wait);
        }
    }

    /// Ends a container in memory whose end the store does not take; the warden keeps it until it does.
    fn end_unrecorded(
        self: &Arc<Self>,
        id: Id,
        before: &Container,
        ended: impl FnOnce(&mut Record),
    ) -> Vec<EngineError> {
        let netns = match self.containers.lock().entry_mut(id) {
            Ok(entry) => {
                ended(Arc::make_mut(&mut entry.record));
                entry.runtime.netns.take()
            }
            Err(_) => None,
        };
        let faults = self.take_down(before, netns, WardenRecord::Keep);
        self.settle_later(id);
        faults
    }

    /// Tells waiters.
    fn finish(&self, id: Id, code: u8, restarts: bool) {
        if let Ok(entry) = self.containers.lock().entry(id) {
            entry.lifecycle.send_modify(|lifecycle| {
                lifecycle.ends += 1;
                lifecycle.code = code;
                lifecycle.running = restarts;
            });
        }
    }

    /// Starts a container by its policy after `wait`, unless somebody starts or stops it before.
    pub(crate) fn restart_later(self: &Arc<Self>, id: Id, wait: Duration) {
        let Ok(generation) = self.containers.lock().entry(id).map(|entry| entry.runtime.generation)
        else {
            return;
        };
        // Not the engine itself: a waiting restart does not keep it open.
        let engine = Arc::downgrade(self);
        self.runtime.spawn(async move {
            tokio::time::sleep(wait).await;
            let Some(engine) = engine.upgrade() else { return };
            let Ok(guard) = engine.containers.exclusive(id).await else { return };
            let still = engine
                .containers
                .lock()
                .entry(id)
                .is_ok_and(|entry| entry.runtime.generation == generation);
            if !still {
                return;
            }
            let name = engine.containers.record(id).map(|record| record.container.name.to_string());
            let started = blocking(move |may_block| {
                let _guard = guard;
                engine.start_now(may_block, id, Cause::Policy)
            })
            .await;
            if let Err(error) = started {
                tracing::warn!(container = name.unwrap_or_default(), %error, "restart by policy");
            }
        });
    }

    /// Removes a container that does not run: from the store and from sight at once, then its files
    /// in the background. A crash in between leaves only orphans, which the next engine removes.
    pub(crate) fn drop_container(
        self: &Arc<Self>,
        may_block: &Blocking,
        id: Id,
        volumes: bool,
        cleaning: Cleaning,
    ) -> Result<(), EngineError> {
        let container = self.containers.record(id)?.container;
        let anonymous = if volumes { self.anonymous_volumes(&container) } else { Vec::new() };
        self.hold_log(&container);
        let mut entry = None;
        let mut transaction = Transaction::default();
        for name in &anonymous {
            self.volumes.delete(&mut transaction, name);
        }
        self.containers.delete(&mut transaction, id, &mut entry);
        transaction.in_memory(|| self.execs.forget_container(id));
        transaction.intend_removal(&self.records, Kind::Container, &id.to_string());
        if let Err(error) = transaction.commit(&self.records, may_block) {
            self.shipping.release(id);
            return Err(error);
        }
        bulkhead_failpoint::pass("container.removal-recorded");
        self.shipping.keep(id);
        self.events.container(&container, "destroy", &[]);
        for name in &anonymous {
            self.events.volume(name, "destroy");
        }
        let mut netns = None;
        if let Some(entry) = entry {
            netns = entry.runtime.netns;
            entry.lifecycle.send_modify(|lifecycle| {
                lifecycle.running = false;
                lifecycle.removed = true;
            });
        }
        let engine = Arc::clone(self);
        self.runtime.spawn_blocking(move || {
            engine.clean_up(&container, netns, &anonymous);
            drop(cleaning);
        });
        Ok(())
    }

    /// Makes [`Engine::tear_down`] wait until it is dropped.
    pub(crate) fn cleaning(&self) -> Cleaning {
        // Fails only while a tear-down goes on, which removes what is left itself.
        Cleaning { _guard: Arc::clone(&self.cleanup_lock).try_read_owned().ok() }
    }

    fn clean_up(
        self: &Arc<Self>,
        container: &Container,
        netns: Option<Arc<OwnedFd>>,
        volumes: &[String],
    ) {
        let mut faults = self.take_down(container, netns, WardenRecord::Forget);
        match self.data_dir.remove_container(container.id) {
            Ok(()) => self.records.removed(Kind::Container, &container.id.to_string()),
            Err(fault) => faults.push(fault),
        }
        for name in volumes {
            match self.data_dir.remove_volume(name) {
                Ok(()) => self.records.removed(Kind::Volume, name),
                Err(fault) => faults.push(fault),
            }
        }
        for fault in faults {
            tracing::warn!(container = %container.name, error = %fault, "remove a container");
        }
    }

    /// The volumes that only this container has and nobody named.
    fn anonymous_volumes(&self, container: &Container) -> Vec<String> {
        let own = container.mounts.iter().filter_map(|mount| mount.name.clone());
        own.filter(|name| self.volumes.get(name).is_some_and(|volume| volume.anonymous))
            .filter(|name| self.containers.users_of_volume(name) == [container.id])
            .collect()
    }
}
