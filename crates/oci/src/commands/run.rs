use bulkhead_runtime::hook;
use bulkhead_types::oci::Status;
use rustix::process::{Signal, pidfd_send_signal};

use super::delete;
use crate::arguments::{Command, Global};
use crate::error::Result;
use crate::foreground::{self, Foreground};
use crate::hooks::HookFiles;
use crate::launch::{self, Created};
use crate::log::Log;

pub fn create(global: &Global, command: &Command, log: &Log) -> Result<u8> {
    launch::create(global, command, log)?.go()?;
    Ok(0)
}

pub fn run(global: &Global, command: &Command, log: &Log) -> Result<u8> {
    let detach = command.has("detach");
    if !detach && !command.has("no-subreaper") {
        // without it processes that outlive the first one would be nobody's here
        let _ = bulkhead_sys::process::become_subreaper();
    }
    let created = launch::create(global, command, log)?;
    let foreground = if detach { None } else { Some(Foreground::prepare()?) };
    let started = created.go().and_then(|()| created.executed("run"));
    let started = started.and_then(|()| poststart(&created, log));
    let Some(foreground) = foreground.filter(|_| started.is_ok()) else {
        if started.is_err() {
            let _ = pidfd_send_signal(&created.child.pidfd, Signal::KILL);
            let _ = foreground::exit_status(&created.child.pidfd);
            remove(&created, log)?;
        }
        return started.map(|()| 0);
    };
    // others may look at it and change it from here on
    created.directory.unlock();
    let status = foreground.stay(&created.child.pidfd, created.terminal.as_ref())?;
    if !command.has("keep") {
        created.directory.lock()?;
        remove(&created, log)?;
    }
    Ok(status)
}

fn remove(created: &Created, log: &Log) -> Result<()> {
    let (record, cgroup) = (Some(&created.record), created.cgroup.as_ref());
    delete::remains(&created.directory, record, cgroup, &created.config, log)
}

fn poststart(created: &Created, log: &Log) -> Result<()> {
    let Some(hooks) = &created.config.hooks else { return Ok(()) };
    let state = created.record.state(Status::Running, &created.config);
    let files = HookFiles::open_if_possible(&created.config, &created.record.bundle, log);
    Ok(hook::run_all("poststart", &hooks.poststart, &state, files.outputs())?)
}
