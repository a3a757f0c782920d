//! `/images`

mod archive;
mod changes;
mod commit;
pub(crate) mod transfer;

use std::collections::BTreeMap;

use axum::extract::{FromRequestParts, Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use bulkhead_engine::{ContainerSnapshot, Image, RemovedImage};
use bulkhead_types::glob::{Dialect, Glob};
use bulkhead_types::{Reference, Timestamp};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::Api;
use crate::clock::NEVER;
use crate::error::{Answer, ApiError};
use crate::filters::Filters;
use crate::request::{Query, timestamp};
use crate::version::{ApiVersion, MAXIMUM};

/// Names hold slashes, so everything below `/images` but the list is told apart by its last word.
pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/commit", axum::routing::post(commit::commit))
        .route("/images/json", get(list))
        .route("/images/{*rest}", axum::routing::any(route))
        .route("/distribution/{*rest}", get(transfer::distribution))
}

async fn route(
    State(api): State<Api>,
    Path(rest): Path<String>,
    request: Request,
) -> Answer<Response> {
    let (mut parts, body) = request.into_parts();
    let query = Query::from_request_parts(&mut parts, &()).await?;
    let version = parts.extensions.get().copied().unwrap_or(MAXIMUM);
    let request = Request::from_parts(parts, body);
    let method = request.method().clone();
    match (&method, rest.as_str(), rest.rsplit_once('/')) {
        (&Method::POST, "create", _) => transfer::create(api, query, request).await,
        (&Method::POST, "prune", _) => prune(api, query).await,
        (&Method::GET, "search", _) => Ok(axum::Json(json!([])).into_response()),
        (&Method::POST, "load", _) => archive::load::load(api, request).await,
        (&Method::GET, "get", _) => archive::save::save(api, query.all("names")),
        (&Method::GET, _, Some((name, "get"))) => archive::save::save(api, &[name.to_owned()]),
        (&Method::GET, _, Some((name, "json"))) => inspect(api, name, version),
        (&Method::GET, _, Some((name, "history"))) => history(api, name),
        (&Method::POST, _, Some((name, "tag"))) => tag(api, name, query).await,
        (&Method::POST, _, Some((name, "push"))) => {
            transfer::push(api, name, query, request.headers()).await
        }
        (&Method::DELETE, name, _) => remove(api, name, query).await,
        _ => Err(ApiError::page_not_found()),
    }
}

async fn list(
    State(api): State<Api>,
    Extension(version): Extension<ApiVersion>,
    query: Query,
) -> Answer<axum::Json<Value>> {
    let known = ["before", "dangling", "label", "label!", "reference", "since", "until"];
    let filters = Filters::from_query(&query, &known)?;
    let dangling = filters.boolean("dangling")?;
    let created_of = |name: &str| -> Result<Option<Timestamp>, ApiError> {
        match filters.values(name) {
            [] => Ok(None),
            [image, ..] => Ok(created(&api.engine.images().find(image)?)),
        }
    };
    let (before, since) = (created_of("before")?, created_of("since")?);
    let until = filters.until()?;
    let patterns = reference_patterns(&filters)?;
    let containers = api.engine.containers();
    let shown = api.engine.images().list().into_iter().filter_map(|mut image| {
        let has_names = !image.tags.is_empty();
        // Of the image's names only those that are asked for are shown (moby:
        // daemon/images/images.go), and without one it is not.
        let wanted = |name: &Reference| patterns.iter().any(|pattern| is_reference(pattern, name));
        if !patterns.is_empty() {
            image.tags.retain(wanted);
            image.digests.retain(wanted);
        }
        let made = created(&image);
        let is_shown = dangling.is_none_or(|dangling| dangling != has_names)
            && filters.labels(image.config.config.labels.as_ref().unwrap_or(&BTreeMap::new()))
            && before.is_none_or(|before| made < Some(before))
            && since.is_none_or(|since| made > Some(since))
            && until.is_none_or(|until| made < Some(until))
            && (patterns.is_empty() || !image.tags.is_empty() || !image.digests.is_empty());
        is_shown.then_some(image)
    });
    let mut shown: Vec<Image> = shown.collect();
    shown.sort_by_key(|image| std::cmp::Reverse(created(image)));
    Ok(axum::Json(shown.iter().map(|image| summary(image, &containers, version)).collect()))
}

/// Whether a `reference` filter means this name: with or without the tag, `*` within a component.
fn is_reference(pattern: &Glob, reference: &Reference) -> bool {
    let names = [reference.familiar(), reference.familiar_name(), reference.to_string()];
    names.iter().any(|name| pattern.matches(name))
}

/// The values of a `reference` filter.
fn reference_patterns(filters: &Filters) -> Result<Vec<Glob>, ApiError> {
    let parse = |pattern: &String| {
        Glob::parse(pattern, Dialect::Match).ok_or_else(|| {
            ApiError::invalid(format!(
                "invalid filter 'reference={pattern}': syntax error in pattern"
            ))
        })
    };
    filters.values("reference").iter().map(parse).collect()
}

fn created(image: &Image) -> Option<Timestamp> {
    image.config.created.as_deref().and_then(timestamp)
}

fn familiar(references: &[Reference]) -> Vec<String> {
    references.iter().map(Reference::familiar).collect()
}

/// One image as the list shows it; `system df` too.
pub(crate) fn summary(
    image: &Image,
    containers: &[ContainerSnapshot],
    version: ApiVersion,
) -> Value {
    let mut view = json!({
        "Containers": containers.iter().filter(|c| c.image_id == image.id).count(),
        "Created": created(image).map_or(0, |time| time.as_second()),
        "Id": image.id,
        "Labels": image.config.config.labels,
        "ParentId": parent(image),
        "RepoDigests": familiar(&image.digests),
        "RepoTags": familiar(&image.tags),
        "SharedSize": -1,
        "Size": image.size,
    });
    add_virtual_size(&mut view, version);
    view
}

/// The size by the name that it also had until API 1.43, for clients that know no other.
fn add_virtual_size(view: &mut Value, version: ApiVersion) {
    if version < ApiVersion(44) {
        view["VirtualSize"] = view["Size"].clone();
    }
}

/// Empty where Docker would know of no parent either.
fn parent(image: &Image) -> String {
    image.parent.map(|parent| parent.to_string()).unwrap_or_default()
}

fn inspect(api: Api, name: &str, version: ApiVersion) -> Answer<Response> {
    let image = api.engine.images().find(name)?;
    let mut view = view(&image, &api.engine.options().data.display().to_string());
    add_virtual_size(&mut view, version);
    Ok(axum::Json(view).into_response())
}

fn view(image: &Image, data: &str) -> Value {
    let config = &image.config;
    let top = config.rootfs.diff_ids.last();
    let mut view = json!({
        "Id": image.id,
        "RepoTags": familiar(&image.tags),
        "RepoDigests": familiar(&image.digests),
        "Parent": parent(image),
        "Comment": config.history.last().map_or("", |step| step.comment.as_str()),
        "Created": config.created.as_deref().unwrap_or(NEVER),
        "DockerVersion": "",
        "Author": config.author,
        "Config": config_view(image),
        "Architecture": config.architecture,
        "Os": config.os,
        "Size": image.size,
        "GraphDriver": {
            "Data": {
                "UpperDir": top.map(|top| format!("{data}/content/layers/{}", top.hex())).unwrap_or_default(),
            },
            "Name": "overlay2",
        },
        "RootFS": { "Type": "layers", "Layers": config.rootfs.diff_ids },
        "Metadata": { "LastTagTime": NEVER },
    });
    if let Some(variant) = &config.variant {
        view["Variant"] = json!(variant);
    }
    view
}

/// The image's `Config`, with the members that Docker always shows.
fn config_view(image: &Image) -> Value {
    let config = &image.config.config;
    let mut view = json!({
        "Cmd": config.cmd,
        "Entrypoint": config.entrypoint,
        "Env": config.env,
        "Labels": config.labels,
        "OnBuild": config.on_build,
        "User": config.user,
        "Volumes": config.volumes,
        "WorkingDir": config.working_dir,
    });
    let optional = [
        ("ExposedPorts", json!(config.exposed_ports)),
        ("Healthcheck", json!(config.healthcheck)),
        ("Shell", json!(config.shell)),
        ("StopSignal", json!(config.stop_signal)),
    ];
    for (member, value) in optional {
        if !value.is_null() {
            view[member] = value;
        }
    }
    view
}

/// `GET /images/{name}/history`: newest first; only the top has the image's id.
fn history(api: Api, name: &str) -> Answer<Response> {
    let image = api.engine.images().find(name)?;
    let content = api.engine.content();
    let mut layers = image.config.rootfs.diff_ids.iter();
    let mut steps: Vec<Value> = Vec::new();
    for step in &image.config.history {
        let layer = if step.empty_layer { None } else { layers.next() };
        steps.push(json!({
            "Comment": step.comment,
            "Created": step.created.as_deref().and_then(timestamp).map_or(0, |t| t.as_second()),
            "CreatedBy": step.created_by,
            "Id": "<missing>",
            "Size": layer.and_then(|layer| content.layer_size(*layer).ok()).unwrap_or(0),
            "Tags": null,
        }));
    }
    if let Some(top) = steps.last_mut() {
        top["Id"] = json!(image.id);
        if !image.tags.is_empty() {
            top["Tags"] = json!(familiar(&image.tags));
        }
    }
    steps.reverse();
    Ok(axum::Json(steps).into_response())
}

async fn tag(api: Api, name: &str, query: Query) -> Answer<Response> {
    let reference = named(query.text("repo"), query.text("tag"))?;
    let image = api.engine.images().find(name)?;
    api.engine.images().tag(image.id, &reference).await?;
    Ok(StatusCode::CREATED.into_response())
}

/// A repository and a tag or digest apart, as the API has them.
pub(crate) fn named(repository: &str, version: &str) -> Result<Reference, ApiError> {
    let text = match version {
        "" => repository.to_owned(),
        digest if digest.contains(':') => format!("{repository}@{digest}"),
        tag => format!("{repository}:{tag}"),
    };
    text.parse().map_err(|_| ApiError::invalid(format!("invalid reference format: {text}")))
}

async fn remove(api: Api, name: &str, query: Query) -> Answer<Response> {
    let removed = api.engine.remove_image(name, query.flag("force")).await?;
    Ok(axum::Json(removed_view(&removed)).into_response())
}

fn removed_view(removed: &[RemovedImage]) -> Vec<Value> {
    let view = removed.iter().map(|removed| match removed {
        RemovedImage::Untagged(name) => json!({ "Untagged": name }),
        RemovedImage::Deleted(id) => json!({ "Deleted": id }),
    });
    view.collect()
}

/// Removes images without a name, or with `dangling=false` all that no container uses.
async fn prune(api: Api, query: Query) -> Answer<Response> {
    let filters = Filters::from_query(&query, &["dangling", "label", "label!", "until"])?;
    let only_dangling = filters.boolean("dangling")?.unwrap_or(true);
    let until = filters.until()?;
    let containers = api.engine.containers();
    let mut deleted = Vec::new();
    let mut reclaimed = 0;
    for image in api.engine.images().list() {
        let used = containers.iter().any(|container| container.image_id == image.id);
        let labels = image.config.config.labels.clone().unwrap_or_default();
        let chosen = !used
            && (!only_dangling || image.tags.is_empty())
            && filters.labels(&labels)
            && until.is_none_or(|until| created(&image) < Some(until));
        if !chosen {
            continue;
        }
        match api.engine.remove_image(&image.id.to_string(), true).await {
            Ok(removed) => {
                deleted.extend(removed_view(&removed));
                reclaimed += image.size;
            }
            Err(error) => tracing::info!(image = %image.id, "not pruned: {error}"),
        }
    }
    let deleted = if deleted.is_empty() { Value::Null } else { json!(deleted) };
    Ok(axum::Json(json!({ "ImagesDeleted": deleted, "SpaceReclaimed": reclaimed })).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_filters_match_names() {
        let reference: Reference = "127.0.0.1:5000/team/web:1".parse().expect("a reference");
        for (pattern, found) in [
            ("127.0.0.1:5000/team/web", true),
            ("127.0.0.1:5000/team/web:1", true),
            ("127.0.0.1:5000/team/*", true),
            ("127.0.0.1:5000/*", false),
            ("*/*/web:?", true),
            ("web", false),
            ("127.0.0.1:5000/team/[v-x]eb", true),
        ] {
            let pattern = Glob::parse(pattern, Dialect::Match).expect(pattern);
            assert_eq!(is_reference(&pattern, &reference), found, "{pattern:?}");
        }
        let wrong = Filters::parse(r#"{"reference":["[a"]}"#, &["reference"]).expect("filters");
        let error = reference_patterns(&wrong).expect_err("an open bracket");
        assert!(error.message.contains("reference=[a"), "{}", error.message);
    }

    #[test]
    fn old_clients_get_the_size_by_its_old_name() {
        for (version, old) in [(43, json!(7)), (44, Value::Null)] {
            let mut view = json!({"Size": 7});
            add_virtual_size(&mut view, ApiVersion(version));
            assert_eq!(view["VirtualSize"], old, "{version}");
        }
    }

    #[test]
    fn patterns_of_many_stars_are_matched_at_once() {
        // Backtracking would take a time that doubles with every star.
        let name: Reference = "a".repeat(120).parse().expect("a reference");
        let pattern = Glob::parse(&"a*".repeat(60), Dialect::Match);
        let never = Glob::parse(&("a*".repeat(60) + "b"), Dialect::Match).expect("a pattern");
        assert!(is_reference(&pattern.expect("a pattern"), &name));
        assert!(!is_reference(&never, &name));
    }

    #[test]
    fn names_are_put_together() {
        let digest = bulkhead_types::Digest::of(b"x").to_string();
        for (repository, version, text) in [
            ("web", "", "docker.io/library/web:latest".to_owned()),
            ("web", "1", "docker.io/library/web:1".to_owned()),
            ("a/web:2", "", "docker.io/a/web:2".to_owned()),
            ("web", &digest, format!("docker.io/library/web@{digest}")),
        ] {
            assert_eq!(named(repository, version).expect(repository).to_string(), text);
        }
        assert!(named("UPPER", "").is_err());
    }
}
