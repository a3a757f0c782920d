//! What clients do meanwhile, and what they were told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Result, bail, ensure};

use super::names::Names;
use super::stage::Stage;

/// What a client knows of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The answer never came: it may be there or not.
    Unknown,
    Created,
    /// It was started, and ends by itself with this code.
    Started(u8),
    /// It has ended with this code.
    Ended(u8),
    Removed,
}

#[derive(Debug, Default)]
pub struct Model {
    containers: Mutex<BTreeMap<String, Told>>,
    /// Those that may have run on a full disk, where their own writes fail.
    cramped: Mutex<BTreeSet<String>>,
    full: AtomicBool,
    /// Those that may have run when a warden died, which had read some of their output.
    shaken: Mutex<BTreeSet<String>>,
    /// Names of network namespaces.
    pub names: Names,
    shaking: AtomicBool,
    /// How often [`STEADY`] was told to start, and did.
    steady: AtomicUsize,
}

/// Lines that each container writes before it ends.
pub const LINES: usize = 20;
/// Containers that run all the time, and restart by their policy.
pub const STEADY: &str = "steady";
pub const AGAIN: &str = "again";

impl Model {
    pub fn containers(&self) -> MutexGuard<'_, BTreeMap<String, Told>> {
        lock(&self.containers)
    }

    /// To be called before the disk is filled: whoever is not known to have ended is marked.
    pub fn fills(&self) {
        self.full.store(true, Ordering::SeqCst);
        let containers = self.containers().clone();
        let ended = |told: &Told| matches!(told, Told::Ended(_) | Told::Removed);
        for (name, _) in containers.iter().filter(|(_, told)| !ended(told)) {
            self.cramp(name);
        }
    }

    fn cramp(&self, name: &str) {
        lock(&self.cramped).insert(name.to_owned());
    }

    pub fn is_free(&self) {
        self.full.store(false, Ordering::SeqCst);
    }

    pub fn was_cramped(&self, name: &str) -> bool {
        lock(&self.cramped).contains(name)
    }

    /// To be called before a warden may die: whoever is not known to have ended is marked.
    pub fn shakes(&self) {
        self.shaking.store(true, Ordering::SeqCst);
        let containers = self.containers().clone();
        let mut shaken = lock(&self.shaken);
        let ended = |told: &Told| matches!(told, Told::Ended(_) | Told::Removed);
        shaken
            .extend(containers.into_iter().filter(|(_, told)| !ended(told)).map(|(name, _)| name));
    }

    /// A round is over, and no warden dies for now.
    pub fn is_calm(&self) {
        self.shaking.store(false, Ordering::SeqCst);
    }

    pub fn was_shaken(&self, name: &str) -> bool {
        lock(&self.shaken).contains(name)
    }

    /// The most lines that [`STEADY`] can have logged.
    pub fn steady_starts(&self) -> usize {
        self.steady.load(Ordering::SeqCst)
    }

    fn set(&self, name: &str, told: Told) {
        self.containers().insert(name.to_owned(), told);
    }
}

/// Starts [`STEADY`] again where it has ended with both engine and warden. Armed ones may die of it.
pub fn revive(stage: &Stage, model: &Model) -> Result<()> {
    let mut last = String::new();
    for _ in 0..4 {
        if stage.bulkhead(&["inspect", "-f", "{{.State.Running}}", STEADY])? == "true" {
            return Ok(());
        }
        model.steady.fetch_add(1, Ordering::SeqCst);
        match stage.bulkhead(&["start", STEADY]) {
            Ok(_) => {}
            Err(error) => last = error.to_string(),
        }
    }
    bail!("{STEADY} does not start: {last}");
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn start_steady(stage: &Stage, model: &Model) -> Result<()> {
    model.steady.store(1, Ordering::SeqCst);
    let script = "echo begin; while true; do sleep 1000; done";
    stage.bulkhead(&["run", "-d", "--name", STEADY, "-p", "8080:80", "box", "sh", "-c", script])?;
    let policy = "--restart=always";
    stage.bulkhead(&[
        "run",
        "-d",
        "--name",
        AGAIN,
        policy,
        "box",
        "sh",
        "-c",
        "sleep 1; exit 3",
    ])?;
    ensure!(model.containers().is_empty(), "the load has not begun");
    Ok(())
}

/// Creates, starts, waits for, executes in and removes containers until it is told to stop or the
/// engine is gone.
pub fn worker(stage: &Stage, model: &Model, prefix: &str, stop: &AtomicBool) {
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("{prefix}t{turn}");
        let code = u8::try_from(turn % 120 + 1).unwrap_or(1);
        if one(stage, model, &name, code, turn).is_err() && stage.bulkhead(&["version"]).is_err() {
            return;
        }
    }
}

fn one(stage: &Stage, model: &Model, name: &str, code: u8, turn: usize) -> Result<()> {
    let volume = format!("{name}:/v");
    let script = format!(
        "echo {name} >/v/file; i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); done; exit {code}"
    );
    model.set(name, Told::Unknown);
    if model.full.load(Ordering::SeqCst) {
        model.cramp(name);
    }
    if model.shaking.load(Ordering::SeqCst) {
        lock(&model.shaken).insert(name.to_owned());
    }
    let mut create = vec!["create", "--name", name, "-v", &volume];
    if turn.is_multiple_of(3) {
        create.extend(["-p", "0:80"]);
    }
    create.extend(["box", "sh", "-c", &script]);
    stage.bulkhead(&create)?;
    model.set(name, Told::Created);
    match stage.bulkhead(&["start", name]) {
        Ok(_) => model.set(name, Told::Started(code)),
        Err(error) => {
            model.set(name, Told::Unknown);
            return Err(error);
        }
    }
    if turn % 4 == 1 {
        stage.bulkhead(&["exec", STEADY, "true"])?;
    }
    if turn % 4 == 3 {
        model.names.give(stage, STEADY, name)?;
        if turn % 8 == 3 {
            model.names.take(stage, name)?;
        }
    }
    let waited = stage.bulkhead(&["wait", name])?;
    if waited.trim() != code.to_string() {
        // Left as started with its code: the comparison tells it as lost.
        bail!("{name}: wait said {waited}, not {code}");
    }
    model.set(name, Told::Ended(code));
    if turn.is_multiple_of(2) {
        remove(stage, model, name)?;
    }
    Ok(())
}

fn remove(stage: &Stage, model: &Model, name: &str) -> Result<()> {
    let before = model.containers().get(name).copied();
    model.set(name, Told::Unknown);
    match stage.bulkhead(&["rm", "-f", name]) {
        Ok(_) => model.set(name, Told::Removed),
        Err(error) => {
            // Refused: it is what it was. No answer: nobody knows.
            if let (Some(before), true) = (before, stage.bulkhead(&["version"]).is_ok()) {
                model.set(name, before);
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Removes some containers that have ended: on a full disk this must work.
pub fn remove_some(stage: &Stage, model: &Model) -> Result<()> {
    let ended: Vec<String> = {
        let containers = model.containers();
        let started = containers.iter().filter(|(_, told)| matches!(told, Told::Ended(_)));
        started.take(3).map(|(name, _)| name.clone()).collect()
    };
    for name in ended {
        remove(stage, model, &name)?;
    }
    Ok(())
}
