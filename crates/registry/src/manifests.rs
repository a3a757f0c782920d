use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bulkhead_types::Digest;
use bulkhead_types::image::{DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use http::StatusCode;
use http::header::{CONTENT_TYPE, ETAG, HeaderName, LOCATION};
use http_body_util::{BodyExt, Limited};

use crate::Registry;
use crate::answer::{Answer, CONTENT_DIGEST, Refusal, empty, header};
use crate::request::{blocking, query};
use crate::route::{Name, Version, tag};
use crate::store::{Kind, Store};

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// Tags that one `PUT` may set by `?tag=`.
const TAGS: usize = 10;

pub(crate) fn read(registry: &Registry, name: &Name, version: &Version) -> Answer {
    let digest = find(&registry.store, name, version)?;
    let media_type = registry
        .store
        .read(name, Kind::Manifests, &digest.hex())?
        .ok_or_else(Refusal::manifest_unknown)?;
    // axum cuts the body off the answer to a HEAD and keeps its length.
    let mut response = Response::new(Body::from(registry.store.content.read(digest)?));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, header(media_type));
    headers.insert(CONTENT_DIGEST, header(digest));
    headers.insert(ETAG, header(format!("\"{digest}\"")));
    Ok(response)
}

pub(crate) async fn put(
    registry: Arc<Registry>,
    name: Name,
    version: Version,
    request: Request,
) -> Answer {
    let mut tags: Vec<String> = query(&request)
        .into_iter()
        .filter(|(key, _)| key == "tag")
        .map(|(_, value)| value)
        .take(TAGS + 1)
        .collect();
    if tags.len() > TAGS || tags.iter().any(|text| tag(text).is_none()) {
        return Err(Refusal::new(400, "TAG_INVALID", "too many tags, or one that is none"));
    }
    let announced = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let announced = announced.and_then(|text| text.split(';').next()).map(str::trim);
    let announced = announced.unwrap_or_default().to_owned();
    let limit = usize::try_from(bulkhead_image::SMALL).expect("4 MiB fit");
    let bytes = Limited::new(request.into_body(), limit).collect().await.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            Refusal::new(413, "SIZE_INVALID", "a manifest may have 4 MiB at most")
        } else {
            Refusal::new(400, "MANIFEST_INVALID", "the body broke off")
        }
    })?;
    let bytes = bytes.to_bytes();
    let digest = Digest::of(&bytes);
    match &version {
        Version::Tag(tag) => tags.push(tag.clone()),
        Version::Digest(expected) if *expected != digest => {
            let message = "provided digest did not match uploaded content";
            return Err(Refusal::new(400, "DIGEST_INVALID", message));
        }
        Version::Digest(_) => {}
    }
    let outline = Outline::parse(&bytes, &announced)?;
    blocking(move || {
        outline.check(&registry.store, &name)?;
        let (kind, subject) = (&outline.media_type, outline.subject);
        registry.store.add_manifest(&name, &bytes, kind, &tags, subject)?;
        let mut response = empty(StatusCode::CREATED);
        let headers = response.headers_mut();
        let location = format!("/v2/{}/manifests/{digest}", name.as_str());
        headers.insert(LOCATION, header(location));
        headers.insert(CONTENT_DIGEST, header(digest));
        if let Some(subject) = subject {
            headers.insert(OCI_SUBJECT, header(subject));
        }
        for tag in tags.iter().filter(|tag| Version::Tag((*tag).clone()) != version) {
            headers.append(HeaderName::from_static("oci-tag"), header(tag));
        }
        Ok(response)
    })
    .await
}

pub(crate) fn delete(registry: &Registry, name: &Name, version: &Version) -> Answer {
    let removed = match version {
        Version::Tag(tag) => registry.store.remove_tag(name, tag)?,
        Version::Digest(digest) => {
            registry.store.has(name, Kind::Manifests, &digest.hex())?
                && registry.store.remove_manifest(name, *digest)?
        }
    };
    if removed { Ok(empty(StatusCode::ACCEPTED)) } else { Err(Refusal::manifest_unknown()) }
}

fn find(store: &Store, name: &Name, version: &Version) -> Result<Digest, Refusal> {
    match version {
        Version::Digest(digest) => Ok(*digest),
        Version::Tag(tag) => store.tagged(name, tag)?.ok_or_else(Refusal::manifest_unknown),
    }
}

/// What the registry has to know of a manifest; the rest is its owner's business.
#[derive(Debug)]
pub(crate) struct Outline {
    pub(crate) media_type: String,
    subject: Option<Digest>,
    blobs: Vec<Digest>,
}

impl Outline {
    pub(crate) fn parse(bytes: &[u8], announced: &str) -> Result<Self, Refusal> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Link {
            digest: Digest,
            #[serde(default)]
            media_type: String,
            #[serde(default)]
            urls: Vec<String>,
        }
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Body {
            schema_version: u32,
            media_type: Option<String>,
            config: Option<Link>,
            layers: Option<Vec<Link>>,
            manifests: Option<Vec<Link>>,
            subject: Option<Link>,
        }
        let invalid = |message: String| Refusal::new(400, "MANIFEST_INVALID", message);
        let body: Body = serde_json::from_slice(bytes)
            .map_err(|error| invalid(format!("manifest invalid: {error}")))?;
        if body.schema_version != 2 {
            return Err(invalid("schemaVersion must be 2".to_owned()));
        }
        let is_index = body.manifests.is_some();
        if is_index && (body.layers.is_some() || body.config.is_some()) {
            return Err(invalid("it is both an image and an index".to_owned()));
        }
        if let Some(inside) = &body.media_type
            && !announced.is_empty()
            && inside != announced
        {
            return Err(invalid(format!("mediaType {inside:?} is not the Content-Type's")));
        }
        let media_type = match (announced, body.media_type) {
            ("", Some(inside)) => inside,
            ("", None) if is_index => OCI_INDEX.to_owned(),
            ("", None) => OCI_MANIFEST.to_owned(),
            (announced, _) => announced.to_owned(),
        };
        let known =
            if is_index { [OCI_INDEX, DOCKER_INDEX] } else { [OCI_MANIFEST, DOCKER_MANIFEST] };
        if !known.contains(&media_type.as_str()) {
            return Err(invalid(format!("a manifest cannot be of the kind {media_type:?}")));
        }
        // Layers with addresses of their own are never uploaded.
        let foreign = |link: &Link| {
            !link.urls.is_empty()
                || link.media_type.contains("nondistributable")
                || link.media_type.contains("rootfs.foreign")
        };
        let layers = body.layers.into_iter().flatten().filter(|layer| !foreign(layer));
        let blobs = body.config.into_iter().chain(layers).map(|link| link.digest).collect();
        Ok(Self { media_type, subject: body.subject.map(|subject| subject.digest), blobs })
    }

    /// An image must be complete; an index may name platforms that are not kept here.
    fn check(&self, store: &Store, name: &Name) -> Result<(), Refusal> {
        for digest in &self.blobs {
            if !store.has(name, Kind::Blobs, &digest.hex())? {
                let message = format!("blob unknown to registry: {digest}");
                return Err(Refusal::new(404, "MANIFEST_BLOB_UNKNOWN", message));
            }
        }
        Ok(())
    }
}
