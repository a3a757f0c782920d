//! What a cgroup uses, for `docker stats` and for the scheduler.

use serde::{Deserialize, Serialize};

use super::file::{self, Directory};
use super::hierarchy::Version;
use super::{Cgroup, CgroupError};

/// Usage at one moment; 0 or `None` where the host has no controller that counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Bytes, page cache included.
    pub memory_usage: u64,
    /// Bytes; `None` is unlimited.
    pub memory_limit: Option<u64>,
    /// Bytes of page cache that can go at once; the docker CLI subtracts them from the usage.
    pub memory_inactive_file: u64,
    /// Nanoseconds of processor time since the group was made.
    pub cpu_total: u64,
    pub cpu_user: u64,
    pub cpu_system: u64,
    pub pids: u64,
    pub pids_limit: Option<u64>,
}

impl Cgroup {
    pub fn stats(&self) -> Result<Stats, CgroupError> {
        let mut stats = Stats::default();
        if let Some(group) = self.with_controller("memory") {
            memory(&group.directory, group.version, &mut stats)?;
        }
        if let Some(group) = self.with_controller("cpuacct") {
            let counter =
                |name| file::read_number(&group.directory, name).map(Option::unwrap_or_default);
            stats.cpu_total = counter("cpuacct.usage")?;
            stats.cpu_user = counter("cpuacct.usage_user")?;
            stats.cpu_system = counter("cpuacct.usage_sys")?;
        } else if let Some(group) = self.v2() {
            // there with or without the cpu controller
            let text = file::read(&group.directory, "cpu.stat")?;
            let nanoseconds =
                |key| file::field(&text, key).unwrap_or_default().saturating_mul(1000);
            stats.cpu_total = nanoseconds("usage_usec");
            stats.cpu_user = nanoseconds("user_usec");
            stats.cpu_system = nanoseconds("system_usec");
        }
        if let Some(group) = self.with_controller("pids") {
            stats.pids = file::read_number(&group.directory, "pids.current")?.unwrap_or_default();
            stats.pids_limit = file::read_number(&group.directory, "pids.max")?;
        }
        Ok(stats)
    }

    /// Counts the processes that the kernel has killed for want of memory.
    pub fn oom_kill_count(&self) -> Result<u64, CgroupError> {
        let Some(group) = self.with_controller("memory") else { return Ok(0) };
        let name = match group.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        Ok(file::field(&file::read(&group.directory, name)?, "oom_kill").unwrap_or_default())
    }
}

fn memory(directory: &Directory, version: Version, stats: &mut Stats) -> Result<(), CgroupError> {
    // what v1 shows for "unlimited": the largest number of whole pages in an i64
    const UNLIMITED: u64 = i64::MAX as u64 / 65_536 * 65_536;
    let (usage, limit, inactive_file) = match version {
        Version::V1 => ("memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file"),
        Version::V2 => ("memory.current", "memory.max", "inactive_file"),
    };
    stats.memory_usage = file::read_number(directory, usage)?.unwrap_or_default();
    stats.memory_limit = file::read_number(directory, limit)?.filter(|bytes| *bytes < UNLIMITED);
    let details = file::read(directory, "memory.stat")?;
    stats.memory_inactive_file = file::field(&details, inactive_file).unwrap_or_default();
    Ok(())
}
