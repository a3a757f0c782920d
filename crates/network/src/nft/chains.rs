//! The rules themselves; `ruleset.rs` says what they are for.

use super::codec::Hook;
use super::expression::{Base, Connection, Meta, Order, R0, Rule, Verdict};
use super::ruleset::{
    ADDRESS_PORTS, BRIDGES, Both, ENDPOINTS, FAMILIES, INTERNAL, Ipv6Loopback, LEAVES_AS,
    MASQUERADED, OPEN, PINNED, PORTS, RESTRICTED, ROUTED, SAME, SETS, SOURCES, SUBNETS, TABLE,
    TRUSTED, UNPROTECTED, Version, interface,
};
use super::{Batch, Family};

const USER: &str = "user";
const TO_CONTAINERS: &str = "to_containers";
const FROM_CONTAINERS: &str = "from_containers";
const PUBLISHED: &str = "published";
const ICMPV6: &str = "icmpv6";

type Chain = (Family, &'static str, Option<Hook>, Vec<Rule>);

/// Makes tables, sets and chains where they are missing, and replaces the rules (but not those of
/// `user`), as part of `batch`.
pub(crate) fn base(batch: &mut Batch, loopback: Ipv6Loopback) {
    for family in FAMILIES {
        batch.table(family, TABLE);
    }
    for ((family, set), id) in SETS.into_iter().zip(1..) {
        batch.set(family, TABLE, set, id);
    }
    batch.chain(Family::Inet, TABLE, USER, None);
    let chains = chains(loopback);
    for (family, name, hook, _) in &chains {
        batch.chain(*family, TABLE, name, *hook).flush_chain(*family, TABLE, name);
    }
    for (family, name, _, rules) in chains {
        for rule in rules {
            batch.rule(family, TABLE, name, rule);
        }
    }
}

/// How many rules each chain has that [`base`] fills, and what its family is.
pub(crate) fn counts(loopback: Ipv6Loopback) -> Vec<(Family, &'static str, usize)> {
    chains(loopback)
        .into_iter()
        .map(|(family, name, _, rules)| (family, name, rules.len()))
        .collect()
}

/// All chains but the administrator's.
fn chains(loopback: Ipv6Loopback) -> Vec<Chain> {
    let inet = |name, hook, rules| (Family::Inet, name, hook, rules);
    let to_loopback = ip(Version::V6).payload(Base::Network, 24, 16, R0).equals(R0, &LOOPBACK6);
    let output = match loopback {
        Ipv6Loopback::Published => published(),
        Ipv6Loopback::Refused => {
            std::iter::once(to_loopback.verdict(Verdict::Return)).chain(published()).collect()
        }
    };
    vec![
        // before connection tracking: addresses are as on the wire
        inet("raw", hook("filter", PREROUTING, -300), raw()),
        inet("prerouting", hook("nat", PREROUTING, -100), published()),
        inet("output", hook("nat", OUTPUT, -100), output),
        inet("postrouting", hook("nat", POSTROUTING, 100), postrouting()),
        inet("forward", hook("filter", FORWARD, 0), forward()),
        inet(PUBLISHED, None, policy()),
        inet(TO_CONTAINERS, None, to_containers()),
        inet(FROM_CONTAINERS, None, from_containers()),
        (Family::Bridge, ICMPV6, None, icmpv6()),
        // before br_netfilter lifts frames to the inet chains
        (Family::Bridge, "prerouting", hook("filter", PREROUTING, -300), pinned()),
    ]
}

fn raw() -> Vec<Rule> {
    let metadata = |version, address: &[u8]| {
        destination(ip(version), version, R0)
            .equals(R0, address)
            .meta(Meta::InputInterface, R0)
            .within(BRIDGES.name, R0)
            .verdict(Verdict::Drop)
    };
    vec![
        ip(Version::V4)
            .payload(Base::Network, 16, 1, R0)
            .equals(R0, &[127])
            .meta(Meta::InputInterface, R0)
            .differs(R0, &interface("lo"))
            .verdict(Verdict::Drop),
        // the kernel drops it too, but only after br_netfilter has translated what is bridged
        destination(ip(Version::V6), Version::V6, R0)
            .equals(R0, &LOOPBACK6)
            .meta(Meta::InputInterface, R0)
            .differs(R0, &interface("lo"))
            .verdict(Verdict::Drop),
        metadata(Version::V4, &[169, 254, 169, 254]),
        metadata(Version::V6, &[0xfd, 0, 0x0e, 0xc2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0x54]),
    ]
}

fn published() -> Vec<Rule> {
    let of = |version| {
        let local = || {
            ip(version)
                .destination_kind(R0)
                .equals(R0, &2_u32.to_ne_bytes()) // RTN_LOCAL
                .meta(Meta::TransportProtocol, R0)
        };
        let port = |rule: Rule, register| rule.payload(Base::Transport, 2, 2, register);
        let leads = |rule: Rule, maps: &Both| {
            rule.look_up(maps.of(version).name, R0).dnat(
                protocol_family(version),
                R0,
                R0 + registers(version),
            )
        };
        let exactly = destination(local(), version, R0 + 1);
        [
            leads(port(exactly, R0 + 1 + registers(version)), &ADDRESS_PORTS),
            leads(port(local(), R0 + 1), &PORTS),
        ]
    };
    [of(Version::V4), of(Version::V6)].into_iter().flatten().collect()
}

fn postrouting() -> Vec<Rule> {
    let between = |direction, version, sets: &Both| {
        let rule = ip(version).meta(direction, R0);
        source(rule, version, R0 + 4).within(sets.of(version).name, R0)
    };
    let of = |version| {
        [
            // a container to a neighbour by a published port: the answer must come back here
            translated(between(Meta::OutputInterface, version, &SUBNETS)).masquerade(),
            between(Meta::OutputInterface, version, &SUBNETS).verdict(Verdict::Return),
            between(Meta::InputInterface, version, &MASQUERADED)
                .look_up(LEAVES_AS.of(version).name, R0)
                .snat(protocol_family(version), R0),
            between(Meta::InputInterface, version, &MASQUERADED).masquerade(),
        ]
    };
    let own =
        |rule: Rule| rule.meta(Meta::OutputInterface, R0).within(BRIDGES.name, R0).masquerade();
    let loopback = [
        own(ip(Version::V4).payload(Base::Network, 12, 1, R0).equals(R0, &[127])),
        own(source(ip(Version::V6), Version::V6, R0).equals(R0, &LOOPBACK6)),
    ];
    [of(Version::V4), of(Version::V6)].into_iter().flatten().chain(loopback).collect()
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
    let out = |version| ip(version).meta(Meta::OutputInterface, R0);
    let open = |rule: Rule, version| {
        let rule = rule.meta(Meta::TransportProtocol, R0);
        destination(rule, version, R0 + 1)
            .payload(Base::Transport, 2, 2, R0 + 1 + registers(version))
            .within(OPEN.of(version).name, R0)
            .verdict(Verdict::Jump(PUBLISHED))
    };
    let of = |version| {
        let trusted = out(version).meta(Meta::InputInterface, R0 + 4).within(TRUSTED.name, R0);
        let routed = || out(version).within(ROUTED.of(version).name, R0);
        let icmp = if version == Version::V4 { 1 } else { 58 };
        [
            open(trusted, version),
            open(routed(), version),
            routed()
                .meta(Meta::TransportProtocol, R0)
                .equals(R0, &[icmp])
                .verdict(Verdict::Jump(PUBLISHED)),
            out(version)
                .within(UNPROTECTED.of(version).name, R0)
                .meta(Meta::InputInterface, R0)
                .not_within(BRIDGES.name, R0)
                .verdict(Verdict::Jump(PUBLISHED)),
        ]
    };
    let first = [
        internal(Meta::InputInterface),
        internal(Meta::OutputInterface),
        answers(),
        Rule::default().verdict(Verdict::Jump(USER)),
        translated(Rule::default()).verdict(Verdict::Jump(PUBLISHED)),
    ];
    first
        .into_iter()
        .chain(of(Version::V4))
        .chain(of(Version::V6))
        .chain([Rule::default().verdict(Verdict::Drop)])
        .collect()
}

/// Accepts what may come by a published port.
fn policy() -> Vec<Rule> {
    let out = |rule: Rule| rule.meta(Meta::OutputInterface, R0);
    let from = |version| {
        source(out(ip(version)), version, R0 + 4)
            .within(SOURCES.of(version).name, R0)
            .verdict(Verdict::Accept)
    };
    vec![
        out(Rule::default()).not_within(RESTRICTED.name, R0).verdict(Verdict::Accept),
        Rule::default()
            .meta(Meta::InputInterface, R0)
            .within(BRIDGES.name, R0)
            .verdict(Verdict::Accept),
        from(Version::V4),
        from(Version::V6),
    ]
}

fn from_containers() -> Vec<Rule> {
    vec![
        internal(Meta::InputInterface),
        answers(),
        Rule::default().verdict(Verdict::Jump(USER)),
        Rule::default().verdict(Verdict::Accept),
    ]
}

/// Most frames end at the first two rules.
fn pinned() -> Vec<Rule> {
    let protocol = |number: [u8; 2]| Rule::default().meta(Meta::Protocol, R0).equals(R0, &number);
    let own = |rule: Rule, version, sender: (Base, u32), address: u32| {
        endpoint_key(rule, version, sender, (Base::Network, address))
            .within(ENDPOINTS.of(version).name, R0)
    };
    let arp = protocol([0x08, 0x06])
        // Ethernet and IPv4, with addresses of 6 and 4 bytes: else the offsets below are others
        .payload(Base::Network, 0, 6, R0)
        .equals(R0, &[0, 1, 8, 0, 6, 4]);
    let arp = own(own(arp, Version::V4, SENDER, 14), Version::V4, (Base::Network, 8), 14);
    let ipv6 = || protocol([0x86, 0xdd]);
    let not_icmp = ipv6().meta(Meta::TransportProtocol, R0).differs(R0, &[58]);
    vec![
        own(protocol([0x08, 0x00]), Version::V4, SENDER, 12).verdict(Verdict::Accept),
        own(not_icmp, Version::V6, SENDER, 8).verdict(Verdict::Accept),
        Rule::default()
            .meta(Meta::InputInterface, R0)
            .not_within(PINNED.name, R0)
            .verdict(Verdict::Accept),
        arp.verdict(Verdict::Accept),
        ipv6().verdict(Verdict::Jump(ICMPV6)),
        Rule::default().verdict(Verdict::Drop),
    ]
}

/// ICMPv6 of endpoints, and what of IPv6 comes from others. Types are RFC 4861's and RFC 2710's: 130
/// to 132 multicast listeners, 133 and 134 routers, 135 and 136 neighbours, 137 redirects.
fn icmpv6() -> Vec<Rule> {
    let icmp = || Rule::default().meta(Meta::TransportProtocol, R0).equals(R0, &[58]);
    let kind = |rule: Rule| rule.payload(Base::Transport, 0, 1, R0);
    // Without extension headers (and so whole) and with at most one option: else it would not be
    // seen here which option the receiver takes.
    let neighbours = |length: u16| {
        kind(Rule::default().payload(Base::Network, 6, 1, R0).equals(R0, &[58]))
            .is(R0, Order::AtLeast, &[135])
            .is(R0, Order::AtMost, &[136])
            .payload(Base::Network, 4, 2, R0)
            .equals(R0, &length.to_be_bytes())
    };
    let endpoints = ENDPOINTS.of(Version::V6).name;
    let key = |rule, sender, address| endpoint_key(rule, Version::V6, sender, address);
    let sent_by = (Base::Network, 8);
    vec![
        key(Rule::default(), SENDER, sent_by).not_within(endpoints, R0).verdict(Verdict::Drop),
        // an advertisement says whose hardware address the sender's is
        key(kind(icmp()).equals(R0, &[136]), SENDER, (Base::Transport, 8))
            .not_within(endpoints, R0)
            .verdict(Verdict::Drop),
        neighbours(24).verdict(Verdict::Accept),
        // behind the target: type and length of the option, and a hardware address
        key(neighbours(32), (Base::Transport, 26), sent_by)
            .within(endpoints, R0)
            .verdict(Verdict::Accept),
        kind(icmp())
            .is(R0, Order::AtLeast, &[130])
            .is(R0, Order::AtMost, &[137])
            .verdict(Verdict::Drop),
        // what the kernel cannot find the protocol of is dropped, by who called this chain
        Rule::default().meta(Meta::TransportProtocol, R0).verdict(Verdict::Accept),
    ]
}

/// Loads (interface, hardware address, IP address).
fn endpoint_key(rule: Rule, version: Version, sender: (Base, u32), address: (Base, u32)) -> Rule {
    rule.meta(Meta::InputInterface, R0).payload(sender.0, sender.1, 6, R0 + 4).payload(
        address.0,
        address.1,
        4 * registers(version),
        R0 + 6,
    )
}

/// The sender in the Ethernet header.
const SENDER: (Base, u32) = (Base::Link, 6);

const LOOPBACK6: [u8; 16] = std::net::Ipv6Addr::LOCALHOST.octets();

fn ip(version: Version) -> Rule {
    let family = protocol_family(version).to_be_bytes()[3];
    Rule::default().meta(Meta::Family, R0).equals(R0, &[family])
}

/// NFPROTO_IPV4 and NFPROTO_IPV6
fn protocol_family(version: Version) -> u32 {
    match version {
        Version::V4 => 2,
        Version::V6 => 10,
    }
}

/// How many registers an address takes.
fn registers(version: Version) -> u32 {
    match version {
        Version::V4 => 1,
        Version::V6 => 4,
    }
}

/// Loads the packet's source address.
fn source(rule: Rule, version: Version, register: u32) -> Rule {
    let offset = if version == Version::V4 { 12 } else { 8 };
    rule.payload(Base::Network, offset, 4 * registers(version), register)
}

/// Loads the packet's destination address.
fn destination(rule: Rule, version: Version, register: u32) -> Rule {
    let offset = if version == Version::V4 { 16 } else { 24 };
    rule.payload(Base::Network, offset, 4 * registers(version), register)
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

fn internal(direction: Meta) -> Rule {
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
