//! Removes log files while all logs together have more than `--log-budget`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bulkhead_types::Id;

use crate::blocking::blocking;
use crate::data_dir::log_name;
use crate::log_budget::{Piece, decide};
use crate::{Engine, LogDriver};

/// How often logs are measured.
const PERIOD: Duration = Duration::from_secs(5);

impl Engine {
    /// Keeps logs within the budget, if there is one, as long as the engine lives.
    pub(crate) fn watch_log_budget(self: &Arc<Self>) {
        let Some(budget) = self.options.log_budget else { return };
        let engine: Weak<Self> = Arc::downgrade(self);
        self.runtime.spawn(async move {
            loop {
                let Some(engine) = engine.upgrade() else { return };
                let kept = blocking(move |_| {
                    engine.keep_log_budget(budget);
                    Ok(())
                });
                if let Err(error) = kept.await {
                    tracing::error!(%error, "keep the logs within their budget");
                }
                tokio::time::sleep(PERIOD).await;
            }
        });
    }

    fn keep_log_budget(&self, budget: u64) {
        let owners: Vec<(Id, String)> = {
            let state = self.containers.lock();
            let logging = state.entries.values().map(|entry| &entry.record.container);
            let logging = logging.filter(|container| container.host.log_driver != LogDriver::None);
            logging.map(|container| (container.id, container.name.to_string())).collect()
        };
        let mut pieces = Vec::new();
        for (owner, (id, _)) in owners.iter().enumerate() {
            let path = self.data_dir.log_path(*id);
            let name = log_name(*id);
            let entries = std::fs::read_dir(path.parent().unwrap_or(&path)).into_iter().flatten();
            for entry in entries.flatten() {
                let file = entry.file_name();
                let Some(rest) = file.to_str().and_then(|file| file.strip_prefix(&name)) else {
                    continue;
                };
                let number = rest.strip_prefix('.').and_then(|number| number.parse().ok());
                let (Some(number), Ok(metadata)) =
                    (number.or(rest.is_empty().then_some(0)), entry.metadata())
                else {
                    continue;
                };
                pieces.push(Piece { owner, number, size: metadata.len() });
            }
        }
        let (going, over) = decide(pieces, budget);
        let mut removed = self.log_budget.removed();
        removed.over = over;
        for piece in going {
            let (id, name) = &owners[piece.owner];
            let path = numbered(&self.data_dir.log_path(*id), piece.number);
            match std::fs::remove_file(&path) {
                Ok(()) => {
                    tracing::warn!(
                        container = name,
                        bytes = piece.size,
                        budget,
                        "its oldest log file makes room: all logs together have more than --log-budget"
                    );
                    *removed.bytes.entry(name.clone()).or_default() += piece.size;
                }
                // Its container has gone, or rotated.
                Err(error) => tracing::debug!(path = %path.display(), %error, "remove a log file"),
            }
        }
    }

    /// What `docker info` says of it.
    pub(crate) fn log_budget_warnings(&self) -> Vec<String> {
        let removed = self.log_budget.removed();
        let mut warnings: Vec<String> = removed
            .bytes
            .iter()
            .map(|(container, bytes)| {
                format!(
                    "WARNING: {bytes} bytes of the log of container {container} were removed to \
                     keep --log-budget"
                )
            })
            .collect();
        if removed.over > 0 {
            warnings.push(format!(
                "WARNING: logs have {} bytes more than --log-budget in files that are being \
                 written; give containers a smaller max-size",
                removed.over
            ));
        }
        warnings
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}
