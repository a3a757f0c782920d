//! What outlives the process it belonged to.

use std::collections::HashMap;
use std::os::fd::AsFd;

use bulkhead_types::Id;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::attached::{Attached, Reached};
use super::log::LogFile;
use super::poller::{Poller, Source, Watched};

#[derive(Default)]
pub(super) struct Lingering {
    /// By the tokens of their descriptors.
    watched: HashMap<u64, Remnant>,
    /// Of containers that have ended, where the disk has not taken all of it.
    logs: HashMap<Id, LogFile>,
}

enum Remnant {
    /// A client that has not taken the last of the output. How long it takes is its own affair:
    /// what is kept for it is bounded, and it is let go when it goes.
    Attached(Attached),
    /// A pipe that what an exec left in the background goes on writing to. It is read to nowhere,
    /// since closing it would end those processes by SIGPIPE.
    Output(Watched),
    /// A child that cloned another, and has not ended yet.
    Helper(Watched),
}

impl Lingering {
    /// Lets clients go, each when it has all that it was given.
    pub fn add_clients(&mut self, poller: &mut Poller, clients: Vec<Attached>) {
        for mut client in clients {
            if client.is_behind() || client.is_held() {
                client.leave_process(poller);
                self.watched.insert(client.token(), Remnant::Attached(client));
            } else {
                client.close(poller);
            }
        }
    }

    pub fn add_output(&mut self, poller: &mut Poller, mut output: Watched) {
        poller.reassign(&output, Source::Lingering);
        poller.want(&mut output, EventFlags::IN);
        self.watched.insert(output.token, Remnant::Output(output));
    }

    pub fn add_helper(&mut self, poller: &mut Poller, helper: Watched) {
        poller.reassign(&helper, Source::Lingering);
        self.watched.insert(helper.token, Remnant::Helper(helper));
    }

    pub fn add_log(&mut self, id: Id, log: Option<LogFile>) {
        if let Some(log) = log {
            self.logs.insert(id, log);
        }
    }

    /// For the next life of the same container.
    pub fn take_log(&mut self, id: Id) -> Option<LogFile> {
        self.logs.remove(&id)
    }

    pub fn has_log(&self, id: Id) -> bool {
        self.logs.contains_key(&id)
    }

    /// When [`Self::flush_logs`] is to be called, nanoseconds of the monotonic clock.
    pub fn log_retry(&self) -> Option<i64> {
        self.logs.values().filter_map(LogFile::retry_at).min()
    }

    /// Writes what the disk takes now.
    pub fn flush_logs(&mut self, now: i64) {
        self.logs.retain(|_, log| {
            if log.retry_at().is_some_and(|at| at <= now) {
                log.flush();
            }
            if log.is_removed() {
                log.discard();
            }
            log.is_behind()
        });
    }

    /// See [`Attached::release`].
    pub fn release(&mut self, poller: &mut Poller, token: u64) {
        if let Some(Remnant::Attached(client)) = self.watched.get_mut(&token) {
            let _ = client.release();
            client.adjust(poller, false);
            self.serve(poller, token, EventFlags::empty());
        }
    }

    pub fn serve(&mut self, poller: &mut Poller, token: u64, flags: EventFlags) {
        let Some(remnant) = self.watched.get_mut(&token) else { return };
        let over = match remnant {
            Remnant::Attached(client) => {
                let gone = client.flush() == Reached::Gone;
                gone || !(client.is_behind() || client.is_held())
                    || flags.intersects(EventFlags::HUP | EventFlags::ERR)
            }
            Remnant::Output(output) => {
                let read = rustix::io::read(output.as_fd(), &mut [0; 64 << 10]);
                !matches!(read, Ok(1..) | Err(Errno::AGAIN | Errno::INTR))
            }
            Remnant::Helper(helper) => {
                let _ = waitid(WaitId::PidFd(helper.as_fd()), WaitIdOptions::EXITED);
                true
            }
        };
        if !over {
            return;
        }
        match self.watched.remove(&token) {
            Some(Remnant::Attached(client)) => client.close(poller),
            Some(Remnant::Output(watched) | Remnant::Helper(watched)) => poller.unwatch(watched),
            None => {}
        }
    }
}
