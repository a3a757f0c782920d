//! Bridges and veth pairs in network namespaces that the test makes.

#![allow(clippy::unwrap_used)] // a helper that fails is a test that fails

mod support;

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use bulkhead_network::{Bridge, DefaultRoute, Endpoint, Gateway, NetworkError};
use support::{Namespace, TestHost, bridge, dual, endpoint, gateway, has_ipv6, ipv4};

#[test]
fn containers_reach_the_host_and_each_other() {
    let host = TestHost::new();
    let network = bridge("bulkhead0", 1);
    host.host.ensure_bridge(&network).unwrap();
    let (first, first_end) = host.container(&network, 2);
    let (second, second_end) = host.container(&network, 3);

    let _on_host = host.namespace.serve(80);
    let _on_second = second.serve(80);
    assert_eq!(first.fetch(gateway(&network), 80).unwrap(), ipv4(&first_end));
    assert_eq!(first.fetch(ipv4(&second_end), 80).unwrap(), ipv4(&first_end));
    assert_eq!(second.fetch(Ipv4Addr::LOCALHOST, 80).unwrap(), Ipv4Addr::LOCALHOST);
    assert_eq!(host.namespace.fetch(ipv4(&second_end), 80).unwrap(), gateway(&network));
}

#[test]
fn doing_it_twice_changes_nothing() {
    let host = TestHost::new();
    let network = bridge("bulkhead0", 1);
    host.host.ensure_bridge(&network).unwrap();
    host.host.ensure_bridge(&network).unwrap();
    let (container, end) = host.container(&network, 2);
    host.host.ensure_bridge(&network).unwrap();
    let _server = host.namespace.serve(80);
    assert_eq!(container.fetch(gateway(&network), 80).unwrap(), ipv4(&end));

    host.host.unplug(&end.host_link).unwrap();
    host.host.unplug(&end.host_link).unwrap();
    host.host.remove_bridge(&network).unwrap();
    host.host.remove_bridge(&network).unwrap();
    assert_eq!(links(&host.namespace), ["lo"]);
    assert_eq!(links(&container), ["lo"]);
}

/// What the kernel takes its time for is left for later, and is in nobody's way meanwhile.
#[test]
fn a_retired_bridge_leaves_its_name_and_addresses_to_the_next() {
    let host = TestHost::new();
    let made = if has_ipv6() { dual } else { bridge };
    let network = made("bulkhead0", 1);
    host.host.ensure_bridge(&network).unwrap();
    let _old = host.container(&network, 2);
    let _on_host = host.namespace.serve(80);
    let retired = host.host.retire_bridge(&network).unwrap().unwrap();
    assert_eq!(host.host.retire_bridge(&network).unwrap(), None);
    assert!(links(&host.namespace).contains(&retired));
    assert!(!host.host.has_link("bulkhead0").unwrap());
    let used = host.host.used_subnets().unwrap();
    assert!(!used.overlaps(gateway(&network).into(), 24), "{used:?}");

    host.host.ensure_bridge(&network).unwrap();
    let (new, end) = host.container(&network, 3);
    assert_eq!(new.fetch(gateway(&network), 80).unwrap(), ipv4(&end));

    // An engine that dies here leaves it, with what is on it still.
    host.host.reconcile(&[(network.clone(), vec![end.clone()])], &[]).unwrap();
    assert_eq!(links(&host.namespace), [end.host_link.as_str(), "bulkhead0", "lo"]);
    assert_eq!(new.fetch(gateway(&network), 80).unwrap(), ipv4(&end));
}

/// `docker network connect` and `disconnect` of a container that runs.
#[test]
fn the_default_route_follows_the_networks_of_a_running_container() {
    let host = TestHost::new();
    let with_ipv6 = has_ipv6();
    let made = if with_ipv6 { dual } else { bridge };
    let networks = [made("bulkhead0", 1), made("bulkhead1", 2), made("bulkhead2", 3)];
    let default_routes = |namespace: &Namespace| {
        let ipv4 = default_routes(namespace);
        if with_ipv6 {
            let links: Vec<_> = ipv4.iter().map(|(link, _)| link.clone()).collect();
            assert_eq!(default_links6(namespace), links);
        }
        ipv4
    };
    for network in &networks {
        host.host.ensure_bridge(network).unwrap();
    }
    let (container, first) = host.container(&networks[0], 2);
    let connect = |number: usize, default_route| {
        let interface = format!("eth{number}");
        let end = Endpoint { interface, default_route, ..endpoint(&networks[number], 2) };
        host.host.plug(container.0.as_fd(), &networks[number], &end).unwrap();
        end
    };
    let second = connect(1, DefaultRoute::None);
    assert_eq!(default_routes(&container), [("eth0".to_owned(), gateway(&networks[0]))]);
    assert_eq!(links(&container), ["eth0", "eth1", "lo"]);
    // one of higher priority takes the route
    let third = connect(2, DefaultRoute::Both);
    assert_eq!(default_routes(&container), [("eth2".to_owned(), gateway(&networks[2]))]);
    // each endpoint is pinned to its own addresses, and works
    let _server = host.namespace.serve(80);
    for (network, end) in networks.iter().zip([&first, &second, &third]) {
        assert_eq!(container.fetch(gateway(network), 80).unwrap(), ipv4(end));
    }

    // the route goes with its network, and another takes over
    host.host.unplug(&third.host_link).unwrap();
    assert_eq!(default_routes(&container), []);
    let set = |interface: &str, network: &Bridge| {
        let to = Some(gateway(network));
        let to6 = network.ipv6.map(|own| own.address);
        host.host.set_default_route(container.0.as_fd(), interface, to, to6)
    };
    set("eth1", &networks[1]).unwrap();
    assert_eq!(default_routes(&container), [("eth1".to_owned(), gateway(&networks[1]))]);
    set("eth0", &networks[0]).unwrap();
    assert_eq!(default_routes(&container), [("eth0".to_owned(), gateway(&networks[0]))]);
    let error = set("eth2", &networks[2]).unwrap_err().to_string();
    assert!(error.starts_with("set the default route through eth2 "), "{error}");

    // a name that the container has already
    let clash = Endpoint { interface: "eth0".to_owned(), ..endpoint(&networks[2], 4) };
    let error = host.host.plug(container.0.as_fd(), &networks[2], &clash).unwrap_err();
    assert!(matches!(&error, NetworkError::LinkTaken(name) if name == "eth0"), "{error}");
    assert_eq!(links(&container), ["eth0", "eth1", "lo"]);
}

/// Interface of each IPv6 default route.
fn default_links6(namespace: &Namespace) -> Vec<String> {
    let routes = namespace.read("/proc/thread-self/net/ipv6_route");
    let fields = routes.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // destination, its length, …, gateway, …, interface; on `lo` are those that reject
    let leads = |fields: &Vec<&str>| fields[1] == "00" && fields[9] != "lo";
    fields.filter(leads).map(|fields| fields[9].to_owned()).collect()
}

/// Interface and gateway of each IPv4 default route.
fn default_routes(namespace: &Namespace) -> Vec<(String, Ipv4Addr)> {
    let routes = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/route").unwrap());
    let fields = routes.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let defaults = fields.filter(|fields| fields[1] == "00000000" && fields[7] == "00000000");
    let route = |fields: Vec<&str>| {
        let gateway = u32::from_str_radix(fields[2], 16).unwrap();
        (fields[0].to_owned(), Ipv4Addr::from(gateway.to_ne_bytes()))
    };
    defaults.map(route).collect()
}

#[test]
fn a_failed_plug_leaves_nothing() {
    let host = TestHost::new();
    let network = bridge("bulkhead0", 1);
    let container = Namespace::new();
    let end = endpoint(&network, 2);
    let error = host.host.plug(container.0.as_fd(), &network, &end).unwrap_err();
    assert_eq!(error.to_string(), "interface bulkhead0 does not exist");

    host.host.ensure_bridge(&network).unwrap();
    let mut clash = end.clone();
    clash.interface = "lo".to_owned();
    host.host.plug(container.0.as_fd(), &network, &clash).unwrap_err();
    assert_eq!(links(&container), ["lo"]);
    assert_eq!(links(&host.namespace), ["bulkhead0", "lo"]);

    host.host.plug(container.0.as_fd(), &network, &end).unwrap();
    let error = host.host.plug(Namespace::new().0.as_fd(), &network, &end).unwrap_err();
    assert_eq!(error.to_string(), "interface bh1.2 exists already; unplug it first");
    assert_eq!(links(&container), ["eth0", "lo"]);

    let only_ipv4 = Endpoint { ipv6: Some("fd00::2".parse().unwrap()), ..endpoint(&network, 4) };
    let error = host.host.plug(container.0.as_fd(), &network, &only_ipv4).unwrap_err();
    assert!(matches!(error, NetworkError::EndpointFamilies(_)), "{error}");

    let mut unnamed = end;
    unnamed.host_link = "a-name-of-16-byte".to_owned();
    let error = host.host.plug(container.0.as_fd(), &network, &unnamed).unwrap_err();
    assert!(matches!(error, NetworkError::InvalidLinkName(_)), "{error}");
}

#[test]
fn reconcile_removes_what_a_crash_left() {
    let host = TestHost::new();
    let (kept, other) = (bridge("bulkhead0", 1), bridge("bulkhead1", 2));
    host.host.ensure_bridge(&kept).unwrap();
    host.host.ensure_bridge(&other).unwrap();
    let (_first, first_end) = host.container(&kept, 2);
    let (_second, _) = host.container(&kept, 3);
    let (third, third_end) = host.container(&other, 2);

    let again = host.namespace.run(|| bulkhead_network::Host::open().unwrap());
    for _ in 0..2 {
        again.reconcile(&[(kept.clone(), vec![first_end.clone()])], &[]).unwrap();
        assert_eq!(links(&host.namespace), ["bh1.2", "bh2.2", "bulkhead0", "bulkhead1", "lo"]);
    }
    // the other bridge may be another engine's: its container still works
    let _server = host.namespace.serve(80);
    assert_eq!(third.fetch(gateway(&other), 80).unwrap(), ipv4(&third_end));
}

#[test]
fn the_host_is_surveyed_without_our_bridges() {
    let host = TestHost::new();
    assert_eq!(host.host.addresses().unwrap(), [Ipv4Addr::UNSPECIFIED; 0]);
    assert_eq!(host.host.default_mtu().unwrap(), 1500);
    assert!(!host.host.overlaps(Ipv4Addr::new(10, 77, 0, 0).into(), 16).unwrap());

    let mut network = bridge("bulkhead0", 1);
    network.mtu = 1400;
    host.host.ensure_bridge(&network).unwrap();
    let (container, end) = host.container(&network, 2);
    assert_eq!(host.host.addresses().unwrap(), [Ipv4Addr::UNSPECIFIED; 0]);
    assert!(host.host.overlaps(Ipv4Addr::new(10, 77, 0, 0).into(), 16).unwrap());
    assert!(host.host.overlaps(Ipv4Addr::new(10, 77, 1, 128).into(), 25).unwrap());
    assert!(!host.host.overlaps(Ipv4Addr::new(10, 78, 0, 0).into(), 16).unwrap());
    assert!(!host.host.overlaps("fd00::".parse().unwrap(), 8).unwrap());
    // an address on a link that is down has no route
    if std::path::Path::new("/usr/sbin/ip").exists() {
        for line in [
            "link add idle type veth peer name other",
            "address add 10.78.0.1/24 dev idle",
            "address add fd00:0:0:1::1/64 dev idle nodad",
        ] {
            host.namespace.command("ip", &line.split(' ').collect::<Vec<_>>());
        }
        let used = host.host.used_subnets().unwrap();
        assert!(used.overlaps(Ipv4Addr::new(10, 78, 0, 0).into(), 16));
        assert!(used.overlaps("fd00:0:0:1::".parse().unwrap(), 64));
        assert!(!used.overlaps("fd00:0:0:2::".parse().unwrap(), 64));
        host.namespace.command("ip", &["link", "delete", "idle"]);
    }

    // a container's network namespace is a host like any other
    let inner = container.run(|| bulkhead_network::Host::open().unwrap());
    assert_eq!(inner.addresses().unwrap(), [ipv4(&end)]);
    assert_eq!(inner.default_mtu().unwrap(), 1400);
}

/// Names of the namespace's links, sorted.
fn links(namespace: &Namespace) -> Vec<String> {
    let listed = namespace.run(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap());
    let mut names: Vec<_> = listed
        .lines()
        .skip(2)
        .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
        .collect();
    names.sort();
    names
}

/// J15: the kernel's `BR_MAX_PORTS` is 1,024, and it numbers them from 1 (net/bridge/br_private.h).
#[test]
fn a_full_bridge_says_so_and_the_last_one_is_reached() {
    let host = TestHost::new();
    let wide = Gateway { address: [10, 77, 0, 1].into(), prefix: 16 };
    let network = Bridge { ipv4: Some(wide), ..bridge("bulkhead0", 0) };
    host.host.ensure_bridge(&network).unwrap();
    let container = Namespace::new();
    let end = |number: u16| {
        let [high, low] = (number + 1).to_be_bytes();
        Endpoint {
            host_link: format!("bh{number}"),
            interface: format!("eth{number}"),
            mac: [0x02, 0x42, 10, 77, high, low],
            ipv4: Some([10, 77, high, low].into()),
            default_route: DefaultRoute::None,
            ..endpoint(&network, 2)
        }
    };
    for number in 1..1023 {
        host.host.plug(container.0.as_fd(), &network, &end(number)).unwrap();
    }
    let last = Namespace::new();
    host.host.plug(last.0.as_fd(), &network, &end(1023)).unwrap();
    let _serving = last.serve(80);
    assert!(host.namespace.fetch(ipv4(&end(1023)), 80).is_ok());
    let more = host.host.plug(last.0.as_fd(), &network, &end(1024));
    let error = more.unwrap_err().to_string();
    assert!(error.contains("bridge bulkhead0 is full: the kernel allows 1023"), "{error}");
    assert!(!host.host.has_link("bh1024").unwrap());
}
