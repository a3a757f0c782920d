//! Links that move into another network namespace.

#![allow(clippy::unwrap_used)] // a helper that fails is a test that fails

mod support;

use std::os::fd::AsFd;

use bulkhead_network::{NetworkError, move_link};
use support::Namespace;

fn setup(host: &Namespace, lines: &[&str]) {
    for line in lines {
        host.command("ip", &line.split(' ').collect::<Vec<_>>());
    }
}

fn shown(namespace: &Namespace, link: &str) -> String {
    let text = namespace.command("ip", &["-o", "address", "show", "dev", link]);
    let mut addresses: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3))
        .filter(|address| !address.starts_with("fe80:"))
        .collect();
    addresses.sort_unstable();
    addresses.join(" ")
}

#[test]
fn a_link_keeps_its_permanent_global_addresses_and_comes_up() {
    let (host, container) = (Namespace::new(), Namespace::new());
    setup(
        &host,
        &[
            "link add one type veth peer name other",
            "link set one mtu 1400 up",
            "link set other up",
            "address add 192.0.2.1/24 broadcast 192.0.2.255 dev one",
            "address add 192.0.2.2/24 dev one",
            "address add 198.51.100.7/32 dev one scope link",
            "address add 2001:db8::1/64 nodad dev one",
            "address add 203.0.113.1/24 dev one valid_lft 1000 preferred_lft 1000",
        ],
    );
    let before = "192.0.2.1/24 192.0.2.2/24 198.51.100.7/32 2001:db8::1/64 203.0.113.1/24";
    assert_eq!(shown(&host, "one"), before);
    host.run(|| move_link("one", container.0.as_fd(), "eth0")).unwrap();
    assert_eq!(shown(&container, "eth0"), "192.0.2.1/24 192.0.2.2/24 2001:db8::1/64");
    let link = container.command("ip", &["-o", "link", "show", "eth0"]);
    assert!(link.contains("mtu 1400") && link.contains(",UP"), "{link}");
    let left = host.command("ip", &["-o", "link", "show"]);
    assert!(!left.contains(" one@") && left.contains(" other@"), "{left}");
}

#[test]
fn a_name_that_is_taken_is_refused_and_a_template_finds_another() {
    let (host, container) = (Namespace::new(), Namespace::new());
    setup(
        &host,
        &[
            "link add eth0 type veth peer name other",
            "link set eth0 up",
            "address add 192.0.2.1/24 dev eth0",
        ],
    );
    setup(&container, &["link add eth0 type veth peer name eth1"]);
    let refused = host.run(|| move_link("eth0", container.0.as_fd(), "eth0")).unwrap_err();
    assert!(matches!(&refused, NetworkError::LinkTaken(name) if name == "eth0"), "{refused}");
    let kept = host.command("ip", &["-o", "link", "show", "eth0"]);
    assert!(kept.contains(",UP") && shown(&host, "eth0") == "192.0.2.1/24", "{kept}");
    // the same name is no obstacle where another is asked for
    host.run(|| move_link("eth0", container.0.as_fd(), "eth%d")).unwrap();
    let addresses = container.command("ip", &["-o", "-4", "address", "show"]);
    let line = addresses.lines().find(|line| line.contains("192.0.2.1/24")).expect(&addresses);
    let name = line.split_whitespace().nth(1).unwrap();
    let number: u32 = name.strip_prefix("eth").unwrap().parse().unwrap();
    assert!(number >= 2, "{name}");
}

#[test]
fn what_cannot_be_moved_says_so() {
    let (host, container) = (Namespace::new(), Namespace::new());
    setup(&host, &["link set lo up"]);
    let error = |name: &str, new: &str| {
        host.run(|| move_link(name, container.0.as_fd(), new)).unwrap_err().to_string()
    };
    assert_eq!(error("none", "none"), "interface none does not exist");
    assert!(error("lo", "lo1").starts_with("move lo: "), "{}", error("lo", "lo1"));
    let lo = host.command("ip", &["-o", "link", "show", "lo"]);
    assert!(lo.contains(",UP"), "it is as it was: {lo}");
    for bad in ["", "a/b", "a b", "x%", "%d%d", "0123456789abcdef"] {
        assert!(error("lo", bad).starts_with("invalid interface name"), "{bad}");
    }
}
