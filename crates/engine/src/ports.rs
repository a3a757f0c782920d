//! Host ports that containers publish, reserved by sockets that are bound and never listen.
//!
//! The kernel keeps the port from every other program as long as the socket lives, and tells which
//! port is free; the traffic itself never reaches the socket, since nftables redirects it first.

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
    /// Only held: closing it gives the port back.
    _socket: OwnedFd,
}

/// Reserves all of `wanted` or nothing; bindings with port 0 come back with the port they got.
///
/// `ours` are the bindings of other running containers: they tell "published already" from "used
/// by another program".
pub(crate) fn reserve(
    wanted: &[PortBinding],
    ours: &[PortBinding],
) -> Result<Vec<Reservation>, PortError> {
    wanted.iter().map(|binding| reserve_one(*binding, ours)).collect()
}

fn reserve_one(mut binding: PortBinding, ours: &[PortBinding]) -> Result<Reservation, PortError> {
    let address = SocketAddrV4::new(binding.host_address, binding.host_port);
    let kind = match binding.protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let refused = |errno: Errno| match errno {
        Errno::ADDRINUSE if ours.iter().any(|other| clashes(&binding, other)) => {
            PortError::Allocated(address)
        }
        Errno::ADDRINUSE => PortError::InUse(address, binding.container_port, binding.protocol),
        other => PortError::Refused(address, std::io::Error::from(other).kind()),
    };
    // Without SO_REUSEADDR: with it, another program that sets it too could take the port.
    let socket = rustix::net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)
        .map_err(refused)?;
    rustix::net::bind(&socket, &address).map_err(refused)?;
    if binding.host_port == 0 {
        let bound = rustix::net::getsockname(&socket).map_err(refused)?;
        binding.host_port = SocketAddrV4::try_from(bound)
            .map_err(|_| PortError::Refused(address, std::io::ErrorKind::Other))?
            .port();
    }
    Ok(Reservation { binding, _socket: socket })
}

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
}
