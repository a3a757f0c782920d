use axum::extract::State;
use bulkhead_engine::{Container, Status};
use bulkhead_types::Timestamp;
use serde_json::{Value, json};

use super::create::port_name;
use super::view;
use crate::Api;
use crate::clock;
use crate::error::{Answer, ApiError};
use crate::filters::{Filters, matches_pattern};
use crate::request::Query;

const FILTERS: [&str; 16] = [
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
    "label!",
];

/// `GET /containers/json`
pub(crate) async fn list(State(api): State<Api>, query: Query) -> Answer<axum::Json<Value>> {
    let filters = Filters::from_query(&query, &FILTERS)?;
    let limit = query.number::<i64>("limit")?.filter(|limit| *limit > 0);
    let status = statuses(&filters)?;
    // A limit or a filter on the status means all containers, not just those that run.
    let all = query.flag("all")
        || limit.is_some()
        || !status.is_empty()
        || ["before", "since", "exited"].iter().any(|name| !filters.values(name).is_empty());
    let before = newest(&api, &filters, "before")?;
    let since = newest(&api, &filters, "since")?;
    let ancestors: Vec<String> = filters
        .values("ancestor")
        .iter()
        .map(|name| api.engine.image(name).map_or_else(|_| name.clone(), |i| i.id.to_string()))
        .collect();
    let now = Timestamp::now();
    let shown = api.engine.containers().into_iter().filter(|container| {
        let state = container.state.status;
        (all || matches!(state, Status::Running | Status::Paused | Status::Restarting))
            && (status.is_empty() || status.contains(&state))
            && before.is_none_or(|before| container.created < before)
            && since.is_none_or(|since| container.created > since)
            && (ancestors.is_empty()
                || ancestors.contains(&container.image_id.to_string())
                || ancestors.contains(&container.image))
            && passes(container, &filters)
    });
    let shown = shown.take(limit.map_or(usize::MAX, |limit| limit as usize));
    Ok(axum::Json(shown.map(|container| summary(&api, &container, now)).collect()))
}

/// The filters that need nothing but the container.
fn passes(container: &Container, filters: &Filters) -> bool {
    let id = container.id.to_string();
    let exit_code = container.state.exit_code.to_string();
    let ports = &container.network.ports;
    filters.labels(&container.config.labels)
        && filters.any("id", |prefix| id.starts_with(prefix))
        && filters.any("name", |pattern| {
            matches_pattern(pattern, &format!("/{}", container.name))
                || matches_pattern(pattern, container.name.as_str())
        })
        && filters
            .any("exited", |code| container.state.status == Status::Exited && code == exit_code)
        && filters.any("network", |network| {
            container.network.mode == network
                || container.network.network_id.is_some_and(|id| id.to_string() == network)
        })
        && filters.any("volume", |volume| {
            container
                .mounts
                .iter()
                .any(|mount| mount.name.as_deref() == Some(volume) || mount.target == volume)
        })
        && filters.any("publish", |text| {
            ports.iter().any(|port| is_port(text, port.host_port, port.protocol))
        })
        && filters.any("expose", |text| {
            let exposed = &container.config.exposed_ports;
            exposed.iter().any(|(port, protocol)| is_port(text, *port, *protocol))
        })
        && filters.any("is-task", |value| matches!(value, "0" | "false"))
        && filters.any("isolation", |value| value == "default")
        && filters.any("health", |value| value == "none")
}

fn is_port(text: &str, port: u16, protocol: bulkhead_network::Protocol) -> bool {
    text == port_name(port, protocol)
        || (text == port.to_string() && protocol == bulkhead_network::Protocol::Tcp)
}

fn statuses(filters: &Filters) -> Result<Vec<Status>, ApiError> {
    let status = |name: &String| {
        serde_json::from_value(Value::from(name.as_str()))
            .map_err(|_| ApiError::invalid(format!("invalid filter 'status={name}'")))
    };
    filters.values("status").iter().map(status).collect()
}

/// When the newest of the containers that a `before` or `since` filter names was made.
fn newest(api: &Api, filters: &Filters, name: &str) -> Result<Option<Timestamp>, ApiError> {
    let created = filters
        .values(name)
        .iter()
        .map(|container| Ok(api.engine.container(container)?.created))
        .collect::<Result<Vec<_>, ApiError>>()?;
    Ok(created.into_iter().max())
}

/// One container as the list shows it; `system df` too.
pub(crate) fn summary(api: &Api, container: &Container, now: Timestamp) -> Value {
    // Once the name means another image, the id says which one this was.
    let image = match api.engine.image(&container.image) {
        Ok(image) if image.id == container.image_id => container.image.clone(),
        _ => container.image_id.to_string(),
    };
    let mode = match container.host.network_mode.as_str() {
        "" | "default" => "bridge",
        mode => mode,
    };
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
            "Type": view::protocol_name(port.protocol),
        })
    });
    let is_published = |exposed: &(u16, bulkhead_network::Protocol)| {
        container.network.ports.iter().any(|p| (p.container_port, p.protocol) == *exposed)
    };
    let exposed = container.config.exposed_ports.iter().filter(|port| !is_published(port));
    let exposed = exposed.map(
        |(port, protocol)| json!({ "PrivatePort": port, "Type": view::protocol_name(*protocol) }),
    );
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
    fn filters_on_containers() {
        for (filters, shown) in [
            (r#"{"name":["we"]}"#, true),
            (r#"{"name":["^/web$"]}"#, true),
            (r#"{"name":["^we$"]}"#, false),
            (r#"{"id":["abab"]}"#, true),
            (r#"{"id":["cd"]}"#, false),
            (r#"{"label":["a=b"]}"#, true),
            (r#"{"publish":["8080"]}"#, true),
            (r#"{"publish":["8080/udp"]}"#, false),
            (r#"{"expose":["53/udp"]}"#, true),
            (r#"{"network":["bridge"]}"#, true),
            (r#"{"exited":["0"]}"#, false),
        ] {
            let parsed = Filters::parse(filters, &FILTERS).expect(filters);
            assert_eq!(passes(&example(), &parsed), shown, "{filters}");
        }
    }

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
