//! Compresses what the warden has rotated away: it does nothing but rename, and no program waits for it.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bulkhead_logs::Compressed;
use bulkhead_types::Id;

use crate::Engine;
use crate::blocking::blocking;
use crate::data_dir::log_name;
use crate::log_options::Rotated;

/// How often it is looked for files that were rotated.
const PERIOD: Duration = Duration::from_secs(5);
/// How long after a failure (the disk is full) a log is let alone.
const PAUSE: Duration = Duration::from_secs(300);
/// The least of a share of the processors.
const NICENESS: i32 = 19;

/// What is known of a container's log.
#[derive(Debug, Clone, Copy)]
enum Known {
    /// All that was rotated is compressed, as long as its newest rotated file has this inode.
    Done(Option<u64>),
    Failed(Instant),
}

impl Engine {
    /// Compresses rotated files, as long as the engine lives.
    pub(crate) fn watch_rotations(self: &Arc<Self>) {
        let engine: Weak<Self> = Arc::downgrade(self);
        self.runtime.spawn(async move {
            let mut known = HashMap::new();
            loop {
                let Some(engine) = engine.upgrade() else { return };
                let mut before = std::mem::take(&mut known);
                let looked = blocking(move |_| {
                    engine.compress_logs(&mut before);
                    Ok(before)
                });
                match looked.await {
                    Ok(now) => known = now,
                    Err(error) => tracing::error!(%error, "compress logs"),
                }
                tokio::time::sleep(PERIOD).await;
            }
        });
    }

    fn compress_logs(&self, known: &mut HashMap<Id, Known>) {
        let logs: Vec<(Id, String)> = {
            let state = self.containers.lock();
            let containers = state.entries.values().map(|entry| &entry.record.container);
            let compressed = containers.filter(|container| {
                let local = container.host.log_options.recorded(container.host.log_driver);
                local.is_some_and(|local| local.rotated == Rotated::Compressed)
            });
            compressed.map(|container| (container.id, container.name.to_string())).collect()
        };
        known.retain(|id, _| logs.iter().any(|(own, _)| own == id));
        let mut due = Vec::new();
        for (id, container) in logs {
            let log = self.data_dir.log_path(id);
            match known.get(&id) {
                Some(Known::Failed(since)) if since.elapsed() < PAUSE => continue,
                Some(Known::Done(newest)) if *newest == newest_rotated(&log) => continue,
                Some(_) => {}
                // The engine has just begun: another may have died over it.
                None => bulkhead_logs::clear(log.parent().unwrap_or(&log)),
            }
            due.push((id, container, log));
        }
        if due.is_empty() {
            return;
        }
        // On a thread of its own, which alone is slowed down.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _ = rustix::process::setpriority_process(None, NICENESS);
                for (id, container, log) in due {
                    // By what it was before: a rotation meanwhile is seen the next time.
                    let newest = newest_rotated(&log);
                    match compress_rotated(id, &log) {
                        Ok(true) => drop(known.insert(id, Known::Done(newest))),
                        Ok(false) => {}
                        Err(error) => {
                            tracing::warn!(container, %error, "rotated files of its log stay uncompressed for now");
                            known.insert(id, Known::Failed(Instant::now()));
                        }
                    }
                }
            });
        });
    }
}

/// The inode of `NAME.1`; none where there is no such file.
fn newest_rotated(log: &Path) -> Option<u64> {
    std::fs::symlink_metadata(first(log)).ok().map(|metadata| metadata.ino())
}

fn first(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// Whether all files of a log that were rotated are compressed now.
fn compress_rotated(id: Id, log: &Path) -> std::io::Result<bool> {
    let directory = log.parent().unwrap_or(log);
    let name = log_name(id);
    let mut changed = false;
    for number in 1.. {
        match bulkhead_logs::compress(directory, &name, number)? {
            Compressed::Missing => return Ok(!changed),
            Compressed::Moved => return Ok(false),
            // `NAME.1` has another inode now: the next look finds nothing to do.
            Compressed::Now(_) => changed = true,
            Compressed::Before => {}
        }
    }
    Ok(true)
}
