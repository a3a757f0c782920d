//! A resolver of the test's own, containers that are network namespaces, and servers on loopback.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bulkhead_resolver::*;
use bulkhead_types::Id;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

pub const A: u16 = 1;
pub const PTR: u16 = 12;
pub const AAAA: u16 = 28;

pub const NO_ERROR: u8 = 0;
pub const FORMAT_ERROR: u8 = 1;
pub const SERVER_FAILURE: u8 = 2;
pub const NO_SUCH_NAME: u8 = 3;

/// More than anything takes on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Resolver {
    pub client: Option<Client>,
    pub gone: Receiver<()>,
    directory: tempfile::TempDir,
}

impl Resolver {
    pub fn launch() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (client, gone) = connect(directory.path().join("resolver.sock"));
        Self { client: Some(client), gone, directory }
    }

    pub fn client(&self) -> &Client {
        self.client.as_ref().unwrap()
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("resolver.sock")
    }

    /// As another engine does, or the same after the resolver's death.
    pub fn reconnect(&mut self) {
        self.client = None;
        let (client, gone) = connect(self.socket());
        (self.client, self.gone) = (Some(client), gone);
    }

    pub fn pid(&self) -> u32 {
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            None,
        );
        let socket = socket.unwrap();
        let address = rustix::net::SocketAddrUnix::new(self.socket()).unwrap();
        rustix::net::connect(&socket, &address).unwrap();
        let peer = rustix::net::sockopt::socket_peercred(&socket).unwrap();
        peer.pid.as_raw_nonzero().get().unsigned_abs()
    }

    pub fn kill(&self) {
        let pid = Pid::from_raw(self.pid().cast_signed()).unwrap();
        let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        pidfd_send_signal(&process, Signal::KILL).unwrap();
        self.gone.recv_timeout(PATIENCE).unwrap();
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        if let Ok(Some(client)) = Client::connect(&self.socket(), || {}) {
            let _ = client.shut_down();
        }
    }
}

fn connect(socket: PathBuf) -> (Client, Receiver<()>) {
    let (sender, gone) = channel();
    let program = std::env::current_exe().unwrap();
    let on_gone = move || {
        let _ = sender.send(());
    };
    (Client::connect_or_start(&socket, &program, on_gone).unwrap(), gone)
}

/// A network namespace with `lo`, and what listens in it.
#[derive(Clone)]
pub struct Namespace(Arc<OwnedFd>);

impl Namespace {
    pub fn new() -> Self {
        let made = std::thread::spawn(|| {
            bulkhead_sys::unshare(UnshareFlags::NEWNET).unwrap();
            bulkhead_sys::socket::bring_up_loopback().unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self(Arc::new(made.join().unwrap().into()))
    }

    pub fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let network = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(self.0.as_fd(), network).unwrap();
                act()
            });
            thread.join().unwrap()
        })
    }

    /// As the engine opens them, `upstream` of each kind for servers of the container's own.
    pub fn sockets(&self, upstream: usize) -> (Sockets, SocketAddr, SocketAddr) {
        self.inside(|| {
            let udp = UdpSocket::bind("127.0.0.11:0").unwrap();
            let tcp = TcpListener::bind("127.0.0.11:0").unwrap();
            let (at_udp, at_tcp) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
            let loose = |kind| {
                let family = rustix::net::AddressFamily::INET;
                (0..upstream).map(|_| rustix::net::socket(family, kind, None).unwrap()).collect()
            };
            let sockets = Sockets {
                udp: udp.into(),
                tcp: tcp.into(),
                upstream_udp: loose(rustix::net::SocketType::DGRAM),
                upstream_tcp: loose(rustix::net::SocketType::STREAM),
            };
            (sockets, at_udp, at_tcp)
        })
    }
}

/// A container with a namespace of its own, which asks names.
pub struct Guest {
    pub container: Container,
    pub namespace: Namespace,
    pub sockets: Sockets,
    pub udp: SocketAddr,
    pub tcp: SocketAddr,
}

impl Guest {
    pub fn new(network: Id, name: &str, last: u8) -> Self {
        Self::with_upstream(network, name, last, &[], Reach::Host)
    }

    pub fn with_upstream(
        network: Id,
        name: &str,
        last: u8,
        servers: &[SocketAddr],
        reach: Reach,
    ) -> Self {
        let namespace = Namespace::new();
        let (sockets, udp, tcp) = namespace.sockets(if reach == Reach::Container { 2 } else { 0 });
        let id = Id::random();
        let container = Container {
            id,
            networks: vec![Membership {
                network,
                network_name: "net".to_owned(),
                names: vec![name.to_owned(), "all".to_owned(), id.short()],
                addresses: vec![IpAddr::from([10, 0, 0, last])],
                gateways: vec![IpAddr::from([10, 0, 0, 1])],
                links: Vec::new(),
            }],
            upstream: Upstream { servers: servers.to_vec(), reach },
            bare_names: BareNames::Forward,
        };
        Self { container, namespace, sockets, udp, tcp }
    }

    pub fn put(&self, resolver: &Resolver) {
        resolver.client().put(&self.container, Some(&self.sockets)).unwrap();
    }

    pub fn ask(&self, name: &str, kind: u16) -> Answer {
        let (to, query) = (self.udp, query(name, kind));
        self.namespace.inside(move || exchange(to, &query)).unwrap()
    }

    pub fn connect(&self) -> TcpStream {
        let to = self.tcp;
        let stream = self.namespace.inside(move || TcpStream::connect(to)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

pub fn exchange(to: SocketAddr, query: &[u8]) -> std::io::Result<Answer> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(query, to)?;
    let mut buffer = vec![0; 65_535];
    let (length, from) = socket.recv_from(&mut buffer)?;
    assert_eq!(from, to);
    Ok(Answer(buffer[..length].to_vec()))
}

pub fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut message = vec![0xab, 0xcd, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message
}

#[derive(Debug)]
pub struct Answer(pub Vec<u8>);

impl Answer {
    pub fn code(&self) -> u8 {
        self.0[3] & 0x0f
    }

    pub fn is_cut(&self) -> bool {
        self.0[2] & 0x02 != 0
    }

    /// Of records that follow each other as this crate and the servers below write them.
    pub fn addresses(&self) -> Vec<String> {
        assert_eq!(self.0[..2], [0xab, 0xcd]);
        let count = usize::from(u16::from_be_bytes([self.0[6], self.0[7]]));
        let mut at = 12;
        while self.0[at] != 0 {
            at += 1 + usize::from(self.0[at]);
        }
        at += 5;
        let mut all = Vec::new();
        for _ in 0..count {
            let length = usize::from(u16::from_be_bytes([self.0[at + 10], self.0[at + 11]]));
            let data = &self.0[at + 12..at + 12 + length];
            match *data {
                [a, b, c, d] => all.push(Ipv4Addr::new(a, b, c, d).to_string()),
                _ => all.push(String::from_utf8_lossy(data).into_owned()),
            }
            at += 12 + length;
        }
        all
    }
}

/// What a server does with a question.
#[derive(Debug, Clone, Copy)]
pub enum Behaviour {
    Answers([u8; 4]),
    Fails(u8),
    Silent,
    /// Says by UDP that it does not fit, and answers by TCP.
    Cuts([u8; 4]),
    /// Answers another question first, with another id, and to another id.
    Lies([u8; 4]),
}

/// A server on this thread's loopback; what it is asked is told.
pub fn server(behaviour: Behaviour) -> (SocketAddr, Receiver<Vec<u8>>) {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        // the port may be taken by somebody else's TCP
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().unwrap();
    let (sender, asked) = channel();
    if let Behaviour::Cuts(address) = behaviour {
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = tcp.accept() {
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut question = vec![0; u16::from_be_bytes(length).into()];
                stream.read_exact(&mut question).unwrap();
                let answer = answer(&question, address);
                stream.write_all(&(answer.len() as u16).to_be_bytes()).unwrap();
                stream.write_all(&answer).unwrap();
            }
        });
    }
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            let question = &buffer[..length];
            let replies = match behaviour {
                Behaviour::Silent => Vec::new(),
                Behaviour::Answers(address) => vec![answer(question, address)],
                Behaviour::Fails(code) => {
                    let mut reply = question.to_vec();
                    reply[2] |= 0x80;
                    reply[3] |= code;
                    vec![reply]
                }
                Behaviour::Cuts(_) => {
                    let mut reply = question.to_vec();
                    reply[2] |= 0x82;
                    vec![reply]
                }
                Behaviour::Lies(address) => {
                    let mut other_id = answer(question, [6, 6, 6, 6]);
                    other_id[0] ^= 1;
                    let mut other_name = answer(question, [6, 6, 6, 6]);
                    other_name[13] ^= 1;
                    vec![other_id, other_name, answer(question, address)]
                }
            };
            for reply in replies {
                udp.send_to(&reply, from).unwrap();
            }
            if sender.send(question.to_vec()).is_err() {
                return;
            }
        }
    });
    (address, asked)
}

fn answer(question: &[u8], address: [u8; 4]) -> Vec<u8> {
    let mut reply = question.to_vec();
    reply[2] |= 0x80;
    reply[3] |= 0x80;
    reply[7] = 1;
    reply.extend(b"\xc0\x0c\0\x01\0\x01\0\0\x01\0\0\x04");
    reply.extend(address);
    reply
}
