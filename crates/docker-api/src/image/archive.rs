//! `docker save` and `docker load`: images as one tar archive.
//!
//! What is written is an OCI image layout with Docker's `manifest.json` beside it, as Docker 25 and
//! later do. What is read is either of the two, so archives of podman, skopeo and buildx as well,
//! and Docker's older form with `ID/layer.tar`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bulkhead_engine::Image;
use bulkhead_image::{Content, ImageError, StoredImage};
use bulkhead_types::image::{
    Descriptor, ImageConfig, Index, Manifest, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_LAYER_GZIP,
    OCI_LAYER_ZSTD, OCI_MANIFEST, Platform,
};
use bulkhead_types::{Digest, Reference};
use http::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tar::{Archive, Builder, EntryType, Header};
use tokio_util::io::ReaderStream;

use super::transfer::feed;
use crate::Api;
use crate::error::{Answer, ApiError};
use crate::lines;

/// The annotation that carries an image's name in an index, as containerd writes it.
const NAME: &str = "io.containerd.image.name";
/// The one that the image specification has; often only a tag.
const TAG: &str = "org.opencontainers.image.ref.name";

/// One image of `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ArchiveEntry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// `GET /images/get?names=…` and `GET /images/{name}/get`
pub(crate) fn save(api: Api, names: &[String]) -> Answer<Response> {
    let mut images: Vec<(Image, Vec<Reference>)> = Vec::new();
    for name in names {
        let image = api.engine.image(name)?;
        // An image asked for by its id has no name in the archive.
        let named = name.parse::<Reference>().ok();
        let tag = named.filter(|reference| image.tags.contains(reference));
        match images.iter_mut().find(|(other, _)| other.id == image.id) {
            Some((_, tags)) => tags.extend(tag),
            None => images.push((image, tag.into_iter().collect())),
        }
    }
    if images.is_empty() {
        return Err(ApiError::invalid("no image was named"));
    }
    let content = api.engine.content();
    let (reading, writing) = std::os::unix::net::UnixStream::pair()
        .and_then(|(reading, writing)| {
            reading.set_nonblocking(true)?;
            Ok((tokio::net::UnixStream::from_std(reading)?, writing))
        })
        .map_err(|error| ApiError::internal(format!("socketpair: {error}")))?;
    tokio::task::spawn_blocking(move || {
        // An archive that ends early is how the client learns of it: the status is long sent.
        if let Err(error) = write(&content, &images, io::BufWriter::new(writing)) {
            tracing::warn!("an image was not saved to its end: {error}");
        }
    });
    let body = Body::from_stream(ReaderStream::new(reading));
    Ok(([(CONTENT_TYPE, "application/x-tar")], body).into_response())
}

fn write(
    content: &Content,
    images: &[(Image, Vec<Reference>)],
    to: impl Write,
) -> Result<(), ImageError> {
    let io_error = |cause| ImageError::Io { what: "write the archive".to_owned(), cause };
    let blob = |digest: Digest| format!("blobs/sha256/{}", digest.hex());
    let mut archive = Builder::new(to);
    let mut written = BTreeSet::new();
    let mut entries = Vec::new();
    let mut index = Vec::new();
    for (image, tags) in images {
        let manifest = content.manifest(image.id)?;
        let digests = manifest.layers.iter().map(|layer| layer.digest);
        for digest in digests.chain([image.id, image.manifest]) {
            if written.insert(digest) {
                let mut header = header(content.blob_size(digest)?);
                let file = content.blob(digest)?;
                archive.append_data(&mut header, blob(digest), file).map_err(io_error)?;
            }
        }
        entries.push(ArchiveEntry {
            config: blob(image.id),
            repo_tags: (!tags.is_empty()).then(|| tags.iter().map(Reference::familiar).collect()),
            layers: manifest.layers.iter().map(|layer| blob(layer.digest)).collect(),
        });
        let names = if tags.is_empty() { vec![None] } else { tags.iter().map(Some).collect() };
        for name in names {
            let mut annotations = BTreeMap::new();
            if let Some(name) = name {
                annotations.insert(NAME.to_owned(), name.to_string());
                annotations.insert(TAG.to_owned(), name.version());
            }
            index.push(Descriptor {
                media_type: manifest.media_type.clone().unwrap_or_else(|| OCI_MANIFEST.to_owned()),
                digest: image.manifest,
                size: content.blob_size(image.manifest)?,
                platform: None,
                annotations,
            });
        }
    }
    let index =
        Index { schema_version: 2, media_type: Some(OCI_INDEX.to_owned()), manifests: index };
    for (name, document) in [
        ("oci-layout", json!({ "imageLayoutVersion": "1.0.0" }).to_string()),
        ("index.json", json!(index).to_string()),
        ("manifest.json", json!(entries).to_string()),
    ] {
        let mut header = header(document.len() as u64);
        archive.append_data(&mut header, name, document.as_bytes()).map_err(io_error)?;
    }
    archive.into_inner().and_then(|mut to| to.flush()).map_err(io_error)
}

fn header(size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(EntryType::Regular);
    header
}

/// `POST /images/load`
pub(crate) async fn load(api: Api, request: Request) -> Answer<Response> {
    let body = request.into_body().into_data_stream();
    // Errors are lines from the first on, as in Docker.
    lines::answer_in_band(|lines| async move {
        let (archive, feed) = feed(body)?;
        let _unnamed = api.engine.hold_content().await;
        let content = api.engine.content();
        let read = tokio::task::spawn_blocking(move || {
            let stream = std::os::unix::net::UnixStream::from(archive);
            read(&content, stream)
        });
        let read = read.await.map_err(|panic| ApiError::internal(panic.to_string()))??;
        feed.await.map_err(|panic| ApiError::internal(panic.to_string()))?.map_err(|error| {
            ApiError::invalid(format!("the archive could not be received: {error}"))
        })?;
        for loaded in read {
            let image = api.engine.add_image(loaded.stored, loaded.names.clone()).await?;
            if loaded.names.is_empty() {
                let text = format!("Loaded image ID: {}\n", image.id);
                lines.send(json!({ "stream": text }));
            }
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
struct Loaded {
    stored: StoredImage,
    names: Vec<Reference>,
}

#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("the archive is not a tar archive, or is cut off: {0}")]
    Damaged(io::Error),
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
            LoadError::Image(ImageError::Io { .. }) => Self::internal(error.to_string()),
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

fn read(content: &Arc<Content>, stream: impl Read) -> Result<Vec<Loaded>, LoadError> {
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
        let stream: Box<dyn Read> = {
            let mut stream = io::BufReader::with_capacity(1 << 16, stream);
            let head = io::BufRead::fill_buf(&mut stream).map_err(LoadError::Damaged)?;
            match head {
                [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(stream)),
                _ => Box::new(stream),
            }
        };
        let mut archive = Archive::new(stream);
        for entry in archive.entries().map_err(LoadError::Damaged)? {
            let mut entry = entry.map_err(LoadError::Damaged)?;
            let path = plain(&entry.path().map_err(LoadError::Damaged)?);
            match entry.header().entry_type() {
                EntryType::Regular | EntryType::Continuous => {
                    let mut blob = members.content.writer()?;
                    io::copy(&mut entry, &mut blob).map_err(LoadError::Damaged)?;
                    // A name that is a digest must be that of what it names.
                    let named = path
                        .strip_prefix("blobs/sha256")
                        .ok()
                        .and_then(|hex| format!("sha256:{}", hex.display()).parse::<Digest>().ok());
                    let digest = blob.commit(named)?;
                    members.files.insert(path, digest);
                }
                EntryType::Symlink | EntryType::Link => {
                    let target = entry.link_name().map_err(LoadError::Damaged)?.unwrap_or_default();
                    let target = match entry.header().entry_type() {
                        EntryType::Symlink => path.parent().unwrap_or(Path::new("")).join(target),
                        _ => target.into_owned(),
                    };
                    members.links.insert(path, plain(&target));
                }
                _ => {}
            }
        }
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(LoadError::Damaged)?;
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
            layers.push(self.descriptor(self.layer_type(digest)?, digest)?);
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

    fn layer_type(&self, digest: Digest) -> Result<&'static str, LoadError> {
        let mut head = Vec::new();
        let blob = self.content.blob(digest)?;
        blob.take(4).read_to_end(&mut head).map_err(LoadError::Damaged)?;
        Ok(match head[..] {
            [0x1f, 0x8b, ..] => OCI_LAYER_GZIP,
            [0x28, 0xb5, 0x2f, 0xfd] => OCI_LAYER_ZSTD,
            _ => OCI_LAYER,
        })
    }
}

/// A member's name without `.`, `..` and slashes at the start. It is a key and never a path.
fn plain(path: &Path) -> PathBuf {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_members_are_plain() {
        for (name, key) in [
            ("./a/b", "a/b"),
            ("/manifest.json", "manifest.json"),
            ("a/../../b", "b"),
            ("x/../y/layer.tar", "y/layer.tar"),
        ] {
            assert_eq!(plain(Path::new(name)), Path::new(key));
        }
    }

    /// An image of one layer with one file, in a content store of its own.
    fn example(directory: &Path) -> (Arc<Content>, Image) {
        let content = Arc::new(Content::open(directory).expect("a content store"));
        let mut layer = Builder::new(Vec::new());
        layer.append_data(&mut header(2), "file", &b"hi"[..]).expect("memory");
        let layer = layer.into_inner().expect("memory");
        let layer = content.import_layer(&mut &layer[..]).expect("a layer");
        let config = ImageConfig {
            architecture: Platform::host().architecture,
            os: "linux".to_owned(),
            variant: None,
            created: None,
            author: String::new(),
            config: Default::default(),
            rootfs: bulkhead_types::image::RootFs {
                kind: "layers".to_owned(),
                diff_ids: vec![layer.diff_id],
            },
            history: vec![],
        };
        let stored = content.write_image(&config, &[layer.descriptor]).expect("an image");
        let tag: Reference = "127.0.0.1:5000/web:1".parse().expect("a reference");
        let image = Image {
            id: stored.id,
            manifest: stored.manifest,
            tags: vec![tag],
            digests: vec![],
            config,
            size: 2,
            damage: None,
        };
        (content, image)
    }

    #[test]
    fn what_is_saved_can_be_loaded() {
        let (ours, theirs) = (tempfile::tempdir().expect("a"), tempfile::tempdir().expect("b"));
        let (content, image) = example(ours.path());
        let mut archive = Vec::new();
        let saved = (image.clone(), image.tags.clone());
        write(&content, &[saved], &mut archive).expect("an archive");
        let other = Arc::new(Content::open(theirs.path()).expect("a content store"));
        let loaded = read(&other, &archive[..]).expect("an image");
        assert_eq!((loaded[0].stored.id, &loaded[0].names), (image.id, &image.tags));
        assert!(other.has_layer(image.config.rootfs.diff_ids[0]));

        // Without Docker's own list it is an OCI layout like any other.
        let mut layout = Builder::new(Vec::new());
        for entry in Archive::new(&archive[..]).entries().expect("entries") {
            let entry = entry.expect("an entry");
            let path = entry.path().expect("a path").into_owned();
            if path != Path::new("manifest.json") {
                let mut header = entry.header().clone();
                layout.append_data(&mut header, path, entry).expect("memory");
            }
        }
        let layout = layout.into_inner().expect("memory");
        let loaded = read(&other, &layout[..]).expect("an image");
        let stored = StoredImage { id: image.id, manifest: image.manifest };
        assert_eq!((&loaded[0].stored, &loaded[0].names), (&stored, &image.tags));
    }

    #[test]
    fn an_archive_without_images_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let (content, _) = example(directory.path());
        let mut archive = Builder::new(Vec::new());
        archive.append_data(&mut header(2), "file", &b"hi"[..]).expect("memory");
        let archive = archive.into_inner().expect("memory");
        assert!(matches!(read(&content, &archive[..]), Err(LoadError::NoImage)));
    }
}
