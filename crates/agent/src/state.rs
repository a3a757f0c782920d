//! The agent's memory across restarts: one small JSON file, replaced as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, rename};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bulkhead_aws_api::acs::PayloadTask;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is remembered.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct State {
    /// `i-` and 17 hexadecimal digits, made once.
    pub instance_id: String,
    /// What the control plane gave us; none before the first registration.
    pub container_instance_arn: Option<String>,
    /// By ARN.
    pub tasks: BTreeMap<String, SavedTask>,
}

/// A task that was taken on and whose containers are not removed yet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SavedTask {
    pub payload: PayloadTask,
    /// Containers that were made, by their names in the task: one that is gone was not never there.
    pub made: BTreeMap<String, String>,
    /// Containers of which it is certain that they were started.
    pub started: BTreeSet<String>,
    /// Seconds since 1970 at which everything had stopped.
    pub finished_at: Option<i64>,
    /// The last word about the task.
    pub last_report: Option<Value>,
    /// Whether the control plane has taken it.
    pub told: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("read the agent's state from {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error(
        "the agent's state {path} is damaged; move it away to start as a new container instance"
    )]
    Damaged { path: PathBuf, source: serde_json::Error },
    #[error("write the agent's state to {path}")]
    Write { path: PathBuf, source: std::io::Error },
}

/// The state and the file that holds it.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    state: Mutex<State>,
}

impl StateFile {
    /// Reads the file below `directory`, or starts afresh with a new instance id.
    pub(crate) fn open(directory: &Path) -> Result<Self, StateError> {
        let path = directory.join("agent.json");
        let failed = |source| StateError::Write { path: path.clone(), source };
        std::fs::create_dir_all(directory).map_err(failed)?;
        let state = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| StateError::Damaged { path: path.clone(), source })?,
            Err(error) if error.kind() == ErrorKind::NotFound => State::default(),
            Err(source) => return Err(StateError::Read { path, source }),
        };
        let file = Self { path, state: Mutex::new(state) };
        if file.read(|state| state.instance_id.is_empty()) {
            file.change(|state| state.instance_id = format!("i-{}", random_hex(17)))?;
        }
        Ok(file)
    }

    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the state and has it on disk when it returns; an unchanged disk means an unchanged state.
    pub(crate) fn change<T>(&self, edit: impl FnOnce(&mut State) -> T) -> Result<T, StateError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = state.clone();
        let value = edit(&mut changed);
        self.write(&changed)
            .map_err(|source| StateError::Write { path: self.path.clone(), source })?;
        *state = changed;
        Ok(value)
    }

    fn write(&self, state: &State) -> std::io::Result<()> {
        let temporary = self.path.with_extension("json.new");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(state)?)?;
        file.sync_all()?;
        rename(&temporary, &self.path)?;
        // the rename itself must survive a power cut
        File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()
    }
}

/// `length` random hexadecimal digits, at most 32.
pub(crate) fn random_hex(length: usize) -> String {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        // only interrupted before the kernel's pool is ready, which is long past
        let rest = &mut bytes[filled..];
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
    }
    let mut digits = format!("{:032x}", u128::from_be_bytes(bytes));
    digits.truncate(length);
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_outlives_the_agent() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::open(directory.path()).unwrap();
        let id = file.read(|state| state.instance_id.clone());
        assert_eq!((id.len(), &id[..2]), (19, "i-"));
        file.change(|state| state.tasks.insert("arn".into(), SavedTask::default())).unwrap();
        drop(file);
        let file = StateFile::open(directory.path()).unwrap();
        assert!(file.read(|state| state.instance_id == id && state.tasks.contains_key("arn")));
        std::fs::write(directory.path().join("agent.json"), b"{").unwrap();
        assert!(matches!(StateFile::open(directory.path()), Err(StateError::Damaged { .. })));
    }
}
