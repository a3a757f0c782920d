//! Setting config.json's resources in whichever hierarchies have their controllers.

use bulkhead_types::oci::{Memory, Resources};
use rustix::io::Errno;

use super::hierarchy::{Mode, Version};
use super::write::{self, Absent};
use super::{Cgroup, CgroupError, Group, file, v1, v2};

impl Cgroup {
    /// Sets the resources that are given and leaves the others, as `runc update` does.
    ///
    /// Device rules replace those before; an empty list leaves them. The caller merges what belongs
    /// together: on v2 a limit of memory and swap needs that of memory.
    ///
    /// # Errors
    /// [`CgroupError::NoController`] if the host lacks what a value that is neither absent nor zero
    /// needs, [`CgroupError::UnifiedOnV1`], what is wrong with a value, else the call that failed.
    pub fn update_oci(&self, resources: &Resources) -> Result<(), CgroupError> {
        self.set(resources, Swap::Required)?;
        if resources.devices.is_empty() {
            Ok(())
        } else {
            self.restrict_devices(&resources.devices)
        }
    }

    pub(super) fn set(&self, resources: &Resources, swap: Swap) -> Result<(), CgroupError> {
        let mut plan = Vec::new();
        for controller in wanted(resources, self.mode) {
            match self.holder(controller) {
                Ok(group) => plan.push((controller, group)),
                // without the controller nothing is limited, which is what was asked for
                Err(CgroupError::NoController { .. })
                    if controller == "pids" && wants_no_limit(resources) => {}
                Err(error) => return Err(error),
            }
        }
        for (controller, group) in plan {
            let mut writes = match group.version {
                Version::V1 => v1::writes(controller, resources)?,
                Version::V2 => {
                    if let Some(memory) = resources.memory.filter(|_| controller == "memory") {
                        check_before_update(group, &memory)?;
                    }
                    v2::writes(on_v2(controller), resources, &group.quota(resources)?)?
                }
            };
            if swap == Swap::IfAccounted {
                let of_swap = |file: &str| file.contains(".memsw.") || file.contains(".swap.");
                for write in writes.iter_mut().filter(|write| of_swap(&write.file)) {
                    write.absent = Absent::Skip;
                }
            }
            write::apply(&group.directory, &writes)?;
        }
        self.set_unified(resources)
    }

    /// The group where a controller, by its name on v1, is to be set.
    fn holder(&self, controller: &'static str) -> Result<&Group, CgroupError> {
        let on_v1 = |it: &&Group| it.version == Version::V1 && it.has(controller);
        let on_v2 = |it: &&Group| it.version == Version::V2 && it.has(on_v2(controller));
        let mut groups = self.groups.iter();
        groups.find(on_v1).or_else(|| self.groups.iter().find(on_v2)).ok_or_else(|| {
            if self.refused.is_empty() {
                CgroupError::NoController { controller, path: self.path.clone() }
            } else {
                CgroupError::NotJoined(controller)
            }
        })
    }

    fn set_unified(&self, resources: &Resources) -> Result<(), CgroupError> {
        if resources.unified.is_empty() {
            return Ok(());
        }
        let Some(group) = self.v2().filter(|_| self.mode == Mode::V2) else {
            return Err(CgroupError::UnifiedOnV1);
        };
        for (key, value) in &resources.unified {
            if key.contains('/') {
                return Err(CgroupError::UnifiedName(key.clone()));
            }
            // the kernel takes one line a write
            let lines = value.split_inclusive('\n').map(str::to_owned);
            let Err(error) = file::write_each(&group.directory, key, lines) else { continue };
            let absent = matches!(&error, CgroupError::Write { cause, .. }
                if [Errno::NOENT, Errno::PERM, Errno::ACCESS].iter()
                    .any(|errno| cause.raw_os_error() == Some(errno.raw_os_error())));
            return Err(match key.split_once('.') {
                None if absent => CgroupError::UnifiedForm(key.clone()),
                Some((name, _)) if absent && name != "cgroup" && !group.has(name) => {
                    CgroupError::UnifiedController {
                        key: key.clone(),
                        controller: name.to_owned(),
                        directory: group.directory.path.clone(),
                    }
                }
                _ => CgroupError::Unified { key: key.clone(), cause: Box::new(error) },
            });
        }
        Ok(())
    }
}

/// Whether a limit of swap on a kernel that does not account it is an error, as in runc, or done
/// without, as in Docker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Swap {
    Required,
    IfAccounted,
}

impl Group {
    /// The quota that a new period is to have when it comes alone.
    fn quota(&self, resources: &Resources) -> Result<String, CgroupError> {
        let alone = |cpu: &bulkhead_types::oci::Cpu| {
            cpu.period.unwrap_or(0) != 0 && cpu.quota.unwrap_or(0) == 0
        };
        if self.fresh || !resources.cpu.as_ref().is_some_and(alone) {
            return Ok("max".to_owned());
        }
        let text = file::read(&self.directory, "cpu.max")?;
        Ok(text.split_whitespace().next().unwrap_or("max").to_owned())
    }
}

/// The controllers that resources need, by their names on v1.
pub(super) fn wanted(resources: &Resources, mode: Mode) -> impl Iterator<Item = &'static str> {
    let v1 = mode != Mode::V2;
    let given = |value: Option<i64>| value.is_some_and(|value| value != 0);
    let counted = |value: Option<u64>| value.is_some_and(|value| value != 0);
    let (cpuset, cpu) = resources.cpu.as_ref().map_or((false, false), |it| {
        let time = counted(it.shares) || given(it.quota) || counted(it.period);
        let rest = it.burst.is_some() || it.idle.is_some();
        let real = given(it.realtime_runtime) || counted(it.realtime_period);
        (!it.cpus.is_empty() || !it.mems.is_empty(), time || rest || v1 && real)
    });
    let memory = resources.memory.is_some_and(|it| {
        let bytes = given(it.limit) || given(it.swap) || given(it.reservation);
        let swappiness = it.swappiness.is_some_and(|it| it != u64::MAX);
        bytes || v1 && (swappiness || it.disable_oom_killer == Some(true))
    });
    let pids = resources.pids.is_some_and(|it| it.limit.is_some());
    let blkio = resources.block_io.as_ref().is_some_and(|it| {
        it.weight.unwrap_or(0) != 0
            || v1 && it.leaf_weight.unwrap_or(0) != 0
            || !it.weight_device.is_empty()
            || !it.throttle_read_bps_device.is_empty()
            || !it.throttle_write_bps_device.is_empty()
            || !it.throttle_read_iops_device.is_empty()
            || !it.throttle_write_iops_device.is_empty()
    });
    let network = resources.network.as_ref().filter(|_| v1);
    let class = network.is_some_and(|it| it.class_id.unwrap_or(0) != 0);
    let priorities = network.is_some_and(|it| !it.priorities.is_empty());
    [
        ("cpuset", cpuset),
        ("memory", memory),
        ("cpu", cpu),
        ("pids", pids),
        ("blkio", blkio),
        ("hugetlb", !resources.hugepage_limits.is_empty()),
        ("net_cls", class),
        ("net_prio", priorities),
        ("rdma", !resources.rdma.is_empty()),
    ]
    .into_iter()
    .filter_map(|(controller, wanted)| wanted.then_some(controller))
}

/// Whether the number of processes is to be unlimited, in so many words; 0 is a limit
/// (config-linux.md, "PIDs").
fn wants_no_limit(resources: &Resources) -> bool {
    resources.pids.and_then(|pids| pids.limit).is_some_and(|limit| limit < 0)
}

/// What v2 calls a controller of v1.
pub(super) fn on_v2(controller: &'static str) -> &'static str {
    if controller == "blkio" { "io" } else { controller }
}

/// Whether v2 has to hand `controller` down for these resources.
pub(super) fn needs_on_v2(resources: &Resources, controller: &str) -> bool {
    wanted(resources, Mode::V2).any(|it| on_v2(it) == controller)
        || resources.unified.keys().any(|key| key.split('.').next() == Some(controller))
}

/// Refuses a limit below what is in use if that was asked for: v1's kernel does so itself, v2's
/// would kill processes. What cannot be read is no reason to refuse (runc: `CheckMemoryUsage`).
fn check_before_update(group: &Group, memory: &Memory) -> Result<(), CgroupError> {
    let asked = memory.check_before_update == Some(true) && !group.fresh;
    let usage = || file::read_number(&group.directory, "memory.current").ok().flatten();
    let Some(usage) = asked.then(usage).flatten() else { return Ok(()) };
    for (what, limit) in [("memory+swap", memory.swap), ("memory", memory.limit)] {
        if let Some(limit) = limit.and_then(|limit| u64::try_from(limit).ok())
            && limit > 0
            && limit <= usage
        {
            return Err(CgroupError::LimitBelowUsage { what, limit, usage });
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::write::Write;
    use super::*;

    /// One of everything that config-linux.md has.
    pub fn everything() -> Resources {
        parse(
            r#"{"memory":{"limit":1000,"swap":1500,"reservation":500,"kernel":1,"kernelTCP":1,
                "swappiness":0,"disableOOMKiller":true,"useHierarchy":true},
            "cpu":{"shares":512,"quota":20000,"burst":100,"period":50000,"realtimeRuntime":950000,
                "realtimePeriod":1000000,"cpus":"0-1","mems":"0","idle":1},
            "pids":{"limit":33},
            "blockIO":{"weight":10,"leafWeight":20,
                "weightDevice":[{"major":8,"minor":0,"weight":500,"leafWeight":300}],
                "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":600}],
                "throttleWriteBpsDevice":[{"major":8,"minor":0,"rate":0}],
                "throttleReadIOPSDevice":[{"major":8,"minor":16,"rate":300}],
                "throttleWriteIOPSDevice":[{"major":8,"minor":16,"rate":400}]},
            "hugepageLimits":[{"pageSize":"2MB","limit":4096}],
            "network":{"classID":1048577,"priorities":[{"name":"eth0","priority":500},
                {"name":"eth1","priority":1000}]},
            "rdma":{"mlx":{"hcaHandles":3,"hcaObjects":10},"rxe":{"hcaObjects":1}}}"#,
        )
    }

    pub fn parse(text: &str) -> Resources {
        serde_json::from_str(text).unwrap()
    }

    /// `FILE=VALUE` for each; `*` is again after the others, `?` skipped if absent, `|` instead.
    pub fn lines(writes: &[Write]) -> String {
        let lines = writes.iter().map(|it| {
            let again = if it.again { "*" } else { "" };
            let absent = match &it.absent {
                Absent::Fail => String::new(),
                Absent::Skip => "?".to_owned(),
                Absent::Instead(file, value) => format!("|{file}={value}"),
            };
            format!("{}={}{again}{absent}", it.file, it.value)
        });
        lines.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn only_what_is_given_needs_its_controller() {
        let all = "cpuset memory cpu pids blkio hugetlb net_cls net_prio rdma";
        let named =
            |resources: &Resources, mode| wanted(resources, mode).collect::<Vec<_>>().join(" ");
        assert_eq!(named(&everything(), Mode::V1), all);
        assert_eq!(named(&everything(), Mode::V2), all.replace(" net_cls net_prio", ""));
        for (text, v1, v2) in [
            ("{}", "", ""),
            (r#"{"memory":{"limit":0,"swap":0,"kernel":9}}"#, "", ""),
            (r#"{"memory":{"swappiness":5}}"#, "memory", ""),
            (r#"{"memory":{"disableOOMKiller":false,"checkBeforeUpdate":true}}"#, "", ""),
            (r#"{"memory":{"limit":-1}}"#, "memory", "memory"),
            (r#"{"cpu":{"shares":0,"quota":0}}"#, "", ""),
            (r#"{"cpu":{"realtimeRuntime":5}}"#, "cpu", ""),
            (r#"{"cpu":{"idle":0}}"#, "cpu", "cpu"),
            (r#"{"cpu":{"mems":"0"}}"#, "cpuset", "cpuset"),
            (r#"{"pids":{"limit":0}}"#, "pids", "pids"),
            (r#"{"blockIO":{"leafWeight":5}}"#, "blkio", ""),
            (r#"{"network":{"classID":0}}"#, "", ""),
        ] {
            let resources = parse(text);
            assert_eq!(
                (named(&resources, Mode::Hybrid), named(&resources, Mode::V2)),
                (v1.to_owned(), v2.to_owned()),
                "{text}"
            );
        }
        let unified = parse(r#"{"unified":{"misc.max":"a 1"},"blockIO":{"weight":10}}"#);
        for (controller, want) in [("misc", true), ("io", true), ("blkio", false), ("cpu", false)] {
            assert_eq!(needs_on_v2(&unified, controller), want, "{controller}");
        }
    }
}
