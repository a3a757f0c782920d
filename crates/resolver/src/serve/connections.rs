//! TCP connections of the containers' clients (RFC 7766): several questions on one, answers in any
//! order.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use bulkhead_types::Id;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use super::poller::Source;
use super::{Client, Server};
use crate::query::LONGEST;

#[derive(Default)]
pub(super) struct Connections {
    all: HashMap<u64, Connection>,
    /// When the idle ones are looked for.
    next_look: Option<Instant>,
}

struct Connection {
    container: Id,
    socket: OwnedFd,
    received: Vec<u8>,
    unsent: Vec<u8>,
    /// Questions without an answer yet.
    open: usize,
    /// The client sends no more, or nothing that is worth to be read.
    is_ending: bool,
    last_used: Instant,
    wanted: EventFlags,
}

impl Connections {
    pub fn next_deadline(&self) -> Option<Instant> {
        self.next_look
    }

    /// The one that was not used for the longest time.
    fn idlest(&self, of: Option<Id>) -> Option<u64> {
        let some = self.all.iter().filter(|(_, one)| of.is_none_or(|id| one.container == id));
        some.min_by_key(|(_, one)| one.last_used).map(|(token, _)| *token)
    }

    fn count(&self, of: Id) -> usize {
        self.all.values().filter(|one| one.container == of).count()
    }
}

impl Server {
    pub(super) fn accept_connections(&mut self, id: Id, now: Instant) {
        let Some(listening) = self.listening(id) else { return };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = match rustix::net::accept_with(&listening.sockets.tcp, flags) {
            Ok(socket) => socket,
            // without a descriptor for it, it would be announced for ever
            Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                if let Some(idlest) = self.connections.idlest(None) {
                    self.close_connection(idlest);
                }
                return;
            }
            Err(_) => return,
        };
        // A new client goes before one that holds its connection for nothing, its own first.
        let excess = match self.connections.count(id) >= MOST_OF_ONE {
            true => self.connections.idlest(Some(id)),
            false if self.connections.all.len() >= MOST => self.connections.idlest(None),
            false => None,
        };
        if let Some(excess) = excess {
            self.close_connection(excess);
        }
        let wanted = EventFlags::IN;
        let Ok(token) = self.poller.add(socket.as_fd(), Source::Connection, wanted) else { return };
        let connection = Connection {
            container: id,
            socket,
            received: Vec::new(),
            unsent: Vec::new(),
            open: 0,
            is_ending: false,
            last_used: now,
            wanted,
        };
        self.connections.all.insert(token, connection);
        self.connections.next_look.get_or_insert(now + IDLE);
    }

    pub(super) fn serve_connection(&mut self, token: u64, flags: EventFlags, now: Instant) {
        if flags.intersects(EventFlags::ERR) {
            return self.close_connection(token);
        }
        if flags.contains(EventFlags::OUT) {
            self.flush(token);
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP) {
            self.read_connection(token, now);
        }
        // those that waited for answers to earlier ones, or for the client to take these
        self.take_questions(token, now);
        self.settle(token);
    }

    fn read_connection(&mut self, token: u64, now: Instant) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let received = match self.connections.all.get_mut(&token) {
            Some(one) if !one.is_ending => {
                let received = rustix::net::recv(&one.socket, &mut buffer[..], RecvFlags::DONTWAIT);
                match received {
                    Ok((0, _)) => one.is_ending = true,
                    Ok((length, _)) => {
                        one.received.extend(&buffer[..length]);
                        one.last_used = now;
                    }
                    _ => {}
                }
                received
            }
            _ => Err(Errno::AGAIN),
        };
        self.buffer = buffer;
        match received {
            Ok(_) => self.take_questions(token, now),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.close_connection(token),
        }
    }

    fn take_questions(&mut self, token: u64, now: Instant) {
        while let Some(one) = self.connections.all.get_mut(&token) {
            if one.open >= MOST_OPEN || one.unsent.len() > MOST_UNSENT {
                break;
            }
            let Some((length, rest)) = one.received.split_first_chunk::<2>() else { break };
            let length = usize::from(u16::from_be_bytes(*length));
            if length > LONGEST {
                // no question is so long: nothing that follows is one
                one.received = Vec::new();
                one.is_ending = true;
                break;
            }
            let Some(message) = rest.get(..length) else { break };
            let message = message.to_vec();
            one.received.drain(..2 + length);
            one.open += 1;
            let id = one.container;
            if !self.take_query(id, Client::Connection(token), &message, now)
                && let Some(one) = self.connections.all.get_mut(&token)
            {
                one.open = one.open.saturating_sub(1);
            }
        }
    }

    pub(super) fn reply_on_connection(&mut self, token: u64, reply: &[u8]) {
        let Some(one) = self.connections.all.get_mut(&token) else { return };
        one.open = one.open.saturating_sub(1);
        let Ok(length) = u16::try_from(reply.len()) else { return };
        one.unsent.extend(length.to_be_bytes());
        one.unsent.extend(reply);
        self.flush(token);
        self.settle(token);
    }

    fn flush(&mut self, token: u64) {
        let Some(one) = self.connections.all.get_mut(&token) else { return };
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        while !one.unsent.is_empty() {
            match rustix::net::send(&one.socket, &one.unsent, flags) {
                Ok(length) => drop(one.unsent.drain(..length)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return self.close_connection(token),
            }
        }
    }

    /// Waits for what can go on, and closes what is done.
    fn settle(&mut self, token: u64) {
        let Some(one) = self.connections.all.get_mut(&token) else { return };
        if one.is_ending && one.open == 0 && one.unsent.is_empty() {
            return self.close_connection(token);
        }
        let mut wanted = EventFlags::empty();
        if !one.is_ending && one.open < MOST_OPEN && one.unsent.len() <= MOST_UNSENT {
            wanted |= EventFlags::IN;
        }
        if !one.unsent.is_empty() {
            wanted |= EventFlags::OUT;
        }
        if wanted != one.wanted {
            one.wanted = wanted;
            self.poller.want(one.socket.as_fd(), token, wanted);
        }
    }

    pub(super) fn close_idle_connections(&mut self, now: Instant) {
        if self.connections.next_look.is_none_or(|at| at > now) {
            return;
        }
        let idle = self.connections.all.iter().filter(|(_, one)| one.last_used + IDLE <= now);
        let idle: Vec<u64> = idle.map(|(token, _)| *token).collect();
        for token in idle {
            self.close_connection(token);
        }
        let oldest = self.connections.all.values().map(|one| one.last_used).min();
        self.connections.next_look = oldest.map(|oldest| oldest + IDLE);
    }

    pub(super) fn close_connections_of(&mut self, id: Id) {
        let own = self.connections.all.iter().filter(|(_, one)| one.container == id);
        let own: Vec<u64> = own.map(|(token, _)| *token).collect();
        for token in own {
            self.close_connection(token);
        }
    }

    fn close_connection(&mut self, token: u64) {
        if let Some(one) = self.connections.all.remove(&token) {
            self.poller.remove(one.socket.as_fd(), token);
        }
    }
}

/// Connections of one container, and of all.
const MOST_OF_ONE: usize = 32;
const MOST: usize = 1024;

/// Questions on one connection that wait for their answers, and bytes that its client has not taken:
/// with more, it is not read.
const MOST_OPEN: usize = 64;
const MOST_UNSENT: usize = 256 << 10;

/// RFC 7766, 6.2.3: some seconds, and more than a server is waited for.
const IDLE: Duration = Duration::from_secs(10);
