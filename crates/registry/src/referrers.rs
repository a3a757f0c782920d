//! What refers to a manifest: signatures, SBOMs and the like (distribution-spec, "Listing Referrers").

use bulkhead_types::Digest;
use bulkhead_types::image::OCI_INDEX;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::Registry;
use crate::answer::{Answer, json as answer};
use crate::request::find;
use crate::route::Name;
use crate::store::Kind;

/// `GET /v2/NAME/referrers/DIGEST`: manifests whose subject is that digest, which need not exist.
pub(crate) fn list(
    registry: &Registry,
    name: &Name,
    digest: Digest,
    query: &[(String, String)],
) -> Answer {
    let wanted = find(query, "artifactType");
    let prefix = format!("{}-", digest.hex());
    let mut found = Vec::new();
    for link in registry.store.list(name, Kind::Referrers)?.unwrap_or_default() {
        let Some(hex) = link.strip_prefix(&prefix) else { continue };
        let Ok(digest) = format!("sha256:{hex}").parse::<Digest>() else { continue };
        let Some(kind) = registry.store.read(name, Kind::Manifests, hex)? else { continue };
        let bytes = registry.store.content.read(digest)?;
        found.extend(referrer(&bytes, digest, &kind).filter(|descriptor| {
            wanted.is_none_or(|wanted| descriptor["artifactType"].as_str() == Some(wanted))
        }));
    }
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found });
    let mut response = answer(&index);
    response.headers_mut().insert(CONTENT_TYPE, INDEX);
    if wanted.is_some() {
        let applied = HeaderName::from_static("oci-filters-applied");
        response.headers_mut().insert(applied, HeaderValue::from_static("artifactType"));
    }
    Ok(response)
}

/// The descriptor by which a manifest shows up among the referrers of its subject.
fn referrer(bytes: &[u8], digest: Digest, media_type: &str) -> Option<Value> {
    let manifest: Value = serde_json::from_slice(bytes).ok()?;
    let text = |value: &Value| value.as_str().filter(|s| !s.is_empty()).map(str::to_owned);
    let kind = text(&manifest["artifactType"]).or_else(|| text(&manifest["config"]["mediaType"]));
    let mut descriptor = json!({
        "mediaType": media_type,
        "digest": digest,
        "size": bytes.len(),
    });
    if let Some(kind) = kind {
        descriptor["artifactType"] = kind.into();
    }
    if manifest["annotations"].is_object() {
        descriptor["annotations"] = manifest["annotations"].clone();
    }
    Some(descriptor)
}

/// For answers whose body is an index made here.
const INDEX: HeaderValue = HeaderValue::from_static(OCI_INDEX);
