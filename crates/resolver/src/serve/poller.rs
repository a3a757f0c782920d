//! What the resolver waits for: an epoll instance, and what each of its events is about.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use bulkhead_types::Id;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fs::Timespec;
use rustix::io::Errno;

use std::os::fd::OwnedFd;

pub(super) struct Poller {
    epoll: OwnedFd,
    sources: HashMap<u64, Source>,
    last_token: u64,
}

/// What an event is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    /// Where engines connect.
    Listener,
    Engine,
    /// Queries of a container's clients.
    Udp(Id),
    Tcp(Id),
    /// Of a container's client.
    Connection,
    /// With a server.
    Exchange,
}

impl Poller {
    pub fn new() -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, sources: HashMap::new(), last_token: 0 })
    }

    /// Waits for events: the token of each, and what is ready.
    pub fn wait(&self, events: &mut Vec<Event>, until: Option<Instant>) -> Result<(), Errno> {
        events.clear();
        let timeout = until.map(|until| {
            let left = until.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            }
        });
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// `None` for what is no longer watched since the kernel listed it.
    pub fn source(&self, token: u64) -> Option<Source> {
        self.sources.get(&token).copied()
    }

    pub fn add(
        &mut self,
        fd: BorrowedFd<'_>,
        source: Source,
        flags: EventFlags,
    ) -> Result<u64, Errno> {
        let token = self.last_token + 1;
        epoll::add(&self.epoll, fd, EventData::new_u64(token), flags)?;
        self.last_token = token;
        self.sources.insert(token, source);
        Ok(token)
    }

    /// To be called before the descriptor is closed: epoll forgets a closed one only when no copy of
    /// it is left, and the engine has copies.
    pub fn remove(&mut self, fd: BorrowedFd<'_>, token: u64) {
        self.sources.remove(&token);
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Changes what is waited for.
    pub fn want(&self, fd: BorrowedFd<'_>, token: u64, flags: EventFlags) {
        let _ = epoll::modify(&self.epoll, fd, EventData::new_u64(token), flags);
    }
}
