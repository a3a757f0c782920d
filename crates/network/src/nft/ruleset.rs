//! The firewall: what is allowed between containers, the host and the world.
//!
//! Two tables, both called `bulkhead`. Rules are fixed; bridges, endpoints and ports are elements
//! of sets and maps, so that a change costs the same with one container or a thousand.
//!
//! `inet bulkhead` routes and filters:
//! - `ports` and `address_ports` map (protocol, host port) and (protocol, host address, host port)
//!   to a container's address and port; `prerouting` and `output` look packets to any local
//!   address up in them, the exact address first.
//! - `postrouting` masquerades what leaves a bridge's subnet (those in `masqueraded`), what a
//!   container sends to its own network by a published port, and what the host sends from 127.0.0.0/8.
//! - `forward` accepts within one bridge (those in `same_bridge`) and from containers outwards; to
//!   containers only
//!   answers and what was published. Between two bridges only published ports are reached. An
//!   internal bridge forwards nothing.
//! - `user` belongs to the administrator and is never flushed: it sees each new connection to and
//!   from containers, after destination NAT, before the rules above decide. For example, to let
//!   one network only reach the published ports:
//!   `nft add rule inet bulkhead user oifname "bulkhead0" ip saddr != 192.0.2.0/24 drop`.
//! - `raw` drops what comes from a wire for 127.0.0.0/8 (`route_localnet` would deliver it), and
//!   the cloud's metadata address 169.254.169.254 for containers.
//!
//! An accept here does not overrule another table: a host whose own firewall drops forwarded
//! packets goes on dropping them. That is meant; published ports obey the host's firewall.
//!
//! `bridge bulkhead` pins every endpoint's port (those in `pinned`) to the (interface, hardware
//! address, IPv4 address) that it was given (those in `endpoints`), in ARP too. What is neither ARP
//! nor IPv4, such as IPv6 router advertisements, is dropped: containers have no IPv6 addresses yet.
//! Ports that the administrator adds to a bridge are not in `pinned` and pass. (To ask for the
//! frame's bridge instead takes nft_meta_bridge, which not every kernel has.)

use std::net::{IpAddr, Ipv4Addr};

use super::codec::{Hook, Set, Type};
use super::expression::{Base, Connection, Meta, R0, Rule, Verdict};
use super::{Batch, Element, Family};
use crate::{Bridge, Endpoint, Gateway, PublishedPort};

pub(crate) const TABLE: &str = "bulkhead";
pub(crate) const FAMILIES: [Family; 2] = [Family::Inet, Family::Bridge];

/// All sets.
pub(crate) const SETS: [(Family, &Set); 9] = [
    (Family::Inet, &ADDRESS_PORTS),
    (Family::Inet, &PORTS),
    (Family::Inet, &BRIDGES),
    (Family::Inet, &INTERNAL),
    (Family::Inet, &SAME),
    (Family::Inet, &SUBNETS),
    (Family::Inet, &MASQUERADED),
    (Family::Bridge, &ENDPOINTS),
    (Family::Bridge, &PINNED),
];

const ADDRESS_PORTS: Set = Set {
    name: "address_ports",
    key: &[Type::Protocol, Type::Address, Type::Port],
    value: &[Type::Address, Type::Port],
    interval: false,
};
const PORTS: Set = Set {
    name: "ports",
    key: &[Type::Protocol, Type::Port],
    value: &[Type::Address, Type::Port],
    interval: false,
};
pub(crate) const BRIDGES: Set =
    Set { name: "bridges", key: &[Type::Interface], value: &[], interval: false };
const INTERNAL: Set =
    Set { name: "internal", key: &[Type::Interface], value: &[], interval: false };
/// (bridge, bridge): nft cannot compare two registers. With `bridge-nf-call-iptables`, which is on
/// wherever br_netfilter is loaded, what passes within a bridge comes through `forward` too.
const SAME: Set = Set {
    name: "same_bridge",
    key: &[Type::Interface, Type::Interface],
    value: &[],
    interval: false,
};
const SUBNETS: Set =
    Set { name: "subnets", key: &[Type::Interface, Type::Address], value: &[], interval: true };
const MASQUERADED: Set =
    Set { name: "masqueraded", key: &[Type::Interface, Type::Address], value: &[], interval: true };
const PINNED: Set = Set { name: "pinned", key: &[Type::Interface], value: &[], interval: false };
pub(crate) const ENDPOINTS: Set = Set {
    name: "endpoints",
    key: &[Type::Interface, Type::Mac, Type::Address],
    value: &[],
    interval: false,
};

/// Makes tables, sets and chains where they are missing, and replaces the rules (but not those of
/// `user`), as part of `batch`.
pub(crate) fn base(batch: &mut Batch) {
    for family in FAMILIES {
        batch.table(family, TABLE);
    }
    for ((family, set), id) in SETS.into_iter().zip(1..) {
        batch.set(family, TABLE, set, id);
    }
    batch.chain(Family::Inet, TABLE, USER, None);
    let chains = chains();
    for (family, name, hook, _) in &chains {
        batch.chain(*family, TABLE, name, *hook).flush_chain(*family, TABLE, name);
    }
    for (family, name, _, rules) in chains {
        for rule in rules {
            batch.rule(family, TABLE, name, rule);
        }
    }
}

/// A bridge's elements.
pub(crate) fn bridge(bridge: &Bridge) -> Vec<(Family, &'static str, Element)> {
    let name = interface(&bridge.name);
    let mut elements = vec![(Family::Inet, BRIDGES.name, plain(name.to_vec()))];
    if bridge.inter_container {
        elements.push((Family::Inet, SAME.name, plain([name, name].concat())));
    }
    if let Some(own) = bridge.ipv4 {
        let (first, last) = subnet(own);
        let with = |address: u32| [name.as_slice(), &address.to_be_bytes()].concat();
        let subnet = Element { key: with(first), end: Some(with(last)), ..Element::default() };
        elements.push((Family::Inet, SUBNETS.name, subnet.clone()));
        if bridge.masquerade {
            elements.push((Family::Inet, MASQUERADED.name, subnet));
        }
    }
    if bridge.internal {
        elements.push((Family::Inet, INTERNAL.name, plain(name.to_vec())));
    }
    elements
}

/// An endpoint's elements.
pub(crate) fn endpoint(endpoint: &Endpoint) -> Vec<(Family, &'static str, Element)> {
    let name = interface(&endpoint.host_link);
    let mut elements = vec![(Family::Bridge, PINNED.name, plain(name.to_vec()))];
    if let Some(address) = endpoint.ipv4 {
        let mut key = name.to_vec();
        key.extend_from_slice(&endpoint.mac);
        key.extend_from_slice(&[0, 0]);
        key.extend_from_slice(&address.octets());
        elements.push((Family::Bridge, ENDPOINTS.name, plain(key)));
    }
    elements
}

/// A published port's element; `None` where its addresses are not both of IPv4.
pub(crate) fn port(port: &PublishedPort) -> Option<(Family, &'static str, Element)> {
    let (IpAddr::V4(host_address), IpAddr::V4(container_address)) =
        (port.host_address, port.container_address)
    else {
        return None;
    };
    let number = |port: u16| [port.to_be_bytes(), [0, 0]].concat();
    let mut key = vec![port.protocol.number(), 0, 0, 0];
    let map = if host_address.is_unspecified() {
        PORTS.name
    } else {
        key.extend_from_slice(&host_address.octets());
        ADDRESS_PORTS.name
    };
    key.extend(number(port.host_port));
    let mut value = container_address.octets().to_vec();
    value.extend(number(port.container_port));
    Some((Family::Inet, map, Element { key, end: None, value: Some(value) }))
}

/// Whether the element's key begins with this interface.
pub(crate) fn is_of(element: &Element, name: &str) -> bool {
    element.key.starts_with(&interface(name))
}

/// Whether an element belongs to the bridge: by the bridge's name, or by an address in its subnet.
/// Those of `pinned` have neither; see [`pinned_port`].
pub(crate) fn concerns(set: &Set, element: &Element, bridge: &Bridge) -> bool {
    let inside = |octets: Option<&[u8; 4]>| {
        let address = octets.map(|octets| u32::from_be_bytes(*octets));
        address.zip(bridge.ipv4).is_some_and(|(address, own)| {
            let (first, last) = subnet(own);
            (first..=last).contains(&address)
        })
    };
    if set.name == ENDPOINTS.name {
        inside(element.key.last_chunk())
    } else if let Some(value) = &element.value {
        inside(value.first_chunk())
    } else {
        set.name != PINNED.name && is_of(element, &bridge.name)
    }
}

/// The element of `pinned` that goes with an element of `endpoints`.
pub(crate) fn pinned_port(endpoint: &Element) -> (Family, &'static str, Element) {
    let name = endpoint.key.get(..16).unwrap_or_default();
    (Family::Bridge, PINNED.name, plain(name.to_vec()))
}

/// First and last address of the bridge's subnet.
fn subnet(own: Gateway<Ipv4Addr>) -> (u32, u32) {
    let mask = u32::MAX.checked_shl(32 - u32::from(own.prefix.min(32))).unwrap_or(0);
    let first = u32::from(own.address) & mask;
    (first, first | !mask)
}

/// The address that an endpoint's element pins it to.
pub(crate) fn pinned_address(set: &str, element: &Element) -> Option<Ipv4Addr> {
    if set != ENDPOINTS.name {
        return None;
    }
    element.key.last_chunk::<4>().map(|octets| Ipv4Addr::from(*octets))
}

/// The sets whose keys begin with a bridge's or an endpoint's interface.
pub(crate) fn keyed_by_interface() -> impl Iterator<Item = (Family, &'static str)> {
    SETS.into_iter()
        .filter(|(_, set)| set.key.first() == Some(&Type::Interface))
        .map(|(family, set)| (family, set.name))
}

/// A name as the kernel compares it: 16 bytes, filled up with zeros.
fn interface(name: &str) -> [u8; 16] {
    let mut padded = [0; 16];
    let length = name.len().min(15);
    padded[..length].copy_from_slice(&name.as_bytes()[..length]);
    padded
}

fn plain(key: Vec<u8>) -> Element {
    Element { key, ..Element::default() }
}

const USER: &str = "user";
const TO_CONTAINERS: &str = "to_containers";
const FROM_CONTAINERS: &str = "from_containers";

type Chain = (Family, &'static str, Option<Hook>, Vec<Rule>);

fn chains() -> Vec<Chain> {
    let inet = |name, hook, rules| (Family::Inet, name, hook, rules);
    vec![
        // before connection tracking: addresses are as on the wire
        inet("raw", hook("filter", PREROUTING, -300), raw()),
        inet("prerouting", hook("nat", PREROUTING, -100), published()),
        inet("output", hook("nat", OUTPUT, -100), published()),
        inet("postrouting", hook("nat", POSTROUTING, 100), postrouting()),
        inet("forward", hook("filter", FORWARD, 0), forward()),
        inet(TO_CONTAINERS, None, to_containers()),
        inet(FROM_CONTAINERS, None, from_containers()),
        // before br_netfilter lifts frames to the inet chains
        (Family::Bridge, "prerouting", hook("filter", PREROUTING, -300), pinned()),
    ]
}

fn raw() -> Vec<Rule> {
    vec![
        ipv4()
            .meta(Meta::InputInterface, R0)
            .differs(R0, &interface("lo"))
            .payload(Base::Network, DESTINATION, 1, R0)
            .equals(R0, &[127])
            .verdict(Verdict::Drop),
        ipv4()
            .meta(Meta::InputInterface, R0)
            .within(BRIDGES.name, R0)
            .payload(Base::Network, DESTINATION, 4, R0)
            .equals(R0, &[169, 254, 169, 254])
            .verdict(Verdict::Drop),
    ]
}

fn published() -> Vec<Rule> {
    let local = || {
        ipv4().destination_kind(R0).equals(R0, &2_u32.to_ne_bytes()) // RTN_LOCAL
    };
    vec![
        local()
            .meta(Meta::TransportProtocol, R0)
            .payload(Base::Network, DESTINATION, 4, R0 + 1)
            .payload(Base::Transport, 2, 2, R0 + 2)
            .look_up(ADDRESS_PORTS.name, R0)
            .dnat(R0, R0 + 1),
        local()
            .meta(Meta::TransportProtocol, R0)
            .payload(Base::Transport, 2, 2, R0 + 1)
            .look_up(PORTS.name, R0)
            .dnat(R0, R0 + 1),
    ]
}

fn postrouting() -> Vec<Rule> {
    let between = |direction, set: Set| {
        ipv4().meta(direction, R0).payload(Base::Network, SOURCE, 4, R0 + 4).within(set.name, R0)
    };
    vec![
        // a container to a neighbour by a published port: the answer must come back here
        translated(between(Meta::OutputInterface, SUBNETS)).masquerade(),
        between(Meta::OutputInterface, SUBNETS).verdict(Verdict::Return),
        between(Meta::InputInterface, MASQUERADED).masquerade(),
        ipv4()
            .meta(Meta::OutputInterface, R0)
            .within(BRIDGES.name, R0)
            .payload(Base::Network, SOURCE, 1, R0)
            .equals(R0, &[127])
            .masquerade(),
    ]
}

fn forward() -> Vec<Rule> {
    let clamp = |direction| {
        Rule::default()
            .meta(direction, R0)
            .within(BRIDGES.name, R0)
            .meta(Meta::TransportProtocol, R0)
            .equals(R0, &[6])
            .payload(Base::Transport, 13, 1, R0)
            .mask(R0, &[0b110]) // SYN and RST
            .equals(R0, &[0b010])
            .clamp_segment_size(R0)
    };
    let crossing = |direction, chain| {
        Rule::default().meta(direction, R0).within(BRIDGES.name, R0).verdict(Verdict::Jump(chain))
    };
    vec![
        Rule::default()
            .meta(Meta::InputInterface, R0)
            .meta(Meta::OutputInterface, R0 + 4)
            .within(SAME.name, R0)
            .verdict(Verdict::Accept),
        clamp(Meta::InputInterface),
        clamp(Meta::OutputInterface),
        crossing(Meta::OutputInterface, TO_CONTAINERS),
        crossing(Meta::InputInterface, FROM_CONTAINERS),
    ]
}

fn to_containers() -> Vec<Rule> {
    vec![
        isolated(Meta::InputInterface),
        isolated(Meta::OutputInterface),
        answers(),
        Rule::default().verdict(Verdict::Jump(USER)),
        translated(Rule::default()).verdict(Verdict::Accept),
        Rule::default().verdict(Verdict::Drop),
    ]
}

fn from_containers() -> Vec<Rule> {
    vec![
        isolated(Meta::InputInterface),
        answers(),
        Rule::default().verdict(Verdict::Jump(USER)),
        Rule::default().verdict(Verdict::Accept),
    ]
}

fn pinned() -> Vec<Rule> {
    let arp = || Rule::default().meta(Meta::Protocol, R0).equals(R0, &[0x08, 0x06]);
    let ip = || Rule::default().meta(Meta::Protocol, R0).equals(R0, &[0x08, 0x00]);
    let impostor = |rule: Rule, (mac_base, mac): (Base, u32), address: u32| {
        rule.meta(Meta::InputInterface, R0)
            .payload(mac_base, mac, 6, R0 + 4)
            .payload(Base::Network, address, 4, R0 + 6)
            .not_within(ENDPOINTS.name, R0)
            .verdict(Verdict::Drop)
    };
    let sender = (Base::Link, 6);
    vec![
        Rule::default()
            .meta(Meta::InputInterface, R0)
            .not_within(PINNED.name, R0)
            .verdict(Verdict::Accept),
        // Ethernet and IPv4, with addresses of 6 and 4 bytes: else the offsets below are others
        arp()
            .payload(Base::Network, 0, 6, R0)
            .differs(R0, &[0, 1, 8, 0, 6, 4])
            .verdict(Verdict::Drop),
        impostor(arp(), sender, 14),
        impostor(arp(), (Base::Network, 8), 14),
        arp().verdict(Verdict::Accept),
        impostor(ip(), sender, SOURCE),
        ip().verdict(Verdict::Accept),
        Rule::default().verdict(Verdict::Drop),
    ]
}

fn ipv4() -> Rule {
    Rule::default().meta(Meta::Family, R0).equals(R0, &[2]) // NFPROTO_IPV4
}

/// Goes on for connections whose destination was translated, IPS_DST_NAT.
fn translated(rule: Rule) -> Rule {
    rule.connection(Connection::Status, R0)
        .mask(R0, &(1_u32 << 5).to_ne_bytes())
        .differs(R0, &[0; 4])
}

/// Accepts what belongs to a connection that was let through: established or related.
fn answers() -> Rule {
    Rule::default()
        .connection(Connection::State, R0)
        .mask(R0, &0b110_u32.to_ne_bytes())
        .differs(R0, &[0; 4])
        .verdict(Verdict::Accept)
}

fn isolated(direction: Meta) -> Rule {
    Rule::default().meta(direction, R0).within(INTERNAL.name, R0).verdict(Verdict::Drop)
}

fn hook(kind: &'static str, number: u32, priority: i32) -> Option<Hook> {
    Some(Hook { kind, number, priority })
}

// enum nf_inet_hooks; NF_BR_PRE_ROUTING is 0 as well
const PREROUTING: u32 = 0;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;

// offsets in the IPv4 header
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
