//! Images that come and go: pull, import, push.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use bulkhead_image::{Credentials, Progress};
use bulkhead_types::{Reference, image};
use http::HeaderMap;
use serde_json::{Value, json};

use super::{changes, named};
use crate::Api;
use crate::auth;
use crate::bodies::upload;
use crate::error::{Answer, ApiError};
use crate::lines::{self, Lines};
use crate::request::Query;

/// `POST /images/create`: a pull, or an import of the body.
pub(crate) async fn create(api: Api, query: Query, request: Request) -> Answer<Response> {
    if let Some(source) = query.value("fromSrc").filter(|source| !source.is_empty()) {
        if source != "-" {
            return Err(ApiError::unsupported(
                "importing from an address is not supported; fetch the archive and send it",
            ));
        }
        return import(api, query, request).await;
    }
    let name = query.text("fromImage");
    if name.is_empty() {
        return Err(ApiError::invalid("invalid reference format: fromImage is missing"));
    }
    check_platform(query.text("platform"))?;
    let wanted = Wanted::read(name, query.text("tag"))?;
    let credentials = auth::registry_auth(request.headers())?;
    lines::answer(|lines| async move {
        let (references, shown) = match wanted {
            Wanted::One(reference) => (vec![reference.clone()], reference.familiar()),
            Wanted::EveryTag(repository) => {
                let tags = api.engine.images().tags(&repository, credentials.clone()).await?;
                (tags, repository.familiar_name())
            }
        };
        let mut is_newer = false;
        for reference in references {
            is_newer |= pull(&api, &lines, &reference, credentials.clone()).await?;
        }
        let status = match is_newer {
            true => format!("Status: Downloaded newer image for {shown}"),
            false => format!("Status: Image is up to date for {shown}"),
        };
        lines.send(json!({ "status": status }));
        Ok(())
    })
    .await
}

/// What a pull is of.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    One(Reference),
    /// A name alone (`docker pull --all-tags`), also with the colon that some clients leave at its
    /// end (moby: api/server/router/image/image_routes.go).
    EveryTag(Reference),
}

impl Wanted {
    fn read(name: &str, version: &str) -> Result<Self, ApiError> {
        let name = name.strip_suffix(':').unwrap_or(name);
        let last = name.rsplit('/').next().unwrap_or(name);
        let reference = named(name, version)?;
        Ok(match version.is_empty() && !last.contains([':', '@']) {
            true => Self::EveryTag(reference),
            false => Self::One(reference),
        })
    }
}

/// Pulls one image and tells of it; whether it was not here before.
async fn pull(
    api: &Api,
    lines: &Lines,
    reference: &Reference,
    credentials: Option<Credentials>,
) -> Result<bool, ApiError> {
    let before = api.engine.images().find(&reference.to_string()).ok().map(|image| image.id);
    let gate = Gate::new(lines, reference);
    let image = api.engine.images().pull(reference, credentials, gate.progress()).await?;
    gate.open();
    let pinned =
        image.digests.iter().find(|digest| digest.familiar_name() == reference.familiar_name());
    let digest = pinned.and_then(Reference::digest).unwrap_or(image.manifest);
    lines.send(json!({ "status": format!("Digest: {digest}") }));
    Ok(before != Some(image.id))
}

/// Holds the first line of a pull back until the registry has answered, so that a name which it
/// does not have is a 404 and not a line.
#[derive(Clone)]
struct Gate {
    lines: Lines,
    opened: Arc<std::sync::Once>,
    first: Value,
}

impl Gate {
    fn new(lines: &Lines, reference: &Reference) -> Self {
        let first = json!({
            "status": format!("Pulling from {}", reference.path()),
            "id": reference.version(),
        });
        Self { lines: lines.clone(), opened: Arc::new(std::sync::Once::new()), first }
    }

    fn open(&self) {
        self.opened.call_once(|| self.lines.send(self.first.clone()));
    }

    fn progress(&self) -> Arc<dyn Fn(Progress) + Send + Sync> {
        let gate = self.clone();
        Arc::new(move |progress| {
            gate.open();
            gate.lines.progress(progress);
        })
    }
}

/// A platform in Docker's words (`linux/amd64`) must be this machine's.
pub(crate) fn check_platform(text: &str) -> Result<(), ApiError> {
    let host = image::Platform::host();
    let mut words = text.split('/');
    let os = words.next().unwrap_or_default();
    let architecture = words.next().unwrap_or_default();
    let fits = |word: &str, own: &str| word.is_empty() || word == own;
    if text.starts_with('{') || (fits(os, &host.os) && fits(architecture, &host.architecture)) {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "platform {text} is not this machine's ({}/{}), and others are not supported",
        host.os, host.architecture
    )))
}

/// Makes an image from the tar archive in the body.
async fn import(api: Api, query: Query, request: Request) -> Answer<Response> {
    let references = match query.text("repo") {
        "" => vec![],
        repository => vec![named(repository, query.text("tag"))?],
    };
    let mut config = image::Config::default();
    changes::apply(&mut config, query.all("changes"))?;
    let message = match query.text("message") {
        "" => "Imported from -".to_owned(),
        message => message.to_owned(),
    };
    let body = request.into_body().into_data_stream();
    lines::answer(|lines| async move {
        let (tar, fault) = upload(body)?;
        let image = api.engine.images().import(tar.into(), &references, config, &message).await;
        fault.check("the archive")?;
        let image = image?;
        lines.send(json!({ "status": image.id }));
        Ok(())
    })
    .await
}

/// `POST /images/{name}/push`: one tag, or without one every tag of the repository.
pub(crate) async fn push(
    api: Api,
    name: &str,
    query: Query,
    headers: &HeaderMap,
) -> Answer<Response> {
    let credentials = auth::registry_auth(headers)?;
    let references = match query.text("tag") {
        "" => every_tag(&api, name)?,
        tag => vec![named(name, tag)?],
    };
    // An image that is not here is an answer's status, and no line.
    for reference in &references {
        api.engine.images().find(&reference.to_string()).map_err(|_| {
            let name = reference.familiar_name();
            ApiError::not_found(format!("An image does not exist locally with the tag: {name}"))
        })?;
    }
    lines::answer(|lines| async move {
        for reference in references {
            let repository = format!("{}/{}", reference.domain(), reference.path());
            let status = format!("The push refers to repository [{repository}]");
            lines.send(json!({ "status": status }));
            let to = lines.clone();
            let progress = Arc::new(move |progress| to.progress(progress));
            let (digest, size) =
                api.engine.images().push(&reference, credentials.clone(), progress).await?;
            let tag = reference.version();
            lines.send(json!({ "status": format!("{tag}: digest: {digest} size: {size}") }));
            let aux = json!({ "Tag": tag, "Digest": digest, "Size": size });
            lines.send(json!({ "progressDetail": {}, "aux": aux }));
        }
        Ok(())
    })
    .await
}

fn every_tag(api: &Api, name: &str) -> Result<Vec<Reference>, ApiError> {
    let repository = named(name, "")?;
    let same =
        |tag: &Reference| tag.domain() == repository.domain() && tag.path() == repository.path();
    let tags: Vec<Reference> =
        api.engine.images().list().into_iter().flat_map(|image| image.tags).filter(same).collect();
    if tags.is_empty() {
        let name = repository.familiar_name();
        return Err(ApiError::not_found(format!(
            "An image does not exist locally with the tag: {name}"
        )));
    }
    Ok(tags)
}

/// `GET /distribution/{name}/json`: what the registry has under a name.
pub(crate) async fn distribution(
    State(api): State<Api>,
    Path(rest): Path<String>,
    headers: HeaderMap,
) -> Answer<axum::Json<Value>> {
    let name = rest.strip_suffix("/json").ok_or_else(ApiError::page_not_found)?;
    let reference = named(name, "")?;
    let credentials = auth::registry_auth(&headers)?;
    let (descriptor, platforms) = api.engine.images().describe(&reference, credentials).await?;
    Ok(axum::Json(json!({
        "Descriptor": {
            "mediaType": descriptor.media_type,
            "digest": descriptor.digest,
            "size": descriptor.size,
        },
        "Platforms": platforms,
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_version_is_every_tag() {
        let reference = |text: &str| text.parse::<Reference>().expect(text);
        for (name, version, wanted) in [
            ("busybox", "latest", Wanted::One(reference("busybox:latest"))),
            ("busybox", "", Wanted::EveryTag(reference("busybox"))),
            ("busybox:", "", Wanted::EveryTag(reference("busybox"))),
            ("busybox:1", "", Wanted::One(reference("busybox:1"))),
            ("127.0.0.1:5000/a/b", "", Wanted::EveryTag(reference("127.0.0.1:5000/a/b"))),
            ("127.0.0.1:5000/a/b", "2", Wanted::One(reference("127.0.0.1:5000/a/b:2"))),
        ] {
            assert_eq!(Wanted::read(name, version).expect(name), wanted, "{name} {version}");
        }
        let digest = bulkhead_types::Digest::of(b"x");
        let pinned = Wanted::read(&format!("a@{digest}"), "").expect("a digest");
        assert_eq!(pinned, Wanted::One(reference("a").with_digest(digest)));
    }

    #[test]
    fn other_platforms_are_refused() {
        let host = image::Platform::host();
        for text in ["", "linux", &format!("linux/{}", host.architecture)] {
            assert!(check_platform(text).is_ok(), "{text}");
        }
        for text in ["windows", "linux/s390x"] {
            assert!(check_platform(text).is_err(), "{text}");
        }
    }
}
