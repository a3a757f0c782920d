//! `GET /containers/json`: what `docker ps` shows.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bulkhead_engine::{Class, Container, ContainerSnapshot, HealthStatus, NetworkMode, Status};
use bulkhead_network::Protocol;
use bulkhead_types::{Digest, Id, Port, Timestamp};
use http::header::CONTENT_TYPE;
use serde::Serialize;
use serde_json::{Value, json};

use super::endpoints::Networks;
use super::view;
use crate::Api;
use crate::clock;
use crate::error::{Answer, ApiError};
use crate::request::Query;

mod selection;

use selection::Selection;

/// `GET /containers/json`
pub(crate) async fn list(State(api): State<Api>, query: Query) -> Answer<Response> {
    let (containers, links) = selected(&api, &query)?;
    let mut summaries = Summaries::new(&api, links);
    let mut rows: Vec<Summary<'_>> =
        containers.iter().map(|container| summaries.summary(container)).collect();
    if query.flag("size") {
        for row in &mut rows {
            row.size = size(&api, row.id).await?;
        }
    }
    answer(&rows, rows.len() * 1024)
}

/// `GET /bulkhead/containers/json`: the members of Docker's list that a table shows, a quarter of it.
/// Most of the time that `bulkhead ps` takes among a thousand containers is their way through JSON.
pub(crate) async fn table(State(api): State<Api>, query: Query) -> Answer<Response> {
    let (containers, links) = selected(&api, &query)?;
    let mut summaries = Summaries::new(&api, links);
    let rows: Vec<Row<'_>> = containers.iter().map(|container| summaries.row(container)).collect();
    answer(&rows, rows.len() * 320)
}

/// The containers that a request asks for, newest first, and the names that links give to any.
fn selected(api: &Api, query: &Query) -> Answer<(Vec<ContainerSnapshot>, LinkNames)> {
    let selection = Selection::of(api, query.text("filters"))?;
    let limit = query.number::<i64>("limit")?.filter(|limit| *limit > 0);
    // A limit means all containers, not just those that run.
    let all = query.flag("all") || limit.is_some() || selection.wants_all();
    let mut containers = api.engine.containers();
    let links = link_names(api, &containers);
    containers.retain(|container| {
        let state = container.state.status;
        (all || matches!(state, Status::Running | Status::Paused | Status::Restarting))
            && selection.selects(container)
    });
    containers
        .truncate(limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)));
    Ok((containers, links))
}

/// Written straight from the records: a thousand of them are listed several times a second.
fn answer(rows: &impl Serialize, expected_bytes: usize) -> Answer<Response> {
    let mut text = Vec::with_capacity(expected_bytes);
    serde_json::to_writer(&mut text, rows)
        .map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(([(CONTENT_TYPE, "application/json")], text).into_response())
}

/// `SizeRw` and `SizeRootFs`, for a container as `inspect` shows it.
pub(crate) async fn add_size(api: &Api, view: &mut Value, id: Id) -> Result<(), ApiError> {
    if let Some(Size { written, root }) = size(api, id).await? {
        view["SizeRw"] = json!(written);
        view["SizeRootFs"] = json!(root);
    }
    Ok(())
}

/// One that is being removed has none any more.
pub(crate) async fn size(api: &Api, id: Id) -> Result<Option<Size>, ApiError> {
    match api.engine.container_size(id).await {
        Ok(size) => Ok(Some(Size { written: size.written, root: size.root })),
        Err(error) if error.class == Class::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Bytes.
#[derive(Debug, Serialize)]
pub(crate) struct Size {
    #[serde(rename = "SizeRw")]
    written: u64,
    #[serde(rename = "SizeRootFs")]
    root: u64,
}

/// One container as the list shows it; `system df` too.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Summary<'a> {
    id: Id,
    names: Vec<String>,
    image: Cow<'a, str>,
    #[serde(rename = "ImageID")]
    image_id: Digest,
    command: String,
    created: i64,
    ports: Vec<PortSummary>,
    labels: &'a BTreeMap<String, String>,
    state: Status,
    status: String,
    host_config: HostSummary,
    network_settings: NetworkSummary<'a>,
    mounts: Value,
    #[serde(flatten)]
    pub(crate) size: Option<Size>,
}

/// What a table shows of a [`Summary`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row<'a> {
    id: Id,
    names: Vec<String>,
    image: Cow<'a, str>,
    command: String,
    created: i64,
    ports: Vec<PortSummary>,
    status: String,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct PortSummary {
    #[serde(rename = "IP", skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    private_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    public_port: Option<u16>,
    r#type: Protocol,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct HostSummary {
    network_mode: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSummary<'a> {
    networks: Networks<'a>,
}

/// Makes summaries at one moment, and looks each image up once.
pub(crate) struct Summaries<'a> {
    api: &'a Api,
    now: Timestamp,
    images: HashMap<&'a str, Option<Digest>>,
    link_names: LinkNames,
}

/// `/web/store` of the container that `web` calls `store` by a link, for each that is linked to.
pub(crate) type LinkNames = HashMap<Id, Vec<String>>;

/// Only links on the default bridge are names (moby: daemon/links.go, `registerLinks`).
pub(crate) fn link_names(api: &Api, containers: &[ContainerSnapshot]) -> LinkNames {
    let mut names = LinkNames::new();
    let linking = containers.iter().filter(|container| {
        !container.host.links.is_empty() && container.host.network_mode == NetworkMode::Bridge
    });
    for container in linking {
        for link in &container.host.links {
            // One that was removed has no names any more.
            if let Ok(target) = api.engine.container_id(&link.container) {
                let name = format!("/{}/{}", container.name, link.alias);
                names.entry(target).or_default().push(name);
            }
        }
    }
    names.values_mut().for_each(|names| names.sort());
    names
}

impl<'a> Summaries<'a> {
    pub(crate) fn new(api: &'a Api, link_names: LinkNames) -> Self {
        Self { api, now: Timestamp::now(), images: HashMap::new(), link_names }
    }

    /// Its own first: not every client looks for the one without a second slash.
    fn names(&mut self, container: &Container) -> Vec<String> {
        let mut names = vec![format!("/{}", container.name)];
        names.extend(self.link_names.remove(&container.id).into_iter().flatten());
        names
    }

    /// Once the name means another image, the id says which one this was.
    fn image(&mut self, container: &'a Container) -> Cow<'a, str> {
        let meant = *self.images.entry(&container.image).or_insert_with(|| {
            self.api.engine.images().find(&container.image).ok().map(|image| image.id)
        });
        match meant == Some(container.image_id) {
            true => Cow::Borrowed(container.image.as_str()),
            false => Cow::Owned(container.image_id.to_string()),
        }
    }

    fn row(&mut self, container: &'a Container) -> Row<'a> {
        Row::of(container, self.names(container), self.image(container), self.now)
    }

    pub(crate) fn summary(&mut self, container: &'a Container) -> Summary<'a> {
        Summary::of(container, self.names(container), self.image(container), self.now)
    }
}

impl<'a> Row<'a> {
    fn of(
        container: &'a Container,
        names: Vec<String>,
        image: Cow<'a, str>,
        now: Timestamp,
    ) -> Self {
        Self {
            id: container.id,
            names,
            image,
            command: command(&container.arguments),
            created: container.created.as_second(),
            ports: ports(container),
            status: status_text(container, now),
        }
    }
}

impl<'a> Summary<'a> {
    fn of(
        container: &'a Container,
        names: Vec<String>,
        image: Cow<'a, str>,
        now: Timestamp,
    ) -> Self {
        Self {
            id: container.id,
            names,
            image,
            image_id: container.image_id,
            command: command(&container.arguments),
            created: container.created.as_second(),
            ports: ports(container),
            labels: &container.config.labels,
            state: container.state.status,
            status: status_text(container, now),
            host_config: HostSummary { network_mode: container.host.network_mode.to_string() },
            network_settings: NetworkSummary { networks: Networks::of(container) },
            mounts: view::mounts(container),
            size: None,
        }
    }
}

/// The words, quoted where they hold spaces (moby: container/view.go).
fn command(arguments: &[String]) -> String {
    let words = arguments.iter().enumerate().map(|(index, word)| {
        if index > 0 && word.contains(' ') { format!("'{word}'") } else { word.clone() }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn ports(container: &Container) -> Vec<PortSummary> {
    if !matches!(container.state.status, Status::Running | Status::Paused) {
        return Vec::new();
    }
    let bindings = &container.network.ports;
    let published = bindings.iter().map(|port| PortSummary {
        address: Some(port.host_address),
        private_port: port.container_port,
        public_port: (port.host_port != 0).then_some(port.host_port),
        r#type: port.protocol,
    });
    let is_published = |exposed: &Port| bindings.iter().any(|binding| binding.port() == *exposed);
    let exposed = view::exposed(container).iter().filter(|port| !is_published(port));
    let exposed = exposed.map(|port| PortSummary {
        address: None,
        private_port: port.number(),
        public_port: None,
        r#type: port.protocol(),
    });
    published.chain(exposed).collect()
}

/// `Up 24 seconds`, `Exited (3) 5 minutes ago` (moby: container/state.go).
fn status_text(container: &Container, now: Timestamp) -> String {
    let state = &container.state;
    let ago = |time: Option<Timestamp>| clock::since(time.unwrap_or(now), now);
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Running => {
            let health = match state.health.as_ref().map(|health| health.status) {
                None => "",
                Some(HealthStatus::Starting) => " (health: starting)",
                Some(HealthStatus::Healthy) => " (healthy)",
                Some(HealthStatus::Unhealthy) => " (unhealthy)",
            };
            format!("Up {}{health}", ago(state.started_at))
        }
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

    fn names() -> Vec<String> {
        vec!["/web".to_owned()]
    }

    #[test]
    fn status_reads_like_docker() {
        let mut container = example();
        let start: Timestamp = "2026-11-23T19:00:00Z".parse().expect("a time");
        let now: Timestamp = "2026-11-23T19:00:24Z".parse().expect("a time");
        container.state.started_at = Some(start);
        assert_eq!(status_text(&container, now), "Up 24 seconds");
        for (status, text) in [
            (HealthStatus::Starting, "Up 24 seconds (health: starting)"),
            (HealthStatus::Healthy, "Up 24 seconds (healthy)"),
            (HealthStatus::Unhealthy, "Up 24 seconds (unhealthy)"),
        ] {
            let health = bulkhead_engine::Health { status, failing_streak: 0, log: Vec::new() };
            container.state.health = Some(health);
            assert_eq!(status_text(&container, now), text);
        }
        container.state.status = Status::Paused;
        assert_eq!(status_text(&container, now), "Up 24 seconds (Paused)");
        container.state.status = Status::Exited;
        container.state.exit_code = 3;
        container.state.finished_at = Some(now);
        assert_eq!(status_text(&container, now), "Exited (3) Less than a second ago");
    }

    /// Docker's members in Docker's order (moby: api/types/container, `Summary`).
    #[test]
    fn the_list_is_dockers() {
        let mut container = example();
        let now: Timestamp = "2026-11-23T19:28:55Z".parse().expect("a time");
        container.state.started_at = Some(container.created);
        let id = "ab".repeat(32);
        let image = Digest::of(b"image");
        let summary = Summary::of(&container, names(), "busybox".into(), now);
        let endpoint = format!(
            r#"{{"IPAMConfig":null,"Links":null,"Aliases":null,"MacAddress":"02:42:ac:11:00:02","DriverOpts":null,"GwPriority":0,"NetworkID":"{id}","EndpointID":"{id}","Gateway":"172.17.0.1","IPAddress":"172.17.0.2","IPPrefixLen":16,"IPv6Gateway":"","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"DNSNames":null}}"#
        );
        assert_eq!(
            serde_json::to_string(&summary).expect("JSON"),
            format!(
                r#"{{"Id":"{id}","Names":["/web"],"Image":"busybox","ImageID":"{image}","Command":"sleep 1","Created":1795462076,"Ports":[{{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"}},{{"PrivatePort":53,"Type":"udp"}}],"Labels":{{"a":"b"}},"State":"running","Status":"Up 59 seconds","HostConfig":{{"NetworkMode":"bridge"}},"NetworkSettings":{{"Networks":{{"bridge":{endpoint}}}}},"Mounts":[]}}"#
            )
        );
    }

    /// A client that knows both lists reads the same from either.
    #[test]
    fn a_table_has_the_members_of_the_list() {
        let container = example();
        let now = Timestamp::now();
        let row = json!(Row::of(&container, names(), "busybox".into(), now));
        let summary = json!(Summary::of(&container, names(), "busybox".into(), now));
        for (member, value) in row.as_object().expect("an object") {
            assert_eq!(summary.get(member), Some(value), "{member}");
        }
    }

    #[test]
    fn exposed_ports_are_listed_after_published_ones() {
        assert_eq!(
            json!(ports(&example())),
            json!([
                {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
                {"PrivatePort": 53, "Type": "udp"},
            ])
        );
        let words = ["sh", "-c", "echo hi"].map(str::to_owned);
        assert_eq!(command(&words), "sh -c 'echo hi'");
    }
}
