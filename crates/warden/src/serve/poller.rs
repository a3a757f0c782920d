//! What the warden waits for: an epoll instance, and what each of its events is about.
//!
//! Apart from the processes, so that a process can be changed where it stands in their table while
//! its descriptors are watched and unwatched.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bulkhead_types::Id;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fs::Timespec;
use rustix::io::Errno;

pub(super) struct Poller {
    epoll: OwnedFd,
    sources: HashMap<u64, Source>,
    last_token: u64,
}

/// What an event is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    Listener,
    Client,
    /// The socket to a child that walks its plan.
    Control(Id),
    Pidfd(Id),
    /// Of a process that clones the real one and ends.
    Helper(Id),
    Zygote,
    /// Its socket or its pidfd.
    Compartment(u64),
    /// 0 standard output or the terminal, 1 standard error.
    Output(Id, usize),
    Input(Id),
    Attached(Id),
    /// Something of a process that has ended or is forgotten.
    Lingering,
}

impl Source {
    /// The process that it is of.
    pub fn process(self) -> Option<Id> {
        match self {
            Self::Control(id)
            | Self::Pidfd(id)
            | Self::Helper(id)
            | Self::Output(id, _)
            | Self::Input(id)
            | Self::Attached(id) => Some(id),
            Self::Listener
            | Self::Client
            | Self::Zygote
            | Self::Compartment(_)
            | Self::Lingering => None,
        }
    }
}

/// A descriptor that epoll watches.
#[derive(Debug)]
pub(super) struct Watched {
    pub fd: OwnedFd,
    pub token: u64,
    flags: EventFlags,
}

impl Poller {
    pub fn new() -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, sources: HashMap::new(), last_token: 0 })
    }

    /// Waits for events: the token of each, and what is ready.
    pub fn wait(&self, events: &mut Vec<Event>, timeout: Option<&Timespec>) -> Result<(), Errno> {
        events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), timeout) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// `None` for what is unwatched since the kernel listed it.
    pub fn source(&self, token: u64) -> Option<Source> {
        self.sources.get(&token).copied()
    }

    pub fn watch(
        &mut self,
        fd: OwnedFd,
        source: Source,
        flags: EventFlags,
    ) -> Result<Watched, Errno> {
        let token = self.add(fd.as_fd(), source, flags)?;
        Ok(Watched { fd, token, flags })
    }

    /// As [`Self::watch`], for a descriptor that stays where it is.
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

    /// Closes a watched descriptor. epoll forgets a closed one only when no copy of it is left, and
    /// a child that was cloned a moment ago has copies.
    pub fn unwatch(&mut self, watched: Watched) {
        self.sources.remove(&watched.token);
        let _ = epoll::delete(&self.epoll, &watched.fd);
    }

    /// Changes what is waited for.
    pub fn want(&self, watched: &mut Watched, flags: EventFlags) {
        if watched.flags != flags {
            let data = EventData::new_u64(watched.token);
            if epoll::modify(&self.epoll, &watched.fd, data, flags).is_ok() {
                watched.flags = flags;
            }
        }
    }

    /// Changes what its events are about.
    pub fn reassign(&mut self, watched: &Watched, source: Source) {
        self.sources.insert(watched.token, source);
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
