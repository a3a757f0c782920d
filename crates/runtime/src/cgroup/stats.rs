//! What a cgroup uses, for `docker stats` and for the scheduler.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::file::{self, Directory};
use super::hierarchy::Version;
use super::{Cgroup, CgroupError};

/// Usage at one moment; 0 or `None` where the host has no controller that counts it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// By block device; `None` where nothing counts them.
    pub block_io: Option<Vec<BlockIoCount>>,
    /// How often a quota held it back; `None` where nothing counts it.
    pub throttling: Option<Throttling>,
    /// The memory controller's own list (`memory.stat`).
    pub memory_details: BTreeMap<String, u64>,
    /// Bytes that were used at most; `None` where the kernel does not remember it.
    pub memory_peak: Option<u64>,
}

/// What a quota of processor time has done (`cpu.stat`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttling {
    pub periods: u64,
    pub throttled_periods: u64,
    /// Nanoseconds that it was held back.
    pub throttled_time: u64,
}

/// What has been read and written of one block device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockIoCount {
    pub major: u64,
    pub minor: u64,
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub reads: u64,
    pub writes: u64,
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
        if let Some(group) = self.with_controller("cpu") {
            let text = file::read(&group.directory, "cpu.stat")?;
            let field = |key| file::field(&text, key);
            let time = match group.version {
                Version::V1 => field("throttled_time"),
                Version::V2 => field("throttled_usec").map(|time| time.saturating_mul(1000)),
            };
            stats.throttling = field("nr_periods").map(|periods| Throttling {
                periods,
                throttled_periods: field("nr_throttled").unwrap_or_default(),
                throttled_time: time.unwrap_or_default(),
            });
        }
        if let Some(group) = self.with_controller("pids") {
            stats.pids = file::read_number(&group.directory, "pids.current")?.unwrap_or_default();
            stats.pids_limit = file::read_number(&group.directory, "pids.max")?;
        }
        if let Some(group) = self.with_controller("blkio") {
            let bytes = file::read(&group.directory, "blkio.throttle.io_service_bytes_recursive");
            let count = file::read(&group.directory, "blkio.throttle.io_serviced_recursive");
            if let (Ok(bytes), Ok(count)) = (bytes, count) {
                stats.block_io = Some(block_io_v1(&bytes, &count));
            }
        } else if let Some(group) = self.with_controller("io") {
            stats.block_io = Some(block_io_v2(&file::read(&group.directory, "io.stat")?));
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

/// `8:0 Read 4096`, a line for each device and kind (Linux: admin-guide/cgroup-v1/blkio-controller).
fn block_io_v1(bytes: &str, operations: &str) -> Vec<BlockIoCount> {
    let mut counts = BTreeMap::<(u64, u64), BlockIoCount>::new();
    let mut read =
        |text: &str, place: for<'a> fn(&'a mut BlockIoCount, &str) -> Option<&'a mut u64>| {
            for line in text.lines() {
                let mut words = line.split(' ');
                let (Some(device), Some(kind), Some(value)) =
                    (words.next(), words.next(), words.next())
                else {
                    continue; // the total
                };
                let Some((major, minor)) = numbers(device) else { continue };
                let empty = BlockIoCount { major, minor, ..BlockIoCount::default() };
                let count = counts.entry((major, minor)).or_insert(empty);
                if let (Some(place), Ok(value)) = (place(count, kind), value.parse()) {
                    *place = value;
                }
            }
        };
    read(bytes, |count, kind| match kind {
        "Read" => Some(&mut count.read_bytes),
        "Write" => Some(&mut count.write_bytes),
        _ => None,
    });
    read(operations, |count, kind| match kind {
        "Read" => Some(&mut count.reads),
        "Write" => Some(&mut count.writes),
        _ => None,
    });
    counts.into_values().collect()
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …` (Linux: admin-guide/cgroup-v2.rst, "io.stat").
fn block_io_v2(text: &str) -> Vec<BlockIoCount> {
    let device = |line: &str| {
        let (device, values) = line.split_once(' ')?;
        let (major, minor) = numbers(device)?;
        let value = |key: &str| {
            let value = values.split(' ').find_map(|it| it.strip_prefix(key)?.strip_prefix('='));
            value.and_then(|value| value.parse().ok()).unwrap_or(0)
        };
        Some(BlockIoCount {
            major,
            minor,
            read_bytes: value("rbytes"),
            write_bytes: value("wbytes"),
            reads: value("rios"),
            writes: value("wios"),
        })
    };
    text.lines().filter_map(device).collect()
}

fn numbers(device: &str) -> Option<(u64, u64)> {
    let (major, minor) = device.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
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
    let detail = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    stats.memory_details = details.lines().filter_map(detail).collect();
    let peak = match version {
        Version::V1 => "memory.max_usage_in_bytes",
        // since Linux 5.19
        Version::V2 => "memory.peak",
    };
    stats.memory_peak = file::read_number(directory, peak).ok().flatten();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_devices_were_used_for_is_read_of_both_versions() {
        let bytes =
            "8:0 Read 4096\n8:0 Write 512\n8:0 Sync 1\n8:0 Total 4608\n7:1 Read 9\nTotal 4617\n";
        let count = "8:0 Read 2\n8:0 Write 1\nTotal 3\n";
        let disk = BlockIoCount {
            major: 8,
            minor: 0,
            read_bytes: 4096,
            write_bytes: 512,
            reads: 2,
            writes: 1,
        };
        let loop_ = BlockIoCount { major: 7, minor: 1, read_bytes: 9, ..BlockIoCount::default() };
        assert_eq!(block_io_v1(bytes, count), [loop_, disk]);
        let text = "8:0 rbytes=4096 wbytes=512 rios=2 wios=1 dbytes=0 dios=0\n7:1 \n";
        let unused = BlockIoCount { major: 7, minor: 1, ..BlockIoCount::default() };
        assert_eq!(block_io_v2(text), [disk, unused]);
        assert_eq!(block_io_v2(""), []);
    }
}
