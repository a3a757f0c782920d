//! The resolver's process: one thread that waits for many things at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use bulkhead_types::Id;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::cache::Cache;
use crate::query::{Answer, Malformed, Query};
use crate::zones::Zones;
use crate::{local, raw};

mod connections;
mod containers;
mod control;
mod exchange;
mod flights;
mod poller;
mod prepare;

use connections::Connections;
use containers::{Listening, Served};
use control::Control;
use flights::Flights;
use poller::{Poller, Source};

/// Runs the resolver: listens on `socket` for its engine, and returns when that ends it.
///
/// Must be called by a process that has one thread, at its start: it closes descriptors that were
/// inherited, starts a session of its own, and gives up the file system and all its privileges. It
/// says that it listens by closing standard output.
pub fn serve(socket: &Path) -> std::io::Result<()> {
    let ready = prepare::prepare(socket)?;
    let mut server = Server {
        poller: Poller::new()?,
        control: Control::default(),
        zones: Zones::default(),
        containers: BTreeMap::new(),
        connections: Connections::default(),
        flights: Flights::default(),
        cache: Cache::default(),
        turn: 0,
        buffer: vec![0; LARGEST],
        ready,
        ending: false,
    };
    server.poller.add(server.ready.listener.as_fd(), Source::Listener, EventFlags::IN)?;
    prepare::announce()?;
    Ok(server.run()?)
}

/// What the resolver made before it began to serve.
#[derive(Debug)]
struct Ready {
    listener: OwnedFd,
    /// Locked as long as this resolver lives, so that there is one at a socket.
    _lock: OwnedFd,
}

struct Server {
    poller: Poller,
    control: Control,
    zones: Zones,
    containers: BTreeMap<Id, Served>,
    connections: Connections,
    flights: Flights,
    cache: Cache,
    /// Goes up with every answer, so that none of several addresses is always the first.
    turn: usize,
    /// Where packets are received.
    buffer: Vec<u8>,
    ready: Ready,
    ending: bool,
}

/// To whom an answer goes.
#[derive(Debug, Clone, Copy)]
enum Client {
    Datagram(SocketAddr),
    Connection(u64),
}

impl Server {
    fn run(&mut self) -> Result<(), Errno> {
        let mut events = Vec::with_capacity(64);
        let mut tidied = Instant::now();
        while !self.ending {
            let deadline = [self.flights.next_deadline(), self.connections.next_deadline()];
            self.poller.wait(&mut events, deadline.into_iter().flatten().min())?;
            let now = Instant::now();
            for event in &events {
                let token = event.data.u64();
                // gone since the kernel listed it
                let Some(source) = self.poller.source(token) else { continue };
                match source {
                    Source::Listener => {
                        self.control.accept(&mut self.poller, &self.ready.listener);
                    }
                    Source::Engine => self.serve_engine(token, event.flags),
                    Source::Udp(id) => self.receive_datagrams(id, now),
                    Source::Tcp(id) => self.accept_connections(id, now),
                    Source::Connection => self.serve_connection(token, event.flags, now),
                    Source::Exchange => self.serve_exchange(token, event.flags, now),
                }
            }
            self.pass_deadlines(now);
            self.serve_waiting(now);
            if now.duration_since(tidied) > TIDY {
                self.cache.tidy(now);
                self.flights.tidy(now);
                tidied = now;
            }
        }
        Ok(())
    }

    fn pass_deadlines(&mut self, now: Instant) {
        while let Some(flight) = self.flights.due(now) {
            self.go_on(flight, now);
        }
        self.close_idle_connections(now);
    }

    fn receive_datagrams(&mut self, id: Id, now: Instant) {
        let mut buffer = std::mem::take(&mut self.buffer);
        for _ in 0..MOST_AT_ONCE {
            let Some(listening) = self.listening(id) else { break };
            let flags = RecvFlags::DONTWAIT;
            match rustix::net::recvfrom(&listening.sockets.udp, &mut buffer[..], flags) {
                Ok((length, _, Some(from))) => {
                    if let Ok(from) = SocketAddr::try_from(from) {
                        self.take_query(id, Client::Datagram(from), &buffer[..length], now);
                    }
                }
                Ok((_, _, None)) | Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        self.buffer = buffer;
    }

    fn listening(&self, id: Id) -> Option<&Listening> {
        self.containers.get(&id)?.listening.as_ref()
    }

    fn listening_mut(&mut self, id: Id) -> Option<&mut Listening> {
        self.containers.get_mut(&id)?.listening.as_mut()
    }

    /// Answers a query, or asks a server first. `false`: it is none that has an answer.
    fn take_query(&mut self, id: Id, client: Client, message: &[u8], now: Instant) -> bool {
        match Query::read(message) {
            Ok(query) => self.answer(id, client, query, now),
            Err(Malformed::Ignore) => return false,
            Err(Malformed::Reply(reply)) => self.reply(id, client, &reply),
        }
        true
    }

    fn answer(&mut self, id: Id, client: Client, query: Query, now: Instant) {
        let Some(served) = self.containers.get(&id) else { return };
        let room = room(client, &query);
        self.turn = self.turn.wrapping_add(1);
        let container = &served.container;
        if let Some(answer) = local::answer(&self.zones, container, &query, self.turn) {
            let reply = query.reply(&answer, room);
            return self.reply(id, client, &reply);
        }
        if local::is_refused_bare(container, &query) {
            return self.fail(id, client, &query, raw::NO_SUCH_NAME);
        }
        if container.upstream.servers.is_empty() {
            return self.fail(id, client, &query, raw::SERVER_FAILURE);
        }
        let key = query.key(&served.scope);
        if let Some(answer) = self.cache.find(&key, now) {
            let reply = query.pass_on(&answer, room);
            return self.reply(id, client, &reply);
        }
        self.ask(id, client, query, key, now);
    }

    fn fail(&mut self, id: Id, client: Client, query: &Query, code: u8) {
        let mut reply = query.reply(&Answer::empty(), usize::MAX);
        if let Some(flags) = reply.get_mut(3) {
            *flags = *flags & 0xf0 | code;
        }
        self.reply(id, client, &reply);
    }

    fn reply(&mut self, id: Id, client: Client, reply: &[u8]) {
        match client {
            Client::Datagram(to) => {
                if let Some(listening) = self.listening(id) {
                    let flags = SendFlags::DONTWAIT;
                    // who does not take it asks again
                    let _ = rustix::net::sendto(&listening.sockets.udp, reply, flags, &to);
                }
            }
            Client::Connection(token) => self.reply_on_connection(token, reply),
        }
    }
}

fn room(client: Client, query: &Query) -> usize {
    match client {
        Client::Datagram(_) => query.room,
        Client::Connection(_) => usize::from(u16::MAX),
    }
}

/// Bytes of a message (RFC 1035, 4.2.2).
const LARGEST: usize = 65_535;

/// Datagrams that are taken from one container before another's turn.
const MOST_AT_ONCE: usize = 32;

/// How often what is past is forgotten.
const TIDY: Duration = Duration::from_secs(30);
