//! What the engine asks for, as plain data.

use std::net::Ipv4Addr;

use bulkhead_types::Protocol;
use serde::{Deserialize, Serialize};

/// A bridge that containers are plugged into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Interface name, at most 15 bytes, such as `bulkhead0`.
    pub name: String,
    /// The bridge's own address, which is the containers' default route.
    pub gateway: Ipv4Addr,
    pub prefix: u8,
    pub mtu: u32,
    /// No way out of the host (Docker's `--internal`).
    pub internal: bool,
}

/// One container's place on a bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The host's end of the veth pair, at most 15 bytes; names the endpoint.
    pub host_link: String,
    /// The name inside, `eth0`.
    pub interface: String,
    pub address: Ipv4Addr,
    pub mac: [u8; 6],
}

/// A host port that leads to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PublishedPort {
    pub protocol: Protocol,
    /// `0.0.0.0` means every address of the host.
    pub host_address: Ipv4Addr,
    pub host_port: u16,
    pub container_address: Ipv4Addr,
    pub container_port: u16,
}

impl std::fmt::Display for PublishedPort {
    /// As Docker lists it: `0.0.0.0:80/tcp`.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}/{}", self.host_address, self.host_port, self.protocol)
    }
}
