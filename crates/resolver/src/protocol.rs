use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use bulkhead_types::Id;
use serde::{Deserialize, Serialize};

/// What the resolver knows of one container: what it is called on its networks, and how names that
/// it asks for are found. The names of a network are those of the containers on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    pub id: Id,
    /// In the order in which a name that this container asks for is looked up.
    pub networks: Vec<Membership>,
    /// Who is asked for what is no name of its networks.
    pub upstream: Upstream,
    pub bare_names: BareNames,
}

/// A container on one user-defined network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    pub network: Id,
    pub network_name: String,
    /// By which others on the network find it; the first is what its addresses stand for in a
    /// reverse lookup. Several containers may share one: it resolves to all of them, by turns.
    pub names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// The host's addresses on the network, which are `host.docker.internal` to this container.
    pub gateways: Vec<IpAddr>,
    /// What only this container calls others (`--link CONTAINER:ALIAS`).
    pub links: Vec<Link>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub alias: String,
    /// A name of the network.
    pub target: String,
}

/// Servers, in the order in which they are preferred. Without any, all other names fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    pub servers: Vec<SocketAddr>,
    pub reach: Reach,
}

/// From whose network namespace servers are asked (moby: libnetwork/internal/resolvconf,
/// `ExtDNSEntry.HostLoopback`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reach {
    /// The host's own servers: on its loopback, or by its routes.
    Host,
    /// Those that a user gave the container: 127.0.0.1 is the container's, and nothing is reached
    /// that the container could not reach itself.
    Container,
}

/// What becomes of a name without a dot that no network knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BareNames {
    /// It is asked of the servers as any other.
    Forward,
    /// There is none: the client is to try its search domains, as it was told by an option `ndots`
    /// (moby: libnetwork/resolver.go, `NdotsSet`).
    Refuse,
}

/// What the resolver has of a container's network namespace. Sockets stay in the namespace in which
/// they were opened, so the process needs no right to enter one.
#[derive(Debug)]
pub struct Sockets {
    /// Bound; on it queries come.
    pub udp: OwnedFd,
    /// Listens.
    pub tcp: OwnedFd,
    /// Neither bound nor connected, for [`Reach::Container`]: one for each question that is asked of
    /// a server at the same time. The kernel gives them another port with every question.
    pub upstream_udp: Vec<OwnedFd>,
    pub upstream_tcp: Vec<OwnedFd>,
}

impl Sockets {
    /// Copies, for whoever goes on with them.
    pub fn try_clone(&self) -> std::io::Result<Self> {
        let copies = |all: &[OwnedFd]| -> std::io::Result<Vec<OwnedFd>> {
            all.iter().map(OwnedFd::try_clone).collect()
        };
        Ok(Self {
            udp: self.udp.try_clone()?,
            tcp: self.tcp.try_clone()?,
            upstream_udp: copies(&self.upstream_udp)?,
            upstream_tcp: copies(&self.upstream_tcp)?,
        })
    }
}
