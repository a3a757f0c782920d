//! Which ports of a container are published, and at which addresses of the host (moby:
//! daemon/libnetwork/drivers/bridge/port_mapping_linux.go).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bulkhead_network::{Protocol, ReachedBy};
use bulkhead_types::Id;

use crate::port_request::PortRequest;
use crate::{Attachment, Container, NetworkDriver, Networking, PortBinding};

/// Places of one port on the host: one number at all of these addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub container_port: u16,
    pub protocol: Protocol,
    pub addresses: Vec<IpAddr>,
    pub host_ports: HostPorts,
}

impl Wanted {
    /// Whether a binding is one of these.
    pub(crate) fn has(&self, binding: &PortBinding) -> bool {
        let in_range = match self.host_ports {
            HostPorts::None => binding.host_port == 0,
            HostPorts::Any => true,
            HostPorts::Among { first, last } => (first..=last).contains(&binding.host_port),
        };
        self.container_port == binding.container_port
            && self.protocol == binding.protocol
            && self.addresses.contains(&binding.host_address)
            && in_range
    }

    /// Whether `other`, at addresses of its own, can have the same number.
    fn differs_in_addresses_alone(&self, other: &Self, addresses: &[IpAddr]) -> bool {
        let clash = |one: &IpAddr, other: &IpAddr| {
            one.is_ipv4() == other.is_ipv4()
                && (one == other || one.is_unspecified() || other.is_unspecified())
        };
        let free = |address: &IpAddr| !self.addresses.iter().any(|own| clash(own, address));
        (self.container_port, self.protocol, self.host_ports)
            == (other.container_port, other.protocol, other.host_ports)
            && addresses.iter().all(free)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostPorts {
    /// None of the host's: it is reached by the container's own address.
    None,
    /// Drawn from the ephemeral range.
    Any,
    Among {
        first: u16,
        last: u16,
    },
}

fn host_ports(request: &PortRequest) -> HostPorts {
    match (request.host_port, request.last_host_port) {
        (0, _) => HostPorts::Any,
        (first, last) => HostPorts::Among { first, last: last.unwrap_or(first).max(first) },
    }
}

/// What a container asks for: its bindings, and with `-P` every exposed port that has none.
pub(crate) fn requests(container: &Container) -> Vec<PortRequest> {
    let mut requests = container.host.port_bindings.clone();
    if container.host.publish_all_ports {
        for port in &container.config.exposed_ports {
            if !requests.iter().any(|request| request.port() == *port) {
                requests.push(PortRequest {
                    container_port: port.number(),
                    protocol: port.protocol(),
                    host_address: None,
                    host_port: 0,
                    last_host_port: None,
                });
            }
        }
    }
    requests
}

/// By which addresses of each family a container's ports are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reached {
    pub ipv4: Way,
    pub ipv6: Way,
}

/// How ports lead to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    None,
    /// From an address of the host.
    Host,
    /// By the container's own, without a number of the host's (Docker's gateway mode `routed`).
    Container,
}

impl Reached {
    /// `reached_by` says it of a network and an address of the host.
    pub(crate) fn of(
        networking: &Networking,
        reached_by: impl Fn(Id, IpAddr) -> ReachedBy,
    ) -> Self {
        // On an interface of the host a container is a machine of its own (moby: its drivers macvlan and
        // ipvlan publish nothing).
        let way = |gateway: Option<&Attachment>, any: IpAddr| {
            let gateway = gateway.filter(|gateway| gateway.driver == NetworkDriver::Bridge);
            match gateway.map(|gateway| reached_by(gateway.network, any)) {
                None => Way::None,
                Some(ReachedBy::Container) => Way::Container,
                Some(ReachedBy::Host | ReachedBy::Both) => Way::Host,
            }
        };
        Self {
            ipv4: way(networking.gateway(), Ipv4Addr::UNSPECIFIED.into()),
            ipv6: way(networking.gateway6(), Ipv6Addr::UNSPECIFIED.into()),
        }
    }

    fn way(self, address: IpAddr) -> Way {
        if address.is_ipv4() { self.ipv4 } else { self.ipv6 }
    }
}

/// Where requests that name no address are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unnamed {
    /// What the network says: `0.0.0.0` is everywhere, also by IPv6.
    pub network: IpAddr,
    /// Whether this host has IPv6.
    pub host_has_ipv6: bool,
}

/// What is published of the requests: those that differ in their address alone get one number.
///
/// What asks for an address of the host that cannot lead to the container is beside it.
pub(crate) fn wanted(
    mut requests: Vec<PortRequest>,
    reached: Reached,
    unnamed: Unnamed,
) -> (Vec<Wanted>, Vec<IpAddr>) {
    // Exact ones first, so that no draw takes their number.
    requests.sort_by_key(|request| {
        let is_exact = request.host_port != 0 && request.last_host_port.is_none();
        let port = (request.container_port, request.protocol.number());
        (!is_exact, port, request.host_port, request.last_host_port, request.host_address)
    });
    let (mut all, mut unreached): (Vec<Wanted>, Vec<IpAddr>) = Default::default();
    // Which address of the host was asked for means nothing there (moby: configurePortBindingIPv4).
    let any_of_its_family = |address: IpAddr| match address {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut all_direct: Vec<Wanted> = Vec::new();
    for request in requests {
        let addresses = match addresses(request.host_address, reached, unnamed) {
            Ok(addresses) => addresses,
            Err(address) => {
                unreached.push(address);
                continue;
            }
        };
        let one = Wanted {
            container_port: request.container_port,
            protocol: request.protocol,
            addresses: Vec::new(),
            host_ports: host_ports(&request),
        };
        let (direct, addresses): (Vec<_>, Vec<_>) =
            addresses.into_iter().partition(|it| reached.way(*it) == Way::Container);
        // Two numbers of the host that lead to one port are one port here.
        for address in direct.into_iter().map(any_of_its_family) {
            let host_ports = HostPorts::None;
            let one = Wanted { addresses: vec![address], host_ports, ..one.clone() };
            if !all_direct.contains(&one) {
                all_direct.push(one);
            }
        }
        match all.last_mut() {
            Some(last) if last.differs_in_addresses_alone(&one, &addresses) => {
                last.addresses.extend(addresses);
            }
            _ if addresses.is_empty() => {}
            _ => all.push(Wanted { addresses, ..one }),
        }
    }
    all.extend(all_direct);
    (all, unreached)
}

/// What of `wanted` a container has not got that has `bindings`: at the number that it has at other
/// addresses.
pub(crate) fn missing(wanted: Vec<Wanted>, bindings: &[PortBinding]) -> Vec<Wanted> {
    let mut left = bindings.to_vec();
    let missing = wanted.into_iter().map(|mut one| {
        let number = left.iter().find(|binding| one.has(binding)).map(|it| it.host_port);
        let Some(number) = number else { return one };
        // Each is one request's: the next that could be meant by it has another.
        let is_own = |binding: &PortBinding| binding.host_port == number && one.has(binding);
        let got: Vec<IpAddr> =
            left.iter().filter(|it| is_own(it)).map(|it| it.host_address).collect();
        left.retain(|binding| !is_own(binding));
        one.addresses.retain(|address| !got.contains(address));
        one.host_ports = HostPorts::Among { first: number, last: number };
        one
    });
    missing.filter(|one| !one.addresses.is_empty()).collect()
}

fn addresses(
    asked: Option<IpAddr>,
    reached: Reached,
    unnamed: Unnamed,
) -> Result<Vec<IpAddr>, IpAddr> {
    let leads = |address: &IpAddr| reached.way(*address) != Way::None;
    match (asked, unnamed.network) {
        (Some(address), _) if leads(&address) => Ok(vec![address]),
        // A container on no network that leads out is not reached, whatever it asks for.
        (Some(address), _) if [reached.ipv4, reached.ipv6] != [Way::None; 2] => Err(address),
        (Some(_), _) => Ok(Vec::new()),
        (None, IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => {
            let both = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
            let listens = |address: &IpAddr| address.is_ipv4() || unnamed.host_has_ipv6;
            Ok(both.into_iter().filter(|address| leads(address) && listens(address)).collect())
        }
        (None, address) => Ok([address].into_iter().filter(leads).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYWHERE: Unnamed =
        Unnamed { network: IpAddr::V4(Ipv4Addr::UNSPECIFIED), host_has_ipv6: true };

    fn reached(families: &str) -> Reached {
        // `r` behind a family is one that is routed
        let way = |family: char| match families.split_once(family) {
            None => Way::None,
            Some((_, rest)) if rest.starts_with('r') => Way::Container,
            Some(_) => Way::Host,
        };
        Reached { ipv4: way('4'), ipv6: way('6') }
    }

    #[test]
    fn ports_are_published_where_they_lead_somewhere() {
        let unnamed = |network: &str, host_has_ipv6| Unnamed {
            network: network.parse().unwrap(),
            host_has_ipv6,
        };
        for (asked, families, unnamed, expected) in [
            ("", "46", EVERYWHERE, "0.0.0.0 ::"),
            ("", "46", unnamed("0.0.0.0", false), "0.0.0.0"),
            ("", "4", EVERYWHERE, "0.0.0.0"),
            ("", "6", EVERYWHERE, "::"),
            ("", "", EVERYWHERE, ""),
            ("", "46", unnamed("127.0.0.1", true), "127.0.0.1"),
            ("", "46", unnamed("::", true), "::"),
            ("", "4", unnamed("::1", true), ""),
            ("0.0.0.0", "46", EVERYWHERE, "0.0.0.0"),
            ("::", "46", EVERYWHERE, "::"),
            ("::1", "46", unnamed("127.0.0.1", true), "::1"),
            ("127.0.0.1", "4", EVERYWHERE, "127.0.0.1"),
            ("::1", "4", EVERYWHERE, "no ::1"),
            ("127.0.0.1", "6", EVERYWHERE, "no 127.0.0.1"),
            ("::1", "", EVERYWHERE, ""),
        ] {
            let asked = (!asked.is_empty()).then(|| asked.parse().unwrap());
            let said = match addresses(asked, reached(families), unnamed) {
                Ok(all) => all.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" "),
                Err(address) => format!("no {address}"),
            };
            assert_eq!(said, expected, "{asked:?} {families} {unnamed:?}");
        }
    }

    #[test]
    fn what_differs_in_its_address_alone_gets_one_number() {
        let request = |host_address: &str, host_port| PortRequest {
            container_port: 80,
            protocol: Protocol::Tcp,
            host_address: (!host_address.is_empty()).then(|| host_address.parse().unwrap()),
            host_port,
            last_host_port: None,
        };
        let seen = |all: &[PortRequest], families| {
            let (wanted, unreached) = wanted(all.to_vec(), reached(families), EVERYWHERE);
            let of = |one: &Wanted| (one.host_ports, one.addresses.len());
            (wanted.iter().map(of).collect::<Vec<_>>(), unreached.len())
        };
        let exact = HostPorts::Among { first: 8080, last: 8080 };
        let all = [request("::1", 0), request("", 8080), request("127.0.0.1", 0)];
        assert_eq!(seen(&all, "46"), (vec![(exact, 2), (HostPorts::Any, 2)], 0));
        assert_eq!(seen(&all, "4"), (vec![(exact, 1), (HostPorts::Any, 1)], 1));
        assert_eq!(seen(&all, ""), (vec![], 0));
        // twice the same is two numbers
        let twice = [request("", 0), request("", 0)];
        assert_eq!(seen(&twice, "46"), (vec![(HostPorts::Any, 2), (HostPorts::Any, 2)], 0));
    }

    #[test]
    fn what_is_routed_has_no_number() {
        let request = |host_address: &str, host_port| PortRequest {
            container_port: 80,
            protocol: Protocol::Tcp,
            host_address: (!host_address.is_empty()).then(|| host_address.parse().unwrap()),
            host_port,
            last_host_port: None,
        };
        let all = [request("127.0.0.1", 8080), request("", 8081)];
        let seen = |families| {
            let (wanted, _) = wanted(all.to_vec(), reached(families), EVERYWHERE);
            let show = |one: &Wanted| {
                let addresses: Vec<_> = one.addresses.iter().map(IpAddr::to_string).collect();
                let number = match one.host_ports {
                    HostPorts::Among { first, .. } => first,
                    HostPorts::None | HostPorts::Any => 0,
                };
                format!("{}:{number}", addresses.join(" "))
            };
            wanted.iter().map(show).collect::<Vec<_>>()
        };
        assert_eq!(seen("46"), ["127.0.0.1:8080", "0.0.0.0 :::8081"]);
        assert_eq!(seen("46r"), ["127.0.0.1:8080", "0.0.0.0:8081", ":::0"]);
        assert_eq!(seen("4r"), ["0.0.0.0:0"]);
        assert_eq!(seen("4r6r"), ["0.0.0.0:0", ":::0"]);
    }

    #[test]
    fn what_is_missing_gets_the_number_that_is_there() {
        let request = |host_port| PortRequest {
            container_port: 80,
            protocol: Protocol::Tcp,
            host_address: None,
            host_port,
            last_host_port: None,
        };
        let (wanted, _) = wanted(vec![request(0), request(8080)], reached("46"), EVERYWHERE);
        let got = |host_port| PortBinding {
            container_port: 80,
            protocol: Protocol::Tcp,
            host_address: Ipv4Addr::UNSPECIFIED.into(),
            host_port,
        };
        let left = missing(wanted.clone(), &[got(8080), got(40_000)]);
        let number = |one: &Wanted| match one.host_ports {
            HostPorts::Among { first, .. } => first,
            HostPorts::None | HostPorts::Any => 0,
        };
        let six = [IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        assert!(left.iter().all(|one| one.addresses == six), "{left:?}");
        assert_eq!(left.iter().map(number).collect::<Vec<_>>(), [8080, 40_000]);
        assert_eq!(missing(wanted.clone(), &[]), wanted);
    }
}
