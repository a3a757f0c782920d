use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::arn::Arn;
use crate::attribute::Attribute;
use crate::status::InstanceStatus;
use crate::tag::Tag;
use crate::timestamp::Timestamp;

/// A machine with an agent that runs tasks of one cluster, as the API shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerInstance {
    pub container_instance_arn: Arn,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ec2_instance_id: Option<String>,
    /// Counts the changes of this record.
    pub version: i64,
    #[serde(default)]
    pub version_info: VersionInfo,
    /// CPU and MEMORY that are free; of the ports, those **in use**.
    pub remaining_resources: Vec<Resource>,
    pub registered_resources: Vec<Resource>,
    pub status: InstanceStatus,
    /// Whether the agent's connection is up now; not kept in the store.
    #[serde(default)]
    pub agent_connected: bool,
    pub running_tasks_count: i32,
    pub pending_tasks_count: i32,
    pub attributes: Vec<Attribute>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registered_at: Option<Timestamp>,
    #[serde(default)]
    pub attachments: Vec<Value>,
    #[serde(default)]
    pub tags: Vec<Tag>,
}

impl ContainerInstance {
    /// The value of an attribute that the instance has.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|own| own.name == name)?.value.as_deref()
    }

    /// The address by which the instance's host network is reached from the same network.
    pub fn private_ip(&self) -> Option<&str> {
        self.attribute("bulkhead.private-ip")
    }

    /// The address by which it is reached from outside.
    pub fn public_ip(&self) -> Option<&str> {
        self.attribute("bulkhead.public-ip")
    }
}

/// An amount (`INTEGER`) or a set of texts (`STRINGSET`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub double_value: f64,
    #[serde(default)]
    pub long_value: i64,
    #[serde(default)]
    pub integer_value: i32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub string_set_value: Vec<String>,
}

impl Resource {
    pub fn integer(name: &str, value: i32) -> Self {
        Self { name: name.into(), kind: "INTEGER".into(), integer_value: value, ..Self::default() }
    }

    pub fn set(name: &str, values: impl IntoIterator<Item = String>) -> Self {
        Self {
            name: name.into(),
            kind: "STRINGSET".into(),
            string_set_value: values.into_iter().collect(),
            ..Self::default()
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VersionInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docker_version: Option<String>,
}

/// The request of `RegisterContainerInstance`, which agents send.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegisterContainerInstance {
    pub cluster: Option<String>,
    /// JSON text; its `instanceId` becomes the EC2 instance id. Bulkhead does not verify the signature:
    /// who may register is decided by the request's own.
    pub instance_identity_document: Option<String>,
    pub total_resources: Vec<Resource>,
    pub version_info: VersionInfo,
    /// Given by an agent that was registered before.
    pub container_instance_arn: Option<String>,
    pub attributes: Vec<Attribute>,
    pub tags: Vec<Tag>,
}

/// The request of `DescribeContainerInstances`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DescribeContainerInstances {
    pub cluster: Option<String>,
    /// Ids or ARNs, at most 100.
    pub container_instances: Vec<String>,
    pub include: Vec<String>,
}

/// The request of `ListContainerInstances`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListContainerInstances {
    pub cluster: Option<String>,
    /// An expression of the cluster query language.
    pub filter: Option<String>,
    pub status: Option<String>,
    pub next_token: Option<String>,
    pub max_results: Option<i64>,
}
