//! Records that could not be written when it was time.
//!
//! A container's end is recorded before the warden forgets it. Where the store refuses (a full disk,
//! an I/O error), the end is kept in memory and by the warden, and recorded as soon as the store takes
//! it; an engine that opens meanwhile learns it from the warden.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bulkhead_types::Id;

use crate::blocking::{Blocking, blocking};
use crate::transaction::Transaction;
use crate::{Engine, EngineError, Status};

/// What becomes of the warden's record of a container that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WardenRecord {
    Forget,
    /// Ours is not on disk yet.
    Keep,
}

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);

impl Engine {
    /// Everything is being taken down: nothing starts any more, and what ends was not stopped by a
    /// user.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Writes what [`Self::settle_later`] waits for; the caller holds the container's operation lock.
    pub(crate) fn settle(
        self: &Arc<Self>,
        may_block: &Blocking,
        id: Id,
    ) -> Result<(), EngineError> {
        let record = {
            let state = self.containers.lock();
            let entry = state.entry(id)?;
            if !entry.runtime.unrecorded {
                return Ok(());
            }
            entry.record.clone()
        };
        let restarts = record.container.state.status == Status::Restarting;
        if record.container.host.auto_remove && !restarts {
            return self.drop_container(may_block, id, true, self.cleaning());
        }
        let mut transaction = Transaction::default();
        self.containers.put(&mut transaction, &record);
        transaction.commit(&self.records, may_block)?;
        self.containers.lock().entry_mut(id)?.runtime.unrecorded = false;
        match self.warden.forget(id) {
            Ok(()) | Err(bulkhead_warden::WardenError::Unknown(_)) => Ok(()),
            // The end is on disk: the next engine forgets it.
            Err(error) => {
                tracing::warn!(container = %record.container.name, %error, "forget an end");
                Ok(())
            }
        }
    }

    /// Records an end when the store works again: tried whenever it has taken something else, and
    /// after a while.
    pub(crate) fn settle_later(self: &Arc<Self>, id: Id) {
        match self.containers.lock().entry_mut(id) {
            Ok(entry) => entry.runtime.unrecorded = true,
            Err(_) => return,
        }
        let engine = Arc::downgrade(self);
        let mut revisions = self.records.revisions();
        self.runtime.spawn(async move {
            let mut wait = FIRST;
            loop {
                tokio::select! {
                    changed = revisions.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(wait) => {}
                }
                let Some(engine) = engine.upgrade() else { return };
                // Removed meanwhile.
                let Ok(guard) = engine.containers.exclusive(id).await else { return };
                let settled = blocking(move |may_block| {
                    let _guard = guard;
                    engine.settle(may_block, id)
                })
                .await;
                revisions.borrow_and_update();
                if settled.is_ok() {
                    return;
                }
                wait = (wait * 2).min(LONGEST);
            }
        });
    }
}
