use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use bulkhead_logs::AwsEnvironment;
use bulkhead_network::PublishPolicy;

use crate::network::SubnetPools;
use crate::settings::Settings;
use crate::subnet::Subnet;

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
    /// The default bridge's address and prefix; `None` picks a free one of the pools.
    pub bridge_address: Option<(Ipv4Addr, u8)>,
    pub default_network: DefaultNetwork,
    /// Where networks have their subnets from whose users name none.
    pub address_pools: SubnetPools,
    /// Whether the engine switches on forwarding between the host's interfaces; without it containers
    /// reach no further than this machine, unless somebody else has done so.
    pub ip_forward: bool,
    /// The first host id that containers' user namespaces may use.
    pub first_id: u32,
    /// The cgroup at the root of each hierarchy below which the engine makes its own, and in that
    /// one for every container. Engines can share it.
    pub cgroup_parent: String,
    /// How many empty compartments the warden keeps ready for the next containers; 0 is none.
    pub compartments: u8,
    /// Bytes that all logs together may have, as far as rotated files go.
    pub log_budget: Option<u64>,
    /// Who reaches the ports that containers publish.
    pub publish_policy: PublishPolicy,
    /// Who this machine is to AWS, for logs that go there.
    pub aws: AwsEnvironment,
    /// What may be replaced later.
    pub settings: Settings,
}

/// What the network has that containers are on unless told otherwise, besides its bridge's name and
/// address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultNetwork {
    /// The part of the bridge's subnet that addresses are drawn from.
    pub range: Option<Subnet<Ipv4Addr>>,
    /// Another machine than the bridge as the containers' default route.
    pub gateway: Option<Ipv4Addr>,
    pub ipv6: Option<DefaultIpv6>,
    /// Bytes; `None` is that of the host's default route.
    pub mtu: Option<u32>,
    /// Containers reach each other.
    pub inter_container: bool,
    /// Packets leave with the host's address.
    pub masquerade: bool,
    /// Where ports are published that name no address of the host.
    pub host_binding: IpAddr,
}

/// IPv6 of the default network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DefaultIpv6 {
    /// The bridge's address and prefix; `None` is the first of `range`, or of a local subnet (RFC 4193).
    pub address: Option<(Ipv6Addr, u8)>,
    pub range: Option<Subnet<Ipv6Addr>>,
    pub gateway: Option<Ipv6Addr>,
}

impl Default for DefaultNetwork {
    fn default() -> Self {
        Self {
            range: None,
            gateway: None,
            ipv6: None,
            mtu: None,
            inter_container: true,
            masquerade: true,
            host_binding: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        }
    }
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
            default_network: DefaultNetwork::default(),
            address_pools: SubnetPools::default(),
            ip_forward: true,
            // Above the 65,536 that /etc/subuid usually gives each of a few thousand users, and
            // with room for 4,000 containers below 2^31 (some tools read ids as signed) and for
            // 12,000 below 2^32.
            first_id: 1_000_000_000,
            cgroup_parent: "bulkhead".to_owned(),
            compartments: 2,
            log_budget: None,
            publish_policy: PublishPolicy::default(),
            aws: AwsEnvironment::default(),
            settings: Settings::default(),
        }
    }
}
