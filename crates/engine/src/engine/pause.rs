//! `docker pause` and `unpause`: the kernel's freezer.

use std::sync::Arc;

use bulkhead_types::Id;

use crate::blocking::blocking;
use crate::{Engine, EngineError, Status};

impl Engine {
    pub async fn pause(self: &Arc<Self>, id: Id) -> Result<(), EngineError> {
        self.freeze(id, Status::Running, Status::Paused).await
    }

    pub async fn unpause(self: &Arc<Self>, id: Id) -> Result<(), EngineError> {
        self.freeze(id, Status::Paused, Status::Running).await
    }

    async fn freeze(self: &Arc<Self>, id: Id, from: Status, to: Status) -> Result<(), EngineError> {
        let guard = self.containers.exclusive(id).await?;
        let status = self.containers.record(id)?.container.state.status;
        if status != from {
            return Err(EngineError::conflict(match (to, status) {
                (Status::Paused, Status::Paused) => format!("container {id} is already paused"),
                (Status::Paused, _) => format!("container {id} is not running"),
                _ => format!("Container {id} is not paused"),
            }));
        }
        let engine = Arc::clone(self);
        blocking(move |may_block| {
            let _guard = guard;
            let cgroup = engine.cgroups.of(id)?;
            let container =
                engine.containers.change(may_block, id, |record| record.set_status(to))?;
            // A paused container is not probed, and what is frozen does not end.
            engine.watch_health_while_running(id, &container);
            let done = match to {
                Status::Paused => cgroup.freeze(),
                _ => cgroup.thaw(),
            };
            if let Err(error) = done {
                let container =
                    engine.containers.change(may_block, id, |record| record.set_status(from))?;
                engine.watch_health_while_running(id, &container);
                return Err(error.into());
            }
            let action = if to == Status::Paused { "pause" } else { "unpause" };
            engine.events.container(&container, action, &[]);
            Ok(())
        })
        .await
    }
}
