//! Network namespaces that live as long as the test, and code that runs in them.
#![allow(dead_code)] // each test file uses its part
#![allow(clippy::disallowed_types, reason = "a test calls other programs as users do")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bulkhead_network::{Bridge, DefaultRoute, Endpoint, Gateway, Host, Protocol, PublishedPort};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// Long enough for a busy machine to answer, and only waited for where nothing must come.
pub const ANSWER: Duration = Duration::from_secs(10);
pub const SILENCE: Duration = Duration::from_millis(300);

/// A network namespace of its own, gone when dropped.
#[derive(Debug)]
pub struct Namespace(pub OwnedFd);

impl Namespace {
    pub fn new() -> Self {
        let made = std::thread::spawn(|| {
            bulkhead_sys::unshare(UnshareFlags::NEWNET).expect("a network namespace");
            File::open("/proc/thread-self/ns/net").unwrap().into()
        });
        Self(made.join().unwrap())
    }

    /// Runs `act` in the namespace.
    pub fn run<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
                    .unwrap();
                act()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Answers each connection on `port` of every IPv4 address with the peer's address.
    pub fn serve(&self, port: u16) -> Server {
        self.serve_on(Ipv4Addr::UNSPECIFIED, port)
    }

    /// Answers each connection on `port` of this address with the peer's address.
    pub fn serve_on(&self, address: impl Into<IpAddr>, port: u16) -> Server {
        let address = SocketAddr::new(address.into(), port);
        Server::start(self.run(|| TcpListener::bind(address).unwrap()))
    }

    /// Connects and returns what the server said: the address it saw.
    pub fn fetch(&self, address: impl Into<IpAddr>, port: u16) -> std::io::Result<IpAddr> {
        self.fetch_within(address, port, ANSWER)
    }

    /// Whether a connection gets no answer, and no refusal either: its packets are dropped.
    pub fn is_dropped(&self, address: impl Into<IpAddr>, port: u16) -> bool {
        let answer = self.fetch_within(address, port, SILENCE);
        matches!(answer, Err(error) if error.kind() == std::io::ErrorKind::TimedOut)
    }

    /// [`Self::fetch`] with another patience than [`ANSWER`].
    pub fn fetch_within(
        &self,
        address: impl Into<IpAddr>,
        port: u16,
        patience: Duration,
    ) -> std::io::Result<IpAddr> {
        let to = SocketAddr::new(address.into(), port);
        self.run(|| {
            let mut stream = TcpStream::connect_timeout(&to, patience)?;
            stream.set_read_timeout(Some(ANSWER))?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            answer.parse().map_err(std::io::Error::other)
        })
    }

    /// Writes a file, such as one below /proc/sys/net, which is the namespace's own.
    pub fn write(&self, file: &str, text: &str) -> std::io::Result<()> {
        self.run(|| std::fs::write(file, text))
    }

    /// Reads a file without the white space at its end.
    pub fn read(&self, file: &str) -> String {
        self.run(|| std::fs::read_to_string(file).unwrap().trim_end().to_owned())
    }

    /// Runs `ip` with the arguments in `line`.
    pub fn ip(&self, line: &str) -> String {
        self.command("ip", &line.split(' ').collect::<Vec<_>>())
    }

    /// Whether a connection is refused.
    pub fn is_refused(&self, address: impl Into<IpAddr>, port: u16) -> bool {
        let answer = self.fetch(address, port);
        matches!(answer, Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused)
    }

    /// Runs a program in the namespace and returns what it printed.
    pub fn command(&self, program: &str, arguments: &[&str]) -> String {
        self.run(|| {
            let output = std::process::Command::new(program).args(arguments).output().unwrap();
            assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        })
    }
}

/// A listener that answers every connection until it is dropped.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    listener: TcpListener,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start(listener: TcpListener) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (accepting, stopped) = (listener.try_clone().unwrap(), stop.clone());
        let thread = std::thread::spawn(move || {
            while let Ok((mut stream, peer)) = accepting.accept() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let _ = write!(stream, "{}", peer.ip());
            }
        });
        Self { stop, listener, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // shutdown(2) of a listening socket wakes accept(2) with EINVAL
        rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A host in a namespace of its own, with a bridge.
#[derive(Debug)]
pub struct TestHost {
    pub namespace: Namespace,
    pub host: Host,
}

impl TestHost {
    pub fn new() -> Self {
        let namespace = Namespace::new();
        let host = namespace.run(|| Host::open().unwrap());
        host.loopback_up(namespace.0.as_fd()).unwrap();
        Self { namespace, host }
    }

    /// Plugs a new container into `bridge` as its `number`th address.
    pub fn container(&self, bridge: &Bridge, number: u8) -> (Namespace, Endpoint) {
        let namespace = Namespace::new();
        let endpoint = endpoint(bridge, number);
        self.host.plug(namespace.0.as_fd(), bridge, &endpoint).unwrap();
        (namespace, endpoint)
    }

    /// Connects another host to this one: it has 192.0.2.2 and 2001:db8::2, this host's `eth0` has
    /// 192.0.2.1 and 2001:db8::1 and its default routes there. The other host's own rules are taken away.
    pub fn outside(&self) -> TestHost {
        let outside = Self::new();
        let own = Gateway { address: OUTSIDE, prefix: 24 };
        let own6 = Gateway { address: OUTSIDE6, prefix: 64 };
        let ipv6 = has_ipv6();
        let lan = Bridge { ipv4: Some(own), ipv6: ipv6.then_some(own6), ..bridge("lan0", 0) };
        outside.host.ensure_bridge(&lan).unwrap();
        let uplink = Endpoint {
            host_link: "uplink".to_owned(),
            interface: "eth0".to_owned(),
            mac: [0x02, 0x42, 192, 0, 2, 1],
            ipv4: Some(HOST_OUTSIDE),
            ipv6: ipv6.then_some(HOST_OUTSIDE6),
            default_route: DefaultRoute::Both,
            link_local: vec![],
            sysctls: vec![],
        };
        outside.host.plug(self.namespace.0.as_fd(), &lan, &uplink).unwrap();
        // only this host's rules are to decide; without nft it is left open who dropped a packet
        if has("nft") {
            outside.namespace.command("nft", &["flush", "ruleset"]);
        }
        outside
    }
}

pub const HOST_OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

pub const HOST_OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

pub fn has_ipv6() -> bool {
    std::path::Path::new("/proc/net/if_inet6").exists()
}

/// Whether a program can be run.
pub fn has(program: &str) -> bool {
    std::process::Command::new(program).arg("-V").output().is_ok()
}

/// 10.77.THIRD.1/24
pub fn bridge(name: &str, third: u8) -> Bridge {
    Bridge {
        name: name.to_owned(),
        ipv4: Some(Gateway { address: Ipv4Addr::new(10, 77, third, 1), prefix: 24 }),
        ipv6: None,
        mtu: 1500,
        internal: false,
        inter_container: true,
        masquerade: true,
        access: Default::default(),
        publish_policy: Default::default(),
    }
}

/// The same with fd00:77:0:THIRD::1/64 besides.
pub fn dual(name: &str, third: u8) -> Bridge {
    let address = Ipv6Addr::new(0xfd00, 0x77, 0, third.into(), 0, 0, 0, 1);
    Bridge { ipv6: Some(Gateway { address, prefix: 64 }), ..bridge(name, third) }
}

/// The bridge's own IPv6 address.
pub fn gateway6(bridge: &Bridge) -> Ipv6Addr {
    bridge.ipv6.unwrap().address
}

/// The endpoint's IPv6 address.
pub fn ipv6(endpoint: &Endpoint) -> Ipv6Addr {
    endpoint.ipv6.unwrap()
}

/// The bridge's own IPv4 address.
pub fn gateway(bridge: &Bridge) -> Ipv4Addr {
    bridge.ipv4.unwrap().address
}

pub fn endpoint(bridge: &Bridge, number: u8) -> Endpoint {
    let [a, b, c, _] = gateway(bridge).octets();
    Endpoint {
        host_link: format!("bh{c}.{number}"),
        interface: "eth0".to_owned(),
        mac: [0x02, 0x42, a, b, c, number],
        ipv4: Some(Ipv4Addr::new(a, b, c, number)),
        ipv6: bridge
            .ipv6
            .map(|own| Ipv6Addr::from_bits((own.address.to_bits() & !0xff) | u128::from(number))),
        default_route: DefaultRoute::Both,
        link_local: vec![],
        sysctls: vec![],
    }
}

/// The endpoint's IPv4 address.
pub fn ipv4(endpoint: &Endpoint) -> Ipv4Addr {
    endpoint.ipv4.unwrap()
}

pub fn tcp(
    host_address: impl Into<IpAddr>,
    host_port: u16,
    to: impl Into<IpAddr>,
    port: u16,
) -> PublishedPort {
    PublishedPort {
        protocol: Protocol::Tcp,
        host_address: host_address.into(),
        host_port,
        container_address: to.into(),
        container_port: port,
        reached_by: Default::default(),
    }
}
