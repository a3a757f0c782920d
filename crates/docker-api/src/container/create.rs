//! `POST /containers/create`: Docker's body to the engine's request.

use axum::extract::State;
use axum::response::IntoResponse;
use bulkhead_docker_types::{ContainerCreate, Healthcheck};
use bulkhead_engine::{Container, ContainerConfig, CreateContainer};
use bulkhead_types::{Port, image};
use http::StatusCode;
use serde_json::json;

use super::defaults;
use super::endpoints::{read_all, read_mac_address};
use super::host_config;
use crate::Api;
use crate::error::{Answer, ApiError};
use crate::image::transfer::check_platform;
use crate::request::{Json, Query};

pub(crate) async fn create(
    State(api): State<Api>,
    query: Query,
    Json(body): Json<ContainerCreate>,
) -> Answer {
    let (container, warnings) = make(&api, &query, body).await?;
    let body = json!({ "Id": container.id, "Warnings": warnings });
    Ok((StatusCode::CREATED, axum::Json(body)).into_response())
}

/// Makes the container, and says what of the request has not its full effect.
pub(crate) async fn make(
    api: &Api,
    query: &Query,
    body: ContainerCreate,
) -> Answer<(Container, Vec<String>)> {
    check_platform(query.text("platform"))?;
    let name = query.text("name");
    let mut body = body;
    if body.host_config.runtime.is_empty() {
        body.host_config.runtime = std::mem::take(&mut body.runtime);
    }
    defaults::fill(&mut body.host_config, &api.engine.settings().containers);
    let (request, mut warnings) = request(body, name.strip_prefix('/').unwrap_or(name))?;
    let (rows, columns) = request.host.console_size;
    warnings.extend(api.engine.warnings(&request.host)?);
    let container = api.engine.create(request).await?;
    if let Some(kind) = unknown_test(container.config.healthcheck.as_ref()) {
        warnings.push(format!(
            "The image's HEALTHCHECK is not run: {kind:?} is no kind of test; there are CMD, CMD-SHELL \
             and NONE."
        ));
    }
    // Not running yet, which it says, but it remembers the size for the start: a resize after that
    // may come when the program has asked already.
    let _ = api.engine.resize(container.id, rows, columns).await;
    Ok((container, warnings))
}

/// Reads a body into the engine's types, and says what is accepted without its full effect.
pub(crate) fn request(
    body: ContainerCreate,
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
    let mut wire = body.host_config;
    if wire.runtime.is_empty() {
        wire.runtime = body.runtime;
    }
    let (mut host, warnings) = host_config::parse(wire)?;
    let mac_address = match body.mac_address.as_str() {
        "" => None,
        text => Some(read_mac_address(text)?),
    };
    let (endpoints, links) = read_all(body.networking_config)?;
    for link in links {
        if !host.links.contains(&link) {
            host.links.push(link);
        }
    }
    let exposed_ports = body.exposed_ports.keys().map(|text| exposed(text));
    let exposed_ports = exposed_ports.collect::<Result<Vec<_>, _>>()?.concat();
    let config = ContainerConfig {
        hostname: body.hostname,
        domainname: body.domainname,
        user: body.user,
        attach_stdin: body.attach_stdin,
        attach_stdout: body.attach_stdout,
        attach_stderr: body.attach_stderr,
        tty: body.tty,
        open_stdin: body.open_stdin,
        stdin_once: body.stdin_once,
        env: body.env,
        cmd: body.cmd.map(|words| words.0),
        entrypoint: body.entrypoint.map(|words| words.0),
        working_dir: body.working_dir,
        labels: body.labels,
        exposed_ports,
        volumes: body.volumes.into_keys().collect(),
        stop_signal: Some(body.stop_signal).filter(|signal| !signal.is_empty()),
        stop_timeout: body.stop_timeout,
        healthcheck: body.healthcheck.map(healthcheck),
        shell: Some(body.shell).filter(|shell| !shell.is_empty()),
        network_disabled: body.network_disabled,
        mac_address,
    };
    Ok((CreateContainer { name, image: body.image, config, host, endpoints }, warnings))
}

fn healthcheck(asked: Healthcheck) -> image::Healthcheck {
    let Healthcheck { test, interval, timeout, start_period, start_interval, retries } = asked;
    image::Healthcheck { test, interval, timeout, start_period, start_interval, retries }
}

/// Of an image that has a test which nobody can run; a request's own is refused.
fn unknown_test(check: Option<&image::Healthcheck>) -> Option<&str> {
    let kind = check?.test.first()?.as_str();
    (!matches!(kind, "NONE" | "CMD" | "CMD-SHELL")).then_some(kind)
}

/// `80/tcp`, or `8000-8010/udp`, which Compose sends as it stands in its file (docker writes the ports
/// of a range one by one).
fn exposed(text: &str) -> Result<Vec<Port>, ApiError> {
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let Some((first, last)) = numbers.split_once('-') else {
        return Ok(vec![text.parse().map_err(ApiError::invalid_value)?]);
    };
    let end = |number: &str| format!("{number}/{protocol}").parse::<Port>();
    let (first, last) = (end(first), end(last));
    match (first, last) {
        (Ok(first), Ok(last)) if first.number() <= last.number() => {
            let ports = first.number()..=last.number();
            Ok(ports.filter_map(|number| Port::new(number, first.protocol())).collect())
        }
        _ => Err(ApiError::invalid(format!("invalid range of ports {text:?}"))),
    }
}

#[cfg(test)]
mod tests {

    use bulkhead_engine::{NetworkMode, PortRequest, UsernsMode};
    use bulkhead_network::Protocol;
    use serde_json::Value;

    use super::*;
    use crate::decode::decode;

    fn body(value: Value) -> Result<(CreateContainer, Vec<String>), ApiError> {
        request(decode(value)?, "")
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
        assert_eq!(request.config.exposed_ports, ["80/tcp".parse().expect("a port")]);
        assert_eq!(request.host.memory, 256 << 20);
        assert_eq!(request.host.userns_mode, UsernsMode::Host);
        assert_eq!(request.host.network_mode, NetworkMode::Bridge);
        assert_eq!(request.host.pids_limit, None);
        assert_eq!(request.host.console_size, (24, 80));
        assert_eq!(request.host.masked_paths, None);
        assert_eq!(
            request.host.port_bindings,
            [PortRequest {
                container_port: 80,
                protocol: Protocol::Tcp,
                host_address: None,
                host_port: 8080,
                last_host_port: None,
            }]
        );
    }

    #[test]
    fn a_command_may_be_one_word() {
        let (request, _) = body(json!({"Image": "x", "Cmd": "a b", "Entrypoint": []})).expect("ok");
        assert_eq!(request.config.cmd, Some(vec!["a b".to_owned()]));
        assert_eq!(request.config.entrypoint, Some(vec![]));
    }

    /// What `docker run --health-cmd 'test -e /x' --health-interval 2s …` sends.
    #[test]
    fn a_health_check_is_taken_whole() {
        let (request, _) = body(json!({
            "Image": "x", "Shell": ["/bin/ash", "-c"],
            "Healthcheck": {
                "Test": ["CMD-SHELL", "test -e /x"], "Interval": 2, "Timeout": 3, "StartPeriod": 4,
                "StartInterval": 5, "Retries": 6,
            },
        }))
        .expect("a valid request");
        assert_eq!(
            request.config.healthcheck,
            Some(image::Healthcheck {
                test: vec!["CMD-SHELL".to_owned(), "test -e /x".to_owned()],
                interval: 2,
                timeout: 3,
                start_period: 4,
                start_interval: 5,
                retries: 6,
            })
        );
        assert_eq!(request.config.shell, Some(vec!["/bin/ash".to_owned(), "-c".to_owned()]));
        let (request, _) = body(json!({"Image": "x", "Healthcheck": null})).expect("valid");
        assert_eq!((request.config.healthcheck, request.config.shell), (None, None));
        let odd = image::Healthcheck { test: vec!["HTTP".into()], ..Default::default() };
        assert_eq!(unknown_test(Some(&odd)), Some("HTTP"));
        assert_eq!(unknown_test(None), None);
    }

    #[test]
    fn wrong_types_and_values_are_refused() {
        let host =
            |member: &str, value: Value| json!({"Image": "x", "HostConfig": {member: value}});
        for (value, part) in [
            (json!({"Image": 5}), "invalid JSON"),
            (json!({"Image": "x", "Env": "A=1"}), "invalid JSON"),
            (json!({"Image": "x", "ExposedPorts": {"x/tcp": {}}}), "port specification"),
            (host("Memory", json!("1g")), "invalid JSON"),
            (host("Memory", json!(-1)), "Memory"),
            (host("PortBindings", json!({"80/tcp": [{"HostPort": "x"}]})), "host port"),
            (host("RestartPolicy", json!({"Name": "sometimes"})), "sometimes"),
            (host("Tmpfs", json!({"/t": "bogus"})), "invalid tmpfs option"),
            (host("LogConfig", json!({"Config": {"bogus": "1"}})), "unknown log opt 'bogus'"),
            (host("SecurityOpt", json!(["apparmor=nope"])), "apparmor=nope"),
            (host("CgroupParent", json!("../../x")), "../../x"),
            (host("MaskedPaths", json!(["proc/kcore"])), "proc/kcore"),
            (host("Ulimits", json!([{"Name": "nofiles"}])), "nofiles"),
            (host("ExtraHosts", json!(["a"])), "bad format for add-host"),
            (host("Dns", json!(["1.1.1.1\nx"])), "bad nameserver"),
            (host("Links", json!(["a:b\n6.6.6.6 evil"])), "bad format for links"),
            (host("Mounts", json!([{"Type": "image", "Target": "/x"}])), "image"),
            (host("Mounts", json!([{"Type": "bind", "Target": "/x"}])), "field Source"),
            (
                host(
                    "Mounts",
                    json!([{"Type": "tmpfs", "Target": "/x", "VolumeOptions": {"NoCopy": true}}]),
                ),
                "VolumeOptions",
            ),
        ] {
            let error = body(value).expect_err(part);
            assert!(error.message.contains(part), "{}: {part}", error.message);
        }
    }

    #[test]
    fn ranges_of_exposed_ports_are_all_their_ports() {
        let read = |text: &str| {
            exposed(text).map(|ports| ports.iter().map(Port::to_string).collect::<Vec<_>>())
        };
        for (text, ports) in [
            ("80", &["80/tcp"][..]),
            ("53/udp", &["53/udp"]),
            ("91-93", &["91/tcp", "92/tcp", "93/tcp"]),
            ("91-91/udp", &["91/udp"]),
        ] {
            assert_eq!(read(text).expect(text), ports, "{text}");
        }
        for wrong in ["93-91", "0-2", "1-", "-", "1-70000", "1-2/xyz", "a-b"] {
            assert!(exposed(wrong).is_err(), "{wrong}");
        }
    }
}
