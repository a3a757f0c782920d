//! `docker save`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use axum::response::{IntoResponse, Response};
use bulkhead_archive::{Entry, Kind, Writer};
use bulkhead_engine::{Image, ImageAction};
use bulkhead_image::{Content, ImageError};
use bulkhead_types::image::{Descriptor, Index, OCI_INDEX, OCI_MANIFEST};
use bulkhead_types::{Digest, Reference};
use http::header::CONTENT_TYPE;
use serde_json::json;

use super::{ArchiveEntry, NAME, TAG};
use crate::Api;
use crate::bodies::download;
use crate::error::{Answer, ApiError};

/// `GET /images/get?names=…` and `GET /images/{name}/get`
pub(crate) fn save(api: Api, names: &[String]) -> Answer<Response> {
    let mut images: Vec<(Image, Vec<Reference>)> = Vec::new();
    for name in names {
        let image = api.engine.images().find(name)?;
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
    for (image, _) in &images {
        api.engine.image_event(image.id, ImageAction::Save, &image.id.to_string());
    }
    let content = api.engine.content();
    let body = download("an archive of images", move |to| {
        write(&content, &images, io::BufWriter::new(to))
    })?;
    Ok(([(CONTENT_TYPE, "application/x-tar")], body).into_response())
}

pub(super) fn write(
    content: &Content,
    images: &[(Image, Vec<Reference>)],
    to: impl Write,
) -> Result<(), ImageError> {
    let io_error = |cause| ImageError::Io { what: "write the archive".to_owned(), cause };
    let blob = |digest: Digest| format!("blobs/sha256/{}", digest.hex());
    let mut archive = Writer::new(to);
    let mut written = BTreeSet::new();
    let mut entries = Vec::new();
    let mut index = Vec::new();
    for (image, tags) in images {
        let manifest = content.manifest(image.id)?;
        let digests = manifest.layers.iter().map(|layer| layer.digest);
        for digest in digests.chain([image.id, image.manifest]) {
            if written.insert(digest) {
                let size = content.blob_size(digest)?;
                let mut file = content.blob(digest)?.take(size);
                let entry = Entry::new(blob(digest), Kind::File { size });
                archive.start(&entry).map_err(io_error)?;
                io::copy(&mut file, &mut archive).map_err(io_error)?;
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
        let entry = Entry::new(name, Kind::File { size: document.len() as u64 });
        archive.file(&entry, document.as_bytes()).map_err(io_error)?;
    }
    archive.finish().map(drop).map_err(io_error)
}
