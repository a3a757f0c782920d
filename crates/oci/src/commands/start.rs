use bulkhead_runtime::hook;
use bulkhead_types::oci::Status;

use super::delete;
use crate::arguments::{Command, Global};
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::handshake;
use crate::hooks::HookFiles;
use crate::log::Log;

pub fn run(global: &Global, command: &Command, log: &Log) -> Result<u8> {
    let directory = Directory::open(&global.root, command.id()?)?;
    directory.lock()?;
    let (record, status) = directory.look()?;
    let (Status::Created, Some(record)) = (status, record) else {
        return Err(Error::Refused(match status {
            Status::Stopped => "cannot start a container that has stopped".to_owned(),
            Status::Creating => "cannot start a container that is still being created".to_owned(),
            _ => "cannot start an already running container".to_owned(),
        }));
    };
    let config = directory.config()?;
    let stopped = || Error::Refused("cannot start a container that has stopped".to_owned());
    let process = record.process.ok_or_else(stopped)?;
    // before it may go on: a short program has ended, and its parent has reaped it, at once
    let pidfd = process.open().ok_or_else(stopped)?;
    let control = directory.call()?.ok_or_else(stopped)?;
    handshake::say(&control, process.pid)?;
    let process = handshake::Process { pidfd: &pidfd, pid: process.pid };
    let state = || record.state(Status::Created, &config);
    handshake::await_execution(&control, process, &config, state, |failure| Error::Start {
        command: "start",
        reason: failure.detail.clone(),
    })?;
    if let Some(hooks) = &config.hooks {
        let state = record.state(Status::Running, &config);
        let files = HookFiles::open_if_possible(&config, &record.bundle, log);
        let ran = hook::run_all("poststart", &hooks.poststart, &state, files.outputs());
        if ran.is_err() {
            // runtime.md, "Lifecycle": stop the container and go on as for a delete
            delete::remains(&directory, Some(&record), None, &config, log)?;
        }
        ran?;
    }
    Ok(0)
}
