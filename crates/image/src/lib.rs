//! Image content: blobs by digest, unpacked layers, overlay mounts, and a registry client.
//!
//! Content is named by its digest and committed by rename after fsync, so a half-written file is
//! never reachable. Which names point at which images is the engine's business, not this crate's.
#![forbid(unsafe_code)]
#![allow(clippy::todo, unused_variables)]

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use bulkhead_spec::image::{Descriptor, ImageConfig, Manifest};
use bulkhead_spec::{Digest, IdRange, Reference};

#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("{what}: {cause}")]
    Io { what: String, cause: std::io::Error },
    #[error("content {0} is not here")]
    Missing(Digest),
    #[error("content does not have the digest it was asked by: expected {expected}, found {found}")]
    WrongDigest { expected: Digest, found: Digest },
    #[error("the layer is damaged or hostile: {0}")]
    BadLayer(String),
    #[error("the image is damaged: {0}")]
    BadImage(String),
    /// Worded as Docker does: `manifest for NAME not found`, `pull access denied for …`.
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Denied(String),
    #[error("registry {registry}: {message}")]
    Registry { registry: String, message: String },
}

/// The directory of blobs (`blobs/sha256/HEX`) and unpacked layers (`layers/HEX`, named by diff id).
#[derive(Debug)]
pub struct Content {}

impl Content {
    pub fn open(directory: &Path) -> Result<Self, ImageError> {
        todo!()
    }

    pub fn contains(&self, digest: Digest) -> bool {
        todo!()
    }

    pub fn blob(&self, digest: Digest) -> Result<File, ImageError> {
        todo!()
    }

    pub fn blob_size(&self, digest: Digest) -> Result<u64, ImageError> {
        todo!()
    }

    /// Reads a small blob (at most 4 MiB: a manifest or a configuration).
    pub fn read(&self, digest: Digest) -> Result<Vec<u8>, ImageError> {
        todo!()
    }

    pub fn write(&self, bytes: &[u8]) -> Result<Digest, ImageError> {
        todo!()
    }

    /// A blob that is written in pieces and hashed as it goes.
    pub fn writer(&self) -> Result<BlobWriter, ImageError> {
        todo!()
    }

    pub fn delete_blob(&self, digest: Digest) -> Result<(), ImageError> {
        todo!()
    }

    /// Unpacks a layer blob (tar, gzip or zstd) into `layers/DIFF_ID` unless it is there; checks
    /// the diff id. `parents` (lowest first) are where a hard link may point.
    pub fn unpack(
        &self,
        blob: &Descriptor,
        diff_id: Digest,
        parents: &[Digest],
    ) -> Result<(), ImageError> {
        todo!()
    }

    pub fn layer(&self, diff_id: Digest) -> Result<OwnedFd, ImageError> {
        todo!()
    }

    pub fn layer_size(&self, diff_id: Digest) -> Result<u64, ImageError> {
        todo!()
    }

    pub fn delete_layer(&self, diff_id: Digest) -> Result<(), ImageError> {
        todo!()
    }

    /// Removes temporary files that a crash left, and everything that `keep` does not name.
    pub fn sweep(&self, keep: &dyn Fn(Digest) -> bool) -> Result<u64, ImageError> {
        todo!()
    }

    /// Turns the upper directory of an overlay into a layer: gzip blob, unpacked copy and diff id.
    /// Owners are translated from `range` to what the container saw. `None`: nothing was changed.
    pub fn commit_upper(
        &self,
        upper: BorrowedFd<'_>,
        range: Option<IdRange>,
    ) -> Result<Option<Layer>, ImageError> {
        todo!()
    }

    /// Stores a tar stream (plain, gzip, zstd) as a layer.
    pub fn import_layer(&self, tar: &mut dyn Read) -> Result<Layer, ImageError> {
        todo!()
    }

    pub fn manifest(&self, image: Digest) -> Result<Manifest, ImageError> {
        todo!()
    }

    /// The configuration of the image whose id (digest of the configuration) this is.
    pub fn config(&self, image: Digest) -> Result<ImageConfig, ImageError> {
        todo!()
    }

    /// Stores configuration and manifest of a new image.
    pub fn write_image(
        &self,
        config: &ImageConfig,
        layers: &[Descriptor],
    ) -> Result<StoredImage, ImageError> {
        todo!()
    }
}

/// An image that is complete on this machine.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StoredImage {
    /// Digest of the configuration: Docker's image id.
    pub id: Digest,
    /// Digest of the manifest, by which registries know it.
    pub manifest: Digest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    pub descriptor: Descriptor,
    pub diff_id: Digest,
}

#[derive(Debug)]
pub struct BlobWriter {}

impl std::io::Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        todo!()
    }

    fn flush(&mut self) -> std::io::Result<()> {
        todo!()
    }
}

impl BlobWriter {
    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        todo!()
    }

    /// Makes the blob visible under its digest, which must be `expected` if that is given.
    pub fn commit(self, expected: Option<Digest>) -> Result<Digest, ImageError> {
        todo!()
    }
}

/// Mounts an overlay of `layers` (lowest first) and `upper`, detached.
///
/// `mapping` is a user namespace: the layers are id-mapped by it, so files keep their owners on
/// disk and inside; what is written goes to `upper` with the host ids of the range. `None`: no
/// user namespace. A kernel without id-mapped overlay layers (before 5.19) is `Unsupported`.
pub fn mount_overlay(
    layers: &[OwnedFd],
    upper: BorrowedFd<'_>,
    work: BorrowedFd<'_>,
    mapping: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, ImageError> {
    todo!()
}

/// User and password for one registry.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    pub identitytoken: String,
}

/// What a transfer reports while it goes, in the words of Docker's progress lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Short layer digest; empty for a line about the whole image.
    pub id: String,
    /// `Pulling fs layer`, `Downloading`, `Extracting`, `Pull complete`, `Pushed`, …
    pub status: String,
    pub current: Option<u64>,
    pub total: Option<u64>,
}

/// Speaks the OCI distribution protocol to registries.
#[derive(Debug)]
pub struct RegistryClient {}

#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct RegistryOptions {
    /// `host[:port]` reached by plain HTTP or without checking the certificate, besides 127.0.0.0/8.
    pub insecure_registries: Vec<String>,
    /// Base addresses tried before the default registry.
    pub registry_mirrors: Vec<String>,
}

impl RegistryClient {
    pub fn new(options: RegistryOptions) -> Self {
        todo!()
    }

    /// Pulls the image for this machine's platform, layers in parallel, and unpacks it.
    pub async fn pull(
        &self,
        content: std::sync::Arc<Content>,
        reference: &Reference,
        credentials: Option<&Credentials>,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<StoredImage, ImageError> {
        todo!()
    }

    /// Pushes the image under `reference`; returns the manifest's digest and size.
    pub async fn push(
        &self,
        content: std::sync::Arc<Content>,
        image: &StoredImage,
        reference: &Reference,
        credentials: Option<&Credentials>,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(Digest, u64), ImageError> {
        todo!()
    }

    /// Checks that the registry accepts the credentials (`docker login`).
    pub async fn log_in(
        &self,
        registry: &str,
        credentials: &Credentials,
    ) -> Result<(), ImageError> {
        todo!()
    }

    /// The manifest's descriptor without pulling (`GET /distribution/NAME/json`).
    pub async fn resolve(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
    ) -> Result<Descriptor, ImageError> {
        todo!()
    }
}
