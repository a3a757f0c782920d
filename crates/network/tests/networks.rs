//! What separates networks, and containers of one network, with packets and frames.
#![allow(clippy::unwrap_used)] // a helper that fails is a test that fails

mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsFd;

use bulkhead_network::{Bridge, DefaultRoute, Endpoint};
use support::{
    ANSWER, HOST_OUTSIDE, HOST_OUTSIDE6, OUTSIDE, OUTSIDE6, SILENCE, TestHost, dual, endpoint,
    gateway, gateway6, has, has_ipv6, ipv4, ipv6, tcp,
};

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const ANY6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const BRIDGE_NETFILTER: [&str; 2] = [
    "/proc/sys/net/bridge/bridge-nf-call-iptables",
    "/proc/sys/net/bridge/bridge-nf-call-ip6tables",
];

/// A host with bridge netfilter on or off; `None` where there is none to turn on.
fn host_with(bridge_netfilter: &str) -> Option<TestHost> {
    let host = TestHost::new();
    let set = |file: &&str| host.namespace.write(file, bridge_netfilter).is_ok();
    (BRIDGE_NETFILTER.iter().all(set) || bridge_netfilter == "0").then_some(host)
}

/// J4: Docker's `enable_icc=false`.
#[test]
fn containers_that_are_kept_apart_reach_published_ports_alone() {
    if !has_ipv6() || !has("ip") {
        return bulkhead_sys::testing::skip("no IPv6, or no iproute2 to set routes with");
    }
    for bridge_netfilter in ["0", "1"] {
        let Some(host) = host_with(bridge_netfilter) else {
            return bulkhead_sys::testing::skip("br_netfilter is not loaded");
        };
        let outside = host.outside();
        let open = dual("bulkhead0", 1);
        let apart = Bridge { inter_container: false, ..dual("bulkhead1", 2) };
        for network in [&open, &apart] {
            host.host.ensure_bridge(network).unwrap();
        }
        let hears = |network: &Bridge| {
            let (asking, _) = host.container(network, 2);
            let (server, end) = host.container(network, 3);
            let _serving = [server.serve_on(ANY, 80), server.serve_on(ANY6, 81)];
            let reached = asking.fetch_within(ipv4(&end), 80, SILENCE).is_ok();
            let reached6 = asking.fetch_within(ipv6(&end), 81, SILENCE).is_ok();
            // which frames came: what was asked for its hardware address has seen who asked
            let neighbours = server.ip("neighbour show") + &server.ip("-6 neighbour show");
            let seen = neighbours.contains(&asking_address(network));
            // and by the host's own route, as no interface but the gateway's is asked for
            asking.ip(&format!("route add {}/32 via {}", ipv4(&end), gateway(network)));
            asking.ip(&format!("-6 route add {}/128 via {}", ipv6(&end), gateway6(network)));
            let routed = asking.fetch_within(ipv4(&end), 80, SILENCE).is_ok();
            let routed6 = asking.fetch_within(ipv6(&end), 81, SILENCE).is_ok();
            let ports = [tcp(ANY, 80, ipv4(&end), 80), tcp(ANY6, 80, ipv6(&end), 81)];
            host.host.publish(&ports).unwrap();
            // from outside and from the host as ever
            assert_eq!(outside.namespace.fetch(HOST_OUTSIDE, 80).unwrap(), OUTSIDE);
            assert_eq!(outside.namespace.fetch(HOST_OUTSIDE6, 80).unwrap(), OUTSIDE6);
            assert_eq!(host.namespace.fetch(Ipv4Addr::LOCALHOST, 80).unwrap(), gateway(network));
            let published = asking.fetch_within(HOST_OUTSIDE, 80, SILENCE).is_ok();
            let published6 = asking.fetch_within(HOST_OUTSIDE6, 80, SILENCE).is_ok();
            host.host.unpublish(&ports).unwrap();
            ([reached, reached6, seen, routed, routed6], [published, published6])
        };
        assert_eq!(hears(&open), ([true; 5], [true; 2]), "{bridge_netfilter}");
        // Bridge netfilter translates on the bridge, which then sees a frame from one of its isolated
        // ports to another: these alone do not reach each other's published ports there.
        let published = bridge_netfilter == "0";
        assert_eq!(hears(&apart), ([false; 5], [published; 2]), "{bridge_netfilter}");
    }
}

/// The second address of a network.
fn asking_address(network: &Bridge) -> String {
    let [a, b, c, _] = gateway(network).octets();
    format!("{a}.{b}.{c}.2 ")
}

/// A container on two networks sends on each with its address there, and with no other.
#[test]
fn each_endpoint_is_pinned_to_its_own_network() {
    if !has_ipv6() {
        return bulkhead_sys::testing::skip("no IPv6");
    }
    let host = TestHost::new();
    let networks = [dual("bulkhead0", 1), dual("bulkhead1", 2)];
    for network in &networks {
        host.host.ensure_bridge(network).unwrap();
    }
    let (container, first) = host.container(&networks[0], 2);
    let second = Endpoint {
        interface: "eth1".to_owned(),
        default_route: DefaultRoute::None,
        ..endpoint(&networks[1], 2)
    };
    host.host.plug(container.0.as_fd(), &networks[1], &second).unwrap();
    let arrives = |source: IpAddr, gateway: IpAddr, patience| {
        let heard = host.namespace.run(|| UdpSocket::bind((gateway, 0)).unwrap());
        heard.set_read_timeout(Some(patience)).unwrap();
        let port = heard.local_addr().unwrap().port();
        let sending = container.run(|| UdpSocket::bind((source, 0)).unwrap());
        sending.send_to(b"x", (gateway, port)).unwrap();
        heard.recv_from(&mut [0; 8]).is_ok()
    };
    for (end, network) in [(&first, &networks[0]), (&second, &networks[1])] {
        assert!(arrives(ipv4(end).into(), gateway(network).into(), ANSWER));
        assert!(arrives(ipv6(end).into(), gateway6(network).into(), ANSWER));
    }
    for (end, network) in [(&first, &networks[1]), (&second, &networks[0])] {
        assert!(!arrives(ipv4(end).into(), gateway(network).into(), SILENCE));
        assert!(!arrives(ipv6(end).into(), gateway6(network).into(), SILENCE));
    }
}

/// As `nft` 1.0.6 shows them: other versions print differently.
#[test]
fn the_rules_are_these() {
    if !has_ipv6() || !has("nft") {
        return bulkhead_sys::testing::skip("no IPv6 or no nft");
    }
    let host = TestHost::new();
    if !host.namespace.command("nft", &["-v"]).contains("v1.0.6 ") {
        return bulkhead_sys::testing::skip("another nft than 1.0.6");
    }
    let networks = [
        dual("bulkhead0", 1),
        Bridge { inter_container: false, masquerade: false, ..dual("bulkhead1", 2) },
        Bridge { internal: true, ..dual("bulkhead2", 3) },
    ];
    for network in &networks {
        host.host.ensure_bridge(network).unwrap();
    }
    let (_container, end) = host.container(&networks[0], 2);
    let ports = [
        tcp(ANY, 80, ipv4(&end), 8080),
        tcp(Ipv4Addr::LOCALHOST, 81, ipv4(&end), 8080),
        tcp(ANY6, 80, ipv6(&end), 8080),
        tcp(Ipv6Addr::LOCALHOST, 81, ipv6(&end), 8080),
    ];
    host.host.publish(&ports).unwrap();
    insta::assert_snapshot!(host.namespace.command("nft", &["list", "ruleset"]));
}
