//! A container of a task as Docker's create request: the agent's half, and over it the control plane's.

use std::collections::BTreeMap;

use bulkhead_aws_api::acs::{PayloadContainer, PayloadTask};
use bulkhead_docker_types::{ContainerCreate, Empty, HostConfig, PortBinding, VolumeCreate, Words};
use serde_json::{Map, Value};

/// The body of `POST /containers/create`. `names` has the Docker names of the task's containers.
///
/// # Errors
/// Where the control plane's texts are not JSON objects.
pub(crate) fn body(
    task: &PayloadTask,
    container: &PayloadContainer,
    names: &BTreeMap<String, String>,
) -> Result<Value, serde_json::Error> {
    let own = ContainerCreate {
        image: container.image.clone(),
        env: container
            .environment
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .chain([format!("AWS_EXECUTION_ENV=AWS_ECS_{}", task.launch_type)])
            .collect(),
        cmd: container.command.clone().map(Words),
        entrypoint: container.entry_point.clone().map(Words),
        exposed_ports: ports(container).map(|(port, _)| (port, Some(Empty {}))).collect(),
        host_config: host_config(task, container, names),
        ..ContainerCreate::default()
    };
    let mut body = serde_json::to_value(own)?;
    lay_over(&mut body, text_object(&container.docker_config.config)?);
    lay_over(&mut body["HostConfig"], text_object(&container.docker_config.host_config)?);
    // the agent's labels win: it finds its containers by them
    let mut labels = body["Labels"].as_object().cloned().unwrap_or_default();
    for (name, value) in labels_of(task, container) {
        labels.insert(name.into(), Value::from(value));
    }
    body["Labels"] = Value::Object(labels);
    Ok(body)
}

/// The label that holds a container's task.
pub(crate) const TASK_LABEL: &str = "com.amazonaws.ecs.task-arn";
/// The label that holds a container's name in its task.
pub(crate) const NAME_LABEL: &str = "com.amazonaws.ecs.container-name";

fn labels_of<'a>(
    task: &'a PayloadTask,
    container: &'a PayloadContainer,
) -> [(&'static str, &'a str); 5] {
    let cluster = task.task_cluster_arn.id();
    [
        (TASK_LABEL, &task.arn),
        (NAME_LABEL, &container.name),
        ("com.amazonaws.ecs.task-definition-family", &task.family),
        ("com.amazonaws.ecs.task-definition-version", &task.version),
        ("com.amazonaws.ecs.cluster", cluster),
    ]
}

fn host_config(
    task: &PayloadTask,
    container: &PayloadContainer,
    names: &BTreeMap<String, String>,
) -> HostConfig {
    let docker_name = |name: &str| names.get(name).cloned().unwrap_or_else(|| name.to_owned());
    let links: Vec<String> = container
        .links
        .iter()
        .map(|link| {
            let (name, alias) = link.split_once(':').unwrap_or((link, link));
            format!("{}:{alias}", docker_name(name))
        })
        .collect();
    let volumes_from: Vec<String> = container
        .volumes_from
        .iter()
        .map(|from| {
            let mode = if from.read_only == Some(true) { ":ro" } else { "" };
            format!("{}{mode}", docker_name(&from.source_container))
        })
        .collect();
    let mut config = HostConfig {
        cpu_shares: cpu_shares(container.cpu),
        binds: binds(task, container),
        links,
        volumes_from,
        ..HostConfig::default()
    };
    if container.memory > 0 {
        config.memory = container.memory.max(MINIMUM_MEMORY) << 20;
    }
    if task.network_mode == "bridge" || task.network_mode.is_empty() {
        for (port, host) in ports(container) {
            // port 0 asks for a free one; Docker spells that as an empty text
            let host_port = if host == 0 { String::new() } else { host.to_string() };
            let bindings = config.port_bindings.entry(port).or_default();
            let binding = PortBinding { host_port, ..PortBinding::default() };
            bindings.get_or_insert_default().push(binding);
        }
    }
    config
}

/// Weights as ECS's agent sets them: below 2 the kernel refuses, above 262,144 too.
fn cpu_shares(units: i64) -> i64 {
    units.clamp(2, 262_144)
}

/// `80/tcp` and its host port.
fn ports(container: &PayloadContainer) -> impl Iterator<Item = (String, i64)> {
    container.port_mappings.iter().filter_map(|mapping| {
        let protocol = mapping.protocol.as_deref().unwrap_or("tcp");
        Some((format!("{}/{protocol}", mapping.container_port?), mapping.host_port.unwrap_or(0)))
    })
}

fn binds(task: &PayloadTask, container: &PayloadContainer) -> Vec<String> {
    let mounts = container.mount_points.iter().filter_map(|mount| {
        let (name, path) = (mount.source_volume.as_ref()?, mount.container_path.as_ref()?);
        let volume = task.volumes.iter().find(|volume| volume.name == *name)?;
        let directory = volume.host.as_ref().and_then(|host| host.source_path.clone());
        let shared = volume
            .docker_volume_configuration
            .as_ref()
            .is_some_and(|config| config["scope"].as_str() == Some("shared"));
        let source = match directory {
            Some(directory) if !directory.is_empty() => directory,
            _ if shared => name.clone(),
            _ => task_volume(task, name),
        };
        let mode = if mount.read_only == Some(true) { ":ro" } else { "" };
        Some(format!("{source}:{path}{mode}"))
    });
    mounts.collect()
}

/// A volume of a task definition's `dockerVolumeConfiguration`, to be there before its container is made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DockerVolume {
    pub(crate) name: String,
    /// What makes it; `None` where somebody else must have done so.
    pub(crate) create: Option<VolumeCreate>,
}

/// The volumes of a container that Docker is asked for by name (amazon-ecs-agent: agent/api/task,
/// `initializeDockerVolumes`).
pub(crate) fn docker_volumes(
    task: &PayloadTask,
    container: &PayloadContainer,
) -> Vec<DockerVolume> {
    let used = |name: &str| {
        container.mount_points.iter().any(|mount| mount.source_volume.as_deref() == Some(name))
    };
    let volumes = task.volumes.iter().filter(|volume| used(&volume.name)).filter_map(|volume| {
        let config = volume.docker_volume_configuration.as_ref()?;
        let is_shared = config["scope"].as_str() == Some("shared");
        let name = match is_shared {
            true => volume.name.clone(),
            false => task_volume(task, &volume.name),
        };
        let texts = |member: &str| -> BTreeMap<String, String> {
            let entries = config[member].as_object().into_iter().flatten();
            entries
                .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
                .collect()
        };
        let exists_already = is_shared && config["autoprovision"].as_bool() != Some(true);
        let create = VolumeCreate {
            name: name.clone(),
            driver: config["driver"].as_str().unwrap_or_default().to_owned(),
            driver_opts: texts("driverOpts"),
            labels: texts("labels"),
        };
        Some(DockerVolume { name, create: (!exists_already).then_some(create) })
    });
    volumes.collect()
}

/// Volumes that live as long as their task.
pub(crate) fn task_volumes(task: &PayloadTask) -> Vec<String> {
    let own = task.volumes.iter().filter(|volume| {
        let config = volume.docker_volume_configuration.as_ref();
        let shared = config.is_some_and(|config| config["scope"].as_str() == Some("shared"));
        let path = volume.host.as_ref().and_then(|host| host.source_path.as_deref());
        !shared && path.unwrap_or_default().is_empty()
    });
    own.map(|volume| task_volume(task, &volume.name)).collect()
}

fn task_volume(task: &PayloadTask, name: &str) -> String {
    let id = task.arn.id();
    format!("ecs-{}-{}-{name}-{id}", task.family, task.version)
}

fn text_object(text: &str) -> Result<Map<String, Value>, serde_json::Error> {
    if text.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(text)
}

fn lay_over(below: &mut Value, above: Map<String, Value>) {
    for (name, value) in above {
        below[name] = value;
    }
}

/// The least memory that Docker accepts, in MiB.
const MINIMUM_MEMORY: i64 = 6;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_proxy_of_the_walk_through() {
        let task: PayloadTask = serde_json::from_value(json!({
            "arn": "arn:aws:ecs:r:0:task/default/0a", "taskClusterArn": "arn:aws:ecs:r:0:cluster/default",
            "family": "SecurityApp", "version": "1", "launchType": "EC2", "networkMode": "bridge",
            "volumes": [{"name": "v", "host": {}}, {"name": "h", "host": {"sourcePath": "/srv"}}],
            "containers": [{
                "name": "proxy-container", "image": "127.0.0.1:5000/proxy", "cpu": 256, "memory": 256,
                "environment": {"A": "1"}, "links": ["application-container"],
                "portMappings": [
                    {"containerPort": 80, "hostPort": 80, "protocol": "tcp"},
                    {"containerPort": 53, "hostPort": 0, "protocol": "udp"},
                ],
                "mountPoints": [
                    {"sourceVolume": "v", "containerPath": "/v"},
                    {"sourceVolume": "h", "containerPath": "/h", "readOnly": true},
                ],
                "dockerConfig": {"config": "{\"User\":\"7\",\"Labels\":{\"own\":\"x\"}}", "hostConfig": "{\"NetworkMode\":\"bridge\"}"},
            }],
        }))
        .unwrap();
        let names = [("application-container".to_owned(), "ecs-app-1".to_owned())].into();
        assert_eq!(
            body(&task, &task.containers[0], &names).unwrap(),
            json!({
                "Image": "127.0.0.1:5000/proxy", "Env": ["A=1", "AWS_EXECUTION_ENV=AWS_ECS_EC2"], "User": "7",
                "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
                "Labels": {
                    "own": "x", "com.amazonaws.ecs.task-arn": "arn:aws:ecs:r:0:task/default/0a",
                    "com.amazonaws.ecs.container-name": "proxy-container",
                    "com.amazonaws.ecs.task-definition-family": "SecurityApp",
                    "com.amazonaws.ecs.task-definition-version": "1", "com.amazonaws.ecs.cluster": "default",
                },
                "HostConfig": {
                    "CpuShares": 256, "Memory": 256 << 20, "NetworkMode": "bridge",
                    "Binds": ["ecs-SecurityApp-1-v-0a:/v", "/srv:/h:ro"],
                    "Links": ["ecs-app-1:application-container"],
                    "PortBindings": {
                        "80/tcp": [{"HostIp": "", "HostPort": "80"}],
                        "53/udp": [{"HostIp": "", "HostPort": ""}],
                    },
                },
            })
        );
        assert_eq!(task_volumes(&task), ["ecs-SecurityApp-1-v-0a"]);
    }

    #[test]
    fn volumes_of_docker_are_made_or_must_be_there() {
        let task: PayloadTask = serde_json::from_value(json!({
            "arn": "arn:aws:ecs:r:0:task/default/0a", "taskClusterArn": "arn:aws:ecs:r:0:cluster/default",
            "family": "f", "version": "1", "launchType": "EC2", "networkMode": "bridge",
            "volumes": [
                {"name": "own", "dockerVolumeConfiguration": {
                    "driver": "local", "driverOpts": {"type": "tmpfs", "device": "tmpfs"}, "labels": {"a": "b"}}},
                {"name": "made", "dockerVolumeConfiguration": {"scope": "shared", "autoprovision": true}},
                {"name": "there", "dockerVolumeConfiguration": {"scope": "shared"}},
                {"name": "unused", "dockerVolumeConfiguration": {}},
            ],
            "containers": [{"name": "c", "image": "i", "cpu": 1, "memory": 6, "dockerConfig": {},
                "mountPoints": [
                    {"sourceVolume": "own", "containerPath": "/1"},
                    {"sourceVolume": "made", "containerPath": "/2"},
                    {"sourceVolume": "there", "containerPath": "/3"},
                ]}],
        }))
        .unwrap();
        let volumes = docker_volumes(&task, &task.containers[0]);
        let names: Vec<_> = volumes.iter().map(|volume| &*volume.name).collect();
        assert_eq!(names, ["ecs-f-1-own-0a", "made", "there"]);
        let own = volumes[0].create.as_ref().unwrap();
        assert_eq!(
            (&*own.driver, &*own.driver_opts["type"], &*own.labels["a"]),
            ("local", "tmpfs", "b")
        );
        assert!(volumes[1].create.is_some() && volumes[2].create.is_none());
        assert_eq!(task_volumes(&task), ["ecs-f-1-own-0a", "ecs-f-1-unused-0a"]);
    }
}
