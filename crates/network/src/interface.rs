//! The container's side of an endpoint: its interface, addresses and default routes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;

use netlink_packet_route::RouteNetlinkMessage;

use crate::rtnetlink::Rtnetlink;
use crate::{Bridge, Endpoint, NetworkError, link, netns, settings};

/// Sets up the container's end, in one datagram once the interface's index is known.
pub(crate) fn configure(
    netns: BorrowedFd<'_>,
    bridge: &Bridge,
    endpoint: &Endpoint,
) -> Result<(), NetworkError> {
    let set_up = || {
        let mut route = netns::inside(netns, || {
            if endpoint.ipv6.is_some() {
                settings::enable_ipv6(&endpoint.interface)?;
            }
            Rtnetlink::open()
        })?;
        let index = index_of(&mut route, &endpoint.interface)?;
        let mut changes = vec![
            link::up(link::indexed(link::LOOPBACK)),
            link::no_link_local(link::indexed(index)),
            link::up(link::indexed(index)),
        ];
        if let (Some(address), Some(own)) = (endpoint.ipv4, bridge.ipv4) {
            changes.push(link::new_address(index, address.into(), own.prefix));
            if endpoint.default_route.ipv4() && !bridge.internal {
                changes.push(link::default_route(index, own.address.into()));
            }
        }
        if let (Some(address), Some(own)) = (endpoint.ipv6, bridge.ipv6) {
            let link_local = link::link_local(endpoint.mac);
            changes.extend([
                link::new_address(index, link_local.into(), 64),
                link::new_address(index, address.into(), own.prefix),
            ]);
            if endpoint.default_route.ipv6() && !bridge.internal {
                changes.push(link::default_route(index, own.address.into()));
            }
        }
        for (step, answer) in route.change(changes)?.into_iter().enumerate() {
            match answer {
                Err(error) if step == 1 && link::is_absent_ipv6(&error) => {}
                other => other?,
            }
        }
        Ok(())
    };
    set_up().map_err(NetworkError::kernel(format!(
        "configure {} with {} in the container's network namespace",
        endpoint.interface,
        addresses(endpoint)
    )))
}

pub(crate) fn set_default_route(
    netns: BorrowedFd<'_>,
    interface: &str,
    ipv4: Option<Ipv4Addr>,
    ipv6: Option<Ipv6Addr>,
) -> Result<(), NetworkError> {
    link::check_name(interface)?;
    let gateways = ipv4.map(IpAddr::from).into_iter().chain(ipv6.map(IpAddr::from));
    let set = || {
        let mut route = netns::inside(netns, Rtnetlink::open)?;
        let index = index_of(&mut route, interface)?;
        route.change_all(gateways.map(|gateway| link::default_route(index, gateway)).collect())
    };
    set().map_err(NetworkError::kernel(format!(
        "set the default route through {interface} in the container's network namespace"
    )))
}

fn index_of(route: &mut Rtnetlink, interface: &str) -> io::Result<u32> {
    match route.one(RouteNetlinkMessage::GetLink(link::named(interface)))? {
        RouteNetlinkMessage::NewLink(link) => Ok(link.header.index),
        _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}

fn addresses(endpoint: &Endpoint) -> String {
    let ipv4 = endpoint.ipv4.map(IpAddr::from).into_iter();
    let all: Vec<_> =
        ipv4.chain(endpoint.ipv6.map(IpAddr::from)).map(|address| address.to_string()).collect();
    all.join(" and ")
}
