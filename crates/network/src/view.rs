//! What a network namespace has, for people to see: links, addresses, routes, neighbours, sockets and
//! the firewall, by netlink and `/proc/net` alone.

use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;

use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::nft::listing;
use crate::rtnetlink::Rtnetlink;
use crate::survey::local;
use crate::{NetworkError, link, netns};

pub use crate::nft::listing::{Chain, Hook};

/// One look at a namespace.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub links: Vec<Link>,
    pub routes: Vec<Route>,
    pub neighbours: Vec<Neighbour>,
    pub sockets: Vec<Socket>,
    pub chains: Vec<Chain>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// `veth`, `bridge`, `macvlan` …; of hardware and of `lo` there is none.
    pub kind: Option<String>,
    pub up: bool,
    pub mtu: Option<u32>,
    pub mac: Option<String>,
    /// With the length of the prefix: `10.0.0.1/24`.
    pub addresses: Vec<String>,
    /// The link that it is a port of.
    pub controller: Option<u32>,
    /// The index of a veth's other end, or of what it is a part of, in its own namespace.
    pub peer: Option<u32>,
    /// The number by which this namespace knows the one of the peer; none is this one.
    pub peer_namespace: Option<i32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// `default`, or an address with the length of the prefix.
    pub to: String,
    pub gateway: Option<IpAddr>,
    pub link: Option<u32>,
    pub metric: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    pub address: IpAddr,
    pub mac: Option<String>,
    pub link: u32,
    pub state: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    /// `tcp`, `udp`, `tcp6`, `udp6`
    pub protocol: &'static str,
    pub local: String,
    pub remote: String,
    /// `listen`, `established` …; of UDP there is none.
    pub state: &'static str,
    pub uid: u32,
}

/// Looks at the namespace `netns`.
///
/// # Errors
/// It may not be entered, or the kernel does not answer.
pub fn view(netns: BorrowedFd<'_>) -> Result<View, NetworkError> {
    netns::inside(netns, || {
        let mut socket = Rtnetlink::open()?;
        let mut view = View { sockets: sockets()?, ..View::default() };
        view.links = links(&mut socket)?;
        for family in link::FAMILIES {
            for message in socket.all(link::any_route(family))? {
                if let RouteNetlinkMessage::NewRoute(message) = message {
                    view.routes.extend(route(&message));
                }
            }
        }
        let mut any = NeighbourMessage::default();
        any.header.family = AddressFamily::Unspec;
        for message in socket.all(RouteNetlinkMessage::GetNeighbour(any))? {
            if let RouteNetlinkMessage::NewNeighbour(message) = message {
                view.neighbours.extend(neighbour(&message));
            }
        }
        // a kernel without nftables has no firewall of that kind
        view.chains = crate::nft::Nfnetlink::open()
            .and_then(|mut socket| listing::chains(&mut socket))
            .or_else(|error| match error.raw_os_error() {
                Some(_) if error.kind() == io::ErrorKind::Unsupported => Ok(Vec::new()),
                _ => Err(error),
            })?;
        Ok(view)
    })
    .map_err(NetworkError::kernel("look at the network namespace"))
}

/// The links of the namespace `netns`, and its own inode.
pub fn links_of(netns: BorrowedFd<'_>) -> Result<(u64, Vec<Link>), NetworkError> {
    netns::inside(netns, || {
        let inode = std::fs::metadata("/proc/thread-self/ns/net")?.ino();
        Ok((inode, links(&mut Rtnetlink::open()?)?))
    })
    .map_err(NetworkError::kernel("list the links of a network namespace"))
}

/// The number by which the namespace `here` knows `there`, if it does.
pub fn number_of(here: BorrowedFd<'_>, there: BorrowedFd<'_>) -> Option<i32> {
    netns::inside(here, || Ok(crate::named::nsid(&mut Rtnetlink::open()?, there))).ok().flatten()
}

fn links(socket: &mut Rtnetlink) -> io::Result<Vec<Link>> {
    let mut links = Vec::new();
    for message in socket.all(link::any())? {
        if let RouteNetlinkMessage::NewLink(message) = message {
            links.push(one_link(&message));
        }
    }
    for family in link::FAMILIES {
        for message in socket.all(link::any_address(family))? {
            let RouteNetlinkMessage::NewAddress(message) = message else { continue };
            let Some(address) = local(&message) else { continue };
            if let Some(link) = links.iter_mut().find(|link| link.index == message.header.index) {
                link.addresses.push(format!("{address}/{}", message.header.prefix_len));
            }
        }
    }
    Ok(links)
}

fn one_link(message: &LinkMessage) -> Link {
    let kind = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().find_map(|info| match info {
            LinkInfo::Kind(InfoKind::Other(kind)) => Some(kind.clone()),
            LinkInfo::Kind(kind) => Some(kind.to_string()),
            _ => None,
        }),
        _ => None,
    });
    let mut found = Link {
        index: message.header.index,
        name: link::name(message).unwrap_or_default().to_owned(),
        kind,
        up: message.header.flags.contains(LinkFlags::Up),
        mtu: link::mtu(message),
        mac: link::mac(message).filter(|mac| mac.len() == 6).map(hardware_address),
        addresses: Vec::new(),
        controller: link::controller(message),
        peer: None,
        peer_namespace: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Link(peer) => found.peer = Some(*peer).filter(|peer| *peer != 0),
            LinkAttribute::LinkNetNsId(id) => found.peer_namespace = Some(*id),
            _ => {}
        }
    }
    found
}

fn hardware_address(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 3);
    for byte in bytes {
        if !text.is_empty() {
            text.push(':');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Those of the main table, as `ip route` shows them.
fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    let address = |address: &RouteAddress| match address {
        RouteAddress::Inet(address) => Some(IpAddr::from(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::from(*address)),
        _ => None,
    };
    let mut route = Route { to: "default".to_owned(), gateway: None, link: None, metric: None };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => {
                route.to = format!("{}/{}", address(to)?, header.destination_prefix_length);
            }
            RouteAttribute::Gateway(gateway) => route.gateway = address(gateway),
            RouteAttribute::Oif(index) => route.link = Some(*index),
            RouteAttribute::Priority(metric) => route.metric = Some(*metric),
            _ => {}
        }
    }
    Some(route)
}

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => {
                address = Some(IpAddr::from(*found));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => {
                address = Some(IpAddr::from(*found));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) if bytes.len() == 6 => {
                mac = Some(hardware_address(bytes));
            }
            _ => {}
        }
    }
    let state = message.header.state.to_string();
    let link = message.header.ifindex;
    // multicast and broadcast need nobody to be asked for, and `ip neigh` leaves them out too
    (state != "noarp").then_some(Neighbour { address: address?, mac, link, state })
}

/// `/proc/thread-self/net`, which is that of the calling thread's namespace.
fn sockets() -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for protocol in ["tcp", "tcp6", "udp", "udp6"] {
        match std::fs::read_to_string(format!("/proc/thread-self/net/{protocol}")) {
            Ok(text) => {
                sockets.extend(text.lines().skip(1).filter_map(|line| socket(protocol, line)))
            }
            // no IPv6 here
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

/// One line of proc_pid_net(5): `0: 0100007F:1F90 00000000:0000 0A … uid`.
fn socket(protocol: &'static str, line: &str) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace();
    let (_, local, remote, state) =
        (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let uid = fields.nth(3)?.parse().ok()?;
    let state = match (protocol.starts_with("tcp"), u8::from_str_radix(state, 16).ok()?) {
        (true, number) => *TCP_STATES.get(usize::from(number).checked_sub(1)?)?,
        (false, _) => "",
    };
    Some(Socket { protocol, local: endpoint(local)?, remote: endpoint(remote)?, state, uid })
}

/// include/net/tcp_states.h
const TCP_STATES: [&str; 12] = [
    "established",
    "syn-sent",
    "syn-received",
    "fin-wait-1",
    "fin-wait-2",
    "time-wait",
    "close",
    "close-wait",
    "last-ack",
    "listen",
    "closing",
    "new-syn-received",
];

/// An address in words of 32 bits, each in the machine's order, and a port.
fn endpoint(text: &str) -> Option<String> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for word in address.as_bytes().chunks(8) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    let address = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(bytes) => IpAddr::from(bytes),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?),
    };
    let port = if port == 0 { "*".to_owned() } else { port.to_string() };
    Some(match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_read_from_proc() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1";
        assert_eq!(
            socket("tcp", line),
            Some(Socket {
                protocol: "tcp",
                local: "127.0.0.1:8080".to_owned(),
                remote: "0.0.0.0:*".to_owned(),
                state: "listen",
                uid: 1000,
            })
        );
        assert_eq!(endpoint("00000000000000000000000001000000:0050").as_deref(), Some("[::1]:80"));
        assert_eq!(socket("tcp", "nonsense"), None);
    }
}
