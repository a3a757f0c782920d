//! Images: names in the store, content below.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bulkhead_image::{Credentials, Progress, StoredImage};
use bulkhead_types::image::{Config, Descriptor, History, ImageConfig, Platform, RootFs};
use bulkhead_types::{Digest, Reference, Timestamp};

use crate::blocking::{Blocking, blocking};
use crate::state::{ImageRecord, State};
use crate::transaction::Transaction;
use crate::{Engine, EngineError, Image, RemovedImage, Status};

/// Keeps content that has no name yet; see [`Engine::hold_content`].
#[derive(Debug)]
pub struct ContentHold {
    _guard: tokio::sync::OwnedRwLockReadGuard<()>,
}

impl Engine {
    pub fn images(&self) -> Result<Vec<Image>, EngineError> {
        let records: Vec<(ImageRecord, Vec<Reference>)> = {
            let state = self.state();
            state
                .images
                .values()
                .map(|record| (record.clone(), state.references_of(record.stored.id)))
                .collect()
        };
        records.into_iter().map(|(record, references)| self.view(record, references)).collect()
    }

    pub fn image(&self, name: &str) -> Result<Image, EngineError> {
        let record = self.find_image(name)?;
        let references = self.state().references_of(record.stored.id);
        self.view(record, references)
    }

    /// Finds an image by reference, id (`sha256:…` or hexadecimal digits) or start of an id.
    pub(crate) fn find_image(&self, name: &str) -> Result<ImageRecord, EngineError> {
        self.state().find_image(name).cloned()
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
        let id = self.state().references.get(reference).copied();
        let record = id.and_then(|id| self.state().images.get(&id).cloned()).ok_or_else(|| {
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
        let record = self.find_image(name)?;
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
        if !self.state().images.contains_key(&id) {
            return Err(no_image(&id.to_string()));
        }
        let mut transaction = Transaction::default();
        self.put_reference(&mut transaction, name, id);
        transaction.commit(&self.store, may_block)
    }

    fn put_reference<'a>(
        &'a self,
        transaction: &mut Transaction<'a>,
        reference: Reference,
        id: Digest,
    ) {
        transaction.put(reference_key(&reference), &id, move || {
            self.state().references.insert(reference, id);
        });
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
        let layers = config.rootfs.diff_ids;
        let mut size = 0;
        for layer in layers.iter().collect::<BTreeSet<_>>() {
            size += self.content.layer_size(*layer)?;
        }
        let record = ImageRecord { stored: image.clone(), layers, size };
        // None is removed meanwhile.
        let creating =
            self.allocation_lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut transaction = Transaction::default();
        let new = record.clone();
        transaction.put(image_key(image.id), &record, || {
            self.state().images.insert(image.id, new);
        });
        for reference in references {
            self.put_reference(&mut transaction, reference.clone(), image.id);
        }
        self.steps.note_uses(&mut transaction);
        transaction.commit(&self.store, may_block)?;
        drop(creating);
        let references = self.state().references_of(image.id);
        self.view(record, references)
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
        let (id, untag, delete) = self.state().plan_removal(name, force)?;
        let mut transaction = Transaction::default();
        for reference in &untag {
            transaction.delete(reference_key(reference), || {
                self.state().references.remove(reference);
            });
        }
        if delete {
            transaction.delete(image_key(id), || {
                self.state().images.remove(&id);
            });
        }
        transaction.commit(&self.store, may_block)?;
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
        let mut keep = BTreeSet::new();
        let mut containers = Vec::new();
        {
            let state = self.state();
            for record in state.images.values() {
                keep.extend([record.stored.id, record.stored.manifest]);
                keep.extend(&record.layers);
                containers.push(record.stored.id);
            }
            for slot in state.containers.values() {
                keep.insert(slot.record.container.image_id);
                keep.extend(&slot.record.layers);
            }
        }
        for id in containers {
            if let Ok(manifest) = self.content.manifest(id) {
                keep.extend(manifest.layers.iter().map(|layer| layer.digest));
            }
        }
        keep.extend(self.steps.content());
        keep
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

    fn view(&self, record: ImageRecord, references: Vec<Reference>) -> Result<Image, EngineError> {
        let (digests, tags) = references.into_iter().partition(|it| it.digest().is_some());
        Ok(Image {
            id: record.stored.id,
            manifest: record.stored.manifest,
            tags,
            digests,
            config: self.content.config(record.stored.id)?,
            size: record.size,
        })
    }
}

impl State {
    /// All names of an image, tags before digests.
    pub(crate) fn references_of(&self, id: Digest) -> Vec<Reference> {
        let names = self.references.iter().filter(|(_, target)| **target == id);
        let mut all: Vec<Reference> = names.map(|(name, _)| name.clone()).collect();
        // Tags first, as Docker lists and untags them.
        all.sort_by_key(|name| name.digest().is_some());
        all
    }

    fn find_image(&self, name: &str) -> Result<&ImageRecord, EngineError> {
        let by_id = |digits: &str| -> Result<Option<&ImageRecord>, EngineError> {
            let hexadecimal = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if digits.is_empty() || !hexadecimal {
                return Ok(None);
            }
            let mut matching = self.images.iter().filter(|(id, _)| id.hex().starts_with(digits));
            match (matching.next(), matching.next()) {
                (found, None) => Ok(found.map(|(_, record)| record)),
                _ => Err(EngineError::invalid(format!(
                    "invalid reference format: {digits} is the start of several image ids"
                ))),
            }
        };
        if let Some(digits) = name.strip_prefix("sha256:") {
            return by_id(digits)?.ok_or_else(|| no_image(name));
        }
        if let Ok(reference) = name.parse::<Reference>() {
            // `name:tag@digest` is found by its digest, as Docker does.
            let key = match reference.digest() {
                Some(digest) => reference.with_digest(digest),
                None => reference,
            };
            let found = self.references.get(&key).and_then(|id| self.images.get(id));
            if let Some(record) = found {
                return Ok(record);
            }
            return by_id(name)?.ok_or_else(|| no_image(&key.familiar()));
        }
        match by_id(name)? {
            Some(record) => Ok(record),
            None if name.len() == 64 => Err(no_image(name)),
            None => Err(EngineError::invalid("invalid reference format")),
        }
    }

    /// What goes when `name` is removed: which names, and whether the image itself.
    fn plan_removal(
        &self,
        name: &str,
        force: bool,
    ) -> Result<(Digest, Vec<Reference>, bool), EngineError> {
        let record = self.find_image(name)?;
        let id = record.stored.id;
        let references = self.references_of(id);
        let tags: Vec<&Reference> = references.iter().filter(|it| it.digest().is_none()).collect();
        let named = name.parse::<Reference>().ok().filter(|name| references.contains(name));
        let users = || {
            self.containers
                .values()
                .map(|slot| &slot.record.container)
                .filter(move |container| container.image_id == id)
        };
        let running = users().find(|it| {
            matches!(it.state.status, Status::Running | Status::Paused | Status::Restarting)
        });
        let short = id.short();
        let Some(named) = named else {
            // By id: all names go, if they are of one repository.
            let repositories: BTreeSet<String> =
                references.iter().map(Reference::familiar_name).collect();
            if let Some(container) = running {
                return Err(EngineError::conflict(format!(
                    "conflict: unable to delete {short} (cannot be forced) - image is being used \
                     by running container {}",
                    container.id.short()
                )));
            }
            if repositories.len() > 1 && !force {
                return Err(EngineError::conflict(format!(
                    "conflict: unable to delete {short} (must be forced) - image is referenced in \
                     multiple repositories"
                )));
            }
            if let Some(container) = users().next()
                && !force
            {
                return Err(EngineError::conflict(format!(
                    "conflict: unable to delete {short} (must be forced) - image is being used by \
                     stopped container {}",
                    container.id.short()
                )));
            }
            return Ok((id, references, true));
        };
        if tags.iter().any(|tag| **tag != named) || (named.digest().is_some() && !tags.is_empty()) {
            // Other names stay; the pinned names of this repository go with its last tag.
            let last_of_repository = named.digest().is_none()
                && !tags.iter().any(|tag| **tag != named && same_repository(tag, &named));
            let untag = references
                .iter()
                .filter(|it| {
                    **it == named
                        || (last_of_repository
                            && it.digest().is_some()
                            && same_repository(it, &named))
                })
                .cloned()
                .collect();
            return Ok((id, untag, false));
        }
        if let Some(container) = users().next() {
            if !force {
                return Err(EngineError::conflict(format!(
                    "conflict: unable to remove repository reference \"{}\" (must force) - \
                     container {} is using its referenced image {short}",
                    name,
                    container.id.short()
                )));
            }
            // Forced: the name goes, the content stays as long as the container.
            return Ok((id, references, running.is_none()));
        }
        Ok((id, references, true))
    }
}

fn same_repository(one: &Reference, other: &Reference) -> bool {
    one.domain() == other.domain() && one.path() == other.path()
}

fn no_image(name: &str) -> EngineError {
    EngineError::not_found(format!("No such image: {name}"))
}

pub(crate) fn image_key(id: Digest) -> String {
    format!("image/{id}")
}

pub(crate) fn reference_key(reference: &Reference) -> String {
    format!("reference/{reference}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Class;
    use crate::state::{Record, Slot};

    fn state_of(references: &[&str]) -> (State, Digest) {
        let id = Digest::of(b"config");
        let mut state = State::default();
        let stored = StoredImage { id, manifest: Digest::of(b"manifest") };
        state.images.insert(id, ImageRecord { stored, layers: vec![], size: 0 });
        for reference in references {
            state.references.insert(reference.parse().unwrap(), id);
        }
        (state, id)
    }

    fn use_image(state: &mut State, id: Digest, status: Status) {
        let mut container = crate::container::tests::container("user");
        container.image_id = id;
        container.state.status = status;
        let record =
            Record { container, layers: vec![], stopped_by_user: false, throw_away: false };
        state.containers.insert(record.container.id, Slot::new(record));
    }

    #[test]
    fn images_are_found_by_every_name_they_have() {
        let (state, id) = state_of(&["nginx", "127.0.0.1:5000/proxy:v1"]);
        for name in [
            "nginx",
            "nginx:latest",
            "docker.io/library/nginx",
            "127.0.0.1:5000/proxy:v1",
            &id.to_string(),
            &id.hex(),
            &id.hex()[..12],
        ] {
            assert_eq!(state.find_image(name).unwrap().stored.id, id, "{name}");
        }
        for (name, message) in [
            ("nope", "No such image: nope:latest"),
            ("a/b:1", "No such image: a/b:1"),
            ("UPPER", "invalid reference format"),
        ] {
            assert_eq!(state.find_image(name).unwrap_err().message, message);
        }
    }

    #[test]
    fn one_of_several_names_is_only_untagged() {
        let digest = Digest::of(b"manifest");
        let (state, id) = state_of(&["a:1", "b:1", &format!("a@{digest}")]);
        let (found, untag, delete) = state.plan_removal("a:1", false).unwrap();
        assert_eq!((found, delete), (id, false));
        let names: Vec<String> = untag.iter().map(Reference::familiar).collect();
        assert_eq!(names, ["a:1".to_owned(), format!("a@{digest}")]);
        let error = state.plan_removal(&id.to_string(), false).unwrap_err();
        assert!(error.message.contains("referenced in multiple repositories"));
        assert!(state.plan_removal(&id.to_string(), true).unwrap().2);
    }

    #[test]
    fn images_of_containers_are_kept_unless_forced() {
        let (mut state, id) = state_of(&["a:1"]);
        use_image(&mut state, id, Status::Exited);
        let error = state.plan_removal("a:1", false).unwrap_err();
        assert_eq!(error.class, Class::Conflict);
        assert!(
            error.message.starts_with(
                "conflict: unable to remove repository reference \"a:1\" (must force) - container"
            ),
            "{error}"
        );
        assert!(state.plan_removal("a:1", true).is_ok());
        let (mut state, id) = state_of(&["a:1"]);
        use_image(&mut state, id, Status::Running);
        let error = state.plan_removal(&id.to_string(), true).unwrap_err();
        assert!(error.message.contains("(cannot be forced) - image is being used by running"));
    }
}
