//! Questions that are asked of servers: each once, however many clients wait for its answer.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bulkhead_types::Id;

use super::exchange::{Exchange, Started};
use super::{Client, Server, room};
use crate::protocol::Reach;
use crate::query::Query;
use crate::raw;
use crate::schedule::{Schedule, Step};

#[derive(Default)]
pub(super) struct Flights {
    all: HashMap<u64, Flight>,
    by_key: HashMap<Box<[u8]>, u64>,
    timers: BTreeSet<(Instant, u64)>,
    pub exchanges: HashMap<u64, Exchange>,
    /// The host's servers that kept a client waiting, and until when that counts.
    slow: HashMap<SocketAddr, Instant>,
    /// Containers that have a socket again for who waits for one.
    pub freed: Vec<Id>,
    last: u64,
}

/// One question.
pub(super) struct Flight {
    key: Box<[u8]>,
    pub query: Query,
    /// In whose network namespace the servers are asked; `None` is the host's.
    pub place: Option<Id>,
    pub servers: Vec<SocketAddr>,
    schedule: Schedule,
    timer: Option<Instant>,
    waiters: Vec<Waiter>,
    /// Their tokens.
    pub exchanges: Vec<u64>,
    /// How many of its servers wait for a socket.
    pub queued: usize,
    /// An answer that was cut short, in case that nobody gives a whole one.
    pub cut: Option<Vec<u8>>,
}

/// A client that waits for the answer.
struct Waiter {
    container: Id,
    client: Client,
    query: Query,
}

impl Flights {
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub fn due(&mut self, now: Instant) -> Option<u64> {
        let (at, flight) = *self.timers.first().filter(|(at, _)| *at <= now)?;
        self.timers.remove(&(at, flight));
        if let Some(flight) = self.all.get_mut(&flight) {
            flight.timer = None;
        }
        Some(flight)
    }

    pub fn get(&mut self, flight: u64) -> Option<&mut Flight> {
        self.all.get_mut(&flight)
    }

    pub fn tidy(&mut self, now: Instant) {
        self.slow.retain(|_, until| *until > now);
    }

    fn set_timer(&mut self, token: u64, at: Instant) {
        let Some(flight) = self.all.get_mut(&token) else { return };
        if let Some(before) = flight.timer.replace(at) {
            self.timers.remove(&(before, token));
        }
        self.timers.insert((at, token));
    }

    /// Those of its servers that have not answered yet are asked last for a while.
    fn note_silence(&mut self, token: u64, now: Instant) {
        let Some(flight) = self.all.get(&token).filter(|flight| flight.place.is_none()) else {
            return;
        };
        for exchange in &flight.exchanges {
            let server = self.exchanges.get(exchange).map(|exchange| exchange.server);
            if let Some(address) = server.and_then(|server| flight.servers.get(server)) {
                self.slow.insert(*address, now + SLOW);
            }
        }
    }
}

impl Server {
    /// Asks the container's servers, or waits with whoever has asked them the same.
    pub(super) fn ask(
        &mut self,
        id: Id,
        client: Client,
        query: Query,
        key: Box<[u8]>,
        now: Instant,
    ) {
        let known = self.flights.by_key.get(&key).copied();
        let Some(served) = self.containers.get_mut(&id) else { return };
        let is_full = known.is_none() && self.flights.all.len() >= MOST_FLIGHTS;
        match &mut served.listening {
            Some(listening) if listening.open < MOST_OPEN && !is_full => listening.open += 1,
            _ => return self.fail(id, client, &query, raw::SERVER_FAILURE),
        }
        let upstream = &served.container.upstream;
        let waiter = Waiter { container: id, client, query };
        if let Some(flight) = known.and_then(|known| self.flights.all.get_mut(&known)) {
            flight.waiters.push(waiter);
            return;
        }
        let servers = upstream.servers.clone();
        let is_slow = |server| self.flights.slow.get(server).is_some_and(|until| *until > now);
        let is_slow: Vec<bool> = servers.iter().map(is_slow).collect();
        self.flights.last += 1;
        let token = self.flights.last;
        self.flights.by_key.insert(key.clone(), token);
        let flight = Flight {
            key,
            query: waiter.query.clone(),
            place: (upstream.reach == Reach::Container).then_some(id),
            servers,
            schedule: Schedule::new(&is_slow, now),
            timer: None,
            waiters: vec![waiter],
            exchanges: Vec::new(),
            queued: 0,
            cut: None,
        };
        self.flights.all.insert(token, flight);
        self.go_on(token, now);
    }

    /// Does what a flight's schedule says, until it says to wait.
    pub(super) fn go_on(&mut self, token: u64, now: Instant) {
        loop {
            let Some(flight) = self.flights.all.get_mut(&token) else { return };
            match flight.schedule.step(now) {
                Step::Ask(server) => {
                    self.flights.note_silence(token, now);
                    match self.start_exchange(token, server) {
                        Ok(Started::Asked) => {}
                        Ok(Started::Queued) => {
                            if let Some(flight) = self.flights.all.get_mut(&token) {
                                flight.queued += 1;
                            }
                        }
                        Err(_) => {
                            if !self.has_hope(token, now) {
                                return self.finish(token, None, now);
                            }
                        }
                    }
                }
                Step::Wait(until) => return self.flights.set_timer(token, until),
                Step::GiveUp => {
                    self.flights.note_silence(token, now);
                    return self.finish(token, None, now);
                }
            }
        }
    }

    /// After a server has failed: goes on with the next, or gives up.
    pub(super) fn server_failed(&mut self, token: u64, now: Instant) {
        match self.has_hope(token, now) {
            true => self.go_on(token, now),
            false => self.finish(token, None, now),
        }
    }

    fn has_hope(&mut self, token: u64, now: Instant) -> bool {
        let Some(flight) = self.flights.all.get_mut(&token) else { return false };
        let waiting = !flight.exchanges.is_empty() || flight.queued > 0;
        flight.schedule.failed(waiting, now)
    }

    /// A server has answered, or nobody has: tells those who wait.
    pub(super) fn finish(&mut self, token: u64, answer: Option<(usize, Vec<u8>)>, now: Instant) {
        let Some(flight) = self.end_flight(token) else { return };
        let answer = match answer {
            Some((server, answer)) => {
                if flight.place.is_none()
                    && let Some(address) = flight.servers.get(server)
                {
                    self.flights.slow.remove(address);
                }
                self.cache.keep(&flight.key, &answer, now);
                Some(answer)
            }
            None => flight.cut,
        };
        for Waiter { container, client, query } in flight.waiters {
            if let Some(listening) = self.listening_mut(container) {
                listening.open = listening.open.saturating_sub(1);
            }
            match &answer {
                Some(answer) => {
                    let reply = query.pass_on(answer, room(client, &query));
                    self.reply(container, client, &reply);
                }
                None => self.fail(container, client, &query, raw::SERVER_FAILURE),
            }
        }
    }

    fn end_flight(&mut self, token: u64) -> Option<Flight> {
        let flight = self.flights.all.remove(&token)?;
        self.flights.by_key.remove(&flight.key);
        if let Some(at) = flight.timer {
            self.flights.timers.remove(&(at, token));
        }
        for exchange in &flight.exchanges {
            self.end_exchange(*exchange);
        }
        Some(flight)
    }

    /// Ends what is asked in a container's network namespace: its clients are told that it failed.
    pub(super) fn cancel(&mut self, id: Id) {
        let own = self.flights.all.iter().filter(|(_, flight)| flight.place == Some(id));
        let own: Vec<u64> = own.map(|(token, _)| *token).collect();
        for token in own {
            self.finish(token, None, Instant::now());
        }
        if let Some(listening) = self.listening_mut(id) {
            listening.waiting.clear();
        }
    }

    /// Gives sockets that have become free to who waits for one.
    pub(super) fn serve_waiting(&mut self, now: Instant) {
        while let Some(id) = self.flights.freed.pop() {
            while let Some(listening) = self.listening_mut(id) {
                if listening.free_udp.is_empty() {
                    break;
                }
                let Some((token, server)) = listening.waiting.pop_front() else { break };
                let Some(flight) = self.flights.all.get_mut(&token) else { continue };
                flight.queued = flight.queued.saturating_sub(1);
                if self.start_exchange(token, server).is_err() {
                    self.server_failed(token, now);
                }
            }
        }
    }
}

/// Questions of one container's clients that wait at the same time: more of them fail, so that no
/// container takes the others' share.
const MOST_OPEN: usize = 256;

/// Of all containers.
const MOST_FLIGHTS: usize = 2048;

/// How long a server that was silent is not asked first.
const SLOW: Duration = Duration::from_secs(30);
