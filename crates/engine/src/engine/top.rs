//! `docker top`, and the namespaces of running containers.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use bulkhead_types::Id;

use crate::blocking::blocking;
use crate::ps::{self, Column, Machine};
use crate::{Engine, EngineError, Status};

impl Engine {
    /// The rows of ps(1) for the container's processes: (titles, rows).
    pub async fn top(
        self: &Arc<Self>,
        id: Id,
        columns: Vec<Column>,
    ) -> Result<(Vec<String>, Vec<Vec<String>>), EngineError> {
        let engine = Arc::clone(self);
        blocking(move |_| {
            let container = engine.containers.record(id)?.container;
            if !matches!(container.state.status, Status::Running | Status::Paused) {
                return Err(EngineError::not_running(container.id));
            }
            let mut pids = engine.cgroups.of(container.id)?.pids()?;
            pids.sort_unstable();
            let titles = columns.iter().map(Column::title).collect();
            let machine = Machine::read();
            // One that has ended since is passed over.
            let rows = pids.into_iter().filter_map(|pid| ps::row(pid, &columns, machine)).collect();
            Ok((titles, rows))
        })
        .await
    }

    /// Duplicates a namespace descriptor of a running container (`net` for `bulkhead netns attach`).
    pub async fn namespace(self: &Arc<Self>, id: Id, kind: &str) -> Result<OwnedFd, EngineError> {
        let container = self.containers.record(id)?.container;
        if !matches!(container.state.status, Status::Running | Status::Paused) {
            return Err(EngineError::not_running(container.id));
        }
        let engine = Arc::clone(self);
        let kind = kind.to_owned();
        blocking(move |_| engine.namespace_of(container.id, &kind)).await
    }
}
