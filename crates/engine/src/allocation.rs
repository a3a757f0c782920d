//! The lock under which things are chosen that only one may have.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::blocking::Blocking;

/// Held while names, user ids, volumes and images are chosen and recorded, over the flush of the disk:
/// what was looked at is still so when it is recorded.
#[derive(Debug, Default, Clone)]
pub(crate) struct AllocationLock(Arc<Mutex<()>>);

impl AllocationLock {
    pub(crate) fn hold(&self, _: &Blocking) -> MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
