//! What steps made, by a key over everything that they depend on.

use std::pin::Pin;

use bulkhead_image::Content;
use bulkhead_types::{Digest, Hasher, image};

/// Remembers which layer a step made, by a key over everything that the step depends on.
pub trait Cache: Send + Sync {
    fn find(&self, key: Digest) -> Option<CachedStep>;
    /// `description` is the step's line in the history and `parent` the key of the step below it,
    /// for people who list the cache.
    fn remember<'a>(
        &'a self,
        key: Digest,
        step: CachedStep,
        description: String,
        parent: Option<Digest>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}

/// What a step came to.
#[derive(Debug, Clone)]
pub struct CachedStep {
    /// `None`: the step changed no file.
    pub layer: Option<(image::Descriptor, Digest)>,
    /// When the step was done (RFC 3339): a build that is cached as a whole gives the same image.
    pub created: String,
}

impl CachedStep {
    /// Whether the layer is still on this machine, as an archive and unpacked.
    pub(crate) fn is_whole(&self, content: &Content) -> bool {
        self.layer.as_ref().is_none_or(|(descriptor, diff_id)| {
            content.contains(descriptor.digest) && content.layer(*diff_id).is_ok()
        })
    }
}

/// Hashes `parts` so that no two lists of parts give one key.
pub(crate) fn key<'a>(parts: impl IntoIterator<Item = &'a str>) -> Digest {
    let mut hasher = Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finish()
}
