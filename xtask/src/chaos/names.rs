//! Names of network namespaces: those that were given are there, and those that were taken away are not.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;

use super::stage::{NAMES, Stage, run};

/// What clients know of names.
#[derive(Debug, Default)]
pub struct Names(Mutex<BTreeMap<String, Told>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// The answer never came: it may be there, half of it, or not.
    Unknown,
    Given,
    Taken,
}

impl Names {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Told>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, name: &str, told: Told) {
        self.lock().insert(name.to_owned(), told);
    }

    /// Names the namespace of a container.
    pub fn give(&self, stage: &Stage, container: &str, name: &str) -> Result<()> {
        self.set(name, Told::Unknown);
        stage.bulkhead(&["netns", "attach", container, name])?;
        self.set(name, Told::Given);
        Ok(())
    }

    pub fn take(&self, stage: &Stage, name: &str) -> Result<()> {
        self.set(name, Told::Unknown);
        stage.bulkhead(&["netns", "delete", name])?;
        self.set(name, Told::Taken);
        Ok(())
    }

    /// After a round. What an engine that was killed half-way has left can be given again, and all can
    /// be taken away.
    pub fn compare(&self, stage: &Stage, when: &str, lost: &mut Vec<String>) -> Result<()> {
        let listed = stage.bulkhead(&["netns", "ls"])?;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let names = self.lock().clone();
        for (name, told) in names {
            let is_listed = listed.lines().any(|line| line.split(' ').next() == Some(&name));
            let place = format!(" {NAMES}/{name} ");
            let is_mounted = mounts.lines().any(|line| line.contains(&place));
            let right = match told {
                Told::Taken if !is_listed && !is_mounted => continue,
                Told::Taken => Err(anyhow::anyhow!("it is there")),
                Told::Given => run("ip", &["netns", "exec", &name, "true"]).map(drop),
                // By the command alone: an engine that is armed still would die of it.
                Told::Unknown if !is_mounted => stage.bulkhead(&["netns", "add", &name]).map(drop),
                Told::Unknown => Ok(()),
            };
            if let Err(error) = right.and_then(|()| self.take(stage, &name)) {
                lost.push(format!("{when}: the name {name}, {told:?}: {error}"));
            }
        }
        Ok(())
    }
}
