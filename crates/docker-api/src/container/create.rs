use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::IntoResponse;
use bulkhead_engine::{ContainerConfig, CreateContainer, MountRequest};
use bulkhead_network::Protocol;
use bulkhead_types::image::{Empty, Healthcheck};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::host_config::{self, WireHostConfig};
use crate::Api;
use crate::error::{Answer, ApiError};
use crate::request::{Json, Query, decode};

/// `POST /containers/create`
pub(crate) async fn create(
    State(api): State<Api>,
    query: Query,
    Json(body): Json<CreateBody>,
) -> Answer {
    let name = query.text("name");
    let name = name.strip_prefix('/').unwrap_or(name);
    let size = body.host_config.get("ConsoleSize").cloned().unwrap_or_default();
    let (mut request, mut warnings) = body.into_request(name)?;
    add_volumes_from(&api, &mut request)?;
    warnings.extend(api.engine.warnings(&request.host)?);
    let container = api.engine.create(request).await?;
    if let Ok((rows, columns)) = serde_json::from_value::<(u16, u16)>(size) {
        // Not running yet, which it says, but it remembers the size for the start: a resize after
        // that may come when the program has asked already.
        let _ = api.engine.resize(&container.id.to_string(), rows, columns).await;
    }
    let body = json!({ "Id": container.id, "Warnings": warnings });
    Ok((StatusCode::CREATED, axum::Json(body)).into_response())
}

/// `VolumesFrom`: the mounts of other containers, each `NAME` or `NAME:ro`, but where the request
/// mounts something else.
fn add_volumes_from(api: &Api, request: &mut CreateContainer) -> Result<(), ApiError> {
    let from = request.host.echo.get("VolumesFrom").cloned().unwrap_or_default();
    let from: Vec<String> = serde_json::from_value(from).unwrap_or_default();
    for text in from {
        let (name, mode) = text.split_once(':').unwrap_or((&text, "rw"));
        if !matches!(mode, "rw" | "ro" | "z" | "Z") {
            return Err(ApiError::invalid(format!("invalid mode for volumes-from: {mode}")));
        }
        for mount in api.engine.container(name)?.mounts {
            let host = &request.host;
            let bound = |bind: &String| bind.split(':').nth(1) == Some(&mount.target);
            if host.binds.iter().any(bound) || host.mounts.iter().any(|m| m.target == mount.target)
            {
                continue;
            }
            request.host.mounts.push(MountRequest {
                kind: mount.kind,
                source: mount.name.unwrap_or(mount.source),
                target: mount.target,
                readonly: mount.readonly || mode == "ro",
                tmpfs_size: 0,
                tmpfs_mode: 0,
            });
        }
    }
    Ok(())
}

/// The body of a create request: Docker's `Config` with two more members.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct CreateBody {
    pub(crate) image: String,
    #[serde(flatten)]
    config: WireConfig,
    host_config: Map<String, Value>,
    networking_config: NetworkingConfig,
}

/// Docker's `Config` as clients write it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct WireConfig {
    hostname: String,
    domainname: String,
    user: String,
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    tty: bool,
    open_stdin: bool,
    stdin_once: bool,
    env: Vec<String>,
    cmd: Option<Words>,
    entrypoint: Option<Words>,
    working_dir: String,
    labels: BTreeMap<String, String>,
    exposed_ports: BTreeMap<String, Empty>,
    volumes: BTreeMap<String, Empty>,
    stop_signal: Option<String>,
    stop_timeout: Option<i64>,
    healthcheck: Option<Healthcheck>,
    network_disabled: bool,
    /// Until API 1.43 the address stood here; now it is an endpoint's.
    mac_address: String,
}

/// A command is a list of words, or one word (moby: api/types/container/config.go, `StrSlice`).
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Words {
    List(Vec<String>),
    One(String),
}

impl From<Words> for Vec<String> {
    fn from(words: Words) -> Self {
        match words {
            Words::List(words) => words,
            Words::One(word) => vec![word],
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkingConfig {
    endpoints_config: BTreeMap<String, EndpointSettings>,
}

/// What a create request may ask of a network; the rest of Docker's type is only reported.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct EndpointSettings {
    links: Vec<String>,
    #[serde(rename = "IPAMConfig")]
    ipam_config: Map<String, Value>,
    mac_address: String,
}

impl CreateBody {
    /// Checks everything, and says what is accepted without an effect.
    pub(crate) fn into_request(
        self,
        name: &str,
    ) -> Result<(CreateContainer, Vec<String>), ApiError> {
        let name = match name {
            "" => None,
            name => Some(name.parse().map_err(|_| {
                ApiError::invalid(format!(
                    "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
                ))
            })?),
        };
        let config = ContainerConfig::try_from(self.config)?;
        let wire: WireHostConfig = decode(Value::Object(self.host_config.clone()))?;
        let warnings = wire.check()?;
        let mut host = host_config::convert(wire, self.host_config)?;
        for (network, endpoint) in self.networking_config.endpoints_config {
            let asked = endpoint
                .ipam_config
                .values()
                .any(|value| value.as_str().is_some_and(|text| !text.is_empty()));
            if asked || !endpoint.mac_address.is_empty() {
                return Err(ApiError::invalid(format!(
                    "network {network}: user specified IP and MAC addresses are supported on \
                     user defined networks only"
                )));
            }
            host.links.extend(endpoint.links);
        }
        host.links.dedup();
        Ok((CreateContainer { name, image: self.image, config, host }, warnings))
    }
}

impl TryFrom<WireConfig> for ContainerConfig {
    type Error = ApiError;

    fn try_from(wire: WireConfig) -> Result<Self, ApiError> {
        if !wire.mac_address.is_empty() {
            return Err(ApiError::unsupported(
                "choosing a container's MAC address is not supported; leave MacAddress out",
            ));
        }
        let exposed_ports = wire
            .exposed_ports
            .keys()
            .map(|text| parse_port(text))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            hostname: wire.hostname,
            domainname: wire.domainname,
            user: wire.user,
            attach_stdin: wire.attach_stdin,
            attach_stdout: wire.attach_stdout,
            attach_stderr: wire.attach_stderr,
            tty: wire.tty,
            open_stdin: wire.open_stdin,
            stdin_once: wire.stdin_once,
            env: wire.env,
            cmd: wire.cmd.map(Into::into),
            entrypoint: wire.entrypoint.map(Into::into),
            working_dir: wire.working_dir,
            labels: wire.labels,
            exposed_ports,
            volumes: wire.volumes.into_keys().collect(),
            stop_signal: wire.stop_signal.filter(|signal| !signal.is_empty()),
            stop_timeout: wire.stop_timeout,
            healthcheck: wire.healthcheck,
            network_disabled: wire.network_disabled,
        })
    }
}

/// `80/tcp`, or `80` which is tcp too.
pub(crate) fn parse_port(text: &str) -> Result<(u16, Protocol), ApiError> {
    let invalid = || ApiError::invalid(format!("invalid port specification: {text:?}"));
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Err(invalid()),
    };
    match port.parse() {
        Ok(0) | Err(_) => Err(invalid()),
        Ok(port) => Ok((port, protocol)),
    }
}

pub(crate) fn port_name(port: u16, protocol: Protocol) -> String {
    match protocol {
        Protocol::Tcp => format!("{port}/tcp"),
        Protocol::Udp => format!("{port}/udp"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use bulkhead_engine::PortBinding;

    use super::*;

    fn body(value: Value) -> Result<(CreateContainer, Vec<String>), ApiError> {
        decode::<CreateBody>(value)?.into_request("")
    }

    /// What `docker run -d -p 8080:80 -l a=b busybox sleep 1` sends, shortened.
    #[test]
    fn the_cli_is_understood() {
        let (request, warnings) = body(json!({
            "Hostname": "", "User": "", "AttachStdin": false, "AttachStdout": true, "Tty": false,
            "ExposedPorts": {"80/tcp": {}}, "Env": null, "Cmd": ["sleep", "1"],
            "Image": "busybox", "Volumes": {}, "WorkingDir": "", "Entrypoint": null,
            "Labels": {"a": "b"},
            "HostConfig": {
                "Binds": null, "NetworkMode": "default", "LogConfig": {"Type": "", "Config": {}},
                "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]},
                "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "Memory": 268435456,
                "ConsoleSize": [24, 80], "Dns": [], "MemorySwappiness": -1, "PidsLimit": 0,
                "MaskedPaths": null, "UsernsMode": "host", "CapAdd": ["NET_RAW"],
            },
            "NetworkingConfig": {"EndpointsConfig": {"default": {"IPAMConfig": null}}},
        }))
        .expect("a valid request");
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!(request.image, "busybox");
        assert_eq!(request.config.cmd, Some(vec!["sleep".to_owned(), "1".to_owned()]));
        assert_eq!(request.config.entrypoint, None);
        assert_eq!(request.config.exposed_ports, [(80, Protocol::Tcp)]);
        assert_eq!(request.host.memory, 256 << 20);
        assert_eq!(request.host.userns_mode, "host");
        assert_eq!(request.host.pids_limit, None);
        assert_eq!(
            request.host.port_bindings,
            [PortBinding {
                container_port: 80,
                protocol: Protocol::Tcp,
                host_address: Ipv4Addr::UNSPECIFIED,
                host_port: 8080,
            }]
        );
    }

    #[test]
    fn a_command_may_be_one_word() {
        let (request, _) = body(json!({"Image": "x", "Cmd": "a b", "Entrypoint": []})).expect("ok");
        assert_eq!(request.config.cmd, Some(vec!["a b".to_owned()]));
        assert_eq!(request.config.entrypoint, Some(vec![]));
    }

    #[test]
    fn wrong_types_and_values_are_refused() {
        for (value, part) in [
            (json!({"Image": 5}), "invalid JSON"),
            (json!({"Image": "x", "Env": "A=1"}), "invalid JSON"),
            (json!({"Image": "x", "ExposedPorts": {"x/tcp": {}}}), "port specification"),
            (json!({"Image": "x", "HostConfig": {"Memory": "1g"}}), "invalid JSON"),
            (json!({"Image": "x", "HostConfig": {"Memory": -1}}), "Memory"),
            (
                json!({"Image": "x", "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "x"}]}}}),
                "host port",
            ),
            (json!({"Image": "x", "HostConfig": {"StorageOpt": {"size": "1G"}}}), "StorageOpt"),
            (
                json!({"Image": "x", "HostConfig": {"RestartPolicy": {"Name": "sometimes"}}}),
                "sometimes",
            ),
        ] {
            let error = body(value).expect_err(part);
            assert!(error.message.contains(part), "{}: {part}", error.message);
        }
    }
}
