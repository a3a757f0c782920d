//! What the host's own network looks like: addresses, MTU, subnets in use.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::link;
use crate::rtnetlink::Rtnetlink;

/// What the name of a retired bridge begins with; the rest is its index.
pub(crate) const RETIRED: &str = "bh-gone";

/// The subnets that a host uses already, of both families: to choose one that is free from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsedSubnets(Vec<(IpAddr, u8)>);

impl UsedSubnets {
    /// Whether one of them shares an address with `subnet`/`prefix`.
    pub fn overlaps(&self, subnet: IpAddr, prefix: u8) -> bool {
        self.0.iter().any(|(other, length)| same_network(subnet, *other, prefix.min(*length)))
    }
}

/// One dump of everything that the questions below need.
pub(crate) struct Survey {
    links: Vec<LinkMessage>,
    addresses: Vec<AddressMessage>,
    routes: Vec<RouteMessage>,
}

impl Survey {
    pub(crate) fn take(socket: &mut Rtnetlink) -> io::Result<Self> {
        let mut survey = Self { links: Vec::new(), addresses: Vec::new(), routes: Vec::new() };
        let requests = std::iter::once(link::any())
            .chain(link::FAMILIES.map(link::any_address))
            .chain(link::FAMILIES.map(link::any_route));
        for request in requests {
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

    /// IPv4 addresses of the links that are not our bridges, the default route's link first.
    pub(crate) fn addresses(&self) -> Vec<Ipv4Addr> {
        let own = self.own_bridges();
        let default = self.default_link();
        let mut found: Vec<(bool, u32, Ipv4Addr)> = self
            .addresses
            .iter()
            .filter(|address| !own.contains(&address.header.index))
            .filter_map(|message| match local(message)? {
                IpAddr::V4(address) => Some((message.header.index, address)),
                IpAddr::V6(_) => None,
            })
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

    /// What unicast routes other than default ones lead to, and what addresses are on links: also
    /// those of links that are down, which have no routes.
    pub(crate) fn used_subnets(&self) -> UsedSubnets {
        let routed = self.routes.iter().filter_map(|route| {
            let length = route.header.destination_prefix_length;
            let kind = route.header.kind;
            let counts = length > 0 && !matches!(kind, RouteType::Broadcast | RouteType::Multicast);
            counts.then_some((destination(route)?, length))
        });
        let assigned = self
            .addresses
            .iter()
            .filter_map(|message| Some((local(message)?, message.header.prefix_len)));
        UsedSubnets(routed.chain(assigned).collect())
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

    /// Names of the bridges that [`crate::Host::retire_bridge`] has left.
    pub(crate) fn retired_bridges(&self) -> Vec<&str> {
        let bridges = self.links.iter().filter(|link| link::is_bridge(link));
        bridges.filter_map(link::name).filter(|name| name.starts_with(RETIRED)).collect()
    }

    /// Indexes of the bridges whose hardware address is made from one of their addresses.
    fn own_bridges(&self) -> Vec<u32> {
        let ours = |address: &&AddressMessage| {
            let mac = local(address).map(link::mac_for);
            self.links.iter().any(|link| {
                link.header.index == address.header.index
                    && link::is_bridge(link)
                    && mac.is_some_and(|mac| link::mac(link) == Some(mac.as_slice()))
            })
        };
        self.addresses.iter().filter(ours).map(|address| address.header.index).collect()
    }

    /// The link of the main table's IPv4 default route with the lowest metric.
    fn default_link(&self) -> Option<u32> {
        self.routes
            .iter()
            .filter(|route| {
                route.header.destination_prefix_length == 0
                    && route.header.address_family == AddressFamily::Inet
                    && route.header.table == RouteHeader::RT_TABLE_MAIN
                    && route.header.kind == RouteType::Unicast
            })
            .filter_map(|route| Some((metric(route), output(route)?)))
            .min()
            .map(|(_, index)| index)
    }
}

fn same_network(one: IpAddr, other: IpAddr, prefix: u8) -> bool {
    let (different, bits) = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (u128::from(one.to_bits() ^ other.to_bits()), 32),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits(), 128),
        _ => return false,
    };
    different.checked_shr(bits - u32::from(prefix).min(bits)).unwrap_or(0) == 0
}

/// The link's own address: IPv6 has it as "local" only where that differs from the peer's.
pub(crate) fn local(message: &AddressMessage) -> Option<IpAddr> {
    let attributes = || message.attributes.iter();
    let local = attributes().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        attributes().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

fn destination(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some((*address).into()),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some((*address).into()),
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
        for (one, other, prefix, want) in [
            ("fd00:1::", "fd00:1:ffff::1", 32, true),
            ("fd00:1::", "fd00:2::", 32, false),
            ("fd00::", "2001:db8::", 0, true),
            ("fd00::1", "fd00::2", 128, false),
            ("fd00::1", "fd00::1", 128, true),
            ("fd00::", "10.0.0.0", 0, false),
        ] {
            let address = |text: &str| text.parse().unwrap();
            assert_eq!(same_network(address(one), address(other), prefix), want, "{one} {other}");
        }
    }
}
