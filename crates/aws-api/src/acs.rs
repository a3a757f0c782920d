//! The messages of ACS, the agent communication service: what the server and our agent both speak.
//!
//! Shapes after aws/amazon-ecs-agent, `ecs-agent/acs/model/api/api-2.json`. Each websocket text frame is
//! `{"type": NAME, "message": {…}}`. Unknown members are ignored by both sides.

use std::collections::BTreeMap;

pub use bulkhead_ecs::{
    Arn, ContainerHealth, DependencyCondition, DesiredStatus, HealthStatus, TaskHealth, TaskStatus,
};
use bulkhead_ecs::{ContainerDependency, MountPoint, PortMapping, TaskOrder, VolumeFrom, docker};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A frame, before its message is read as what its type says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Frame {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub message: Value,
}

impl Frame {
    /// The text of a frame.
    pub fn text(kind: &str, message: impl Serialize) -> String {
        json!({"type": kind, "message": message}).to_string()
    }
}

/// Tasks for an agent, from the server: to run, or to stop.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PayloadMessage {
    pub message_id: String,
    pub cluster_arn: String,
    pub container_instance_arn: String,
    pub seq_num: i64,
    /// Milliseconds since 1970.
    pub generated_at: i64,
    pub tasks: Vec<PayloadTask>,
}

/// Proof of life from the server, which wants a `HeartbeatAckRequest`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeartbeatMessage {
    pub message_id: String,
    pub healthy: bool,
}

/// The agent's receipt for a payload (`AckRequest`) or a heartbeat (`HeartbeatAckRequest`).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ack {
    pub cluster: String,
    pub container_instance: String,
    pub message_id: String,
}

/// What an agent sends on the connection for telemetry (TCS: `PublishHealthRequest`).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PublishHealth {
    pub metadata: HealthMetadata,
    pub tasks: Vec<TaskHealth>,
    /// Seconds since 1970.
    pub timestamp: f64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HealthMetadata {
    pub cluster: String,
    pub container_instance: String,
    /// The last of the messages that belong together.
    pub fin: bool,
    pub message_id: String,
}

/// One task, with all that an agent needs to run it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PayloadTask {
    pub arn: Arn,
    pub task_cluster_arn: Arn,
    pub family: String,
    /// The revision, as text.
    pub version: String,
    pub desired_status: DesiredStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    pub launch_type: String,
    pub network_mode: String,
    /// Processors, of the whole task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<f64>,
    /// MiB, of the whole task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid_mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipc_mode: Option<String>,
    pub volumes: Vec<PayloadVolume>,
    pub containers: Vec<PayloadContainer>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PayloadVolume {
    pub name: String,
    /// `host` or `docker`.
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostPath>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docker_volume_configuration: Option<Value>,
}

/// A directory of the host; none for a volume that lives as long as its task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HostPath {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_path: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PayloadContainer {
    pub name: String,
    pub container_arn: String,
    pub image: String,
    pub cpu: i64,
    /// Hard limit in MiB; 0 for none.
    pub memory: i64,
    pub essential: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry_point: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    pub environment: BTreeMap<String, String>,
    pub links: Vec<String>,
    pub port_mappings: Vec<PortMapping>,
    pub mount_points: Vec<MountPoint>,
    pub volumes_from: Vec<VolumeFrom>,
    pub depends_on: Vec<ContainerDependency>,
    pub docker_config: DockerConfig,
    /// `docker` where the definition has a health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_check_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_timeout: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
}

/// The control plane's half of the Docker create request, as JSON in text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DockerConfig {
    pub version: String,
    pub config: String,
    pub host_config: String,
}

impl PayloadTask {
    /// An order in the form in which agents get it.
    pub fn of(order: &TaskOrder) -> Self {
        let (task, definition) = (&order.task, &order.definition);
        let number =
            |text: &Option<String>| text.as_ref().and_then(|text| text.parse::<i64>().ok());
        Self {
            arn: task.task_arn.clone(),
            task_cluster_arn: task.cluster_arn.clone(),
            family: definition.family.clone(),
            version: order.revision.to_string(),
            desired_status: task.desired_status,
            group: task.group.clone(),
            launch_type: task.launch_type.to_string(),
            network_mode: definition.network().to_owned(),
            cpu: number(&definition.cpu).map(|units| units as f64 / 1024.0),
            memory: number(&definition.memory),
            pid_mode: definition.pid_mode.clone(),
            ipc_mode: definition.ipc_mode.clone(),
            volumes: definition.volumes.iter().map(PayloadVolume::of).collect(),
            containers: definition
                .container_definitions
                .iter()
                .map(|container| PayloadContainer::of(order, container))
                .collect(),
        }
    }
}

impl PayloadVolume {
    fn of(volume: &bulkhead_ecs::Volume) -> Self {
        let docker = volume.docker_volume_configuration.is_some();
        let path = volume.host.as_ref().and_then(|host| host.source_path.clone());
        Self {
            name: volume.name.clone(),
            kind: if docker { "docker" } else { "host" }.into(),
            host: (!docker).then_some(HostPath { source_path: path }),
            docker_volume_configuration: volume.docker_volume_configuration.clone(),
        }
    }
}

impl PayloadContainer {
    fn of(order: &TaskOrder, container: &bulkhead_ecs::ContainerDefinition) -> Self {
        let mut parts = docker::parts(&order.definition, container);
        docker::name_log_stream(&mut parts, &container.name, order.task.id());
        let record = order.task.containers.iter().find(|record| record.name == container.name);
        let environment =
            container.environment.iter().map(|pair| (pair.name.clone(), pair.value.clone()));
        Self {
            name: container.name.clone(),
            container_arn: record
                .map(|record| record.container_arn.to_string())
                .unwrap_or_default(),
            image: container.image.clone(),
            cpu: container.cpu,
            memory: container.memory.unwrap_or(0),
            essential: container.essential,
            entry_point: container.entry_point.clone(),
            command: container.command.clone(),
            environment: environment.collect(),
            links: container.links.clone().unwrap_or_default(),
            port_mappings: container.port_mappings.clone(),
            mount_points: container.mount_points.clone(),
            volumes_from: container.volumes_from.clone(),
            depends_on: container.depends_on.clone().unwrap_or_default(),
            docker_config: DockerConfig {
                version: DOCKER_API.into(),
                config: Value::Object(parts.config).to_string(),
                host_config: Value::Object(parts.host_config).to_string(),
            },
            health_check_type: container.is_checked().then(|| "docker".into()),
            start_timeout: container.start_timeout,
            stop_timeout: container.stop_timeout,
        }
    }
}

/// The Docker API level that the two texts are written for.
const DOCKER_API: &str = "1.24";
