//! Jobs: what a client's `Control/Solve` begins, and what its other calls belong to by the job's name.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::StatusResponse;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::Result as Returned;
use bulkhead_build_service::Built;
use bulkhead_types::Id;
use tokio::sync::{Notify, oneshot, watch};
use tonic::Status;

/// One job, as long as its `Control/Solve` lasts.
#[derive(Debug)]
pub(crate) struct Job {
    /// The session of the client's files.
    pub(crate) session: String,
    /// Whether the client allows `RUN --network=host` and the like.
    pub(crate) host_network: bool,
    pub(crate) shown: Shown,
    results: Mutex<BTreeMap<String, Built>>,
    returned: Mutex<Option<oneshot::Sender<Result<Returned, Status>>>>,
}

impl Job {
    /// Keeps a result, and gives it the name by which the client returns it.
    pub(crate) fn keep(&self, built: Built) -> String {
        let name = Id::random().to_string();
        lock(&self.results).insert(name.clone(), built);
        name
    }

    pub(crate) fn take(&self, name: &str) -> Option<Built> {
        lock(&self.results).remove(name)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        lock(&self.results).contains_key(name)
    }

    /// `LLBBridge/Return`: the job's result, of which there is one.
    pub(crate) fn give_back(&self, result: Result<Returned, Status>) -> Result<(), Status> {
        let waiting = lock(&self.returned).take();
        let waiting =
            waiting.ok_or_else(|| Status::already_exists("a result was returned before"))?;
        waiting.send(result).map_err(|_| Status::cancelled("the job has ended"))
    }
}

/// The jobs there are, by the names that their clients gave them. The last that have ended are among
/// them: a client may begin to watch one that has failed at once.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    known: watch::Sender<BTreeMap<String, Arc<Job>>>,
    ended: Mutex<VecDeque<String>>,
}

/// Jobs that have ended and are known still.
const ENDED: usize = 16;

/// How long a job is waited for that a request names: it may come before `Control/Solve` does.
const PATIENCE: Duration = Duration::from_secs(5);

impl Jobs {
    /// Begins a job, which ends when what is returned is dropped; the receiver has what its client returns.
    pub(crate) fn begin(
        self: &Arc<Self>,
        name: String,
        session: String,
        host_network: bool,
    ) -> Result<(Running, oneshot::Receiver<Result<Returned, Status>>), Status> {
        let (sender, returned) = oneshot::channel();
        let job = Arc::new(Job {
            session,
            host_network,
            shown: Shown::default(),
            results: Mutex::default(),
            returned: Mutex::new(Some(sender)),
        });
        let is_new = self.known.send_if_modified(|known| match known.contains_key(&name) {
            true => false,
            false => known.insert(name.clone(), Arc::clone(&job)).is_none(),
        });
        match is_new {
            true => Ok((Running { jobs: Arc::clone(self), name, job }, returned)),
            false => Err(Status::already_exists(format!("there is a job {name} already"))),
        }
    }

    pub(crate) async fn find(&self, name: &str) -> Result<Arc<Job>, Status> {
        let mut known = self.known.subscribe();
        let found = pin!(known.wait_for(|known| known.contains_key(name)));
        let found = tokio::time::timeout(PATIENCE, found).await;
        let job = found.ok().and_then(Result::ok).and_then(|known| known.get(name).cloned());
        job.ok_or_else(|| Status::not_found(format!("no such job {name}")))
    }
}

/// A job that has not ended.
#[derive(Debug)]
pub(crate) struct Running {
    jobs: Arc<Jobs>,
    name: String,
    pub(crate) job: Arc<Job>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.job.shown.close();
        lock(&self.job.results).clear();
        let mut ended = lock(&self.jobs.ended);
        ended.push_back(self.name.clone());
        if ended.len() > ENDED
            && let Some(oldest) = ended.pop_front()
        {
            self.jobs.known.send_modify(|known| drop(known.remove(&oldest)));
        }
    }
}

/// What is shown of a job, for the one client that watches it.
///
/// A client that watches holds the build back, as a pipe would. As long as none does, what is beyond
/// [`ROOM`] is not kept: a client that never asks must not stop its build.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    waiting: Mutex<Waiting>,
    /// Something came, or went, or ended.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<StatusResponse>,
    bytes: usize,
    is_watched: bool,
    is_closed: bool,
    /// Bytes of output that nobody was there for.
    unseen: usize,
}

/// Bytes of output that wait for the client.
const ROOM: usize = 1 << 20;

impl Shown {
    pub(crate) async fn push(&self, message: StatusResponse) {
        let size = size(&message);
        loop {
            let changed = self.changed.notified();
            {
                let mut waiting = lock(&self.waiting);
                if waiting.bytes == 0 || waiting.bytes + size <= ROOM {
                    waiting.bytes += size;
                    waiting.messages.push_back(message);
                    break;
                }
                if !waiting.is_watched {
                    waiting.unseen += size;
                    break;
                }
            }
            changed.await;
        }
        self.changed.notify_waiters();
    }

    /// No more comes.
    pub(crate) fn close(&self) {
        lock(&self.waiting).is_closed = true;
        self.changed.notify_waiters();
    }

    /// Becomes the one who watches, until what is returned is dropped.
    pub(crate) fn watch(self: &Shown) -> Result<Watching<'_>, Status> {
        let mut waiting = lock(&self.waiting);
        if std::mem::replace(&mut waiting.is_watched, true) {
            return Err(Status::already_exists("somebody watches this job already"));
        }
        Ok(Watching(self))
    }
}

#[derive(Debug)]
pub(crate) struct Watching<'a>(&'a Shown);

impl Watching<'_> {
    /// `None`: all was shown.
    pub(crate) async fn next(&self) -> Option<StatusResponse> {
        loop {
            let changed = self.0.changed.notified();
            {
                let mut waiting = lock(&self.0.waiting);
                if let Some(message) = waiting.messages.pop_front() {
                    waiting.bytes -= size(&message);
                    drop(waiting);
                    self.0.changed.notify_waiters();
                    return Some(message);
                }
                if waiting.is_closed {
                    return None;
                }
            }
            changed.await;
        }
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        lock(&self.0.waiting).is_watched = false;
        self.0.changed.notify_waiters();
    }
}

fn size(message: &StatusResponse) -> usize {
    message.logs.iter().map(|log| log.msg.len()).sum()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use bollard_buildkit_proto::moby::buildkit::v1::VertexLog;

    use super::*;

    fn log(length: usize) -> StatusResponse {
        let log = VertexLog { msg: vec![b'x'; length], ..VertexLog::default() };
        StatusResponse { logs: vec![log], ..StatusResponse::default() }
    }

    #[tokio::test]
    async fn a_reader_holds_the_build_back_and_none_does_not() {
        let shown = Arc::new(Shown::default());
        for _ in 0..3 {
            shown.push(log(ROOM)).await;
        }
        let watching = shown.watch().expect("the first");
        assert!(shown.watch().is_err());
        let writer = Arc::clone(&shown);
        let writing = tokio::spawn(async move {
            for _ in 0..3 {
                writer.push(log(ROOM)).await;
            }
            writer.close();
        });
        let mut count = 0;
        while let Some(message) = watching.next().await {
            assert_eq!(size(&message), ROOM);
            count += 1;
        }
        assert_eq!(count, 4, "one from before, and all since");
        writing.await.expect("ends");
        drop(watching);
        assert_eq!(lock(&shown.waiting).unseen, 2 * ROOM);
    }

    #[tokio::test]
    async fn a_job_is_known_as_long_as_it_runs() {
        let jobs = Arc::new(Jobs::default());
        let finding = {
            let jobs = Arc::clone(&jobs);
            tokio::spawn(async move { jobs.find("one").await.map(|job| job.session.clone()) })
        };
        let begun = jobs.begin("one".to_owned(), "its session".to_owned(), false);
        let (running, returned) = begun.expect("is new");
        assert_eq!(finding.await.expect("ends").expect("is found"), "its session");
        assert!(jobs.begin("one".to_owned(), String::new(), false).is_err());
        running.job.give_back(Ok(Returned::default())).expect("the first");
        assert!(returned.await.expect("came").is_ok());
        assert!(running.job.give_back(Ok(Returned::default())).is_err());
        drop(running);
        for number in 0..ENDED {
            let next = jobs.begin(number.to_string(), String::new(), false).expect("is new");
            jobs.find("one").await.expect("is known still");
            drop(next);
        }
        assert!(!jobs.known.borrow().contains_key("one"));
    }
}
