//! What a container uses and which processes it has.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::blocking::blocking;
use crate::control::not_running;
use crate::create::{Shares, Users};
use crate::engine::NO_IDMAPPED_LAYERS;
use crate::{Engine, EngineError, HostConfig, Info, Stats, Status};

impl Engine {
    pub async fn stats(self: &Arc<Self>, name: &str) -> Result<Stats, EngineError> {
        let engine = Arc::clone(self);
        let name = name.to_owned();
        blocking(move |_| {
            let container = engine.container(&name)?;
            if !matches!(container.state.status, Status::Running | Status::Paused) {
                return Ok(Stats::default());
            }
            let usage = engine.cgroup(container.id)?.stats()?;
            let host = HostUsage::read();
            // One processes' view of /proc/net is its network namespace's.
            let counters = format!("/proc/{}/net/dev", container.state.pid);
            let counters = std::fs::read_to_string(counters).unwrap_or_default();
            Ok(Stats {
                memory_usage: usage.memory_usage,
                memory_limit: usage.memory_limit.unwrap_or(host.memory).min(host.memory),
                memory_inactive_file: usage.memory_inactive_file,
                cpu_total: usage.cpu_total,
                cpu_system: host.cpu,
                online_cpus: u32::try_from(processors()).unwrap_or(u32::MAX),
                pids: usage.pids,
                pids_limit: usage.pids_limit.unwrap_or(0),
                networks: interfaces(&counters),
            })
        })
        .await
    }

    /// The rows of ps(1) for the container's processes: (titles, rows).
    pub async fn top(
        self: &Arc<Self>,
        name: &str,
    ) -> Result<(Vec<String>, Vec<Vec<String>>), EngineError> {
        let engine = Arc::clone(self);
        let name = name.to_owned();
        blocking(move |_| {
            let container = engine.container(&name)?;
            if !matches!(container.state.status, Status::Running | Status::Paused) {
                return Err(EngineError::conflict(not_running(&container)));
            }
            let mut pids = engine.cgroup(container.id)?.pids()?;
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
    pub async fn namespace(
        self: &Arc<Self>,
        name: &str,
        kind: &str,
    ) -> Result<OwnedFd, EngineError> {
        let container = self.container(name)?;
        if !matches!(container.state.status, Status::Running | Status::Paused) {
            return Err(EngineError::conflict(not_running(&container)));
        }
        let engine = Arc::clone(self);
        let kind = kind.to_owned();
        blocking(move |_| engine.namespace_of(container.id, &kind)).await
    }

    pub fn info(&self) -> Info {
        let containers = self.containers();
        let count = |wanted: &[Status]| {
            containers.iter().filter(|it| wanted.contains(&it.state.status)).count()
        };
        let running = count(&[Status::Running, Status::Restarting]);
        let paused = count(&[Status::Paused]);
        Info {
            id: self.id.to_string(),
            containers: containers.len(),
            running,
            paused,
            stopped: containers.len() - running - paused,
            images: self.images.count(),
            memory: HostUsage::read().memory,
            cpus: processors(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            operating_system: operating_system(),
            hostname: self.hostname.clone(),
            cgroup_version: match self.hierarchies.mode() {
                bulkhead_runtime::cgroup::HostMode::V2 => "2".to_owned(),
                _ => "1".to_owned(),
            },
            controllers: ["cpu", "cpuset", "memory", "pids"]
                .into_iter()
                .filter(|controller| self.hierarchies.has(controller))
                .collect(),
            supports_idmapped_layers: self.supports_idmapped_layers,
            data: self.options.data.display().to_string(),
            warnings: self
                .data_dir
                .lost_and_found_warning()
                .into_iter()
                .chain(self.warden_warning())
                .collect(),
        }
    }

    /// What of these settings this host cannot keep, a sentence for each, for limits in Docker's
    /// words. Such a container runs without them.
    pub fn warnings(&self, host: &HostConfig) -> Result<Vec<String>, EngineError> {
        let mut limits = crate::limits::limits(host, Vec::new())?;
        if host.pids_limit.is_none() {
            limits.pids = None; // our default, which nobody asked for
        }
        let mut warnings = limits.without_absent(&self.hierarchies).1;
        let state = self.state();
        let users = Shares::resolve(&state, host).and_then(|shares| shares.users(&state, host));
        if !self.supports_idmapped_layers && matches!(users, Ok(Users::Own)) {
            warnings.push(NO_IDMAPPED_LAYERS.to_owned());
        }
        Ok(warnings)
    }
}

/// What the whole machine has and has used.
struct HostUsage {
    /// Bytes.
    memory: u64,
    /// Nanoseconds of all processors since boot, idle time included, as Docker counts it.
    cpu: u64,
}

impl HostUsage {
    fn read() -> Self {
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = memory
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0);
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let ticks: u64 = stat
            .lines()
            .find_map(|line| line.strip_prefix("cpu "))
            .map(|rest| {
                // user nice system idle iowait irq softirq; guest time is in user already
                rest.split_whitespace().take(7).filter_map(|it| it.parse::<u64>().ok()).sum()
            })
            .unwrap_or(0);
        let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
        Self { memory: kib * 1024, cpu: ticks * tick }
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// proc_pid_net(5), `dev`: interface → (received bytes, packets, sent bytes, packets).
fn interfaces(text: &str) -> BTreeMap<String, (u64, u64, u64, u64)> {
    text.lines()
        .filter_map(|line| {
            let (name, counters) = line.split_once(':')?;
            let values: Vec<u64> =
                counters.split_whitespace().filter_map(|value| value.parse().ok()).collect();
            let name = name.trim();
            (values.len() >= 10 && name != "lo")
                .then(|| (name.to_owned(), (values[0], values[1], values[8], values[9])))
        })
        .collect()
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

fn operating_system() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_counters_are_read() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop fifo frame \
                    compressed multicast|bytes packets\n    lo: 1 2 0 0 0 0 0 0 1 2 0 0 0 0 0 0\n  \
                    eth0: 1500 10 0 0 0 0 0 0 700 7 0 0 0 0 0 0\n";
        assert_eq!(interfaces(text), [("eth0".to_owned(), (1500, 10, 700, 7))].into());
    }

    #[test]
    fn this_process_has_a_row() {
        let row = process_row(std::process::id(), boot_time()).unwrap();
        assert_eq!(row.len(), 8);
        assert_eq!(row[1], std::process::id().to_string());
        assert_eq!(row[2], rustix::process::getppid().unwrap().as_raw_nonzero().to_string());
    }
}
