//! What the nftables rules let through and what not, with packets.
#![allow(clippy::unwrap_used)] // a helper that fails is a test that fails

mod support;

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use bulkhead_network::{
    Bridge, DefaultRoute, Gateway, Host, NetworkError, Protocol, PublishedPort,
};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, sendto, socket};
use support::{
    ANSWER, HOST_OUTSIDE, Namespace, OUTSIDE, SILENCE, TestHost, bridge, gateway, has, ipv4, tcp,
};

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

#[test]
fn a_published_port_is_reached_from_everywhere() {
    published_port_is_reached(TestHost::new());
}

/// With br_netfilter frames are translated while they are bridged, without it only when routed.
#[test]
fn a_published_port_is_reached_with_either_bridge_netfilter() {
    for setting in ["0", "1"] {
        let host = TestHost::new();
        let file = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        if host.namespace.run(|| std::fs::write(file, setting)).is_err() {
            return bulkhead_sys::testing::skip("br_netfilter is not loaded");
        }
        published_port_is_reached(host);
    }
}

fn published_port_is_reached(host: TestHost) {
    let outside = host.outside();
    let (one, two) = (bridge("bulkhead0", 1), bridge("bulkhead1", 2));
    host.host.ensure_bridge(&one).unwrap();
    host.host.ensure_bridge(&two).unwrap();
    let (server, server_end) = host.container(&one, 2);
    let (neighbour, _) = host.container(&one, 3);
    let (other, _) = host.container(&two, 2);
    let _serving = server.serve(8080);
    let port = tcp(ANY, 80, ipv4(&server_end), 8080);
    assert!(host.namespace.is_refused(LOCALHOST, 80));
    host.host.publish(&[port]).unwrap();

    // the world's address is seen as it is
    assert_eq!(outside.namespace.fetch(HOST_OUTSIDE, 80).unwrap(), OUTSIDE);
    // the host itself, by each of its addresses
    assert_eq!(host.namespace.fetch(LOCALHOST, 80).unwrap(), gateway(&one));
    assert_eq!(host.namespace.fetch(HOST_OUTSIDE, 80).unwrap(), HOST_OUTSIDE);
    assert_eq!(host.namespace.fetch(gateway(&one), 80).unwrap(), gateway(&one));
    // containers: itself, a neighbour, one on another bridge
    for container in [&server, &neighbour, &other] {
        for address in [HOST_OUTSIDE, gateway(&one), gateway(&two)] {
            assert_eq!(container.fetch(address, 80).unwrap(), gateway(&one), "{address}");
        }
    }

    host.host.unpublish(&[port]).unwrap();
    host.host.unpublish(&[port]).unwrap();
    assert!(outside.namespace.is_refused(HOST_OUTSIDE, 80));
    assert!(host.namespace.is_refused(LOCALHOST, 80));
}

#[test]
fn a_port_published_on_localhost_stays_there() {
    let host = TestHost::new();
    let outside = host.outside();
    let network = bridge("bulkhead0", 1);
    host.host.ensure_bridge(&network).unwrap();
    let (server, end) = host.container(&network, 2);
    let _serving = server.serve(80);
    host.host.publish(&[tcp(LOCALHOST, 80, ipv4(&end), 80)]).unwrap();
    assert_eq!(host.namespace.fetch(LOCALHOST, 80).unwrap(), gateway(&network));
    assert!(outside.namespace.is_refused(HOST_OUTSIDE, 80));

    // a neighbour on the wire that sends to 127.0.0.1 by way of this host, where somebody has
    // set route_localnet for every interface
    host.namespace.run(|| {
        std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
    });
    outside.namespace.run(|| {
        std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
    });
    if !has("ip") {
        return bulkhead_sys::testing::skip("no iproute2 to set the route with");
    }
    let ip = |arguments: &[&str]| outside.namespace.command("ip", arguments);
    ip(&["route", "del", "local", "127.0.0.0/8", "dev", "lo", "table", "local"]);
    ip(&["route", "del", "local", "127.0.0.1", "dev", "lo", "table", "local"]);
    ip(&["route", "add", "127.0.0.0/8", "via", "192.0.2.1", "src", "192.0.2.2"]);
    assert!(outside.namespace.is_dropped(LOCALHOST, 80));
    let seen = host.namespace.command("nft", &["list", "ruleset"]);
    assert!(seen.contains("127.0.0.0/8 iifname != \"lo\" drop"), "{seen}");
}

#[test]
fn udp_is_published_too() {
    let host = TestHost::new();
    let outside = host.outside();
    let network = bridge("bulkhead0", 1);
    host.host.ensure_bridge(&network).unwrap();
    let (server, end) = host.container(&network, 2);
    let mut port = tcp(HOST_OUTSIDE, 53, ipv4(&end), 5353);
    port.protocol = Protocol::Udp;
    host.host.publish(&[port]).unwrap();

    let serving = server.run(|| UdpSocket::bind((ANY, 5353)).unwrap());
    let asking = outside.namespace.run(|| UdpSocket::bind((ANY, 0)).unwrap());
    serving.set_read_timeout(Some(ANSWER)).unwrap();
    asking.set_read_timeout(Some(ANSWER)).unwrap();
    asking.connect((HOST_OUTSIDE, 53)).unwrap();
    asking.send(b"question").unwrap();
    let mut buffer = [0; 16];
    let (length, peer) = serving.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], peer.ip()), (&b"question"[..], OUTSIDE.into()));
    serving.send_to(b"answer", peer).unwrap();
    let length = asking.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"answer");
}

/// An association's first packet, by raw(7): not every kernel has sockets of SCTP.
#[test]
fn sctp_is_published_too() {
    let host = TestHost::new();
    let outside = host.outside();
    let network = bridge("bulkhead0", 1);
    host.host.ensure_bridge(&network).unwrap();
    let (server, end) = host.container(&network, 2);
    let port = PublishedPort { protocol: Protocol::Sctp, ..tcp(ANY, 5000, ipv4(&end), 9) };
    host.host.publish(&[port]).unwrap();
    assert_eq!(port.to_string(), "0.0.0.0:5000/sctp");

    let raw = |namespace: &Namespace, protocol: u32| {
        let protocol = rustix::net::Protocol::from_raw(protocol.try_into().unwrap());
        namespace.run(|| socket(AddressFamily::INET, SocketType::RAW, Some(protocol)).unwrap())
    };
    let serving = raw(&server, 132);
    set_socket_timeout(&serving, Timeout::Recv, Some(ANSWER)).unwrap();
    // INIT: from port 4000 to 5000, without a tag; its own tag, window, streams and number
    let mut init = [&4000_u16.to_be_bytes()[..], &5000_u16.to_be_bytes(), &[0; 8]].concat();
    init.extend([1, 0, 0, 20, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    let sum = crc32c(&init);
    init[8..12].copy_from_slice(&sum);
    // the kernel fills in the length and the header's checksum
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 132, 0, 0];
    packet.extend(OUTSIDE.octets().into_iter().chain(HOST_OUTSIDE.octets()).chain(init));
    let to = SocketAddrV4::new(HOST_OUTSIDE, 0);
    sendto(raw(&outside.namespace, 255), &packet, SendFlags::empty(), &to).unwrap();

    let mut buffer = [0; 128];
    let (length, _) = rustix::net::recv(&serving, &mut buffer, RecvFlags::empty()).unwrap();
    let mut arrived = buffer[20..length].to_vec();
    assert_eq!(&buffer[12..16], &OUTSIDE.octets());
    assert_eq!((&arrived[..2], &arrived[2..4]), (&[0x0f, 0xa0][..], &[0, 9][..]));
    let sum = arrived[8..12].to_vec();
    arrived[8..12].fill(0);
    assert_eq!(sum, crc32c(&arrived));
}

/// RFC 9260, appendix A
fn crc32c(bytes: &[u8]) -> [u8; 4] {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0x82f6_3b78 * (sum & 1));
        }
    }
    (!sum).to_le_bytes()
}

#[test]
fn what_is_not_published_is_not_reached() {
    let host = TestHost::new();
    let outside = host.outside();
    let (one, two) = (bridge("bulkhead0", 1), bridge("bulkhead1", 2));
    host.host.ensure_bridge(&one).unwrap();
    host.host.ensure_bridge(&two).unwrap();
    let (server, end) = host.container(&one, 2);
    let (other, _) = host.container(&two, 2);
    let _serving = server.serve(80);
    host.host.publish(&[tcp(ANY, 80, ipv4(&end), 80)]).unwrap();
    // a neighbour of the host that routes to the container's address: J6
    if has("ip") {
        let route = ["route", "add", "10.77.0.0/16", "via", "192.0.2.1"];
        outside.namespace.command("ip", &route);
        assert!(outside.namespace.is_dropped(ipv4(&end), 80));
    }
    // and a container of another bridge: J5
    assert!(other.is_dropped(ipv4(&end), 80));
    // the host itself may
    assert_eq!(host.namespace.fetch(ipv4(&end), 80).unwrap(), gateway(&one));
}

#[test]
fn containers_reach_the_world_by_the_hosts_address() {
    let host = TestHost::new();
    let outside = host.outside();
    let open = bridge("bulkhead0", 1);
    let closed = Bridge { internal: true, ..bridge("bulkhead1", 2) };
    host.host.ensure_bridge(&open).unwrap();
    host.host.ensure_bridge(&closed).unwrap();
    let (inside, _) = host.container(&open, 2);
    let (confined, confined_end) = host.container(&closed, 2);
    let _serving = outside.namespace.serve(80);
    assert_eq!(inside.fetch(OUTSIDE, 80).unwrap(), HOST_OUTSIDE);

    // an internal network has no way out, nor in
    let error = confined.fetch(OUTSIDE, 80).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NetworkUnreachable);
    if has("ip") {
        confined.command("ip", &["route", "add", "default", "via", "10.77.2.1"]);
        assert!(confined.is_dropped(OUTSIDE, 80));
        let _serving = confined.serve(80);
        host.host.publish(&[tcp(ANY, 80, ipv4(&confined_end), 80)]).unwrap();
        assert!(outside.namespace.is_dropped(HOST_OUTSIDE, 80));
        assert_eq!(host.namespace.fetch(LOCALHOST, 80).unwrap(), gateway(&closed));
    }
}

#[test]
fn the_metadata_address_is_a_black_hole() {
    let host = TestHost::new();
    let network = bridge("bulkhead0", 1);
    host.host.ensure_bridge(&network).unwrap();
    let (container, _) = host.container(&network, 2);
    assert!(container.is_dropped(Ipv4Addr::new(169, 254, 169, 254), 80));
}

#[test]
fn a_foreign_source_is_dropped() {
    let host = TestHost::new();
    let network = bridge("bulkhead0", 1);
    host.host.ensure_bridge(&network).unwrap();
    let (spoofer, end) = host.container(&network, 2);
    let (victim, victim_end) = host.container(&network, 3);
    let heard = host.namespace.run(|| UdpSocket::bind((ANY, 5000)).unwrap());
    let send = |from: Ipv4Addr, patience| {
        heard.set_read_timeout(Some(patience)).unwrap();
        spoofer.run(|| {
            let socket = UdpSocket::bind((from, 0)).unwrap();
            socket.send_to(b"x", (gateway(&network), 5000)).unwrap();
        });
        let mut buffer = [0; 8];
        heard.recv_from(&mut buffer).map(|(_, peer)| peer.ip())
    };
    assert_eq!(send(ipv4(&end), ANSWER).unwrap(), ipv4(&end));
    if !has("ip") {
        return bulkhead_sys::testing::skip("no iproute2 to change the address with");
    }
    // J2: another address, of a neighbour even
    for foreign in ["10.77.1.99/24", "10.77.1.3/24"] {
        spoofer.command("ip", &["address", "add", foreign, "dev", "eth0", "nodad"]);
        let address = foreign.split_once('/').unwrap().0.parse().unwrap();
        send(address, SILENCE).unwrap_err();
    }
    let _serving = host.namespace.serve(80);
    assert_eq!(victim.fetch(gateway(&network), 80).unwrap(), ipv4(&victim_end));
    // J2: another hardware address
    spoofer.command("ip", &["link", "set", "eth0", "address", "02:42:0a:4d:01:03"]);
    send(ipv4(&end), SILENCE).unwrap_err();
    assert_eq!(victim.fetch(gateway(&network), 80).unwrap(), ipv4(&victim_end));
}

/// J1: what the host believes of a neighbour is not changed by another container's ARP.
#[test]
fn a_foreign_arp_sender_is_not_believed() {
    if !has("ip") {
        return bulkhead_sys::testing::skip("no iproute2 to change the address with");
    }
    let host = TestHost::new();
    let network = bridge("bulkhead0", 1);
    host.host.ensure_bridge(&network).unwrap();
    let (spoofer, end) = host.container(&network, 2);
    let asks_from = |address: Ipv4Addr, patience| {
        spoofer.command("ip", &["neighbour", "flush", "dev", "eth0"]);
        let socket = spoofer.run(|| UdpSocket::bind((address, 0)).unwrap());
        let heard = host.namespace.run(|| UdpSocket::bind((ANY, 0)).unwrap());
        heard.set_read_timeout(Some(patience)).unwrap();
        let port = heard.local_addr().unwrap().port();
        spoofer.run(|| socket.send_to(b"x", (gateway(&network), port)).unwrap());
        // the packet waits in the container for an answer to its ARP request
        let received = heard.recv_from(&mut [0; 8]).is_ok();
        let neighbours = host.namespace.command("ip", &["neighbour", "show", "dev", "bulkhead0"]);
        (received, neighbours.contains(&format!("{address} ")))
    };
    assert_eq!(asks_from(ipv4(&end), ANSWER), (true, true));
    spoofer.command("ip", &["address", "replace", "10.77.1.3/24", "dev", "eth0"]);
    assert_eq!(asks_from(Ipv4Addr::new(10, 77, 1, 3), SILENCE), (false, false));
}

/// J3: no address by which IPv6 reaches the host, and no route learnt from a container.
#[test]
fn our_links_have_no_ipv6() {
    let host = TestHost::new();
    let network = bridge("bulkhead0", 1);
    host.host.ensure_bridge(&network).unwrap();
    let (container, _) = host.container(&network, 2);
    if !std::path::Path::new("/proc/net/if_inet6").exists() {
        return bulkhead_sys::testing::skip("no IPv6");
    }
    for namespace in [&host.namespace, &container] {
        let addresses =
            namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap());
        assert!(addresses.lines().all(|line| line.ends_with(" lo")), "{addresses}");
    }
    let accepts = "/proc/sys/net/ipv6/conf/bulkhead0/accept_ra";
    assert_eq!(host.namespace.run(|| std::fs::read_to_string(accepts).unwrap()), "0\n");
}

#[test]
fn the_administrators_chain_decides_first_and_is_kept() {
    if !has("nft") {
        return bulkhead_sys::testing::skip("no nft");
    }
    let host = TestHost::new();
    let outside = host.outside();
    let network = bridge("bulkhead0", 1);
    host.host.ensure_bridge(&network).unwrap();
    let (server, end) = host.container(&network, 2);
    let _serving = server.serve(80);
    let port = tcp(ANY, 80, ipv4(&end), 80);
    host.host.publish(&[port]).unwrap();
    assert_eq!(outside.namespace.fetch(HOST_OUTSIDE, 80).unwrap(), OUTSIDE);
    let rule = "add rule inet bulkhead user ip saddr 192.0.2.2 drop";
    host.namespace.command("nft", &rule.split(' ').collect::<Vec<_>>());
    assert!(outside.namespace.is_dropped(HOST_OUTSIDE, 80));
    host.host.reconcile(&[(network.clone(), vec![end])], &[port]).unwrap();
    assert!(outside.namespace.is_dropped(HOST_OUTSIDE, 80));
}

#[test]
fn reconcile_puts_back_what_a_flush_lost() {
    if !has("nft") {
        return bulkhead_sys::testing::skip("no nft to flush the ruleset with");
    }
    let host = TestHost::new();
    let outside = host.outside();
    let network = bridge("bulkhead0", 1);
    host.host.ensure_bridge(&network).unwrap();
    let (server, end) = host.container(&network, 2);
    let _serving = server.serve(80);
    let port = tcp(ANY, 80, ipv4(&end), 80);
    let stale = tcp(ANY, 81, ipv4(&end), 80);
    let wanted = [(network.clone(), vec![end])];
    host.host.publish(&[port, stale]).unwrap();
    host.host.reconcile(&wanted, &[port]).unwrap();
    assert!(host.host.is_intact().unwrap());
    let before = host.namespace.command("nft", &["list", "ruleset"]);
    assert!(outside.namespace.is_refused(HOST_OUTSIDE, 81));

    host.namespace.command("nft", &["flush", "ruleset"]);
    assert!(!host.host.is_intact().unwrap());
    assert!(outside.namespace.is_refused(HOST_OUTSIDE, 80));
    for _ in 0..2 {
        host.host.reconcile(&wanted, &[port]).unwrap();
        assert_eq!(host.namespace.command("nft", &["list", "ruleset"]), before);
        assert!(host.host.is_intact().unwrap());
    }
    assert_eq!(outside.namespace.fetch(HOST_OUTSIDE, 80).unwrap(), OUTSIDE);

    // what another engine keeps on its own bridge in the same tables stays
    let other = bridge("bulkhead1", 2);
    host.host.ensure_bridge(&other).unwrap();
    let (elsewhere, elsewhere_end) = host.container(&other, 2);
    let _elsewhere = elsewhere.serve(80);
    host.host.publish(&[tcp(ANY, 82, ipv4(&elsewhere_end), 80)]).unwrap();
    host.host.reconcile(&wanted, &[port]).unwrap();
    assert_eq!(outside.namespace.fetch(HOST_OUTSIDE, 82).unwrap(), OUTSIDE);
    host.host.tear_down().unwrap();
    assert_eq!(outside.namespace.fetch(HOST_OUTSIDE, 82).unwrap(), OUTSIDE);

    // our own changes do not count as somebody else's, and a plug or publish mends what it needs
    host.host.publish(&[stale]).unwrap();
    assert!(host.host.is_intact().unwrap());
    host.namespace.command("nft", &["flush", "ruleset"]);
    host.host.publish(&[port]).unwrap();
    assert!(!host.host.is_intact().unwrap());
    let (_another, _) = host.container(&network, 4);
}

#[test]
fn a_taken_port_is_refused_and_nothing_is_left() {
    let host = TestHost::new();
    let network = bridge("bulkhead0", 1);
    host.host.ensure_bridge(&network).unwrap();
    let (_container, end) = host.container(&network, 2);
    let port = tcp(ANY, 80, ipv4(&end), 80);
    host.host.publish(&[port]).unwrap();
    host.host.publish(&[port]).unwrap();
    let clash = tcp(ANY, 80, Ipv4Addr::new(10, 77, 1, 9), 80);
    let free = tcp(ANY, 81, Ipv4Addr::new(10, 77, 1, 9), 80);
    let error = host.host.publish(&[free, clash]).unwrap_err();
    assert!(matches!(error, NetworkError::PortPublished(_)), "{error}");
    if has("nft") {
        let map = host.namespace.command("nft", &["list", "map", "inet", "bulkhead", "ports"]);
        assert!(map.contains("tcp . 80 : 10.77.1.2 . 80") && !map.contains("81"), "{map}");
    }

    // an engine that crashed knows nothing of what it plugged
    let again = host.namespace.run(|| Host::open().unwrap());
    again.unpublish(&[free, port]).unwrap();
    again.unplug(&end.host_link).unwrap();
    again.remove_bridge(&network).unwrap();
    if has("nft") {
        let listed = host.namespace.command("nft", &["list", "ruleset"]);
        assert!(!listed.contains("elements"), "{listed}");
    }
    again.tear_down().unwrap();
    again.tear_down().unwrap();
    if has("nft") {
        assert_eq!(host.namespace.command("nft", &["list", "ruleset"]), "");
    }
}

#[test]
fn another_address_of_a_bridge_finds_nothing_of_the_old_one() {
    let host = TestHost::new();
    let old = bridge("bulkhead0", 1);
    host.host.ensure_bridge(&old).unwrap();
    let (_container, end) = host.container(&old, 2);
    host.host.publish(&[tcp(ANY, 80, ipv4(&end), 80)]).unwrap();

    // an engine that crashed knows nothing of what it plugged and published
    let again = host.namespace.run(|| Host::open().unwrap());
    assert_eq!(again.plugged("bulkhead0").unwrap(), 1);
    assert_eq!(again.plugged("bulkhead1").unwrap(), 0);
    again.remove_bridge(&old).unwrap();
    // one that overlaps the old subnet, as 172.17.0.1/16 does 172.17.0.1/24
    again.ensure_bridge(&wide(old)).unwrap();
    again.publish(&[tcp(ANY, 80, Ipv4Addr::new(10, 77, 2, 9), 80)]).unwrap();
}

#[test]
fn a_thousand_ports_and_endpoints_are_one_transaction() {
    let host = TestHost::new();
    let network = wide(bridge("bulkhead0", 0));
    let address = |number: u16| {
        let [high, low] = number.to_be_bytes();
        Ipv4Addr::new(10, 77, high, low)
    };
    let ports: Vec<_> = (2..1502).map(|number| tcp(ANY, number, address(number), 80)).collect();
    let endpoints = (2..1002_u16).map(|number| bulkhead_network::Endpoint {
        host_link: format!("bh{number}"),
        interface: "eth0".to_owned(),
        mac: [2, 0, 0, 0, number.to_be_bytes()[0], number.to_be_bytes()[1]],
        ipv4: Some(address(number)),
        ipv6: None,
        default_route: DefaultRoute::Both,
        link_local: vec![],
        sysctls: vec![],
    });
    let wanted = [(network, endpoints.collect::<Vec<_>>())];
    host.host.reconcile(&wanted, &ports).unwrap();
    host.host.reconcile(&wanted, &ports[..1]).unwrap();
    host.host.publish(&ports).unwrap();
    host.host.unpublish(&ports).unwrap();
}

fn wide(bridge: Bridge) -> Bridge {
    let ipv4 = bridge.ipv4.map(|own| Gateway { prefix: 16, ..own });
    Bridge { ipv4, ..bridge }
}

/// J18: an old flow does not reach the container that has the address next.
#[test]
fn old_flows_end_with_their_container() {
    let host = TestHost::new();
    let outside = host.outside();
    let network = bridge("bulkhead0", 1);
    host.host.ensure_bridge(&network).unwrap();
    let (first, end) = host.container(&network, 2);
    let mut port = tcp(ANY, 53, ipv4(&end), 53);
    port.protocol = Protocol::Udp;
    host.host.publish(&[port]).unwrap();
    let client = outside.namespace.run(|| UdpSocket::bind((ANY, 0)).unwrap());
    let hears = |container: &Namespace, patience| {
        let server = container.run(|| UdpSocket::bind((ANY, 53)).unwrap());
        server.set_read_timeout(Some(patience)).unwrap();
        // refused: what the last question was answered with
        let _ = client.send_to(b"question", (HOST_OUTSIDE, 53));
        client.send_to(b"question", (HOST_OUTSIDE, 53)).unwrap();
        let mut buffer = [0; 16];
        let heard = server.recv_from(&mut buffer);
        if let Ok((_, peer)) = heard {
            server.send_to(b"answer", peer).unwrap();
        }
        heard.is_ok()
    };
    assert!(hears(&first, ANSWER));
    // the same address for another container, which has published nothing
    host.host.unpublish(&[port]).unwrap();
    host.host.unplug(&end.host_link).unwrap();
    let (second, _) = host.container(&network, 2);
    assert!(!hears(&second, SILENCE));
}

/// The same where several go at once, and of no others.
#[test]
fn old_flows_end_with_all_containers_that_are_unplugged_together() {
    let host = TestHost::new();
    let outside = host.outside();
    let network = bridge("bulkhead0", 1);
    host.host.ensure_bridge(&network).unwrap();
    let ends: Vec<_> = (2..5).map(|number| host.container(&network, number)).collect();
    let ports: Vec<_> = ends
        .iter()
        .zip([1002, 1003, 1004])
        .map(|((_, end), port)| PublishedPort {
            protocol: Protocol::Udp,
            ..tcp(ANY, port, ipv4(end), 53)
        })
        .collect();
    host.host.publish(&ports).unwrap();
    let client = outside.namespace.run(|| UdpSocket::bind((ANY, 0)).unwrap());
    let hears = |container: &Namespace, port: u16, patience| {
        let server = container.run(|| UdpSocket::bind((ANY, 53)).unwrap());
        server.set_read_timeout(Some(patience)).unwrap();
        // refused: what the last question was answered with
        let _ = client.send_to(b"question", (HOST_OUTSIDE, port));
        client.send_to(b"question", (HOST_OUTSIDE, port)).unwrap();
        let heard = server.recv_from(&mut [0; 16]);
        if let Ok((_, peer)) = heard {
            server.send_to(b"answer", peer).unwrap();
        }
        heard.is_ok()
    };
    for ((container, _), port) in ends.iter().zip(&ports) {
        assert!(hears(container, port.host_port, ANSWER));
    }
    // what the containers began themselves ends too
    let asked = outside.namespace.run(|| UdpSocket::bind((ANY, 99)).unwrap());
    asked.set_read_timeout(Some(ANSWER)).unwrap();
    let asking = ends[0].0.run(|| UdpSocket::bind((ANY, 98)).unwrap());
    asking.send_to(b"question", (OUTSIDE, 99)).unwrap();
    let (_, caller) = asked.recv_from(&mut [0; 16]).unwrap();

    host.host.unpublish(&ports).unwrap();
    let gone: Vec<_> = ends[..2].iter().map(|(_, end)| end.host_link.as_str()).collect();
    assert_eq!(host.host.unplug_all(&gone).len(), 0);
    assert_eq!(host.host.unplug_all(&gone).len(), 0);
    // the next containers have the addresses at once, and have published nothing
    for (number, port) in [(2, 1002), (3, 1003)] {
        let (next, _) = host.container(&network, number);
        assert!(!hears(&next, port, SILENCE), "{port}");
        if number == 2 {
            let late = next.run(|| UdpSocket::bind((ANY, 98)).unwrap());
            late.set_read_timeout(Some(SILENCE)).unwrap();
            asked.send_to(b"answer", caller).unwrap();
            assert!(late.recv_from(&mut [0; 16]).is_err());
        }
    }
    // one that was not unplugged keeps its flow
    assert!(hears(&ends[2].0, 1004, ANSWER));
}

/// J8: what others take away comes back, whatever it is; what they add stays.
#[test]
fn what_somebody_has_taken_away_is_put_back() {
    if !has("nft") {
        return bulkhead_sys::testing::skip("no nft to take rules away with");
    }
    let host = TestHost::new();
    let outside = host.outside();
    let mut network = support::dual("bulkhead0", 1);
    network.ipv6 = network.ipv6.filter(|_| support::has_ipv6());
    network.publish_policy = "192.0.2.0/24".parse().unwrap();
    host.host.ensure_bridge(&network).unwrap();
    let (server, end) = host.container(&network, 2);
    let _serving = server.serve(8080);
    let port = tcp(ANY, 80, ipv4(&end), 8080);
    host.host.publish(&[port]).unwrap();
    host.host.reconcile(&[(network.clone(), vec![end.clone()])], &[port]).unwrap();
    let nft = |line: &str| host.namespace.command("nft", &line.split(' ').collect::<Vec<_>>());
    let whole = nft("list ruleset");
    assert!(host.host.is_intact().unwrap() && !host.host.mend().unwrap());
    for line in [
        "flush ruleset",
        "delete table bridge bulkhead",
        "flush table inet bulkhead",
        "flush chain inet bulkhead forward",
        "flush set inet bulkhead sources",
        "flush map inet bulkhead ports",
        "flush set bridge bulkhead endpoints",
    ] {
        nft(line);
        assert!(!host.host.is_intact().unwrap(), "{line}");
        assert!(host.host.mend().unwrap(), "{line}");
        assert!(host.host.is_intact().unwrap() && !host.host.mend().unwrap(), "{line}");
        assert_eq!(outside.namespace.fetch(HOST_OUTSIDE, 80).unwrap(), OUTSIDE, "{line}");
    }
    // tables are listed in the order in which they were made
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&nft("list ruleset")), sorted(&whole));
    // another program's own change is none of ours
    nft("add table ip filter");
    nft("add rule inet bulkhead user ip saddr 203.0.113.1 drop");
    assert!(!host.host.is_intact().unwrap());
    assert!(!host.host.mend().unwrap() && host.host.is_intact().unwrap());
    assert!(nft("list chain inet bulkhead user").contains("203.0.113.1"));
    // what was given back meanwhile is not made again
    host.host.unpublish(&[port]).unwrap();
    host.host.unplug(&end.host_link).unwrap();
    nft("flush ruleset");
    assert!(host.host.mend().unwrap());
    let rules = nft("list ruleset");
    assert!(!rules.contains("10.77.1.2") && rules.contains("bulkhead0"), "{rules}");
    // and nothing after all is torn down
    host.host.remove_bridge(&network).unwrap();
    host.host.tear_down().unwrap();
    assert!(!host.host.mend().unwrap());
    assert!(!nft("list ruleset").contains("bulkhead"));
}

#[test]
fn chains_of_others_that_drop_are_named() {
    if !has("nft") {
        return bulkhead_sys::testing::skip("no nft to make a chain of another program with");
    }
    let host = TestHost::new();
    host.host.ensure_bridge(&bridge("bulkhead0", 1)).unwrap();
    assert_eq!(host.host.foreign_forward_drops().unwrap(), Vec::<String>::new());
    host.namespace.command("nft", &["add", "table", "ip", "filter"]);
    for (chain, hook, policy) in
        [("FORWARD", "forward", "drop"), ("INPUT", "input", "drop"), ("OTHER", "forward", "accept")]
    {
        let definition = format!("{{ type filter hook {hook} priority 0; policy {policy}; }}");
        host.namespace.command("nft", &["add", "chain", "ip", "filter", chain, &definition]);
    }
    assert_eq!(host.host.foreign_forward_drops().unwrap(), ["ip filter FORWARD"]);
}
