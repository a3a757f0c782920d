//! `POST /commit`: an image of what a container changed.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bulkhead_engine::{Container, ContainerAction, ContainerConfig, EngineError, ImageAction};
use bulkhead_types::image::{Config, Empty, Healthcheck, History, Platform};
use bulkhead_types::{Reference, Timestamp};
use http::StatusCode;
use serde_json::json;

use super::{changes, named};
use crate::Api;
use crate::error::{Answer, ApiError};
use crate::request::{Json, Query};

/// The body may have a configuration to lay over the container's; the CLI sends `null`.
pub(crate) async fn commit(
    State(api): State<Api>,
    query: Query,
    Json(given): Json<Option<Config>>,
) -> Answer<Response> {
    let name = query.text("container");
    let container = api.engine.container(name)?;
    let references = match query.text("repo") {
        "" => vec![],
        repository => vec![named(repository, query.text("tag"))?],
    };
    let own = config_of(&container.config);
    // Of nothing and of an empty configuration the same comes.
    let config = match given.filter(|given| *given != Config::default()) {
        None => {
            let mut config = own;
            changes::apply(&mut config, query.all("changes"))?;
            config
        }
        Some(mut config) => {
            changes::apply(&mut config, query.all("changes"))?;
            laid_over(config, own)
        }
    };
    let _unnamed = api.engine.images().hold_content().await;
    let layer = api
        .engine
        .changed_layer(api.engine.container_id(name)?, query.flag_or("pause", true))
        .await?;
    let base = api.engine.images().find(&container.image_id.to_string())?;
    let parent = base.id;
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
    let reference = references.first().map(Reference::familiar);
    let image = image.map_err(EngineError::from)?;
    let image = api.engine.add_committed(image, parent, references).await?;
    let committed = ContainerAction::Commit {
        comment: query.text("comment").to_owned(),
        image: image.id,
        reference: reference.clone().unwrap_or_default(),
    };
    api.engine.container_event(api.engine.container_id(name)?, committed);
    if let Some(reference) = reference {
        api.engine.image_event(image.id, ImageAction::Tag, &reference);
    }
    Ok((StatusCode::CREATED, axum::Json(json!({ "Id": image.id }))).into_response())
}

fn created_by(container: &Container) -> String {
    container.arguments.join(" ")
}

/// `given`, with the container's own where it says nothing (moby: daemon/commit.go, `merge`).
fn laid_over(mut given: Config, own: Config) -> Config {
    if given.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        if given.cmd.as_ref().is_none_or(Vec::is_empty) {
            given.cmd = own.cmd;
        }
        given.entrypoint = given.entrypoint.or(own.entrypoint);
    }
    fn name(pair: &str) -> &str {
        pair.split_once('=').map_or(pair, |(name, _)| name)
    }
    let environment = given.env.get_or_insert_default();
    for pair in own.env.unwrap_or_default() {
        if !environment.iter().any(|set| name(set) == name(&pair)) {
            environment.push(pair);
        }
    }
    let mut labels = own.labels.unwrap_or_default();
    labels.extend(given.labels.unwrap_or_default());
    let mut ports = own.exposed_ports.unwrap_or_default();
    ports.extend(given.exposed_ports.unwrap_or_default());
    let mut volumes = own.volumes.unwrap_or_default();
    volumes.extend(given.volumes.unwrap_or_default());
    let text = |given: String, own: String| if given.is_empty() { own } else { given };
    Config {
        user: text(given.user, own.user),
        working_dir: text(given.working_dir, own.working_dir),
        labels: Some(labels).filter(|labels| !labels.is_empty()),
        exposed_ports: Some(ports).filter(|ports| !ports.is_empty()),
        volumes: Some(volumes).filter(|volumes| !volumes.is_empty()),
        healthcheck: match (given.healthcheck, own.healthcheck) {
            (Some(given), Some(own)) => Some(Healthcheck {
                test: if given.test.is_empty() { own.test } else { given.test },
                interval: non_zero(given.interval, own.interval),
                timeout: non_zero(given.timeout, own.timeout),
                start_period: non_zero(given.start_period, own.start_period),
                start_interval: non_zero(given.start_interval, own.start_interval),
                retries: non_zero(given.retries, own.retries),
            }),
            (given, own) => given.or(own),
        },
        stop_signal: given.stop_signal.or(own.stop_signal),
        ..given
    }
}

fn non_zero(given: i64, own: i64) -> i64 {
    if given == 0 { own } else { given }
}

/// What of a container's configuration an image can carry.
fn config_of(container: &ContainerConfig) -> Config {
    let set = |names: Vec<String>| {
        let set: std::collections::BTreeMap<_, _> =
            names.into_iter().map(|name| (name, Empty {})).collect();
        (!set.is_empty()).then_some(set)
    };
    let ports = container.exposed_ports.iter().map(ToString::to_string);
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
        shell: container.shell.clone(),
        on_build: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_configuration_is_laid_over_the_containers() {
        let config = |json| -> Config { serde_json::from_value(json).expect("a configuration") };
        let own = || {
            config(json!({
                "User": "app", "Cmd": ["a"], "Env": ["A=1", "B=1"], "Labels": { "x": "1" },
                "ExposedPorts": { "80/tcp": {} }, "StopSignal": "SIGINT",
                "Healthcheck": { "Test": ["CMD", "t"], "Interval": 5 },
            }))
        };
        assert_eq!(laid_over(config(json!({})), own()), own());
        let given = config(json!({
            "Entrypoint": ["e"], "Env": ["B=2"], "Labels": { "x": "2", "y": "3" },
            "Healthcheck": { "Retries": 7 }, "WorkingDir": "/w",
        }));
        let want = config(json!({
            "User": "app", "Entrypoint": ["e"], "Env": ["B=2", "A=1"],
            "Labels": { "x": "2", "y": "3" }, "ExposedPorts": { "80/tcp": {} },
            "StopSignal": "SIGINT", "WorkingDir": "/w",
            "Healthcheck": { "Test": ["CMD", "t"], "Interval": 5, "Retries": 7 },
        }));
        assert_eq!(laid_over(given, own()), want);
    }
}
