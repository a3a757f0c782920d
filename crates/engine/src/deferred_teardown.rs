//! Links of containers that have ended, and of networks that were removed: taken down when the engine has nothing better to do.
//!
//! A link that goes makes the kernel wait for RCU grace periods, 10 to 50 ms in which nobody else
//! can change a link; a container that starts meanwhile would wait for the one that ended before
//! it. So a network namespace is kept open, which keeps its links, until no container has started
//! for a moment; then all that have gathered go at once, which costs the kernel little more than
//! one does. Nothing runs in them and nothing is published from them any more; their addresses
//! stay leased until then. An engine that dies lets go of them too.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bulkhead_network::Host;

use crate::EngineError;
use crate::attached_network::Lease;
use crate::blocking::{Blocking, blocking};

/// No start for this long counts as a quiet moment.
const QUIET: Duration = Duration::from_millis(300);
/// However busy the engine is, nothing waits longer than this, nor do more than [`MAX`] wait.
const LONGEST: Duration = Duration::from_secs(5);
const MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct PendingUnplug {
    pub link: PendingLink,
    /// The addresses of a container's link.
    pub lease: Option<Lease>,
    /// Keeps the namespace, and with it the link; `None` if it went with the container.
    pub netns: Option<Arc<OwnedFd>>,
}

impl PendingUnplug {
    /// A bridge that is out of use, by the name that it has now.
    pub(crate) fn bridge(retired: String) -> Self {
        Self { link: PendingLink::Host(retired), lease: None, netns: None }
    }
}

/// The name of a link.
#[derive(Debug)]
pub(crate) enum PendingLink {
    /// Of the host's end of a pair, or of a bridge.
    Host(String),
    /// Of the container's interface, on one of the host's: it has no other end.
    Inside(String),
}

/// What waits to be taken down.
#[derive(Debug)]
pub(crate) struct DeferredTeardown {
    runtime: tokio::runtime::Handle,
    host: Arc<Host>,
    waiting: Mutex<Vec<PendingUnplug>>,
    last_start: Mutex<Instant>,
    /// Held while links are taken down, so that a tear-down finds none that is neither waiting nor
    /// gone.
    removing: Mutex<()>,
    /// Whether a task is waiting for a quiet moment.
    scheduled: AtomicBool,
}

impl DeferredTeardown {
    pub(crate) fn new(runtime: tokio::runtime::Handle, host: Arc<Host>) -> Self {
        Self {
            runtime,
            host,
            waiting: Mutex::default(),
            last_start: Mutex::new(Instant::now()),
            removing: Mutex::default(),
            scheduled: AtomicBool::new(false),
        }
    }

    /// Notes that a container starts now.
    pub(crate) fn touch(&self) {
        *self.last_start.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Has a link taken down in a quiet moment.
    pub(crate) fn retire(self: &Arc<Self>, link: PendingUnplug) {
        self.waiting().push(link);
        if self.scheduled.swap(true, Ordering::AcqRel) {
            return;
        }
        let teardown = Arc::downgrade(self);
        self.runtime.spawn(async move {
            let since = Instant::now();
            loop {
                tokio::time::sleep(QUIET).await;
                let Some(teardown) = teardown.upgrade() else { return };
                let busy = teardown.quiet_for() < QUIET;
                let full = teardown.waiting().len() >= MAX;
                if busy && !full && since.elapsed() < LONGEST {
                    continue;
                }
                // Before the list is taken: what is added after that schedules the next round.
                teardown.scheduled.store(false, Ordering::Release);
                let removed = blocking(move |may_block| Ok(teardown.remove_all(may_block))).await;
                for fault in removed.unwrap_or_else(|fault| vec![fault]) {
                    tracing::warn!(error = %fault, "take down a link");
                }
                return;
            }
        });
    }

    /// Takes down every link that waits, and gives their addresses back.
    pub(crate) fn remove_all(&self, _: &Blocking) -> Vec<EngineError> {
        let _removing = self.removing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut links = std::mem::take(&mut *self.waiting());
        let mut faults = Vec::new();
        // The kernel clears a namespace away in its own time, and the next link may have the same
        // hardware address, which the parent refuses as long as this one is there.
        for link in &links {
            if let (PendingLink::Inside(name), Some(netns)) = (&link.link, &link.netns) {
                faults.extend(self.host.unplug_parent(netns.as_fd(), name).err());
            }
        }
        // All namespaces first: the kernel clears them away together, with their links.
        for link in &mut links {
            link.netns = None;
        }
        let host_end = |link: &PendingUnplug| match &link.link {
            PendingLink::Host(name) => Some(name.clone()),
            PendingLink::Inside(_) => None,
        };
        let names: Vec<String> = links.iter().filter_map(host_end).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        faults.extend(self.host.unplug_all(&names));
        // Nothing of the last owner's comes to the next one: its connections have ended.
        for lease in links.iter().filter_map(|link| link.lease.as_ref()) {
            lease.release();
        }
        faults.into_iter().map(EngineError::from).collect()
    }

    fn quiet_for(&self) -> Duration {
        self.last_start.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<PendingUnplug>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
