//! The warden's side of ready compartments: a few of them, built while nothing else is to do.
//!
//! Without one (none left, another shape, the nursery gone) a container is cloned from here, with
//! the same plan.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bulkhead_runtime::plan::Report;
use bulkhead_sys::process::{Child, clone3};
use bulkhead_types::IdMap;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use rustix::process::{Resource, Rlimit, WaitId, WaitIdOptions, waitid};

use super::io::monotonic;
use super::nursery;
use super::{Caller, Source, Warden, Watched, spawn};
use crate::wire::{Packet, Reply};

/// How many are kept unless a client says otherwise.
const USUAL: usize = 2;
/// How long nothing must have been started, in nanoseconds, before more are built: to build one
/// takes as long as a start, and they would compete.
const QUIET: i64 = 20_000_000;

pub(super) struct Compartments {
    nursery: Option<Nursery>,
    size: usize,
    all: BTreeMap<u64, Compartment>,
    last: u64,
    /// When more are built.
    refill: Option<i64>,
    /// Who wants to know when all are ready.
    callers: Vec<Caller>,
}

struct Nursery {
    socket: Watched,
    pidfd: OwnedFd,
}

struct Compartment {
    /// Without it, it is ending.
    control: Option<Watched>,
    /// With its pid, once the nursery has told it.
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
            nursery: None,
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
        self.refill.filter(|_| self.nursery.is_some())
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
    /// Starts the nursery; for the time before the first client, see there.
    pub(super) fn start_nursery(&mut self) -> Result<(), Errno> {
        let (ours, theirs) = sockets()?;
        let Child { pidfd, .. } =
            clone3(0, None, || nursery::serve(theirs.as_fd(), &self.ready.host))?;
        let socket = self.watch(ours, Source::Nursery, EventFlags::IN)?;
        self.compartments.nursery = Some(Nursery { socket, pidfd });
        Ok(())
    }

    /// The nursery never says anything: its socket has ended.
    pub(super) fn bury_nursery(&mut self) {
        if let Some(nursery) = self.compartments.nursery.take() {
            self.unwatch(nursery.socket);
            let _ = waitid(WaitId::PidFd(nursery.pidfd.as_fd()), WaitIdOptions::EXITED);
        }
        self.tell_of_compartments();
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
        self.tell_of_compartments();
    }

    fn build(&mut self) -> Result<(), Errno> {
        let (ours, theirs) = sockets()?;
        let nursery = self.compartments.nursery.as_ref().ok_or(Errno::PIPE)?;
        let packet = Packet::new(&(), vec![theirs])?;
        packet.send(nursery.socket.as_fd(), SendFlags::DONTWAIT)?;
        let key = self.compartments.last + 1;
        self.compartments.last = key;
        let control = self.watch(ours, Source::Compartment(key), EventFlags::IN)?;
        let compartment = Compartment { control: Some(control), pidfd: None, made: false };
        self.compartments.all.insert(key, compartment);
        Ok(())
    }

    /// Hears a compartment that is being built, and sees to the end of one.
    pub(super) fn tend(&mut self, key: u64) {
        let Some(mut it) = self.compartments.all.remove(&key) else { return };
        while let Some(control) = &it.control {
            match Report::receive(control.as_fd()) {
                Err(Errno::AGAIN) => break,
                Ok(Some((Report::Cloned { pid }, Some(pidfd)))) => {
                    let watched = self.watch(pidfd, Source::Compartment(key), EventFlags::IN);
                    it.pidfd = watched.ok().map(|pidfd| (pid, pidfd));
                }
                Ok(Some((Report::Unshared, _))) => it.made = true,
                // it has failed or is dead
                Ok(_) | Err(_) => self.dismiss(&mut it),
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
                it.pidfd.into_iter().for_each(|(_, pidfd)| self.unwatch(pidfd));
                it.control.into_iter().for_each(|control| self.unwatch(control));
            }
        } else if it.control.is_some() {
            self.compartments.all.insert(key, it);
        }
        self.tell_of_compartments();
    }

    /// Without its socket a compartment is sure to end.
    fn dismiss(&mut self, it: &mut Compartment) {
        if let Some(control) = it.control.take() {
            self.unwatch(control);
        }
    }

    /// Gives an order to a compartment, if one is ready.
    pub(super) fn order_compartment(
        &mut self,
        plan: &[u8],
        range: IdMap,
        order: &spawn::Order<'_>,
    ) -> Option<Taken> {
        let stdio = order.stdio.child.as_ref();
        let all: Vec<BorrowedFd<'_>> =
            order.descriptors.iter().chain(stdio.into_iter().flatten()).map(AsFd::as_fd).collect();
        let harmless = order.plan.limits.iter().all(is_harmless);
        let message = nursery::Order {
            plan: plan.into(),
            cgroup: order.cgroup,
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
            let confined = !harmless || self.confine(pid, &order.plan).is_ok();
            let ordered = self
                .map_ids(pid, range)
                .and(if confined { Ok(()) } else { Err(Errno::INVAL) })
                .and_then(|()| packet.send(control.as_fd(), SendFlags::DONTWAIT));
            if ordered.is_ok() {
                return Some(Taken { control, pidfd, confined: harmless });
            }
            // dead, or of no use any more
            let gone = Compartment { control: None, pidfd: Some((pid, pidfd)), made: true };
            self.compartments.all.insert(key, gone);
            self.unwatch(control);
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
            self.tell_of_compartments();
        }
    }

    /// Answers those who wait for all to be ready, once nothing is left to wait for.
    fn tell_of_compartments(&mut self) {
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

/// A control socket: the warden's end and the child's.
pub(super) fn sockets() -> Result<(OwnedFd, OwnedFd), Errno> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}
