use std::net::Ipv4Addr;
use std::path::PathBuf;

use bulkhead_image::RegistryOptions;
use bulkhead_logs::AwsEnvironment;
use bulkhead_network::PublishPolicy;

/// Where the engine lives and what it was told.
#[derive(Debug, Clone)]
pub struct Options {
    /// `/var/lib/bulkhead`
    pub data: PathBuf,
    /// `/run/bulkhead`
    pub run: PathBuf,
    /// This program, to start the warden with.
    pub program: PathBuf,
    pub bridge: String,
    /// The default bridge's address and prefix; `None` picks a free one from 172.17.0.0/16 on.
    pub bridge_address: Option<(Ipv4Addr, u8)>,
    /// The first host id that containers' user namespaces may use.
    pub first_id: u32,
    /// The cgroup at the root of each hierarchy below which the engine makes its own, and in that
    /// one for every container. Engines can share it.
    pub cgroup_parent: String,
    /// How many empty compartments the warden keeps ready for the next containers; 0 is none.
    pub compartments: u8,
    pub registries: RegistryOptions,
    /// Bytes that all logs together may have, as far as rotated files go.
    pub log_budget: Option<u64>,
    /// Who reaches the ports that containers publish.
    pub publish_policy: PublishPolicy,
    /// Who this machine is to AWS, for logs that go there.
    pub aws: AwsEnvironment,
}

impl Options {
    /// The engine of a whole machine; `program` starts the warden.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            data: "/var/lib/bulkhead".into(),
            run: "/run/bulkhead".into(),
            program: program.into(),
            bridge: "bulkhead0".to_owned(),
            bridge_address: None,
            // Above the 65,536 that /etc/subuid usually gives each of a few thousand users, and
            // with room for 4,000 containers below 2^31 (some tools read ids as signed) and for
            // 12,000 below 2^32.
            first_id: 1_000_000_000,
            cgroup_parent: "bulkhead".to_owned(),
            compartments: 2,
            registries: RegistryOptions::default(),
            log_budget: None,
            publish_policy: PublishPolicy::default(),
            aws: AwsEnvironment::default(),
        }
    }
}
