use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use bulkhead_aws_api::sigv4::Credentials;

/// What the operator, or the program that starts the agent, decides.
#[derive(Debug, Clone)]
pub struct Options {
    /// Of the control plane, such as `http://127.0.0.1:8080`.
    pub endpoint: String,
    pub region: String,
    pub credentials: Credentials,
    /// The cluster to join; `default` is created where it does not exist yet.
    pub cluster: String,
    /// The engine's Docker API.
    pub docker_socket: PathBuf,
    /// Holds the agent's state file.
    pub data_directory: PathBuf,
    /// By which other machines on the same network reach this one.
    pub private_ip: Option<IpAddr>,
    /// By which the rest reaches it.
    pub public_ip: Option<IpAddr>,
    /// TCP ports that no task may claim, besides 22: those of Bulkhead's own listeners.
    pub reserved_ports: Vec<u16>,
    /// MiB kept from the tasks.
    pub reserved_memory: u32,
    /// Logins of registries, by host and port as they stand in image names.
    pub registries: HashMap<String, RegistryLogin>,
    /// How long a stopped task's containers stay, for their logs. ECS's agent keeps them 3 hours.
    pub keep_stopped: Duration,
}

impl Options {
    /// Options with the usual values where there are any.
    pub fn new(
        endpoint: &str,
        credentials: Credentials,
        docker_socket: PathBuf,
        data_directory: PathBuf,
    ) -> Self {
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            region: "us-east-1".into(),
            credentials,
            cluster: "default".into(),
            docker_socket,
            data_directory,
            private_ip: None,
            public_ip: None,
            reserved_ports: Vec::new(),
            reserved_memory: 0,
            registries: HashMap::new(),
            keep_stopped: Duration::from_secs(3 * 60 * 60),
        }
    }
}

/// A name and password for a registry.
#[derive(Clone)]
pub struct RegistryLogin {
    pub user: String,
    pub password: String,
}

impl std::fmt::Debug for RegistryLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // the password must not reach a log
        f.debug_struct("RegistryLogin").field("user", &self.user).finish_non_exhaustive()
    }
}
