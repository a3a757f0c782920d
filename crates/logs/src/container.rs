use std::collections::BTreeMap;

use bulkhead_types::Timestamp;

/// What is known of a container that writes.
#[derive(Debug, Clone)]
pub struct Container {
    pub id: String,
    /// Without a slash.
    pub name: String,
    /// `sha256:…`
    pub image_id: String,
    /// As its user wrote it.
    pub image_name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    pub created: Timestamp,
    /// Of this machine.
    pub hostname: String,
    /// `NAME=VALUE`
    pub env: Vec<String>,
    pub labels: BTreeMap<String, String>,
}
