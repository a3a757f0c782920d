//! `POST /commit`: an image of what a container changed.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bulkhead_engine::{Container, ContainerConfig, EngineError};
use bulkhead_types::Timestamp;
use bulkhead_types::image::{Config, Empty, History, Platform};
use http::StatusCode;
use serde_json::json;

use super::{changes, named};
use crate::Api;
use crate::container::create::port_name;
use crate::error::{Answer, ApiError};
use crate::request::Query;

pub(crate) async fn commit(State(api): State<Api>, query: Query) -> Answer<Response> {
    let name = query.text("container");
    let container = api.engine.container(name)?;
    let references = match query.text("repo") {
        "" => vec![],
        repository => vec![named(repository, query.text("tag"))?],
    };
    let mut config = config_of(&container.config);
    for changes in query.all("changes") {
        for change in changes.lines().filter(|line| !line.trim().is_empty()) {
            changes::apply(&mut config, change)?;
        }
    }
    let _unnamed = api.engine.hold_content().await;
    let layer = api.engine.changed_layer(name, query.flag_or("pause", true)).await?;
    let base = api.engine.image(&container.image_id.to_string())?;
    let content = api.engine.content();
    let (author, comment) = (query.text("author").to_owned(), query.text("comment").to_owned());
    let image = tokio::task::spawn_blocking(move || {
        let mut image = base.config;
        let mut layers = content.manifest(base.id)?.layers;
        let now = Timestamp::now().to_string();
        image.created = Some(now.clone());
        image.author.clone_from(&author);
        image.config = config;
        image.history.push(History {
            created: Some(now),
            created_by: created_by(&container),
            author,
            comment,
            empty_layer: layer.is_none(),
        });
        if let Some(layer) = layer {
            image.rootfs.diff_ids.push(layer.diff_id);
            layers.push(layer.descriptor);
        }
        let host = Platform::host();
        (image.architecture, image.os) = (host.architecture, host.os);
        content.write_image(&image, &layers)
    });
    let image = image.await.map_err(|panic| ApiError::internal(panic.to_string()))?;
    let image = api.engine.add_image(image.map_err(EngineError::from)?, references).await?;
    Ok((StatusCode::CREATED, axum::Json(json!({ "Id": image.id }))).into_response())
}

fn created_by(container: &Container) -> String {
    container.arguments.join(" ")
}

/// What of a container's configuration an image can carry.
fn config_of(container: &ContainerConfig) -> Config {
    let set = |names: Vec<String>| {
        let set: std::collections::BTreeMap<_, _> =
            names.into_iter().map(|name| (name, Empty {})).collect();
        (!set.is_empty()).then_some(set)
    };
    let ports = container.exposed_ports.iter().map(|(port, protocol)| port_name(*port, *protocol));
    Config {
        user: container.user.clone(),
        exposed_ports: set(ports.collect()),
        env: Some(container.env.clone()),
        entrypoint: container.entrypoint.clone(),
        cmd: container.cmd.clone(),
        healthcheck: container.healthcheck.clone(),
        volumes: set(container.volumes.clone()),
        working_dir: container.working_dir.clone(),
        labels: Some(container.labels.clone()).filter(|labels| !labels.is_empty()),
        stop_signal: container.stop_signal.clone(),
        shell: None,
        on_build: None,
    }
}
