use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, StatusCode};

use crate::answer::{Answer, Refusal, empty};
use crate::request::query;
use crate::route::{Astray, Route, route};
use crate::{Registry, blobs, lists, manifests, referrers, uploads};

/// Answers one request.
pub(crate) async fn serve(State(registry): State<Arc<Registry>>, request: Request) -> Response {
    let answer = match enter(&registry, request.headers()).await {
        Ok(()) => dispatch(registry, request).await,
        Err(refusal) => Err(refusal),
    };
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    // What Docker looks for before it believes that this is a registry.
    response.headers_mut().insert(
        HeaderName::from_static("docker-distribution-api-version"),
        HeaderValue::from_static("registry/2.0"),
    );
    response
}

async fn dispatch(registry: Arc<Registry>, request: Request) -> Answer {
    let route = route(request.uri().path()).map_err(|astray| match astray {
        Astray::Digest => Refusal::new(400, "DIGEST_INVALID", "the digest is not a sha256 one"),
        Astray::Name => Refusal::new(400, "NAME_INVALID", "invalid repository name"),
        Astray::Path => Refusal::new(404, "UNSUPPORTED", "no such page"),
        Astray::Tag => Refusal::new(404, "MANIFEST_UNKNOWN", "the tag is not a valid one"),
    })?;
    let method = request.method().clone();
    match (route, method) {
        (Route::Base, Method::GET | Method::HEAD) => Ok(empty(StatusCode::OK)),
        (Route::Catalog, Method::GET) => lists::catalog(&registry, query(&request)),
        (Route::Tags { name }, Method::GET) => lists::tags(&registry, &name, query(&request)),
        (Route::Referrers { name, digest }, Method::GET) => {
            referrers::list(&registry, &name, digest, &query(&request))
        }
        (Route::Manifest { name, version }, Method::GET | Method::HEAD) => {
            manifests::read(&registry, &name, &version)
        }
        (Route::Manifest { name, version }, Method::PUT) => {
            manifests::put(registry, name, version, request).await
        }
        (Route::Manifest { name, version }, Method::DELETE) => {
            manifests::delete(&registry, &name, &version)
        }
        (Route::Blob { name, digest }, method @ (Method::GET | Method::HEAD)) => {
            blobs::read(&registry, &name, digest, &method, request.headers())
        }
        (Route::Blob { name, digest }, Method::DELETE) => blobs::delete(&registry, &name, digest),
        (Route::StartUpload { name }, Method::POST) => {
            uploads::start(registry, name, request).await
        }
        (Route::Upload { name, id }, Method::PATCH) => {
            uploads::append(&registry, &name, &id, request).await
        }
        (Route::Upload { name, id }, Method::PUT) => {
            uploads::finish(registry, name, &id, request).await
        }
        (Route::Upload { name, id }, Method::GET) => uploads::state(&registry, &name, &id),
        (Route::Upload { name, id }, Method::DELETE) => uploads::cancel(&registry, &name, &id),
        _ => Err(Refusal::unsupported()),
    }
}

/// Lets in who has a name and a password that fit.
async fn enter(registry: &Arc<Registry>, headers: &HeaderMap) -> Result<(), Refusal> {
    if let Some((user, password)) = headers.get(AUTHORIZATION).and_then(basic) {
        let users = Arc::clone(&registry.users);
        let check = tokio::task::spawn_blocking(move || users.check(&user, &password));
        if check.await.map_err(std::io::Error::other)? {
            return Ok(());
        }
    }
    let mut refusal = Refusal::new(401, "UNAUTHORIZED", "authentication required");
    let challenge = HeaderValue::from_static("Basic realm=\"Bulkhead registry\"");
    refusal.headers.insert(WWW_AUTHENTICATE, challenge);
    Err(refusal)
}

fn basic(value: &HeaderValue) -> Option<(String, String)> {
    let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}
