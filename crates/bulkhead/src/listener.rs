//! The listeners that anybody may reach (registry, ECS API, console): bounded in what strangers can
//! hold of them.
//!
//! They share the process's descriptors with the engine's socket. Without bounds, whoever opens
//! enough connections and sends nothing stops the engine for everybody.

use bulkhead_types::Chain;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// What the clients of one listener may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once; the next one waits in the kernel until one ends.
    pub connections: usize,
    /// Connections at once from one address (one IPv6 /64); the next one is closed.
    pub per_address: usize,
    /// How long a request's head may take from its first byte, and a connection be idle before it.
    pub head: Duration,
}

impl Limits {
    /// For one of `listeners` in a process that may open `descriptors`: all together take a quarter.
    pub fn of(descriptors: u64, listeners: u64) -> Self {
        let share = usize::try_from(descriptors / 4 / listeners.max(1)).unwrap_or(usize::MAX);
        let connections = share.clamp(16, 1024);
        Self { connections, per_address: connections / 2, head: Duration::from_secs(10) }
    }
}

/// Serves `routes` until `stopped` becomes true or its sender is gone.
pub async fn serve(
    listener: TcpListener,
    routes: axum::Router,
    limits: Limits,
    mut stopped: watch::Receiver<bool>,
) {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(limits.head);
    let free = Arc::new(Semaphore::new(limits.connections));
    let clients = Clients::default();
    let accept = async {
        loop {
            let permit = Arc::clone(&free).acquire_owned().await;
            let permit = permit.expect("nobody closes the semaphore");
            match listener.accept().await {
                Ok((stream, peer)) => {
                    // One too many is closed by its drop.
                    let Some(client) = clients.enter(peer.ip(), limits.per_address) else {
                        continue;
                    };
                    spawn_connection(&server, stream, routes.clone(), (permit, client));
                }
                Err(error) => {
                    // Out of descriptors or a client that left already: neither ends the server.
                    tracing::warn!(error = %Chain(&error), "accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    };
    tokio::select! {
        () = accept => {}
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

fn spawn_connection(
    server: &auto::Builder<TokioExecutor>,
    stream: TcpStream,
    routes: axum::Router,
    held: (OwnedSemaphorePermit, Client),
) {
    let service = TowerToHyperService::new(routes);
    let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let connection = connection.into_owned();
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!("HTTP connection: {error}");
        }
        drop(held);
    });
}

/// How many connections each address has.
#[derive(Debug, Clone, Default)]
struct Clients(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection, counted as long as this lives.
#[derive(Debug)]
struct Client {
    clients: Clients,
    address: IpAddr,
}

impl Clients {
    fn enter(&self, address: IpAddr, most: usize) -> Option<Client> {
        let address = network(address);
        let mut counts = self.lock();
        let count = counts.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Client { clients: self.clone(), address })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut counts = self.clients.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// The addresses that one client can have for the asking count as one: all of loopback's, and an
/// IPv6 /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) if address.is_loopback() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let prefix = u128::from(address) & (u128::MAX << 64);
            Ipv6Addr::from(prefix).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn addresses_that_one_client_can_have_count_as_one() {
        for (one, other, same) in [
            ("127.0.0.1", "127.9.9.9", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
        ] {
            let [one, other] = [one, other].map(|text| network(text.parse().expect(text)));
            assert_eq!(one == other, same, "{one} {other}");
        }
    }

    #[test]
    fn the_listeners_take_a_part_of_the_descriptors() {
        assert_eq!(Limits::of(1024, 3).connections, 85);
        assert_eq!(Limits::of(64, 3).connections, 16);
        assert_eq!(Limits::of(1 << 20, 3).connections, 1024);
    }

    /// A client that sends half a head holds a place until its time is over, and no longer; one
    /// that has more than its share is turned away at once.
    #[tokio::test(flavor = "multi_thread")]
    async fn half_sent_heads_are_cut() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let routes = axum::Router::new().route("/", axum::routing::get(async || "here"));
        let (stop, stopped) = watch::channel(false);
        let limits = Limits { connections: 8, per_address: 4, head: Duration::from_millis(300) };
        let server = tokio::spawn(serve(listener, routes, limits, stopped));
        tokio::task::spawn_blocking(move || {
            let half_sent = || {
                let mut stream = TcpStream::connect(address).expect("a connection");
                stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ").expect("room");
                stream
            };
            let streams: Vec<TcpStream> = (0..20).map(|_| half_sent()).collect();
            for mut stream in streams {
                // Each is closed, the first four when their time is over; a reset is an end too.
                let _ = stream.read_to_end(&mut Vec::new());
            }
            let mut stream = TcpStream::connect(address).expect("a connection");
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                .expect("room");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("an answer");
            assert!(answer.ends_with("here"), "{answer}");
        })
        .await
        .expect("the client's part");
        stop.send_replace(true);
        server.await.expect("it stops");
    }
}
