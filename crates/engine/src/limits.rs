//! Docker's resource options as the cgroup's limits.

use bulkhead_runtime::cgroup::{DeviceRule, Devices, Limits};

use bulkhead_types::oci;
use rustix::fs::{FileType, OFlags};

use crate::{BlockIo, EngineError, HostConfig};

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
        memory_swappiness: host.memory_swappiness,
        block_io: block_io(&host.block_io)?,
        devices: if host.privileged {
            Devices::All
        } else {
            let rules = host.device_cgroup_rules.iter().map(|rule| device_rule(rule));
            let rules = rules.collect::<Result<Vec<_>, _>>()?;
            Devices::DefaultAnd(devices.into_iter().chain(rules).collect())
        },
    })
}

fn device_rule(text: &str) -> Result<DeviceRule, EngineError> {
    text.parse()
        .map_err(|_| EngineError::invalid(format!("invalid device cgroup rule format: '{text}'")))
}

/// Devices by their numbers; `None` if nothing is limited.
fn block_io(wanted: &BlockIo) -> Result<Option<oci::BlockIo>, EngineError> {
    if *wanted == BlockIo::default() {
        return Ok(None);
    }
    let weight = |weight: u16| match weight {
        0 => Ok(None),
        10..=1000 => Ok(Some(weight)),
        _ => Err(EngineError::invalid("Range of blkio weight is from 10 to 1000")),
    };
    let throttles = |list: &[(String, u64)]| {
        let throttle = |(path, rate): &(String, u64)| {
            let (major, minor) = block_device(path)?;
            Ok::<_, EngineError>(oci::ThrottleDevice { major, minor, rate: *rate })
        };
        list.iter().map(throttle).collect::<Result<Vec<_>, _>>()
    };
    let mut weight_device = Vec::new();
    for (path, own) in &wanted.weight_devices {
        let (major, minor) = block_device(path)?;
        let weight = weight(*own)?;
        weight_device.push(oci::WeightDevice { major, minor, weight, leaf_weight: None });
    }
    Ok(Some(oci::BlockIo {
        weight: weight(wanted.weight)?,
        weight_device,
        throttle_read_bps_device: throttles(&wanted.read_bps)?,
        throttle_write_bps_device: throttles(&wanted.write_bps)?,
        throttle_read_iops_device: throttles(&wanted.read_iops)?,
        throttle_write_iops_device: throttles(&wanted.write_iops)?,
        ..oci::BlockIo::default()
    }))
}

fn block_device(path: &str) -> Result<(i64, i64), EngineError> {
    let wrong = |why: &dyn std::fmt::Display| {
        EngineError::invalid(format!("cannot limit block device {path:?}: {why}"))
    };
    let node = bulkhead_sys::path::open_host(path.as_ref(), OFlags::PATH)
        .map_err(|error| wrong(&error))?;
    let stat = rustix::fs::fstat(&node).map_err(|errno| wrong(&errno))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::BlockDevice {
        return Err(wrong(&"it is not the node of a block device"));
    }
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    Ok((major.into(), minor.into()))
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
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(EngineError::invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    if let Some(other @ 101..) = host.memory_swappiness {
        return Err(EngineError::invalid(format!(
            "Invalid value: {other}, valid memory swappiness range is 0-100"
        )));
    }
    for rule in &host.device_cgroup_rules {
        device_rule(rule)?;
    }
    // the number is asked of the cgroups: not for every container
    let processors = match host.nano_cpus {
        0 => u64::MAX,
        _ => std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64,
    };
    if host.nano_cpus > processors.saturating_mul(1_000_000_000) {
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
    fn devices_are_limited_by_their_numbers() {
        let limited =
            |io: BlockIo| limits(&HostConfig { block_io: io, ..HostConfig::default() }, vec![]);
        assert_eq!(limited(BlockIo::default()).unwrap().block_io, None);
        let heavy = limited(BlockIo { weight: 500, ..BlockIo::default() }).unwrap();
        assert_eq!(heavy.block_io.unwrap().weight, Some(500));
        for (wrong, why) in [
            (BlockIo { weight: 9, ..BlockIo::default() }, "Range of blkio weight"),
            (
                BlockIo { read_bps: vec![("/dev/null".into(), 1)], ..BlockIo::default() },
                "\"/dev/null\": it is not the node of a block device",
            ),
            (
                BlockIo { write_iops: vec![("/dev/nope".into(), 1)], ..BlockIo::default() },
                "\"/dev/nope\": No such file",
            ),
        ] {
            let error = limited(wrong).unwrap_err();
            assert!(error.message.contains(why), "{error}");
        }
        let rules = |rule: &str| HostConfig {
            device_cgroup_rules: vec![rule.to_owned()],
            ..HostConfig::default()
        };
        let found = limits(&rules("c 42:* rmw"), vec![]).unwrap().devices;
        assert_eq!(found, Devices::DefaultAnd(vec!["c 42:* rmw".parse().unwrap()]));
        assert!(check(&rules("x 1:1 r")).is_err());
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
            (HostConfig { oom_score_adj: 1001, ..HostConfig::default() }, "[-1000, 1000]"),
            (HostConfig { memory_swappiness: Some(101), ..HostConfig::default() }, "0-100"),
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
