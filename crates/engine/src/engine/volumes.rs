//! `docker volume rm`, which concerns containers too.

use std::sync::Arc;

use crate::blocking::blocking;
use crate::{Engine, EngineError};

impl Engine {
    /// Removes a volume that no container has.
    pub async fn remove_volume(
        self: &Arc<Self>,
        name: &str,
        force: bool,
    ) -> Result<(), EngineError> {
        let engine = Arc::clone(self);
        let name = name.to_owned();
        blocking(move |may_block| {
            let users = || engine.containers.users_of_volume(&name);
            engine.volumes.remove(may_block, &name, force, users)
        })
        .await
    }
}
