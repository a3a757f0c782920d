//! Speaks the OCI distribution protocol to registries.
#![allow(clippy::todo, unused_variables)]

use bulkhead_spec::image::Descriptor;
use bulkhead_spec::{Digest, Reference};

use crate::{Content, ImageError, StoredImage};

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
