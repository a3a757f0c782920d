//! What is known of images: their records and names, in the store and in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bulkhead_image::{Content, StoredImage};
use bulkhead_store::load_all;
use bulkhead_types::image::ImageConfig;
use bulkhead_types::{Digest, Id, Reference};
use serde::{Deserialize, Serialize};

use crate::EngineError;
use crate::blocking::Blocking;
use crate::records::Records;
use crate::transaction::Transaction;

/// What the store keeps of an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    pub stored: StoredImage,
    pub layers: Vec<Digest>,
    /// Bytes of the unpacked layers.
    pub size: u64,
    /// A copy of what is in the content under the image's id, so that lists read no files. `None`:
    /// recorded by an earlier version, and its content is gone.
    #[serde(default)]
    pub config: Option<ImageConfig>,
    /// The image whose container was committed to make it.
    #[serde(default)]
    pub parent: Option<Digest>,
    /// What was missing of its content when the engine opened.
    #[serde(skip)]
    pub damage: Option<String>,
}

/// A container that was made of an image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ImageUser {
    pub container: Id,
    pub image: Digest,
    /// Running, paused, or about to be restarted by its policy.
    pub runs: bool,
}

/// The images, under `image/` and `reference/` in the store. Their lock is taken last: nothing else
/// is locked under it.
#[derive(Debug, Default)]
pub(crate) struct ImageRecords {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// By image id.
    images: BTreeMap<Digest, ImageRecord>,
    /// `repository:tag` and `repository@digest` → image id.
    references: BTreeMap<Reference, Digest>,
}

impl ImageRecords {
    pub(crate) fn recover(
        &self,
        may_block: &Blocking,
        records: &Records,
        content: &Content,
    ) -> Result<(), EngineError> {
        let found: Vec<(String, ImageRecord)> = load_all(records.store(), "image/")?;
        let references: Vec<(String, Digest)> = load_all(records.store(), "reference/")?;
        let mut transaction = Transaction::default();
        for (key, mut record) in found {
            record.damage = damage(&record, content);
            if let Some(damage) = &record.damage {
                tracing::warn!(
                    image = record.stored.id.short(),
                    "{damage}; pull or build it again"
                );
            }
            // Recorded by an earlier version, which read it each time.
            if record.config.is_none()
                && let Ok(config) = content.config(record.stored.id)
            {
                record.config = Some(config);
                transaction.put(key, &record, || {});
            }
            self.known().images.insert(record.stored.id, record);
        }
        for (key, id) in references {
            match key.trim_start_matches("reference/").parse() {
                Ok(reference) => drop(self.known().references.insert(reference, id)),
                Err(error) => tracing::warn!(%error, "an image name in the store"),
            }
        }
        if let Err(error) = transaction.commit(records, may_block) {
            // They are read again by the next engine.
            tracing::warn!(%error, "record the configurations of images");
        }
        Ok(())
    }

    pub(crate) fn count(&self) -> usize {
        self.known().images.len()
    }

    pub(crate) fn all(&self) -> Vec<ImageRecord> {
        self.known().images.values().cloned().collect()
    }

    pub(crate) fn get(&self, id: Digest) -> Option<ImageRecord> {
        self.known().images.get(&id).cloned()
    }

    /// The image that has exactly this name.
    pub(crate) fn named(&self, reference: &Reference) -> Option<ImageRecord> {
        let known = self.known();
        known.references.get(reference).and_then(|id| known.images.get(id)).cloned()
    }

    /// Finds an image by reference, id (`sha256:…` or hexadecimal digits) or start of an id.
    pub(crate) fn find(&self, name: &str) -> Result<ImageRecord, EngineError> {
        self.known().find(name).cloned()
    }

    pub(crate) fn references_of(&self, id: Digest) -> Vec<Reference> {
        self.known().references_of(id)
    }

    /// What goes when `name` is removed: which names, and whether the image itself.
    pub(crate) fn plan_removal(
        &self,
        name: &str,
        force: bool,
        users: &[ImageUser],
    ) -> Result<(Digest, Vec<Reference>, bool), EngineError> {
        self.known().plan_removal(name, force, users)
    }

    /// What the images stand on: configurations, manifests, blobs and diff ids.
    pub(crate) fn content(&self, content: &Content) -> BTreeSet<Digest> {
        let mut keep = BTreeSet::new();
        for record in self.all() {
            keep.extend([record.stored.id, record.stored.manifest]);
            keep.extend(&record.layers);
            if let Ok(manifest) = content.manifest(record.stored.id) {
                keep.extend(manifest.layers.iter().map(|layer| layer.digest));
            }
        }
        keep
    }

    pub(crate) fn put<'a>(&'a self, transaction: &mut Transaction<'a>, record: &ImageRecord) {
        let new = record.clone();
        transaction.put(image_key(record.stored.id), record, move || {
            self.known().images.insert(new.stored.id, new);
        });
    }

    pub(crate) fn delete<'a>(&'a self, transaction: &mut Transaction<'a>, id: Digest) {
        transaction.delete(image_key(id), move || {
            self.known().images.remove(&id);
        });
    }

    pub(crate) fn put_reference<'a>(
        &'a self,
        transaction: &mut Transaction<'a>,
        reference: Reference,
        id: Digest,
    ) {
        transaction.put(reference_key(&reference), &id, move || {
            self.known().references.insert(reference, id);
        });
    }

    pub(crate) fn delete_reference<'a>(
        &'a self,
        transaction: &mut Transaction<'a>,
        reference: Reference,
    ) {
        transaction.delete(reference_key(&reference), move || {
            self.known().references.remove(&reference);
        });
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is missing of an image's content, if anything is.
fn damage(record: &ImageRecord, content: &Content) -> Option<String> {
    let StoredImage { id, manifest } = record.stored;
    if let Some(blob) = [id, manifest].into_iter().find(|blob| !content.contains(*blob)) {
        return Some(format!("the image's content {blob} is missing"));
    }
    let layer = record.layers.iter().find(|layer| content.layer(**layer).is_err())?;
    Some(format!("the image's layer {layer} is missing"))
}

impl Known {
    /// All names of an image, tags before digests.
    fn references_of(&self, id: Digest) -> Vec<Reference> {
        let names = self.references.iter().filter(|(_, target)| **target == id);
        let mut all: Vec<Reference> = names.map(|(name, _)| name.clone()).collect();
        // Tags first, as Docker lists and untags them.
        all.sort_by_key(|name| name.digest().is_some());
        all
    }

    fn find(&self, name: &str) -> Result<&ImageRecord, EngineError> {
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
            return by_id(digits)?.ok_or_else(|| EngineError::no_image(name));
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
            return by_id(name)?.ok_or_else(|| EngineError::no_image(&key.familiar()));
        }
        match by_id(name)? {
            Some(record) => Ok(record),
            None if name.len() == 64 => Err(EngineError::no_image(name)),
            None => Err(EngineError::invalid("invalid reference format")),
        }
    }

    /// What goes when `name` is removed: which names, and whether the image itself.
    fn plan_removal(
        &self,
        name: &str,
        force: bool,
        users: &[ImageUser],
    ) -> Result<(Digest, Vec<Reference>, bool), EngineError> {
        let record = self.find(name)?;
        let id = record.stored.id;
        let references = self.references_of(id);
        let tags: Vec<&Reference> = references.iter().filter(|it| it.digest().is_none()).collect();
        let named = name.parse::<Reference>().ok().filter(|name| references.contains(name));
        let users = || users.iter().filter(move |user| user.image == id);
        let running = users().find(|user| user.runs);
        let short = id.short();
        let Some(named) = named else {
            // By id: all names go, if they are of one repository.
            let repositories: BTreeSet<String> =
                references.iter().map(Reference::familiar_name).collect();
            if let Some(user) = running {
                return Err(EngineError::conflict(format!(
                    "conflict: unable to delete {short} (cannot be forced) - image is being used \
                     by running container {}",
                    user.container.short()
                )));
            }
            if repositories.len() > 1 && !force {
                return Err(EngineError::conflict(format!(
                    "conflict: unable to delete {short} (must be forced) - image is referenced in \
                     multiple repositories"
                )));
            }
            if let Some(user) = users().next()
                && !force
            {
                return Err(EngineError::conflict(format!(
                    "conflict: unable to delete {short} (must be forced) - image is being used by \
                     stopped container {}",
                    user.container.short()
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
        if let Some(user) = users().next() {
            if !force {
                return Err(EngineError::conflict(format!(
                    "conflict: unable to remove repository reference \"{}\" (must force) - \
                     container {} is using its referenced image {short}",
                    name,
                    user.container.short()
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

fn image_key(id: Digest) -> String {
    format!("image/{id}")
}

fn reference_key(reference: &Reference) -> String {
    format!("reference/{reference}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Class;

    fn images_of(references: &[&str]) -> (Known, Digest) {
        let id = Digest::of(b"config");
        let mut known = Known::default();
        let stored = StoredImage { id, manifest: Digest::of(b"manifest") };
        known.images.insert(
            id,
            ImageRecord {
                stored,
                layers: vec![],
                size: 0,
                config: None,
                parent: None,
                damage: None,
            },
        );
        for reference in references {
            known.references.insert(reference.parse().unwrap(), id);
        }
        (known, id)
    }

    fn user(image: Digest, runs: bool) -> ImageUser {
        ImageUser { container: Id::random(), image, runs }
    }

    #[test]
    fn images_are_found_by_every_name_they_have() {
        let (known, id) = images_of(&["nginx", "127.0.0.1:5000/proxy:v1"]);
        for name in [
            "nginx",
            "nginx:latest",
            "docker.io/library/nginx",
            "127.0.0.1:5000/proxy:v1",
            &id.to_string(),
            &id.hex(),
            &id.hex()[..12],
        ] {
            assert_eq!(known.find(name).unwrap().stored.id, id, "{name}");
        }
        for (name, message) in [
            ("nope", "No such image: nope:latest"),
            ("a/b:1", "No such image: a/b:1"),
            ("UPPER", "invalid reference format"),
        ] {
            assert_eq!(known.find(name).unwrap_err().message, message);
        }
    }

    #[test]
    fn one_of_several_names_is_only_untagged() {
        let digest = Digest::of(b"manifest");
        let (known, id) = images_of(&["a:1", "b:1", &format!("a@{digest}")]);
        let (found, untag, delete) = known.plan_removal("a:1", false, &[]).unwrap();
        assert_eq!((found, delete), (id, false));
        let names: Vec<String> = untag.iter().map(Reference::familiar).collect();
        assert_eq!(names, ["a:1".to_owned(), format!("a@{digest}")]);
        let error = known.plan_removal(&id.to_string(), false, &[]).unwrap_err();
        assert!(error.message.contains("referenced in multiple repositories"));
        assert!(known.plan_removal(&id.to_string(), true, &[]).unwrap().2);
    }

    #[test]
    fn images_of_containers_are_kept_unless_forced() {
        let (known, id) = images_of(&["a:1"]);
        let users = [user(id, false)];
        let error = known.plan_removal("a:1", false, &users).unwrap_err();
        assert_eq!(error.class, Class::Conflict);
        assert!(
            error.message.starts_with(
                "conflict: unable to remove repository reference \"a:1\" (must force) - container"
            ),
            "{error}"
        );
        assert!(known.plan_removal("a:1", true, &users).is_ok());
        let (known, id) = images_of(&["a:1"]);
        let users = [user(id, true)];
        let error = known.plan_removal(&id.to_string(), true, &users).unwrap_err();
        assert!(error.message.contains("(cannot be forced) - image is being used by running"));
    }

    #[test]
    fn records_of_an_earlier_version_still_open() {
        let id = Digest::of(b"config");
        let text =
            format!(r#"{{"stored":{{"id":"{id}","manifest":"{id}"}},"layers":["{id}"],"size":7}}"#);
        let record: ImageRecord = serde_json::from_str(&text).unwrap();
        assert_eq!((record.size, record.config, record.layers), (7, None, vec![id]));
    }
}
