//! Bridges and veth pairs in network namespaces that the test makes.

#![allow(clippy::unwrap_used)] // a helper that fails is a test that fails

mod support;

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use bulkhead_network::NetworkError;
use support::{Namespace, TestHost, bridge, endpoint};

#[test]
fn containers_reach_the_host_and_each_other() {
    let host = TestHost::new();
    let network = bridge("bulkhead0", 1);
    host.host.ensure_bridge(&network).unwrap();
    let (first, first_end) = host.container(&network, 2);
    let (second, second_end) = host.container(&network, 3);

    let _on_host = host.namespace.serve(80);
    let _on_second = second.serve(80);
    assert_eq!(first.fetch(network.gateway, 80).unwrap(), first_end.address);
    assert_eq!(first.fetch(second_end.address, 80).unwrap(), first_end.address);
    assert_eq!(second.fetch(Ipv4Addr::LOCALHOST, 80).unwrap(), Ipv4Addr::LOCALHOST);
    assert_eq!(host.namespace.fetch(second_end.address, 80).unwrap(), network.gateway);
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
    assert_eq!(container.fetch(network.gateway, 80).unwrap(), end.address);

    host.host.unplug(&end.host_link).unwrap();
    host.host.unplug(&end.host_link).unwrap();
    host.host.remove_bridge(&network).unwrap();
    host.host.remove_bridge(&network).unwrap();
    assert_eq!(links(&host.namespace), ["lo"]);
    assert_eq!(links(&container), ["lo"]);
}

#[test]
fn a_second_network_keeps_the_first_default_route() {
    let host = TestHost::new();
    let (one, two) = (bridge("bulkhead0", 1), bridge("bulkhead1", 2));
    host.host.ensure_bridge(&one).unwrap();
    host.host.ensure_bridge(&two).unwrap();
    let (container, _) = host.container(&one, 2);
    let mut second = endpoint(&two, 2);
    second.interface = "eth1".to_owned();
    host.host.plug(container.0.as_fd(), &two, &second).unwrap();
    let routes = container.run(|| std::fs::read_to_string("/proc/thread-self/net/route").unwrap());
    let defaults = routes.lines().filter(|line| line.split('\t').nth(1) == Some("00000000"));
    assert_eq!(defaults.count(), 1, "{routes}");
    assert_eq!(links(&container), ["eth0", "eth1", "lo"]);
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
    assert_eq!(third.fetch(other.gateway, 80).unwrap(), third_end.address);
}

#[test]
fn the_host_is_surveyed_without_our_bridges() {
    let host = TestHost::new();
    assert_eq!(host.host.addresses().unwrap(), [Ipv4Addr::UNSPECIFIED; 0]);
    assert_eq!(host.host.default_mtu().unwrap(), 1500);
    assert!(!host.host.overlaps(Ipv4Addr::new(10, 77, 0, 0), 16).unwrap());

    let mut network = bridge("bulkhead0", 1);
    network.mtu = 1400;
    host.host.ensure_bridge(&network).unwrap();
    let (container, end) = host.container(&network, 2);
    assert_eq!(host.host.addresses().unwrap(), [Ipv4Addr::UNSPECIFIED; 0]);
    assert!(host.host.overlaps(Ipv4Addr::new(10, 77, 0, 0), 16).unwrap());
    assert!(host.host.overlaps(Ipv4Addr::new(10, 77, 1, 128), 25).unwrap());
    assert!(!host.host.overlaps(Ipv4Addr::new(10, 78, 0, 0), 16).unwrap());

    // a container's network namespace is a host like any other
    let inner = container.run(|| bulkhead_network::Host::open().unwrap());
    assert_eq!(inner.addresses().unwrap(), [end.address]);
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
