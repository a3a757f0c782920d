//! Images: names in the store, content below.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bulkhead_image::{Credentials, Progress, StoredImage};
use bulkhead_types::image::{Config, Descriptor, History, ImageConfig, Platform, RootFs};
use bulkhead_types::{Digest, Reference, Timestamp};

use crate::blocking::{Blocking, blocking};
use crate::containers::Entry;
use crate::image_records::{ImageRecord, ImageUser, no_image};
use crate::transaction::Transaction;
use crate::{Engine, EngineError, Image, RemovedImage, Status};

/// Keeps content that has no name yet; see [`Engine::hold_content`].
#[derive(Debug)]
pub struct ContentHold {
    _guard: tokio::sync::OwnedRwLockReadGuard<()>,
}

impl Engine {
    /// All of them, from their records: nothing is read from the disk, and one whose content is
    /// gone is listed like the others.
    pub fn images(&self) -> Vec<Image> {
        self.images.all().into_iter().map(|record| self.view(record)).collect()
    }

    /// Finds an image by reference, id (`sha256:…` or hexadecimal digits) or start of an id.
    pub fn image(&self, name: &str) -> Result<Image, EngineError> {
        Ok(self.view(self.images.find(name)?))
    }

    pub async fn pull(
        self: &Arc<Self>,
        reference: &Reference,
        credentials: Option<Credentials>,
        progress: Arc<dyn Fn(Progress) + Send + Sync>,
    ) -> Result<Image, EngineError> {
        let _unnamed = self.hold_content().await;
        let pulled =
            self.registry.pull(self.content(), reference, credentials.as_ref(), &*progress).await?;
        let engine = Arc::clone(self);
        let names = vec![reference.clone(), reference.with_digest(pulled.manifest)];
        let tell = reference.familiar();
        let image =
            blocking(move |may_block| engine.add_image_now(may_block, &pulled, &names)).await?;
        self.publish("image", "pull", &tell, [("name".to_owned(), reference.familiar_name())]);
        Ok(image)
    }

    pub async fn push(
        self: &Arc<Self>,
        reference: &Reference,
        credentials: Option<Credentials>,
        progress: Arc<dyn Fn(Progress) + Send + Sync>,
    ) -> Result<(Digest, u64), EngineError> {
        let _unnamed = self.hold_content().await;
        let record = self.images.named(reference).ok_or_else(|| {
            EngineError::not_found(format!(
                "An image does not exist locally with the tag: {}",
                reference.familiar_name()
            ))
        })?;
        let (digest, size) = self
            .registry
            .push(self.content(), &record.stored, reference, credentials.as_ref(), &*progress)
            .await?;
        let engine = Arc::clone(self);
        let pinned = reference.with_digest(digest);
        blocking(move |may_block| engine.name_image(may_block, pinned, record.stored.id)).await?;
        let name = [("name".to_owned(), reference.familiar_name())];
        self.publish("image", "push", reference.familiar(), name);
        Ok((digest, size))
    }

    pub async fn log_in(
        &self,
        registry: &str,
        credentials: &Credentials,
    ) -> Result<(), EngineError> {
        Ok(self.registry.log_in(registry, credentials).await?)
    }

    pub async fn resolve(
        &self,
        reference: &Reference,
        credentials: Option<Credentials>,
    ) -> Result<Descriptor, EngineError> {
        Ok(self.registry.resolve(reference, credentials.as_ref()).await?)
    }

    pub async fn tag(
        self: &Arc<Self>,
        name: &str,
        reference: &Reference,
    ) -> Result<(), EngineError> {
        if reference.digest().is_some() {
            return Err(EngineError::invalid("refusing to create a tag with a digest reference"));
        }
        let record = self.images.find(name)?;
        let engine = Arc::clone(self);
        let new = reference.clone();
        blocking(move |may_block| engine.name_image(may_block, new, record.stored.id)).await?;
        let name = [("name".to_owned(), reference.familiar())];
        self.publish("image", "tag", record.stored.id, name);
        Ok(())
    }

    /// Gives an image that is here one more name.
    fn name_image(
        &self,
        may_block: &Blocking,
        name: Reference,
        id: Digest,
    ) -> Result<(), EngineError> {
        // It is not removed meanwhile.
        let _creating =
            self.allocation_lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.images.get(id).is_none() {
            return Err(no_image(&id.to_string()));
        }
        let mut transaction = Transaction::default();
        self.images.put_reference(&mut transaction, name, id);
        transaction.commit(&self.records, may_block)
    }

    /// Gives an image that a build or an import stored its names, in one transaction.
    pub async fn add_image(
        self: &Arc<Self>,
        image: StoredImage,
        references: Vec<Reference>,
    ) -> Result<Image, EngineError> {
        let engine = Arc::clone(self);
        blocking(move |may_block| engine.add_image_now(may_block, &image, &references)).await
    }

    fn add_image_now(
        &self,
        may_block: &Blocking,
        image: &StoredImage,
        references: &[Reference],
    ) -> Result<Image, EngineError> {
        let config = self.content.config(image.id)?;
        let layers = config.rootfs.diff_ids.clone();
        let mut size = 0;
        for layer in layers.iter().collect::<BTreeSet<_>>() {
            size += self.content.layer_size(*layer)?;
        }
        let record =
            ImageRecord { stored: image.clone(), layers, size, config: Some(config), damage: None };
        // None is removed meanwhile.
        let creating =
            self.allocation_lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut transaction = Transaction::default();
        self.images.put(&mut transaction, &record);
        for reference in references {
            self.images.put_reference(&mut transaction, reference.clone(), image.id);
        }
        self.steps.note_uses(&mut transaction);
        transaction.commit(&self.records, may_block)?;
        drop(creating);
        Ok(self.view(record))
    }

    /// What was untagged and deleted, in Docker's order.
    pub async fn remove_image(
        self: &Arc<Self>,
        name: &str,
        force: bool,
    ) -> Result<Vec<RemovedImage>, EngineError> {
        let engine = Arc::clone(self);
        let name = name.to_owned();
        blocking(move |may_block| {
            let removed = engine.remove_image_now(may_block, &name, force)?;
            if removed.iter().any(|it| matches!(it, RemovedImage::Deleted(_)))
                && !engine.sweep(may_block)?
            {
                engine.sweep_later();
            }
            Ok(removed)
        })
        .await
    }

    /// Keeps content that has no name yet from being swept: to be held from before the first layer
    /// is stored until [`Engine::add_image`] has returned.
    pub async fn hold_content(&self) -> ContentHold {
        ContentHold { _guard: Arc::clone(&self.content_lease).read_owned().await }
    }

    fn remove_image_now(
        &self,
        may_block: &Blocking,
        name: &str,
        force: bool,
    ) -> Result<Vec<RemovedImage>, EngineError> {
        // No container is made of the image meanwhile.
        let _creating =
            self.allocation_lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (id, untag, delete) = self.images.plan_removal(name, force, &self.image_users())?;
        let mut transaction = Transaction::default();
        for reference in &untag {
            self.images.delete_reference(&mut transaction, reference.clone());
        }
        if delete {
            self.images.delete(&mut transaction, id);
        }
        transaction.commit(&self.records, may_block)?;
        let mut removed = Vec::new();
        for reference in &untag {
            removed.push(RemovedImage::Untagged(reference.familiar()));
            self.publish("image", "untag", id, [("name".to_owned(), reference.familiar())]);
        }
        if delete {
            removed.push(RemovedImage::Deleted(id));
            self.publish("image", "delete", id, []);
        }
        Ok(removed)
    }

    /// Removes the content that no image and no container needs; `false` if somebody is storing
    /// content just now. Never waits for that: whoever holds content may want to hold it twice.
    pub(crate) fn sweep(&self, may_block: &Blocking) -> Result<bool, EngineError> {
        let Ok(_alone) = self.content_lease.try_write() else { return Ok(false) };
        let keep = self.needed_content(may_block);
        self.content.sweep(&|digest| keep.contains(&digest))?;
        Ok(true)
    }

    /// Sweeps when nobody stores content any more.
    pub(crate) fn sweep_later(self: &Arc<Self>) {
        let engine = Arc::downgrade(self);
        self.runtime.spawn(async move {
            loop {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
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
        let mut keep = self.images.content(&self.content);
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

    /// Makes an image of one layer from a tar stream that can be read from `tar`.
    pub async fn import(
        self: &Arc<Self>,
        tar: OwnedFd,
        references: &[Reference],
        config: Config,
        message: &str,
    ) -> Result<Image, EngineError> {
        let _unnamed = self.hold_content().await;
        let engine = Arc::clone(self);
        let references = references.to_vec();
        let message = message.to_owned();
        blocking(move |may_block| {
            let layer = engine.content.import_layer(&mut File::from(tar))?;
            let platform = Platform::host();
            let created = Timestamp::now().to_string();
            let image = engine.content.write_image(
                &ImageConfig {
                    architecture: platform.architecture,
                    os: platform.os,
                    variant: platform.variant,
                    created: Some(created.clone()),
                    author: String::new(),
                    config,
                    rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![layer.diff_id] },
                    history: vec![History {
                        created: Some(created),
                        comment: if message.is_empty() {
                            "Imported from -".to_owned()
                        } else {
                            message
                        },
                        ..History::default()
                    }],
                },
                &[layer.descriptor],
            )?;
            let image = engine.add_image_now(may_block, &image, &references)?;
            engine.publish("image", "import", image.id, []);
            Ok(image)
        })
        .await
    }

    fn view(&self, record: ImageRecord) -> Image {
        let references = self.images.references_of(record.stored.id);
        let (digests, tags) = references.into_iter().partition(|it| it.digest().is_some());
        Image {
            id: record.stored.id,
            manifest: record.stored.manifest,
            tags,
            digests,
            config: record.config.unwrap_or_else(|| unknown_config(&record.layers)),
            size: record.size,
            damage: record.damage,
        }
    }
}

/// Stands for the configuration of an image that an earlier version recorded without it and whose
/// content is gone.
fn unknown_config(layers: &[Digest]) -> ImageConfig {
    let platform = Platform::host();
    ImageConfig {
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant,
        created: None,
        author: String::new(),
        config: Config::default(),
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: layers.to_vec() },
        history: Vec::new(),
    }
}
