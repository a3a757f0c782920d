//! Resource limits as Docker has them, and the same in the terms of config.json.

use bulkhead_types::oci::{BlockIo, Cpu, Memory, Pids, Resources};
use serde::{Deserialize, Serialize};

use super::device::Devices;
use super::hierarchy::{Hierarchies, Mode as HostMode};

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
    /// 0 to 100: how readily pages are swapped. Cgroup v2 has no such file.
    pub memory_swappiness: Option<u64>,
    /// Weights and rates of block devices.
    pub block_io: Option<BlockIo>,
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
        let io = if hierarchies.has("io") { "io" } else { "blkio" };
        if discard(self.block_io.is_some(), io, "Block I/O limits") {
            self.block_io = None;
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
        if self.memory_swappiness.is_some() && hierarchies.mode() == HostMode::V2 {
            let text = "Your kernel does not support memory swappiness capabilities or the cgroup is \
                        not mounted. Memory swappiness discarded.";
            warnings.push(text.to_owned());
            self.memory_swappiness = None;
        }
        (self, warnings)
    }

    pub(super) fn to_oci(&self) -> Resources {
        let signed = |bytes: Option<u64>| bytes.map(|it| i64::try_from(it).unwrap_or(i64::MAX));
        let bandwidth = self.bandwidth();
        Resources {
            devices: self.devices.to_oci(),
            memory: Some(Memory {
                limit: signed(self.memory),
                reservation: signed(self.memory_reservation),
                swap: self.memory_swap,
                swappiness: self.memory_swappiness,
                ..Memory::default()
            }),
            cpu: Some(Cpu {
                // Docker bends what is out of range, runc refuses it
                shares: self.cpu_shares.map(|shares| shares.clamp(2, 262_144)),
                quota: bandwidth.map(|(quota, _)| quota),
                period: bandwidth.map(|(_, period)| period),
                cpus: self.cpuset_cpus.clone().unwrap_or_default(),
                mems: self.cpuset_mems.clone().unwrap_or_default(),
                ..Cpu::default()
            }),
            block_io: self.block_io.clone(),
            pids: self.pids.map(|pids| Pids { limit: Some(if pids > 0 { pids } else { -1 }) }),
            ..Resources::default()
        }
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
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn limits_are_those_of_a_config() {
        let limits = Limits {
            memory: Some(u64::MAX),
            memory_swap: Some(-1),
            memory_reservation: Some(64),
            cpu_shares: Some(1),
            cpu_quota: Some(-1),
            cpuset_cpus: Some("0-1".into()),
            pids: Some(0),
            ..Limits::default()
        };
        let resources = limits.to_oci();
        let memory = resources.memory.unwrap();
        assert_eq!(
            (memory.limit, memory.swap, memory.reservation),
            (Some(i64::MAX), Some(-1), Some(64))
        );
        let cpu = resources.cpu.unwrap();
        assert_eq!((cpu.shares, cpu.quota, cpu.period), (Some(2), Some(-1), Some(100_000)));
        assert_eq!((cpu.cpus.as_str(), cpu.mems.as_str()), ("0-1", ""));
        assert_eq!(resources.pids.unwrap().limit, Some(-1));
        assert_eq!(resources.devices.len(), 1);
        assert!(!resources.devices[0].allow);
        assert!(Limits { devices: Devices::All, ..limits }.to_oci().devices[0].allow);
    }
}
