//! The content that images, containers and the build cache stand on together.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_image::StoredImage;
use bulkhead_types::{Digest, Reference};

use crate::blocking::{Blocking, blocking};
use crate::containers::Entry;
use crate::image_records::ImageUser;
use crate::transaction::Transaction;
use crate::{Engine, EngineError, Image, RemovedImage, Status};

/// Between attempts to sweep while somebody stores content.
const SWEEP_AGAIN: Duration = Duration::from_secs(1);

impl Engine {
    /// Gives an image that a build or an import stored its names, in one transaction.
    pub async fn add_image(
        self: &Arc<Self>,
        image: StoredImage,
        references: Vec<Reference>,
    ) -> Result<Image, EngineError> {
        self.add_made_of(image, None, references).await
    }

    /// The same for an image that was committed from a container of `parent`, which inspect tells.
    pub async fn add_committed(
        self: &Arc<Self>,
        image: StoredImage,
        parent: Digest,
        references: Vec<Reference>,
    ) -> Result<Image, EngineError> {
        self.add_made_of(image, Some(parent), references).await
    }

    async fn add_made_of(
        self: &Arc<Self>,
        image: StoredImage,
        parent: Option<Digest>,
        references: Vec<Reference>,
    ) -> Result<Image, EngineError> {
        let engine = Arc::clone(self);
        blocking(move |may_block| {
            let mut transaction = Transaction::default();
            engine.steps.note_uses(&mut transaction);
            engine.images.add(may_block, transaction, &image, parent, &references)
        })
        .await
    }

    /// What was untagged and deleted, in Docker's order. The content goes too, unless something else
    /// stands on it.
    pub async fn remove_image(
        self: &Arc<Self>,
        name: &str,
        force: bool,
    ) -> Result<Vec<RemovedImage>, EngineError> {
        let engine = Arc::clone(self);
        let name = name.to_owned();
        blocking(move |may_block| {
            let users = || engine.image_users();
            let removed = engine.images.remove(may_block, &name, force, users)?;
            let deletes = |removed: &RemovedImage| matches!(removed, RemovedImage::Deleted(_));
            if removed.iter().any(deletes) && !engine.sweep(may_block)? {
                engine.sweep_later();
            }
            Ok(removed)
        })
        .await
    }

    /// Removes the content that nothing needs; `false` if somebody is storing content just now.
    pub(crate) fn sweep(&self, may_block: &Blocking) -> Result<bool, EngineError> {
        self.images.sweep(may_block, || self.needed_content(may_block))
    }

    /// Sweeps when nobody stores content any more.
    pub(crate) fn sweep_later(self: &Arc<Self>) {
        let engine = Arc::downgrade(self);
        self.runtime.spawn(async move {
            loop {
                tokio::time::sleep(SWEEP_AGAIN).await;
                let Some(engine) = engine.upgrade() else { return };
                match blocking(move |may_block| engine.sweep(may_block)).await {
                    Ok(false) => {}
                    Ok(true) => return,
                    Err(error) => return tracing::warn!(%error, "sweep unused content"),
                }
            }
        });
    }

    /// Every blob and layer that an image, a container or a cached build step stands on.
    pub(crate) fn needed_content(&self, _: &Blocking) -> BTreeSet<Digest> {
        let mut keep = self.images.content();
        keep.extend(self.steps.content());
        for entry in self.containers.lock().entries.values() {
            keep.insert(entry.record.container.image_id);
            keep.extend(&entry.record.layers);
        }
        keep
    }

    /// The containers, as far as images are concerned.
    fn image_users(&self) -> Vec<ImageUser> {
        let user = |entry: &Entry| ImageUser {
            container: entry.record.container.id,
            image: entry.record.container.image_id,
            runs: matches!(
                entry.record.container.state.status,
                Status::Running | Status::Paused | Status::Restarting
            ),
        };
        self.containers.lock().entries.values().map(user).collect()
    }
}
