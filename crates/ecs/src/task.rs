use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::arn::Arn;
use crate::attribute::Attribute;
use crate::error::Failure;
use crate::status::{Connectivity, DesiredStatus, HealthStatus, LaunchType, StopCode, TaskStatus};
use crate::tag::Tag;
use crate::task_definition::{Definition, KeyValuePair, PlacementConstraint, PlacementStrategy};
use crate::timestamp::Timestamp;

/// One running (or once running) copy of a task definition, as the API shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    pub task_arn: Arn,
    pub cluster_arn: Arn,
    pub task_definition_arn: Arn,
    pub container_instance_arn: Arn,
    #[serde(default)]
    pub attachments: Vec<Value>,
    #[serde(default)]
    pub attributes: Vec<Attribute>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connectivity: Option<Connectivity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connectivity_at: Option<Timestamp>,
    pub containers: Vec<Container>,
    /// Reserved CPU units, as text.
    pub cpu: String,
    /// Reserved MiB, as text.
    pub memory: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    pub desired_status: DesiredStatus,
    #[serde(default)]
    pub enable_execute_command: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_stopped_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    pub health_status: HealthStatus,
    pub last_status: TaskStatus,
    pub launch_type: LaunchType,
    pub overrides: TaskOverride,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_stopped_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_code: Option<StopCode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_at: Option<Timestamp>,
    /// Why it stops, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopping_at: Option<Timestamp>,
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// Counts the changes of this record.
    pub version: i64,
}

impl Task {
    /// The 32 digits at the end of the ARN.
    pub fn id(&self) -> &str {
        self.task_arn.id()
    }

    pub fn is_stopped(&self) -> bool {
        self.last_status == TaskStatus::Stopped
    }
}

/// A container of a task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    pub container_arn: Arn,
    pub task_arn: Arn,
    pub name: String,
    pub image: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// The container engine's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_id: Option<String>,
    pub last_status: TaskStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default)]
    pub network_bindings: Vec<NetworkBinding>,
    #[serde(default)]
    pub network_interfaces: Vec<Value>,
    pub health_status: HealthStatus,
    pub cpu: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<String>,
}

/// A port of the instance that leads to a port of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkBinding {
    #[serde(rename = "bindIP", default, skip_serializing_if = "Option::is_none")]
    pub bind_ip: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_port: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_port: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
}

/// What one run of a task changes in its definition.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskOverride {
    pub container_overrides: Vec<ContainerOverride>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_role_arn: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_role_arn: Option<String>,
    pub inference_accelerator_overrides: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral_storage: Option<Value>,
}

impl TaskOverride {
    pub fn container(&self, name: &str) -> Option<&ContainerOverride> {
        self.container_overrides.iter().find(|over| over.name == name)
    }

    /// The definition with the overrides worked in: commands replace, environment merges by name.
    pub fn apply(&self, definition: &Definition) -> Definition {
        let mut changed = definition.clone();
        for container in &mut changed.container_definitions {
            let Some(over) = self.container(&container.name) else { continue };
            if over.command.is_some() {
                container.command.clone_from(&over.command);
            }
            for pair in &over.environment {
                match container.environment.iter_mut().find(|own| own.name == pair.name) {
                    Some(own) => own.value.clone_from(&pair.value),
                    None => container.environment.push(pair.clone()),
                }
            }
            container.cpu = over.cpu.unwrap_or(container.cpu);
            container.memory = over.memory.or(container.memory);
            container.memory_reservation = over.memory_reservation.or(container.memory_reservation);
        }
        changed.cpu = self.cpu.clone().or(changed.cpu);
        changed.memory = self.memory.clone().or(changed.memory);
        changed
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerOverride {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<KeyValuePair>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<i64>,
}

/// The request of `RunTask`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunTask {
    pub cluster: Option<String>,
    pub task_definition: String,
    /// 1 where absent; at most 10.
    pub count: Option<i64>,
    pub overrides: TaskOverride,
    /// The same token again answers with the tasks of the first time.
    pub client_token: Option<String>,
    pub group: Option<String>,
    pub started_by: Option<String>,
    pub launch_type: Option<String>,
    pub placement_constraints: Vec<PlacementConstraint>,
    pub placement_strategy: Vec<PlacementStrategy>,
    pub enable_execute_command: bool,
    /// `TASK_DEFINITION`: the definition's tags are copied to the task.
    pub propagate_tags: Option<String>,
    pub tags: Vec<Tag>,
    pub capacity_provider_strategy: Vec<Value>,
}

/// The request of `StartTask`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StartTask {
    pub cluster: Option<String>,
    pub task_definition: String,
    /// Ids or ARNs, at most 10.
    pub container_instances: Vec<String>,
    pub overrides: TaskOverride,
    pub group: Option<String>,
    pub started_by: Option<String>,
    pub enable_execute_command: bool,
    pub propagate_tags: Option<String>,
    pub tags: Vec<Tag>,
}

/// The answer of `RunTask` and `StartTask`: what was placed, and why the rest was not.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunTaskResult {
    pub tasks: Vec<Task>,
    pub failures: Vec<Failure>,
}

/// The request of `ListTasks`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListTasks {
    pub cluster: Option<String>,
    pub container_instance: Option<String>,
    pub family: Option<String>,
    pub started_by: Option<String>,
    pub service_name: Option<String>,
    /// `RUNNING` where absent.
    pub desired_status: Option<String>,
    pub launch_type: Option<String>,
    pub next_token: Option<String>,
    pub max_results: Option<i64>,
}
