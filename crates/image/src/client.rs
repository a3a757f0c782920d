//! Speaks the OCI distribution protocol to registries.
//!
//! What a registry says about where to go next is heeded within limits: no credentials to another
//! site, no step from TLS to plain text, nothing larger than was announced.
mod challenge;
mod connection;
mod documents;
mod download;
mod origin;
mod pull;
mod push;
mod session;
mod tags;

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::sync::Arc;

use bulkhead_types::image::{Descriptor, Platform};
use bulkhead_types::{Digest, Reference};

use crate::{Content, ImageError, StoredImage};
use connection::Connections;
pub use download::{Download, DownloadError, Downloader};
use origin::Origin;
use session::{Access, Session};

/// User and password for one registry.
#[derive(Clone, Default, serde::Deserialize)]
#[serde(default)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    pub identitytoken: String,
}

impl Credentials {
    fn is_empty(&self) -> bool {
        self.identitytoken.is_empty() && self.username.is_empty()
    }
}

/// Without the secrets, which have no place in logs.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What a transfer reports while it goes, in the words of Docker's progress lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Short layer digest.
    pub id: String,
    /// `Pulling fs layer`, `Downloading`, `Extracting`, `Pull complete`, `Pushed`, …
    pub status: String,
    pub current: Option<u64>,
    pub total: Option<u64>,
}

impl Progress {
    fn line(id: impl Into<String>, status: impl Into<String>) -> Self {
        Self { id: id.into(), status: status.into(), current: None, total: None }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryOptions {
    /// `host[:port]` reached by plain HTTP or without checking the certificate, besides 127.0.0.0/8.
    pub insecure_registries: Vec<String>,
    /// Tried before the default registry.
    pub registry_mirrors: Vec<Mirror>,
    /// Layers of one image that are fetched at once.
    pub max_downloads: NonZeroUsize,
    /// Layers of one image that are sent at once.
    pub max_uploads: NonZeroUsize,
    /// How often a layer is asked for whose connection breaks.
    pub max_attempts: NonZeroUsize,
}

impl Default for RegistryOptions {
    /// Docker's.
    fn default() -> Self {
        let number = |number| NonZeroUsize::new(number).expect("the numbers below are not 0");
        Self {
            insecure_registries: Vec::new(),
            registry_mirrors: Vec::new(),
            max_downloads: number(3),
            max_uploads: number(5),
            max_attempts: number(5),
        }
    }
}

/// Where the default registry's images may be had instead: `http://HOST[:PORT]`, or the same by
/// https.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror(Origin);

impl FromStr for Mirror {
    type Err = String;

    /// # Errors
    /// A sentence, where the text has no scheme, another one, or a path (moby: registry/config.go,
    /// `ValidateMirror`).
    fn from_str(text: &str) -> Result<Self, String> {
        let origin = Origin::parse(text).ok_or_else(|| {
            format!("{text:?} is not the address of a mirror, such as https://mirror.example:5000")
        })?;
        match text.parse::<http::Uri>().is_ok_and(|uri| uri.path() == "/" && uri.query().is_none())
        {
            true => Ok(Self(origin)),
            false => Err(format!("{text:?} has a path; name a mirror by its host, as {origin}")),
        }
    }
}

impl fmt::Display for Mirror {
    /// As Docker shows it, with a slash at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.0)
    }
}

/// Speaks the OCI distribution protocol to registries.
#[derive(Debug)]
pub struct RegistryClient {
    options: RegistryOptions,
    connections: Arc<Connections>,
}

impl RegistryClient {
    pub fn new(options: RegistryOptions) -> Self {
        let connections = Arc::new(Connections::new(options.insecure_registries.clone()));
        Self { options, connections }
    }

    pub fn options(&self) -> &RegistryOptions {
        &self.options
    }

    /// Pulls the image for this machine's platform, layers in parallel, and unpacks it.
    ///
    /// Reports Docker's lines about layers. What arrived before an error stays, verified, for the
    /// next try.
    pub async fn pull(
        &self,
        content: Arc<Content>,
        reference: &Reference,
        credentials: Option<&Credentials>,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<StoredImage, ImageError> {
        let limits = pull::Limits {
            parallel: self.options.max_downloads.get(),
            attempts: self.options.max_attempts.get(),
        };
        for session in self.mirrors(reference) {
            match pull::pull(&session, &content, reference, limits, progress).await {
                Ok(image) => return Ok(image),
                Err(error) => tracing::info!("mirror {}: {error}", session.registry()),
            }
        }
        let session = self.session(reference, credentials, Access::Pull);
        pull::pull(&session, &content, reference, limits, progress).await
    }

    /// Pushes the image under `reference`; returns the manifest's digest and size.
    pub async fn push(
        &self,
        content: Arc<Content>,
        image: &StoredImage,
        reference: &Reference,
        credentials: Option<&Credentials>,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(Digest, u64), ImageError> {
        let session = self.session(reference, credentials, Access::Push);
        let parallel = self.options.max_uploads.get();
        push::push(&session, &content, image, reference, parallel, progress).await
    }

    /// Checks that the registry accepts the credentials (`docker login`), or lets in whoever has none.
    pub async fn log_in(
        &self,
        registry: &str,
        credentials: Option<&Credentials>,
    ) -> Result<(), ImageError> {
        let host = registry
            .trim_start_matches("https://")
            .trim_start_matches("http://")
            .split('/')
            .next()
            .unwrap_or_default();
        // What the docker CLI calls the default registry: https://index.docker.io/v1/
        let domain = match host {
            "" | "index.docker.io" | "registry-1.docker.io" => bulkhead_types::DEFAULT_DOMAIN,
            other => other,
        };
        let session = Session::new(
            Arc::clone(&self.connections),
            Origin::of_registry(domain),
            domain,
            String::new(),
            credentials.cloned(),
            Access::LogIn,
        );
        session.log_in().await
    }

    /// The manifest's descriptor without pulling (`GET /distribution/NAME/json`).
    pub async fn resolve(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
    ) -> Result<Descriptor, ImageError> {
        let version = reference.version();
        for session in self.mirrors(reference) {
            match documents::fetch(&session, reference, &version).await {
                Ok(document) => return Ok(document.descriptor),
                Err(error) => tracing::info!("mirror {}: {error}", session.registry()),
            }
        }
        let session = self.session(reference, credentials, Access::Pull);
        Ok(documents::fetch(&session, reference, &version).await?.descriptor)
    }

    /// As [`Self::resolve`], and for which platforms there is an image: those that an index names, or
    /// the one that an image's configuration does.
    pub async fn describe(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
    ) -> Result<(Descriptor, Vec<Platform>), ImageError> {
        let version = reference.version();
        for session in self.mirrors(reference) {
            match documents::describe(&session, reference, &version).await {
                Ok(described) => return Ok(described),
                Err(error) => tracing::info!("mirror {}: {error}", session.registry()),
            }
        }
        let session = self.session(reference, credentials, Access::Pull);
        documents::describe(&session, reference, &version).await
    }

    /// Every tag of the repository that `reference` is of, sorted; its own does not matter.
    pub async fn tags(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
    ) -> Result<Vec<String>, ImageError> {
        for session in self.mirrors(reference) {
            match tags::list(&session).await {
                Ok(tags) => return Ok(tags),
                Err(error) => tracing::info!("mirror {}: {error}", session.registry()),
            }
        }
        tags::list(&self.session(reference, credentials, Access::Pull)).await
    }

    fn session(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
        access: Access,
    ) -> Session {
        Session::new(
            Arc::clone(&self.connections),
            Origin::of_registry(reference.domain()),
            reference.domain(),
            reference.path().to_owned(),
            credentials.filter(|credentials| !credentials.is_empty()).cloned(),
            access,
        )
    }

    /// Mirrors are asked for the default registry's images only, and without credentials.
    fn mirrors(&self, reference: &Reference) -> Vec<Session> {
        if reference.domain() != bulkhead_types::DEFAULT_DOMAIN {
            return Vec::new();
        }
        self.options
            .registry_mirrors
            .iter()
            .map(|Mirror(origin)| {
                let name = origin.to_string();
                let path = reference.path().to_owned();
                let connections = Arc::clone(&self.connections);
                Session::new(connections, origin.clone(), &name, path, None, Access::Pull)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
