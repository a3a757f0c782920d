//! Where a container's programs ask for names: 127.0.0.11, port 53, inside of its own network namespace.
//!
//! The sockets have other ports, and one small nftables table leads queries to them, as with Docker
//! (moby: libnetwork/resolver_unix.go): port 53 stays free for a container that is a name server
//! itself. Connection tracking turns the answers back, so no second rule is needed.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::nft::{Base, Batch, Family, Hook, Meta, Nfnetlink, R0, Rule};
use crate::{NetworkError, netns};

/// The address at which tools expect a container's resolver.
pub const RESOLVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// Sockets of a container's network namespace, for whoever answers names in it.
#[derive(Debug)]
pub struct ResolverSockets {
    /// Queries for [`RESOLVER_ADDRESS`] come here.
    pub udp: OwnedFd,
    /// Listens for them.
    pub tcp: OwnedFd,
    /// Neither bound nor connected, to ask servers from the container's place.
    pub upstream_udp: Vec<OwnedFd>,
    pub upstream_tcp: Vec<OwnedFd>,
}

/// How many sockets for servers there are to be, and for which.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UpstreamSockets {
    pub udp: u8,
    pub tcp: u8,
    /// Some server has an IPv6 address. The sockets take both then, those of IPv4 in IPv6's form.
    pub ipv6: bool,
}

impl ResolverSockets {
    /// Opens them in `netns`, whose `lo` is up, and leads its queries to them. What another call has
    /// led elsewhere comes here from now on.
    pub fn open(netns: BorrowedFd<'_>, upstream: UpstreamSockets) -> Result<Self, NetworkError> {
        let what = "open the sockets of the resolver in the container's network namespace";
        let (sockets, mut nft) =
            netns::inside(netns, || Ok((Self::open_here(upstream)?, Nfnetlink::open()?)))
                .map_err(NetworkError::kernel(what))?;
        let redirected = sockets.ports().and_then(|(udp, tcp)| nft.commit(&redirect(udp, tcp)));
        redirected.map_err(NetworkError::kernel(format!(
            "lead {RESOLVER_ADDRESS}:53 to the resolver in the container's network namespace"
        )))?;
        Ok(sockets)
    }

    fn open_here(upstream: UpstreamSockets) -> io::Result<Self> {
        let socket = |family, kind| {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            rustix::net::socket_with(family, kind, flags, None)
        };
        let (udp, tcp) = (
            socket(AddressFamily::INET, SocketType::DGRAM)?,
            socket(AddressFamily::INET, SocketType::STREAM)?,
        );
        let address = SocketAddr::from((RESOLVER_ADDRESS, 0));
        rustix::net::bind(&udp, &address)?;
        rustix::net::bind(&tcp, &address)?;
        rustix::net::listen(&tcp, BACKLOG)?;
        let family = if upstream.ipv6 { AddressFamily::INET6 } else { AddressFamily::INET };
        let some = |count: u8, kind| -> io::Result<Vec<OwnedFd>> {
            (0..count).map(|_| Ok(socket(family, kind)?)).collect()
        };
        Ok(Self {
            udp,
            tcp,
            upstream_udp: some(upstream.udp, SocketType::DGRAM)?,
            upstream_tcp: some(upstream.tcp, SocketType::STREAM)?,
        })
    }

    fn ports(&self) -> io::Result<(u16, u16)> {
        let port = |socket: &OwnedFd| -> io::Result<u16> {
            let address = SocketAddrV4::try_from(rustix::net::getsockname(socket)?)?;
            Ok(address.port())
        };
        Ok((port(&self.udp)?, port(&self.tcp)?))
    }
}

/// The table as a whole, in place of one that is there.
fn redirect(udp: u16, tcp: u16) -> Batch {
    let mut batch = Batch::default();
    // only what exists can be deleted, and what exists is not made again
    batch.table(Family::Ip, TABLE).delete_table(Family::Ip, TABLE).table(Family::Ip, TABLE);
    let hook = Hook { kind: "nat", number: LOCAL_OUT, priority: DESTINATION_NAT };
    batch.chain(Family::Ip, TABLE, CHAIN, Some(hook));
    for (protocol, port) in [(UDP, udp), (TCP, tcp)] {
        let rule = Rule::default()
            .payload(Base::Network, 16, 4, R0) // the destination's address
            .equals(R0, &RESOLVER_ADDRESS.octets())
            .meta(Meta::TransportProtocol, R0)
            .equals(R0, &[protocol])
            .payload(Base::Transport, 2, 2, R0) // and its port
            .equals(R0, &53_u16.to_be_bytes())
            .load(R0, &RESOLVER_ADDRESS.octets())
            .load(R0 + 1, &port.to_be_bytes())
            .dnat(IPV4, R0, R0 + 1);
        batch.rule(Family::Ip, TABLE, CHAIN, rule);
    }
    batch
}

const TABLE: &str = "bulkhead-dns";
const CHAIN: &str = "output";

/// `NF_INET_LOCAL_OUT`, and the priority of destination NAT there (`NF_IP_PRI_NAT_DST`).
const LOCAL_OUT: u32 = 3;
const DESTINATION_NAT: i32 = -100;

/// `NFPROTO_IPV4`.
const IPV4: u32 = 2;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Connections that wait while another resolver takes over.
const BACKLOG: i32 = 128;
