use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::arn::Arn;
use crate::error::Error;
use crate::status::Status;
use crate::tag::Tag;
use crate::task_definition::KeyValuePair;

/// A cluster as the API shows it. Counters are filled in when it is read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    pub cluster_arn: Arn,
    pub cluster_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Value>,
    pub status: Status,
    pub registered_container_instances_count: i32,
    pub running_tasks_count: i32,
    pub pending_tasks_count: i32,
    pub active_services_count: i32,
    #[serde(default)]
    pub statistics: Vec<KeyValuePair>,
    #[serde(default)]
    pub tags: Vec<Tag>,
    #[serde(default)]
    pub settings: Vec<KeyValuePair>,
    #[serde(default)]
    pub capacity_providers: Vec<String>,
    #[serde(default)]
    pub default_capacity_provider_strategy: Vec<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_connect_defaults: Option<Value>,
}

/// The request of `CreateCluster`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CreateCluster {
    pub cluster_name: Option<String>,
    pub tags: Vec<Tag>,
    pub settings: Vec<KeyValuePair>,
    pub configuration: Option<Value>,
    pub capacity_providers: Vec<String>,
    pub default_capacity_provider_strategy: Vec<Value>,
    pub service_connect_defaults: Option<Value>,
}

/// The request of `DescribeClusters`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DescribeClusters {
    /// Names or ARNs; none means `default`.
    pub clusters: Vec<String>,
    /// Of `ATTACHMENTS`, `CONFIGURATIONS`, `SETTINGS`, `STATISTICS`, `TAGS`.
    pub include: Vec<String>,
}

pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    if is_name(name) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "Invalid cluster name '{name}': use 1 to 255 letters, numbers, hyphens and underscores."
    )))
}

/// Whether `name` is 1 to 255 of `[A-Za-z0-9_-]`: the form of cluster, family and container names.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}
