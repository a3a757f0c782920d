//! Host ports that containers publish, reserved by sockets that are bound and never listen.
//!
//! The kernel keeps the port from every other program as long as the socket lives, and tells which
//! port is free; the traffic itself never reaches the socket, since nftables redirects it first. A
//! kernel without SCTP has no program either that could take an SCTP port: then what other
//! containers have is all there is to look at.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;

use bulkhead_network::Protocol;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::{Container, PortBinding};

/// Why a port cannot be had, in Docker's words.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum PortError {
    #[error("Bind for {0} failed: port is already allocated")]
    Allocated(SocketAddrV4),
    #[error("failed to bind host port for {0}:{1}/{2}: address already in use")]
    InUse(SocketAddrV4, u16, Protocol),
    #[error("failed to bind host port for {0}: {1}")]
    Refused(SocketAddrV4, std::io::ErrorKind),
}

/// One port that is ours while this lives.
#[derive(Debug)]
pub(crate) struct Reservation {
    pub binding: PortBinding,
    /// Only held: closing it gives the port back. `None` where the kernel has no SCTP.
    _socket: Option<OwnedFd>,
}

/// Reserves all of `wanted` or nothing; bindings with port 0 come back with the port they got.
///
/// `ours` are the bindings of other running containers: they tell "published already" from "used
/// by another program".
pub(crate) fn reserve(
    wanted: &[PortBinding],
    ours: &[PortBinding],
) -> Result<Vec<Reservation>, PortError> {
    let mut reserved: Vec<Reservation> = Vec::new();
    for binding in wanted {
        let taken: Vec<_> =
            ours.iter().copied().chain(reserved.iter().map(|it| it.binding)).collect();
        reserved.push(reserve_one(*binding, &taken)?);
    }
    Ok(reserved)
}

fn reserve_one(mut binding: PortBinding, ours: &[PortBinding]) -> Result<Reservation, PortError> {
    let address = SocketAddrV4::new(binding.host_address, binding.host_port);
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
        other => PortError::Refused(address, std::io::Error::from(other).kind()),
    };
    // Without SO_REUSEADDR: with it, another program that sets it too could take the port.
    let family = AddressFamily::INET;
    let socket = match rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, protocol) {
        Err(Errno::PROTONOSUPPORT) if binding.protocol == Protocol::Sctp => {
            return without_socket(binding, ours);
        }
        other => other.map_err(refused)?,
    };
    rustix::net::bind(&socket, &address).map_err(refused)?;
    if binding.host_port == 0 {
        let bound = rustix::net::getsockname(&socket).map_err(refused)?;
        binding.host_port = SocketAddrV4::try_from(bound)
            .map_err(|_| PortError::Refused(address, std::io::ErrorKind::Other))?
            .port();
    }
    Ok(Reservation { binding, _socket: Some(socket) })
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
        .ok_or(PortError::Allocated(SocketAddrV4::new(binding.host_address, binding.host_port)))
}

/// The kernel's default of `net.ipv4.ip_local_port_range`.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32768..=60999;

/// What a container publishes: its bindings, and with `-P` every exposed port that has none.
pub(crate) fn wanted(container: &Container) -> Vec<PortBinding> {
    let mut bindings = container.host.port_bindings.clone();
    if container.host.publish_all_ports {
        for port in &container.config.exposed_ports {
            let (container_port, protocol) = (port.number(), port.protocol());
            let bound = |binding: &PortBinding| {
                binding.container_port == container_port && binding.protocol == protocol
            };
            if !bindings.iter().any(bound) {
                bindings.push(PortBinding {
                    container_port,
                    protocol,
                    host_address: Ipv4Addr::UNSPECIFIED,
                    host_port: 0,
                });
            }
        }
    }
    bindings
}

fn clashes(one: &PortBinding, other: &PortBinding) -> bool {
    one.protocol == other.protocol
        && one.host_port == other.host_port
        && (one.host_address == other.host_address
            || one.host_address.is_unspecified()
            || other.host_address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(protocol: Protocol, host_port: u16) -> PortBinding {
        PortBinding { container_port: 80, protocol, host_address: Ipv4Addr::LOCALHOST, host_port }
    }

    #[test]
    fn a_reserved_port_is_taken_until_it_is_dropped() {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let first = reserve(&[binding(protocol, 0)], &[]).unwrap();
            let got = first[0].binding;
            assert_ne!(got.host_port, 0);
            let ours = reserve(&[got], &[got]).unwrap_err().to_string();
            let port = got.host_port;
            assert_eq!(
                ours,
                format!("Bind for 127.0.0.1:{port} failed: port is already allocated")
            );
            let other = reserve(&[got], &[]).unwrap_err().to_string();
            assert_eq!(
                other,
                format!(
                    "failed to bind host port for 127.0.0.1:{port}:80/{protocol}: address already in use"
                )
            );
            drop(first);
            // Another test may draw the very port that was given back, so this is a loop.
            assert!((0..50).any(|_| reserve(&[got], &[]).is_ok()));
        }
    }

    #[test]
    fn sctp_needs_no_socket_where_the_kernel_has_none() {
        let taken = binding(Protocol::Sctp, 32768);
        let drawn = without_socket(binding(Protocol::Sctp, 0), &[taken]).unwrap();
        assert_eq!(drawn.binding.host_port, 32769);
        assert_eq!(
            without_socket(taken, &[taken]).unwrap_err().to_string(),
            "Bind for 127.0.0.1:32768 failed: port is already allocated"
        );
        // with or without it in this kernel: two of one container, and one of another
        let two = reserve(&[binding(Protocol::Sctp, 0), binding(Protocol::Sctp, 0)], &[]).unwrap();
        let (one, other) = (two[0].binding, two[1].binding);
        assert!(one.host_port != 0 && other.host_port != 0 && one.host_port != other.host_port);
        assert!(matches!(reserve(&[one], &[one]), Err(PortError::Allocated(_))));
        assert!(reserve(&[binding(Protocol::Sctp, 1), binding(Protocol::Sctp, 1)], &[]).is_err());
    }
}
