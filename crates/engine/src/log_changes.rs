//! Tells who follows a log that something was written or renamed there.
//!
//! One inotify(7) instance serves all followers: a user may have 128 of them
//! (`fs.inotify.max_user_instances`), and one watch serves all who follow the same log.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::fs::inotify;
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

/// Every log that is followed.
#[derive(Debug, Default)]
pub(crate) struct LogWatch(Mutex<Option<Arc<Instance>>>);

/// The changes of one log, for one follower.
#[derive(Debug)]
pub(crate) struct LogChanges {
    changed: watch::Receiver<()>,
    wd: i32,
    instance: Arc<Instance>,
}

#[derive(Debug)]
struct Instance {
    inotify: OwnedFd,
    logs: Mutex<HashMap<i32, watch::Sender<()>>>,
}

impl LogWatch {
    /// Must be called within the async runtime, where what comes is read.
    pub(crate) fn of(&self, log: &Path) -> std::io::Result<LogChanges> {
        let instance = {
            let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match &*shared {
                Some(instance) => Arc::clone(instance),
                None => Arc::clone(shared.insert(Instance::start()?)),
            }
        };
        // The directory and not the file: the file may not exist yet, and rotation replaces it.
        let directory = log.parent().unwrap_or(Path::new("/"));
        let wanted = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO;
        // Locked over both: whoever stops following at this moment removes the watch or sees us.
        let mut logs = instance.logs();
        let wd = inotify::add_watch(&instance.inotify, directory, wanted)?;
        let changed = logs.entry(wd).or_default().subscribe();
        drop(logs);
        Ok(LogChanges { changed, wd, instance })
    }
}

impl LogChanges {
    /// Returns when something has changed since the last call, or since this was made.
    pub(crate) async fn wait(&mut self) {
        // The sender goes only with the watch, when the directory is removed; the container's
        // end, which is waited for as well, comes before it.
        if self.changed.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for LogChanges {
    fn drop(&mut self) {
        let mut logs = self.instance.logs();
        if logs.get(&self.wd).is_some_and(|sender| sender.receiver_count() == 1) {
            logs.remove(&self.wd);
            // Fails when the directory has gone, and its watch with it.
            let _ = inotify::remove_watch(&self.instance.inotify, self.wd);
        }
    }
}

impl Instance {
    fn start() -> std::io::Result<Arc<Self>> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let inotify = inotify::init(flags)?;
        #[expect(
            deprecated,
            reason = "unsound only for types that lend a foreign fd; OwnedFd owns"
        )]
        let readable = AsyncFd::new(rustix::io::fcntl_dupfd_cloexec(&inotify, 0)?)?;
        let instance = Arc::new(Self { inotify, logs: Mutex::default() });
        tokio::spawn(publish(readable, Arc::downgrade(&instance)));
        Ok(instance)
    }

    fn logs(&self) -> MutexGuard<'_, HashMap<i32, watch::Sender<()>>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes on what inotify tells, as long as the engine lives.
async fn publish(readable: AsyncFd<OwnedFd>, instance: Weak<Instance>) {
    loop {
        let Ok(mut ready) = readable.readable().await else { return };
        let Some(instance) = instance.upgrade() else { return };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(readable.get_ref(), &mut buffer);
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) => {
                    instance.logs().values().for_each(|sender| sender.send_replace(()));
                }
                Ok(event) if event.events().contains(inotify::ReadFlags::IGNORED) => {
                    instance.logs().remove(&event.wd());
                }
                Ok(event) => {
                    if let Some(sender) = instance.logs().get(&event.wd()) {
                        sender.send_replace(());
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(errno) => return tracing::error!(%errno, "watch the logs"),
            }
        }
        ready.clear_ready();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn followers_of_many_logs_are_told_of_their_own() {
        let directory = tempfile::tempdir().unwrap();
        let watch = LogWatch::default();
        // more than a user may have of inotify instances
        let mut followers = Vec::new();
        for number in 0..200 {
            let own = directory.path().join(number.to_string());
            std::fs::create_dir(&own).unwrap();
            let log = own.join("log");
            followers.push((watch.of(&log).unwrap(), watch.of(&log).unwrap(), log));
        }
        for (first, second, log) in followers.iter_mut().rev() {
            std::fs::write(&*log, "x").unwrap();
            first.wait().await;
            second.wait().await;
        }
        let instance = Arc::clone(&followers[0].0.instance);
        assert_eq!(instance.logs().len(), 200);
        let (first, mut second, log) = followers.pop().unwrap();
        drop(first);
        std::fs::write(&log, "y").unwrap();
        second.wait().await;
        drop((second, followers));
        assert_eq!(instance.logs().len(), 0);
    }
}
