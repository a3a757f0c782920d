//! What concerns a volume's content, and the containers that have it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::blocking::blocking;
use crate::volume_mounts::Root;
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

    /// Opens the root of a volume, for its export or import. Owners of files there are as containers
    /// see them.
    ///
    /// # Errors
    /// A tmpfs has nothing but in a container that runs.
    pub async fn volume_files(self: &Arc<Self>, name: &str) -> Result<OwnedFd, EngineError> {
        let engine = Arc::clone(self);
        let name = name.to_owned();
        blocking(move |_| {
            let volume = engine
                .volumes
                .get(&name)
                .ok_or_else(|| EngineError::not_found(format!("get {name}: no such volume")))?;
            if volume.options.is_memory() {
                return Err(EngineError::conflict(format!(
                    "volume {name} is a tmpfs: its files are only in the container that runs with \
                     it; copy them from there (docker cp)"
                )));
            }
            match volume.options.open(&name, engine.data_dir.existing_volume(&name)?)? {
                Root::Directory(root, _) | Root::Mount(root) => Ok(root),
            }
        })
        .await
    }
}
