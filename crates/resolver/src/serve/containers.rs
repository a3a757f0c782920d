//! The containers that are served: their settings and their sockets.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::rc::Rc;

use bulkhead_types::Id;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::AddressFamily;

use super::Server;
use super::poller::{Poller, Source};
use crate::protocol::{Container, Reach, Sockets};

#[derive(Debug)]
pub(super) struct Served {
    pub container: Container,
    /// Answers are shared among those that ask the same servers from the same place.
    pub scope: Rc<[u8]>,
    pub listening: Option<Listening>,
}

/// In a container's network namespace.
#[derive(Debug)]
pub(super) struct Listening {
    pub sockets: Sockets,
    udp: u64,
    tcp: u64,
    /// Of its sockets for servers: whether they take addresses of IPv6 (and of IPv4 in their form).
    pub is_ipv6: bool,
    /// Which of them are free.
    pub free_udp: Vec<usize>,
    pub free_tcp: Vec<usize>,
    /// Who waits for one: a flight, and which of its servers it wants to ask.
    pub waiting: VecDeque<(u64, usize)>,
    /// Questions of its clients that are not answered yet.
    pub open: usize,
}

impl Listening {
    fn start(poller: &mut Poller, id: Id, sockets: Sockets) -> Result<Self, Errno> {
        let own = [&sockets.udp, &sockets.tcp].into_iter();
        for socket in own.chain(&sockets.upstream_udp).chain(&sockets.upstream_tcp) {
            rustix::io::ioctl_fionbio(socket, true)?;
        }
        let is_ipv6 = match sockets.upstream_udp.first() {
            Some(socket) => {
                rustix::net::getsockname(socket)?.address_family() == AddressFamily::INET6
            }
            None => false,
        };
        let udp = poller.add(sockets.udp.as_fd(), Source::Udp(id), EventFlags::IN)?;
        let tcp = match poller.add(sockets.tcp.as_fd(), Source::Tcp(id), EventFlags::IN) {
            Ok(token) => token,
            Err(errno) => {
                poller.remove(sockets.udp.as_fd(), udp);
                return Err(errno);
            }
        };
        Ok(Self {
            free_udp: (0..sockets.upstream_udp.len()).collect(),
            free_tcp: (0..sockets.upstream_tcp.len()).collect(),
            sockets,
            udp,
            tcp,
            is_ipv6,
            waiting: VecDeque::new(),
            open: 0,
        })
    }

    fn stop(self, poller: &mut Poller) {
        poller.remove(self.sockets.udp.as_fd(), self.udp);
        poller.remove(self.sockets.tcp.as_fd(), self.tcp);
    }
}

impl Server {
    /// Takes a container, or what has changed of it. Without `sockets` it keeps those that it has.
    pub(super) fn put(
        &mut self,
        container: Container,
        sockets: Option<Sockets>,
    ) -> Result<(), Errno> {
        let id = container.id;
        let new = match sockets {
            Some(sockets) => Some(Listening::start(&mut self.poller, id, sockets)?),
            None => None,
        };
        let scope = scope(&container);
        // what is asked with its sockets, or of its servers
        if new.is_some() || self.containers.get(&id).is_some_and(|it| it.scope != scope) {
            self.cancel(id);
        }
        let mut listening = None;
        if let Some(before) = self.containers.remove(&id) {
            self.zones.remove(&before.container);
            listening = before.listening;
        }
        if let Some(new) = new
            && let Some(old) = listening.replace(new)
        {
            self.close_connections_of(id);
            old.stop(&mut self.poller);
        }
        self.zones.add(&container);
        self.containers.insert(id, Served { container, scope, listening });
        Ok(())
    }

    pub(super) fn remove(&mut self, id: Id) {
        self.cancel(id);
        self.close_connections_of(id);
        if let Some(before) = self.containers.remove(&id) {
            self.zones.remove(&before.container);
            if let Some(listening) = before.listening {
                listening.stop(&mut self.poller);
            }
        }
    }
}

fn scope(container: &Container) -> Rc<[u8]> {
    let upstream = &container.upstream;
    let mut scope = match upstream.reach {
        Reach::Host => String::new(),
        Reach::Container => container.id.to_string(),
    };
    for server in &upstream.servers {
        scope.push(' ');
        scope.push_str(&server.to_string());
    }
    scope.into_bytes().into()
}
