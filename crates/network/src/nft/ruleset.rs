//! The firewall: what is allowed between containers, the host and the world.
//!
//! Two tables, both called `bulkhead`. Rules are fixed; bridges, endpoints and ports are elements
//! of sets and maps, so that a change costs the same with one container or a thousand. What is said
//! here of `NAME` is done for IPv4, and by a set `NAME6` for IPv6.
//!
//! `inet bulkhead` routes and filters:
//! - `ports` and `address_ports` map (protocol, host port) and (protocol, host address, host port)
//!   to a container's address and port; `prerouting` and `output` look packets to any local
//!   address up in them, the exact address first.
//! - `postrouting` masquerades what leaves a bridge's subnet (those in `masqueraded`; as the address in
//!   `leaves_as` if the bridge is there), what a container sends to its own network by a published port, and what the host sends from 127.0.0.0/8
//!   or `::1`.
//! - `forward` accepts within one bridge (those in `same_bridge`) and from containers outwards; to
//!   containers only answers and what was published, whoever sends and by whichever route. So between
//!   two bridges only published ports are reached, and so it is within a bridge that is not in
//!   `same_bridge` (Docker's `enable_icc=false`), whose ports the bridge itself keeps apart
//!   besides. (Where `bridge-nf-call-iptables` is on, a neighbour's packet to a published port is
//!   translated on the bridge, which then keeps it from the other port as well.) An internal bridge
//!   forwards nothing but within itself.
//! - Where a network's mode says so, `forward` lets more in: `open` holds (protocol, container's address,
//!   container's port) of what is published on networks in `routed`, which everybody reaches that
//!   way, as ICMP, and of those that interfaces in `trusted` (bridge, interface) reach; all but other
//!   bridges reach every port of the networks in `unprotected`.
//! - `published` is the policy for all of that: what leads to a bridge in `restricted` comes from
//!   another bridge, or from an address in `sources`, or is dropped.
//! - `user` belongs to the administrator and is never flushed: it sees each new connection to and
//!   from containers, after destination NAT, before the rules above decide. For example, to let
//!   one network only reach the published ports:
//!   `nft add rule inet bulkhead user oifname "bulkhead0" ip saddr != 192.0.2.0/24 drop`. What it
//!   accepts is let through, whatever `published` would say.
//! - `raw` drops what comes from a wire for 127.0.0.0/8 (`route_localnet` would deliver it) or `::1`
//!   (br_netfilter would translate it), and the cloud's metadata addresses 169.254.169.254 and
//!   fd00:ec2::254 for containers.
//!
//! An accept here does not overrule another table: a host whose own firewall drops forwarded
//! packets goes on dropping them. That is meant; published ports obey the host's firewall.
//!
//! `bridge bulkhead` pins every endpoint's port (those in `pinned`) to the (interface, hardware
//! address, IP address) that it was given (those in `endpoints`), in ARP and in IPv6's neighbour
//! discovery too. What is of no family that the endpoint has an address of is dropped, and of
//! ICMPv6 whatever belongs to routers. Ports that the administrator adds to a bridge are not in
//! `pinned` and pass. (To ask for the frame's bridge instead takes nft_meta_bridge, which not every
//! kernel has.)
//!
//! A port published on `::` is reached by `[::1]` as well, unless `bridge-nf-call-ip6tables` is on
//! (as it is where br_netfilter is loaded and nobody has turned it off): it has answers translated
//! back to `::1` while they are on the bridge, before the kernel drops packets for `::1` from a wire
//! (`ip6_rcv_core`). Then such a connection is left alone, and refused by whoever holds the port.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use super::codec::{Set, Type};
use super::{Element, Family};
use crate::{Bridge, Endpoint, Gateway, GatewayMode, PublishPolicy, PublishedPort, link};

pub(crate) const TABLE: &str = "bulkhead";
pub(crate) const FAMILIES: [Family; 2] = [Family::Inet, Family::Bridge];

/// Whether connections of the host to `[::1]` reach published ports: see above.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Ipv6Loopback {
    #[default]
    Refused,
    Published,
}

/// All sets.
pub(crate) const SETS: [(Family, &Set); 26] = [
    (Family::Inet, &ADDRESS_PORTS.0),
    (Family::Inet, &ADDRESS_PORTS.1),
    (Family::Inet, &PORTS.0),
    (Family::Inet, &PORTS.1),
    (Family::Inet, &BRIDGES),
    (Family::Inet, &INTERNAL),
    (Family::Inet, &SAME),
    (Family::Inet, &SUBNETS.0),
    (Family::Inet, &SUBNETS.1),
    (Family::Inet, &MASQUERADED.0),
    (Family::Inet, &MASQUERADED.1),
    (Family::Inet, &LEAVES_AS.0),
    (Family::Inet, &LEAVES_AS.1),
    (Family::Inet, &OPEN.0),
    (Family::Inet, &OPEN.1),
    (Family::Inet, &ROUTED.0),
    (Family::Inet, &ROUTED.1),
    (Family::Inet, &UNPROTECTED.0),
    (Family::Inet, &UNPROTECTED.1),
    (Family::Inet, &TRUSTED),
    (Family::Inet, &RESTRICTED),
    (Family::Inet, &SOURCES.0),
    (Family::Inet, &SOURCES.1),
    (Family::Bridge, &ENDPOINTS.0),
    (Family::Bridge, &ENDPOINTS.1),
    (Family::Bridge, &PINNED),
];

/// The sets of one meaning for IPv4 and IPv6.
pub(super) struct Both(Set, Set);

impl Both {
    pub(super) const fn of(&self, version: Version) -> &Set {
        match version {
            Version::V4 => &self.0,
            Version::V6 => &self.1,
        }
    }

    fn holds(&self, set: &str) -> bool {
        self.0.name == set || self.1.name == set
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V4,
    V6,
}

const fn version(address: IpAddr) -> Version {
    match address {
        IpAddr::V4(_) => Version::V4,
        IpAddr::V6(_) => Version::V6,
    }
}

use Type::{Address, Address6, Interface, Mac, Port, Protocol};

const fn set(name: &'static str, key: &'static [Type]) -> Set {
    Set { name, key, value: &[], interval: false }
}

const fn map(name: &'static str, key: &'static [Type], value: &'static [Type]) -> Set {
    Set { name, key, value, interval: false }
}

const fn interval(name: &'static str, key: &'static [Type]) -> Set {
    Set { name, key, value: &[], interval: true }
}

pub(super) const ADDRESS_PORTS: Both = Both(
    map("address_ports", &[Protocol, Address, Port], &[Address, Port]),
    map("address_ports6", &[Protocol, Address6, Port], &[Address6, Port]),
);
pub(super) const PORTS: Both = Both(
    map("ports", &[Protocol, Port], &[Address, Port]),
    map("ports6", &[Protocol, Port], &[Address6, Port]),
);
pub(crate) const BRIDGES: Set = set("bridges", &[Interface]);
pub(super) const INTERNAL: Set = set("internal", &[Interface]);
/// (bridge, bridge): nft cannot compare two registers. With `bridge-nf-call-iptables`, which is on
/// wherever br_netfilter is loaded, what passes within a bridge comes through `forward` too.
pub(super) const SAME: Set = set("same_bridge", &[Interface, Interface]);
pub(super) const SUBNETS: Both =
    Both(interval("subnets", &[Interface, Address]), interval("subnets6", &[Interface, Address6]));
pub(super) const MASQUERADED: Both = Both(
    interval("masqueraded", &[Interface, Address]),
    interval("masqueraded6", &[Interface, Address6]),
);
pub(super) const LEAVES_AS: Both =
    Both(map("leaves_as", &[Interface], &[Address]), map("leaves_as6", &[Interface], &[Address6]));
pub(super) const OPEN: Both =
    Both(set("open", &[Protocol, Address, Port]), set("open6", &[Protocol, Address6, Port]));
pub(super) const ROUTED: Both = Both(set("routed", &[Interface]), set("routed6", &[Interface]));
pub(super) const UNPROTECTED: Both =
    Both(set("unprotected", &[Interface]), set("unprotected6", &[Interface]));
/// (bridge, interface of the host)
pub(super) const TRUSTED: Set = set("trusted", &[Interface, Interface]);
pub(super) const RESTRICTED: Set = set("restricted", &[Interface]);
pub(super) const SOURCES: Both =
    Both(interval("sources", &[Interface, Address]), interval("sources6", &[Interface, Address6]));
pub(super) const PINNED: Set = set("pinned", &[Interface]);
pub(super) const ENDPOINTS: Both = Both(
    set("endpoints", &[Interface, Mac, Address]),
    set("endpoints6", &[Interface, Mac, Address6]),
);

/// An element and where it is.
pub(crate) type Placed = (Family, &'static str, Element);

/// A bridge's elements.
pub(crate) fn bridge(bridge: &Bridge) -> Vec<Placed> {
    let name = interface(&bridge.name);
    let mut elements = vec![(Family::Inet, BRIDGES.name, plain(name.to_vec()))];
    if bridge.inter_container {
        elements.push((Family::Inet, SAME.name, plain([name, name].concat())));
    }
    if bridge.internal {
        elements.push((Family::Inet, INTERNAL.name, plain(name.to_vec())));
    }
    let access = &bridge.access;
    for Subnet { version, first, last } in subnets(bridge) {
        let (mode, leaves_as) = match version {
            Version::V4 => (access.ipv4.mode, access.ipv4.leaves_as.map(IpAddr::from)),
            Version::V6 => (access.ipv6.mode, access.ipv6.leaves_as.map(IpAddr::from)),
        };
        let element = within(name, first, last);
        elements.push((Family::Inet, SUBNETS.of(version).name, element.clone()));
        if bridge.masquerade && mode != GatewayMode::Routed {
            elements.push((Family::Inet, MASQUERADED.of(version).name, element));
            elements.extend(leaves_as.map(|address| {
                let value = Some(octets(address));
                let element = Element { value, ..plain(name.to_vec()) };
                (Family::Inet, LEAVES_AS.of(version).name, element)
            }));
        }
        let lets_in = match mode {
            GatewayMode::Routed => Some(ROUTED),
            GatewayMode::NatUnprotected => Some(UNPROTECTED),
            GatewayMode::Nat | GatewayMode::Isolated => None,
        };
        elements
            .extend(lets_in.map(|set| (Family::Inet, set.of(version).name, plain(name.to_vec()))));
    }
    if let PublishPolicy::Sources(blocks) = &bridge.publish_policy {
        elements.push((Family::Inet, RESTRICTED.name, plain(name.to_vec())));
        elements.extend(blocks.iter().map(|block| {
            let element = within(name, octets(block.first()), octets(block.last()));
            (Family::Inet, SOURCES.of(version(block.first())).name, element)
        }));
    }
    // One that is named twice is one element.
    let trusted: BTreeSet<_> = access.trusted_interfaces.iter().map(|it| interface(it)).collect();
    elements.extend(
        trusted
            .into_iter()
            .map(|trusted| (Family::Inet, TRUSTED.name, plain([name, trusted].concat()))),
    );
    elements
}

/// The addresses from `first` to `last` of an interface.
fn within(name: [u8; INTERFACE], first: Vec<u8>, last: Vec<u8>) -> Element {
    let with = |address: Vec<u8>| [name.to_vec(), address].concat();
    Element { key: with(first), end: Some(with(last)), ..Element::default() }
}

/// An endpoint's elements. One that has IPv6 has a link-local address besides, which it asks for its
/// neighbours with.
pub(crate) fn endpoint(endpoint: &Endpoint) -> Vec<Placed> {
    let name = interface(&endpoint.host_link);
    let mut elements = vec![(Family::Bridge, PINNED.name, plain(name.to_vec()))];
    let ipv6 = endpoint.ipv6.map(|address| [address, link::link_local(endpoint.mac)]);
    let addresses = endpoint.ipv4.map(IpAddr::from).into_iter();
    let all: BTreeSet<IpAddr> = addresses
        .chain(ipv6.into_iter().flatten().map(IpAddr::from))
        .chain(endpoint.link_local.iter().copied())
        .collect();
    for address in all {
        let key = [&name[..], &endpoint.mac, &[0, 0], &octets(address)].concat();
        elements.push((Family::Bridge, ENDPOINTS.of(version(address)).name, plain(key)));
    }
    elements
}

/// A published port's elements; `None` where its two addresses are not of one family.
pub(crate) fn port(port: &PublishedPort) -> Option<Vec<Placed>> {
    let version = version(port.host_address);
    if port.container_address.is_ipv4() != port.host_address.is_ipv4() {
        return None;
    }
    let number = |port: u16| [port.to_be_bytes(), [0, 0]].concat();
    let protocol = [port.protocol.number(), 0, 0, 0];
    let inside = [octets(port.container_address), number(port.container_port)].concat();
    let mut placed = Vec::new();
    if port.reached_by.host() {
        let mut key = protocol.to_vec();
        let map = if port.host_address.is_unspecified() {
            PORTS
        } else {
            key.extend(octets(port.host_address));
            ADDRESS_PORTS
        };
        key.extend(number(port.host_port));
        let element = Element { value: Some(inside.clone()), ..plain(key) };
        placed.push((Family::Inet, map.of(version).name, element));
    }
    if port.reached_by.container() {
        let element = plain([&protocol[..], &inside].concat());
        placed.push((Family::Inet, OPEN.of(version).name, element));
    }
    Some(placed)
}

/// Whether the element's key begins with this interface.
pub(crate) fn is_of(element: &Element, name: &str) -> bool {
    element.key.starts_with(&interface(name))
}

/// Which of `elements`, all there are, belong to the bridges: by a bridge's name, by an address in a
/// bridge's subnet, or by the interface of an endpoint that has such an address.
pub(crate) fn concerning(elements: Vec<Placed>, bridges: &[&Bridge]) -> Vec<Placed> {
    let subnets: Vec<_> = bridges.iter().flat_map(|bridge| subnets(bridge)).collect();
    let inside = |address: &[u8]| subnets.iter().any(|subnet| subnet.contains(address));
    let pinned: HashSet<Vec<u8>> = elements
        .iter()
        .filter(|(_, set, element)| pinned_octets(set, element).is_some_and(inside))
        .filter_map(|(_, _, element)| element.key.get(..INTERFACE).map(<[u8]>::to_vec))
        .collect();
    let is_named = |element: &Element| bridges.iter().any(|bridge| is_of(element, &bridge.name));
    let concerns = |(family, set, element): &Placed| match (family, &element.value) {
        (Family::Bridge, _) => {
            element.key.get(..INTERFACE).is_some_and(|name| pinned.contains(name))
        }
        // a protocol of 4 bytes before an address, and a port of 4 with its padding behind it
        (Family::Inet, None) if OPEN.holds(set) => element
            .key
            .get(4..)
            .and_then(|rest| rest.split_last_chunk::<4>())
            .is_some_and(|it| inside(it.0)),
        (Family::Inet, Some(_)) if LEAVES_AS.holds(set) => is_named(element),
        (Family::Inet, Some(value)) => value.split_last_chunk::<4>().is_some_and(|it| inside(it.0)),
        (Family::Inet, None) => is_named(element),
        // no table of the host's namespace
        (Family::Ip, _) => false,
    };
    elements.into_iter().filter(concerns).collect()
}

/// First and last address of a subnet.
struct Subnet {
    version: Version,
    first: Vec<u8>,
    last: Vec<u8>,
}

impl Subnet {
    fn contains(&self, address: &[u8]) -> bool {
        address.len() == self.first.len() && (&self.first[..]..=&self.last[..]).contains(&address)
    }
}

/// The subnets of a bridge: one of each family that it has.
fn subnets(bridge: &Bridge) -> impl Iterator<Item = Subnet> + use<> {
    let ipv4 = bridge.ipv4.map(|Gateway { address, prefix }| {
        let host = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        let first = address.to_bits() & !host;
        let [first, last] = [first, first | host].map(|bits| bits.to_be_bytes().to_vec());
        Subnet { version: Version::V4, first, last }
    });
    let ipv6 = bridge.ipv6.map(|Gateway { address, prefix }| {
        let host = u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
        let first = address.to_bits() & !host;
        let [first, last] = [first, first | host].map(|bits| bits.to_be_bytes().to_vec());
        Subnet { version: Version::V6, first, last }
    });
    ipv4.into_iter().chain(ipv6)
}

/// The address that an endpoint's element pins it to.
pub(crate) fn pinned_address(set: &str, element: &Element) -> Option<IpAddr> {
    let octets = pinned_octets(set, element)?;
    match octets.len() {
        4 => <[u8; 4]>::try_from(octets).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(octets).ok().map(IpAddr::from),
    }
}

fn pinned_octets<'a>(set: &str, element: &'a Element) -> Option<&'a [u8]> {
    if ENDPOINTS.holds(set) { element.key.get(INTERFACE + MAC..) } else { None }
}

/// The sets whose keys begin with a bridge's or an endpoint's interface.
pub(crate) fn keyed_by_interface() -> impl Iterator<Item = (Family, &'static str)> {
    SETS.into_iter()
        .filter(|(_, set)| set.key.first() == Some(&Interface))
        .map(|(family, set)| (family, set.name))
}

/// A name as the kernel compares it: 16 bytes, filled up with zeros.
pub(super) fn interface(name: &str) -> [u8; INTERFACE] {
    let mut padded = [0; INTERFACE];
    let length = name.len().min(15);
    padded[..length].copy_from_slice(&name.as_bytes()[..length]);
    padded
}

// bytes in a key
const INTERFACE: usize = 16;
const MAC: usize = 8;

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn plain(key: Vec<u8>) -> Element {
    Element { key, ..Element::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_has_its_first_and_last_address() {
        let bridge = |ipv4: Option<(&str, u8)>, ipv6: Option<(&str, u8)>| Bridge {
            name: "b".to_owned(),
            ipv4: ipv4.map(|(it, prefix)| Gateway { address: it.parse().unwrap(), prefix }),
            ipv6: ipv6.map(|(it, prefix)| Gateway { address: it.parse().unwrap(), prefix }),
            mtu: 1500,
            internal: false,
            inter_container: true,
            masquerade: true,
            access: Default::default(),
            publish_policy: Default::default(),
        };
        for (bridge, inside, outside) in [
            (bridge(Some(("10.1.2.3", 24)), None), ["10.1.2.0", "10.1.2.255"], "10.1.3.0"),
            (bridge(Some(("10.1.2.3", 32)), None), ["10.1.2.3", "10.1.2.3"], "10.1.2.4"),
            (bridge(Some(("10.1.2.3", 0)), None), ["0.0.0.0", "255.255.255.255"], "::"),
            (bridge(None, Some(("fd00::1", 64))), ["fd00::", "fd00::ffff:0:0:0"], "fd00:0:0:1::"),
            (bridge(None, Some(("fd00::1", 128))), ["fd00::1", "fd00::1"], "10.1.2.3"),
        ] {
            let within = |address: &str| {
                let address = octets(address.parse().unwrap());
                subnets(&bridge).any(|subnet| subnet.contains(&address))
            };
            assert!(inside.into_iter().all(within) && !within(outside), "{bridge:?}");
        }
    }

    #[test]
    fn what_concerns_a_bridge_is_found_by_name_subnet_and_interface() {
        let bridge_of = |third: u8| Bridge {
            name: format!("b{third}"),
            ipv4: Some(Gateway { address: [10, 0, third, 1].into(), prefix: 24 }),
            ipv6: Some(Gateway {
                address: [0xfd00, 0, 0, third.into(), 0, 0, 0, 1].into(),
                prefix: 64,
            }),
            mtu: 1500,
            internal: true,
            inter_container: true,
            masquerade: true,
            access: Default::default(),
            publish_policy: Default::default(),
        };
        let all_of = |third: u8| {
            let end = Endpoint {
                host_link: format!("e{third}"),
                interface: "eth0".to_owned(),
                mac: [2, 0, 0, 0, 0, third],
                ipv4: Some([10, 0, third, 2].into()),
                ipv6: Some([0xfd00, 0, 0, third.into(), 0, 0, 0, 2].into()),
                default_route: crate::DefaultRoute::None,
                link_local: vec![],
                sysctls: vec![],
            };
            let leads_to = |host_address: IpAddr, container_address: IpAddr| PublishedPort {
                protocol: bulkhead_types::Protocol::Tcp,
                host_address,
                host_port: 80,
                container_address,
                container_port: 80,
                reached_by: Default::default(),
            };
            let (ipv4, ipv6) = (end.ipv4.unwrap().into(), end.ipv6.unwrap().into());
            let any = |text: &str| text.parse::<IpAddr>().unwrap();
            let ports = [
                leads_to(any("0.0.0.0"), ipv4),
                leads_to(any("127.0.0.1"), ipv4),
                leads_to(any("::"), ipv6),
                leads_to(any("::1"), ipv6),
            ];
            let mut elements = bridge(&bridge_of(third));
            elements.extend(endpoint(&end));
            elements.extend(ports.iter().filter_map(port).flatten());
            elements
        };
        let (one, two) = (all_of(1), all_of(2));
        assert_eq!(one.len(), 15, "{one:?}");
        let both: Vec<_> = one.iter().chain(&two).cloned().collect();
        assert_eq!(concerning(both.clone(), &[&bridge_of(1)]), one);
        assert_eq!(concerning(both.clone(), &[&bridge_of(1), &bridge_of(2)]), both);
        assert_eq!(concerning(both, &[]), []);
    }
}
