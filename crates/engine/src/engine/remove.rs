//! `docker rm`.

use std::sync::Arc;

use bulkhead_types::Id;

use crate::blocking::blocking;
use crate::containers::Removal;
use crate::engine::stop::killed;
use crate::signals::Signal;
use crate::{Engine, EngineError, Status};

impl Engine {
    pub async fn remove(
        self: &Arc<Self>,
        id: Id,
        force: bool,
        volumes: bool,
    ) -> Result<(), EngineError> {
        let mut guard = self.containers.exclusive(id).await?;
        let container = self.containers.record(id)?.container;
        match container.state.status {
            Status::Running | Status::Paused | Status::Restarting if !force => {
                let why = match container.state.status {
                    Status::Paused => "container is paused and must be unpaused first",
                    Status::Restarting => {
                        "container is restarting: stop the container before removing or force remove"
                    }
                    _ => "container is running: stop the container before removing or force remove",
                };
                return Err(EngineError::conflict(format!(
                    "cannot remove container \"{}\": {why}",
                    container.name
                )));
            }
            Status::Running | Status::Paused => {
                self.mark_stopped(id).await?;
                let (pidfd, mut lifecycle) = self.watch_end(id)?;
                let ends = lifecycle.borrow_and_update().ends;
                let removal = if volumes { Removal::WithVolumes } else { Removal::Alone };
                self.containers.lock().entry_mut(id)?.runtime.removal = Some(removal);
                drop(guard);
                let number = Signal::KILL.as_raw().to_string();
                self.events.container(&container, "kill", &[("signal", number)]);
                let ended = async {
                    self.send(id, &pidfd, Signal::KILL)?;
                    let ended = lifecycle.wait_for(|seen| seen.ends > ends || seen.removed);
                    killed(&container, ended).await
                };
                let ended = ended.await;
                // Waits for what its end brings about, which is its removal.
                guard = match self.containers.exclusive(id).await {
                    Ok(guard) => guard,
                    Err(_) => return Ok(()),
                };
                // It has not ended, or the store has not taken it: what follows says which.
                self.containers.lock().entry_mut(id)?.runtime.removal = None;
                ended?;
            }
            Status::Restarting => self.cancel_restart(id).await?,
            _ => {}
        }
        let engine = Arc::clone(self);
        blocking(move |may_block| {
            let _guard = guard;
            engine.drop_container(may_block, id, volumes, engine.cleaning())
        })
        .await
    }
}
