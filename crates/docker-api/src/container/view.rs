//! A container as `GET /containers/{id}/json` and the parts it shares with the list show it.

use std::collections::BTreeMap;

use bulkhead_engine::{
    Container, ContainerConfig, Health, MountOptions, MountPoint, MountType, NetworkStack, Status,
};
use bulkhead_types::Port;
use serde_json::{Value, json};

use super::endpoints::{EndpointView, Networks};
use super::host_config;
use crate::clock::rfc3339;

/// Docker's `ContainerJSON`.
pub(crate) fn inspect(container: &Container, data: &str) -> Value {
    let state = &container.state;
    let running = matches!(state.status, Status::Running | Status::Paused | Status::Restarting);
    let directory = format!("{data}/containers/{}", container.id);
    let (path, arguments) = match container.arguments.split_first() {
        Some((path, arguments)) => (path.as_str(), arguments),
        None => ("", &[][..]),
    };
    let mut view = json!({
        "Id": container.id,
        "Created": container.created.to_string(),
        "Path": path,
        "Args": arguments,
        "State": {
            "Status": state.status,
            "Running": running,
            "Paused": state.status == Status::Paused || state.paused,
            "Restarting": state.status == Status::Restarting,
            "OOMKilled": state.oom_killed,
            "Dead": state.status == Status::Dead,
            "Pid": state.pid,
            "ExitCode": state.exit_code,
            "Error": state.error,
            "StartedAt": rfc3339(state.started_at),
            "FinishedAt": rfc3339(state.finished_at),
        },
        "Image": container.image_id.to_string(),
        "ResolvConfPath": format!("{directory}/resolv.conf"),
        "HostnamePath": format!("{directory}/hostname"),
        "HostsPath": format!("{directory}/hosts"),
        "LogPath": container.log_path,
        "Name": format!("/{}", container.name),
        "RestartCount": container.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": null,
        "HostConfig": host_config::view(container),
        "GraphDriver": {
            "Data": {
                "ID": container.id,
                "UpperDir": format!("{directory}/upper"),
                "WorkDir": format!("{directory}/work"),
            },
            "Name": "overlay2",
        },
        "Mounts": mounts(container),
        "Config": config(container),
        "NetworkSettings": network_settings(container),
    });
    // It is left out where there is none.
    if let Some(health) = &state.health {
        view["State"]["Health"] = self::health(health);
    }
    view
}

/// Docker's `Health`, the newest result last.
fn health(health: &Health) -> Value {
    let log = health.log.iter().map(|result| {
        json!({
            "Start": result.start.to_string(),
            "End": result.end.to_string(),
            "ExitCode": result.exit_code,
            "Output": result.output,
        })
    });
    json!({
        "Status": health.status.name(),
        "FailingStreak": health.failing_streak,
        "Log": log.collect::<Vec<_>>(),
    })
}

/// Docker's `Config`: the request's, the image's defaults merged in.
fn config(container: &Container) -> Value {
    let config = &container.config;
    let mut view = json!({
        "Hostname": config.hostname,
        "Domainname": config.domainname,
        "User": config.user,
        "AttachStdin": config.attach_stdin,
        "AttachStdout": config.attach_stdout,
        "AttachStderr": config.attach_stderr,
        "Tty": config.tty,
        "OpenStdin": config.open_stdin,
        "StdinOnce": config.stdin_once,
        "Env": config.env,
        "Cmd": config.cmd,
        "Image": container.image,
        "Volumes": set(&config.volumes),
        "WorkingDir": config.working_dir,
        "Entrypoint": config.entrypoint,
        "OnBuild": null,
        "Labels": config.labels,
    });
    // These are left out, not null, when there are none.
    let optional = [
        ("ExposedPorts", exposed_ports(config)),
        ("StopSignal", json!(config.stop_signal)),
        ("StopTimeout", json!(config.stop_timeout)),
        ("Healthcheck", json!(config.healthcheck)),
        ("Shell", json!(config.shell)),
        ("NetworkDisabled", if config.network_disabled { json!(true) } else { Value::Null }),
    ];
    for (member, value) in optional {
        if !value.is_null() {
            view[member] = value;
        }
    }
    view
}

fn exposed_ports(config: &ContainerConfig) -> Value {
    let names: Vec<String> = config.exposed_ports.iter().map(Port::to_string).collect();
    set(&names)
}

/// A set as Go has it: `{"a": {}}`, null when empty.
fn set(names: &[String]) -> Value {
    if names.is_empty() {
        return Value::Null;
    }
    Value::Object(names.iter().map(|name| (name.clone(), json!({}))).collect())
}

/// Docker's `MountPoint`s. Those of `--tmpfs` are none; those of `--mount type=tmpfs` are.
pub(crate) fn mounts(container: &Container) -> Value {
    let listed =
        |mount: &&MountPoint| mount.kind() != MountType::Tmpfs || asked_by_mount(container, mount);
    let view = container.mounts.iter().filter(listed).map(|mount| {
        let mut view = json!({
            "Type": mount.kind(),
            "Source": mount.source,
            "Destination": mount.target,
            "Mode": mode(container, mount),
            "RW": !mount.readonly,
            "Propagation": match &mount.options {
                MountOptions::Bind(bind) => bind.propagation.to_string(),
                MountOptions::Volume(_) | MountOptions::Tmpfs(_) => String::new(),
            },
        });
        if mount.kind() == MountType::Volume {
            view["Name"] = json!(mount.name);
            view["Driver"] = json!("local");
        }
        view
    });
    Value::Array(view.collect())
}

/// What `-v` said after the second colon; `z` of a named volume of which nothing was said (moby:
/// daemon/volumes.go, `setBindModeIfNull`).
fn mode<'a>(container: &'a Container, mount: &MountPoint) -> &'a str {
    let bind = container.host.binds.iter().find(|bind| bind.mount.target == mount.target);
    let volume = mount.kind() == MountType::Volume;
    match bind {
        Some(bind) if bind.mode().is_empty() && volume && !bind.mount.source.is_empty() => "z",
        Some(bind) => bind.mode(),
        None if volume && asked_by_mount(container, mount) => "z",
        None => "",
    }
}

fn asked_by_mount(container: &Container, mount: &MountPoint) -> bool {
    container.host.mounts.iter().any(|asked| asked.target == mount.target)
}

fn network_settings(container: &Container) -> Value {
    let own = EndpointView::of_default(container);
    let first = container.network.attachments.first();
    let sandbox_id = first.map(|attachment| attachment.endpoint.to_string()).unwrap_or_default();
    // A path to the network namespace, which nsenter and the like can open.
    let sandbox = match container.state.pid {
        0 => String::new(),
        _ if container.network.stack == NetworkStack::Host => String::new(),
        pid => format!("/proc/{pid}/ns/net"),
    };
    json!({
        "Bridge": "",
        "SandboxID": sandbox_id,
        "SandboxKey": sandbox,
        "Ports": ports(container),
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
        "EndpointID": own.endpoint_id,
        "Gateway": own.gateway,
        "GlobalIPv6Address": own.global_ipv6_address,
        "GlobalIPv6PrefixLen": own.global_ipv6_prefix_len,
        "IPAddress": own.address,
        "IPPrefixLen": own.prefix_len,
        "IPv6Gateway": own.ipv6_gateway,
        "MacAddress": own.mac_address,
        "Networks": Networks::of(container),
    })
}

/// What others may reach of a running container without its being published: on an internal network
/// alone that is nothing, as in Docker.
pub(crate) fn exposed(container: &Container) -> &[Port] {
    match container.network.gateway().or(container.network.gateway6()).is_some() {
        true => &container.config.exposed_ports,
        false => &[],
    }
}

/// The published ports of a running container, null for those that are only exposed; empty for
/// one that does not run.
fn ports(container: &Container) -> Value {
    let networking = &container.network;
    let exposed = exposed(container).iter();
    let mut ports: BTreeMap<Port, Value> = exposed.map(|port| (*port, Value::Null)).collect();
    for binding in &networking.ports {
        let list = ports.entry(binding.port()).or_default();
        if list.is_null() {
            *list = json!([]);
        }
        if let Value::Array(list) = list {
            list.push(json!({
                "HostIp": binding.host_address.to_string(),
                // moby: daemon/network.go, getPortMapInfo
                "HostPort": match binding.host_port {
                    0 => String::new(),
                    port => port.to_string(),
                },
            }));
        }
    }
    Value::Object(ports.into_iter().map(|(port, list)| (port.to_string(), list)).collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::Ipv4Addr;

    use bulkhead_engine::{
        Addresses, Attachment, EndpointConfig, HealthResult, HealthStatus, HostConfig,
        NetworkDriver, Networking, PortBinding, PortRequest, State,
    };
    use bulkhead_network::Protocol;
    use bulkhead_types::{Digest, Id};

    use super::*;

    /// A container that runs with one published port and one that is only exposed.
    pub(crate) fn example() -> Container {
        let id: Id = "ab".repeat(32).parse().expect("64 digits");
        let binding = PortBinding {
            container_port: 80,
            protocol: Protocol::Tcp,
            host_address: Ipv4Addr::UNSPECIFIED.into(),
            host_port: 8080,
        };
        let request = PortRequest {
            container_port: 80,
            protocol: Protocol::Tcp,
            host_address: None,
            host_port: 8080,
            last_host_port: None,
        };
        Container {
            id,
            name: "web".parse().expect("a name"),
            created: "2026-11-23T19:27:56.5Z".parse().expect("a time"),
            image: "busybox".to_owned(),
            image_id: Digest::of(b"image"),
            config: ContainerConfig {
                hostname: id.short(),
                cmd: Some(vec!["sleep".to_owned(), "1".to_owned()]),
                exposed_ports: vec![
                    "80/tcp".parse().expect("a port"),
                    "53/udp".parse().expect("a port"),
                ],
                labels: [("a".to_owned(), "b".to_owned())].into(),
                ..Default::default()
            },
            host: HostConfig { port_bindings: vec![request], ..Default::default() },
            arguments: vec!["sleep".to_owned(), "1".to_owned()],
            id_range: None,
            state: State { status: Status::Running, pid: 7, ..Default::default() },
            restart_count: 0,
            endpoints: vec![EndpointConfig::of("bridge")],
            network: Networking {
                attachments: vec![Attachment {
                    network: id,
                    network_name: "bridge".to_owned(),
                    driver: NetworkDriver::Bridge,
                    endpoint: id,
                    interface: "eth0".to_owned(),
                    mac: Some([2, 0x42, 0xac, 17, 0, 2]),
                    ipv4: Some(Addresses {
                        address: Ipv4Addr::new(172, 17, 0, 2),
                        prefix: 16,
                        gateway: Some(Ipv4Addr::new(172, 17, 0, 1)),
                    }),
                    ipv6: None,
                    aliases: vec![],
                    gateway_priority: 0,
                    gateway_holder: bulkhead_network::GatewayHolder::Bridge,
                    link_local: vec![],
                    sysctls: vec![],
                }],
                ports: vec![binding],
                ..Default::default()
            },
            mounts: vec![],
            log_path: String::new(),
        }
    }

    #[test]
    fn inspect_has_dockers_shape() {
        let view = inspect(&example(), "/var/lib/bulkhead");
        for (pointer, value) in [
            ("/Name", json!("/web")),
            ("/Path", json!("sleep")),
            ("/Args", json!(["1"])),
            ("/Created", json!("2026-11-23T19:27:56.5Z")),
            ("/State/Running", json!(true)),
            ("/State/Status", json!("running")),
            ("/State/FinishedAt", json!("0001-01-01T00:00:00Z")),
            ("/HostConfig/NetworkMode", json!("bridge")),
            ("/HostConfig/PortBindings/80~1tcp/0/HostPort", json!("8080")),
            ("/HostConfig/RestartPolicy/Name", json!("no")),
            ("/HostConfig/Binds", Value::Null),
            ("/Config/ExposedPorts/53~1udp", json!({})),
            ("/Config/Volumes", Value::Null),
            ("/NetworkSettings/Ports/80~1tcp/0/HostIp", json!("0.0.0.0")),
            ("/NetworkSettings/Ports/53~1udp", Value::Null),
            ("/NetworkSettings/SandboxKey", json!("/proc/7/ns/net")),
            ("/NetworkSettings/IPAddress", json!("172.17.0.2")),
            ("/NetworkSettings/Networks/bridge/MacAddress", json!("02:42:ac:11:00:02")),
            ("/Mounts", json!([])),
        ] {
            assert_eq!(view.pointer(pointer), Some(&value), "{pointer}");
        }
        assert!(view.pointer("/Config/StopSignal").is_none());
    }

    #[test]
    fn health_is_shown_where_there_is_a_check() {
        let mut container = example();
        assert!(inspect(&container, "")["State"].get("Health").is_none());
        let result = HealthResult {
            start: "2026-11-23T19:00:00.5Z".parse().expect("a time"),
            end: "2026-11-23T19:00:01Z".parse().expect("a time"),
            exit_code: -1,
            output: "late".to_owned(),
        };
        container.state.health =
            Some(Health { status: HealthStatus::Unhealthy, failing_streak: 3, log: vec![result] });
        assert_eq!(
            inspect(&container, "")["State"]["Health"],
            json!({
                "Status": "unhealthy", "FailingStreak": 3,
                "Log": [{
                    "Start": "2026-11-23T19:00:00.5Z", "End": "2026-11-23T19:00:01Z",
                    "ExitCode": -1, "Output": "late",
                }],
            })
        );
    }

    #[test]
    fn a_container_that_does_not_run_has_no_ports() {
        let mut container = example();
        container.network = Networking::detached(NetworkStack::Bridge);
        assert_eq!(inspect(&container, "")["NetworkSettings"]["Ports"], json!({}));
    }

    #[test]
    fn mounts_have_the_mode_that_was_asked_for() {
        let mut container = example();
        let mount = |name: Option<&str>, target: &str, options| MountPoint {
            name: name.map(str::to_owned),
            source: "/s".to_owned(),
            target: target.to_owned(),
            readonly: false,
            options,
        };
        let volume = || MountOptions::Volume(bulkhead_engine::VolumeOptions::default());
        let bind = || MountOptions::Bind(bulkhead_engine::BindOptions::default());
        let tmpfs = || MountOptions::Tmpfs(bulkhead_engine::TmpfsOptions::default());
        container.host.binds = ["/s:/a", "/s:/b:rw", "vol:/c", "vol:/d:ro", "/e"]
            .map(|text| text.parse().expect(text))
            .into();
        let asked = |source: &str, target: &str, options| {
            bulkhead_engine::MountRequest::new(source, target, false, options).expect(target)
        };
        container.host.mounts =
            vec![asked("vol", "/f", volume()), asked("/s", "/g", bind()), asked("", "/h", tmpfs())];
        container.mounts = vec![
            mount(None, "/a", bind()),
            mount(None, "/b", bind()),
            mount(Some("v"), "/c", volume()),
            mount(Some("v"), "/d", volume()),
            mount(Some("x"), "/e", volume()),
            mount(Some("v"), "/f", volume()),
            mount(None, "/g", bind()),
            mount(None, "/h", tmpfs()),
            // --tmpfs, and --volumes-from
            mount(None, "/i", tmpfs()),
            mount(Some("v"), "/j", volume()),
        ];
        let view = mounts(&container);
        let modes: Vec<_> = view
            .as_array()
            .expect("a list")
            .iter()
            .map(|mount| format!("{}={}", mount["Destination"], mount["Mode"]).replace('"', ""))
            .collect();
        let expected = ["/a=", "/b=rw", "/c=z", "/d=ro", "/e=", "/f=z", "/g=", "/h=", "/j="];
        assert_eq!(modes, expected);
    }

    #[test]
    fn an_internal_network_exposes_nothing() {
        let mut container = example();
        assert!(inspect(&container, "")["NetworkSettings"]["Ports"].get("53/udp").is_some());
        container.network.ports.clear();
        let ipv4 = container.network.attachments[0].ipv4.as_mut().expect("it has one");
        ipv4.gateway = None;
        assert_eq!(inspect(&container, "")["NetworkSettings"]["Ports"], json!({}));
    }
}
