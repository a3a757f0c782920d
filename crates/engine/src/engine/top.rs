//! `docker top`, and the namespaces of running containers.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use bulkhead_types::Id;

use crate::blocking::blocking;
use crate::{Engine, EngineError, Status};

impl Engine {
    /// The rows of ps(1) for the container's processes: (titles, rows).
    pub async fn top(
        self: &Arc<Self>,
        id: Id,
    ) -> Result<(Vec<String>, Vec<Vec<String>>), EngineError> {
        let engine = Arc::clone(self);
        blocking(move |_| {
            let container = engine.containers.record(id)?.container;
            if !matches!(container.state.status, Status::Running | Status::Paused) {
                return Err(EngineError::not_running(container.id));
            }
            let mut pids = engine.cgroups.of(container.id)?.pids()?;
            pids.sort_unstable();
            let titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];
            let boot = boot_time();
            // One that has ended since is passed over.
            let rows = pids.into_iter().filter_map(|pid| process_row(pid, boot)).collect();
            Ok((titles.map(str::to_owned).to_vec(), rows))
        })
        .await
    }

    /// Duplicates a namespace descriptor of a running container (`net` for `bulkhead netns attach`).
    pub async fn namespace(self: &Arc<Self>, id: Id, kind: &str) -> Result<OwnedFd, EngineError> {
        let container = self.containers.record(id)?.container;
        if !matches!(container.state.status, Status::Running | Status::Paused) {
            return Err(EngineError::not_running(container.id));
        }
        let engine = Arc::clone(self);
        let kind = kind.to_owned();
        blocking(move |_| engine.namespace_of(container.id, &kind)).await
    }
}

/// Seconds since the epoch.
fn boot_time() -> i64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.lines()
        .find_map(|line| line.strip_prefix("btime "))
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

/// One row of `ps -ef`, from proc_pid_stat(5).
fn process_row(pid: u32, boot: i64) -> Option<Vec<String>> {
    use std::os::unix::fs::MetadataExt;
    let user = std::fs::metadata(format!("/proc/{pid}")).ok()?.uid();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may itself hold anything.
    let (start, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|it| it.parse::<i64>().ok());
    let ticks = i64::try_from(rustix::param::clock_ticks_per_second()).ok()?.max(1);
    let seconds = (number(11)? + number(12)?) / ticks;
    let started = boot + number(19)? / ticks;
    let age = (bulkhead_types::Timestamp::now().as_second() - started).max(1);
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command).replace('\0', " ").trim().to_owned();
    let command = match command.as_str() {
        "" => format!("[{}]", start.split_once('(')?.1),
        _ => command,
    };
    let start_time = bulkhead_types::Timestamp::from_second(started).ok()?;
    let terminal = match number(4)? {
        0 => "?".to_owned(),
        device => format!("pts/{}", device & 0xff),
    };
    Some(vec![
        user.to_string(),
        pid.to_string(),
        fields.get(1)?.to_string(),
        (seconds * 100 / age).to_string(),
        start_time.strftime("%H:%M").to_string(),
        terminal,
        format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
        command,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_row() {
        let row = process_row(std::process::id(), boot_time()).unwrap();
        assert_eq!(row.len(), 8);
        assert_eq!(row[1], std::process::id().to_string());
        assert_eq!(row[2], rustix::process::getppid().unwrap().as_raw_nonzero().to_string());
    }
}
