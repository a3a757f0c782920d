//! Manifests and indexes: fetched as bytes, checked, and the one for this machine found.

use bulkhead_types::image::{
    DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, Index, Manifest, OCI_INDEX, OCI_MANIFEST, Platform,
};
use bulkhead_types::{Digest, Reference};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::session::Session;
use crate::images::parse;
use crate::{ImageError, SMALL};

/// An index of indexes is allowed by the specification; more than this is a game.
const DEPTH: usize = 3;
const LAYERS: usize = 512;
const PLATFORMS: usize = 1024;

/// A manifest or an index, in the registry's own bytes.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) descriptor: Descriptor,
    pub(super) bytes: Bytes,
}

/// Fetches a manifest or index by tag or digest.
pub(super) async fn fetch(
    session: &Session,
    reference: &Reference,
    version: &str,
) -> Result<Document, ImageError> {
    let mut headers = HeaderMap::new();
    for kind in [OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST] {
        headers.append(ACCEPT, HeaderValue::from_static(kind));
    }
    let response = session.get(session.url(&format!("manifests/{version}")), &headers).await?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => {
            return Err(ImageError::NotFound(format!(
                "manifest for {} not found: manifest unknown: manifest unknown",
                reference.familiar()
            )));
        }
        _ => return Err(session.refused("fetch the manifest", response).await),
    }
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.and_then(|text| text.split(';').next()).map(str::trim);
    let content_type = content_type.unwrap_or_default().to_owned();
    let bytes = session.bytes(response, SMALL).await?;
    let digest = Digest::of(&bytes);
    if let Ok(expected) = version.parse::<Digest>()
        && expected != digest
    {
        return Err(ImageError::WrongDigest { expected, found: digest });
    }
    let media_type = media_type(&bytes, &content_type, digest)?;
    let size = bytes.len() as u64;
    let descriptor =
        Descriptor { media_type, digest, size, platform: None, annotations: Default::default() };
    Ok(Document { descriptor, bytes })
}

/// Says what a document is; refuses one that could be read as two things (CVE-2021-41190).
fn media_type(bytes: &[u8], header: &str, digest: Digest) -> Result<String, ImageError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Outline {
        #[serde(default)]
        schema_version: u32,
        media_type: Option<String>,
        config: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    let outline: Outline = parse(bytes, "manifest", digest)?;
    let bad = |text: &str| Err(ImageError::BadImage(format!("the manifest {digest} {text}")));
    if outline.schema_version != 2 {
        return bad("is of a version before 2, which registries gave up; push the image anew");
    }
    let is_index = outline.manifests.is_some();
    if is_index && (outline.layers.is_some() || outline.config.is_some()) {
        return bad("is both an image and an index");
    }
    let known = [OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST];
    if let Some(inside) = &outline.media_type
        && known.contains(&header)
        && inside != header
    {
        return bad("says it is something else than its Content-Type");
    }
    let kind = outline.media_type.unwrap_or_else(|| match (known.contains(&header), is_index) {
        (true, _) => header.to_owned(),
        (false, true) => OCI_INDEX.to_owned(),
        (false, false) => OCI_MANIFEST.to_owned(),
    });
    match (is_index, kind.as_str()) {
        (true, OCI_INDEX | DOCKER_INDEX) | (false, OCI_MANIFEST | DOCKER_MANIFEST) => Ok(kind),
        _ => bad(&format!("is of the kind {kind:?}, which is no image")),
    }
}

/// Fetches the manifest for this machine; `top` is what the reference itself names.
pub(super) async fn manifest(
    session: &Session,
    reference: &Reference,
    top: &Document,
) -> Result<(Bytes, Manifest), ImageError> {
    let mut bytes = top.bytes.clone();
    let mut descriptor = top.descriptor.clone();
    for _ in 0..=DEPTH {
        if matches!(descriptor.media_type.as_str(), OCI_MANIFEST | DOCKER_MANIFEST) {
            let manifest: Manifest = parse(&bytes, "manifest", descriptor.digest)?;
            if manifest.layers.len() > LAYERS {
                let count = manifest.layers.len();
                return Err(ImageError::BadImage(format!(
                    "it has {count} layers, 512 are allowed"
                )));
            }
            return Ok((bytes, manifest));
        }
        let index: Index = parse(&bytes, "index", descriptor.digest)?;
        if index.manifests.len() > PLATFORMS {
            return Err(ImageError::BadImage("its index has more than 1,024 entries".to_owned()));
        }
        let host = Platform::host();
        let chosen = choose(&index, &host).ok_or_else(|| {
            ImageError::NotFound(format!(
                "no matching manifest for {}/{} in the manifest list entries of {}",
                host.os,
                host.architecture,
                reference.familiar()
            ))
        })?;
        let document = fetch(session, reference, &chosen.digest.to_string()).await?;
        if document.descriptor.size != chosen.size {
            return Err(ImageError::BadImage(format!("{} has not its size", chosen.digest)));
        }
        (bytes, descriptor) = (document.bytes, document.descriptor);
    }
    Err(ImageError::BadImage("its index leads to indexes without an end".to_owned()))
}

/// What a reference names, and the platforms that it is for.
pub(super) async fn describe(
    session: &Session,
    reference: &Reference,
    version: &str,
) -> Result<(Descriptor, Vec<Platform>), ImageError> {
    let Document { descriptor, bytes } = fetch(session, reference, version).await?;
    if matches!(descriptor.media_type.as_str(), OCI_INDEX | DOCKER_INDEX) {
        let index: Index = parse(&bytes, "index", descriptor.digest)?;
        let platforms = index.manifests.into_iter().filter_map(|entry| entry.platform);
        return Ok((descriptor, platforms.take(PLATFORMS).collect()));
    }
    let manifest: Manifest = parse(&bytes, "manifest", descriptor.digest)?;
    let digest = manifest.config.digest;
    let url = session.url(&format!("blobs/{digest}"));
    let response = session.get(url, &HeaderMap::new()).await?;
    if response.status() != StatusCode::OK {
        return Err(session.refused("fetch the configuration", response).await);
    }
    let bytes = session.bytes(response, SMALL).await?;
    let found = Digest::of(&bytes);
    if found != digest {
        return Err(ImageError::WrongDigest { expected: digest, found });
    }
    // not `ImageConfig`, which says what this machine is where an old image says nothing
    #[derive(serde::Deserialize)]
    struct Said {
        #[serde(default)]
        architecture: String,
        #[serde(default)]
        os: String,
        variant: Option<String>,
    }
    let Said { architecture, os, variant } = parse(&bytes, "configuration", digest)?;
    let is_said = !(architecture.is_empty() && os.is_empty());
    let platform = is_said.then_some(Platform { architecture, os, variant });
    Ok((descriptor, platform.into_iter().collect()))
}

/// The first entry for the platform; one without a variant is preferred to none.
fn choose<'a>(index: &'a Index, host: &Platform) -> Option<&'a Descriptor> {
    let fits = |descriptor: &&Descriptor| {
        descriptor.platform.as_ref().is_some_and(|platform| {
            platform.os == host.os
                && platform.architecture == host.architecture
                && match platform.variant.as_deref() {
                    None | Some("") => true,
                    Some("v8") => host.architecture == "arm64",
                    Some(_) => false,
                }
        })
    };
    index.manifests.iter().find(fits).or_else(|| {
        // An index of one entry that names no platform means that entry.
        index.manifests.first().filter(|only| only.platform.is_none() && index.manifests.len() == 1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ambiguous_documents_are_refused() {
        for (body, header, expected) in [
            (r#"{"schemaVersion":2,"config":{},"layers":[]}"#, OCI_MANIFEST, Ok(OCI_MANIFEST)),
            (r#"{"schemaVersion":2,"manifests":[]}"#, "text/plain", Ok(OCI_INDEX)),
            (r#"{"schemaVersion":2,"manifests":[]}"#, DOCKER_INDEX, Ok(DOCKER_INDEX)),
            (r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#, OCI_INDEX, Err("both")),
            (r#"{"schemaVersion":2,"layers":[]}"#, OCI_INDEX, Err("no image")),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#, "", Err("before 2")),
            (
                r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#,
                OCI_MANIFEST,
                Err("something else"),
            ),
            ("[", "", Err("malformed")),
            ("{\"a\":NaN}", "", Err("malformed")),
        ] {
            let found = media_type(body.as_bytes(), header, Digest::of(b""));
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{body}"),
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{body}: {error}");
                }
                (found, expected) => panic!("{body}: {found:?}, expected {expected:?}"),
            }
        }
        let deep = "[".repeat(100_000);
        assert!(media_type(deep.as_bytes(), "", Digest::of(b"")).is_err());
    }
}
