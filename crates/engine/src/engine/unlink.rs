//! `docker rm --link`.

use std::sync::Arc;

use bulkhead_types::Id;

use crate::blocking::blocking;
use crate::{Engine, EngineError};

impl Engine {
    /// Takes from container `id` its link of the name `alias`. The other container stays, and so do
    /// the variables of programs that run; the hosts file of a container that runs goes with it.
    ///
    /// # Errors
    /// Not found, where the container has no such link.
    pub async fn unlink(self: &Arc<Self>, id: Id, alias: &str) -> Result<(), EngineError> {
        let guard = self.containers.exclusive(id).await?;
        let engine = Arc::clone(self);
        let alias = alias.to_owned();
        blocking(move |may_block| {
            let _guard = guard;
            let container = engine.containers.record(id)?.container;
            if !container.host.links.iter().any(|link| link.alias == alias) {
                return Err(EngineError::not_found(format!(
                    "No such link: /{}/{alias}",
                    container.name
                )));
            }
            engine.containers.change(may_block, id, |record| {
                record.container.host.links.retain(|link| link.alias != alias);
            })?;
            // It is written anew with the next start anyway.
            if let Err(error) = engine.rewrite_hosts(id) {
                tracing::warn!(container = %container.name, %error, "hosts file is not up to date");
            }
            Ok(())
        })
        .await
    }
}
