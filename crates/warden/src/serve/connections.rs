//! Connections of clients (engines): answers to their requests, and events.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use serde::Serialize;

use super::poller::{Poller, Source, Watched};
use crate::hello;
use crate::protocol::Event;
use crate::wire::{Fault, Message, Numbered, Packet, Reply, receive};

#[derive(Default)]
pub(super) struct Connections {
    clients: HashMap<u64, Connection>,
    /// Those that have gone since [`Connections::take_gone`] was asked.
    gone: Vec<u64>,
}

struct Connection {
    socket: Watched,
    /// It has said that it speaks our protocol; until then nothing else is heard or told.
    is_greeted: bool,
    queue: VecDeque<Packet>,
}

/// To whom an answer goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    client: u64,
    number: u64,
}

impl Caller {
    /// The connection, by which [`Connections`] knows the client.
    pub fn client(self) -> u64 {
        self.client
    }
}

impl Connection {
    /// Takes the client's hello and says ours, also to one of another version, which can tell its
    /// user then.
    fn greet(&self) -> Result<(), Errno> {
        let theirs = hello::receive(self.socket.as_fd(), RecvFlags::DONTWAIT)?;
        // Its own first packet in an empty socket: there is room.
        hello::send(self.socket.as_fd())?;
        match theirs {
            Some(hello::VERSION) => Ok(()),
            _ => Err(Errno::PROTO),
        }
    }
}

impl Connections {
    pub fn accept(&mut self, poller: &mut Poller, listener: &OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(socket) = rustix::net::accept_with(listener, flags) else { return };
        // Whoever may give orders here is root on the host; the socket's mode says so as well.
        match rustix::net::sockopt::socket_peercred(&socket) {
            Ok(peer) if peer.uid.is_root() => {}
            _ => return,
        }
        if let Ok(socket) = poller.watch(socket, Source::Client, EventFlags::IN) {
            self.clients.insert(
                socket.token,
                Connection { socket, is_greeted: false, queue: VecDeque::new() },
            );
        }
    }

    /// Takes a request, if one has come.
    pub fn serve(
        &mut self,
        poller: &mut Poller,
        token: u64,
        flags: EventFlags,
    ) -> Option<(Caller, Numbered, Vec<OwnedFd>)> {
        if flags.intersects(EventFlags::OUT) {
            self.flush(poller, token);
        }
        if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            return None;
        }
        let client = self.clients.get_mut(&token)?;
        if !client.is_greeted {
            match client.greet() {
                Err(Errno::AGAIN) => {}
                Ok(()) => client.is_greeted = true,
                Err(_) => self.drop_client(poller, token),
            }
            return None;
        }
        match receive::<Numbered>(client.socket.as_fd(), RecvFlags::DONTWAIT) {
            Ok(Some((request, descriptors))) => {
                let caller = Caller { client: token, number: request.number };
                return Some((caller, request, descriptors));
            }
            Err(Errno::AGAIN) => {}
            Ok(None) | Err(_) => self.drop_client(poller, token),
        }
        None
    }

    pub fn answer(
        &mut self,
        poller: &mut Poller,
        caller: Caller,
        reply: Result<Reply, Fault>,
        descriptors: Vec<OwnedFd>,
    ) {
        let message = Message::Reply { number: caller.number, reply };
        self.send(poller, caller.client, &message, descriptors);
    }

    pub fn publish(&mut self, poller: &mut Poller, event: &Event) {
        let greeted = self.clients.iter().filter(|(_, connection)| connection.is_greeted);
        let clients: Vec<u64> = greeted.map(|(token, _)| *token).collect();
        for client in clients {
            self.send(poller, client, &Message::Event(event.clone()), Vec::new());
        }
    }

    pub fn is_connected(&self, client: u64) -> bool {
        self.clients.contains_key(&client)
    }

    /// The clients that have gone since this was asked the last time.
    pub fn take_gone(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.gone)
    }

    /// Whether everything that was said is sent.
    pub fn are_flushed(&self) -> bool {
        self.clients.values().all(|client| client.queue.is_empty())
    }

    fn send(
        &mut self,
        poller: &mut Poller,
        client: u64,
        message: &impl Serialize,
        descriptors: Vec<OwnedFd>,
    ) {
        let Some(connection) = self.clients.get_mut(&client) else { return };
        match Packet::new(message, descriptors) {
            Ok(packet) => {
                connection.queue.push_back(packet);
                self.flush(poller, client);
            }
            // An answer that cannot be sent would keep its caller waiting for ever.
            Err(_) => self.drop_client(poller, client),
        }
    }

    fn flush(&mut self, poller: &mut Poller, token: u64) {
        let Some(client) = self.clients.get_mut(&token) else { return };
        while let Some(packet) = client.queue.front() {
            match packet.send(client.socket.as_fd(), SendFlags::DONTWAIT) {
                Ok(()) => drop(client.queue.pop_front()),
                Err(Errno::AGAIN) => break,
                Err(_) => return self.drop_client(poller, token),
            }
        }
        let wanted =
            if client.queue.is_empty() { EventFlags::IN } else { EventFlags::IN | EventFlags::OUT };
        poller.want(&mut client.socket, wanted);
    }

    fn drop_client(&mut self, poller: &mut Poller, token: u64) {
        if let Some(client) = self.clients.remove(&token) {
            poller.unwatch(client.socket);
            self.gone.push(token);
        }
    }
}
