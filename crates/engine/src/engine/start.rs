//! `docker start`: everything a container needs is made in parallel, then it is cloned, plugged in
//! and let go.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bulkhead_image::mount_overlay;
use bulkhead_runtime::cgroup::Cgroup;
use bulkhead_store::Durability;
use bulkhead_types::{Id, Timestamp};
use bulkhead_warden::Created;
use rustix::fs::{Mode, OFlags};

use crate::blocking::{Blocking, blocking};
use crate::containers::{Record, Runtime};
use crate::engine::health::health_at_start;
use crate::engine::settle::WardenRecord;
use crate::engine::specification::Clients;
use crate::error::io_error;
use crate::health::Health;
use crate::limits::limits;
use crate::namespaces::{NamespaceMode, NamespaceModes};
use crate::ports::Reservation;
use crate::published::requests;
use crate::restart::wait_after_failure;
use crate::transaction::Transaction;
use crate::{Class, Container, Engine, EngineError, Started, Status, links, marks};

/// Who starts a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    User,
    Policy,
}

impl Engine {
    pub async fn start(self: &Arc<Self>, id: Id) -> Result<Started, EngineError> {
        let guard = self.containers.exclusive(id).await?;
        let engine = Arc::clone(self);
        blocking(move |may_block| {
            let _guard = guard;
            engine.start_now(may_block, id, Cause::User)
        })
        .await
    }

    /// Starts a container; the caller holds its operation lock.
    pub(crate) fn start_now(
        self: &Arc<Self>,
        may_block: &Blocking,
        id: Id,
        cause: Cause,
    ) -> Result<Started, EngineError> {
        let mut record = self.containers.record(id)?;
        match record.container.state.status {
            Status::Running => return Ok(Started::Already),
            Status::Paused => {
                return Err(EngineError::conflict(
                    "cannot start a paused container, try unpause instead",
                ));
            }
            Status::Removing | Status::Dead => {
                return Err(EngineError::conflict(
                    "container is marked for removal and cannot be started",
                ));
            }
            Status::Created | Status::Restarting | Status::Exited => {}
        }
        if self.is_ending() {
            return Err(EngineError::new(
                Class::Unavailable,
                "the engine is being taken down: nothing starts any more",
            ));
        }
        // An end that the store refused comes before this start, or it would be lost.
        self.settle(may_block, id)?;
        let restarts = record.container.state.status == Status::Restarting;
        if cause == Cause::User {
            record.container.restart_count = 0;
        }
        let clients = {
            let mut state = self.containers.lock();
            let live = &mut state.entry_mut(id)?.runtime;
            live.generation += 1;
            let waiting = std::mem::take(&mut live.waiting);
            Clients { waiting, terminal_size: live.terminal_size }
        };
        match self.bring_up(may_block, &mut record, clients) {
            Ok(up) => {
                record.container.state.pid = up.pid;
                let container = record.container.clone();
                let oom = match self.cgroups.of(id) {
                    Ok(cgroup) => self.watch_oom(id, &cgroup),
                    // it has ended already, and its end tells
                    Err(_) => None,
                };
                {
                    let mut state = self.containers.lock();
                    let entry = state.entry_mut(id)?;
                    entry.record = Arc::new(record);
                    entry.runtime.pidfd = Some(up.pidfd);
                    entry.runtime.handover = up.handover;
                    entry.runtime.ports = up.ports;
                    entry.runtime.oom = oom;
                    // It looks at the record first, which says by now that it runs.
                    entry.runtime.health = self.watch_health(&container);
                    entry.runtime.ending_unhealthy = false;
                    entry.runtime.oom_told = false;
                    entry.runtime.netns = Some(up.netns);
                    if cause == Cause::User {
                        entry.runtime.last_wait = std::time::Duration::ZERO;
                    }
                    entry.lifecycle.send_modify(|lifecycle| lifecycle.running = true);
                }
                self.events.volumes_of(&container, "mount");
                self.events.networks_of(&container, "connect");
                self.events.container(&container, "start", &[]);
                self.ship(id);
                if !container.network.attachments.is_empty() {
                    self.refresh_links(id);
                }
                Ok(Started::Now)
            }
            Err(failure) => {
                for fault in self.take_down(&record.container, None, WardenRecord::Forget) {
                    tracing::warn!(container = %record.container.name, error = %fault, "undo a failed start");
                }
                let of_machine =
                    matches!(failure.error.class, Class::Internal | Class::Unavailable);
                if of_machine && (restarts || cause == Cause::Policy) {
                    // The next attempt may find room, or a warden.
                    self.start_again_later(may_block, id);
                } else if failure.refused_by == RefusedBy::Machine {
                    self.record_failure(may_block, record, &failure.error);
                }
                // What the store refused has not happened: the last exit code stays too.
                Err(failure.error)
            }
        }
    }

    /// Makes everything and starts the process. On failure the caller takes down what was made.
    fn bring_up(
        &self,
        may_block: &Blocking,
        record: &mut Record,
        clients: Clients,
    ) -> Result<Up, StartFailure> {
        let id = record.container.id;
        self.networks.note_start();
        let modes = self.namespaces_for_start(&record.container)?;
        let linked = self.linked(&record.container)?;
        // who publishes nothing does not go through a thousand that may
        let held = match requests(&record.container).is_empty() {
            true => Vec::new(),
            false => self.containers.lock().published(),
        };
        let (network, ports) = self.networks.lease(may_block, &record.container, &held)?;
        record.container.network = network;
        record.stopped_by_user = false;
        record.ended_unhealthy = false;
        let health = health_at_start(&record.container);
        let state = &mut record.container.state;
        *state = crate::State {
            status: Status::Running,
            started_at: Some(Timestamp::now()),
            health,
            finished_at: state.finished_at,
            ..crate::State::default()
        };
        let record = &*record;
        let container = &record.container;
        let mut links = Vec::new();
        for (alias, target) in &linked {
            if let Some(address) = self.default_address(target) {
                links.extend(links::environment(container.name.as_str(), alias, target, address));
            }
        }
        // The record says "runs" before anything does: an engine that dies here finds out from the
        // warden what came of it. The disk is slow, so it writes while the rest is made; only what
        // others can see (links, ports, the program itself) waits for it.
        let mut transaction = Transaction::default();
        self.containers.put_on_disk(&mut transaction, record);
        let commit = || transaction.commit(&self.records, may_block);
        let (recorded, made) = match record.durability() {
            // it takes less than a thread does
            Durability::Process => (commit(), self.make(record, &modes, links, clients)),
            Durability::Disk => std::thread::scope(|scope| {
                let commit = scope.spawn(commit);
                let made = self.make(record, &modes, links, clients);
                let failed = |_| EngineError::internal("the store failed");
                (commit.join().map_err(failed).and_then(|recorded| recorded), made)
            }),
        };
        // First, whatever became of the rest: it decides what is to be undone on disk.
        recorded.map_err(|error| StartFailure { error, refused_by: RefusedBy::Store })?;
        let created = made?;
        bulkhead_failpoint::hit("start.created").map_err(io_error("start.created"))?;
        self.networks.plug(container, created.netns.as_fd())?;
        self.attach_names(container, created.netns.as_fd())?;
        bulkhead_failpoint::hit("start.plugged").map_err(io_error("start.plugged"))?;
        let handover = self.warden.start(id).map_err(EngineError::from)?;
        bulkhead_failpoint::pass("start.started");
        Ok(Up {
            netns: Arc::new(created.netns),
            pid: created.pid,
            pidfd: Arc::new(created.pidfd),
            handover: handover.map(Arc::new),
            ports,
        })
    }

    /// Makes what only the container itself sees, and the process that waits to become it.
    fn make(
        &self,
        record: &Record,
        modes: &NamespaceModes,
        links: Vec<String>,
        clients: Clients,
    ) -> Result<Created, EngineError> {
        let container = &record.container;
        let id = container.id;
        let (parts, rules) = {
            let users = match container.id_range {
                Some(range) => Some(self.warden.user_namespace(range)?),
                None => None,
            };
            let directory = self.container_directory(record)?;
            self.write_files(container, &directory)?;
            bulkhead_failpoint::hit("start.files").map_err(io_error("start.files"))?;
            let rootfs = self.rootfs(record, &directory, users.as_ref())?;
            // a layer of a build is to hold what its step made, and nothing else
            if !record.throw_away {
                marks::put(rootfs.as_fd(), container.id_range);
            }
            bulkhead_failpoint::hit("start.mounted").map_err(io_error("start.mounted"))?;
            self.parts(container, modes, rootfs, users.as_ref())?
        };
        // whoever created the container was told (see `Engine::warnings`)
        let (limits, _) = limits(&container.host, rules)?.without_absent(&self.cgroups.hierarchies);
        let cgroup = Cgroup::create(&self.cgroups.hierarchies, &self.cgroups.path(id), &limits)?;
        bulkhead_failpoint::hit("start.cgroup").map_err(io_error("start.cgroup"))?;
        let (message, descriptors) = self.message(record, modes, parts, &cgroup, links, clients)?;
        Ok(self.warden.create(message, descriptors)?)
    }

    /// After a start by policy that failed because of the machine: it restarts still, on disk too.
    fn start_again_later(self: &Arc<Self>, may_block: &Blocking, id: Id) {
        let Ok(record) = self.containers.record(id) else { return };
        let mut transaction = Transaction::default();
        self.containers.put(&mut transaction, &record);
        if let Err(error) = transaction.commit(&self.records, may_block) {
            // Then it stands as running there, and the next engine restarts it for that.
            tracing::error!(container = %record.container.name, %error, "record a failed restart");
        }
        let wait = {
            let mut state = self.containers.lock();
            let Ok(entry) = state.entry_mut(id) else { return };
            entry.runtime.last_wait = wait_after_failure(entry.runtime.last_wait);
            entry.runtime.last_wait
        };
        self.restart_later(id, wait);
    }

    /// The other containers whose namespaces this one joins must run.
    fn namespaces_for_start(&self, container: &Container) -> Result<NamespaceModes, EngineError> {
        let state = self.containers.lock();
        let modes = NamespaceModes::resolve(&state, &container.host)?;
        for other in modes.containers() {
            if !state.entry(other)?.record.is_running() {
                let what = match modes.network {
                    NamespaceMode::Container(id) if id == other => "network",
                    _ => "namespace",
                };
                return Err(EngineError::conflict(format!(
                    "cannot join {what} of a non running container: {other}"
                )));
            }
        }
        Ok(modes)
    }

    /// A container's directory, made if it is missing.
    pub(crate) fn container_directory(&self, record: &Record) -> Result<OwnedFd, EngineError> {
        let container = &record.container;
        self.data_dir.make_container(container.id, container.id_range, record.durability())
    }

    pub(crate) fn rootfs(
        &self,
        record: &Record,
        directory: &OwnedFd,
        users: Option<&OwnedFd>,
    ) -> Result<OwnedFd, EngineError> {
        let open = |name: &str| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            rustix::fs::openat(directory, name, flags, Mode::empty())
                .map_err(|errno| io_error(name)(errno.into()))
        };
        let layers: Vec<OwnedFd> = record
            .layers
            .iter()
            .map(|layer| self.content.layer(*layer))
            .collect::<Result<_, _>>()?;
        let (upper, work) = (open("upper")?, open("work")?);
        let users = users.map(OwnedFd::as_fd);
        Ok(mount_overlay(&layers, upper.as_fd(), work.as_fd(), users)?)
    }

    /// Removes everything that runs or is mounted for a container; its files stay. Goes on past
    /// errors and returns them all. Doing it twice does no harm.
    pub(crate) fn take_down(
        self: &Arc<Self>,
        container: &Container,
        netns: Option<Arc<OwnedFd>>,
        warden: WardenRecord,
    ) -> Vec<EngineError> {
        let mut errors = self.networks.unpublish(container);
        errors.extend(self.name_service.detach(container.id).err());
        if warden == WardenRecord::Forget {
            bulkhead_failpoint::pass("exit.forget");
            match self.warden.forget(container.id) {
                Ok(()) | Err(bulkhead_warden::WardenError::Unknown(_)) => {}
                Err(error) => errors.push(error.into()),
            }
        }
        errors.extend(self.cgroups.remove(container.id).err());
        if let Ok(entry) = self.containers.lock().entry_mut(container.id) {
            entry.runtime.ports = Vec::new();
            entry.runtime.pidfd = None;
            entry.runtime.handover = None;
            entry.runtime.oom = None;
            entry.runtime.health = None;
        }
        self.networks.unplug(container, netns);
        errors
    }

    fn record_failure(
        self: &Arc<Self>,
        may_block: &Blocking,
        mut record: Record,
        error: &EngineError,
    ) {
        let id = record.container.id;
        record.container.network = crate::Networking::detached(record.container.network.stack);
        let state = &mut record.container.state;
        // One that never ran was never probed.
        let health = state.health.take().filter(|_| state.finished_at.is_some());
        *state = crate::State {
            health: health.map(Health::ended),
            // As Docker: one that never ran stays created.
            status: if state.finished_at.is_some() { Status::Exited } else { Status::Created },
            exit_code: error.exit_code(),
            error: error.to_string(),
            finished_at: state.finished_at,
            ..crate::State::default()
        };
        let mut transaction = Transaction::default();
        self.containers.put_on_disk(&mut transaction, &record);
        if let Err(error) = transaction.commit(&self.records, may_block) {
            tracing::error!(container = %record.container.name, %error, "record a failed start");
        }
        let auto_remove = record.container.host.auto_remove;
        let mut state = self.containers.lock();
        if let Ok(entry) = state.entry_mut(id) {
            let code = record.container.state.exit_code;
            entry.record = Arc::new(record);
            entry.runtime = Runtime { generation: entry.runtime.generation, ..Runtime::default() };
            entry.lifecycle.send_modify(|lifecycle| {
                lifecycle.code = code;
                lifecycle.running = false;
            });
        }
        drop(state);
        if auto_remove && let Err(error) = self.drop_container(may_block, id, true, self.cleaning())
        {
            tracing::error!(container = %id.short(), %error, "record a removal");
            self.settle_later(id);
        }
    }
}

/// A start that failed.
#[derive(Debug)]
struct StartFailure {
    error: EngineError,
    refused_by: RefusedBy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RefusedBy {
    /// Nothing was recorded.
    Store,
    Machine,
}

impl From<EngineError> for StartFailure {
    fn from(error: EngineError) -> Self {
        Self { error, refused_by: RefusedBy::Machine }
    }
}

struct Up {
    netns: Arc<OwnedFd>,
    pid: u32,
    pidfd: Arc<OwnedFd>,
    handover: Option<Arc<bulkhead_warden::Handover>>,
    ports: Vec<Reservation>,
}
