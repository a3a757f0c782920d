//! Which containers a list shows: the `filters` parameter, read once.

use bulkhead_engine::{Container, Status};
use bulkhead_network::Protocol;
use bulkhead_types::Timestamp;
use serde_json::Value;

use crate::Api;
use crate::error::ApiError;
use crate::filters::{Filters, Patterns};

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
    "label!",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

/// What every container in a list must be.
#[derive(Debug)]
pub(super) struct Selection {
    filters: Filters,
    names: Patterns,
    ids: Patterns,
    statuses: Vec<Status>,
    exit_codes: Vec<i64>,
    published: Vec<PortRange>,
    exposed: Vec<PortRange>,
    /// Ids, and the names of images that are not here.
    ancestors: Vec<String>,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
}

impl Selection {
    /// Reads what needs no engine, and refuses what is not understood.
    fn parse(text: &str) -> Result<Self, ApiError> {
        let filters = Filters::parse(text, &FILTERS)?;
        filters.one_of("health", &["starting", "healthy", "unhealthy", "none"])?;
        filters.boolean("is-task")?;
        let status = |name: &String| {
            serde_json::from_value(Value::from(name.as_str()))
                .map_err(|_| ApiError::invalid(format!("invalid filter 'status={name}'")))
        };
        let ports = |name: &str| -> Result<Vec<PortRange>, ApiError> {
            filters.values(name).iter().map(|value| PortRange::parse(name, value)).collect()
        };
        Ok(Self {
            names: filters.patterns("name")?,
            ids: filters.patterns("id")?,
            statuses: filters.values("status").iter().map(status).collect::<Result<_, _>>()?,
            exit_codes: filters.numbers("exited")?,
            published: ports("publish")?,
            exposed: ports("expose")?,
            ancestors: Vec::new(),
            before: None,
            since: None,
            filters,
        })
    }

    /// Reads the `filters` parameter, and looks up the containers and images that it names.
    pub(super) fn of(api: &Api, text: &str) -> Result<Self, ApiError> {
        let selection = Self::parse(text)?;
        let filters = &selection.filters;
        let ancestors = filters.values("ancestor").iter();
        let image_id = |name: &String| match api.engine.images().find(name) {
            Ok(image) => image.id.to_string(),
            Err(_) => name.clone(),
        };
        Ok(Self {
            ancestors: ancestors.map(image_id).collect(),
            before: newest(api, filters, "before")?,
            since: newest(api, filters, "since")?,
            ..selection
        })
    }

    /// A filter on what has ended means all containers, not just those that run.
    pub(super) fn wants_all(&self) -> bool {
        !self.statuses.is_empty()
            || !self.exit_codes.is_empty()
            || self.before.is_some()
            || self.since.is_some()
    }

    pub(super) fn selects(&self, container: &Container) -> bool {
        let status = container.state.status;
        let filters = &self.filters;
        let health = container.state.health.as_ref().map_or("none", |health| health.status.name());
        (self.statuses.is_empty() || self.statuses.contains(&status))
            && (self.exit_codes.is_empty()
                || (status == Status::Exited
                    && self.exit_codes.contains(&i64::from(container.state.exit_code))))
            && self.before.is_none_or(|before| container.created < before)
            && self.since.is_none_or(|since| container.created > since)
            && (self.ancestors.is_empty()
                || self.ancestors.contains(&container.image_id.to_string())
                || self.ancestors.contains(&container.image))
            && filters.labels(&container.config.labels)
            && self.ids.any(&container.id.to_string())
            && (self.names.any(&format!("/{}", container.name))
                || self.names.any(container.name.as_str()))
            && filters.any("network", |network| {
                let endpoints = &container.endpoints;
                endpoints.iter().any(|endpoint| endpoint.network == network)
                    || (endpoints.is_empty() && container.network.stack.to_string() == network)
                    || container
                        .network
                        .attachments
                        .iter()
                        .any(|attachment| attachment.network.to_string() == network)
            })
            && filters.any("volume", |volume| {
                container
                    .mounts
                    .iter()
                    .any(|mount| mount.name.as_deref() == Some(volume) || mount.target == volume)
            })
            && self.ports_are_selected(container)
            && filters.any("is-task", |value| matches!(value, "0" | "false" | "f" | "False"))
            && filters.any("isolation", |value| value == "default")
            && filters.any("health", |value| value == health)
    }

    /// Docker compares the container's side of what is published; people mean the host's as often.
    fn ports_are_selected(&self, container: &Container) -> bool {
        let published = |range: &PortRange| {
            container.network.ports.iter().any(|port| {
                range.holds(port.host_port, port.protocol)
                    || range.holds(port.container_port, port.protocol)
            })
        };
        let exposed = |range: &PortRange| {
            let exposed = &container.config.exposed_ports;
            exposed.iter().any(|port| range.holds(port.number(), port.protocol()))
        };
        (self.published.is_empty() || self.published.iter().any(published))
            && (self.exposed.is_empty() || self.exposed.iter().any(exposed))
    }
}

/// `80`, `80/udp`, `9100-9200/tcp`: tcp unless it is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PortRange {
    first: u16,
    last: u16,
    protocol: Protocol,
}

impl PortRange {
    fn parse(filter: &str, text: &str) -> Result<Self, ApiError> {
        let invalid = || {
            ApiError::invalid(format!(
                "invalid filter '{filter}={text}': write a port or a range, such as 80 or \
                 9100-9200/udp"
            ))
        };
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return Err(invalid()),
        };
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let (Ok(first), Ok(last)) = (first.parse(), last.parse()) else { return Err(invalid()) };
        if first > last {
            return Err(invalid());
        }
        Ok(Self { first, last, protocol })
    }

    fn holds(self, port: u16, protocol: Protocol) -> bool {
        protocol == self.protocol && (self.first..=self.last).contains(&port)
    }
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

#[cfg(test)]
mod tests {
    use bulkhead_engine::{Health, HealthStatus};

    use super::*;
    use crate::container::view::tests::example;

    #[test]
    fn filters_on_containers() {
        for (filters, shown) in [
            (r#"{"name":["we"]}"#, true),
            (r#"{"name":["^/web$"]}"#, true),
            (r#"{"name":["^we$"]}"#, false),
            (r#"{"name":["w[aeiou]b"]}"#, true),
            (r#"{"name":["^(web|db)$"]}"#, true),
            (r#"{"id":["abab"]}"#, true),
            (r#"{"id":["cd"]}"#, false),
            (r#"{"label":["a=b"]}"#, true),
            (r#"{"publish":["8080"]}"#, true),
            (r#"{"publish":["80"]}"#, true),
            (r#"{"publish":["8000-8100"]}"#, true),
            (r#"{"publish":["8081-8100/tcp"]}"#, false),
            (r#"{"publish":["8080/udp"]}"#, false),
            (r#"{"expose":["53/udp"]}"#, true),
            (r#"{"expose":["50-60/udp"]}"#, true),
            (r#"{"network":["bridge"]}"#, true),
            (r#"{"exited":["0"]}"#, false),
            (r#"{"health":["none","healthy"]}"#, true),
            (r#"{"health":["healthy"]}"#, false),
        ] {
            let selection = Selection::parse(filters).expect(filters);
            assert_eq!(selection.selects(&example()), shown, "{filters}");
        }
    }

    #[test]
    fn containers_are_found_by_their_health() {
        let mut container = example();
        container.state.health =
            Some(Health { status: HealthStatus::Unhealthy, failing_streak: 0, log: Vec::new() });
        for (filters, shown) in [
            (r#"{"health":["unhealthy"]}"#, true),
            (r#"{"health":["starting","unhealthy"]}"#, true),
            (r#"{"health":["healthy"]}"#, false),
            (r#"{"health":["none"]}"#, false),
        ] {
            let selection = Selection::parse(filters).expect(filters);
            assert_eq!(selection.selects(&container), shown, "{filters}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for filters in [
            r#"{"exited":["x"]}"#,
            r#"{"publish":["80-"]}"#,
            r#"{"publish":["90-80"]}"#,
            r#"{"expose":["53/icmp"]}"#,
            r#"{"name":["a["]}"#,
            r#"{"status":["gone"]}"#,
            r#"{"health":["fine"]}"#,
            r#"{"is-task":["perhaps"]}"#,
            r#"{"colour":["red"]}"#,
        ] {
            assert!(Selection::parse(filters).is_err(), "{filters}");
        }
    }
}
