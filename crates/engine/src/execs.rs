//! The execs that clients can ask for, in memory only: they end with their engine's knowledge.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bulkhead_types::Id;
use rustix::process::{Signal, pidfd_send_signal};
use tokio::sync::watch;

use crate::CreateExec;
use crate::descriptors::has_ended;

/// How long the exit code of one that has ended can be asked for. Docker forgets them after five to
/// ten minutes (moby: daemon/exec.go, `execCommandGC`).
const KEPT: Duration = Duration::from_secs(5 * 60);
/// How long an end that has happened is waited for: a machine may be busy, and the engine that is to
/// hear of it in trouble.
const END_TIMEOUT: Duration = Duration::from_secs(30);
/// How many of a container are kept that do not run: a health check's loop does not grow memory.
const MOST: usize = 512;

/// All execs. Their lock is taken last: nothing else is locked under it.
#[derive(Debug, Default)]
pub(crate) struct Execs {
    known: Mutex<BTreeMap<Id, ExecEntry>>,
}

/// For whom a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Client,
    /// A health check, which forgets it as soon as it has its exit code.
    Probe,
}

/// What has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndedExec {
    pub container: Id,
    pub purpose: Purpose,
}

#[derive(Debug)]
pub(crate) struct ExecEntry {
    pub container: Id,
    pub purpose: Purpose,
    pub create: CreateExec,
    pub started: bool,
    pub running: watch::Sender<bool>,
    pub exit_code: Option<u8>,
    pub pid: u32,
    pub pidfd: Option<OwnedFd>,
    /// It was ended because the warden was, which says nothing of what it ran for.
    pub lost: bool,
    /// Nobody asks for its exit code.
    abandoned: bool,
    pub terminal_size: (u16, u16),
    /// When it was made, or has ended.
    since: Instant,
}

impl ExecEntry {
    pub(crate) fn new(container: Id, create: CreateExec) -> Self {
        Self {
            container,
            purpose: Purpose::Client,
            create,
            started: false,
            running: watch::Sender::new(false),
            exit_code: None,
            pid: 0,
            pidfd: None,
            lost: false,
            abandoned: false,
            terminal_size: (0, 0),
            since: Instant::now(),
        }
    }

    /// One of a health check, which is about to be started.
    pub(crate) fn probe(container: Id, create: CreateExec) -> Self {
        Self { purpose: Purpose::Probe, started: true, ..Self::new(container, create) }
    }

    pub(crate) fn is_running(&self) -> bool {
        *self.running.borrow()
    }

    pub(crate) fn end(&mut self, exit_code: u8) {
        self.exit_code = Some(exit_code);
        self.pidfd = None;
        self.since = Instant::now();
        self.running.send_replace(false);
    }

    /// Whether its process has ended and the warden's event is still on its way.
    fn has_ended_unheard(&self) -> bool {
        self.is_running() && self.pidfd.as_ref().is_some_and(has_ended)
    }
}

impl Execs {
    pub(crate) fn insert(&self, id: Id, entry: ExecEntry) {
        let mut known = self.known();
        let is_kept = entry.purpose == Purpose::Client;
        known.insert(id, entry);
        if is_kept {
            forget_old(&mut known, Instant::now());
        }
    }

    /// Looks at one, or changes it; `None` if it is not known.
    pub(crate) fn with<T>(&self, id: Id, work: impl FnOnce(&mut ExecEntry) -> T) -> Option<T> {
        self.known().get_mut(&id).map(work)
    }

    /// Notes an end; what it was, if the exec is known.
    pub(crate) fn ended(&self, id: Id, exit_code: u8) -> Option<EndedExec> {
        let mut known = self.known();
        let entry = known.get_mut(&id)?;
        entry.end(exit_code);
        let ended = EndedExec { container: entry.container, purpose: entry.purpose };
        match (entry.purpose, entry.abandoned) {
            (Purpose::Probe, true) => drop(known.remove(&id)),
            (Purpose::Probe, false) => {}
            (Purpose::Client, _) => forget_old(&mut known, Instant::now()),
        }
        Some(ended)
    }

    /// Forgets one whether it has ended or not.
    pub(crate) fn remove(&self, id: Id) {
        self.known().remove(&id);
    }

    /// Forgets one now or with its end; whether it is still to be ended.
    pub(crate) fn abandon(&self, id: Id) -> bool {
        let mut known = self.known();
        let Some(entry) = known.get_mut(&id) else { return false };
        entry.abandoned = entry.exit_code.is_none();
        let runs = entry.abandoned;
        if !runs {
            known.remove(&id);
        }
        runs
    }

    /// A client's own in a container that have not ended, oldest id first.
    pub(crate) fn of(&self, container: Id) -> Vec<Id> {
        let known = self.known();
        let own = known
            .iter()
            .filter(|(_, entry)| entry.container == container && entry.exit_code.is_none())
            .filter(|(_, entry)| entry.purpose == Purpose::Client);
        own.map(|(id, _)| *id).collect()
    }

    /// Kills all that run; they are still to be noted as ended.
    pub(crate) fn kill_all(&self) -> Vec<Id> {
        let mut known = self.known();
        let running = known.iter_mut().filter(|(_, entry)| entry.is_running());
        let kill = |(id, entry): (&Id, &mut ExecEntry)| {
            entry.lost = true;
            if let Some(pidfd) = &entry.pidfd {
                let _ = pidfd_send_signal(pidfd, Signal::KILL);
            }
            *id
        };
        running.map(kill).collect()
    }

    pub(crate) fn forget_container(&self, container: Id) {
        self.known().retain(|_, entry| entry.container != container);
    }

    /// Whether it is taken to run while its process is there.
    pub(crate) fn seems_to_run(&self, id: Id) -> bool {
        self.with(id, |entry| entry.is_running() && !entry.has_ended_unheard()).unwrap_or(false)
    }

    /// Waits for an end that has happened and is not noted yet.
    pub(crate) async fn await_end(&self, id: Id) {
        let running = self.with(id, |entry| entry.running.subscribe());
        if let Some(mut running) = running {
            let ended = running.wait_for(|running| !running);
            let _ = tokio::time::timeout(END_TIMEOUT, ended).await;
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Id, ExecEntry>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets those that ended long ago, and the oldest of a container that has very many that do not
/// run.
fn forget_old(known: &mut BTreeMap<Id, ExecEntry>, now: Instant) {
    known.retain(|_, entry| {
        entry.exit_code.is_none() || now.saturating_duration_since(entry.since) < KEPT
    });
    let mut idle: BTreeMap<Id, Vec<(Instant, Id)>> = BTreeMap::new();
    for (id, entry) in known.iter().filter(|(_, entry)| !entry.started || entry.exit_code.is_some())
    {
        idle.entry(entry.container).or_default().push((entry.since, *id));
    }
    for mut own in idle.into_values().filter(|own| own.len() > MOST) {
        own.sort_unstable();
        for (_, id) in &own[..own.len() - MOST] {
            known.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_ones_are_forgotten_by_age_and_by_number() {
        let (container, other) = (Id::random(), Id::random());
        let execs = Execs::default();
        let running = Id::random();
        execs.insert(running, ExecEntry::new(container, CreateExec::default()));
        execs.with(running, |entry| {
            entry.started = true;
            entry.running.send_replace(true);
        });
        let elsewhere = Id::random();
        execs.insert(elsewhere, ExecEntry::new(other, CreateExec::default()));
        let ids: Vec<Id> = (0..MOST + 10).map(|_| Id::random()).collect();
        for id in &ids {
            execs.insert(*id, ExecEntry::new(container, CreateExec::default()));
            execs.with(*id, |entry| entry.started = true);
            let ended = execs.ended(*id, 0).unwrap();
            assert_eq!((ended.container, ended.purpose), (container, Purpose::Client));
        }
        assert_eq!(execs.of(container), [running]);
        assert!(execs.with(ids[9], |_| ()).is_none(), "the oldest go first");
        assert!(execs.with(ids[10], |_| ()).is_some());
        forget_old(&mut execs.known(), Instant::now() + KEPT);
        assert_eq!(execs.known().len(), 2, "the one that runs, and one not started yet");
        execs.forget_container(container);
        assert_eq!(execs.of(other), [elsewhere]);
    }

    #[test]
    fn probes_are_not_listed_and_are_forgotten_with_their_end() {
        let (container, execs) = (Id::random(), Execs::default());
        let (awaited, given_up) = (Id::random(), Id::random());
        for id in [awaited, given_up] {
            execs.insert(id, ExecEntry::probe(container, CreateExec::default()));
        }
        assert!(execs.of(container).is_empty());
        assert!(execs.abandon(given_up), "it is to be ended");
        for id in [awaited, given_up] {
            assert_eq!(execs.ended(id, 1), Some(EndedExec { container, purpose: Purpose::Probe }));
        }
        assert_eq!(execs.with(awaited, |entry| entry.exit_code), Some(Some(1)));
        assert!(!execs.abandon(awaited), "it has ended");
        assert!(execs.known().is_empty());
    }
}
