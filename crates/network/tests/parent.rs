//! Links on an interface of the host: macvlan, ipvlan, VLANs and dummies.
#![allow(clippy::unwrap_used)] // a helper that fails is a test that fails

mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use bulkhead_network::{
    Assigned, DefaultRoute, IpvlanFlag, IpvlanMode, MacvlanMode, NetworkError, Parent,
    ParentDriver, ParentEndpoint,
};
use support::{Namespace, OUTSIDE, OUTSIDE6, SILENCE, TestHost, has_ipv6};

/// On the network of `TestHost::outside`.
fn endpoint(driver: ParentDriver, number: u8) -> ParentEndpoint {
    let ipv6 = Ipv6Addr::from_bits(OUTSIDE6.to_bits() & !0xff | u128::from(number));
    let mac = [0x02, 0x42, 192, 0, 2, number];
    ParentEndpoint {
        driver,
        interface: "eth0".to_owned(),
        mac: matches!(driver, ParentDriver::Macvlan(_)).then_some(mac),
        ipv4: Some(Assigned {
            address: Ipv4Addr::new(192, 0, 2, number),
            prefix: 24,
            gateway: Some(OUTSIDE),
        }),
        ipv6: has_ipv6().then_some(Assigned { address: ipv6, prefix: 64, gateway: Some(OUTSIDE6) }),
        default_route: DefaultRoute::Both,
        link_local: vec![],
        sysctls: vec![],
    }
}

fn plug(
    host: &TestHost,
    parent: &Parent,
    endpoint: &ParentEndpoint,
) -> Result<Namespace, NetworkError> {
    let container = Namespace::new();
    host.host.plug_parent(container.0.as_fd(), parent, endpoint)?;
    Ok(container)
}

fn addresses(endpoint: &ParentEndpoint) -> Vec<IpAddr> {
    let ipv4 = endpoint.ipv4.iter().map(|it| it.address.into());
    ipv4.chain(endpoint.ipv6.iter().map(|it| it.address.into())).collect()
}

#[test]
fn macvlans_are_hosts_of_their_own_outside() {
    let parent = Parent::of_option("eth0");
    for (mode, each_other) in [(MacvlanMode::Bridge, true), (MacvlanMode::Private, false)] {
        let host = TestHost::new();
        let outside = host.outside();
        let _serving: Vec<_> =
            addresses_of_outside().map(|it| outside.namespace.serve_on(it, 80)).collect();
        assert!(!host.host.ensure_parent(&parent).unwrap(), "it is the host's");
        let ends = [50, 51].map(|number| endpoint(ParentDriver::Macvlan(mode), number));
        let first = match plug(&host, &parent, &ends[0]) {
            Err(NetworkError::NoSuchKind(_)) => {
                return bulkhead_sys::testing::skip("no macvlan");
            }
            other => other.unwrap(),
        };
        let second = plug(&host, &parent, &ends[1]).unwrap();
        let (own, others) = (addresses(&ends[0]), addresses(&ends[1]));
        for ((to, own), other) in addresses_of_outside().zip(&own).zip(&others) {
            assert_eq!(first.fetch(to, 80).unwrap(), *own);
            let _serving = second.serve_on(*other, 81);
            assert_eq!(first.fetch_within(*other, 81, SILENCE).is_ok(), each_other, "{mode:?}");
            // the host itself is not reached by its own interface
            assert!(first.fetch_within(support::HOST_OUTSIDE, 81, SILENCE).is_err());
        }

        // a second one beside, as of `docker network connect`, and its end
        let beside = ParentEndpoint {
            interface: "eth1".to_owned(),
            default_route: DefaultRoute::None,
            ..endpoint(ParentDriver::Macvlan(mode), 52)
        };
        host.host.plug_parent(first.0.as_fd(), &parent, &beside).unwrap();
        let taken = host.host.plug_parent(first.0.as_fd(), &parent, &beside).unwrap_err();
        assert!(matches!(&taken, NetworkError::LinkTaken(name) if name == "eth1"), "{taken}");
        for _ in 0..2 {
            host.host.unplug_parent(first.0.as_fd(), "eth1").unwrap();
        }
        assert_eq!(first.fetch(OUTSIDE, 80).unwrap(), own[0]);
        host.host.remove_parent(&parent).unwrap();
        assert_eq!(first.fetch(OUTSIDE, 80).unwrap(), own[0], "the host's interface stays");
    }
    let error = TestHost::new().host.ensure_parent(&parent).unwrap_err().to_string();
    assert_eq!(error, "interface eth0 does not exist");
}

fn addresses_of_outside() -> impl Iterator<Item = IpAddr> {
    let ipv6 = has_ipv6().then_some(OUTSIDE6.into());
    std::iter::once(OUTSIDE.into()).chain(ipv6)
}

#[test]
fn ipvlans_share_a_hardware_address() {
    for mode in [IpvlanMode::L2, IpvlanMode::L3, IpvlanMode::L3s] {
        let host = TestHost::new();
        let outside = host.outside();
        let _serving: Vec<_> =
            addresses_of_outside().map(|it| outside.namespace.serve_on(it, 80)).collect();
        let parent = Parent::of_option("eth0");
        let driver = ParentDriver::Ipvlan(mode, IpvlanFlag::Bridge);
        let ends = [50, 51].map(|number| endpoint(driver, number));
        let first = match plug(&host, &parent, &ends[0]) {
            Err(NetworkError::NoSuchKind(_)) => return bulkhead_sys::testing::skip("no ipvlan"),
            other => other.unwrap(),
        };
        let second = plug(&host, &parent, &ends[1]).unwrap();
        for (own, other) in addresses(&ends[0]).into_iter().zip(addresses(&ends[1])) {
            let _serving = second.serve_on(other, 81);
            assert_eq!(first.fetch(other, 81).unwrap(), own, "{mode:?}");
        }
        let to_outside = first.fetch(OUTSIDE, 80).unwrap();
        assert_eq!(to_outside, addresses(&ends[0])[0], "{mode:?}");
        // a parent has links of one kind
        let other = endpoint(ParentDriver::Macvlan(MacvlanMode::Bridge), 53);
        let error = plug(&host, &parent, &other).unwrap_err();
        assert!(matches!(error, NetworkError::ParentInUse(_)), "{error}");
    }
}

#[test]
fn a_network_has_a_parent_of_its_own() {
    let host = TestHost::new();
    let _outside = host.outside();
    for parent in [Parent::of_option("eth0.50"), Parent::Dummy("dm-0123456789ab".to_owned())] {
        match host.host.ensure_parent(&parent) {
            Err(NetworkError::NoSuchKind(kind)) => {
                bulkhead_sys::testing::skip(&format!("no links of kind {kind}"));
                continue;
            }
            made => assert!(made.unwrap()),
        }
        assert!(!host.host.ensure_parent(&parent).unwrap());
        let driver = ParentDriver::Macvlan(MacvlanMode::Bridge);
        let ends = [50, 51].map(|number| endpoint(driver, number));
        let first = plug(&host, &parent, &ends[0]).unwrap();
        let second = plug(&host, &parent, &ends[1]).unwrap();
        let other = addresses(&ends[1])[0];
        let _serving = second.serve_on(other, 80);
        assert_eq!(first.fetch(other, 80).unwrap(), addresses(&ends[0])[0]);
        assert!(first.fetch_within(OUTSIDE, 80, SILENCE).is_err());
        for _ in 0..2 {
            host.host.remove_parent(&parent).unwrap();
        }
        assert!(host.host.ensure_parent(&Parent::Link(parent.name())).is_err());
    }
}
