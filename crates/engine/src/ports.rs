//! Host ports that containers publish, reserved by sockets that are bound and never listen.
//!
//! The kernel keeps the port from every other program as long as the socket lives, and tells which
//! port is free; the traffic itself never reaches the socket, since nftables redirects it first. A
//! kernel without SCTP has no program either that could take an SCTP port: then what other
//! containers have is all there is to look at.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use bulkhead_network::Protocol;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::PortBinding;
use crate::published::{HostPorts, Wanted};

/// Why a port cannot be had, in Docker's words.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum PortError {
    #[error("Bind for {0} failed: port is already allocated")]
    Allocated(SocketAddr),
    #[error("failed to bind host port for {0}:{1}/{2}: address already in use")]
    InUse(SocketAddr, u16, Protocol),
    #[error("failed to bind host port for {0}: this host has no such address")]
    NoSuchAddress(SocketAddr),
    #[error("failed to bind host port for {0}: {1}")]
    Refused(SocketAddr, std::io::ErrorKind),
}

impl PortError {
    /// Whether another number may be free.
    fn is_taken(&self) -> bool {
        matches!(self, Self::Allocated(_) | Self::InUse(..))
    }
}

/// One port that is ours while this lives.
#[derive(Debug)]
pub(crate) struct Reservation {
    pub binding: PortBinding,
    /// Only held: closing it gives the port back. `None` where the kernel has no SCTP, and where
    /// nothing of the host's is taken.
    _socket: Option<OwnedFd>,
}

/// Reserves all of `wanted` or nothing, each with one number at all of its addresses.
///
/// `ours` are the bindings of other running containers: they tell "published already" from "used
/// by another program".
pub(crate) fn reserve(
    wanted: &[Wanted],
    ours: &[PortBinding],
) -> Result<Vec<Reservation>, PortError> {
    let mut reserved: Vec<Reservation> = Vec::new();
    for one in wanted {
        let taken: Vec<_> =
            ours.iter().copied().chain(reserved.iter().map(|it| it.binding)).collect();
        reserved.extend(reserve_one(one, &taken)?);
    }
    Ok(reserved)
}

/// Reserves what a container has got before.
pub(crate) fn reserve_again(bindings: &[PortBinding]) -> Result<Vec<Reservation>, PortError> {
    let again = |binding: &PortBinding| match binding.host_port {
        0 => Ok(Reservation { binding: *binding, _socket: None }),
        _ => bind(*binding, &[]),
    };
    bindings.iter().map(again).collect()
}

fn reserve_one(wanted: &Wanted, ours: &[PortBinding]) -> Result<Vec<Reservation>, PortError> {
    let Some((first, others)) = wanted.addresses.split_first() else { return Ok(Vec::new()) };
    let at = |address: IpAddr, host_port: u16| {
        let (container_port, protocol) = (wanted.container_port, wanted.protocol);
        bind(PortBinding { container_port, protocol, host_address: address, host_port }, ours)
    };
    // That a number is free at one address says nothing of the next.
    let at_all = |number: u16| {
        let first = at(*first, number)?;
        let number = first.binding.host_port;
        let others = others.iter().map(|address| at(*address, number));
        std::iter::once(Ok(first)).chain(others).collect::<Result<Vec<_>, PortError>>()
    };
    match wanted.host_ports {
        HostPorts::None => {
            Ok(std::iter::once(first).chain(others).map(without_number(wanted)).collect())
        }
        HostPorts::Any => first_free(std::iter::repeat_n(0, DRAWS), at_all),
        HostPorts::Among { first, last } => first_free(first..=last, at_all),
    }
}

/// Of a port that is reached by the container's own address nothing of the host's is taken.
fn without_number(wanted: &Wanted) -> impl Fn(&IpAddr) -> Reservation {
    let (container_port, protocol) = (wanted.container_port, wanted.protocol);
    move |host_address| Reservation {
        binding: PortBinding {
            container_port,
            protocol,
            host_address: *host_address,
            host_port: 0,
        },
        _socket: None,
    }
}

/// What the first number gives that is not taken, or why the last one is.
fn first_free<T>(
    numbers: impl Iterator<Item = u16>,
    at: impl Fn(u16) -> Result<T, PortError>,
) -> Result<T, PortError> {
    let mut numbers = numbers.peekable();
    loop {
        let number = numbers.next().unwrap_or_default();
        match at(number) {
            Err(error) if error.is_taken() && numbers.peek().is_some() => {}
            other => return other,
        }
    }
}

/// How often a number is drawn that is to be free at several addresses.
const DRAWS: usize = 20;

fn bind(mut binding: PortBinding, ours: &[PortBinding]) -> Result<Reservation, PortError> {
    let address = SocketAddr::new(binding.host_address, binding.host_port);
    let (kind, protocol) = match binding.protocol {
        Protocol::Tcp => (SocketType::STREAM, None),
        Protocol::Udp => (SocketType::DGRAM, None),
        Protocol::Sctp => (SocketType::STREAM, Some(rustix::net::ipproto::SCTP)),
    };
    let refused = |errno: Errno| match errno {
        Errno::ADDRINUSE if ours.iter().any(|other| clashes(&binding, other)) => {
            PortError::Allocated(address)
        }
        Errno::ADDRINUSE => PortError::InUse(address, binding.container_port, binding.protocol),
        Errno::ADDRNOTAVAIL => PortError::NoSuchAddress(address),
        other => PortError::Refused(address, std::io::Error::from(other).kind()),
    };
    // Without SO_REUSEADDR: with it, another program that sets it too could take the port.
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = match rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, protocol) {
        Err(Errno::PROTONOSUPPORT) if binding.protocol == Protocol::Sctp => {
            return without_socket(binding, ours);
        }
        other => other.map_err(refused)?,
    };
    if address.is_ipv6() {
        // `::` is not 0.0.0.0 too: that is a binding of its own.
        rustix::net::sockopt::set_ipv6_v6only(&socket, true).map_err(refused)?;
    }
    rustix::net::bind(&socket, &address).map_err(refused)?;
    if binding.host_port == 0 {
        let bound = rustix::net::getsockname(&socket).map_err(refused)?;
        binding.host_port = SocketAddr::try_from(bound)
            .map_err(|_| PortError::Refused(address, std::io::ErrorKind::Other))?
            .port();
    }
    Ok(Reservation { binding, _socket: Some(socket) })
}

/// Whether programs of this host can listen on IPv6 at all (moby: daemon/libnetwork/netutils,
/// `IsV6Listenable`).
pub(crate) fn has_ipv6() -> bool {
    let loopback = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 0);
    let socket = rustix::net::socket_with(
        AddressFamily::INET6,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    );
    socket.and_then(|socket| rustix::net::bind(&socket, &loopback)).is_ok()
}

/// A port that no other container has, of a protocol that no program of this host has sockets of. Of
/// two starts that draw the same at once, one is refused when it is published.
fn without_socket(binding: PortBinding, ours: &[PortBinding]) -> Result<Reservation, PortError> {
    let candidates = match binding.host_port {
        0 => EPHEMERAL,
        port => port..=port,
    };
    candidates
        .map(|host_port| PortBinding { host_port, ..binding })
        .find(|candidate| !ours.iter().any(|other| clashes(candidate, other)))
        .map(|binding| Reservation { binding, _socket: None })
        .ok_or(PortError::Allocated(SocketAddr::new(binding.host_address, binding.host_port)))
}

/// The kernel's default of `net.ipv4.ip_local_port_range`.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32768..=60999;

fn clashes(one: &PortBinding, other: &PortBinding) -> bool {
    one.protocol == other.protocol
        && one.host_port == other.host_port
        && one.host_address.is_ipv4() == other.host_address.is_ipv4()
        && (one.host_address == other.host_address
            || one.host_address.is_unspecified()
            || other.host_address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn wanted(protocol: Protocol, host_ports: HostPorts, addresses: &[IpAddr]) -> Wanted {
        Wanted { container_port: 80, protocol, addresses: addresses.to_vec(), host_ports }
    }

    fn exactly(port: u16) -> HostPorts {
        HostPorts::Among { first: port, last: port }
    }

    #[test]
    fn a_reserved_port_is_taken_until_it_is_dropped() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let any = wanted(protocol, HostPorts::Any, &[LOCALHOST]);
            let first = reserve(&[any], &[]).unwrap();
            let got = first[0].binding;
            assert_ne!(got.host_port, 0);
            let port = got.host_port;
            let again = wanted(protocol, exactly(port), &[LOCALHOST]);
            let ours = reserve(std::slice::from_ref(&again), &[got]).unwrap_err().to_string();
            assert_eq!(
                ours,
                format!("Bind for 127.0.0.1:{port} failed: port is already allocated")
            );
            let other = reserve(std::slice::from_ref(&again), &[]).unwrap_err().to_string();
            assert_eq!(
                other,
                format!(
                    "failed to bind host port for 127.0.0.1:{port}:80/{protocol}: address already in use"
                )
            );
            drop(first);
            // Another test may draw the very port that was given back, so this is a loop.
            assert!((0..50).any(|_| reserve_again(&[got]).is_ok()));
        }
    }

    #[test]
    fn both_families_get_one_number() {
        if !has_ipv6() {
            return bulkhead_sys::testing::skip("this host has no IPv6");
        }
        let both = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let got = reserve(&[wanted(protocol, HostPorts::Any, &both)], &[]).unwrap();
            let [ipv4, ipv6] = [got[0].binding, got[1].binding];
            assert_eq!(ipv4.host_port, ipv6.host_port);
            assert_eq!([ipv4.host_address, ipv6.host_address], both);
            // one of the two is enough to be refused
            let loopback = wanted(protocol, exactly(ipv6.host_port), &[Ipv6Addr::LOCALHOST.into()]);
            let refused = reserve(&[loopback], &[ipv4, ipv6]).unwrap_err().to_string();
            let port = ipv6.host_port;
            assert_eq!(refused, format!("Bind for [::1]:{port} failed: port is already allocated"));
        }
    }

    #[test]
    fn of_a_range_the_first_free_one_is_taken() {
        let any = wanted(Protocol::Tcp, HostPorts::Any, &[LOCALHOST]);
        let held = reserve(&[any], &[]).unwrap();
        let first = held[0].binding.host_port.min(u16::MAX - 20);
        let range = HostPorts::Among { first, last: first + 20 };
        let got = reserve(&[wanted(Protocol::Tcp, range, &[LOCALHOST])], &[]).unwrap();
        let number = got[0].binding.host_port;
        assert!((first..=first + 20).contains(&number) && number != held[0].binding.host_port);
    }

    #[test]
    fn an_address_that_is_not_the_hosts_is_said_to_be_none() {
        let address = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));
        let error = reserve(&[wanted(Protocol::Tcp, exactly(8080), &[address])], &[]).unwrap_err();
        assert_eq!(error, PortError::NoSuchAddress(SocketAddr::new(address, 8080)));
    }

    #[test]
    fn sctp_needs_no_socket_where_the_kernel_has_none() {
        let binding = |host_port| PortBinding {
            container_port: 80,
            protocol: Protocol::Sctp,
            host_address: LOCALHOST,
            host_port,
        };
        let taken = binding(32768);
        let drawn = without_socket(binding(0), &[taken]).unwrap();
        assert_eq!(drawn.binding.host_port, 32769);
        assert_eq!(
            without_socket(taken, &[taken]).unwrap_err().to_string(),
            "Bind for 127.0.0.1:32768 failed: port is already allocated"
        );
        // with or without it in this kernel: two of one container, and one of another
        let sctp = |ports| wanted(Protocol::Sctp, ports, &[LOCALHOST]);
        let two = reserve(&[sctp(HostPorts::Any), sctp(HostPorts::Any)], &[]).unwrap();
        let (one, other) = (two[0].binding, two[1].binding);
        assert!(one.host_port != 0 && other.host_port != 0 && one.host_port != other.host_port);
        let again = reserve(&[sctp(exactly(one.host_port))], &[one]);
        assert!(matches!(again, Err(PortError::Allocated(_))));
        assert!(reserve(&[sctp(exactly(1)), sctp(exactly(1))], &[]).is_err());
    }
}
