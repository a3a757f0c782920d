//! `docker logs`: what is in the log, and with `follow` what comes until the container has ended.

use std::path::PathBuf;

use bulkhead_types::{Id, Timestamp};
use tokio::sync::{mpsc, watch};

use crate::blocking::blocking;
use crate::containers::Lifecycle;
use crate::error::io_error;
use crate::log_changes::LogChanges;
use crate::log_options::Reading;
use crate::log_reader::{BATCH, LogReader};
use crate::{Class, Engine, EngineError, LogLine, LogQuery};

/// Records that a slow reader may be behind; then the reading of the log waits for it.
const BUFFER: usize = 16;

impl Engine {
    /// Log records in order; with `follow`, until the container has ended. An error is the last.
    pub async fn logs(
        &self,
        id: Id,
        query: LogQuery,
    ) -> Result<mpsc::Receiver<Result<LogLine, EngineError>>, EngineError> {
        if !query.stdout && !query.stderr {
            return Err(EngineError::invalid(
                "Bad parameters: you must choose at least one stream",
            ));
        }
        let (path, lifecycle, is_running) = {
            let state = self.containers.lock();
            let entry = state.entry(id)?;
            let container = &entry.record.container;
            let host = &container.host;
            let local = host.log_options.recorded(host.log_driver);
            let is_readable = local.is_some_and(|local| local.reading == Reading::Allowed);
            let path = PathBuf::from(if is_readable { &*container.log_path } else { "" });
            let lifecycle = entry.lifecycle.subscribe();
            let is_running = lifecycle.borrow().running;
            (path, lifecycle, is_running)
        };
        if path.as_os_str().is_empty() {
            return Err(EngineError::new(
                Class::Unsupported,
                "configured logging driver does not support reading",
            ));
        }
        // Of one that does not run nothing more comes (moby: daemon/logs.go); one that never ran has no
        // directory to be watched.
        let follow = (query.follow && is_running).then(|| self.log_changes.of(&path)).transpose();
        let follow = follow.map_err(io_error("watch the log"))?;
        let until = query.until;
        let reader =
            blocking(move |_| LogReader::open(path, query).map_err(io_error("read the log")))
                .await?;
        let (sender, receiver) = mpsc::channel(BUFFER);
        tokio::spawn(async move {
            if let Err(error) = send(reader, follow, lifecycle, until, &sender).await {
                tracing::error!(%error, "read a log");
                // Fails when the reader has gone, and needs no error then.
                let _ = sender.send(Err(error)).await;
            }
        });
        Ok(receiver)
    }
}

/// Sends what is in the log, and with `follow` what comes until the container has ended.
async fn send(
    mut reader: LogReader,
    mut follow: Option<LogChanges>,
    mut lifecycle: watch::Receiver<Lifecycle>,
    until: Option<Timestamp>,
    sender: &mpsc::Sender<Result<LogLine, EngineError>>,
) -> Result<(), EngineError> {
    loop {
        // Asked before the log is read: what was written before the end is read after it.
        let ended = follow.is_none() || has_ended(&mut lifecycle);
        loop {
            let (back, lines) = blocking(move |_| {
                let lines = reader.more(BATCH).map_err(io_error("read the log"))?;
                Ok((reader, lines))
            })
            .await?;
            reader = back;
            if lines.is_empty() {
                break;
            }
            for line in lines {
                if sender.send(Ok(line)).await.is_err() {
                    return Ok(());
                }
            }
        }
        let Some(changes) = &mut follow else { return Ok(()) };
        if ended || until.is_some_and(|until| Timestamp::now() > until) {
            return Ok(());
        }
        tokio::select! {
            _ = lifecycle.changed() => {}
            () = changes.wait() => {}
            () = sender.closed() => return Ok(()),
        }
    }
}

fn has_ended(lifecycle: &mut watch::Receiver<Lifecycle>) -> bool {
    let gone = lifecycle.has_changed().is_err();
    let now = *lifecycle.borrow_and_update();
    gone || now.removed || !now.running
}
