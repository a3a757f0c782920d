//! `docker load`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use bulkhead_archive::{Compression, CopyError, Kind, Limits, Reader, copy};
use bulkhead_engine::ImageAction;
use bulkhead_image::{Content, ImageError, StoredImage};
use bulkhead_types::image::{
    Descriptor, ImageConfig, Index, Manifest, OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD, OCI_MANIFEST, Platform,
};
use bulkhead_types::{Digest, Reference};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{ArchiveEntry, NAME, TAG};
use crate::Api;
use crate::bodies::upload;
use crate::error::{Answer, ApiError};
use crate::lines;

/// `POST /images/load`
pub(crate) async fn load(api: Api, request: Request) -> Answer<Response> {
    let body = request.into_body().into_data_stream();
    // Errors are lines from the first on, as in Docker.
    lines::answer_in_band(|lines| async move {
        let (archive, fault) = upload(body)?;
        let _unnamed = api.engine.images().hold_content().await;
        let content = api.engine.content();
        let read = tokio::task::spawn_blocking(move || read(&content, archive));
        let read = read.await.map_err(|panic| ApiError::internal(panic.to_string()))?;
        fault.check("the archive")?;
        for loaded in read? {
            let image = api.engine.add_image(loaded.stored, loaded.names.clone()).await?;
            if loaded.names.is_empty() {
                let text = format!("Loaded image ID: {}\n", image.id);
                lines.send(json!({ "stream": text }));
            }
            api.engine.image_event(image.id, ImageAction::Load, &image.id.to_string());
            for name in &loaded.names {
                let text = format!("Loaded image: {}\n", name.familiar());
                lines.send(json!({ "stream": text }));
            }
        }
        Ok(())
    })
    .await
}

#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) stored: StoredImage,
    pub(super) names: Vec<Reference>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("the archive is not a tar archive, or is damaged: {0}")]
    Damaged(io::Error),
    #[error("{name} in the archive cannot be stored: {cause}")]
    Store { name: String, cause: io::Error },
    #[error("the archive holds no image: neither manifest.json nor index.json is in it")]
    NoImage,
    #[error("the archive is incomplete: {0} is missing")]
    Missing(String),
    #[error("{name} in the archive is malformed: {cause}")]
    Malformed { name: String, cause: serde_json::Error },
    #[error("the archive names an image wrongly: {0}")]
    Name(#[from] bulkhead_types::InvalidReference),
    #[error("the archive has no image for this machine's platform ({0})")]
    Platform(String),
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl From<LoadError> for ApiError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Image(ImageError::Io { .. }) | LoadError::Store { .. } => {
                Self::internal(error.to_string())
            }
            _ => Self::invalid(error.to_string()),
        }
    }
}

/// The members of an archive, each kept as a blob.
#[derive(Debug)]
struct Members {
    content: Arc<Content>,
    files: BTreeMap<PathBuf, Digest>,
    /// Docker's older archives link equal layers.
    links: BTreeMap<PathBuf, PathBuf>,
}

pub(super) fn read(content: &Arc<Content>, stream: impl Read) -> Result<Vec<Loaded>, LoadError> {
    let members = Members::read(content.clone(), stream)?;
    if let Some(digest) = members.find("manifest.json") {
        let entries: Vec<ArchiveEntry> = members.document("manifest.json", digest)?;
        return entries.iter().map(|entry| members.docker_image(entry)).collect();
    }
    let digest = members.find("index.json").ok_or(LoadError::NoImage)?;
    let index: Index = members.document("index.json", digest)?;
    index.manifests.iter().map(|descriptor| members.oci_image(descriptor)).collect()
}

impl Members {
    fn read(content: Arc<Content>, stream: impl Read) -> Result<Self, LoadError> {
        let mut members = Self { content, files: BTreeMap::new(), links: BTreeMap::new() };
        let mut archive = Reader::open(stream, Limits::IMAGES).map_err(LoadError::Damaged)?;
        while let Some(entry) = archive.next_entry().map_err(LoadError::Damaged)? {
            let path = plain(path(&entry.path));
            match &entry.kind {
                Kind::File { .. } => {
                    let name = || path.display().to_string();
                    let mut blob = members.content.writer()?;
                    copy(&mut archive, &mut blob).map_err(|error| match error {
                        CopyError::Read(cause) => LoadError::Damaged(cause),
                        CopyError::Write(cause) => LoadError::Store { name: name(), cause },
                    })?;
                    // A name that is a digest must be that of what it names.
                    let named = path
                        .strip_prefix("blobs/sha256")
                        .ok()
                        .and_then(|hex| format!("sha256:{}", hex.display()).parse::<Digest>().ok());
                    let digest = blob.commit(named)?;
                    members.files.insert(path, digest);
                }
                Kind::Symlink { target } => {
                    let holder = path.parent().unwrap_or(Path::new(""));
                    let target = plain(&holder.join(self::path(target)));
                    members.links.insert(path, target);
                }
                Kind::HardLink { target } => {
                    let target = plain(self::path(target));
                    members.links.insert(path, target);
                }
                _ => {}
            }
        }
        archive.finish().map_err(LoadError::Damaged)?;
        Ok(members)
    }

    fn find(&self, name: &str) -> Option<Digest> {
        let mut path = plain(Path::new(name));
        for _ in 0..8 {
            if let Some(digest) = self.files.get(&path) {
                return Some(*digest);
            }
            path = self.links.get(&path)?.clone();
        }
        None
    }

    fn document<T: DeserializeOwned>(&self, name: &str, digest: Digest) -> Result<T, LoadError> {
        let bytes = self.content.read(digest)?;
        serde_json::from_slice(&bytes)
            .map_err(|cause| LoadError::Malformed { name: name.to_owned(), cause })
    }

    /// One image of `manifest.json`: a configuration, and layers from the lowest.
    fn docker_image(&self, entry: &ArchiveEntry) -> Result<Loaded, LoadError> {
        let missing = |name: &str| LoadError::Missing(name.to_owned());
        let id = self.find(&entry.config).ok_or_else(|| missing(&entry.config))?;
        let mut layers = Vec::new();
        for name in &entry.layers {
            let digest = self.find(name).ok_or_else(|| missing(name))?;
            layers.push(self.layer(digest)?);
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(OCI_MANIFEST.to_owned()),
            config: self.descriptor(OCI_CONFIG, id)?,
            layers,
            annotations: BTreeMap::new(),
        };
        let bytes = serde_json::to_vec(&manifest)
            .map_err(|cause| LoadError::Malformed { name: entry.config.clone(), cause })?;
        let names = entry.repo_tags.iter().flatten().map(|name| name.parse());
        let names = names.collect::<Result<Vec<Reference>, _>>()?;
        Ok(Loaded { stored: self.store(&bytes, &manifest)?, names })
    }

    /// One image of an OCI layout; an index of several platforms gives this machine's.
    fn oci_image(&self, descriptor: &Descriptor) -> Result<Loaded, LoadError> {
        let name = descriptor.annotations.get(NAME).or_else(|| {
            // The specification lets a bare tag stand here, which names nothing.
            descriptor.annotations.get(TAG).filter(|name| name.contains(['/', ':']))
        });
        let names = name.map(|name| name.parse()).transpose()?.into_iter().collect();
        let mut digest = descriptor.digest;
        if descriptor.media_type.contains("index") || descriptor.media_type.contains("list") {
            let index: Index = self.document(&digest.to_string(), digest)?;
            let host = Platform::host();
            let fits = |descriptor: &&Descriptor| {
                descriptor.platform.as_ref().is_some_and(|platform| {
                    (&platform.os, &platform.architecture) == (&host.os, &host.architecture)
                })
            };
            let platform = || LoadError::Platform(format!("{}/{}", host.os, host.architecture));
            digest = index.manifests.iter().find(fits).ok_or_else(platform)?.digest;
        }
        let manifest: Manifest = self.document(&digest.to_string(), digest)?;
        Ok(Loaded { stored: self.store(&self.content.read(digest)?, &manifest)?, names })
    }

    /// Unpacks the layers, and makes the image one of the content's.
    fn store(&self, bytes: &[u8], manifest: &Manifest) -> Result<StoredImage, LoadError> {
        let config: ImageConfig =
            self.document(&manifest.config.digest.to_string(), manifest.config.digest)?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            return Err(ImageError::BadImage(format!(
                "{} layers, but {} diff ids",
                manifest.layers.len(),
                diff_ids.len()
            ))
            .into());
        }
        for (index, (layer, diff_id)) in manifest.layers.iter().zip(diff_ids).enumerate() {
            self.content.unpack(layer, *diff_id, &diff_ids[..index])?;
        }
        Ok(self.content.adopt_image(bytes)?)
    }

    fn descriptor(&self, media_type: &str, digest: Digest) -> Result<Descriptor, LoadError> {
        Ok(Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size: self.content.blob_size(digest)?,
            platform: None,
            annotations: BTreeMap::new(),
        })
    }

    /// A layer as a manifest names it. One whose compression has no media type is stored anew.
    fn layer(&self, digest: Digest) -> Result<Descriptor, LoadError> {
        let mut head = Vec::new();
        let mut start = self.content.blob(digest)?.take(Compression::START as u64);
        let stored = |cause| LoadError::Store { name: digest.to_string(), cause };
        start.read_to_end(&mut head).map_err(stored)?;
        match Compression::of(&head) {
            Compression::Gzip => self.descriptor(OCI_LAYER_GZIP, digest),
            Compression::None => self.descriptor(OCI_LAYER, digest),
            Compression::Zstd => self.descriptor(OCI_LAYER_ZSTD, digest),
            Compression::Bzip2 | Compression::Xz => {
                Ok(self.content.import_layer(&mut self.content.blob(digest)?)?.descriptor)
            }
        }
    }
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

/// A member's name without `.`, `..` and slashes at the start. It is a key and never a path.
pub(super) fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => {
                plain.pop();
            }
            _ => {}
        }
    }
    plain
}
