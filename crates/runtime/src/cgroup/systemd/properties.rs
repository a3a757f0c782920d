//! config.json's resources as properties of a unit (systemd.resource-control(5)).
//!
//! systemd writes the kernel's files from these whenever it looks at the unit again, so it has to
//! know them; what it does not know is written beside it (runc: systemd/v1.go, v2.go).

use bulkhead_types::oci::{Cpu, Memory, Resources};

use super::value::Value;
use super::{Property, SystemdError};
use crate::cgroup::convert;
use crate::cgroup::device::{DeviceKind, DeviceRule, allowed_devices};
use crate::cgroup::hierarchy::Mode;
use crate::cgroup::{CgroupError, v1};

/// systemd's "infinity".
const INFINITY: u64 = u64::MAX;

/// The properties that stand for resources; `version` is systemd's.
pub(super) fn of(
    resources: &Resources,
    mode: Mode,
    version: u32,
) -> Result<Vec<Property>, SystemdError> {
    let mut properties = devices(resources, version)?;
    let mut add = |name: &str, value| properties.push((name.to_owned(), value));
    if let Some(memory) = &resources.memory {
        self::memory(memory, mode, &mut add)?;
    }
    if let Some(cpu) = &resources.cpu {
        self::cpu(cpu, mode, version, &mut add)?;
    }
    if let Some(weight) = resources.block_io.as_ref().and_then(|it| it.weight)
        && weight != 0
        && mode != Mode::V2
    {
        add("BlockIOWeight", Value::U64(weight.into()));
    }
    if let Some(write) = v1::pids(resources) {
        add("TasksMax", Value::U64(write.value.parse().unwrap_or(INFINITY)));
    }
    unified(resources, version, &mut add)?;
    Ok(properties)
}

/// Rounds a quota up to whole percents of a processor, as systemd does: what is written to the
/// kernel's file is to be the same.
pub(super) fn rounded(resources: &Resources) -> Resources {
    let mut resources = resources.clone();
    if let Some(cpu) = &mut resources.cpu
        && let (Some(quota @ 1..), period) = (cpu.quota, cpu.period)
    {
        let period = i128::from(period.filter(|it| *it != 0).unwrap_or(PERIOD));
        let per_second = i128::from(per_second(quota, period as u64));
        cpu.quota = i64::try_from(per_second * period / 1_000_000).ok().or(cpu.quota);
    }
    resources
}

/// The kernel's default, in microseconds.
const PERIOD: u64 = 100_000;

fn per_second(quota: i64, period: u64) -> u64 {
    let exact = quota.unsigned_abs().saturating_mul(1_000_000) / period.max(1);
    // not the next percent, for what is whole already
    exact.div_ceil(10_000).saturating_mul(10_000)
}

fn memory(
    memory: &Memory,
    mode: Mode,
    add: &mut impl FnMut(&str, Value),
) -> Result<(), CgroupError> {
    let given = |bytes: Option<i64>| bytes.filter(|bytes| *bytes != 0);
    // -1 is systemd's infinity too
    let bytes = |bytes: i64| Value::U64(bytes as u64);
    if mode != Mode::V2 {
        if let Some(limit) = given(memory.limit) {
            add("MemoryLimit", bytes(limit));
        }
        return Ok(());
    }
    if let Some(limit) = given(memory.limit) {
        add("MemoryMax", bytes(limit));
    }
    if let Some(low) = given(memory.reservation) {
        add("MemoryLow", bytes(low));
    }
    let swap = convert::swap_max(memory.swap.unwrap_or(0), memory.limit.unwrap_or(0))?;
    if let Some(swap) = swap {
        add("MemorySwapMax", Value::U64(swap.parse().unwrap_or(INFINITY)));
    }
    Ok(())
}

fn cpu(
    cpu: &Cpu,
    mode: Mode,
    version: u32,
    add: &mut impl FnMut(&str, Value),
) -> Result<(), SystemdError> {
    let shares = cpu.shares.filter(|shares| *shares != 0);
    if mode == Mode::V2 {
        // a weight of 0 is systemd's name for idle
        if cpu.idle == Some(1) && version >= 252 {
            add("CPUWeight", Value::U64(0));
        } else if let Some(shares) = shares {
            add("CPUWeight", Value::U64(convert::weight(shares)));
        }
    } else if let Some(shares) = shares {
        add("CPUShares", Value::U64(shares));
    }
    quota(cpu.quota.unwrap_or(0), cpu.period.unwrap_or(0), version, add);
    for (name, list) in [("AllowedCPUs", &cpu.cpus), ("AllowedMemoryNodes", &cpu.mems)] {
        if !list.is_empty() && version >= 244 {
            let bits = bits(list).ok_or_else(|| SystemdError::InvalidList(list.clone()))?;
            add(name, Value::bytes(bits));
        }
    }
    Ok(())
}

fn quota(quota: i64, period: u64, version: u32, add: &mut impl FnMut(&str, Value)) {
    if period != 0 && version >= 242 {
        add("CPUQuotaPeriodUSec", Value::U64(period));
    }
    if quota != 0 || period != 0 {
        let period = if period == 0 { PERIOD } else { period };
        let value = if quota > 0 { per_second(quota, period) } else { INFINITY };
        add("CPUQuotaPerSecUSec", Value::U64(value));
    }
}

/// A list such as `1,3-5` as a mask, the lowest byte first.
fn bits(list: &str) -> Option<Vec<u8>> {
    // more than any kernel has
    const LARGEST: usize = 65_536;
    let mut bits = Vec::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= LARGEST {
            return None;
        }
        for bit in first..=last {
            if bits.len() <= bit / 8 {
                bits.resize(bit / 8 + 1, 0);
            }
            bits[bit / 8] |= 1 << (bit % 8);
        }
    }
    (!bits.is_empty()).then_some(bits)
}

/// The device rules as far as systemd has words for them; the exact ones are set after it.
fn devices(resources: &Resources, version: u32) -> Result<Vec<Property>, SystemdError> {
    let property = |name: &str, value| (name.to_owned(), value);
    // an empty list takes away what an existing unit has
    let cleared = property("DeviceAllow", Value::Array("(ss)".into(), Vec::new()));
    let policy = |policy| property("DevicePolicy", Value::text(policy));
    let Some(rules) = allowed_devices(&resources.devices)? else {
        return Ok(vec![cleared, policy("auto")]);
    };
    let entries = rules.iter().filter_map(|rule| {
        let path = device_path(rule, version)?;
        Some(Value::Struct(vec![Value::Text(path), Value::text(rule.access.to_string())]))
    });
    let list = Value::Array("(ss)".into(), entries.collect());
    Ok(vec![cleared, policy("strict"), property("DeviceAllow", list)])
}

fn device_path(rule: &DeviceRule, version: u32) -> Option<String> {
    let kind = if rule.kind == DeviceKind::Block { "block" } else { "char" };
    match (rule.major, rule.minor) {
        (None, None) => Some(format!("{kind}-*")),
        (None, Some(_)) => None,
        // older ones know names of /proc/devices only
        (Some(major), None) => (version >= 240).then(|| format!("{kind}-{major}")),
        (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
    }
}

/// Files of v2 that systemd has a property for.
fn unified(
    resources: &Resources,
    version: u32,
    add: &mut impl FnMut(&str, Value),
) -> Result<(), SystemdError> {
    let idles = resources.unified.get("cpu.idle").is_some_and(|it| it.trim() == "1");
    for (key, value) in &resources.unified {
        let value = value.trim();
        let wrong = || SystemdError::InvalidUnified { key: key.clone(), value: value.to_owned() };
        let number = |text: &str| match text {
            "max" => Ok(INFINITY),
            digits => digits.parse::<u64>().map_err(|_| wrong()),
        };
        match key.as_str() {
            "cpu.idle" if idles && version >= 252 => add("CPUWeight", Value::U64(0)),
            "cpu.weight" if !(idles && version >= 252) => {
                add("CPUWeight", Value::U64(number(value)?));
            }
            "cpu.max" => {
                let (limit, period) = match value.split_whitespace().collect::<Vec<_>>()[..] {
                    [limit] => (limit, PERIOD),
                    [limit, period] => (limit, number(period)?),
                    _ => return Err(wrong()),
                };
                let limit = i64::try_from(number(limit)?).unwrap_or(-1);
                quota(limit, period, version, add);
            }
            "cpuset.cpus" | "cpuset.mems" if version >= 244 => {
                let name = if key == "cpuset.cpus" { "AllowedCPUs" } else { "AllowedMemoryNodes" };
                add(name, Value::bytes(bits(value).ok_or_else(wrong)?));
            }
            "memory.high" => add("MemoryHigh", Value::U64(number(value)?)),
            "memory.low" => add("MemoryLow", Value::U64(number(value)?)),
            "memory.min" => add("MemoryMin", Value::U64(number(value)?)),
            "memory.max" => add("MemoryMax", Value::U64(number(value)?)),
            "memory.swap.max" => add("MemorySwapMax", Value::U64(number(value)?)),
            "pids.max" => add("TasksMax", Value::U64(number(value)?.max(1))),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::resources::tests::{everything, parse};
    use super::*;

    fn lines(text: &str, mode: Mode, version: u32) -> String {
        let properties = of(&parse(text), mode, version).unwrap();
        let rest = properties.iter().filter(|(name, _)| !name.starts_with("Device"));
        let line = |(name, value): &Property| match value {
            Value::U64(INFINITY) => format!("{name}=infinity"),
            Value::U64(number) => format!("{name}={number}"),
            other => format!("{name}={other:?}"),
        };
        rest.map(line).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn resources_are_properties() {
        let all = serde_json::to_string(&everything()).unwrap();
        assert_eq!(
            lines(&all, Mode::V2, 252),
            "MemoryMax=1000 MemoryLow=500 MemorySwapMax=500 CPUWeight=0 \
             CPUQuotaPeriodUSec=50000 CPUQuotaPerSecUSec=400000 \
             AllowedCPUs=Array(\"y\", [Byte(3)]) AllowedMemoryNodes=Array(\"y\", [Byte(1)]) \
             TasksMax=33"
        );
        assert_eq!(
            lines(&all, Mode::V1, 239),
            "MemoryLimit=1000 CPUShares=512 CPUQuotaPerSecUSec=400000 BlockIOWeight=10 TasksMax=33"
        );
        for (text, want) in [
            ("{}", ""),
            (r#"{"memory":{"limit":-1}}"#, "MemoryMax=infinity MemorySwapMax=infinity"),
            (r#"{"cpu":{"quota":-1}}"#, "CPUQuotaPerSecUSec=infinity"),
            (r#"{"cpu":{"quota":33333}}"#, "CPUQuotaPerSecUSec=340000"),
            (r#"{"cpu":{"shares":1024,"idle":0}}"#, "CPUWeight=100"),
            (r#"{"pids":{"limit":-1}}"#, "TasksMax=infinity"),
            (r#"{"pids":{"limit":0}}"#, "TasksMax=1"),
            (
                r#"{"unified":{"memory.high":"max","memory.min":"5","pids.max":"0","io.max":"x"}}"#,
                "MemoryHigh=infinity MemoryMin=5 TasksMax=1",
            ),
            (
                r#"{"unified":{"cpu.max":"max","cpu.weight":"7\n"}}"#,
                "CPUQuotaPeriodUSec=100000 CPUQuotaPerSecUSec=infinity CPUWeight=7",
            ),
            (
                r#"{"unified":{"cpu.idle":"1","cpu.weight":"7","cpu.max":"5000 10000"}}"#,
                "CPUWeight=0 CPUQuotaPeriodUSec=10000 CPUQuotaPerSecUSec=500000",
            ),
        ] {
            assert_eq!(lines(text, Mode::V2, 255), want, "{text}");
        }
        for text in [
            r#"{"unified":{"memory.max":"x"}}"#,
            r#"{"unified":{"cpu.max":"1 2 3"}}"#,
            r#"{"cpu":{"cpus":"5-1"}}"#,
            r#"{"cpu":{"mems":"x"}}"#,
        ] {
            of(&parse(text), Mode::V2, 255).unwrap_err();
        }
    }

    #[test]
    fn quotas_are_whole_percents() {
        let quota = |quota, period: u64| {
            let text = format!(r#"{{"cpu":{{"quota":{quota},"period":{period}}}}}"#);
            rounded(&parse(&text)).cpu.unwrap().quota.unwrap()
        };
        assert_eq!((quota(50_000, 100_000), quota(33_333, 100_000)), (50_000, 34_000));
        assert_eq!((quota(1, 0), quota(-1, 100_000), quota(0, 5)), (1000, -1, 0));
        assert_eq!(bits("0-2,8"), Some(vec![7, 1]));
        assert_eq!((bits(""), bits("1-70000")), (None, None));
    }

    #[test]
    fn device_rules_are_told_as_far_as_they_go() {
        let texts = |text: &str, version| {
            let mut texts = Vec::new();
            for (name, value) in devices(&parse(text), version).unwrap() {
                match value {
                    Value::Array(_, entries) => {
                        texts.push(format!("{name}[{}]", entries.len()));
                        texts.extend(entries.iter().filter_map(|entry| match entry {
                            Value::Struct(fields) => {
                                Some(format!("{} {}", fields[0].as_text()?, fields[1].as_text()?))
                            }
                            _ => None,
                        }));
                    }
                    other => texts.push(format!("{name}={}", other.as_text().unwrap())),
                }
            }
            texts
        };
        let deny = r#"{"devices":[{"allow":false,"access":"rwm"}]}"#;
        let new = texts(deny, 252);
        assert_eq!(new[..3], ["DeviceAllow[0]", "DevicePolicy=strict", "DeviceAllow[11]"]);
        for entry in ["block-* m", "char-* m", "/dev/char/1:3 rwm", "char-136 rwm"] {
            assert!(new.contains(&entry.to_owned()), "{entry} {new:?}");
        }
        assert!(!texts(deny, 239).contains(&"char-136 rwm".to_owned()));
        let all = r#"{"devices":[{"allow":true,"access":"rwm"}]}"#;
        assert_eq!(texts(all, 252), ["DeviceAllow[0]", "DevicePolicy=auto"]);
        // systemd has no list of what is denied: nothing until the exact rules are set
        let all_but = r#"{"devices":[{"allow":true,"access":"rwm"},
            {"allow":false,"type":"b","major":8,"minor":0,"access":"rwm"}]}"#;
        assert_eq!(
            texts(all_but, 252),
            ["DeviceAllow[0]", "DevicePolicy=strict", "DeviceAllow[0]"]
        );
    }
}
