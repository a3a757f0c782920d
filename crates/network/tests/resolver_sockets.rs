//! 127.0.0.11 in network namespaces that the test makes.

#![allow(clippy::unwrap_used)] // a helper that fails is a test that fails

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;

use bulkhead_network::{RESOLVER_ADDRESS, ResolverSockets, UpstreamSockets};
use support::{ANSWER, Namespace};

fn with_loopback() -> Namespace {
    let namespace = Namespace::new();
    namespace.run(|| bulkhead_sys::socket::bring_up_loopback().unwrap());
    namespace
}

fn resolver() -> SocketAddr {
    (RESOLVER_ADDRESS, 53).into()
}

/// Asks as programs do, and answers as the resolver does.
fn ask(namespace: &Namespace, sockets: &ResolverSockets) {
    let client = namespace.run(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    client.set_read_timeout(Some(ANSWER)).unwrap();
    client.send_to(b"question", resolver()).unwrap();
    let server = UdpSocket::from(sockets.udp.try_clone().unwrap());
    server.set_nonblocking(false).unwrap();
    server.set_read_timeout(Some(ANSWER)).unwrap();
    let mut buffer = [0; 64];
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"question"[..], client.local_addr().unwrap()));
    server.send_to(b"answer", from).unwrap();
    let (length, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"answer"[..], resolver()));

    let mut client = namespace.run(|| TcpStream::connect(resolver()).unwrap());
    let server = TcpListener::from(sockets.tcp.try_clone().unwrap());
    server.set_nonblocking(false).unwrap();
    let (mut served, _) = server.accept().unwrap();
    client.write_all(b"?").unwrap();
    served.read_exact(&mut buffer[..1]).unwrap();
    assert_eq!(buffer[0], b'?');
}

#[test]
fn queries_arrive_and_port_53_stays_free() {
    let namespace = with_loopback();
    let sockets = ResolverSockets::open(namespace.0.as_fd(), UpstreamSockets::default()).unwrap();
    ask(&namespace, &sockets);
    // the container is a name server itself
    let (_udp, _tcp) = namespace
        .run(|| (UdpSocket::bind("0.0.0.0:53").unwrap(), TcpListener::bind("0.0.0.0:53").unwrap()));
    ask(&namespace, &sockets);
}

/// Where both processes that had the sockets are gone, the next engine opens others.
#[test]
fn other_sockets_take_their_place() {
    let namespace = with_loopback();
    let open = |upstream| ResolverSockets::open(namespace.0.as_fd(), upstream).unwrap();
    drop(open(UpstreamSockets::default()));
    let sockets = open(UpstreamSockets { udp: 3, tcp: 2, ipv6: true });
    assert_eq!((sockets.upstream_udp.len(), sockets.upstream_tcp.len()), (3, 2));
    ask(&namespace, &sockets);
}

/// A socket for servers takes another port with every question, and asks from the container's place.
#[test]
fn sockets_for_servers_can_be_used_again() {
    let namespace = with_loopback();
    let upstream = UpstreamSockets { udp: 1, tcp: 1, ipv6: false };
    let sockets = ResolverSockets::open(namespace.0.as_fd(), upstream).unwrap();
    let server = namespace.run(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    let to = server.local_addr().unwrap();
    let mut ports = std::collections::BTreeSet::new();
    for _ in 0..10 {
        let socket = &sockets.upstream_udp[0];
        rustix::net::connect(socket, &to).unwrap();
        rustix::net::send(socket, b"x", rustix::net::SendFlags::empty()).unwrap();
        ports.insert(server.recv_from(&mut [0; 8]).unwrap().1.port());
        rustix::net::connect_unspec(socket).unwrap();
    }
    assert!(ports.len() > 5, "{ports:?}");
}
