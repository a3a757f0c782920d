//! Docker's resource options as the cgroup's limits.

use bulkhead_runtime::cgroup::{DeviceRule, Devices, Limits};

use crate::{EngineError, HostConfig};

/// Processes of a container that names no limit.
pub(crate) const PIDS: i64 = 4096;

/// Checks and translates; `devices` are those that the container gets besides the usual ones.
pub(crate) fn limits(host: &HostConfig, devices: Vec<DeviceRule>) -> Result<Limits, EngineError> {
    check(host)?;
    let given = |value: u64| (value != 0).then_some(value);
    let swap = match (host.memory, host.memory_swap) {
        (0, _) => None,
        // Docker's default: as much swap as memory.
        (memory, 0) => Some(i64::try_from(memory.saturating_mul(2)).unwrap_or(-1)),
        (_, swap) => Some(swap),
    };
    Ok(Limits {
        memory: given(host.memory),
        memory_swap: swap,
        memory_reservation: given(host.memory_reservation),
        cpu_shares: given(host.cpu_shares),
        nano_cpus: given(host.nano_cpus),
        cpu_period: given(host.cpu_period),
        cpu_quota: (host.cpu_quota != 0).then_some(host.cpu_quota),
        cpuset_cpus: (!host.cpuset_cpus.is_empty()).then(|| host.cpuset_cpus.clone()),
        cpuset_mems: (!host.cpuset_mems.is_empty()).then(|| host.cpuset_mems.clone()),
        pids: Some(host.pids_limit.map_or(PIDS, |limit| if limit > 0 { limit } else { -1 })),
        devices: if host.privileged { Devices::All } else { Devices::DefaultAnd(devices) },
    })
}

/// The checks that Docker makes when a container is created, in its words.
pub(crate) fn check(host: &HostConfig) -> Result<(), EngineError> {
    const LEAST_MEMORY: u64 = 6 << 20;
    if host.memory != 0 && host.memory < LEAST_MEMORY {
        return Err(EngineError::invalid("Minimum memory limit allowed is 6MB"));
    }
    if host.memory == 0 && host.memory_swap > 0 {
        return Err(EngineError::invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ));
    }
    if host.memory_swap > 0 && host.memory_swap.unsigned_abs() < host.memory {
        return Err(EngineError::invalid(
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ));
    }
    if host.memory != 0 && host.memory_reservation > host.memory {
        return Err(EngineError::invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ));
    }
    if host.nano_cpus > 0 && (host.cpu_period > 0 || host.cpu_quota > 0) {
        return Err(EngineError::invalid(
            "Conflicting options: Nano CPUs and CPU Period cannot both be set.",
        ));
    }
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if host.nano_cpus > processors as u64 * 1_000_000_000 {
        return Err(EngineError::invalid(format!(
            "range of CPUs is from 0.01 to {processors}.00, as there are only {processors} CPUs \
             available"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_swap_and_pids_have_defaults() {
        let host = HostConfig { memory: 256 << 20, ..HostConfig::default() };
        let found = limits(&host, Vec::new()).unwrap();
        assert_eq!((found.memory, found.memory_swap), (Some(256 << 20), Some(512 << 20)));
        assert_eq!(found.pids, Some(PIDS));
        assert_eq!(found.cpu_shares, None);
        let host = HostConfig { pids_limit: Some(0), ..HostConfig::default() };
        assert_eq!(limits(&host, Vec::new()).unwrap().pids, Some(-1));
    }

    #[test]
    fn impossible_limits_are_refused_in_dockers_words() {
        for (host, why) in [
            (HostConfig { memory: 1 << 20, ..HostConfig::default() }, "Minimum memory limit"),
            (HostConfig { memory_swap: 1 << 30, ..HostConfig::default() }, "always set the Memory"),
            (
                HostConfig { memory: 1 << 30, memory_swap: 1 << 20, ..HostConfig::default() },
                "Minimum memoryswap limit",
            ),
            (
                HostConfig { nano_cpus: u64::MAX, ..HostConfig::default() },
                "range of CPUs is from 0.01",
            ),
        ] {
            let error = limits(&host, Vec::new()).unwrap_err();
            assert!(error.message.contains(why), "{error}");
        }
    }
}
