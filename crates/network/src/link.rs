//! Links, addresses and routes as rtnetlink messages, without a socket.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, BridgeStpState, In6AddrGenMode, InetDevConf, InfoBridge,
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::rtnetlink::Change;
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

/// The bridge's fixed address: locally administered, and made from its IPv4 address, so that
/// neighbours' caches stay right when the bridge is made again. A bridge without one takes the
/// lowest of its ports' and changes it as containers come and go.
pub(crate) fn bridge_mac(gateway: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = gateway.octets();
    [0x02, 0xb1, a, b, c, d]
}

/// Makes the bridge, down, without spanning tree (whose listening phase would keep a new port
/// silent for 15 s).
pub(crate) fn new_bridge(bridge: &Bridge) -> Change {
    let mut link = named(&bridge.name);
    link.attributes.extend([
        LinkAttribute::Address(bridge_mac(bridge.gateway).to_vec()),
        LinkAttribute::Mtu(bridge.mtu),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(vec![
                InfoBridge::StpState(BridgeStpState::Disabled),
                InfoBridge::ForwardDelay(0),
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
        LinkAttribute::Address(bridge_mac(bridge.gateway).to_vec()),
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

/// Keeps a link from giving itself an IPv6 address: an unasked-for way to reach what listens on
/// the host. Refused where the kernel has no IPv6, and then not needed.
pub(crate) fn no_link_local(link: LinkMessage) -> Change {
    let mut link = link;
    link.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![
        AfSpecInet6::AddrGenMode(In6AddrGenMode::None),
    ])]));
    (RouteNetlinkMessage::SetLink(link), 0)
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
pub(crate) fn up_port(name: &str) -> Change {
    let mut link = named(name);
    link.header.flags |= LinkFlags::Up;
    link.header.change_mask |= LinkFlags::Up;
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)])),
    ]));
    (RouteNetlinkMessage::NewLink(link), 0)
}

pub(crate) fn delete(name: &str) -> Change {
    (RouteNetlinkMessage::DelLink(named(name)), 0)
}

/// Gives a link an IPv4 address; one that it has already is no error.
pub(crate) fn new_address(index: u32, address: Ipv4Addr, prefix: u8) -> Change {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = prefix;
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(IpAddr::V4(address)),
        AddressAttribute::Address(IpAddr::V4(address)),
    ];
    if prefix < 31 {
        let broadcast = u32::from(address) | (u32::MAX >> prefix);
        message.attributes.push(AddressAttribute::Broadcast(Ipv4Addr::from(broadcast)));
    }
    (RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
}

pub(crate) fn default_route(index: u32, gateway: Ipv4Addr) -> Change {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes =
        vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway)), RouteAttribute::Oif(index)];
    (RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
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

/// All links.
pub(crate) fn any() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetLink(LinkMessage::default())
}

/// All IPv4 addresses.
pub(crate) fn any_address() -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    RouteNetlinkMessage::GetAddress(message)
}

/// All IPv4 routes, of every table.
pub(crate) fn any_route() -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
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
