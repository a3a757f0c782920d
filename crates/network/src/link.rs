//! Links, addresses and routes as rtnetlink messages, without a socket.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, BridgeStpState, In6AddrGenMode, InetDevConf, InfoBridge,
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use crate::rtnetlink::{Change, Rtnetlink};
use crate::{Bridge, Endpoint, NetworkError};

/// `lo` has index 1 in every network namespace (`LOOPBACK_IFINDEX` in the kernel's net/flow.h).
pub(crate) const LOOPBACK: u32 = 1;

/// Checks a name as the kernel's `dev_valid_name` does, and that it is not a pattern.
pub(crate) fn check_name(name: &str) -> Result<(), NetworkError> {
    let valid = (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.bytes().any(|byte| byte <= b' ' || b"/:%".contains(&byte) || byte == 127);
    if valid { Ok(()) } else { Err(NetworkError::InvalidLinkName(name.to_owned())) }
}

/// The fixed hardware address of a bridge with this address, its IPv4 one if it has both: locally
/// administered, and made from it, so that neighbours' caches stay right when the bridge is made
/// again. A bridge without one takes the lowest of its ports' and changes it as containers come and go.
pub(crate) fn mac_for(gateway: IpAddr) -> [u8; 6] {
    let [a, b, c, d] = match gateway {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(address) => {
            let words = address.to_bits().to_be_bytes();
            words.chunks(4).fold([0; 4], |sum, word| std::array::from_fn(|at| sum[at] ^ word[at]))
        }
    };
    [0x02, 0xb1, a, b, c, d]
}

/// The bridge's fixed hardware address.
pub(crate) fn bridge_mac(bridge: &Bridge) -> [u8; 6] {
    let ipv4 = bridge.ipv4.map(|gateway| gateway.address.into());
    let ipv6 = bridge.ipv6.map(|gateway| gateway.address.into());
    mac_for(ipv4.or(ipv6).unwrap_or(Ipv4Addr::UNSPECIFIED.into()))
}

/// The link-local address that the kernel would make from a hardware address (RFC 4291, appendix A).
pub(crate) fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// Makes the bridge, down, without spanning tree (whose listening phase would keep a new port
/// silent for 15 s), and without multicast snooping.
pub(crate) fn new_bridge(bridge: &Bridge) -> Change {
    let mut link = named(&bridge.name);
    link.attributes.extend([
        LinkAttribute::Address(bridge_mac(bridge).to_vec()),
        LinkAttribute::Mtu(bridge.mtu),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(vec![
                InfoBridge::StpState(BridgeStpState::Disabled),
                InfoBridge::ForwardDelay(0),
                // a container could say that it wants to know who listens, and the bridge would
                // then keep multicast, and so neighbour discovery, from whoever has not answered
                InfoBridge::MulticastSnooping(false),
            ])),
        ]),
    ]);
    (RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)
}

/// Sets what may differ on a bridge that exists, and brings it up. `route_localnet` lets what the
/// host sends from 127.0.0.1 to a published port leave by this bridge, and by no other link.
pub(crate) fn set_bridge(index: u32, bridge: &Bridge) -> Change {
    let mut link = LinkMessage::default();
    link.header.index = index;
    let mut settings = InetDevConf::default();
    settings.route_localnet = 1;
    link.attributes.extend([
        LinkAttribute::Address(bridge_mac(bridge).to_vec()),
        LinkAttribute::Mtu(bridge.mtu),
        LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(
            settings,
        )])]),
    ]);
    up(link)
}

/// Makes the veth pair: the host's end a port of the bridge with index `bridge`, the peer directly
/// in `netns` under its name and address. A peer that is moved there later costs an RCU wait.
pub(crate) fn new_pair(
    endpoint: &Endpoint,
    bridge: u32,
    mtu: u32,
    netns: BorrowedFd<'_>,
) -> Change {
    let mut peer = named(&endpoint.interface);
    peer.attributes.extend([
        LinkAttribute::Address(endpoint.mac.to_vec()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::NetNsFd(netns.as_raw_fd()),
    ]);
    let mut link = named(&endpoint.host_link);
    link.attributes.extend([
        LinkAttribute::Mtu(mtu),
        LinkAttribute::Controller(bridge),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ]);
    (RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)
}

/// Makes a veth pair whose second end is in `netns`, both down.
pub(crate) fn plain_pair(here: &str, there: &str, netns: BorrowedFd<'_>) -> Change {
    let mut peer = named(there);
    peer.attributes.push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
    let mut link = named(here);
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    (RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)
}

/// Keeps a link from giving itself an IPv6 address: an unasked-for way to reach what listens on
/// the host. Refused where the kernel has no IPv6, and then not needed.
pub(crate) fn no_link_local(link: LinkMessage) -> Change {
    let mut link = link;
    link.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![
        AfSpecInet6::AddrGenMode(In6AddrGenMode::None),
    ])]));
    (RouteNetlinkMessage::SetLink(link), 0)
}

/// How the kernel refuses an AF_INET6 setting: without IPv6 at all (`validate_linkmsg`), or on a
/// link whose MTU is below IPv6's least, 1280.
pub(crate) fn is_absent_ipv6(error: &io::Error) -> bool {
    [Errno::AFNOSUPPORT, Errno::INVAL]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Brings a link up, with whatever else `link` sets.
pub(crate) fn up(link: LinkMessage) -> Change {
    let mut link = link;
    link.header.flags |= LinkFlags::Up;
    link.header.change_mask |= LinkFlags::Up;
    (RouteNetlinkMessage::SetLink(link), 0)
}

/// Brings a bridge's port up, in hairpin mode: where br_netfilter is loaded, a container's packet to
/// its own published port is translated before it is bridged, and so leaves by the port it came
/// from. RTM_NEWLINK, because RTM_SETLINK leaves a port's settings out (net/core/rtnetlink.c).
///
/// A port that is isolated exchanges no frames with others that are, of whatever protocol.
pub(crate) fn up_port(name: &str, bridge: &Bridge) -> Change {
    let mut link = named(name);
    link.header.flags |= LinkFlags::Up;
    link.header.change_mask |= LinkFlags::Up;
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![
            InfoBridgePort::HairpinMode(true),
            InfoBridgePort::Isolated(!bridge.inter_container),
        ])),
    ]));
    (RouteNetlinkMessage::NewLink(link), 0)
}

pub(crate) fn down(index: u32) -> Change {
    let mut link = indexed(index);
    link.header.change_mask |= LinkFlags::Up;
    (RouteNetlinkMessage::SetLink(link), 0)
}

/// Gives a link that is down another name.
pub(crate) fn rename(index: u32, name: &str) -> Change {
    let mut link = named(name);
    link.header.index = index;
    (RouteNetlinkMessage::SetLink(link), 0)
}

pub(crate) fn delete(name: &str) -> Change {
    (RouteNetlinkMessage::DelLink(named(name)), 0)
}

/// Gives a link an address; one that it has already is no error. An IPv6 address is used at once,
/// without the second in which the kernel asks whether somebody else has it.
pub(crate) fn new_address(index: u32, address: IpAddr, prefix: u8) -> Change {
    let message = own_address(index, address, prefix);
    (RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
}

/// Takes an address from a link.
pub(crate) fn no_address(index: u32, address: IpAddr, prefix: u8) -> Change {
    (RouteNetlinkMessage::DelAddress(own_address(index, address, prefix)), 0)
}

fn own_address(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = prefix;
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    if let IpAddr::V6(address) = address
        && address.is_unicast_link_local()
    {
        message.header.scope = AddressScope::Link;
    }
    match address {
        IpAddr::V4(address) if prefix < 31 => {
            let broadcast = u32::from(address) | (u32::MAX >> prefix);
            message.attributes.push(AddressAttribute::Broadcast(Ipv4Addr::from(broadcast)));
        }
        IpAddr::V4(_) => {}
        IpAddr::V6(_) => message.header.flags |= AddressHeaderFlags::Nodad,
    }
    message
}

/// Sets the default route of the gateway's family, in place of the one there is.
pub(crate) fn default_route(index: u32, gateway: IpAddr) -> Change {
    let mut message = RouteMessage::default();
    message.header.address_family = family(gateway);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    let gateway = match gateway {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    };
    message.attributes = vec![RouteAttribute::Gateway(gateway), RouteAttribute::Oif(index)];
    (RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
}

/// Sets the default route of a family to lead to the link itself, in place of the one there is.
pub(crate) fn default_route_on_link(index: u32, family: AddressFamily) -> Change {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = match family {
        AddressFamily::Inet => RouteScope::Link,
        _ => RouteScope::Universe,
    };
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![RouteAttribute::Oif(index)];
    (RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
}

/// The table of addresses that are the host's own.
const RT_TABLE_LOCAL: u8 = 255;

/// Lets an answer that is translated back to `::1` be delivered from this bridge: IPv6 knows no
/// `route_localnet`, and takes what comes from a link for `::1` only by a route of that link. What a
/// wire brings for `::1` the kernel drops before (`ip6_rcv_core`).
pub(crate) fn loopback_route(index: u32) -> Change {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet6;
    message.header.destination_prefix_length = 128;
    message.header.table = RT_TABLE_LOCAL;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Local;
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::Inet6(Ipv6Addr::LOCALHOST)),
        RouteAttribute::Oif(index),
        // behind the route through `lo`, whose metric is 0, and beside those of other bridges
        RouteAttribute::Priority(1024 + index),
    ];
    (RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// The link called `name`, with nothing else said about it.
pub(crate) fn named(name: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link
}

/// The link with this index, with nothing else said about it.
pub(crate) fn indexed(index: u32) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link
}

/// The index of a link; `None` where there is none of this name.
pub(crate) fn index_of(route: &mut Rtnetlink, name: &str) -> io::Result<Option<u32>> {
    match route.one(RouteNetlinkMessage::GetLink(named(name))) {
        Ok(RouteNetlinkMessage::NewLink(link)) => Ok(Some(link.header.index)),
        Ok(_) => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All links.
pub(crate) fn any() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetLink(LinkMessage::default())
}

/// The families that addresses and routes are asked for.
pub(crate) const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// All addresses of a family.
pub(crate) fn any_address(family: AddressFamily) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.family = family;
    RouteNetlinkMessage::GetAddress(message)
}

/// All routes of a family, of every table.
pub(crate) fn any_route(family: AddressFamily) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    RouteNetlinkMessage::GetRoute(message)
}

/// The name of a link that the kernel reported.
pub(crate) fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

pub(crate) fn mtu(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

/// The index of the bridge that a link is a port of.
pub(crate) fn controller(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Controller(index) => Some(*index),
        _ => None,
    })
}

pub(crate) fn mac(link: &LinkMessage) -> Option<&[u8]> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(address) => Some(address.as_slice()),
        _ => None,
    })
}

pub(crate) fn is_veth(link: &LinkMessage) -> bool {
    is_kind(link, &InfoKind::Veth)
}

pub(crate) fn is_bridge(link: &LinkMessage) -> bool {
    is_kind(link, &InfoKind::Bridge)
}

fn is_kind(link: &LinkMessage, kind: &InfoKind) -> bool {
    link.attributes.iter().any(|attribute| {
        matches!(attribute, LinkAttribute::LinkInfo(infos)
            if infos.iter().any(|info| matches!(info, LinkInfo::Kind(found) if found == kind)))
    })
}
