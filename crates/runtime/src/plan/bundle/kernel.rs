//! The kernel's numbers for what `config.json` names.

use std::fmt::Write;

use bulkhead_sys::schedule;
use bulkhead_types::oci;
use rustix::process::{Resource, Rlimit};

use crate::plan::PlanError;
use crate::plan::compile::limit;

fn invalid<T>(text: String) -> Result<T, PlanError> {
    Err(PlanError::Invalid(text))
}

fn look_up<T: Copy>(table: &[(&str, T)], name: &str, what: &str) -> Result<T, PlanError> {
    let found = table.iter().find(|(known, _)| *known == name);
    let known = || table.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", ");
    match found {
        Some((_, value)) => Ok(*value),
        None => invalid(format!("invalid {what} {name:?}: use one of {}", known())),
    }
}

/// `RLIMIT_NOFILE` and the like; one that is named twice is refused, as in runc.
pub(super) fn limits(rlimits: &[oci::Rlimit]) -> Result<Vec<(Resource, Rlimit)>, PlanError> {
    let mut limits: Vec<(Resource, Rlimit)> = Vec::new();
    for rlimit in rlimits {
        let name = rlimit.kind.strip_prefix("RLIMIT_").unwrap_or_default();
        let known = limit(&(name.to_ascii_lowercase(), rlimit.soft, rlimit.hard));
        let known = known.or_else(|_| invalid(format!("invalid rlimit type {:?}", rlimit.kind)))?;
        if limits.iter().any(|(resource, _)| *resource == known.0) {
            return invalid(format!("rlimit {:?} is given twice", rlimit.kind));
        }
        limits.push(known);
    }
    Ok(limits)
}

/// sched_setattr(2), sched(7).
pub(super) fn scheduler(scheduler: &oci::Scheduler) -> Result<schedule::Attributes, PlanError> {
    const POLICIES: [(&str, u32); 7] = [
        ("SCHED_OTHER", 0),
        ("SCHED_FIFO", 1),
        ("SCHED_RR", 2),
        ("SCHED_BATCH", 3),
        ("SCHED_ISO", 4),
        ("SCHED_IDLE", 5),
        ("SCHED_DEADLINE", 6),
    ];
    const FLAGS: [(&str, u64); 7] = [
        ("SCHED_FLAG_RESET_ON_FORK", 0x01),
        ("SCHED_FLAG_RECLAIM", 0x02),
        ("SCHED_FLAG_DL_OVERRUN", 0x04),
        ("SCHED_FLAG_KEEP_POLICY", 0x08),
        ("SCHED_FLAG_KEEP_PARAMS", 0x10),
        ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
        ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
    ];
    let policy = look_up(&POLICIES, &scheduler.policy, "scheduler policy")?;
    let mut flags = 0;
    for name in &scheduler.flags {
        flags |= look_up(&FLAGS, name, "scheduler flag")?;
    }
    let priority = u32::try_from(scheduler.priority).or_else(|_| {
        invalid(format!("invalid scheduler priority {}: write 0 or more", scheduler.priority))
    })?;
    if !(-20..=19).contains(&scheduler.nice) {
        return invalid(format!("invalid scheduler.nice {}: write -20 to 19", scheduler.nice));
    }
    let real_time = matches!(scheduler.policy.as_str(), "SCHED_FIFO" | "SCHED_RR");
    if priority != 0 && !real_time {
        return invalid(format!(
            "scheduler.priority can only be specified for SCHED_FIFO or SCHED_RR policy, not {}",
            scheduler.policy
        ));
    }
    if scheduler.policy == "SCHED_DEADLINE" {
        check_deadline(scheduler)?;
    }
    let runtime = scheduler.runtime.unwrap_or(0);
    let deadline = (runtime, scheduler.deadline, scheduler.period) != (0, 0, 0);
    if deadline && scheduler.policy != "SCHED_DEADLINE" {
        return invalid(format!(
            "scheduler runtime, deadline and period can only be specified for SCHED_DEADLINE \
             policy, not {}",
            scheduler.policy
        ));
    }
    Ok(schedule::Attributes {
        policy,
        flags,
        nice: scheduler.nice,
        priority,
        runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
        ..schedule::Attributes::default()
    })
}

/// The kernel says EINVAL to all of these (sched(7), "SCHED_DEADLINE").
fn check_deadline(scheduler: &oci::Scheduler) -> Result<(), PlanError> {
    // Linux: kernel/sched/deadline.c, `__checkparam_dl`
    const LEAST: u64 = 1024;
    const MAX: u64 = (1 << 63) - 1;
    let (deadline, period) = (scheduler.deadline, scheduler.period);
    let wrong = |text: String| invalid(format!("sched_setattr: `SCHED_DEADLINE` {text}"));
    let Some(runtime) = scheduler.runtime else {
        let others = if deadline == 0 { " and `deadline`" } else { "" };
        return wrong(format!("requires `runtime`{others}"));
    };
    if deadline == 0 {
        return wrong("requires `deadline`".to_owned());
    }
    if runtime == 0 {
        return wrong("runtime must be greater than 0".to_owned());
    }
    if !(LEAST..=MAX).contains(&runtime) {
        return wrong(format!("runtime {runtime} must be between {LEAST} and {MAX} nanoseconds"));
    }
    if runtime > deadline {
        return wrong(format!("runtime {runtime} must be <= deadline {deadline}"));
    }
    if period != 0 && deadline > period {
        return wrong(format!("deadline {deadline} must be <= period {period}"));
    }
    Ok(())
}

/// ioprio_set(2): the class in the bits from 13 on.
pub(super) fn io_priority(priority: &oci::IoPriority) -> Result<u16, PlanError> {
    const CLASSES: [(&str, u16); 3] =
        [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];
    let class = look_up(&CLASSES, &priority.class, "ioPriority.class")?;
    match u16::try_from(priority.priority) {
        Ok(level @ 0..=7) => Ok(class << 13 | level),
        _ => invalid(format!("invalid ioPriority.priority {}: write 0 to 7", priority.priority)),
    }
}

/// personality(2).
pub(super) fn personality(personality: &oci::Personality) -> Result<u32, PlanError> {
    const DOMAINS: [(&str, u32); 2] = [("LINUX", 0), ("LINUX32", 8)];
    if let Some(flag) = personality.flags.first() {
        return invalid(format!("invalid personality flag {flag:?}: none is supported"));
    }
    look_up(&DOMAINS, &personality.domain, "personality domain")
}

const MEMORY_POLICIES: [(&str, i32); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];

const MEMORY_POLICY_FLAGS: [(&str, i32); 3] = [
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_STATIC_NODES", 1 << 15),
];

/// The modes that `features` lists.
pub fn memory_policy_modes() -> Vec<String> {
    MEMORY_POLICIES.iter().map(|(name, _)| (*name).to_owned()).collect()
}

/// The flags that `features` lists.
pub fn memory_policy_flags() -> Vec<String> {
    MEMORY_POLICY_FLAGS.iter().map(|(name, _)| (*name).to_owned()).collect()
}

/// set_mempolicy(2): mode with flags, and a mask of nodes.
pub(super) fn memory_policy(policy: &oci::MemoryPolicy) -> Result<(i32, Vec<u64>), PlanError> {
    let mut mode = look_up(&MEMORY_POLICIES, &policy.mode, "memory policy mode")?;
    for flag in &policy.flags {
        mode |= look_up(&MEMORY_POLICY_FLAGS, flag, "memory policy flag")?;
    }
    let mut mask: Vec<u64> = Vec::new();
    for node in list(&policy.nodes, "memory policy nodes")? {
        let word = node as usize / 64;
        mask.resize(mask.len().max(word + 1), 0);
        mask[word] |= 1 << (node % 64);
    }
    Ok((mode, mask))
}

/// A list of numbers such as `0-3,7` (cpuset(7), "List format").
pub(crate) fn list(text: &str, what: &str) -> Result<Vec<u32>, PlanError> {
    // the kernel's own limit of processors and of nodes is 8192 and 1024
    const HIGHEST: u32 = 8191;
    let wrong =
        || PlanError::Invalid(format!("invalid {what} {text:?}: write a list such as 0-3,7"));
    let number = |text: &str| {
        let number: u32 = text.trim().parse().map_err(|_| wrong())?;
        if number <= HIGHEST { Ok(number) } else { Err(wrong()) }
    };
    let mut numbers = Vec::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        match part.split_once('-') {
            None => numbers.push(number(part)?),
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    return Err(wrong());
                }
                numbers.extend(first..=last);
            }
        }
    }
    Ok(numbers)
}

/// The lines of `/proc/PID/timens_offsets` (time_namespaces(7)).
pub(super) fn time_offsets(config: &oci::Config) -> Result<String, PlanError> {
    let mut lines = String::new();
    for (clock, offset) in config.linux.iter().flat_map(|it| &it.time_offsets) {
        if !["monotonic", "boottime"].contains(&clock.as_str()) {
            let text =
                format!("invalid clock {clock:?} in linux.timeOffsets: use monotonic or boottime");
            return invalid(text);
        }
        let _ = writeln!(lines, "{clock} {} {}", offset.secs, offset.nanosecs);
    }
    Ok(lines)
}
