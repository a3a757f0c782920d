//! Who reaches a network, and as whom it reaches others, with packets.
#![allow(clippy::unwrap_used)] // a helper that fails is a test that fails

mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsFd;

use bulkhead_network::{
    Access, Bridge, Endpoint, FamilyAccess, GatewayHolder, GatewayMode, NetworkError, PublishedPort,
};
use support::{
    ANSWER, HOST_OUTSIDE, HOST_OUTSIDE6, OUTSIDE, OUTSIDE6, SILENCE, TestHost, bridge, dual,
    endpoint, gateway, gateway6, has, has_ipv6, ipv4, ipv6, tcp,
};

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const ANY6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

/// How long is waited for an answer that is to come, or is not.
fn patience(comes: bool) -> std::time::Duration {
    if comes { ANSWER } else { SILENCE }
}

fn with_mode(network: Bridge, mode: GatewayMode) -> Bridge {
    let access = Access {
        ipv4: FamilyAccess { mode, ..Default::default() },
        ipv6: FamilyAccess { mode, ..Default::default() },
        ..Access::default()
    };
    Bridge { access, ..network }
}

/// The outside host's routes to a network by this host.
fn route_from_outside(outside: &TestHost, third: u8) {
    outside.namespace.ip(&format!("route add 10.77.{third}.0/24 via {HOST_OUTSIDE}"));
    outside.namespace.ip(&format!("-6 route add fd00:77:0:{third}::/64 via {HOST_OUTSIDE6}"));
}

fn published(network: &Bridge, host_port: u16, to: impl Into<IpAddr>, port: u16) -> PublishedPort {
    let to = to.into();
    let any = if to.is_ipv4() { IpAddr::from(ANY) } else { ANY6.into() };
    let reached_by = network.access.reached_by(any);
    PublishedPort { reached_by, ..tcp(any, host_port, to, port) }
}

/// moby: integration/network, TestRoutedNonGateway and TestAccessPublishedPortFromRemoteHost.
#[test]
fn what_is_published_on_a_routed_network_is_reached_by_its_own_address() {
    if !has_ipv6() || !has("ip") {
        return bulkhead_sys::testing::skip("no IPv6, or no iproute2 to set routes with");
    }
    let host = TestHost::new();
    let outside = host.outside();
    route_from_outside(&outside, 1);
    let routed = with_mode(dual("bulkhead0", 1), GatewayMode::Routed);
    let other = dual("bulkhead1", 2);
    host.host.ensure_bridge(&routed).unwrap();
    host.host.ensure_bridge(&other).unwrap();
    let (server, end) = host.container(&routed, 2);
    let (elsewhere, there) = host.container(&other, 2);
    let _serving = [80, 81].map(|port| server.serve_on(ANY6, port));
    let _there = elsewhere.serve(80);
    let ports = [published(&routed, 0, ipv4(&end), 80), published(&routed, 0, ipv6(&end), 80)];
    let addresses = [IpAddr::from(ipv4(&end)), ipv6(&end).into()];
    for address in addresses {
        assert!(outside.namespace.is_dropped(address, 80));
    }
    host.host.publish(&ports).unwrap();
    // once more is no error
    host.host.publish(&ports).unwrap();
    for address in addresses {
        assert!(outside.namespace.fetch(address, 80).is_ok(), "{address}");
        assert!(outside.namespace.is_dropped(address, 81), "{address}");
        assert!(elsewhere.fetch(address, 80).is_ok(), "{address}");
        assert!(elsewhere.is_dropped(address, 81), "{address}");
        let family = if address.is_ipv4() { "-4" } else { "-6" };
        outside.namespace.command("ping", &[family, "-c1", "-w10", &address.to_string()]);
    }
    // not the other way round
    assert!(server.is_dropped(ipv4(&there), 80));
    // and it goes out as itself
    for (to, source) in
        [(IpAddr::from(OUTSIDE), IpAddr::from(ipv4(&end))), (OUTSIDE6.into(), ipv6(&end).into())]
    {
        let serving = outside.namespace.serve_on(to, 82);
        assert_eq!(server.fetch(to, 82).unwrap(), source);
        drop(serving);
    }
    host.host.unpublish(&ports).unwrap();
    for address in addresses {
        assert!(outside.namespace.is_dropped(address, 80));
    }
    // what an engine that crashed left is found
    host.host.publish(&ports).unwrap();
    host.host.reconcile(&[(routed, vec![end]), (other, vec![there])], &[]).unwrap();
    for address in addresses {
        assert!(outside.namespace.is_dropped(address, 80));
    }
}

#[test]
fn an_unprotected_network_is_open_to_all_but_other_networks() {
    if !has_ipv6() || !has("ip") {
        return bulkhead_sys::testing::skip("no IPv6, or no iproute2 to set routes with");
    }
    let host = TestHost::new();
    let outside = host.outside();
    route_from_outside(&outside, 1);
    let open = with_mode(dual("bulkhead0", 1), GatewayMode::NatUnprotected);
    let other = dual("bulkhead1", 2);
    host.host.ensure_bridge(&open).unwrap();
    host.host.ensure_bridge(&other).unwrap();
    let (server, end) = host.container(&open, 2);
    let (elsewhere, _) = host.container(&other, 2);
    let _serving = server.serve_on(ANY6, 80);
    host.host.publish(&[published(&open, 8080, ipv4(&end), 80)]).unwrap();
    assert!(outside.namespace.fetch(HOST_OUTSIDE, 8080).is_ok());
    for address in [IpAddr::from(ipv4(&end)), ipv6(&end).into()] {
        assert!(outside.namespace.fetch(address, 80).is_ok(), "{address}");
        assert!(elsewhere.is_dropped(address, 80), "{address}");
    }
    let _outside = outside.namespace.serve(81);
    assert_eq!(server.fetch(OUTSIDE, 81).unwrap(), HOST_OUTSIDE);
}

#[test]
fn an_isolated_network_does_not_reach_the_host() {
    if !has_ipv6() || !has("ip") {
        return bulkhead_sys::testing::skip("no IPv6, or no iproute2 to look with");
    }
    let host = TestHost::new();
    let plain = Bridge { internal: true, ..dual("bulkhead0", 1) };
    let isolated =
        with_mode(Bridge { internal: true, ..dual("bulkhead1", 2) }, GatewayMode::Isolated);
    let _serving = [host.namespace.serve_on(ANY6, 80)];
    for (network, reached) in [(&plain, true), (&isolated, false)] {
        host.host.ensure_bridge(network).unwrap();
        let (one, _) = host.container(network, 2);
        let (two, end) = host.container(network, 3);
        let _there = two.serve_on(ANY6, 80);
        for address in [IpAddr::from(ipv4(&end)), ipv6(&end).into()] {
            assert!(one.fetch(address, 80).is_ok(), "{address}");
        }
        for address in [IpAddr::from(gateway(network)), gateway6(network).into()] {
            let seen = one.fetch_within(address, 80, patience(reached));
            assert_eq!(seen.is_ok(), reached, "{address}");
        }
        let shown = host.namespace.ip(&format!("address show dev {}", network.name));
        assert_eq!(shown.contains("inet"), reached, "{shown}");
    }
}

/// J9 and its like: whatever a container on an internal network does, nothing of it goes further than the host.
#[test]
fn no_packet_leaves_an_internal_network() {
    if !has_ipv6() || !has("ip") || !has("nft") {
        return bulkhead_sys::testing::skip("no IPv6, iproute2 or nft");
    }
    for internal in [true, false] {
        let host = TestHost::new();
        let outside = host.outside();
        let network = Bridge { internal, ..dual("bulkhead0", 1) };
        let other = dual("bulkhead1", 2);
        host.host.ensure_bridge(&network).unwrap();
        host.host.ensure_bridge(&other).unwrap();
        // counts what comes from the bridge and leaves by any other interface, after all of our rules
        let nft = |line: &str| host.namespace.command("nft", &line.split(' ').collect::<Vec<_>>());
        nft("add table inet watch");
        nft("add chain inet watch leaving { type filter hook postrouting priority 300 ; }");
        nft("add rule inet watch leaving iifname bulkhead0 oifname != bulkhead0 counter");
        let (container, _) = host.container(&network, 2);
        let (elsewhere, there) = host.container(&other, 2);
        let _serving = [outside.namespace.serve_on(ANY6, 80), elsewhere.serve_on(ANY6, 80)];
        host.host.publish(&[tcp(ANY, 8080, ipv4(&there), 80)]).unwrap();
        // what it might set, had it the capability for it
        container.ip(&format!("route replace default via {}", gateway(&network)));
        container.ip(&format!("-6 route replace default via {}", gateway6(&network)));
        container.ip("route add multicast 224.0.0.0/4 dev eth0");
        let tried: Vec<(IpAddr, u16)> = vec![
            (OUTSIDE.into(), 80),
            (OUTSIDE6.into(), 80),
            (ipv4(&there).into(), 80),
            (ipv6(&there).into(), 80),
            // another network's published port
            (HOST_OUTSIDE.into(), 8080),
        ];
        for (address, port) in tried {
            let comes = !internal && [OUTSIDE.into(), OUTSIDE6.into()].contains(&address);
            let seen = container.fetch_within(address, port, patience(comes));
            assert!(!comes || seen.is_ok(), "{address} {seen:?}");
            assert!(!internal || seen.is_err(), "{address} {seen:?}");
        }
        let sending = container.run(|| UdpSocket::bind((ANY, 0)).unwrap());
        sending.set_broadcast(true).unwrap();
        let sending6 = container.run(|| UdpSocket::bind((ANY6, 0)).unwrap());
        for to in ["255.255.255.255", "10.77.1.255", "192.0.2.255", "224.0.0.251", "192.0.2.2"] {
            let _ = sending.send_to(b"x", (to, 53));
        }
        for to in ["ff02::fb%2", "ff05::2%2", "2001:db8::2"] {
            let _ = sending6.send_to(b"x", (to, 53));
        }
        let counted = nft("list chain inet watch leaving");
        assert_eq!(counted.contains("packets 0 "), internal, "{counted}");
    }
}

/// From an interface that the network trusts, what is published is reached by its own address.
#[test]
fn a_trusted_interface_reaches_published_ports_directly() {
    if !has_ipv6() || !has("ip") {
        return bulkhead_sys::testing::skip("no IPv6, or no iproute2 to set routes with");
    }
    for (trusted, reached) in [("eth0", true), ("eth1", false)] {
        let host = TestHost::new();
        let outside = host.outside();
        route_from_outside(&outside, 1);
        let access = Access {
            trusted_interfaces: vec![trusted.to_owned(), trusted.to_owned()],
            ..Access::default()
        };
        let network = Bridge { access, ..dual("bulkhead0", 1) };
        host.host.ensure_bridge(&network).unwrap();
        let (server, end) = host.container(&network, 2);
        let _serving = [80, 81].map(|port| server.serve_on(ANY6, port));
        let ports = [
            published(&network, 8080, ipv4(&end), 80),
            published(&network, 8081, ipv4(&end), 80),
            published(&network, 8080, ipv6(&end), 80),
        ];
        host.host.publish(&ports).unwrap();
        assert!(outside.namespace.fetch(HOST_OUTSIDE, 8080).is_ok());
        assert!(outside.namespace.fetch(HOST_OUTSIDE, 8081).is_ok());
        for address in [IpAddr::from(ipv4(&end)), ipv6(&end).into()] {
            let seen = outside.namespace.fetch_within(address, 80, patience(reached));
            assert_eq!(seen.is_ok(), reached, "{address}");
            assert!(outside.namespace.is_dropped(address, 81), "{address}");
        }
        host.host.unpublish(&ports).unwrap();
        assert!(outside.namespace.is_dropped(ipv4(&end), 80));
        host.host.remove_bridge(&network).unwrap();
        host.host.ensure_bridge(&network).unwrap();
    }
}

/// Docker's `inhibit_ipv4`: the default route leads to a neighbour that has the gateway's address.
#[test]
fn the_gateway_may_be_somebody_on_the_network() {
    if !has("ip") {
        return bulkhead_sys::testing::skip("no iproute2 to look with");
    }
    let host = TestHost::new();
    let mut network = bridge("bulkhead0", 1);
    network.access.ipv4.gateway = GatewayHolder::Other;
    host.host.ensure_bridge(&network).unwrap();
    assert!(!host.namespace.ip("address show dev bulkhead0").contains("inet"));
    let (one, _) = host.container(&network, 2);
    let (router, _) = host.container(&network, 1);
    assert!(one.ip("route show default").contains("via 10.77.1.1 "));
    let _serving = router.serve(80);
    assert_eq!(one.fetch(gateway(&network), 80).unwrap(), Ipv4Addr::new(10, 77, 1, 2));
}

/// Docker's `com.docker.network.host_ipv4` and `host_ipv6`.
#[test]
fn a_network_leaves_as_the_address_that_it_was_given() {
    if !has_ipv6() || !has("ip") {
        return bulkhead_sys::testing::skip("no IPv6, or no iproute2 to add an address with");
    }
    let host = TestHost::new();
    let outside = host.outside();
    let (second, second6) = (Ipv4Addr::new(192, 0, 2, 77), "2001:db8::77".parse().unwrap());
    host.namespace.ip(&format!("address add {second}/24 dev eth0"));
    host.namespace.ip(&format!("address add {second6}/64 dev eth0 nodad"));
    let mut network = dual("bulkhead0", 1);
    network.access.ipv4.leaves_as = Some(second);
    network.access.ipv6.leaves_as = Some(second6);
    let plain = dual("bulkhead1", 2);
    let _serving =
        [outside.namespace.serve_on(OUTSIDE, 80), outside.namespace.serve_on(OUTSIDE6, 80)];
    for (network, seen, seen6) in
        [(&network, second, second6), (&plain, HOST_OUTSIDE, HOST_OUTSIDE6)]
    {
        host.host.ensure_bridge(network).unwrap();
        let (container, _) = host.container(network, 2);
        assert_eq!(container.fetch(OUTSIDE, 80).unwrap(), seen);
        // The kernel chooses among the addresses of the interface; it is one of the host's.
        let saw = container.fetch(OUTSIDE6, 80).unwrap();
        assert!(saw == seen6 || network.name == plain.name && saw == second6, "{saw}");
    }
    host.host.remove_bridge(&network).unwrap();
    host.host.ensure_bridge(&Bridge { access: Access::default(), ..network.clone() }).unwrap();
    let (container, _) = host.container(&network, 3);
    assert_eq!(container.fetch(OUTSIDE, 80).unwrap(), HOST_OUTSIDE);
}

/// Docker's `LinkLocalIPs`: an endpoint may use them, and no other does.
#[test]
fn link_local_addresses_are_the_endpoints_own() {
    let host = TestHost::new();
    let network = bridge("bulkhead0", 1);
    host.host.ensure_bridge(&network).unwrap();
    let own = Ipv4Addr::new(169, 254, 8, 8);
    let with = |number: u8, address: Ipv4Addr| {
        let namespace = support::Namespace::new();
        let end = Endpoint { link_local: vec![address.into()], ..endpoint(&network, number) };
        host.host.plug(namespace.0.as_fd(), &network, &end).unwrap();
        (namespace, end)
    };
    let (one, end) = with(2, own);
    let (two, _) = with(3, Ipv4Addr::new(169, 254, 9, 9));
    let _serving = one.serve(80);
    assert_eq!(two.fetch(own, 80).unwrap(), Ipv4Addr::new(169, 254, 9, 9));
    // one that takes it without having got it
    if has("ip") {
        let (thief, _) = host.container(&network, 4);
        thief.ip("address add 169.254.7.7/16 dev eth0");
        let heard = one.run(|| UdpSocket::bind((own, 5000)).unwrap());
        heard.set_read_timeout(Some(SILENCE)).unwrap();
        let sending = thief.run(|| UdpSocket::bind(("169.254.7.7", 0)).unwrap());
        let _ = sending.send_to(b"x", (own, 5000));
        assert!(heard.recv_from(&mut [0; 8]).is_err());
        let asking = two.run(|| UdpSocket::bind(("169.254.9.9", 0)).unwrap());
        heard.set_read_timeout(Some(ANSWER)).unwrap();
        asking.send_to(b"x", (own, 5000)).unwrap();
        heard.recv_from(&mut [0; 8]).unwrap();
    }
    // what was pinned goes with the link
    host.host.unplug(&end.host_link).unwrap();
    if has("nft") {
        let rules = host.namespace.command("nft", &["list", "ruleset"]);
        assert!(!rules.contains("169.254.8.8") && rules.contains("169.254.9.9"), "{rules}");
    }
}

#[test]
fn an_interface_has_its_settings() {
    let host = TestHost::new();
    let network = bridge("bulkhead0", 1);
    host.host.ensure_bridge(&network).unwrap();
    let plug = |number: u8, sysctl: &str| {
        let namespace = support::Namespace::new();
        let sysctls = vec![sysctl.parse().unwrap()];
        let end = Endpoint { sysctls, ..endpoint(&network, number) };
        let plugged = host.host.plug(namespace.0.as_fd(), &network, &end);
        (namespace, end, plugged)
    };
    let (inside, _, plugged) = plug(2, "net.ipv4.conf.IFNAME.log_martians=1");
    plugged.unwrap();
    assert_eq!(inside.read("/proc/sys/net/ipv4/conf/eth0/log_martians"), "1");
    assert_eq!(inside.read("/proc/sys/net/ipv4/conf/lo/log_martians"), "0");
    assert!(host.namespace.fetch_within(gateway(&network), 1, ANSWER).is_err());
    let _serving = inside.serve(80);
    assert!(host.namespace.fetch(Ipv4Addr::new(10, 77, 1, 2), 80).is_ok());
    let (_, end, plugged) = plug(3, "net.ipv4.conf.IFNAME.nothing=1");
    assert!(matches!(plugged, Err(NetworkError::NoSuchSetting { .. })), "{plugged:?}");
    assert!(!host.host.has_link(&end.host_link).unwrap());
    let (_, _, plugged) = plug(4, "net.ipv4.neigh.IFNAME.gc_stale_time=soon");
    let error = plugged.unwrap_err().to_string();
    assert!(error.contains("net.ipv4.neigh.IFNAME.gc_stale_time=soon"), "{error}");
}

/// `--publish-policy`: nobody but the host and its containers, or those of some addresses besides.
#[test]
fn published_ports_are_reached_by_whom_the_policy_lets_in() {
    if !has_ipv6() {
        return bulkhead_sys::testing::skip("no IPv6");
    }
    for (policy, by_ipv4, by_ipv6) in [
        ("everywhere", true, true),
        ("host", false, false),
        ("192.0.2.0/24", true, false),
        ("192.0.2.3,2001:db8::/64", false, true),
        ("0.0.0.0/0,::/0", true, true),
    ] {
        let host = TestHost::new();
        let outside = host.outside();
        let mut network = dual("bulkhead0", 1);
        network.publish_policy = policy.parse().unwrap();
        let mut other = dual("bulkhead1", 2);
        other.publish_policy = policy.parse().unwrap();
        host.host.ensure_bridge(&network).unwrap();
        host.host.ensure_bridge(&other).unwrap();
        let (server, end) = host.container(&network, 2);
        let (elsewhere, _) = host.container(&other, 2);
        let (neighbour, _) = host.container(&network, 3);
        let _serving = server.serve_on(ANY6, 80);
        host.host.publish(&[tcp(ANY, 80, ipv4(&end), 80), tcp(ANY6, 80, ipv6(&end), 80)]).unwrap();
        let reaches = |from: &support::Namespace, by_ipv4: bool, by_ipv6: bool| {
            for (address, reached) in
                [(IpAddr::from(HOST_OUTSIDE), by_ipv4), (HOST_OUTSIDE6.into(), by_ipv6)]
            {
                let seen = from.fetch_within(address, 80, patience(reached));
                assert_eq!(seen.is_ok(), reached, "{policy}: {address}");
            }
        };
        reaches(&outside.namespace, by_ipv4, by_ipv6);
        for inside in [&host.namespace, &elsewhere, &neighbour, &server] {
            reaches(inside, true, true);
        }
        // the way out is as ever
        let _outside = outside.namespace.serve(81);
        assert_eq!(server.fetch(OUTSIDE, 81).unwrap(), HOST_OUTSIDE, "{policy}");
        // what the administrator accepts is let in by each
        if has("nft") {
            let rule =
                "add rule inet bulkhead user meta l4proto tcp ct original proto-dst 80 accept";
            host.namespace.command("nft", &rule.split(' ').collect::<Vec<_>>());
            reaches(&outside.namespace, true, true);
        }
        // of a bridge that was removed nothing is left
        host.host.remove_bridge(&network).unwrap();
        host.host.remove_bridge(&other).unwrap();
        if has("nft") {
            let rules = host.namespace.command("nft", &["list", "ruleset"]);
            assert!(!rules.contains("elements = {"), "{rules}");
        }
    }
}
