//! IPv6 on bridges: reached, published, and kept from being spoofed, with packets.
#![allow(clippy::unwrap_used)] // a helper that fails is a test that fails

mod support;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6, UdpSocket};

use bulkhead_network::{Bridge, Endpoint, Host, NetworkError, Protocol, PublishedPort};
use rustix::net::{AddressFamily, SendFlags, SocketType, sendto, socket};
use support::{
    ANSWER, HOST_OUTSIDE, HOST_OUTSIDE6, Namespace, OUTSIDE6, SILENCE, TestHost, bridge, dual,
    endpoint, gateway6, has, has_ipv6, ipv4, ipv6, tcp,
};

const ANY: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const LOCALHOST: Ipv6Addr = Ipv6Addr::LOCALHOST;
const BRIDGE_NETFILTER: &str = "/proc/sys/net/bridge/bridge-nf-call-ip6tables";

#[test]
fn containers_reach_the_host_each_other_and_the_world() {
    if !has_ipv6() {
        return bulkhead_sys::testing::skip("no IPv6");
    }
    let host = TestHost::new();
    let outside = host.outside();
    let network = dual("bulkhead0", 1);
    host.host.ensure_bridge(&network).unwrap();
    host.host.ensure_bridge(&network).unwrap();
    let (first, first_end) = host.container(&network, 2);
    let (second, second_end) = host.container(&network, 3);
    // at once: nobody asks for a second whether the address is somebody else's
    let _on_second = second.serve_on(ipv6(&second_end), 80);
    assert_eq!(first.fetch(ipv6(&second_end), 80).unwrap(), ipv6(&first_end));
    let _on_host = host.namespace.serve_on(gateway6(&network), 80);
    assert_eq!(first.fetch(gateway6(&network), 80).unwrap(), ipv6(&first_end));
    assert_eq!(host.namespace.fetch(ipv6(&second_end), 80).unwrap(), gateway6(&network));
    let _outside = outside.namespace.serve_on(OUTSIDE6, 80);
    assert_eq!(first.fetch(OUTSIDE6, 80).unwrap(), HOST_OUTSIDE6);
    let _outside = outside.namespace.serve(80);
    assert_eq!(first.fetch(support::OUTSIDE, 80).unwrap(), HOST_OUTSIDE);

    // without masquerading the container's own address is seen
    let plain = Bridge { masquerade: false, ..dual("bulkhead1", 2) };
    host.host.ensure_bridge(&plain).unwrap();
    let (third, third_end) = host.container(&plain, 2);
    if has("ip") {
        outside.namespace.ip("-6 route add fd00:77::/32 via 2001:db8::1");
        outside.namespace.ip("route add 10.77.0.0/16 via 192.0.2.1");
        assert_eq!(third.fetch(OUTSIDE6, 80).unwrap(), ipv6(&third_end));
        assert_eq!(third.fetch(support::OUTSIDE, 80).unwrap(), ipv4(&third_end));
    }
}

#[test]
fn a_network_may_have_ipv6_alone() {
    if !has_ipv6() {
        return bulkhead_sys::testing::skip("no IPv6");
    }
    let host = TestHost::new();
    let outside = host.outside();
    let ipv6_alone = |end: Endpoint| Endpoint { ipv4: None, ..end };
    let both = dual("bulkhead0", 1);
    let network = Bridge { ipv4: None, ..both.clone() };
    host.host.ensure_bridge(&network).unwrap();
    let container = Namespace::new();
    let end = ipv6_alone(endpoint(&both, 2));
    {
        use std::os::fd::AsFd;
        host.host.plug(container.0.as_fd(), &network, &end).unwrap();
    }
    let _outside = outside.namespace.serve_on(OUTSIDE6, 80);
    assert_eq!(container.fetch(OUTSIDE6, 80).unwrap(), HOST_OUTSIDE6);
    let unreachable = container.fetch(Ipv4Addr::new(10, 77, 1, 1), 80).unwrap_err();
    assert_eq!(unreachable.kind(), std::io::ErrorKind::NetworkUnreachable);
    let small = Bridge { mtu: 1279, ..network };
    let error = host.host.ensure_bridge(&small).unwrap_err();
    assert!(matches!(error, NetworkError::MtuBelowIpv6 { mtu: 1279, .. }), "{error}");
}

#[test]
fn a_published_port_is_reached_with_either_bridge_netfilter() {
    if !has_ipv6() {
        return bulkhead_sys::testing::skip("no IPv6");
    }
    for setting in ["0", "1"] {
        let host = TestHost::new();
        let is_set = host.namespace.write(BRIDGE_NETFILTER, setting).is_ok();
        if !is_set && setting == "1" {
            return bulkhead_sys::testing::skip("br_netfilter is not loaded");
        }
        published_port_is_reached(&host, setting == "0");
    }
}

fn published_port_is_reached(host: &TestHost, by_loopback: bool) {
    let outside = host.outside();
    let (one, two) = (dual("bulkhead0", 1), dual("bulkhead1", 2));
    host.host.ensure_bridge(&one).unwrap();
    host.host.ensure_bridge(&two).unwrap();
    let (server, server_end) = host.container(&one, 2);
    let (neighbour, _) = host.container(&one, 3);
    let (other, _) = host.container(&two, 2);
    let _serving = server.serve_on(ANY, 8080);
    let port = tcp(ANY, 80, ipv6(&server_end), 8080);
    assert!(host.namespace.is_refused(LOCALHOST, 80));
    host.host.publish(&[port]).unwrap();

    // the world's address is seen as it is
    assert_eq!(outside.namespace.fetch(HOST_OUTSIDE6, 80).unwrap(), OUTSIDE6);
    // the host itself, by each of its addresses
    assert_eq!(host.namespace.fetch(HOST_OUTSIDE6, 80).unwrap(), HOST_OUTSIDE6);
    assert_eq!(host.namespace.fetch(gateway6(&one), 80).unwrap(), gateway6(&one));
    assert_eq!(host.namespace.fetch(gateway6(&two), 80).unwrap(), gateway6(&two));
    if by_loopback {
        assert_eq!(host.namespace.fetch(LOCALHOST, 80).unwrap(), gateway6(&one));
    } else {
        assert!(host.namespace.is_refused(LOCALHOST, 80));
    }
    // containers: itself, a neighbour, one on another bridge
    for container in [&server, &neighbour, &other] {
        for address in [HOST_OUTSIDE6, gateway6(&one), gateway6(&two)] {
            assert_eq!(container.fetch(address, 80).unwrap(), gateway6(&one), "{address}");
        }
    }
    // `[::1]` is still the host's own besides
    let _own = host.namespace.serve_on(LOCALHOST, 81);
    assert_eq!(host.namespace.fetch(LOCALHOST, 81).unwrap(), LOCALHOST);

    host.host.unpublish(&[port]).unwrap();
    host.host.unpublish(&[port]).unwrap();
    assert!(outside.namespace.is_refused(HOST_OUTSIDE6, 80));
    assert!(host.namespace.is_refused(LOCALHOST, 80));

    // one address alone
    let exact = tcp(HOST_OUTSIDE6, 82, ipv6(&server_end), 8080);
    host.host.publish(&[exact]).unwrap();
    assert_eq!(outside.namespace.fetch(HOST_OUTSIDE6, 82).unwrap(), OUTSIDE6);
    assert!(host.namespace.is_refused(gateway6(&one), 82));
    let local = tcp(LOCALHOST, 83, ipv6(&server_end), 8080);
    host.host.publish(&[local]).unwrap();
    assert!(outside.namespace.is_refused(HOST_OUTSIDE6, 83));
    assert_eq!(host.namespace.fetch(LOCALHOST, 83).is_ok(), by_loopback);

    let mixed = tcp(Ipv4Addr::UNSPECIFIED, 84, ipv6(&server_end), 8080);
    let error = host.host.publish(&[mixed]).unwrap_err().to_string();
    assert!(error.starts_with("port 0.0.0.0:84/tcp cannot lead to fd00:77:0:1::2: "), "{error}");
}

#[test]
fn what_is_not_published_is_not_reached() {
    if !has_ipv6() {
        return bulkhead_sys::testing::skip("no IPv6");
    }
    let host = TestHost::new();
    let outside = host.outside();
    let (one, two) = (dual("bulkhead0", 1), dual("bulkhead1", 2));
    let closed = Bridge { internal: true, ..dual("bulkhead2", 3) };
    for network in [&one, &two, &closed] {
        host.host.ensure_bridge(network).unwrap();
    }
    let (server, end) = host.container(&one, 2);
    let (other, _) = host.container(&two, 2);
    let (confined, confined_end) = host.container(&closed, 2);
    let (neighbour, _) = host.container(&closed, 3);
    let _serving = server.serve_on(ANY, 80);
    host.host.publish(&[tcp(ANY, 80, ipv6(&end), 80)]).unwrap();
    // another bridge, by the address: J5
    assert!(other.is_dropped(ipv6(&end), 80));
    // within an internal network all is reached, and no way leads out
    let _confined = confined.serve_on(ANY, 80);
    assert!(neighbour.fetch(ipv6(&confined_end), 80).is_ok());
    let error = confined.fetch(OUTSIDE6, 80).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NetworkUnreachable);
    // the cloud's metadata
    assert!(server.is_dropped("fd00:ec2::254".parse::<Ipv6Addr>().unwrap(), 80));
    if !has("ip") {
        return bulkhead_sys::testing::skip("no iproute2 to set routes with");
    }
    // a neighbour of the host that routes to the container's address: J6
    outside.namespace.ip("-6 route add fd00:77::/32 via 2001:db8::1");
    assert!(outside.namespace.is_dropped(ipv6(&end), 80));
    assert!(outside.namespace.is_dropped(ipv6(&confined_end), 80));
    confined.ip("-6 route add default via fd00:77:0:3::1");
    let _outside = outside.namespace.serve_on(OUTSIDE6, 80);
    assert!(confined.is_dropped(OUTSIDE6, 80));
    assert!(confined.is_dropped(HOST_OUTSIDE6, 80), "nor by a port that is published");
}

#[test]
fn removing_leaves_nothing_and_reconcile_finds_what_a_crash_left() {
    if !has_ipv6() {
        return bulkhead_sys::testing::skip("no IPv6");
    }
    let host = TestHost::new();
    let (one, two) = (dual("bulkhead0", 1), dual("bulkhead1", 2));
    for network in [&one, &two] {
        host.host.ensure_bridge(network).unwrap();
    }
    let (_first, first) = host.container(&one, 2);
    let (_second, second) = host.container(&one, 3);
    let (third, third_end) = host.container(&two, 2);
    let ports = [tcp(ANY, 80, ipv6(&first), 80), tcp(ANY, 81, ipv6(&second), 80)];
    host.host.publish(&ports).unwrap();
    let listed = || host.namespace.command("nft", &["list", "ruleset"]);

    // an engine that crashed knows nothing of what it plugged and published
    let again = host.namespace.run(|| Host::open().unwrap());
    for _ in 0..2 {
        again.reconcile(&[(one.clone(), vec![first.clone()])], &ports[..1]).unwrap();
        assert!(again.is_intact().unwrap());
        if has("nft") {
            let rules = listed();
            assert!(
                rules.contains("fd00:77:0:1::2") && rules.contains("fd00:77:0:2::2"),
                "{rules}"
            );
            assert!(!rules.contains("fd00:77:0:1::3"), "{rules}");
            assert!(!rules.contains(&second.host_link), "its link-local address too: {rules}");
        }
    }
    let _server = host.namespace.serve_on(ANY, 90);
    assert_eq!(third.fetch(gateway6(&two), 90).unwrap(), ipv6(&third_end));
    again.unplug(&third_end.host_link).unwrap();
    again.remove_bridge(&one).unwrap();
    again.remove_bridge(&two).unwrap();
    if has("nft") {
        let rules = listed();
        assert!(!rules.contains("elements"), "{rules}");
    }
    again.tear_down().unwrap();
}

/// J7: a port that is published on `[::1]` alone is reached by no packet from a bridge; with a control.
#[test]
fn a_port_published_on_loopback_stays_there() {
    if !has_ipv6() || !has("nft") {
        return bulkhead_sys::testing::skip("no IPv6 or no nft");
    }
    let host = TestHost::new();
    if host.namespace.write(BRIDGE_NETFILTER, "1").is_err() {
        return bulkhead_sys::testing::skip("br_netfilter is not loaded");
    }
    let network = dual("bulkhead0", 1);
    host.host.ensure_bridge(&network).unwrap();
    let (server, end) = host.container(&network, 2);
    let (intruder, _) = host.container(&network, 3);
    let port = PublishedPort { protocol: Protocol::Udp, ..tcp(LOCALHOST, 53, ipv6(&end), 53) };
    host.host.publish(&[port]).unwrap();
    // what goes to the gateway for another host is sent there for ::1
    let definition = "{ type filter hook postrouting priority 0; }";
    for line in ["add table ip6 t", "add chain ip6 t out", "add rule ip6 t out"] {
        let mut arguments: Vec<_> = line.split(' ').collect();
        match arguments[1] {
            "chain" => arguments.push(definition),
            "rule" => arguments.extend(["ip6 daddr 2001:db8::9 ip6 daddr set ::1"]),
            _ => {}
        }
        intruder.command("nft", &arguments);
    }
    let serving = server.run(|| UdpSocket::bind((ANY, 53)).unwrap());
    let arrives = |patience| {
        serving.set_read_timeout(Some(patience)).unwrap();
        let sending = intruder.run(|| UdpSocket::bind((ANY, 0)).unwrap());
        sending.send_to(b"x", ("2001:db8::9".parse::<Ipv6Addr>().unwrap(), 53)).unwrap();
        serving.recv_from(&mut [0; 8]).is_ok()
    };
    assert!(!arrives(SILENCE));
    host.namespace.command("nft", &["flush", "chain", "inet", "bulkhead", "raw"]);
    assert!(arrives(ANSWER));
}

/// J18 for IPv6.
#[test]
fn old_flows_end_with_their_container() {
    if !has_ipv6() {
        return bulkhead_sys::testing::skip("no IPv6");
    }
    let host = TestHost::new();
    let outside = host.outside();
    let network = dual("bulkhead0", 1);
    host.host.ensure_bridge(&network).unwrap();
    for together in [false, true] {
        let (first, end) = host.container(&network, 2);
        let (_, other) = host.container(&network, 3);
        let mut port = tcp(ANY, 53, ipv6(&end), 53);
        port.protocol = Protocol::Udp;
        host.host.publish(&[port]).unwrap();
        let client = outside.namespace.run(|| UdpSocket::bind((ANY, 0)).unwrap());
        let hears = |container: &Namespace, patience| {
            let server = container.run(|| UdpSocket::bind((ANY, 53)).unwrap());
            server.set_read_timeout(Some(patience)).unwrap();
            // refused: what the last question was answered with
            let _ = client.send_to(b"question", (HOST_OUTSIDE6, 53));
            client.send_to(b"question", (HOST_OUTSIDE6, 53)).unwrap();
            server.recv_from(&mut [0; 16]).is_ok()
        };
        assert!(hears(&first, ANSWER));
        // the same address for another container, which has published nothing
        host.host.unpublish(&[port]).unwrap();
        let gone: &[&str] = match together {
            true => &[&end.host_link, &other.host_link],
            false => &[&end.host_link],
        };
        assert_eq!(host.host.unplug_all(gone).len(), 0);
        let (second, end) = host.container(&network, 2);
        assert!(!hears(&second, SILENCE));
        host.host.unplug_all(&[&end.host_link, &other.host_link]);
    }
}

/// A host that learns its routes from advertisements goes on doing so.
#[test]
fn the_host_hears_advertisements_as_before() {
    if !has_ipv6() {
        return bulkhead_sys::testing::skip("no IPv6");
    }
    let host = TestHost::new();
    let outside = host.outside();
    let setting = |link: &str, name: &str| {
        host.namespace.read(&format!("/proc/sys/net/ipv6/conf/{link}/{name}"))
    };
    assert_eq!(
        (setting("all", "forwarding"), setting("eth0", "accept_ra")),
        ("0".into(), "1".into())
    );
    if !has("ip") {
        return bulkhead_sys::testing::skip("no iproute2 to see routes with");
    }
    let link_local = |namespace: &Namespace, link: &str| -> Ipv6Addr {
        let shown = namespace.ip(&format!("-6 -o address show dev {link} scope link"));
        let address = shown.split_whitespace().nth(3).unwrap();
        address.split_once('/').unwrap().0.parse().unwrap()
    };
    let routes = || host.namespace.ip("-6 route show default proto ra");
    let advertise = || {
        let from = link_local(&outside.namespace, "lan0");
        let to = link_local(&host.namespace, "eth0");
        // current hop limit 64, no flags, a lifetime of 1800 s; nothing about reachability
        let body = [&[64, 0, 0x07, 0x08][..], &[0; 8]].concat();
        outside.namespace.send(&packet(from, to, None, &icmpv6(from, to, 134, &body)), "lan0");
    };
    advertise();
    until(|| routes().contains("dev eth0"));

    host.host.ensure_bridge(&dual("bulkhead0", 1)).unwrap();
    assert_eq!(
        (setting("all", "forwarding"), setting("eth0", "accept_ra")),
        ("1".into(), "2".into())
    );
    assert_eq!(setting("bulkhead0", "accept_ra"), "0");
    assert!(routes().contains("dev eth0"), "it was forgotten");
    host.namespace.ip("-6 route flush proto ra");
    assert_eq!(routes(), "");
    advertise();
    until(|| routes().contains("dev eth0"));
}

/// J3: nobody learns a route from a container; with a control.
#[test]
fn a_container_advertises_no_routes() {
    if !has_ipv6() || !has("ip") || !has("nft") {
        return bulkhead_sys::testing::skip("no IPv6, or no iproute2 and nft");
    }
    let host = TestHost::new();
    let network = dual("bulkhead0", 1);
    host.host.ensure_bridge(&network).unwrap();
    let (router, router_end) = host.container(&network, 2);
    let (victim, victim_end) = host.container(&network, 3);
    let routes = || victim.ip("-6 route show default proto ra");
    let advertise = |extension| {
        let (from, to) = (link_local(&router_end), link_local(&victim_end));
        let body = [&[64, 0, 0x07, 0x08][..], &[0; 8]].concat();
        router.send(&packet(from, to, extension, &icmpv6(from, to, 134, &body)), "eth0");
        passed(&router, &victim, ipv6(&victim_end));
    };
    for extension in [None, Some(HOP_BY_HOP)] {
        advertise(extension);
        assert_eq!(routes(), "");
    }
    host.namespace.command("nft", &["flush", "chain", "bridge", "bulkhead", "prerouting"]);
    advertise(None);
    until(|| routes().contains("dev eth0"));
}

/// J1 for neighbour discovery: what the host believes of a container is not changed by another; with
/// a control for each attack.
#[test]
fn a_foreign_neighbour_is_not_believed() {
    if !has_ipv6() || !has("ip") || !has("nft") {
        return bulkhead_sys::testing::skip("no IPv6, or no iproute2 and nft");
    }
    let host = TestHost::new();
    let network = dual("bulkhead0", 1);
    host.host.ensure_bridge(&network).unwrap();
    let (spoofer, own) = host.container(&network, 2);
    let (victim, other) = host.container(&network, 3);
    let _serving = victim.serve_on(ANY, 80);
    let _own = spoofer.serve_on(ANY, 80);
    let gateway = gateway6(&network);
    let text = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    let believed = |address: Ipv6Addr| {
        let shown = host.namespace.ip(&format!("-6 neighbour show {address} dev bulkhead0"));
        shown.split_whitespace().nth(2).unwrap_or_default().to_owned()
    };
    // what is sent, whom it is about, and what the host then believes where nothing is pinned
    let advertisement = |target: Ipv6Addr, options: &[&[u8]]| {
        [&[0x20, 0, 0, 0][..], &target.octets(), &options.concat()].concat() // "override"
    };
    let solicitation = |source: Ipv6Addr, mac| {
        let body = [&[0; 4][..], &gateway.octets(), &option(1, mac)].concat();
        packet(source, gateway, None, &icmpv6(source, gateway, 135, &body))
    };
    let advertise = |source: Ipv6Addr, extension, body: &[u8]| {
        packet(source, gateway, extension, &icmpv6(source, gateway, 136, body))
    };
    let stolen = advertisement(ipv6(&other), &[&option(2, own.mac)]);
    let lent = advertisement(ipv6(&own), &[&option(2, other.mac)]);
    let hidden = advertisement(ipv6(&own), &[&option(14, own.mac), &option(2, other.mac)]);
    let attacks = [
        (advertise(ipv6(&own), None, &stolen), ipv6(&other), own.mac),
        (advertise(link_local(&own), None, &stolen), ipv6(&other), own.mac),
        (advertise(ipv6(&other), None, &stolen), ipv6(&other), own.mac),
        (advertise(ipv6(&own), Some(HOP_BY_HOP), &stolen), ipv6(&other), own.mac),
        (solicitation(ipv6(&other), own.mac), ipv6(&other), own.mac),
        (solicitation(ipv6(&own), other.mac), ipv6(&own), other.mac),
        (advertise(ipv6(&own), None, &lent), ipv6(&own), other.mac),
        (advertise(ipv6(&own), None, &hidden), ipv6(&own), other.mac),
    ];
    let attempt = |attack: &[u8], about: Ipv6Addr| {
        host.namespace.ip("-6 neighbour flush dev bulkhead0");
        host.namespace.fetch(about, 80).unwrap();
        spoofer.send(attack, "eth0");
        passed(&spoofer, &host.namespace, gateway);
        believed(about)
    };
    for (number, (attack, about, _)) in attacks.iter().enumerate() {
        let right = if *about == ipv6(&own) { own.mac } else { other.mac };
        assert_eq!(attempt(attack, *about), text(right), "attack {number}");
    }
    // another container's source address, and that of nobody, in what is no neighbour discovery
    for source in [ipv6(&other), Ipv6Addr::new(0xfd00, 0x77, 0, 1, 0, 0, 0, 9), OUTSIDE6] {
        assert!(!echoes(&spoofer, source, &host.namespace, gateway, SILENCE), "{source}");
    }
    assert!(echoes(&spoofer, ipv6(&own), &host.namespace, gateway, ANSWER));

    host.namespace.command("nft", &["flush", "chain", "bridge", "bulkhead", "prerouting"]);
    for (number, (attack, about, wrong)) in attacks.iter().enumerate() {
        assert_eq!(attempt(attack, *about), text(*wrong), "control of attack {number}");
    }
    assert!(echoes(&spoofer, ipv6(&other), &host.namespace, gateway, ANSWER));
}

/// Neighbours still find each other when they have forgotten, and answer long echo requests, which are
/// in fragments.
#[test]
fn neighbours_are_found_again() {
    if !has_ipv6() || !has("ip") || !has("ping") {
        return bulkhead_sys::testing::skip("no IPv6, or no iproute2 and ping");
    }
    let host = TestHost::new();
    let network = dual("bulkhead0", 1);
    host.host.ensure_bridge(&network).unwrap();
    let (first, first_end) = host.container(&network, 2);
    let (_second, second_end) = host.container(&network, 3);
    let ping = |from: &Namespace, to: Ipv6Addr| {
        from.command("ping", &["-6", "-c", "1", "-W", "10", "-s", "4000", &to.to_string()]);
    };
    for _ in 0..2 {
        ping(&first, ipv6(&second_end));
        ping(&first, gateway6(&network));
        ping(&host.namespace, ipv6(&first_end));
        first.ip("-6 neighbour flush dev eth0");
        host.namespace.ip("-6 neighbour flush dev bulkhead0");
    }
    // one that is only probed: by unicast, without an option in the answer
    ping(&first, ipv6(&second_end));
    first.ip(&format!("-6 neighbour change {} dev eth0 nud probe", ipv6(&second_end)));
    until(|| first.ip("-6 neighbour show dev eth0").contains("REACHABLE"));
}

#[test]
fn a_network_without_ipv6_has_none() {
    if !has_ipv6() {
        return bulkhead_sys::testing::skip("no IPv6");
    }
    let host = TestHost::new();
    host.host.ensure_bridge(&dual("bulkhead0", 1)).unwrap();
    let network = bridge("bulkhead1", 2);
    host.host.ensure_bridge(&network).unwrap();
    let (container, _) = host.container(&network, 2);
    let addresses = container.read("/proc/thread-self/net/if_inet6");
    assert!(addresses.lines().all(|line| line.ends_with(" lo")), "{addresses}");
    let own = host.namespace.read("/proc/thread-self/net/if_inet6");
    assert!(
        own.contains("bulkhead0") && !own.contains("bulkhead1") && !own.contains("bh"),
        "{own}"
    );
}

impl Namespace {
    /// Sends a whole IPv6 packet by an interface, raw(7).
    fn send(&self, packet: &[u8], interface: &str) {
        self.run(|| {
            let raw = rustix::net::Protocol::from_raw(255.try_into().unwrap());
            let socket = socket(AddressFamily::INET6, SocketType::RAW, Some(raw)).unwrap();
            let index = rustix::net::netdevice::name_to_index(&socket, interface).unwrap();
            let octets: [u8; 16] = packet[24..40].try_into().unwrap();
            let to = SocketAddrV6::new(octets.into(), 0, 0, index);
            sendto(&socket, packet, SendFlags::empty(), &to).unwrap();
        });
    }
}

/// Waits until what `from` has sent has passed the bridge: a datagram behind it arrives.
fn passed(from: &Namespace, to: &Namespace, address: Ipv6Addr) {
    let heard = to.run(|| UdpSocket::bind((address, 0)).unwrap());
    heard.set_read_timeout(Some(ANSWER)).unwrap();
    let port = heard.local_addr().unwrap().port();
    from.run(|| UdpSocket::bind((ANY, 0)).unwrap().send_to(b"x", (address, port)).unwrap());
    heard.recv_from(&mut [0; 8]).unwrap();
}

/// Whether a datagram with this source arrives.
fn echoes(
    from: &Namespace,
    source: Ipv6Addr,
    to: &Namespace,
    address: Ipv6Addr,
    patience: std::time::Duration,
) -> bool {
    let heard = to.run(|| UdpSocket::bind((address, 0)).unwrap());
    heard.set_read_timeout(Some(patience)).unwrap();
    let port = heard.local_addr().unwrap().port();
    let mut datagram = [&[0, 9][..], &port.to_be_bytes(), &[0, 9, 0, 0, b'x']].concat();
    let sum = checksum(source, address, 17, &datagram);
    datagram[6..8].copy_from_slice(&sum);
    let mut whole = packet(source, address, None, &datagram);
    whole[6] = 17;
    from.send(&whole, "eth0");
    heard.recv_from(&mut [0; 8]).is_ok()
}

/// Waits for what another thread of the kernel does.
fn until(mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < 2 * ANSWER, "it did not come");
        std::thread::yield_now();
    }
}

fn link_local(endpoint: &Endpoint) -> Ipv6Addr {
    let [a, b, c, d, e, f] = endpoint.mac;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// An option of 8 bytes that ends with a hardware address.
fn option(kind: u8, mac: [u8; 6]) -> Vec<u8> {
    [&[kind, 1][..], &mac].concat()
}

/// A hop-by-hop header with padding alone, before ICMPv6.
const HOP_BY_HOP: [u8; 8] = [58, 0, 1, 4, 0, 0, 0, 0];

/// An IPv6 packet with hop limit 255, of ICMPv6.
fn packet(source: Ipv6Addr, to: Ipv6Addr, extension: Option<[u8; 8]>, body: &[u8]) -> Vec<u8> {
    let extension = extension.as_ref().map_or(&[][..], |header| &header[..]);
    let length = u16::try_from(extension.len() + body.len()).unwrap();
    let next = if extension.is_empty() { 58 } else { 0 };
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([next, 255]);
    packet.extend(source.octets());
    packet.extend(to.octets());
    packet.extend(extension);
    packet.extend(body);
    packet
}

fn icmpv6(source: Ipv6Addr, to: Ipv6Addr, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, 0, 0, 0][..], body].concat();
    let sum = checksum(source, to, 58, &message);
    message[2..4].copy_from_slice(&sum);
    message
}

/// RFC 8200, section 8.1
fn checksum(source: Ipv6Addr, to: Ipv6Addr, protocol: u8, message: &[u8]) -> [u8; 2] {
    let length = u32::try_from(message.len()).unwrap();
    let whole =
        [&source.octets()[..], &to.octets(), &length.to_be_bytes(), &[0, 0, 0, protocol], message]
            .concat();
    let mut sum: u32 = whole
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}
