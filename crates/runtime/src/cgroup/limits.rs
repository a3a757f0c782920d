//! Resource limits, and which file of which version takes them.

use serde::{Deserialize, Serialize};

use super::device::Devices;
use super::file::{self, Directory};
use super::hierarchy::{Hierarchies, Version};
use super::{CgroupError, Group};

/// What a cgroup may use; `None` leaves a value as it is (in a new cgroup: unlimited).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together, as Docker's `--memory-swap`; -1 is unlimited. Needs
    /// [`Self::memory`]. (Docker's default of twice the memory is the caller's to fill in.)
    pub memory_swap: Option<i64>,
    /// Bytes that are left to the cgroup when the host runs short.
    pub memory_reservation: Option<u64>,
    /// Weight against siblings, 2 to 262144, 1024 by default.
    pub cpu_shares: Option<u64>,
    /// Billionths of a processor; wins over quota and period.
    pub nano_cpus: Option<u64>,
    /// Microseconds; 100,000 by default.
    pub cpu_period: Option<u64>,
    /// Microseconds of processor time in a period; -1 is unlimited.
    pub cpu_quota: Option<i64>,
    /// A list such as `0-3,7` (cpuset(7), "List format").
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    /// -1 or 0 is unlimited.
    pub pids: Option<i64>,
    /// Only looked at when a cgroup is created.
    pub devices: Devices,
}

impl Limits {
    /// Takes out what this host has no controller for, with a warning for each in Docker's words,
    /// for those to whom a container without the limit is better than none.
    pub fn without_absent(mut self, hierarchies: &Hierarchies) -> (Self, Vec<String>) {
        let mut warnings = Vec::new();
        let mut discard = |given: bool, controller: &str, what: &str| {
            let absent = given && !hierarchies.has(controller);
            if absent {
                let start = format!("Your kernel does not support {what}");
                warnings
                    .push(format!("{start} or the cgroup is not mounted. Limitation discarded."));
            }
            absent
        };
        let memory = self.memory.is_some() || self.memory_swap.is_some();
        if discard(memory, "memory", "memory limit capabilities") {
            (self.memory, self.memory_swap) = (None, None);
        }
        if discard(self.memory_reservation.is_some(), "memory", "memory soft limit capabilities") {
            self.memory_reservation = None;
        }
        if discard(self.cpu_shares.is_some(), "cpu", "CPU shares") {
            self.cpu_shares = None;
        }
        let bandwidth =
            self.nano_cpus.is_some() || self.cpu_period.is_some() || self.cpu_quota.is_some();
        if discard(bandwidth, "cpu", "CPU CFS scheduler") {
            (self.nano_cpus, self.cpu_period, self.cpu_quota) = (None, None, None);
        }
        if discard(self.cpuset_cpus.is_some() || self.cpuset_mems.is_some(), "cpuset", "cpuset") {
            (self.cpuset_cpus, self.cpuset_mems) = (None, None);
        }
        if discard(self.pids.is_some(), "pids", "pids limit capabilities") {
            self.pids = None;
        }
        (self, warnings)
    }

    /// The controllers that these limits need.
    pub(super) fn needed(&self) -> impl Iterator<Item = &'static str> {
        let memory = self.memory.is_some()
            || self.memory_swap.is_some()
            || self.memory_reservation.is_some();
        let cpu = self.cpu_shares.is_some() || self.bandwidth().is_some();
        let cpuset = self.cpuset_cpus.is_some() || self.cpuset_mems.is_some();
        [("memory", memory), ("cpu", cpu), ("cpuset", cpuset), ("pids", self.pids.is_some())]
            .into_iter()
            .filter_map(|(controller, needed)| needed.then_some(controller))
    }

    /// (quota, period) in microseconds; a quota of -1 is unlimited.
    fn bandwidth(&self) -> Option<(i64, u64)> {
        const DEFAULT_PERIOD: u64 = 100_000;
        if let Some(nano_cpus) = self.nano_cpus {
            let quota = u128::from(nano_cpus) * u128::from(DEFAULT_PERIOD) / 1_000_000_000;
            // the kernel's least quota is a millisecond
            return Some((i64::try_from(quota).unwrap_or(-1).max(1000), DEFAULT_PERIOD));
        }
        if self.cpu_period.is_none() && self.cpu_quota.is_none() {
            return None;
        }
        let quota = self.cpu_quota.filter(|quota| *quota != 0).unwrap_or(-1);
        Some((quota, self.cpu_period.filter(|period| *period != 0).unwrap_or(DEFAULT_PERIOD)))
    }

    fn pids_value(&self) -> Option<String> {
        self.pids.map(|pids| if pids > 0 { pids.to_string() } else { "max".to_owned() })
    }
}

/// Writes the limits that `group`'s controllers are for.
pub(super) fn apply(group: &Group, limits: &Limits) -> Result<(), CgroupError> {
    match group.version {
        Version::V1 => {
            for (controller, file, value) in v1_writes(limits) {
                if group.has(controller) {
                    file::write(&group.directory, file, &value)?;
                }
            }
            if group.has("memory") { v1_memory(&group.directory, limits) } else { Ok(()) }
        }
        Version::V2 => {
            for (controller, file, value) in v2_writes(limits) {
                if group.has(controller) {
                    file::write(&group.directory, file, &value)?;
                }
            }
            if group.has("memory") { v2_memory(&group.directory, limits) } else { Ok(()) }
        }
    }
}

type Write = (&'static str, &'static str, String);

fn v1_writes(limits: &Limits) -> Vec<Write> {
    let mut writes: Vec<Write> = cpuset_writes(limits);
    if let Some(shares) = limits.cpu_shares {
        writes.push(("cpu", "cpu.shares", shares.to_string()));
    }
    if let Some((quota, period)) = limits.bandwidth() {
        writes.push(("cpu", "cpu.cfs_period_us", period.to_string()));
        writes.push(("cpu", "cpu.cfs_quota_us", quota.to_string()));
    }
    if let Some(bytes) = limits.memory_reservation {
        writes.push(("memory", "memory.soft_limit_in_bytes", bytes.to_string()));
    }
    writes.extend(limits.pids_value().map(|value| ("pids", "pids.max", value)));
    writes
}

fn v2_writes(limits: &Limits) -> Vec<Write> {
    let mut writes: Vec<Write> = cpuset_writes(limits);
    if let Some(shares) = limits.cpu_shares {
        writes.push(("cpu", "cpu.weight", weight(shares).to_string()));
    }
    if let Some((quota, period)) = limits.bandwidth() {
        let quota = if quota < 0 { "max".to_owned() } else { quota.to_string() };
        writes.push(("cpu", "cpu.max", format!("{quota} {period}")));
    }
    if let Some(bytes) = limits.memory_reservation {
        writes.push(("memory", "memory.low", bytes.to_string()));
    }
    writes.extend(limits.pids_value().map(|value| ("pids", "pids.max", value)));
    writes
}

fn cpuset_writes(limits: &Limits) -> Vec<Write> {
    let cpus = limits.cpuset_cpus.iter().map(|it| ("cpuset", "cpuset.cpus", it.clone()));
    let mems = limits.cpuset_mems.iter().map(|it| ("cpuset", "cpuset.mems", it.clone()));
    cpus.chain(mems).collect()
}

/// Sets the v1 memory limits in an order that the kernel admits: memory never above memory and swap.
fn v1_memory(directory: &Directory, limits: &Limits) -> Result<(), CgroupError> {
    const MEMORY: &str = "memory.limit_in_bytes";
    const WITH_SWAP: &str = "memory.memsw.limit_in_bytes";
    let with_swap = || match limits.memory_swap {
        None => Ok(()),
        Some(bytes) => match file::try_write(directory, WITH_SWAP, &bytes.to_string()) {
            // a kernel that does not account swap: memory is limited without it, as in Docker
            Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(errno) => Err(CgroupError::Write {
                value: bytes.to_string(),
                file: directory.file(WITH_SWAP),
                cause: errno.into(),
            }),
            Ok(()) => Ok(()),
        },
    };
    let Some(memory) = limits.memory else { return with_swap() };
    let current = file::read_number(directory, MEMORY)?.unwrap_or(u64::MAX);
    let raises = limits.memory_swap.is_some_and(|swap| swap < 0 || current < swap as u64);
    if raises {
        with_swap()?;
    }
    file::write(directory, MEMORY, &memory.to_string())?;
    if raises { Ok(()) } else { with_swap() }
}

/// Sets the v2 memory limits; swap has a limit of its own there.
fn v2_memory(directory: &Directory, limits: &Limits) -> Result<(), CgroupError> {
    const SWAP: &str = "memory.swap.max";
    if let Some(swap) = limits.memory_swap {
        let value = match (swap, limits.memory) {
            (..0, _) => "max".to_owned(),
            (_, Some(memory)) => (swap as u64).saturating_sub(memory).to_string(),
            (_, None) => return Err(CgroupError::SwapWithoutMemory),
        };
        match file::try_write(directory, SWAP, &value) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => {
                let file = directory.file(SWAP);
                return Err(CgroupError::Write { value, file, cause: errno.into() });
            }
        }
    }
    match limits.memory {
        Some(bytes) => file::write(directory, "memory.max", &bytes.to_string()),
        None => Ok(()),
    }
}

/// Converts v1 shares (2, 1024 by default, 262144) to a v2 weight (1, 100, 10000): the quadratic
/// through those three points on logarithmic scales that runc and crun use, so that a container
/// with default shares weighs as much as any other cgroup of the host.
pub(super) fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        shares => {
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        for (shares, want) in [
            (0, 1),
            (2, 1),
            (1024, 100),
            (262_144, 10_000),
            (1 << 40, 10_000),
            (512, 60),
            (2048, 170),
        ] {
            let got = weight(shares);
            assert!(got.abs_diff(want) <= want / 12, "{shares}: {got}");
        }
        assert_eq!(weight(1024), 100);
        assert!((2..262_200).all(|shares| weight(shares) <= weight(shares + 1)));
    }

    #[test]
    fn processor_time_is_a_quota_of_a_period() {
        let limits = |nano_cpus, cpu_quota, cpu_period| Limits {
            nano_cpus,
            cpu_quota,
            cpu_period,
            ..Limits::default()
        };
        for (given, want) in [
            (limits(None, None, None), None),
            (limits(Some(1_500_000_000), None, None), Some((150_000, 100_000))),
            (limits(Some(1), None, None), Some((1000, 100_000))),
            (limits(Some(500_000_000), Some(1), Some(2)), Some((50_000, 100_000))),
            (limits(None, Some(25_000), None), Some((25_000, 100_000))),
            (limits(None, Some(-1), Some(50_000)), Some((-1, 50_000))),
            (limits(None, Some(0), Some(0)), Some((-1, 100_000))),
        ] {
            assert_eq!(given.bandwidth(), want, "{given:?}");
        }
    }

    #[test]
    fn each_version_has_its_files() {
        let limits = Limits {
            memory_reservation: Some(64),
            cpu_shares: Some(1024),
            cpu_quota: Some(-1),
            cpuset_cpus: Some("0-1".into()),
            pids: Some(0),
            ..Limits::default()
        };
        let v1: Vec<String> = v1_writes(&limits)
            .into_iter()
            .map(|(_, file, value)| format!("{file}={value}"))
            .collect();
        assert_eq!(
            v1,
            [
                "cpuset.cpus=0-1",
                "cpu.shares=1024",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=-1",
                "memory.soft_limit_in_bytes=64",
                "pids.max=max"
            ]
        );
        let v2: Vec<String> = v2_writes(&limits)
            .into_iter()
            .map(|(_, file, value)| format!("{file}={value}"))
            .collect();
        assert_eq!(
            v2,
            [
                "cpuset.cpus=0-1",
                "cpu.weight=100",
                "cpu.max=max 100000",
                "memory.low=64",
                "pids.max=max"
            ]
        );
    }
}
