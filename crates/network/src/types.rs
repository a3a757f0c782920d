//! What the engine asks for, as plain data.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bulkhead_types::Protocol;
use serde::{Deserialize, Serialize};

use crate::access::{Access, ReachedBy};
use crate::interface_sysctl::InterfaceSysctl;
use crate::publish_policy::PublishPolicy;

/// A bridge that containers are plugged into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "RecordedBridge")]
pub struct Bridge {
    /// Interface name, at most 15 bytes, such as `bulkhead0`.
    pub name: String,
    pub ipv4: Option<Gateway<Ipv4Addr>>,
    pub ipv6: Option<Gateway<Ipv6Addr>>,
    /// In bytes; with IPv6 at least 1280, below which the kernel has none on a link.
    pub mtu: u32,
    /// No way out of the host (Docker's `--internal`), and no default route.
    pub internal: bool,
    /// Whether its containers reach each other otherwise than by published ports (Docker's
    /// `com.docker.network.bridge.enable_icc`).
    pub inter_container: bool,
    /// Whether what leaves the host gets the host's address (Docker's
    /// `com.docker.network.bridge.enable_ip_masquerade`).
    pub masquerade: bool,
    pub access: Access,
    /// Not recorded: the engine is told at each start.
    #[serde(skip)]
    pub publish_policy: PublishPolicy,
}

/// A bridge's own address in one family, which is the containers' default route, and its subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Gateway<A> {
    pub address: A,
    pub prefix: u8,
}

/// One container's place on a bridge. It has an address of each family that the bridge has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The host's end of the veth pair, at most 15 bytes; names the endpoint.
    pub host_link: String,
    /// The name inside, `eth0`.
    pub interface: String,
    pub mac: [u8; 6],
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    pub default_route: DefaultRoute,
    /// Further addresses, for talking to neighbours alone (Docker's `LinkLocalIPs`).
    #[serde(default)]
    pub link_local: Vec<IpAddr>,
    #[serde(default)]
    pub sysctls: Vec<InterfaceSysctl>,
}

/// Of which families the container's default route leads through an endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DefaultRoute {
    #[default]
    None,
    Ipv4,
    Ipv6,
    Both,
}

impl DefaultRoute {
    /// Whether the IPv4 default route leads through the endpoint.
    pub const fn ipv4(self) -> bool {
        matches!(self, Self::Ipv4 | Self::Both)
    }

    /// Whether the IPv6 default route leads through the endpoint.
    pub const fn ipv6(self) -> bool {
        matches!(self, Self::Ipv6 | Self::Both)
    }
}

/// A host port that leads to a container. Both addresses are of one family: a port of both families
/// is two of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PublishedPort {
    pub protocol: Protocol,
    /// `0.0.0.0` and `::` mean every address of the host in this family.
    pub host_address: IpAddr,
    /// 0 where it is reached by the container's address alone.
    pub host_port: u16,
    pub container_address: IpAddr,
    pub container_port: u16,
    #[serde(default)]
    pub reached_by: ReachedBy,
}

impl std::fmt::Display for PublishedPort {
    /// As Docker lists it: `0.0.0.0:80/tcp`, `[::]:80/tcp`.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let address = std::net::SocketAddr::new(self.host_address, self.host_port);
        write!(formatter, "{address}/{}", self.protocol)
    }
}

/// A recorded bridge, of this version or of the ones before, which knew IPv4 alone.
#[derive(Deserialize)]
struct RecordedBridge {
    name: String,
    #[serde(default)]
    gateway: Option<Ipv4Addr>,
    #[serde(default)]
    prefix: u8,
    #[serde(default)]
    ipv4: Option<Gateway<Ipv4Addr>>,
    #[serde(default)]
    ipv6: Option<Gateway<Ipv6Addr>>,
    mtu: u32,
    internal: bool,
    #[serde(default = "yes")]
    inter_container: bool,
    #[serde(default = "yes")]
    masquerade: bool,
    #[serde(default)]
    access: Access,
}

fn yes() -> bool {
    true
}

impl From<RecordedBridge> for Bridge {
    fn from(recorded: RecordedBridge) -> Self {
        let prefix = recorded.prefix;
        let before = recorded.gateway.map(|address| Gateway { address, prefix });
        Self {
            name: recorded.name,
            ipv4: recorded.ipv4.or(before),
            ipv6: recorded.ipv6,
            mtu: recorded.mtu,
            internal: recorded.internal,
            inter_container: recorded.inter_container,
            masquerade: recorded.masquerade,
            access: recorded.access,
            publish_policy: PublishPolicy::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_before_ipv6_are_read() {
        let old = r#"{"name":"bulkhead0","gateway":"172.17.0.1","prefix":16,"mtu":1500,"internal":false}"#;
        let read: Bridge = serde_json::from_str(old).unwrap();
        let ipv4 = Gateway { address: Ipv4Addr::new(172, 17, 0, 1), prefix: 16 };
        assert_eq!(
            read,
            Bridge {
                name: "bulkhead0".to_owned(),
                ipv4: Some(ipv4),
                ipv6: None,
                mtu: 1500,
                internal: false,
                inter_container: true,
                masquerade: true,
                access: Access::default(),
                publish_policy: PublishPolicy::default(),
            }
        );
        let ipv6 = Gateway { address: "fd00::1".parse().unwrap(), prefix: 64 };
        let new = Bridge {
            ipv6: Some(ipv6),
            internal: true,
            inter_container: false,
            masquerade: false,
            ..read
        };
        let again: Bridge = serde_json::from_str(&serde_json::to_string(&new).unwrap()).unwrap();
        assert_eq!(again, new);
    }

    #[test]
    fn ports_are_shown_as_docker_lists_them() {
        let port = |host: &str| PublishedPort {
            protocol: Protocol::Tcp,
            host_address: host.parse().unwrap(),
            host_port: 80,
            container_address: host.parse().unwrap(),
            container_port: 80,
            reached_by: ReachedBy::Host,
        };
        assert_eq!(port("0.0.0.0").to_string(), "0.0.0.0:80/tcp");
        assert_eq!(port("::").to_string(), "[::]:80/tcp");
    }
}
