//! `/volumes`

use std::io::BufWriter;
use std::os::fd::AsFd;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Extension, Router};
use bulkhead_archive::{Limits, Owners, Unpack, pack_contents};
use bulkhead_docker_types::VolumeCreate;
use bulkhead_engine::{ContainerSnapshot, DriverOptions, Volume};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::Api;
use crate::bodies::{download, upload};
use crate::error::{Answer, ApiError};
use crate::filters::Filters;
use crate::request::{Json, Query};
use crate::version::ApiVersion;

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/volumes", get(list))
        .route("/volumes/create", post(create))
        .route("/volumes/prune", post(prune))
        .route("/volumes/{name}", get(inspect).delete(remove))
        .route("/bulkhead/volumes/{name}/export", get(export))
        .route("/bulkhead/volumes/{name}/import", put(import))
}

async fn list(State(api): State<Api>, query: Query) -> Answer<axum::Json<Value>> {
    let filters = Filters::from_query(&query, &["dangling", "driver", "label", "label!", "name"])?;
    let dangling = filters.boolean("dangling")?;
    let names = filters.patterns("name")?;
    let containers = api.engine.containers();
    let volumes = api.engine.volumes().list();
    let shown = volumes.iter().filter(|volume| {
        names.any(&volume.name)
            && filters.any("driver", |driver| driver == "local")
            && filters.labels(&volume.labels)
            && dangling.is_none_or(|dangling| dangling == (users(volume, &containers) == 0))
    });
    let shown: Vec<Value> = shown.map(view).collect();
    Ok(axum::Json(json!({ "Volumes": shown, "Warnings": null })))
}

async fn inspect(State(api): State<Api>, Path(name): Path<String>) -> Answer<axum::Json<Value>> {
    let volumes = api.engine.volumes().list();
    match volumes.iter().find(|volume| volume.name == name) {
        Some(volume) => Ok(axum::Json(view(volume))),
        None => Err(ApiError::not_found(format!("get {name}: no such volume"))),
    }
}

async fn create(State(api): State<Api>, Json(body): Json<VolumeCreate>) -> Answer<Response> {
    if !matches!(body.driver.as_str(), "" | "local") {
        return Err(ApiError::not_found(format!(
            "error looking up volume plugin {}: plugin {:?} not found; the only driver is local",
            body.driver, body.driver
        )));
    }
    let options = DriverOptions::parse(body.driver_opts)?;
    let name = Some(body.name.as_str()).filter(|name| !name.is_empty());
    let volume = api.engine.volumes().create(name, body.labels, options).await?;
    Ok((StatusCode::CREATED, axum::Json(view(&volume))).into_response())
}

async fn remove(
    State(api): State<Api>,
    Path(name): Path<String>,
    query: Query,
) -> Answer<StatusCode> {
    api.engine.remove_volume(&name, query.flag("force")).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes what no container uses: anonymous volumes, and with the filter `all` named ones too, as it
/// always was before API 1.42 (moby: api/server/router/volume/volume_routes.go).
async fn prune(
    State(api): State<Api>,
    Extension(version): Extension<ApiVersion>,
    query: Query,
) -> Answer<axum::Json<Value>> {
    let filters = Filters::from_query(&query, &["all", "label", "label!"])?;
    let all = version < ApiVersion(42) || filters.boolean("all")?.unwrap_or(false);
    let containers = api.engine.containers();
    let (mut deleted, mut reclaimed) = (Vec::new(), 0);
    for volume in api.engine.volumes().list() {
        let unused = users(&volume, &containers) == 0 && (all || volume.anonymous);
        if unused && filters.labels(&volume.labels) {
            let size = api.engine.volume_size(&volume.name).await.unwrap_or(0);
            match api.engine.remove_volume(&volume.name, false).await {
                Ok(()) => {
                    deleted.push(volume.name);
                    reclaimed += size;
                }
                Err(error) => tracing::info!(volume = volume.name, "not pruned: {error}"),
            }
        }
    }
    Ok(axum::Json(json!({ "VolumesDeleted": deleted, "SpaceReclaimed": reclaimed })))
}

/// `GET /bulkhead/volumes/{name}/export`: the volume's files as an archive, owners as containers see
/// them.
async fn export(State(api): State<Api>, Path(name): Path<String>) -> Answer<Response> {
    let root = api.engine.volume_files(&name).await?;
    let body = download("a volume's export", move |to| {
        pack_contents(BufWriter::new(to), root.as_fd(), None)
    })?;
    Ok(([(CONTENT_TYPE, "application/x-tar")], body).into_response())
}

/// `PUT /bulkhead/volumes/{name}/import`: unpacks the body, an archive that may be compressed, over
/// what the volume has.
async fn import(
    State(api): State<Api>,
    Path(name): Path<String>,
    request: Request,
) -> Answer<StatusCode> {
    let root = api.engine.volume_files(&name).await?;
    let (stream, fault) = upload(request.into_body().into_data_stream())?;
    let unpacked = tokio::task::spawn_blocking(move || {
        let unpack = Unpack {
            root: root.as_fd(),
            below: std::path::Path::new(""),
            owners: Owners::Archive(None),
            keep_kinds: false,
            limits: Limits::COPY,
        };
        unpack.run(stream)
    });
    let unpacked = unpacked.await.map_err(|panic| ApiError::internal(panic.to_string()))?;
    fault.check("the archive")?;
    unpacked?;
    Ok(StatusCode::NO_CONTENT)
}

/// How many containers, running or not, have the volume.
fn users(volume: &Volume, containers: &[ContainerSnapshot]) -> usize {
    let uses = |container: &&ContainerSnapshot| {
        container.mounts.iter().any(|mount| mount.name.as_deref() == Some(&volume.name))
    };
    containers.iter().filter(uses).count()
}

fn view(volume: &Volume) -> Value {
    let options = match volume.options.given() {
        options if options.is_empty() => Value::Null,
        options => json!(options),
    };
    let labels = if volume.labels.is_empty() { Value::Null } else { json!(volume.labels) };
    json!({
        "CreatedAt": volume.created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "Driver": "local",
        "Labels": labels,
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": options,
        "Scope": "local",
    })
}

/// As `system df` shows it; -1 is Docker's "not known".
pub(crate) async fn with_usage(
    api: &Api,
    volume: &Volume,
    containers: &[ContainerSnapshot],
) -> Value {
    let mut view = view(volume);
    let size = api.engine.volume_size(&volume.name).await.map_or(json!(-1), |size| json!(size));
    view["UsageData"] = json!({ "RefCount": users(volume, containers), "Size": size });
    view
}
