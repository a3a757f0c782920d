//! What the engine knows, in memory; the store has all of it that must outlive the process.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use bulkhead_types::{Digest, Id, Name};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::oom::OomTask;
use crate::ports::Reservation;
use crate::{Container, EngineError, PortBinding, Status, Streams};

/// What the store keeps of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub container: Container,
    /// Diff ids of the image's layers, lowest first.
    pub layers: Vec<Digest>,
    /// `docker stop` or `kill` ended it, so its policy leaves it alone.
    #[serde(default)]
    pub stopped_by_user: bool,
    /// A step of a build: it goes when it has ended, and when an engine that opens finds it.
    #[serde(default)]
    pub throw_away: bool,
}

impl Record {
    pub(crate) fn key(id: Id) -> String {
        format!("container/{id}")
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.container.state.status, Status::Running | Status::Paused)
    }
}

/// A container with what only this process knows of it.
#[derive(Debug)]
pub(crate) struct Slot {
    pub record: Record,
    pub live: Live,
    /// Held by what changes the container; every writer of `record` holds it.
    pub operation: Arc<tokio::sync::Mutex<()>>,
    pub progress: watch::Sender<Progress>,
}

impl Slot {
    pub(crate) fn new(record: Record) -> Self {
        let progress = Progress {
            running: record.is_running(),
            code: record.container.state.exit_code,
            ..Progress::default()
        };
        Self {
            record,
            live: Live::default(),
            operation: Arc::default(),
            progress: watch::Sender::new(progress),
        }
    }
}

/// What waiters look at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// How often it has ended since this engine opened.
    pub ends: u64,
    /// With which status it ended last.
    pub code: u8,
    /// Running, paused, or about to be restarted by its policy.
    pub running: bool,
    pub removed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Live {
    pub pidfd: Option<Arc<OwnedFd>>,
    /// What another warden needs to go on with it.
    pub handover: Option<Arc<bulkhead_warden::Handover>>,
    pub ports: Vec<Reservation>,
    /// Its network namespace, so that the links can outlast it for a moment.
    pub netns: Option<Arc<OwnedFd>>,
    /// Hears of kills for want of memory, and whether one was told.
    pub oom: Option<OomTask>,
    pub oom_told: bool,
    /// Clients that attached before the start.
    pub waiting: Vec<(UnixStream, Streams)>,
    /// What a client asked for before there was a terminal.
    pub terminal_size: (u16, u16),
    /// The wait before the last start by policy.
    pub last_wait: std::time::Duration,
    /// Its end is not on disk yet, and the warden keeps it; see `settle.rs`.
    pub unrecorded: bool,
    /// How many `docker restart` end it just now, to start it again.
    pub restarting: u32,
    /// Counts starts and stops by users, so that a restart that was planned before is dropped.
    pub generation: u64,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub containers: BTreeMap<Id, Slot>,
    pub names: HashMap<Name, Id>,
}

impl State {
    /// Finds a container by name, id or unambiguous start of an id, in this order.
    pub(crate) fn find(&self, text: &str) -> Result<Id, EngineError> {
        let missing = || EngineError::not_found(format!("No such container: {text}"));
        if let Ok(id) = text.parse::<Id>()
            && self.containers.contains_key(&id)
        {
            return Ok(id);
        }
        let name = text.strip_prefix('/').unwrap_or(text);
        if let Ok(name) = name.parse::<Name>()
            && let Some(id) = self.names.get(&name)
        {
            return Ok(*id);
        }
        if text.is_empty() || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(missing());
        }
        let mut matching = self.containers.keys().filter(|id| id.to_string().starts_with(text));
        match (matching.next(), matching.next()) {
            (None, _) => Err(missing()),
            (Some(id), None) => Ok(*id),
            (Some(_), Some(_)) => Err(EngineError::invalid(format!(
                "multiple IDs found with provided prefix: {text}"
            ))),
        }
    }

    pub(crate) fn slot(&self, id: Id) -> Result<&Slot, EngineError> {
        let missing = || EngineError::not_found(format!("No such container: {id}"));
        self.containers.get(&id).ok_or_else(missing)
    }

    pub(crate) fn slot_mut(&mut self, id: Id) -> Result<&mut Slot, EngineError> {
        let missing = || EngineError::not_found(format!("No such container: {id}"));
        self.containers.get_mut(&id).ok_or_else(missing)
    }

    /// Every host port that a container holds now.
    pub(crate) fn published(&self) -> Vec<PortBinding> {
        self.containers
            .values()
            .flat_map(|slot| slot.live.ports.iter().map(|reservation| reservation.binding))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Class;

    #[test]
    fn containers_are_found_by_name_id_and_prefix() {
        let mut state = State::default();
        let mut ids = Vec::new();
        for name in ["one", "two"] {
            let container = crate::container::tests::container(name);
            ids.push(container.id);
            state.names.insert(container.name.clone(), container.id);
            let record =
                Record { container, layers: vec![], stopped_by_user: false, throw_away: false };
            state.containers.insert(record.container.id, Slot::new(record));
        }
        assert_eq!(state.find("/one").unwrap(), ids[0]);
        assert_eq!(state.find(&ids[1].to_string()).unwrap(), ids[1]);
        assert_eq!(state.find(&ids[1].short()).unwrap(), ids[1]);
        for (text, class) in [("three", Class::NotFound), ("", Class::NotFound)] {
            let error = state.find(text).unwrap_err();
            assert_eq!(error.class, class);
            assert_eq!(error.message, format!("No such container: {text}"));
        }
    }
}
