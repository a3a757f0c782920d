//! Sends the logs of containers to where their drivers say: each by a task of its own, which reads the log
//! on this machine from where it came to.
//!
//! No program waits for it, and nothing is taken from a log before its receiver has it, or its host: what
//! cannot be sent stays in the log, as far as that goes back, and is sent when it can be. How far it came
//! is in a file beside the log. What a removed container has not sent yet is kept in `DATA/unsent/ID`.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bulkhead_logs::{AwsEnvironment, Batch, Destination, Follower, Origin, Sender, link_log};
use bulkhead_types::{Id, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use crate::blocking::blocking;
use crate::containers::Lifecycle;
use crate::data_dir::log_name;
use crate::error::io_error;
use crate::log_changes::LogChanges;
use crate::{EngineError, LogDriver, LogOptions};

/// All logs that are on their way.
#[derive(Debug)]
pub(crate) struct Shipping {
    runtime: tokio::runtime::Handle,
    /// `DATA/unsent`
    unsent: PathBuf,
    environment: AwsEnvironment,
    /// Shared with the tasks, which take themselves out.
    tasks: Arc<Mutex<HashMap<Id, Arc<Task>>>>,
}

/// A container's log and where it goes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    driver: LogDriver,
    options: LogOptions,
    origin: Origin,
}

#[derive(Debug, Default)]
struct Task {
    /// The container was started once more: more comes.
    again: AtomicBool,
    wake: Notify,
    trouble: Mutex<Option<Trouble>>,
}

#[derive(Debug, Clone)]
struct Trouble {
    container: String,
    place: String,
    since: Timestamp,
    cause: String,
}

/// What tells that a container's log may have grown.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) lifecycle: watch::Receiver<Lifecycle>,
    /// None where it cannot be watched: then it is looked at every second.
    pub(crate) changes: Option<LogChanges>,
}

/// How long after a record others are waited for, to be sent with it.
const GATHER: Duration = Duration::from_millis(20);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Bytes that logs of removed containers may have; then the oldest go.
const MOST_UNSENT: u64 = 1 << 30;
const ORDER: &str = "order.json";
const HELD: &str = ".held";

impl Shipping {
    pub(crate) fn new(
        runtime: tokio::runtime::Handle,
        data: &Path,
        environment: AwsEnvironment,
    ) -> Self {
        Self { runtime, unsent: data.join("unsent"), environment, tasks: Arc::default() }
    }

    pub(crate) fn environment(&self) -> &AwsEnvironment {
        &self.environment
    }

    /// Sends what the log of a container in `directory` has and gets; one that is being sent already
    /// goes on.
    pub(crate) fn ship(
        &self,
        id: Id,
        order: &Order,
        directory: PathBuf,
        watch: Option<Watch>,
    ) -> Result<(), EngineError> {
        let mut tasks = lock(&self.tasks);
        if let Some(task) = tasks.get(&id) {
            task.again.store(true, Ordering::Release);
            task.wake.notify_one();
            return Ok(());
        }
        let Some((destination, _)) = order.options.remote(order.driver)? else { return Ok(()) };
        let task = Arc::<Task>::default();
        tasks.insert(id, Arc::clone(&task));
        let follow = Follow {
            id,
            task,
            tasks: Arc::clone(&self.tasks),
            places: [self.unsent.join(id.to_string()), directory],
            sender: self.sender(order, destination),
            container: order.origin.name.clone(),
            watch,
        };
        self.runtime.spawn(follow.run());
        Ok(())
    }

    fn sender(&self, order: &Order, destination: Destination) -> Sender {
        let has_tag = order.options.has_tag();
        Sender::new(destination, order.origin.clone(), has_tag, self.environment.clone())
    }

    /// Before the removal of a container is recorded: gives what of its log is not sent yet a second name,
    /// to be taken by [`Self::keep`] or let go by [`Self::release`].
    pub(crate) fn hold(&self, id: Id, order: &Order, directory: &Path) -> io::Result<()> {
        let name = log_name(id);
        let mut follower = Follower::open(vec![directory.to_owned()], name.clone())?;
        if follower.batch()?.records.is_empty() {
            return Ok(());
        }
        let held = self.held(id);
        std::fs::create_dir_all(&held)?;
        let text = serde_json::to_vec(order).map_err(io::Error::other)?;
        std::fs::write(held.join(ORDER), text)?;
        link_log(directory, &name, &held)
    }

    /// The removal is recorded: from here on the log is where it is kept.
    pub(crate) fn keep(&self, id: Id) {
        match std::fs::rename(self.held(id), self.unsent.join(id.to_string())) {
            Ok(()) => self.make_room(id),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::error!(container = %id.short(), %error, "what its log has not sent is lost");
            }
        }
    }

    /// There is no removal.
    pub(crate) fn release(&self, id: Id) {
        let _ = std::fs::remove_dir_all(self.held(id));
    }

    fn held(&self, id: Id) -> PathBuf {
        self.unsent.join(format!("{id}{HELD}"))
    }

    /// After a crash: the removals of containers that are gone had been recorded, the others not.
    pub(crate) fn settle(&self, is_known: impl Fn(Id) -> bool) {
        for entry in std::fs::read_dir(&self.unsent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(HELD));
            match id.and_then(|id| id.parse().ok()) {
                Some(id) if is_known(id) => self.release(id),
                Some(id) => self.keep(id),
                None => {}
            }
        }
    }

    /// What removed containers have left to be sent.
    pub(crate) fn left(&self) -> Vec<(Id, Order)> {
        let entries = std::fs::read_dir(&self.unsent).into_iter().flatten().flatten();
        let order = |entry: std::fs::DirEntry| {
            let id: Id = entry.file_name().to_str()?.parse().ok()?;
            let read = || -> io::Result<Order> {
                let text = std::fs::read(entry.path().join(ORDER))?;
                serde_json::from_slice(&text).map_err(io::Error::other)
            };
            match read() {
                Ok(order) => Some((id, order)),
                Err(error) => {
                    tracing::error!(path = %entry.path().display(), %error, "what is to be sent cannot be read");
                    None
                }
            }
        };
        entries.filter_map(order).collect()
    }

    /// What `docker info` says of logs that do not arrive.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let tasks = lock(&self.tasks);
        let troubles = tasks.values().filter_map(|task| lock(&task.trouble).clone());
        let mut said: Vec<String> = troubles
            .map(|Trouble { container, place, since, cause }| {
                format!(
                    "WARNING: the log of container {container} has not reached {place} since \
                     {since}: {cause}; it is kept on this machine until it does"
                )
            })
            .collect();
        said.sort();
        said
    }

    /// Bounds what removed containers have left; the one that has just been added stays.
    fn make_room(&self, newest: Id) {
        let mut kept = Vec::new();
        for entry in std::fs::read_dir(&self.unsent).into_iter().flatten().flatten() {
            let files = std::fs::read_dir(entry.path()).into_iter().flatten().flatten();
            let size: u64 = files.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
            let made = entry.metadata().and_then(|metadata| metadata.modified()).ok();
            kept.push((made, size, entry.path()));
        }
        kept.sort();
        let mut total: u64 = kept.iter().map(|(_, size, _)| size).sum();
        for (_, size, path) in kept {
            if total <= MOST_UNSENT || path.ends_with(newest.to_string()) {
                continue;
            }
            tracing::error!(path = %path.display(), bytes = size, "the log of a removed container was never taken by its receiver, and makes room for others");
            let _ = std::fs::remove_dir_all(&path);
            total -= size;
        }
    }
}

impl Order {
    pub(crate) fn new(driver: LogDriver, options: LogOptions, origin: Origin) -> Self {
        Self { driver, options, origin }
    }
}

/// One log on its way.
struct Follow {
    id: Id,
    task: Arc<Task>,
    tasks: Arc<Mutex<HashMap<Id, Arc<Task>>>>,
    /// What was kept of a removed container comes before its directory, which goes file by file.
    places: [PathBuf; 2],
    sender: Sender,
    container: String,
    watch: Option<Watch>,
}

impl Follow {
    async fn run(mut self) {
        while let Err(error) = self.send_all().await {
            // The log's own disk fails; what it holds is still to be sent.
            tracing::error!(container = self.container, %error, "send a log");
            tokio::time::sleep(LONGEST_PAUSE).await;
        }
    }

    /// Sends until the container has ended and all is sent.
    async fn send_all(&mut self) -> Result<(), EngineError> {
        let (places, name) = (self.places.to_vec(), log_name(self.id));
        let open = move |_: &_| {
            Follower::open(places, name).map_err(io_error("read how far a log was sent"))
        };
        let mut follower = blocking(open).await?;
        loop {
            // Asked before the log is read: what was written before the end is read after it.
            let ended = self.has_ended();
            let (back, batch) = blocking(move |_| {
                let batch = follower.batch().map_err(io_error("read a log to be sent"))?;
                Ok((follower, batch))
            })
            .await?;
            follower = back;
            if !batch.records.is_empty() {
                follower = self.deliver(follower, &batch).await?;
                continue;
            }
            if ended {
                // What a removed container had left is sent; no other has left something there.
                let left = self.places[0].clone();
                blocking(move |_| {
                    let _ = std::fs::remove_dir_all(left);
                    Ok(())
                })
                .await?;
                if self.leave() {
                    return Ok(());
                }
            }
            self.wait().await;
        }
    }

    /// Sends a batch until it is taken, and notes how far.
    async fn deliver(
        &mut self,
        mut follower: Follower,
        batch: &Batch,
    ) -> Result<Follower, EngineError> {
        let mut done = 0;
        let mut pause = FIRST_PAUSE;
        while done < batch.records.len() {
            let mut sent = 0;
            let result = self.sender.send(&batch.records[done..], &mut sent).await;
            done += sent;
            if let Some(position) = batch.position(done).filter(|_| sent > 0) {
                bulkhead_failpoint::pass("shipping.sent");
                follower = blocking(move |_| {
                    follower.commit(position).map_err(io_error("note how far a log was sent"))?;
                    Ok(follower)
                })
                .await?;
                pause = FIRST_PAUSE;
            }
            match result {
                Ok(()) => self.recovered(),
                Err(error) => {
                    self.note(&error);
                    // A start may bring what is missing, a longer pause spares who is not there.
                    let _ = tokio::time::timeout(pause, self.task.wake.notified()).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        Ok(follower)
    }

    fn note(&self, error: &io::Error) {
        let (container, place) = (self.container.clone(), self.sender.place());
        let mut trouble = lock(&self.task.trouble);
        let since = match &*trouble {
            Some(known) => known.since,
            None => {
                tracing::warn!(container, place, %error, "a log does not reach its receiver; it is kept here until it does");
                Timestamp::now()
            }
        };
        *trouble = Some(Trouble { container, place, since, cause: error.to_string() });
    }

    fn recovered(&self) {
        if let Some(trouble) = lock(&self.task.trouble).take() {
            tracing::info!(container = trouble.container, place = trouble.place, since = %trouble.since, "a log reaches its receiver again");
        }
    }

    fn has_ended(&mut self) -> bool {
        match &mut self.watch {
            None => true,
            Some(watch) => {
                let gone = watch.lifecycle.has_changed().is_err();
                let now = *watch.lifecycle.borrow_and_update();
                gone || now.removed || !now.running
            }
        }
    }

    /// Ends this task, unless the container was started again meanwhile.
    fn leave(&self) -> bool {
        let mut tasks = lock(&self.tasks);
        if self.task.again.swap(false, Ordering::AcqRel) && self.watch.is_some() {
            return false;
        }
        tasks.remove(&self.id);
        true
    }

    async fn wait(&mut self) {
        let Some(watch) = &mut self.watch else { return };
        let changed = async {
            match &mut watch.changes {
                Some(changes) => changes.wait().await,
                None => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        };
        tokio::select! {
            // An error: the container is gone, and has ended.
            _ = watch.lifecycle.changed() => return,
            () = self.task.wake.notified() => return,
            () = changed => {}
        }
        tokio::time::sleep(GATHER).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
