//! Opening an engine: what is found is made to match what is recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bulkhead_types::{Id, Timestamp};
use bulkhead_warden::{Exit, Known, State as Found, WardenError};
use rustix::fs::{Mode, OFlags};

use crate::blocking::{Blocking, blocking};
use crate::containers::Record;
use crate::data_dir::Kind;
use crate::descriptors::has_ended;
use crate::engine::health::health_at_start;
use crate::engine::settle::WardenRecord;
use crate::ports::reserve_again;
use crate::restart::starts_with_engine;
use crate::{Engine, EngineError, Status, Stopped};

impl Engine {
    /// Reads the records, asks the warden what runs, and repairs the difference. Returns the
    /// containers that their policy starts. Doing it twice changes nothing.
    pub(crate) fn recover(self: &Arc<Self>, may_block: &Blocking) -> Result<Vec<Id>, EngineError> {
        self.read_records(may_block)?;
        let known: BTreeMap<Id, (Known, Option<Arc<OwnedFd>>)> = self
            .warden
            .list()?
            .into_iter()
            .map(|(known, pidfd)| (known.id, (known, pidfd.map(Arc::new))))
            .collect();
        let ids = self.containers.ids();
        let (mut ended, mut lost_with_warden) = (Vec::new(), BTreeSet::new());
        let mut running = Vec::new();
        for id in &ids {
            let record = self.containers.shared_record(*id)?;
            match (record.is_running(), known.get(id)) {
                (_, Some((known, Some(pidfd)))) if known.state == Found::Running => {
                    running.push((*id, known.pid, Arc::clone(pidfd)));
                }
                (true, Some((known, _))) => match known.state {
                    Found::Exited(exit) => ended.push((*id, exit)),
                    // Its start was not finished when the engine went.
                    Found::Created | Found::Running => ended.push((*id, lost())),
                },
                // The machine was rebooted, or the warden is gone and with it what it ran.
                (true, None) => drop(lost_with_warden.insert(*id)),
                // Its end is recorded, and the engine went before it told the warden; or its start
                // was undone. Kept, it would be in the way of the next start.
                (false, Some(_)) => match self.warden.forget(*id) {
                    Ok(()) | Err(WardenError::Unknown(_)) => {}
                    Err(error) => {
                        tracing::warn!(container = %record.container.name, %error, "forget an end");
                    }
                },
                (false, None) => {}
            }
        }
        self.adopt_all(may_block, &running)?;
        self.finish_logs();
        self.reconcile_network()?;
        self.recover_names(may_block);
        self.remove_orphans(&known);
        let mut restart = Vec::new();
        for id in ids {
            let record = self.containers.shared_record(id)?;
            if record.throw_away {
                for fault in self.take_down(&record.container, None, WardenRecord::Forget) {
                    tracing::warn!(error = %fault, "remove an unfinished build step");
                }
                if let Err(error) = self.drop_container(may_block, id, true, self.cleaning()) {
                    tracing::error!(%error, "remove an unfinished build step");
                }
                continue;
            }
            let exit = ended.iter().find(|(ended, _)| *ended == id).map(|(_, exit)| *exit);
            let policy = record.container.host.restart_policy;
            match exit {
                // As if it had just been told; restarts by policy happen from there.
                Some(exit) => self.end_now(may_block, id, exit),
                None if lost_with_warden.contains(&id) => self.end_lost(may_block, id),
                None if record.is_running() => {}
                None if record.container.state.status == Status::Restarting => restart.push(id),
                None if record.container.state.status == Status::Exited
                    && starts_with_engine(policy, record.stopped_by_user) =>
                {
                    restart.push(id);
                }
                None => {}
            }
        }
        self.recover_shipping();
        self.records.forget_finished_removals(may_block);
        if self.records.history_is_lost() {
            self.set_content_aside(may_block)?;
            self.records.confirm_history();
        }
        self.sweep(may_block)?;
        Ok(restart)
    }

    fn read_records(&self, may_block: &Blocking) -> Result<(), EngineError> {
        self.images.recover(may_block)?;
        self.volumes.recover()?;
        self.steps.recover(&self.records)?;
        self.containers.recover()?;
        self.networks.recover(&self.containers.lock());
        Ok(())
    }

    /// Takes all containers that run. Each asks the kernel and the warden for this and that, and nobody
    /// is served until it is done: so as many at a time as there are processors.
    fn adopt_all(
        self: &Arc<Self>,
        may_block: &Blocking,
        running: &[(Id, u32, Arc<OwnedFd>)],
    ) -> Result<(), EngineError> {
        let workers = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, 8);
        let some = running.len().div_ceil(workers).max(1);
        std::thread::scope(|scope| {
            let adopt = |(id, pid, pidfd): &(Id, u32, Arc<OwnedFd>)| {
                self.adopt(may_block, *id, *pid, Arc::clone(pidfd))
            };
            let workers: Vec<_> = running
                .chunks(some)
                .map(|some| scope.spawn(move || some.iter().try_for_each(adopt)))
                .collect();
            let panicked = |_| EngineError::internal("adopting a container failed");
            workers.into_iter().try_for_each(|worker| worker.join().map_err(panicked)?)
        })
    }

    /// Takes a container that runs: its pidfd, its ports, its status.
    fn adopt(
        self: &Arc<Self>,
        may_block: &Blocking,
        id: Id,
        pid: u32,
        pidfd: Arc<OwnedFd>,
    ) -> Result<(), EngineError> {
        let record = self.containers.record(id)?;
        let cgroup = self.cgroups.of(id);
        let asked = cgroup.as_ref().ok();
        // A pause that was recorded may not have happened, or the other way round: the kernel knows.
        let frozen = asked.is_some_and(|cgroup| cgroup.is_frozen().unwrap_or(false));
        let status = if frozen { Status::Paused } else { Status::Running };
        if record.container.state.status != status {
            self.containers.change(may_block, id, |record| record.set_status(status))?;
        }
        let oom = asked.and_then(|cgroup| self.watch_oom(id, cgroup));
        let kills = asked.and_then(|cgroup| cgroup.oom_kill_count().ok()).unwrap_or(0);
        if kills > 0 && !record.container.state.oom_killed {
            // nobody was there to tell it
            let container = self
                .containers
                .change(may_block, id, |record| record.container.state.oom_killed = true)?;
            self.events.container(&container, "oom", &[]);
        }
        let ports = match reserve_again(&record.container.network.ports) {
            Ok(ports) => ports,
            Err(error) => {
                // Somebody took the port while no engine held it; nftables still leads to us.
                tracing::warn!(container = %record.container.name, %error, "reserve a port again");
                Vec::new()
            }
        };
        let netns = network_namespace(pid, &pidfd).map(Arc::new);
        let handover = self.warden.handover(id).ok().map(Arc::new);
        let watched = self.containers.record(id)?.container;
        let health = (status == Status::Running).then(|| self.watch_health(&watched)).flatten();
        let mut state = self.containers.lock();
        let entry = state.entry_mut(id)?;
        entry.runtime.netns = netns;
        let recorded = &mut Arc::make_mut(&mut entry.record).container;
        recorded.state.pid = pid;
        // What was known of its health holds; one of before health was known begins.
        if recorded.state.health.is_none() {
            recorded.state.health = health_at_start(recorded);
        }
        entry.runtime.health = health;
        entry.runtime.pidfd = Some(pidfd);
        entry.runtime.handover = handover;
        entry.runtime.ports = ports;
        entry.runtime.oom = oom;
        entry.runtime.oom_told = kills > 0;
        entry.lifecycle.send_modify(|lifecycle| lifecycle.running = true);
        Ok(())
    }

    /// Makes links and ports those of the running containers.
    fn reconcile_network(&self) -> Result<(), EngineError> {
        let running: Vec<Arc<Record>> = {
            let state = self.containers.lock();
            let live = state.entries.values().filter(|entry| entry.runtime.pidfd.is_some());
            live.map(|entry| Arc::clone(&entry.record)).collect()
        };
        self.networks.reconcile(running.iter().map(|record| &record.container))
    }

    /// Removes what belongs to no record: processes, cgroups, links and directories that a crash
    /// left. Errors are told and do not stop the engine from opening.
    fn remove_orphans(&self, known: &BTreeMap<Id, (Known, Option<Arc<OwnedFd>>)>) {
        let recorded: BTreeSet<Id> = self.containers.ids().into_iter().collect();
        let mut faults = Vec::new();
        for (id, (found, _)) in known.iter().filter(|(id, _)| !recorded.contains(id)) {
            let is_container = self.cgroups.of(*id).is_ok_and(|cgroup| cgroup.exists());
            // An exec lives in its container's cgroup. One that runs goes on; it is forgotten when
            // it ends, and nobody can ask for it any more.
            if !is_container && found.state == Found::Running {
                continue;
            }
            faults.extend(self.cgroups.remove(*id).err());
            let _ = self.warden.forget(*id);
        }
        let live: BTreeSet<String> = {
            let state = self.containers.lock();
            let all = state.entries.iter();
            all.filter(|(_, entry)| entry.runtime.pidfd.is_some())
                .map(|(id, _)| id.to_string())
                .collect()
        };
        for name in self.cgroups.names().into_iter().filter(|name| !live.contains(name)) {
            // One whose end is not recorded yet is looked at, and its cgroup removed, when it is.
            let ends =
                |id| self.containers.shared_record(id).is_ok_and(|record| record.is_running());
            if name.parse::<Id>().is_ok_and(ends) {
                continue;
            }
            faults.extend(self.cgroups.remove_named(&name).err());
        }
        let is_recorded = |name: &str| name.parse::<Id>().is_ok_and(|id| recorded.contains(&id));
        faults.extend(self.remove_directories(Kind::Container, is_recorded));
        faults
            .extend(self.remove_directories(Kind::Volume, |name| self.volumes.get(name).is_some()));
        for fault in faults {
            tracing::warn!(error = %fault, "remove what a crash left");
        }
    }

    /// With a store that may have known more images than it does, what it does not know is kept.
    fn set_content_aside(&self, may_block: &Blocking) -> Result<(), EngineError> {
        let keep = self.needed_content(may_block);
        let aside = self.data_dir.lost_and_found()?;
        let count = self.content.set_aside(&|digest| keep.contains(&digest), aside.as_fd())?;
        if count == 0 {
            // Kept if anything else was moved there.
            self.data_dir.drop_empty_lost_and_found();
        } else {
            tracing::warn!(
                "{count} blobs and layers are in no record of a store that is new or was put back: \
                 moved to lost+found"
            );
        }
        Ok(())
    }

    /// Removes the directories that were to go when an engine died, and those that go with their
    /// record. Another that has neither a record nor an intent belongs to a store that was lost,
    /// emptied or put back: nobody can make it again, so it is moved aside.
    fn remove_directories(
        &self,
        kind: Kind,
        is_recorded: impl Fn(&str) -> bool,
    ) -> Vec<EngineError> {
        let mut faults = Vec::new();
        let intents: BTreeSet<String> = self.records.removals(kind).into_iter().collect();
        let found = match self.data_dir.list(kind) {
            Ok(found) => found,
            Err(fault) => return vec![fault],
        };
        for name in found.iter().filter(|name| !is_recorded(name)) {
            if intents.contains(name) || self.data_dir.goes_with_its_record(kind, name) {
                faults.extend(self.data_dir.remove(kind, name).err());
                continue;
            }
            match self.data_dir.set_aside(kind, name) {
                Ok(aside) => tracing::warn!(
                    "the {} {name} is in no record: moved to {}",
                    kind.name(),
                    aside.display()
                ),
                Err(fault) => faults.push(fault),
            }
        }
        let left = self.data_dir.list(kind).unwrap_or(found);
        for name in intents.iter().filter(|name| is_recorded(name) || !left.contains(name)) {
            self.records.removed(kind, name);
        }
        faults
    }

    /// Stops every container, removes links, nftables, cgroups and mounts, and ends the warden.
    pub async fn tear_down(self: &Arc<Self>) -> Result<(), EngineError> {
        self.ending.store(true, Ordering::Release);
        let ids = self.containers.ids();
        let patience = self.settings().shutdown_timeout.unwrap_or(PATIENCE);
        let seconds = i64::try_from(patience.as_secs()).unwrap_or(i64::MAX);
        let stops = ids.into_iter().map(|id| async move {
            let stop = self.stop(id, Some(seconds), None);
            tokio::pin!(stop);
            let timeout = patience.saturating_add(TIMEOUT);
            if let Ok(stopped) = tokio::time::timeout(timeout, &mut stop).await {
                return stopped;
            }
            // Somebody else's stop, with a longer patience, is under way: a task's agent has 30 s.
            let killed = self.kill(id, "KILL").await;
            // Without a warden nobody tells of the end; removing the cgroup below kills for good.
            match tokio::time::timeout(TIMEOUT, stop).await {
                // of a thousand that end at once, many do so between the two
                Ok(stopped) => stopped,
                Err(_) => killed.map(|()| Stopped::Already),
            }
        });
        let mut faults: Vec<EngineError> = futures_util::future::join_all(stops)
            .await
            .into_iter()
            .filter_map(Result::err)
            .collect();
        // `--rm` may have been faster.
        faults.retain(|fault| fault.class != crate::Class::NotFound);
        // Whoever is being cleaned up holds this for reading.
        let _cleaned = self.cleanup_lock.write().await;
        let engine = Arc::clone(self);
        let more = blocking(move |may_block| Ok(engine.tear_down_now(may_block))).await?;
        faults.extend(more);
        match faults.is_empty() {
            true => Ok(()),
            false => {
                let all: Vec<String> = faults.into_iter().map(|fault| fault.to_string()).collect();
                Err(EngineError::internal(all.join("; ")))
            }
        }
    }

    fn tear_down_now(&self, may_block: &Blocking) -> Vec<EngineError> {
        let mut faults = Vec::new();
        for name in self.cgroups.names() {
            faults.extend(self.cgroups.remove_named(&name).err());
        }
        faults.extend(self.cgroups.remove_root().err());
        faults.extend(self.name_service.shut_down().err());
        faults.extend(self.networks.tear_down(may_block));
        match self.warden.shut_down() {
            // One that is gone already has nothing left to end.
            Ok(()) | Err(WardenError::Gone(_)) => {}
            Err(fault) => faults.push(fault.into()),
        }
        faults
    }
}

/// The network namespace of a process, by its number while its pidfd says that it lives.
fn network_namespace(pid: u32, pidfd: &OwnedFd) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let path = format!("/proc/{pid}/ns/net");
    let namespace = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    // the number may be another's by now
    (!has_ended(pidfd)).then_some(namespace)
}

/// How long containers have between stop signal and death when everything is torn down, unless the
/// daemon's configuration says so.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a container's end is waited for beyond that.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What is recorded of an end that nobody saw: Docker's code for it.
fn lost() -> Exit {
    let now = Timestamp::now().as_nanosecond();
    Exit { code: 255, at: i64::try_from(now).unwrap_or(i64::MAX) }
}
