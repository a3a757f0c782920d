//! `GET /containers/json`: what `docker ps` shows.

use axum::extract::State;
use bulkhead_engine::{Class, Container, Status};
use bulkhead_types::{Port, Timestamp};
use serde_json::{Value, json};

use super::view;
use crate::Api;
use crate::clock;
use crate::error::{Answer, ApiError};
use crate::request::Query;

mod selection;

use selection::Selection;

/// `GET /containers/json`
pub(crate) async fn list(State(api): State<Api>, query: Query) -> Answer<axum::Json<Value>> {
    let selection = Selection::of(&api, query.text("filters"))?;
    let limit = query.number::<i64>("limit")?.filter(|limit| *limit > 0);
    // A limit means all containers, not just those that run.
    let all = query.flag("all") || limit.is_some() || selection.wants_all();
    let now = Timestamp::now();
    let shown = api.engine.containers().into_iter().filter(|container| {
        let state = container.state.status;
        (all || matches!(state, Status::Running | Status::Paused | Status::Restarting))
            && selection.selects(container)
    });
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut rows = Vec::new();
    for container in shown.take(limit) {
        let mut row = summary(&api, &container, now);
        if query.flag("size") {
            add_size(&api, &mut row, &container).await?;
        }
        rows.push(row);
    }
    Ok(axum::Json(rows.into()))
}

/// `SizeRw` and `SizeRootFs`; one that is being removed has neither any more.
pub(crate) async fn add_size(
    api: &Api,
    view: &mut Value,
    container: &Container,
) -> Result<(), ApiError> {
    match api.engine.container_size(container.id).await {
        Ok(size) => {
            view["SizeRw"] = json!(size.written);
            view["SizeRootFs"] = json!(size.root);
            Ok(())
        }
        Err(error) if error.class == Class::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// One container as the list shows it; `system df` too.
pub(crate) fn summary(api: &Api, container: &Container, now: Timestamp) -> Value {
    // Once the name means another image, the id says which one this was.
    let image = match api.engine.images().find(&container.image) {
        Ok(image) if image.id == container.image_id => container.image.clone(),
        _ => container.image_id.to_string(),
    };
    let mode = container.host.network_mode.to_string();
    json!({
        "Id": container.id,
        "Names": [format!("/{}", container.name)],
        "Image": image,
        "ImageID": container.image_id,
        "Command": command(&container.arguments),
        "Created": container.created.as_second(),
        "Ports": ports(container),
        "Labels": container.config.labels,
        "State": container.state.status,
        "Status": status_text(container, now),
        "HostConfig": { "NetworkMode": mode },
        "NetworkSettings": { "Networks": view::networks(container) },
        "Mounts": view::mounts(&container.mounts),
    })
}

/// The words, quoted where they hold spaces (moby: container/view.go).
fn command(arguments: &[String]) -> String {
    let words = arguments.iter().enumerate().map(|(index, word)| {
        if index > 0 && word.contains(' ') { format!("'{word}'") } else { word.clone() }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn ports(container: &Container) -> Value {
    if !matches!(container.state.status, Status::Running | Status::Paused) {
        return json!([]);
    }
    let published = container.network.ports.iter().map(|port| {
        json!({
            "IP": port.host_address.to_string(),
            "PrivatePort": port.container_port,
            "PublicPort": port.host_port,
            "Type": port.protocol,
        })
    });
    let is_published =
        |exposed: &Port| container.network.ports.iter().any(|binding| binding.port() == *exposed);
    let exposed = container.config.exposed_ports.iter().filter(|port| !is_published(port));
    let exposed =
        exposed.map(|port| json!({ "PrivatePort": port.number(), "Type": port.protocol() }));
    published.chain(exposed).collect()
}

/// `Up 24 seconds`, `Exited (3) 5 minutes ago` (moby: container/state.go).
fn status_text(container: &Container, now: Timestamp) -> String {
    let state = &container.state;
    let ago = |time: Option<Timestamp>| clock::since(time.unwrap_or(now), now);
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Running => format!("Up {}", ago(state.started_at)),
        Status::Paused => format!("Up {} (Paused)", ago(state.started_at)),
        Status::Restarting => {
            format!("Restarting ({}) {} ago", state.exit_code, ago(state.finished_at))
        }
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, ago(state.finished_at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::view::tests::example;

    #[test]
    fn status_reads_like_docker() {
        let mut container = example();
        let start: Timestamp = "2026-11-23T19:00:00Z".parse().expect("a time");
        let now: Timestamp = "2026-11-23T19:00:24Z".parse().expect("a time");
        container.state.started_at = Some(start);
        assert_eq!(status_text(&container, now), "Up 24 seconds");
        container.state.status = Status::Paused;
        assert_eq!(status_text(&container, now), "Up 24 seconds (Paused)");
        container.state.status = Status::Exited;
        container.state.exit_code = 3;
        container.state.finished_at = Some(now);
        assert_eq!(status_text(&container, now), "Exited (3) Less than a second ago");
    }

    #[test]
    fn exposed_ports_are_listed_after_published_ones() {
        assert_eq!(
            ports(&example()),
            json!([
                {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
                {"PrivatePort": 53, "Type": "udp"},
            ])
        );
        let words = ["sh", "-c", "echo hi"].map(str::to_owned);
        assert_eq!(command(&words), "sh -c 'echo hi'");
    }
}
