//! A container definition's Docker form.
//!
//! In ECS the control plane, not the agent, turns most of a container definition into Docker's JSON and
//! sends it as text; the agent lays it over what it builds itself (aws/amazon-ecs-agent:
//! agent/api/task/task.go, `dockerConfig` and `dockerHostConfig`). [`parts`] is the control plane's half.

use bulkhead_docker_types::{Device, Healthcheck, Ulimit};
use serde_json::{Map, Value, json};

use crate::task_definition::{ContainerDefinition, Definition, HealthCheck};

/// The control plane's half of a create request: members of Docker's `Config` and `HostConfig`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Parts {
    pub config: Map<String, Value>,
    pub host_config: Map<String, Value>,
}

/// What the control plane sends for `container`. Image, command, environment, ports, links, mounts,
/// memory and CPU are the agent's half.
pub fn parts(definition: &Definition, container: &ContainerDefinition) -> Parts {
    let mut parts = Parts::default();
    let config = &mut parts.config;
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            config.insert(name.into(), value);
        }
    };
    set("Hostname", container.hostname.as_ref().map(|name| json!(name)));
    set("User", container.user.as_ref().map(|user| json!(user)));
    set("WorkingDir", container.working_directory.as_ref().map(|path| json!(path)));
    set("NetworkDisabled", container.disable_networking.map(Value::Bool));
    set("OpenStdin", container.interactive.map(Value::Bool));
    set("Tty", container.pseudo_terminal.map(Value::Bool));
    set("Labels", container.docker_labels.clone().map(Value::Object));
    set("Healthcheck", container.health_check.as_ref().map(health_check));
    fill_host_config(&mut parts.host_config, definition, container);
    parts
}

/// The log stream of one container of one task: `PREFIX/CONTAINER/TASK`. `awslogs-stream-prefix` is ECS's own
/// word, which Docker's driver does not know (Amazon ECS developer guide, "Send Amazon ECS logs to
/// CloudWatch").
pub fn name_log_stream(parts: &mut Parts, container: &str, task: &str) {
    let Some(options) = parts.host_config.get_mut("LogConfig") else { return };
    let Some(options) = options["Config"].as_object_mut() else { return };
    if let Some(prefix) = options.remove("awslogs-stream-prefix") {
        let prefix = prefix.as_str().unwrap_or_default();
        options.insert("awslogs-stream".into(), json!(format!("{prefix}/{container}/{task}")));
    }
}

fn fill_host_config(
    host: &mut Map<String, Value>,
    definition: &Definition,
    container: &ContainerDefinition,
) {
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            host.insert(name.into(), value);
        }
    };
    // awsvpc belongs to the agent, which makes the interface
    let network = Some(definition.network()).filter(|mode| *mode != "awsvpc");
    set("NetworkMode", network.map(|mode| json!(mode)));
    set("Privileged", container.privileged.map(Value::Bool));
    set("ReadonlyRootfs", container.readonly_root_filesystem.map(Value::Bool));
    set("Dns", container.dns_servers.as_ref().map(|list| json!(list)));
    set("DnsSearch", container.dns_search_domains.as_ref().map(|list| json!(list)));
    set("SecurityOpt", container.docker_security_options.as_ref().map(|list| json!(list)));
    let hosts = container.extra_hosts.as_ref().map(|hosts| {
        hosts.iter().map(|host| json!(format!("{}:{}", host.hostname, host.ip_address))).collect()
    });
    set("ExtraHosts", hosts);
    let ulimits = container.ulimits.as_ref().map(|limits| {
        let one = |limit: &crate::task_definition::Ulimit| {
            json!(Ulimit {
                name: limit.name.clone(),
                soft: limit.soft_limit,
                hard: limit.hard_limit,
            })
        };
        limits.iter().map(one).collect()
    });
    set("Ulimits", ulimits);
    let log = container.log_configuration.as_ref().map(
        |log| json!({"Type": log.log_driver, "Config": log.options.clone().unwrap_or_default()}),
    );
    set("LogConfig", log);
    if !container.system_controls.is_empty() {
        let sysctls: Map<String, Value> = container
            .system_controls
            .iter()
            .map(|control| (control.namespace.clone(), json!(control.value)))
            .collect();
        set("Sysctls", Some(Value::Object(sysctls)));
    }
    set("MemoryReservation", container.memory_reservation.map(|soft| json!(soft * MIB)));
    set(
        "PidMode",
        definition.pid_mode.as_ref().filter(|mode| *mode == "host").map(|mode| json!(mode)),
    );
    set(
        "IpcMode",
        definition.ipc_mode.as_ref().filter(|mode| *mode != "task").map(|mode| json!(mode)),
    );
    if let Some(linux) = &container.linux_parameters {
        fill_linux(&mut set, linux, container.memory);
    }
}

fn fill_linux(set: &mut impl FnMut(&str, Option<Value>), linux: &Value, memory: Option<i64>) {
    let some = |value: &Value| Some(value).filter(|value| !value.is_null()).cloned();
    set("CapAdd", some(&linux["capabilities"]["add"]));
    set("CapDrop", some(&linux["capabilities"]["drop"]));
    set("Init", some(&linux["initProcessEnabled"]));
    set("ShmSize", linux["sharedMemorySize"].as_i64().map(|size| json!(size * MIB)));
    set("MemorySwappiness", some(&linux["swappiness"]));
    let swap = linux["maxSwap"].as_i64().zip(memory);
    set("MemorySwap", swap.map(|(swap, memory)| json!((memory + swap) * MIB)));
    if let Some(devices) = linux["devices"].as_array() {
        set("Devices", Some(devices.iter().map(device).collect()));
    }
    if let Some(mounts) = linux["tmpfs"].as_array() {
        let one = |mount: &Value| {
            let mut options = vec![format!("size={}m", mount["size"].as_i64().unwrap_or(0))];
            let given = mount["mountOptions"].as_array().into_iter().flatten();
            options.extend(given.filter_map(Value::as_str).map(str::to_owned));
            Some((mount["containerPath"].as_str()?.to_owned(), json!(options.join(","))))
        };
        set("Tmpfs", Some(Value::Object(mounts.iter().filter_map(one).collect())));
    }
}

fn device(device: &Value) -> Value {
    let outside = device["hostPath"].as_str().unwrap_or_default();
    let letters: String = device["permissions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .filter_map(|word| word.chars().next())
        .collect();
    json!(Device {
        path_on_host: outside.to_owned(),
        path_in_container: device["containerPath"].as_str().unwrap_or(outside).to_owned(),
        cgroup_permissions: if letters.is_empty() { "rwm".to_owned() } else { letters },
    })
}

fn health_check(check: &HealthCheck) -> Value {
    if check.is_disabled() {
        return json!({ "Test": check.command });
    }
    // ECS's defaults, spelled out: Docker's own differ (timeout 30 s)
    json!(Healthcheck {
        test: check.command.clone(),
        interval: check.interval.unwrap_or(30) * NANOSECONDS,
        timeout: check.timeout.unwrap_or(5) * NANOSECONDS,
        retries: check.retries.unwrap_or(3),
        start_period: check.start_period.unwrap_or(0) * NANOSECONDS,
        start_interval: 0,
    })
}

const MIB: i64 = 1 << 20;
const NANOSECONDS: i64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task_definition::RegisterTaskDefinition;

    fn parts_of(container: Value) -> Parts {
        let text = json!({"family": "f", "containerDefinitions": [container]}).to_string();
        let definition = RegisterTaskDefinition::from_json(&text).unwrap().definition;
        parts(&definition, &definition.container_definitions[0])
    }

    #[test]
    fn a_plain_container_says_only_its_network() {
        let parts = parts_of(json!({"name": "a", "image": "b", "memory": 256}));
        assert_eq!(Value::Object(parts.config), json!({}));
        assert_eq!(Value::Object(parts.host_config), json!({"NetworkMode": "bridge"}));
    }

    #[test]
    fn members_take_docker_names_and_units() {
        let parts = parts_of(json!({
            "name": "a", "image": "b", "memory": 64, "memoryReservation": 32, "user": "1000:1000",
            "workingDirectory": "/srv", "hostname": "h", "dockerLabels": {"k": "v"},
            "healthCheck": {"command": ["CMD", "true"], "interval": 10},
            "extraHosts": [{"hostname": "db", "ipAddress": "10.0.0.9"}],
            "ulimits": [{"name": "nofile", "softLimit": 1, "hardLimit": 2}],
            "logConfiguration": {"logDriver": "json-file", "options": {"max-size": "1m"}},
            "systemControls": [{"namespace": "net.core.somaxconn", "value": "9"}],
            "linuxParameters": {
                "capabilities": {"drop": ["ALL"]}, "initProcessEnabled": true, "sharedMemorySize": 2, "maxSwap": 64,
                "tmpfs": [{"containerPath": "/t", "size": 5, "mountOptions": ["noexec"]}],
                "devices": [{"hostPath": "/dev/null", "permissions": ["read", "write"]}],
            },
        }));
        assert_eq!(
            Value::Object(parts.config),
            json!({
                "Hostname": "h", "User": "1000:1000", "WorkingDir": "/srv", "Labels": {"k": "v"},
                "Healthcheck": {
                    "Test": ["CMD", "true"], "Interval": 10_000_000_000_i64, "Timeout": 5_000_000_000_i64,
                    "Retries": 3,
                },
            })
        );
        assert_eq!(
            Value::Object(parts.host_config),
            json!({
                "NetworkMode": "bridge", "ExtraHosts": ["db:10.0.0.9"],
                "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
                "Sysctls": {"net.core.somaxconn": "9"}, "MemoryReservation": 32 << 20,
                "CapDrop": ["ALL"], "Init": true, "ShmSize": 2 << 20, "MemorySwap": 128 << 20,
                "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/null", "CgroupPermissions": "rw"}],
                "Tmpfs": {"/t": "size=5m,noexec"},
            })
        );
    }

    #[test]
    fn a_log_stream_is_named_for_its_container_and_task() {
        let options = json!({"awslogs-group": "g", "awslogs-stream-prefix": "ecs"});
        let log = json!({"logDriver": "awslogs", "options": options});
        let mut parts = parts_of(json!({"name": "a", "image": "b", "logConfiguration": log}));
        name_log_stream(&mut parts, "a", "0a");
        assert_eq!(
            parts.host_config["LogConfig"],
            json!({"Type": "awslogs", "Config": {"awslogs-group": "g", "awslogs-stream": "ecs/a/0a"}})
        );
    }

    #[test]
    fn a_health_check_that_is_off_has_no_intervals() {
        let check = json!({"command": ["NONE"], "interval": 10});
        let parts = parts_of(json!({"name": "a", "image": "b", "healthCheck": check}));
        assert_eq!(Value::Object(parts.config), json!({"Healthcheck": {"Test": ["NONE"]}}));
    }
}
