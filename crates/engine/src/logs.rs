//! `docker logs`: what is in the log, and with `follow` what comes until the container has ended.

use std::path::{Path, PathBuf};

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

use crate::blocking::blocking;
use crate::error::io_error;
use crate::log_reader::LogReader;
use crate::state::Progress;
use crate::{Class, Engine, EngineError, LogLine, LogQuery};

/// Records that a slow reader may be behind; then the reading of the log waits for it.
const BUFFER: usize = 256;

impl Engine {
    /// Log records in order; with `follow`, until the container has ended.
    pub async fn logs(
        &self,
        name: &str,
        query: LogQuery,
    ) -> Result<mpsc::Receiver<LogLine>, EngineError> {
        if !query.stdout && !query.stderr {
            return Err(EngineError::invalid(
                "Bad parameters: you must choose at least one stream",
            ));
        }
        let (path, progress) = {
            let state = self.state();
            let slot = state.slot(state.find(name)?)?;
            let path = PathBuf::from(&slot.record.container.log_path);
            (path, slot.progress.subscribe())
        };
        if path.as_os_str().is_empty() {
            return Err(EngineError::new(
                Class::Unsupported,
                "configured logging driver does not support reading",
            ));
        }
        let follow = query.follow.then(|| Changes::of(&path)).transpose();
        let follow = follow.map_err(io_error("watch the log"))?;
        let until = query.until;
        let mut reader = LogReader::new(path, query);
        let (mut reader, backlog) = blocking(move |_| {
            let lines = reader.backlog().map_err(io_error("read the log"))?;
            Ok((reader, lines))
        })
        .await?;
        let (sender, receiver) = mpsc::channel(BUFFER);
        tokio::spawn(async move {
            for line in backlog {
                if sender.send(line).await.is_err() {
                    return;
                }
            }
            let Some(changes) = follow else { return };
            let mut progress = progress;
            loop {
                // Asked before the log is read: what was written before the end is read after it.
                let ended = has_ended(&mut progress);
                let read = tokio::task::spawn_blocking(move || {
                    let lines = reader.more();
                    (reader, lines)
                })
                .await;
                let Ok((back, Ok(lines))) = read else { return };
                reader = back;
                for line in lines {
                    if sender.send(line).await.is_err() {
                        return;
                    }
                }
                let past = until.is_some_and(|until| bulkhead_types::Timestamp::now() > until);
                if ended || past {
                    return;
                }
                tokio::select! {
                    _ = progress.changed() => {}
                    changed = changes.wait() => if changed.is_err() { return },
                    () = sender.closed() => return,
                }
            }
        });
        Ok(receiver)
    }
}

fn has_ended(progress: &mut watch::Receiver<Progress>) -> bool {
    let gone = progress.has_changed().is_err();
    let now = *progress.borrow_and_update();
    gone || now.removed || !now.running
}

/// Tells when something in the log's directory was written or renamed.
struct Changes(AsyncFd<std::os::fd::OwnedFd>);

impl Changes {
    fn of(log: &Path) -> std::io::Result<Self> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let fd = inotify::init(flags)?;
        // The directory and not the file: the file may not exist yet, and rotation replaces it.
        let directory = log.parent().unwrap_or(Path::new("/"));
        let wanted = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&fd, directory, wanted)?;
        #[expect(
            deprecated,
            reason = "unsound only for types that lend a foreign fd; OwnedFd owns"
        )]
        let registered = AsyncFd::new(fd)?;
        Ok(Self(registered))
    }

    async fn wait(&self) -> std::io::Result<()> {
        let mut ready = self.0.readable().await?;
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        // What changed does not matter: the reader looks at everything. Only drain it.
        let mut reader = inotify::Reader::new(self.0.get_ref(), &mut buffer);
        loop {
            match reader.next() {
                Ok(_) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        ready.clear_ready();
        Ok(())
    }
}
