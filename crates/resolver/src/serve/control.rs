//! Connections of engines, and what they ask for.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bulkhead_sys::packet::MAX_DESCRIPTORS;
use bulkhead_types::Id;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SocketFlags};

use super::Server;
use super::poller::{Poller, Source};
use crate::hello::{self, Hello};
use crate::protocol::Container;
use crate::wire::{Reply, Request, SocketCounts, receive, send};

#[derive(Default)]
pub(super) struct Control(HashMap<u64, Engine>);

struct Engine {
    socket: OwnedFd,
    /// It has said that it speaks our protocol; until then nothing else is heard or told.
    is_greeted: bool,
}

impl Control {
    pub fn accept(&mut self, poller: &mut Poller, listener: &OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(socket) = rustix::net::accept_with(listener, flags) else { return };
        // Whoever may give orders here is root on the host; the socket's mode says so as well.
        match rustix::net::sockopt::socket_peercred(&socket) {
            Ok(peer) if peer.uid.is_root() => {}
            _ => return,
        }
        if let Ok(token) = poller.add(socket.as_fd(), Source::Engine, EventFlags::IN) {
            self.0.insert(token, Engine { socket, is_greeted: false });
        }
    }
}

impl Server {
    pub(super) fn serve_engine(&mut self, token: u64, _: EventFlags) {
        let Some(engine) = self.control.0.get_mut(&token) else { return };
        if !engine.is_greeted {
            match hello::receive(engine.socket.as_fd(), RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN) => return,
                Ok(Hello::Version(version)) => {
                    // also to one of another version, which can tell then
                    let ours = Hello::Version(hello::VERSION);
                    if hello::send(engine.socket.as_fd(), ours).is_ok() && version == hello::VERSION
                    {
                        engine.is_greeted = true;
                        return;
                    }
                }
                Ok(Hello::End) => self.ending = true,
                Ok(Hello::None) | Err(_) => {}
            }
            return self.drop_engine(token);
        }
        let received = receive::<Request>(engine.socket.as_fd(), RecvFlags::DONTWAIT);
        match received {
            Err(Errno::AGAIN) => {}
            Ok(Some((request, descriptors))) => {
                let sent = match request {
                    Request::List { after } => self.send_list(token, after),
                    request => {
                        let reply = self.obey(request, descriptors);
                        self.send_reply(token, &reply, Vec::new())
                    }
                };
                if sent.is_err() {
                    self.drop_engine(token);
                }
            }
            Ok(None) | Err(_) => self.drop_engine(token),
        }
    }

    fn obey(&mut self, request: Request, descriptors: Vec<OwnedFd>) -> Reply {
        let done = match request {
            Request::Put { container, sockets } => {
                let sockets = match sockets {
                    None => Ok(None),
                    Some(counts) => counts
                        .take(&mut descriptors.into_iter())
                        .map(Some)
                        .ok_or_else(|| "sockets are missing".to_owned()),
                };
                sockets.and_then(|sockets| {
                    self.put(container, sockets).map_err(|errno| errno.to_string())
                })
            }
            Request::Remove(id) => {
                self.remove(id);
                Ok(())
            }
            Request::ShutDown => {
                self.ending = true;
                Ok(())
            }
            Request::List { .. } => Ok(()),
        };
        done.map_or_else(Reply::Refused, |()| Reply::Done)
    }

    fn send_list(&self, token: u64, after: Option<Id>) -> Result<(), Errno> {
        use std::ops::Bound::{Excluded, Unbounded};
        let mut containers: Vec<(Container, Option<SocketCounts>)> = Vec::new();
        let mut descriptors = Vec::new();
        for (_, served) in self.containers.range((after.map_or(Unbounded, Excluded), Unbounded)) {
            let sockets = served.listening.as_ref().map(|listening| &listening.sockets);
            let counts = sockets.map(SocketCounts::of);
            // one may be for what is too long for a packet
            if descriptors.len() + counts.map_or(0, SocketCounts::total) >= MAX_DESCRIPTORS {
                break;
            }
            containers.push((served.container.clone(), counts));
            if let (Some(counts), Some(sockets)) = (counts, sockets) {
                descriptors.extend(counts.borrow(sockets));
            }
        }
        self.send_reply(token, &Reply::List { containers }, descriptors)
    }

    fn send_reply(
        &self,
        token: u64,
        reply: &Reply,
        descriptors: Vec<BorrowedFd<'_>>,
    ) -> Result<(), Errno> {
        // one reply to each request: there is room
        match self.control.0.get(&token) {
            Some(engine) => send(engine.socket.as_fd(), reply, descriptors),
            None => Ok(()),
        }
    }

    fn drop_engine(&mut self, token: u64) {
        if let Some(engine) = self.control.0.remove(&token) {
            self.poller.remove(engine.socket.as_fd(), token);
        }
    }
}
