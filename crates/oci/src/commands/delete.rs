use std::time::Duration;

use bulkhead_runtime::cgroup::Cgroup;
use bulkhead_types::oci::{Config, Status};
use regex_lite::Regex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

use crate::arguments::{Command, Global};
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::hooks::{self, HookFiles};
use crate::log::Log;
use crate::rdt;
use crate::record::{Identity, Record};

pub fn run(global: &Global, command: &Command, log: &Log) -> Result<u8> {
    let (id, force) = (command.id()?, command.has("force"));
    if !command.has("regex") {
        return one(global, id, force, log);
    }
    let mut result = Ok(0);
    for id in matching(id, Directory::ids(&global.root)?)? {
        let deleted = match one(global, &id, force, log) {
            // another has been faster
            Err(Error::NoContainer) => continue,
            other => other,
        };
        if let (Err(_), Err(error)) = (&result, &deleted) {
            log.warn(&format!("delete container {id}: {error}"));
        }
        result = result.and(deleted);
    }
    result
}

/// The ids in which a regular expression is found, anywhere: crun.1, `delete --regex`.
fn matching(expression: &str, ids: Vec<String>) -> Result<Vec<String>> {
    if expression.is_empty() {
        // a variable that was never set would delete them all
        let text = "an empty regular expression matches every container: for that, write `.`";
        return Err(Error::Usage(text.to_owned()));
    }
    let expression = Regex::new(expression).map_err(|error| {
        Error::Usage(format!("{expression:?} is not a regular expression: {error}"))
    })?;
    Ok(ids.into_iter().filter(|id| expression.is_match(id)).collect())
}

fn one(global: &Global, id: &str, force: bool, log: &Log) -> Result<u8> {
    let directory = match Directory::open(&global.root, id) {
        Err(Error::NoContainer) if force => return Ok(0),
        other => other?,
    };
    directory.lock()?;
    let (record, status) = directory.look()?;
    let allowed = matches!(status, Status::Stopped | Status::Created | Status::Creating);
    if !allowed && !force {
        let text = format!("cannot delete container {id} that is not stopped: {}", status.name());
        return Err(Error::Refused(text));
    }
    let config = match directory.config() {
        // only for hooks, and what cannot be read can still be removed
        Err(_) if force => Config::default(),
        other => other?,
    };
    remains(&directory, record.as_ref(), None, &config, log)?;
    Ok(0)
}

/// Ends what still lives of a container and removes everything of it; goes on past failures and
/// returns the first. Who has made its cgroup in this process need not have it found again.
pub fn remains(
    directory: &Directory,
    record: Option<&Record>,
    cgroup: Option<&Cgroup>,
    config: &Config,
    log: &Log,
) -> Result<()> {
    let mut result = Ok(());
    if let Some(record) = record {
        result = match cgroup {
            Some(cgroup) => end(record, Some(cgroup)),
            None => record.cgroup.open().and_then(|cgroup| end(record, cgroup.as_ref())),
        };
    }
    if let Some(record) = record {
        result = result.and(rdt::remove(&record.resctrl));
    }
    if result.is_ok() {
        result = directory.remove();
    }
    if let (Some(record), Some(hooks)) = (record, &config.hooks)
        && !hooks.poststop.is_empty()
    {
        let state = record.state(Status::Stopped, config);
        let files = HookFiles::open_if_possible(config, &record.bundle, log);
        hooks::poststop(hooks, &state, files.outputs(), log);
    }
    result
}

/// Kills all processes of a container, waits until they are gone, and removes its cgroup.
fn end(record: &Record, cgroup: Option<&Cgroup>) -> Result<()> {
    const TIMEOUT: Duration = Duration::from_secs(10);
    let process = record.process.and_then(Identity::open);
    if let (None, None, Some(cgroup)) = (&process, &record.cgroup.unit, cgroup)
        && cgroup.delete_unused()?
    {
        return Ok(());
    }
    let whole = cgroup;
    let cgroup = cgroup.filter(|cgroup| cgroup.exists());
    if let Some(pidfd) = &process {
        let _ = pidfd_send_signal(pidfd, Signal::KILL);
    }
    if let Some(cgroup) = cgroup
        && !cgroup.pids()?.is_empty()
    {
        cgroup.kill()?;
    }
    let gone = match (&process, cgroup) {
        (Some(pidfd), _) if !ends_within(pidfd, TIMEOUT) => false,
        (_, Some(cgroup)) => cgroup.wait_empty(TIMEOUT)?,
        _ => true,
    };
    if gone {
        return record.cgroup.remove(&record.id, whole);
    }
    Err(Error::Refused(format!(
        "container {} has been killed but does not end: a process of it is stuck in the kernel",
        record.id
    )))
}

/// Waits for the end of a process that may be another's child.
fn ends_within(pidfd: &std::os::fd::OwnedFd, patience: Duration) -> bool {
    let timeout = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout)) {
            Err(Errno::INTR) => {}
            other => return other.is_ok_and(|ready| ready > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_found_anywhere_in_an_id() {
        let ids = || ["test-1", "test-2", "other", "latest"].map(str::to_owned).to_vec();
        for (expression, want) in [
            ("test-*", vec!["test-1", "test-2", "latest"]),
            ("^test-[[:digit:]]$", vec!["test-1", "test-2"]),
            ("^(other|x)$", vec!["other"]),
            ("nothing", vec![]),
        ] {
            assert_eq!(matching(expression, ids()).unwrap(), want, "{expression}");
        }
        for wrong in ["", "(", "[z-a]"] {
            assert!(matches!(matching(wrong, ids()), Err(Error::Usage(_))), "{wrong}");
        }
    }
}
