//! `docker info`: what this engine and this machine have.

use crate::namespaces::{NamespaceModes, UserNamespace};
use crate::user_ids::NO_IDMAPPED_LAYERS;
use crate::{Engine, EngineError, HostConfig, Info, Status};

impl Engine {
    pub fn info(&self) -> Info {
        let statuses: Vec<Status> = {
            let state = self.containers.lock();
            let shown = state.entries.values().filter(|entry| !entry.record.throw_away);
            shown.map(|entry| entry.record.container.state.status).collect()
        };
        let count =
            |wanted: &[Status]| statuses.iter().filter(|status| wanted.contains(status)).count();
        let running = count(&[Status::Running, Status::Restarting]);
        let paused = count(&[Status::Paused]);
        Info {
            id: self.id.to_string(),
            containers: statuses.len(),
            running,
            paused,
            stopped: statuses.len() - running - paused,
            images: self.images.records().count(),
            memory: HostUsage::read().memory,
            cpus: processors(),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            operating_system: operating_system(),
            hostname: self.hostname.clone(),
            cgroup_version: match self.cgroups.hierarchies.mode() {
                bulkhead_runtime::cgroup::HostMode::V2 => "2".to_owned(),
                _ => "1".to_owned(),
            },
            controllers: ["cpu", "cpuset", "memory", "pids"]
                .into_iter()
                .filter(|controller| self.cgroups.hierarchies.has(controller))
                .collect(),
            ipv4_forwarding: std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward")
                .is_ok_and(|text| text.trim_end() == "1"),
            supports_idmapped_layers: self.user_ids.idmapped_layers,
            data: self.options.data.display().to_string(),
            warnings: self
                .data_dir
                .lost_and_found_warning()
                .into_iter()
                .chain(self.warden_warning())
                .chain(self.shipping.troubles())
                .chain(self.log_budget_warnings())
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
        let mut warnings = limits.without_absent(&self.cgroups.hierarchies).1;
        let state = self.containers.lock();
        let users =
            NamespaceModes::resolve(&state, host).and_then(|modes| modes.user(&state, host));
        if !self.user_ids.idmapped_layers && matches!(users, Ok(UserNamespace::Own)) {
            warnings.push(NO_IDMAPPED_LAYERS.to_owned());
        }
        Ok(warnings)
    }
}

/// What the whole machine has and has used.
pub(crate) struct HostUsage {
    /// Bytes.
    pub memory: u64,
    /// Nanoseconds of all processors since boot, idle time included, as Docker counts it.
    pub cpu: u64,
}

impl HostUsage {
    pub(crate) fn read() -> Self {
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

pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn operating_system() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}
