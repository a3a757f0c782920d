//! The warden's side of ready compartments: a few of them, built while nothing else is to do.
//!
//! A compartment is an empty container: a process that waits in new namespaces for what it shall
//! run (see [`super::zygote`]). To make namespaces is most of what a start takes, so it is done
//! before anybody asks; the name is that of a ship's watertight rooms below the deck, the bulkheads
//! of which keep the water of one out of the next.
//!
//! Without one (none left, another shape, the zygote gone) a container is cloned from here, with
//! the same plan.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bulkhead_runtime::plan::Report;
use bulkhead_sys::process::{Child, clone3};
use bulkhead_sys::socket::control_pair;
use bulkhead_types::IdMap;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::process::{Resource, Rlimit, WaitId, WaitIdOptions, waitid};

use super::clock::monotonic;
use super::connections::Caller;
use super::order::Order;
use super::poller::{Source, Watched};
use super::process::NewProcess;
use super::{Warden, zygote};
use crate::wire::{Packet, Reply};

/// How many are kept unless a client says otherwise.
const USUAL: usize = 2;
/// How long nothing must have been started, in nanoseconds, before more are built: to build one
/// takes as long as a start, and they would compete.
const QUIET: i64 = 20_000_000;

pub(super) struct Compartments {
    zygote: Option<Zygote>,
    size: usize,
    all: BTreeMap<u64, Compartment>,
    last: u64,
    /// When more are built.
    refill: Option<i64>,
    /// Who wants to know when all are ready.
    callers: Vec<Caller>,
}

struct Zygote {
    socket: Watched,
    pidfd: OwnedFd,
}

struct Compartment {
    /// Without it, it is ending.
    control: Option<Watched>,
    /// With its pid, once the zygote has told it.
    pidfd: Option<(u32, Watched)>,
    /// It is in its namespaces and waits for an order.
    made: bool,
}

impl Compartment {
    fn is_ready(&self) -> bool {
        self.made && self.pidfd.is_some() && self.control.is_some()
    }
}

/// A compartment that has its order: it tells on `control` what it clones, and ends.
pub(super) struct Taken {
    pub control: Watched,
    pub pidfd: Watched,
    /// What it clones has its limits from it, and does not wait for them.
    pub confined: bool,
}

impl Compartments {
    pub fn new() -> Self {
        Self {
            zygote: None,
            size: USUAL,
            all: BTreeMap::new(),
            last: 0,
            refill: Some(monotonic()),
            callers: Vec::new(),
        }
    }

    /// Something is being started: the host is not idle.
    pub fn postpone(&mut self) {
        self.refill = Some(monotonic() + QUIET);
    }

    pub fn deadline(&self) -> Option<i64> {
        self.refill.filter(|_| self.zygote.is_some())
    }

    fn ready(&self) -> impl Iterator<Item = &(u32, Watched)> {
        self.all.values().filter(|it| it.is_ready()).filter_map(|it| it.pidfd.as_ref())
    }

    /// Those that are ready or will be.
    fn count(&self) -> usize {
        self.all.values().filter(|it| it.control.is_some()).count()
    }
}

impl Warden {
    /// Starts the zygote; for the time before the first client, see there.
    pub(super) fn start_zygote(&mut self) -> Result<(), Errno> {
        let (ours, theirs) = control_pair()?;
        let Child { pidfd, .. } =
            clone3(0, None, || zygote::serve(theirs.as_fd(), &self.ready.host))?;
        let socket = self.poller.watch(ours, Source::Zygote, EventFlags::IN)?;
        self.compartments.zygote = Some(Zygote { socket, pidfd });
        Ok(())
    }

    /// The zygote never says anything: its socket has ended.
    pub(super) fn reap_zygote(&mut self) {
        if let Some(zygote) = self.compartments.zygote.take() {
            self.poller.unwatch(zygote.socket);
            let _ = waitid(WaitId::PidFd(zygote.pidfd.as_fd()), WaitIdOptions::EXITED);
        }
        self.answer_when_ready();
    }

    /// Builds what is missing, once nothing has been started for a moment.
    pub(super) fn refill_compartments(&mut self) {
        if self.compartments.deadline().is_none_or(|at| at > monotonic()) {
            return;
        }
        self.compartments.refill = None;
        while self.compartments.count() < self.compartments.size {
            if self.build().is_err() {
                break;
            }
        }
        self.answer_when_ready();
    }

    fn build(&mut self) -> Result<(), Errno> {
        let (ours, theirs) = control_pair()?;
        let zygote = self.compartments.zygote.as_ref().ok_or(Errno::PIPE)?;
        let packet = Packet::new(&(), vec![theirs])?;
        packet.send(zygote.socket.as_fd(), SendFlags::DONTWAIT)?;
        let key = self.compartments.last + 1;
        self.compartments.last = key;
        let control = self.poller.watch(ours, Source::Compartment(key), EventFlags::IN)?;
        let compartment = Compartment { control: Some(control), pidfd: None, made: false };
        self.compartments.all.insert(key, compartment);
        Ok(())
    }

    /// Takes what a compartment says that is being built, and sees to the end of one.
    pub(super) fn poll_compartment(&mut self, key: u64) {
        let Some(mut it) = self.compartments.all.remove(&key) else { return };
        while let Some(control) = &it.control {
            match Report::receive(control.as_fd()) {
                Err(Errno::AGAIN) => break,
                // it ended with something unread, and may have said something before
                Err(Errno::CONNRESET) => {}
                Ok(Some((Report::Cloned { pid }, Some(pidfd)))) => {
                    let watched =
                        self.poller.watch(pidfd, Source::Compartment(key), EventFlags::IN);
                    it.pidfd = watched.ok().map(|pidfd| (pid, pidfd));
                }
                Ok(Some((Report::Unshared, _))) => it.made = true,
                // It has failed, and ends. Its pid may come after that, from the zygote, and
                // without it nobody would reap it.
                Ok(Some(_)) => it.made = false,
                Ok(None) | Err(_) => self.dismiss(&mut it),
            }
        }
        if it.is_ready() && self.compartments.count() >= self.compartments.size {
            self.dismiss(&mut it);
        }
        if let Some((_, pidfd)) = &it.pidfd {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            if let Ok(None) = waitid(WaitId::PidFd(pidfd.as_fd()), options) {
                self.compartments.all.insert(key, it);
            } else {
                it.pidfd.into_iter().for_each(|(_, pidfd)| self.poller.unwatch(pidfd));
                it.control.into_iter().for_each(|control| self.poller.unwatch(control));
            }
        } else if it.control.is_some() {
            self.compartments.all.insert(key, it);
        }
        self.answer_when_ready();
    }

    /// Without its socket a compartment is sure to end.
    fn dismiss(&mut self, it: &mut Compartment) {
        if let Some(control) = it.control.take() {
            self.poller.unwatch(control);
        }
    }

    /// Gives an order to a compartment, if one is ready.
    pub(super) fn order_compartment(
        &mut self,
        plan: &[u8],
        range: IdMap,
        new: &NewProcess<'_>,
    ) -> Option<Taken> {
        let stdio = new.stdio.child.as_ref();
        let all: Vec<BorrowedFd<'_>> =
            new.descriptors.iter().chain(stdio.into_iter().flatten()).map(AsFd::as_fd).collect();
        let harmless = new.plan.limits.iter().all(is_harmless);
        let message = Order {
            plan: plan.into(),
            cgroup: new.cgroup,
            stdio: stdio.is_some(),
            waits: !harmless,
        };
        let packet = Packet::new(&message, all).ok()?;
        loop {
            let key = *self.compartments.all.iter().find(|(_, it)| it.is_ready())?.0;
            let Compartment { control: Some(control), pidfd: Some((pid, pidfd)), .. } =
                self.compartments.all.remove(&key)?
            else {
                return None;
            };
            // The clone inherits them. Where they cannot be set, the clone from here says why.
            let confined = !harmless || self.ready.confine(pid, &new.plan).is_ok();
            let ordered = self
                .ready
                .map_ids(pid, range)
                .and(if confined { Ok(()) } else { Err(Errno::INVAL) })
                .and_then(|()| packet.send(control.as_fd(), SendFlags::DONTWAIT));
            if ordered.is_ok() {
                return Some(Taken { control, pidfd, confined: harmless });
            }
            // dead, or of no use any more
            let gone = Compartment { control: None, pidfd: Some((pid, pidfd)), made: true };
            self.compartments.all.insert(key, gone);
            self.poller.unwatch(control);
        }
    }

    pub(super) fn keep_compartments(&mut self, size: Option<u8>, caller: Caller) {
        self.compartments.callers.push(caller);
        if let Some(size) = size {
            self.compartments.size = size.into();
            let surplus = self.compartments.count().saturating_sub(size.into());
            let ready = self.compartments.all.iter().filter(|(_, it)| it.is_ready());
            for key in ready.map(|(key, _)| *key).take(surplus).collect::<Vec<_>>() {
                if let Some(mut it) = self.compartments.all.remove(&key) {
                    self.dismiss(&mut it);
                    self.compartments.all.insert(key, it);
                }
            }
            self.compartments.refill = Some(monotonic());
            self.refill_compartments();
        } else {
            self.answer_when_ready();
        }
    }

    /// Answers those who wait for all to be ready, once nothing is left to wait for.
    fn answer_when_ready(&mut self) {
        let it = &self.compartments;
        if it.deadline().is_some() || it.all.values().any(|it| !it.is_ready()) {
            return;
        }
        for caller in std::mem::take(&mut self.compartments.callers) {
            let copies = self.compartments.ready().filter_map(|(pid, pidfd)| {
                Some((*pid, rustix::io::fcntl_dupfd_cloexec(&pidfd.fd, 3).ok()?))
            });
            let (pids, descriptors) = copies.unzip();
            self.answer(caller, Ok(Reply::Compartments(pids)), descriptors);
        }
    }
}

/// Whether a compartment can live with this limit: it takes descriptors, and clones.
fn is_harmless((resource, limit): &(Resource, Rlimit)) -> bool {
    match resource {
        Resource::Nofile => limit.current.is_none_or(|most| most >= 512),
        Resource::Core | Resource::Memlock | Resource::Msgqueue | Resource::Sigpending => true,
        _ => false,
    }
}
