//! Notices that somebody has removed the rules of containers' networks, and puts them back.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::Engine;
use crate::blocking::blocking;

/// How often the kernel is asked for the number of the ruleset's last change. Its own news of changes would
/// tell of each of ours, too, several for every start of a container.
const PERIOD: Duration = Duration::from_secs(1);

impl Engine {
    /// Mends the firewall as long as the engine lives.
    pub(crate) fn watch_firewall(self: &Arc<Self>) {
        let engine: Weak<Self> = Arc::downgrade(self);
        self.runtime.spawn(async move {
            let mut last_fault = None;
            loop {
                tokio::time::sleep(PERIOD).await;
                let Some(engine) = engine.upgrade() else { return };
                let mended = blocking(move |_| engine.networks.mend()).await;
                // The same fault is told once.
                let fault = mended.err().map(|error| error.to_string());
                if let Some(fault) = fault.as_ref().filter(|_| fault != last_fault) {
                    tracing::error!(error = fault, "look after the firewall's rules");
                }
                last_fault = fault;
            }
        });
    }
}
