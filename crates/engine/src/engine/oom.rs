//! Kills for want of memory are told and recorded when they happen, not when the container ends.

use std::sync::Arc;

use bulkhead_runtime::cgroup::{Cgroup, OomWatch};
use bulkhead_types::Id;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::Engine;
use crate::blocking::blocking;
use crate::containers::AbortOnDrop;

impl Engine {
    /// Begins to watch a container whose cgroup is there. One that cannot be watched runs all the same:
    /// its end tells.
    pub(crate) fn watch_oom(self: &Arc<Self>, id: Id, cgroup: &Cgroup) -> Option<AbortOnDrop> {
        let watch = match cgroup.watch_oom() {
            Ok(watch) => watch?,
            Err(error) => {
                tracing::warn!(container = %id.short(), %error, "watch for want of memory");
                return None;
            }
        };
        let engine = Arc::downgrade(self);
        Some(AbortOnDrop(self.runtime.spawn(async move {
            let happens = async |watched: &AsyncFd<OomWatch>, interest| loop {
                let mut ready = watched.ready(interest).await?;
                ready.clear_ready();
                if watched.get_ref().take()? {
                    return Ok::<_, std::io::Error>(());
                }
            };
            let interest =
                if watch.is_priority() { Interest::PRIORITY } else { Interest::READABLE };
            // the sound constructor is unsafe, and the watch keeps the one descriptor that it has
            #[expect(deprecated, reason = "unsafe code is for the crate sys alone")]
            let watched = AsyncFd::with_interest(watch, interest);
            let Ok(watched) = watched else { return };
            while happens(&watched, interest).await.is_ok() {
                let Some(engine) = engine.upgrade() else { return };
                engine.out_of_memory(id).await;
            }
        })))
    }

    /// Tells of it at once; the record follows, unless the container's end is about to be recorded.
    pub(crate) async fn out_of_memory(self: &Arc<Self>, id: Id) {
        if !self.tell_of_oom(id) {
            return;
        }
        let Ok(lock) = self.containers.lock().entry(id).map(|entry| Arc::clone(&entry.operation))
        else {
            return;
        };
        let guard = lock.lock_owned().await;
        let engine = Arc::clone(self);
        let recorded = blocking(move |may_block| {
            let _guard = guard;
            if engine.containers.record(id).is_ok_and(|record| record.is_running()) {
                engine
                    .containers
                    .change(may_block, id, |record| record.container.state.oom_killed = true)?;
            }
            Ok(())
        });
        if let Err(error) = recorded.await {
            tracing::error!(container = %id.short(), %error, "record a kill for want of memory");
        }
    }

    /// Publishes the event; whether there is such a container that runs.
    fn tell_of_oom(&self, id: Id) -> bool {
        let container = {
            let mut state = self.containers.lock();
            let Ok(entry) = state.entry_mut(id) else { return false };
            if !entry.record.is_running() {
                return false;
            }
            entry.runtime.oom_told = true;
            entry.record.container.clone()
        };
        self.events.container(&container, "oom", &[]);
        true
    }
}
