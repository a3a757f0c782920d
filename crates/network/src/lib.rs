//! The host's side of container networking: links, addresses, the nftables table, named netns.
//!
//! Everything is a netlink message; no program is executed.
#![forbid(unsafe_code)]
#![allow(clippy::todo, unused_variables)]

use std::net::Ipv4Addr;
use std::os::fd::{BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

/// A bridge that containers are plugged into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Interface name, at most 15 bytes, such as `bulkhead0`.
    pub name: String,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
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

/// Errors say which message the kernel refused, on which object.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("{what}: {cause}")]
    Kernel { what: String, cause: std::io::Error },
    #[error("interface {0} does not exist")]
    NoSuchLink(String),
    #[error("network namespace {0:?} does not exist; `bulkhead netns ls` lists the names")]
    NoSuchNamespace(String),
    #[error("network namespace {0:?} exists already; delete it first or choose another name")]
    NamespaceExists(String),
    #[error(
        "invalid network namespace name {0:?}: it must be one path component of at most 255 bytes"
    )]
    InvalidNamespaceName(String),
}

/// The kernel's links, addresses and nftables in the network namespace of the calling thread when
/// it was opened. All methods block for well under a millisecond to a few milliseconds.
#[derive(Debug)]
pub struct Host {}

impl Host {
    pub fn open() -> Result<Self, NetworkError> {
        todo!()
    }

    /// Makes the bridge, its address, forwarding and the base nftables rules; changes nothing the
    /// second time.
    pub fn ensure_bridge(&self, bridge: &Bridge) -> Result<(), NetworkError> {
        todo!()
    }

    /// Removes the bridge; one that is gone already is no error.
    pub fn remove_bridge(&self, name: &str) -> Result<(), NetworkError> {
        todo!()
    }

    /// Brings `lo` up, makes the veth pair with one end in `netns`, and sets address and route.
    pub fn plug(
        &self,
        netns: BorrowedFd<'_>,
        bridge: &Bridge,
        endpoint: &Endpoint,
    ) -> Result<(), NetworkError> {
        todo!()
    }

    /// Only brings `lo` up (`--network none`).
    pub fn loopback_up(&self, netns: BorrowedFd<'_>) -> Result<(), NetworkError> {
        todo!()
    }

    /// Removes the host's end (and so the pair); one that is gone already is no error.
    pub fn unplug(&self, host_link: &str) -> Result<(), NetworkError> {
        todo!()
    }

    pub fn publish(&self, ports: &[PublishedPort]) -> Result<(), NetworkError> {
        todo!()
    }

    pub fn unpublish(&self, ports: &[PublishedPort]) -> Result<(), NetworkError> {
        todo!()
    }

    /// Makes the kernel hold exactly these endpoints and ports: what an engine that crashed left
    /// behind is removed, what a flush of the ruleset lost is put back.
    pub fn reconcile(
        &self,
        bridges: &[(Bridge, Vec<Endpoint>)],
        ports: &[PublishedPort],
    ) -> Result<(), NetworkError> {
        todo!()
    }

    /// Removes the nftables tables and everything else of ours but links.
    pub fn tear_down(&self) -> Result<(), NetworkError> {
        todo!()
    }

    /// Addresses of this host's interfaces, without loopback, link-local and our own bridges'; the
    /// default route's first.
    pub fn addresses(&self) -> Result<Vec<Ipv4Addr>, NetworkError> {
        todo!()
    }

    /// The MTU of the interface that holds the default route, 1500 if there is none.
    pub fn default_mtu(&self) -> Result<u32, NetworkError> {
        todo!()
    }

    /// Whether a route of this host overlaps `subnet`/`prefix`, so that a pool can avoid it.
    pub fn overlaps(&self, subnet: Ipv4Addr, prefix: u8) -> Result<bool, NetworkError> {
        todo!()
    }
}

/// Network namespaces with names, in `/var/run/netns`, shared with iproute2's `ip netns`.
pub mod named {
    use super::*;

    pub fn add(name: &str) -> Result<(), NetworkError> {
        todo!()
    }

    pub fn delete(name: &str) -> Result<(), NetworkError> {
        todo!()
    }

    /// Names, sorted, with the nsid that `ip netns list` shows, if there is one.
    pub fn list() -> Result<Vec<(String, Option<i32>)>, NetworkError> {
        todo!()
    }

    pub fn open(name: &str) -> Result<OwnedFd, NetworkError> {
        todo!()
    }

    /// Gives the namespace `netns` (a container's) a name, as `ip netns attach` does.
    pub fn attach(name: &str, netns: BorrowedFd<'_>) -> Result<(), NetworkError> {
        todo!()
    }

    /// Moves the calling thread into the namespace with its own `/sys`, as `ip netns exec` does
    /// (and `/etc/netns/NAME` files bound over `/etc`). Only for a process about to exec.
    pub fn enter(name: &str) -> Result<(), NetworkError> {
        todo!()
    }
}
