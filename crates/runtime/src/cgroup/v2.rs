//! Which files of cgroup v2 take config.json's resources, whose values are those of v1
//! (config-linux.md, "Control groups" and "Unified"; Linux: admin-guide/cgroup-v2.rst).

use bulkhead_types::oci::{BlockIo, Cpu, Memory, Resources, ThrottleDevice};

use super::write::Write;
use super::{CgroupError, convert, v1};

/// The writes for one controller. `quota` is what `cpu.max` has now, for a period that comes alone.
/// What v2 has no file for (real time, leaf weights, swappiness …) is passed over, as in runc.
pub(super) fn writes(
    controller: &str,
    resources: &Resources,
    quota: &str,
) -> Result<Vec<Write>, CgroupError> {
    let mut writes = Vec::new();
    match controller {
        "pids" => writes.extend(v1::pids(resources)),
        "memory" => {
            resources.memory.iter().try_for_each(|memory| self::memory(memory, &mut writes))?;
        }
        "io" => resources.block_io.iter().for_each(|it| block_io(it, &mut writes)),
        "cpu" => resources.cpu.iter().for_each(|it| cpu(it, quota, &mut writes)),
        "cpuset" => v1::cpuset(resources, &mut writes),
        "hugetlb" => v1::hugetlb(resources, ".max", &mut writes),
        "rdma" => writes.extend(v1::rdma(resources)),
        _ => {}
    }
    Ok(writes)
}

fn memory(memory: &Memory, writes: &mut Vec<Write>) -> Result<(), CgroupError> {
    let limit = memory.limit.unwrap_or(0);
    if let Some(swap) = convert::swap_max(memory.swap.unwrap_or(0), limit)? {
        // a kernel that does not account swap has no file, and neither value needs one
        let needless = matches!(swap.as_str(), "max" | "0");
        let write = Write::new("memory.swap.max", swap);
        writes.push(if needless { write.or_skip() } else { write });
    }
    let bytes = |bytes| if bytes == -1 { "max".to_owned() } else { i64::to_string(&bytes) };
    if limit != 0 {
        writes.push(Write::new("memory.max", bytes(limit)));
    }
    if let Some(reservation) = memory.reservation.filter(|it| *it != 0) {
        writes.push(Write::new("memory.low", bytes(reservation)));
    }
    Ok(())
}

fn cpu(cpu: &Cpu, old_quota: &str, writes: &mut Vec<Write>) {
    // a group that idles has no weight, so that comes first
    writes.extend(cpu.idle.map(|idle| Write::new("cpu.idle", idle)));
    if let Some(shares) = cpu.shares.filter(|shares| *shares != 0) {
        writes.push(Write::new("cpu.weight", convert::weight(shares)));
    }
    let quota = cpu.quota.filter(|quota| *quota != 0);
    if let Some(burst) = cpu.burst {
        writes.push(Write::new("cpu.max.burst", burst).again_if(quota.is_some()));
    }
    let new_quota = quota.map(|it| if it < 0 { "max".to_owned() } else { it.to_string() });
    match (new_quota, cpu.period.filter(|period| *period != 0)) {
        (None, None) => {}
        // the period stays; in a new group it is 100 ms
        (Some(quota), None) => writes.push(Write::new("cpu.max", quota)),
        (quota, Some(period)) => {
            let quota = quota.as_deref().unwrap_or(old_quota);
            writes.push(Write::new("cpu.max", format!("{quota} {period}")));
        }
    }
}

fn block_io(io: &BlockIo, writes: &mut Vec<Write>) {
    if let Some(weight) = io.weight.filter(|weight| *weight != 0) {
        // BFQ's own file has v1's range
        let write = Write::new("io.bfq.weight", weight);
        writes.push(write.or("io.weight", convert::io_weight(weight)));
    }
    for device in &io.weight_device {
        if let Some(weight) = device.weight.filter(|weight| *weight != 0) {
            let line = format!("{}:{} {weight}\n", device.major, device.minor);
            writes.push(Write::new("io.bfq.weight", line).or_skip());
        }
    }
    for (key, devices) in [
        ("rbps", &io.throttle_read_bps_device),
        ("wbps", &io.throttle_write_bps_device),
        ("riops", &io.throttle_read_iops_device),
        ("wiops", &io.throttle_write_iops_device),
    ] {
        let line = |it: &ThrottleDevice| format!("{}:{} {key}={}", it.major, it.minor, it.rate);
        writes.extend(devices.iter().map(|device| Write::new("io.max", line(device))));
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
            ("memory", "memory.swap.max=500 memory.max=1000 memory.low=500"),
            ("cpu", "cpu.idle=1 cpu.weight=59 cpu.max.burst=100* cpu.max=20000 50000"),
            ("pids", "pids.max=33"),
            (
                "io",
                "io.bfq.weight=10|io.weight=1 io.bfq.weight=8:0 500\n? io.max=8:0 rbps=600 \
                 io.max=8:0 wbps=0 io.max=8:16 riops=300 io.max=8:16 wiops=400",
            ),
            ("hugetlb", "hugetlb.2MB.max=4096 hugetlb.2MB.rsvd.max=4096?"),
            ("rdma", "rdma.max=mlx hca_handle=3 hca_object=10 rdma.max=rxe hca_object=1"),
            ("misc", ""),
        ] {
            assert_eq!(
                lines(&writes(controller, &resources, "max").unwrap()),
                want,
                "{controller}"
            );
        }
    }

    #[test]
    fn zero_is_as_good_as_absent_and_minus_one_is_max() {
        for (controller, text, want) in [
            ("memory", r#"{"memory":{"limit":0,"swap":0,"reservation":0,"kernel":5}}"#, ""),
            ("memory", r#"{"memory":{"limit":-1}}"#, "memory.swap.max=max? memory.max=max"),
            (
                "memory",
                r#"{"memory":{"limit":1000,"swap":1000,"reservation":-1,"swappiness":60}}"#,
                "memory.swap.max=0? memory.max=1000 memory.low=max",
            ),
            (
                "memory",
                r#"{"memory":{"limit":1000,"swap":-1}}"#,
                "memory.swap.max=max? memory.max=1000",
            ),
            ("cpu", r#"{"cpu":{"shares":0,"quota":0,"period":0,"realtimeRuntime":5}}"#, ""),
            ("cpu", r#"{"cpu":{"quota":-1}}"#, "cpu.max=max"),
            ("cpu", r#"{"cpu":{"period":5}}"#, "cpu.max=70 5"),
            ("cpu", r#"{"cpu":{"quota":-1,"period":5}}"#, "cpu.max=max 5"),
            ("cpu", r#"{"cpu":{"burst":0}}"#, "cpu.max.burst=0"),
            ("cpu", r#"{"cpu":{"shares":1,"idle":0}}"#, "cpu.idle=0 cpu.weight=1"),
            ("io", r#"{"blockIO":{"weight":0,"leafWeight":5}}"#, ""),
        ] {
            assert_eq!(lines(&writes(controller, &parse(text), "70").unwrap()), want, "{text}");
        }
        let swap_alone = parse(r#"{"memory":{"swap":5}}"#);
        let error = writes("memory", &swap_alone, "max").unwrap_err();
        assert_eq!(error.to_string(), "unable to set swap limit without memory limit");
    }
}
