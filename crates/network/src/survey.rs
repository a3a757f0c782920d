//! What the host's own network looks like: addresses, MTU, subnets in use.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};

use crate::link;
use crate::rtnetlink::Rtnetlink;

/// One dump of everything that the questions below need.
pub(crate) struct Survey {
    links: Vec<LinkMessage>,
    addresses: Vec<AddressMessage>,
    routes: Vec<RouteMessage>,
}

impl Survey {
    pub(crate) fn take(socket: &mut Rtnetlink) -> io::Result<Self> {
        let mut survey = Self { links: Vec::new(), addresses: Vec::new(), routes: Vec::new() };
        for request in [link::any(), link::any_address(), link::any_route()] {
            for message in socket.all(request)? {
                match message {
                    RouteNetlinkMessage::NewLink(link) => survey.links.push(link),
                    RouteNetlinkMessage::NewAddress(address) => survey.addresses.push(address),
                    RouteNetlinkMessage::NewRoute(route) => survey.routes.push(route),
                    _ => {}
                }
            }
        }
        Ok(survey)
    }

    /// Addresses of the links that are not our bridges, the default route's link first.
    pub(crate) fn addresses(&self) -> Vec<Ipv4Addr> {
        let own = self.own_bridges();
        let default = self.default_link();
        let mut found: Vec<(bool, u32, Ipv4Addr)> = self
            .addresses
            .iter()
            .filter(|address| !own.contains(&address.header.index))
            .filter_map(|message| Some((message.header.index, local(message)?)))
            .filter(|(_, address)| !address.is_loopback() && !address.is_link_local())
            .map(|(index, address)| (Some(index) != default, index, address))
            .collect();
        // stable: an interface's addresses keep the kernel's order, its primary address first
        found.sort_by_key(|(other, index, _)| (*other, *index));
        found.into_iter().map(|(_, _, address)| address).collect()
    }

    /// The MTU of the default route's link.
    pub(crate) fn default_mtu(&self) -> Option<u32> {
        let default = self.default_link()?;
        self.links.iter().find(|link| link.header.index == default).and_then(link::mtu)
    }

    /// Whether a unicast route other than a default one reaches into the subnet.
    pub(crate) fn overlaps(&self, subnet: Ipv4Addr, prefix: u8) -> bool {
        self.routes
            .iter()
            .filter(|route| {
                route.header.destination_prefix_length > 0
                    && !matches!(route.header.kind, RouteType::Broadcast | RouteType::Multicast)
            })
            .filter_map(|route| Some((destination(route)?, route.header.destination_prefix_length)))
            .any(|(other, length)| same_network(subnet, other, prefix.min(length)))
    }

    /// Names of the veths on the bridges with these names.
    pub(crate) fn veths_on(&self, bridges: &[&str]) -> Vec<&str> {
        let named =
            |link: &&LinkMessage| link::name(link).is_some_and(|name| bridges.contains(&name));
        let indexes: Vec<_> =
            self.links.iter().filter(named).map(|link| link.header.index).collect();
        let on_one = |link: &&LinkMessage| {
            link::is_veth(link)
                && link::controller(link).is_some_and(|index| indexes.contains(&index))
        };
        self.links.iter().filter(on_one).filter_map(link::name).collect()
    }

    /// Indexes of the bridges whose hardware address is made from their IPv4 address.
    fn own_bridges(&self) -> Vec<u32> {
        let ours = |address: &&AddressMessage| {
            let mac = local(address).map(link::bridge_mac);
            self.links.iter().any(|link| {
                link.header.index == address.header.index
                    && link::is_bridge(link)
                    && mac.is_some_and(|mac| link::mac(link) == Some(mac.as_slice()))
            })
        };
        self.addresses.iter().filter(ours).map(|address| address.header.index).collect()
    }

    /// The main table's default route with the lowest metric.
    fn default_link(&self) -> Option<u32> {
        self.routes
            .iter()
            .filter(|route| {
                route.header.destination_prefix_length == 0
                    && route.header.table == RouteHeader::RT_TABLE_MAIN
                    && route.header.kind == RouteType::Unicast
            })
            .filter_map(|route| Some((metric(route), output(route)?)))
            .min()
            .map(|(_, index)| index)
    }
}

fn same_network(one: Ipv4Addr, other: Ipv4Addr, prefix: u8) -> bool {
    let different = u32::from(one) ^ u32::from(other);
    prefix == 0 || different >> (32 - u32::from(prefix.min(32))) == 0
}

fn local(message: &AddressMessage) -> Option<Ipv4Addr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    })
}

fn destination(route: &RouteMessage) -> Option<Ipv4Addr> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    })
}

fn metric(route: &RouteMessage) -> u32 {
    let priority = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(priority) => Some(*priority),
        _ => None,
    });
    priority.unwrap_or(0)
}

fn output(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_overlap_in_the_shorter_prefix() {
        for (one, other, prefix, want) in [
            ([10, 0, 0, 0], [10, 0, 255, 1], 16, true),
            ([10, 0, 0, 0], [10, 1, 0, 0], 16, false),
            ([10, 0, 0, 0], [192, 168, 0, 0], 0, true),
            ([10, 0, 0, 1], [10, 0, 0, 2], 32, false),
            ([10, 0, 0, 1], [10, 0, 0, 1], 32, true),
        ] {
            assert_eq!(same_network(one.into(), other.into(), prefix), want, "{one:?} {other:?}");
        }
    }
}
