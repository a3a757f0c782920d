//! Records that could not be written when it was time, and removals that are not finished.
//!
//! A container's end is recorded before the warden forgets it. Where the store refuses (a full disk,
//! an I/O error), the end is kept in memory and by the warden, and recorded as soon as the store takes
//! it; an engine that opens meanwhile learns it from the warden.
//!
//! A removal is recorded with an intent, `removing/KIND/NAME`, in one transaction; it goes when the
//! directory has gone. So a directory without a record is removed only if the store says that it was
//! to go: others are moved aside (see `recover.rs`).

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bulkhead_store::{Store, Write, put};
use bulkhead_types::{Id, Timestamp};

use crate::blocking::{Blocking, blocking};
use crate::data_dir::Kind;
use crate::state::Record;
use crate::transaction::Transaction;
use crate::{Engine, EngineError, Status};

/// What becomes of the warden's record of a container that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WardenRecord {
    Forget,
    /// Ours is not on disk yet.
    Keep,
}

const INTENTS: &str = "removing/";

/// The key that says that a directory is to go.
pub(crate) fn intent(kind: Kind, name: &str) -> String {
    format!("{INTENTS}{}/{name}", kind.name())
}

/// The edit that says it, beside the one that removes the record.
pub(crate) fn intend(transaction: &mut Transaction<'_>, kind: Kind, name: &str) {
    transaction.put(intent(kind, name), &Timestamp::now(), || {});
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
            let state = self.state();
            let slot = state.slot(id)?;
            if !slot.live.unrecorded {
                return Ok(());
            }
            slot.record.clone()
        };
        let restarts = record.container.state.status == Status::Restarting;
        if record.container.host.auto_remove && !restarts {
            return self.drop_container(may_block, id, true, self.cleaning());
        }
        self.commit(may_block, &[put(Record::key(id), &record)])?;
        self.state().slot_mut(id)?.live.unrecorded = false;
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
        match self.state().slot_mut(id) {
            Ok(slot) => slot.live.unrecorded = true,
            Err(_) => return,
        }
        let engine = Arc::downgrade(self);
        let mut revisions = self.store.revisions();
        self.runtime.spawn(async move {
            let mut wait = FIRST;
            loop {
                tokio::select! {
                    changed = revisions.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(wait) => {}
                }
                let Some(engine) = engine.upgrade() else { return };
                // Removed meanwhile.
                let Ok(guard) = engine.exclusive(id).await else { return };
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

    /// Notes that a directory has gone; its intent goes with the next transaction, since a flush of
    /// its own would cost every removal as much as the removal.
    pub(crate) fn removed(&self, kind: Kind, name: &str) {
        self.finished_removals().push(intent(kind, name));
    }

    pub(crate) fn finished_removals(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.finished_removals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn commit(&self, _: &Blocking, writes: &[Write]) -> Result<(), EngineError> {
        let finished = std::mem::take(&mut *self.finished_removals());
        let written = if finished.is_empty() {
            self.store.commit(&[], writes)
        } else {
            let gone = finished.iter().map(|key| Write::Delete(key.clone()));
            // Before the others: whoever makes a volume of the same name again has the last word.
            let all: Vec<Write> = gone.chain(writes.iter().cloned()).collect();
            self.store.commit(&[], &all)
        };
        if written.is_err() {
            self.finished_removals().extend(finished);
        }
        written?;
        Ok(())
    }

    /// Deletes the intents of what has gone. Not doing so costs a few bytes.
    pub(crate) fn forget_finished_removals(&self, may_block: &Blocking) {
        if !self.finished_removals().is_empty()
            && let Err(error) = self.commit(may_block, &[])
        {
            tracing::warn!(%error, "forget removals that are finished");
        }
    }

    /// The names of all directories of this kind that are to go.
    pub(crate) fn intents(&self, kind: Kind) -> Vec<String> {
        let prefix = intent(kind, "");
        let entries = self.store.range(&prefix).unwrap_or_default();
        entries.iter().map(|entry| entry.key[prefix.len()..].to_owned()).collect()
    }
}
