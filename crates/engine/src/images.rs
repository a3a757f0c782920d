//! The images: their names and records, and their content below.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError, RwLock};

use bulkhead_image::{
    Content, Credentials, Progress, RegistryClient, RegistryOptions, StoredImage,
};
use bulkhead_types::image::{Config, Descriptor, History, ImageConfig, Platform, RootFs};
use bulkhead_types::{Digest, Reference, Timestamp};

use crate::allocation::AllocationLock;
use crate::blocking::{Blocking, blocking};
use crate::events::Events;
use crate::image_records::{ImageRecord, ImageRecords, ImageUser};
use crate::records::Records;
use crate::transaction::Transaction;
use crate::{EngineError, Image, RemovedImage};

/// Keeps content that has no name yet; see [`Images::hold_content`].
#[derive(Debug)]
pub struct ContentHold {
    _guard: tokio::sync::OwnedRwLockReadGuard<()>,
}

/// The images of an engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Images {
    parts: Arc<Parts>,
}

#[derive(Debug)]
struct Parts {
    records: Arc<Records>,
    known: ImageRecords,
    content: Arc<Content>,
    registry: RwLock<Arc<RegistryClient>>,
    events: Arc<Events>,
    allocation: AllocationLock,
    /// Held for reading by whoever stores content that has no name yet; a sweep needs it alone. Never
    /// waited for under another lock, only tried.
    content_lease: Arc<tokio::sync::RwLock<()>>,
}

impl Images {
    pub(crate) fn new(
        records: Arc<Records>,
        content: Arc<Content>,
        registry: RegistryClient,
        events: Arc<Events>,
        allocation: AllocationLock,
    ) -> Self {
        let known = ImageRecords::default();
        let content_lease = Arc::default();
        let registry = RwLock::new(Arc::new(registry));
        let parts = Parts { records, known, content, registry, events, allocation, content_lease };
        Self { parts: Arc::new(parts) }
    }

    /// Speaks to registries by other rules from the next transfer on.
    pub(crate) fn use_registries(&self, options: RegistryOptions) {
        let mut registry = self.parts.registry.write().unwrap_or_else(PoisonError::into_inner);
        if *registry.options() != options {
            *registry = Arc::new(RegistryClient::new(options));
        }
    }

    fn registry(&self) -> Arc<RegistryClient> {
        Arc::clone(&self.parts.registry.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn recover(&self, may_block: &Blocking) -> Result<(), EngineError> {
        self.parts.known.recover(may_block, &self.parts.records, &self.parts.content)
    }

    pub(crate) fn records(&self) -> &ImageRecords {
        &self.parts.known
    }

    /// All of them, from their records: nothing is read from the disk, and one whose content is
    /// gone is listed like the others.
    pub fn list(&self) -> Vec<Image> {
        self.records().all().into_iter().map(|record| self.view(record)).collect()
    }

    /// Finds an image by reference, id (`sha256:…` or hexadecimal digits) or start of an id.
    pub fn find(&self, name: &str) -> Result<Image, EngineError> {
        Ok(self.view(self.records().find(name)?))
    }

    pub async fn pull(
        &self,
        reference: &Reference,
        credentials: Option<Credentials>,
        progress: Arc<dyn Fn(Progress) + Send + Sync>,
    ) -> Result<Image, EngineError> {
        let _unnamed = self.hold_content().await;
        let content = Arc::clone(&self.parts.content);
        let pulled =
            self.registry().pull(content, reference, credentials.as_ref(), &*progress).await?;
        let names = vec![reference.clone(), reference.with_digest(pulled.manifest)];
        let images = self.clone();
        let image = blocking(move |may_block| {
            images.add(may_block, Transaction::default(), &pulled, None, &names)
        })
        .await?;
        let name = reference.familiar_name();
        self.parts.events.image("pull", reference.familiar(), Some(&name));
        Ok(image)
    }

    /// The digest and size of the manifest that was pushed.
    pub async fn push(
        &self,
        reference: &Reference,
        credentials: Option<Credentials>,
        progress: Arc<dyn Fn(Progress) + Send + Sync>,
    ) -> Result<(Digest, u64), EngineError> {
        let _unnamed = self.hold_content().await;
        let record = self.records().named(reference).ok_or_else(|| {
            EngineError::not_found(format!(
                "An image does not exist locally with the tag: {}",
                reference.familiar_name()
            ))
        })?;
        let (content, stored) = (Arc::clone(&self.parts.content), &record.stored);
        let registry = self.registry();
        let (digest, size) =
            registry.push(content, stored, reference, credentials.as_ref(), &*progress).await?;
        self.name(reference.with_digest(digest), stored.id).await?;
        let name = reference.familiar_name();
        self.parts.events.image("push", reference.familiar(), Some(&name));
        Ok((digest, size))
    }

    pub async fn log_in(
        &self,
        registry: &str,
        credentials: Option<&Credentials>,
    ) -> Result<(), EngineError> {
        Ok(self.registry().log_in(registry, credentials).await?)
    }

    /// What a reference names in its registry, and the platforms that it is for.
    pub async fn describe(
        &self,
        reference: &Reference,
        credentials: Option<Credentials>,
    ) -> Result<(Descriptor, Vec<Platform>), EngineError> {
        Ok(self.registry().describe(reference, credentials.as_ref()).await?)
    }

    /// Every name that the repository of `reference` has in its registry.
    pub async fn tags(
        &self,
        reference: &Reference,
        credentials: Option<Credentials>,
    ) -> Result<Vec<Reference>, EngineError> {
        let tags = self.registry().tags(reference, credentials.as_ref()).await?;
        // What is no tag can be no image's either.
        Ok(tags.iter().filter_map(|tag| reference.with_tag(tag).ok()).collect())
    }

    pub async fn tag(&self, image: Digest, reference: &Reference) -> Result<(), EngineError> {
        if reference.digest().is_some() {
            return Err(EngineError::invalid("refusing to create a tag with a digest reference"));
        }
        self.name(reference.clone(), image).await?;
        self.parts.events.image("tag", image, Some(&reference.familiar()));
        Ok(())
    }

    /// Gives an image that is here one more name.
    async fn name(&self, name: Reference, id: Digest) -> Result<(), EngineError> {
        let images = self.clone();
        blocking(move |may_block| {
            // It is not removed meanwhile.
            let _allocating = images.parts.allocation.hold(may_block);
            if images.records().get(id).is_none() {
                return Err(EngineError::no_image(&id.to_string()));
            }
            let mut transaction = Transaction::default();
            images.records().put_reference(&mut transaction, name, id);
            transaction.commit(&images.parts.records, may_block)
        })
        .await
    }

    /// Records an image whose content is stored, and its names, with what else is in the transaction.
    /// `parent` is the image whose container was committed to make it.
    pub(crate) fn add<'a>(
        &'a self,
        may_block: &Blocking,
        mut transaction: Transaction<'a>,
        image: &StoredImage,
        parent: Option<Digest>,
        references: &[Reference],
    ) -> Result<Image, EngineError> {
        let content = &self.parts.content;
        let config = content.config(image.id)?;
        let layers = config.rootfs.diff_ids.clone();
        let mut size = 0;
        for layer in layers.iter().collect::<BTreeSet<_>>() {
            size += content.layer_size(*layer)?;
        }
        // None is removed meanwhile.
        let allocating = self.parts.allocation.hold(may_block);
        let record = ImageRecord {
            stored: image.clone(),
            layers,
            size,
            config: Some(config),
            // One that was committed here, and is pulled once more, is the same image.
            parent: parent.or_else(|| self.records().get(image.id)?.parent),
            damage: None,
        };
        self.records().put(&mut transaction, &record);
        for reference in references {
            self.records().put_reference(&mut transaction, reference.clone(), image.id);
        }
        transaction.commit(&self.parts.records, may_block)?;
        drop(allocating);
        Ok(self.view(record))
    }

    /// Takes a name away, or the image with all its names: what was untagged and deleted, in Docker's
    /// order. `users` are asked for when no container can be made of it any more.
    pub(crate) fn remove(
        &self,
        may_block: &Blocking,
        name: &str,
        force: bool,
        users: impl FnOnce() -> Vec<ImageUser>,
    ) -> Result<Vec<RemovedImage>, EngineError> {
        let _allocating = self.parts.allocation.hold(may_block);
        let (id, untag, delete) = self.records().plan_removal(name, force, &users())?;
        let mut transaction = Transaction::default();
        for reference in &untag {
            self.records().delete_reference(&mut transaction, reference.clone());
        }
        if delete {
            self.records().delete(&mut transaction, id);
        }
        transaction.commit(&self.parts.records, may_block)?;
        let mut removed = Vec::new();
        for reference in &untag {
            removed.push(RemovedImage::Untagged(reference.familiar()));
            self.parts.events.image("untag", id, Some(&reference.familiar()));
        }
        if delete {
            removed.push(RemovedImage::Deleted(id));
            self.parts.events.image("delete", id, None);
        }
        Ok(removed)
    }

    /// Keeps content that has no name yet from being swept: to be held from before the first layer
    /// is stored until the image has been added.
    pub async fn hold_content(&self) -> ContentHold {
        ContentHold { _guard: Arc::clone(&self.parts.content_lease).read_owned().await }
    }

    /// Removes the content that is not `needed`; `false` if somebody is storing content just now.
    /// Never waits for that: whoever holds content may want to hold it twice.
    pub(crate) fn sweep(
        &self,
        _: &Blocking,
        needed: impl FnOnce() -> BTreeSet<Digest>,
    ) -> Result<bool, EngineError> {
        let Ok(_alone) = self.parts.content_lease.try_write() else { return Ok(false) };
        let needed = needed();
        self.parts.content.sweep(&|digest| needed.contains(&digest))?;
        Ok(true)
    }

    /// Every blob and layer that the images stand on.
    pub(crate) fn content(&self) -> BTreeSet<Digest> {
        self.records().content(&self.parts.content)
    }

    /// Makes an image of one layer from a tar stream that can be read from `tar`.
    pub async fn import(
        &self,
        tar: OwnedFd,
        references: &[Reference],
        config: Config,
        message: &str,
    ) -> Result<Image, EngineError> {
        let _unnamed = self.hold_content().await;
        let images = self.clone();
        let references = references.to_vec();
        let message = message.to_owned();
        blocking(move |may_block| {
            let content = &images.parts.content;
            let layer = content.import_layer(&mut File::from(tar))?;
            let platform = Platform::host();
            let created = Timestamp::now().to_string();
            let image = content.write_image(
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
            let image = images.add(may_block, Transaction::default(), &image, None, &references)?;
            images.parts.events.image("import", image.id, None);
            Ok(image)
        })
        .await
    }

    fn view(&self, record: ImageRecord) -> Image {
        let references = self.records().references_of(record.stored.id);
        let (digests, tags) = references.into_iter().partition(|name| name.digest().is_some());
        Image {
            id: record.stored.id,
            manifest: record.stored.manifest,
            tags,
            digests,
            config: record.config.unwrap_or_else(|| unknown_config(&record.layers)),
            size: record.size,
            // Of one that is gone Docker says nothing either.
            parent: record.parent.filter(|parent| self.records().get(*parent).is_some()),
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
