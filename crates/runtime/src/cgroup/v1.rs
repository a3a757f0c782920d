//! Which files of the v1 controllers take config.json's resources (config-linux.md, "Control
//! groups"; Linux: admin-guide/cgroup-v1). In runc's order, so that failures are the same.

use bulkhead_types::oci::{BlockIo, Cpu, Memory, Resources, ThrottleDevice};

use super::CgroupError;
use super::write::Write;

/// The writes for one controller. Numbers of zero are as good as absent, as in runc; `kernel` and
/// `kernelTCP` are ignored as there: the kernel has given them up.
pub(super) fn writes(controller: &str, resources: &Resources) -> Result<Vec<Write>, CgroupError> {
    let mut writes = Vec::new();
    match controller {
        "cpuset" => cpuset(resources, &mut writes),
        "memory" => {
            resources.memory.iter().try_for_each(|memory| self::memory(memory, &mut writes))?;
        }
        "cpu" => resources.cpu.iter().try_for_each(|cpu| self::cpu(cpu, &mut writes))?,
        "pids" => writes.extend(pids(resources)),
        "blkio" => resources.block_io.iter().for_each(|it| block_io(it, &mut writes)),
        "hugetlb" => hugetlb(resources, ".limit_in_bytes", &mut writes),
        "net_cls" | "net_prio" => network(controller, resources, &mut writes),
        "rdma" => writes.extend(rdma(resources)),
        _ => {}
    }
    Ok(writes)
}

pub(super) fn cpuset(resources: &Resources, writes: &mut Vec<Write>) {
    let Some(cpu) = &resources.cpu else { return };
    for (file, list) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if !list.is_empty() {
            writes.push(Write::new(file, list));
        }
    }
}

/// 0 is 1: systemd knows no 0, and the two drivers are to agree (runc: fs/pids.go).
pub(super) fn pids(resources: &Resources) -> Option<Write> {
    let value = match resources.pids?.limit? {
        ..0 => "max".to_owned(),
        limit => limit.max(1).to_string(),
    };
    Some(Write::new("pids.max", value))
}

pub(super) fn hugetlb(resources: &Resources, suffix: &str, writes: &mut Vec<Write>) {
    for limit in &resources.hugepage_limits {
        let size = &limit.page_size;
        writes.push(Write::new(format!("hugetlb.{size}{suffix}"), limit.limit));
        // what is reserved is counted since Linux 5.7
        writes.push(Write::new(format!("hugetlb.{size}.rsvd{suffix}"), limit.limit).or_skip());
    }
}

pub(super) fn rdma(resources: &Resources) -> impl Iterator<Item = Write> {
    resources.rdma.iter().map(|(device, limits)| {
        let mut value = device.clone();
        for (name, limit) in [("handle", limits.hca_handles), ("object", limits.hca_objects)] {
            value.extend(limit.map(|limit| format!(" hca_{name}={limit}")));
        }
        Write::new("rdma.max", value)
    })
}

fn memory(memory: &Memory, writes: &mut Vec<Write>) -> Result<(), CgroupError> {
    const WITH_SWAP: &str = "memory.memsw.limit_in_bytes";
    let limit = memory.limit.unwrap_or(0);
    let with_swap = memory.swap.unwrap_or(0);
    if limit != 0 {
        let write = Write::new("memory.limit_in_bytes", limit);
        writes.push(write.again_if(with_swap != 0 || limit == -1));
    }
    if with_swap != 0 {
        writes.push(Write::new(WITH_SWAP, with_swap));
    } else if limit == -1 {
        // unlimited memory under a limit of both would be refused
        writes.push(Write::new(WITH_SWAP, -1).or_skip());
    }
    if let Some(bytes) = memory.reservation.filter(|bytes| *bytes != 0) {
        writes.push(Write::new("memory.soft_limit_in_bytes", bytes));
    }
    if memory.disable_oom_killer == Some(true) {
        writes.push(Write::new("memory.oom_control", 1));
    }
    match memory.swappiness {
        // -1 of whoever takes it for signed
        None | Some(u64::MAX) => {}
        Some(percent @ 0..=100) => writes.push(Write::new("memory.swappiness", percent)),
        Some(other) => return Err(CgroupError::InvalidSwappiness(other)),
    }
    Ok(())
}

fn cpu(cpu: &Cpu, writes: &mut Vec<Write>) -> Result<(), CgroupError> {
    match cpu.shares.unwrap_or(0) {
        0 => {}
        // the kernel would take the nearest that it has, and runc calls that an error
        1 => return Err(CgroupError::TooFewShares(2)),
        262_145.. => return Err(CgroupError::TooManyShares(262_144)),
        shares => writes.push(Write::new("cpu.shares", shares)),
    }
    let quota = cpu.quota.filter(|quota| *quota != 0);
    if let Some(period) = cpu.period.filter(|period| *period != 0) {
        writes.push(Write::new("cpu.cfs_period_us", period).again_if(quota.is_some()));
    }
    if let Some(burst) = cpu.burst {
        // since Linux 5.14
        let write = Write::new("cpu.cfs_burst_us", burst).or_skip();
        writes.push(write.again_if(quota.is_some()));
    }
    writes.extend(quota.map(|quota| Write::new("cpu.cfs_quota_us", quota)));
    writes.extend(cpu.idle.map(|idle| Write::new("cpu.idle", idle)));
    let runtime = cpu.realtime_runtime.filter(|runtime| *runtime != 0);
    if let Some(period) = cpu.realtime_period.filter(|period| *period != 0) {
        writes.push(Write::new("cpu.rt_period_us", period).again_if(runtime.is_some()));
    }
    writes.extend(runtime.map(|runtime| Write::new("cpu.rt_runtime_us", runtime)));
    Ok(())
}

/// The weights belong to the I/O scheduler: CFQ of old kernels, or BFQ, which names its files so.
fn block_io(io: &BlockIo, writes: &mut Vec<Write>) {
    let given = |weight: Option<u16>| weight.filter(|weight| *weight != 0);
    if let Some(weight) = given(io.weight) {
        writes.push(Write::new("blkio.weight", weight).or("blkio.bfq.weight", weight));
    }
    writes.extend(given(io.leaf_weight).map(|weight| Write::new("blkio.leaf_weight", weight)));
    for device in &io.weight_device {
        let line = |weight: u16| format!("{}:{} {weight}", device.major, device.minor);
        if let Some(weight) = given(device.weight) {
            let write = Write::new("blkio.weight_device", line(weight));
            writes.push(write.or("blkio.bfq.weight_device", line(weight)));
        }
        let leaf = given(device.leaf_weight);
        writes.extend(leaf.map(|weight| Write::new("blkio.leaf_weight_device", line(weight))));
    }
    for (file, devices) in [
        ("blkio.throttle.read_bps_device", &io.throttle_read_bps_device),
        ("blkio.throttle.write_bps_device", &io.throttle_write_bps_device),
        ("blkio.throttle.read_iops_device", &io.throttle_read_iops_device),
        ("blkio.throttle.write_iops_device", &io.throttle_write_iops_device),
    ] {
        let line = |it: &ThrottleDevice| format!("{}:{} {}", it.major, it.minor, it.rate);
        writes.extend(devices.iter().map(|device| Write::new(file, line(device))));
    }
}

fn network(controller: &str, resources: &Resources, writes: &mut Vec<Write>) {
    let Some(network) = &resources.network else { return };
    if controller == "net_cls" {
        let class = network.class_id.filter(|class| *class != 0);
        writes.extend(class.map(|class| Write::new("net_cls.classid", class)));
    } else {
        writes.extend(
            network
                .priorities
                .iter()
                .map(|it| Write::new("net_prio.ifpriomap", format!("{} {}", it.name, it.priority))),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::resources::tests::{everything, lines, parse};
    use super::*;

    #[test]
    fn every_resource_has_its_file() {
        let resources = everything();
        for (controller, want) in [
            ("cpuset", "cpuset.cpus=0-1 cpuset.mems=0"),
            (
                "memory",
                "memory.limit_in_bytes=1000* memory.memsw.limit_in_bytes=1500 \
                 memory.soft_limit_in_bytes=500 memory.oom_control=1 memory.swappiness=0",
            ),
            (
                "cpu",
                "cpu.shares=512 cpu.cfs_period_us=50000* cpu.cfs_burst_us=100*? \
                 cpu.cfs_quota_us=20000 cpu.idle=1 cpu.rt_period_us=1000000* \
                 cpu.rt_runtime_us=950000",
            ),
            ("pids", "pids.max=33"),
            (
                "blkio",
                "blkio.weight=10|blkio.bfq.weight=10 blkio.leaf_weight=20 \
                 blkio.weight_device=8:0 500|blkio.bfq.weight_device=8:0 500 \
                 blkio.leaf_weight_device=8:0 300 blkio.throttle.read_bps_device=8:0 600 \
                 blkio.throttle.write_bps_device=8:0 0 blkio.throttle.read_iops_device=8:16 300 \
                 blkio.throttle.write_iops_device=8:16 400",
            ),
            ("hugetlb", "hugetlb.2MB.limit_in_bytes=4096 hugetlb.2MB.rsvd.limit_in_bytes=4096?"),
            ("net_cls", "net_cls.classid=1048577"),
            ("net_prio", "net_prio.ifpriomap=eth0 500 net_prio.ifpriomap=eth1 1000"),
            ("rdma", "rdma.max=mlx hca_handle=3 hca_object=10 rdma.max=rxe hca_object=1"),
            ("devices", ""),
            ("freezer", ""),
        ] {
            assert_eq!(lines(&writes(controller, &resources).unwrap()), want, "{controller}");
        }
    }

    #[test]
    fn zero_is_as_good_as_absent_and_minus_one_is_unlimited() {
        for (controller, text, want) in [
            ("memory", r#"{"memory":{"limit":0,"swap":0,"reservation":0,"kernel":5}}"#, ""),
            ("memory", r#"{"memory":{"limit":1000}}"#, "memory.limit_in_bytes=1000"),
            ("memory", r#"{"memory":{"swap":7}}"#, "memory.memsw.limit_in_bytes=7"),
            (
                "memory",
                r#"{"memory":{"limit":-1}}"#,
                "memory.limit_in_bytes=-1* memory.memsw.limit_in_bytes=-1?",
            ),
            (
                "memory",
                r#"{"memory":{"limit":-1,"swap":-1}}"#,
                "memory.limit_in_bytes=-1* memory.memsw.limit_in_bytes=-1",
            ),
            ("memory", r#"{"memory":{"swappiness":18446744073709551615}}"#, ""),
            (
                "memory",
                r#"{"memory":{"disableOOMKiller":false,"swappiness":60}}"#,
                "memory.swappiness=60",
            ),
            ("cpu", r#"{"cpu":{"shares":0,"quota":0,"period":0,"realtimePeriod":0}}"#, ""),
            ("cpu", r#"{"cpu":{"quota":-1}}"#, "cpu.cfs_quota_us=-1"),
            ("cpu", r#"{"cpu":{"period":5,"burst":0}}"#, "cpu.cfs_period_us=5 cpu.cfs_burst_us=0?"),
            ("cpu", r#"{"cpu":{"idle":0}}"#, "cpu.idle=0"),
            ("pids", r#"{"pids":{"limit":-1}}"#, "pids.max=max"),
            ("pids", r#"{"pids":{"limit":0}}"#, "pids.max=1"),
            ("pids", r#"{"pids":{}}"#, ""),
            ("blkio", r#"{"blockIO":{"weight":0,"leafWeight":0}}"#, ""),
            ("net_cls", r#"{"network":{"classID":0}}"#, ""),
        ] {
            assert_eq!(lines(&writes(controller, &parse(text)).unwrap()), want, "{text}");
        }
    }

    #[test]
    fn what_the_kernel_would_bend_is_refused() {
        for (controller, text, want) in [
            ("cpu", r#"{"cpu":{"shares":1}}"#, "the minimum allowed cpu-shares is 2"),
            ("cpu", r#"{"cpu":{"shares":262145}}"#, "the maximum allowed cpu-shares is 262144"),
            (
                "memory",
                r#"{"memory":{"swappiness":101}}"#,
                "invalid memory swappiness value: 101 (valid range is 0-100)",
            ),
        ] {
            let error = writes(controller, &parse(text)).unwrap_err().to_string();
            assert_eq!(error, want);
        }
    }
}
