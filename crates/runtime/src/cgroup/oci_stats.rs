//! What `runc events --stats` tells of a group, in its JSON (runc: types/events.go).

use std::io;

use serde_json::{Map, Value, json};

use super::file::{self, Directory};
use super::hierarchy::Version;
use super::{Cgroup, CgroupError, Group};

mod block_io;

use block_io::{block_io_v1, block_io_v2};

type Object = Map<String, Value>;

impl Cgroup {
    /// The `data` of a `stats` event: `cpu`, `cpuset`, `memory`, `pids`, `blkio`, `hugetlb`,
    /// `intel_rdt` (empty) and `network_interfaces` (null, as runc has it for OCI containers).
    ///
    /// Nanoseconds and bytes; 18446744073709551615 is unlimited. What runc leaves out when it is
    /// zero is left out, and so is what this host does not count.
    pub fn oci_stats(&self) -> Result<Value, CgroupError> {
        let with = |controller| self.with_controller(controller);
        let v1 = |controller| with(controller).filter(|group| group.version == Version::V1);
        let v2 = self.v2().filter(|_| self.mode == super::HostMode::V2);
        let (cpu, cpuset, memory, blkio) = match v2 {
            Some(group) => {
                let files = Files(&group.directory);
                (cpu_v2(&files)?, cpuset(None)?, memory_v2(&files)?, block_io_v2(&files)?)
            }
            None => (
                cpu_v1(v1("cpuacct").map(Files::from), v1("cpu").map(Files::from))?,
                cpuset(v1("cpuset").map(Files::from))?,
                memory_v1(v1("memory").map(Files::from))?,
                block_io_v1(v1("blkio").map(Files::from))?,
            ),
        };
        Ok(json!({
            "cpu": cpu,
            "cpuset": cpuset,
            "memory": memory,
            "pids": pids(with("pids").map(Files::from))?,
            "blkio": blkio,
            "hugetlb": hugetlb(with("hugetlb"))?,
            "intel_rdt": {},
            "network_interfaces": null,
        }))
    }
}

/// The files of one group; what is absent is `None`, and not an error.
struct Files<'a>(&'a Directory);

impl<'a> From<&'a Group> for Files<'a> {
    fn from(group: &'a Group) -> Self {
        Self(&group.directory)
    }
}

impl Files<'_> {
    fn text(&self, name: &str) -> Result<Option<String>, CgroupError> {
        match file::try_read(self.0, name) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            // pressure on a kernel that was started without counting it
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(None),
            Err(cause) => Err(CgroupError::Read { file: self.0.file(name), cause }),
        }
    }

    fn number(&self, name: &str) -> Result<Option<u64>, CgroupError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        number(text.trim()).map(Some).ok_or_else(|| self.unexpected(name, &text))
    }

    fn unexpected(&self, name: &str, text: &str) -> CgroupError {
        CgroupError::Unexpected { file: self.0.file(name), text: text.trim().to_owned() }
    }
}

/// `max` is the largest number, and what is below zero is zero, as runc reads both.
fn number(text: &str) -> Option<u64> {
    match text {
        "max" => Some(u64::MAX),
        digits => digits.parse().ok().or_else(|| digits.parse::<i64>().ok().map(|_| 0)),
    }
}

/// Adds a value unless it is zero.
fn add(object: &mut Object, key: &str, value: u64) {
    if value != 0 {
        object.insert(key.to_owned(), value.into());
    }
}

fn add_object(object: &mut Object, key: &str, value: Object) {
    if !value.is_empty() {
        object.insert(key.to_owned(), value.into());
    }
}

fn cpu_v1(account: Option<Files<'_>>, cpu: Option<Files<'_>>) -> Result<Object, CgroupError> {
    let mut usage = Object::new();
    let mut per_kind = [Vec::new(), Vec::new(), Vec::new()];
    let mut kinds = [0, 0];
    if let Some(files) = account {
        add(&mut usage, "total", files.number("cpuacct.usage")?.unwrap_or(0));
        kinds[0] = files.number("cpuacct.usage_sys")?.unwrap_or(0);
        kinds[1] = files.number("cpuacct.usage_user")?.unwrap_or(0);
        let each = files.text("cpuacct.usage_percpu")?.unwrap_or_default();
        per_kind[0] = each.split_whitespace().filter_map(number).collect();
        // a header, then "CPU USER SYSTEM"
        for line in files.text("cpuacct.usage_all")?.unwrap_or_default().lines().skip(1) {
            let mut fields = line.split_whitespace().skip(1).filter_map(number);
            per_kind[2].extend(fields.next());
            per_kind[1].extend(fields.next());
        }
    }
    for (key, each) in ["percpu", "percpu_kernel", "percpu_user"].into_iter().zip(per_kind) {
        if !each.is_empty() {
            usage.insert(key.to_owned(), each.into());
        }
    }
    let stat = match cpu {
        Some(files) => files.text("cpu.stat")?.unwrap_or_default(),
        None => String::new(),
    };
    let throttling = throttling(&stat, "throttled_time", 1);
    Ok(with_usage(usage, kinds, throttling))
}

fn cpu_v2(files: &Files<'_>) -> Result<Object, CgroupError> {
    let stat = files.text("cpu.stat")?.unwrap_or_default();
    let nanoseconds = |key| file::field(&stat, key).unwrap_or(0).saturating_mul(1000);
    let mut usage = Object::new();
    add(&mut usage, "total", nanoseconds("usage_usec"));
    let kinds = [nanoseconds("system_usec"), nanoseconds("user_usec")];
    let mut cpu = with_usage(usage, kinds, throttling(&stat, "throttled_usec", 1000));
    add_pressure(&mut cpu, files, "cpu.pressure")?;
    Ok(cpu)
}

fn with_usage(mut usage: Object, [kernel, user]: [u64; 2], throttling: Object) -> Object {
    let mut cpu = Object::new();
    if !usage.is_empty() || kernel != 0 || user != 0 {
        usage.extend([("kernel".to_owned(), kernel.into()), ("user".to_owned(), user.into())]);
    }
    add_object(&mut cpu, "usage", usage);
    add_object(&mut cpu, "throttling", throttling);
    cpu
}

fn throttling(stat: &str, time: &str, nanoseconds: u64) -> Object {
    let field = |key| file::field(stat, key).unwrap_or(0);
    let mut throttling = Object::new();
    add(&mut throttling, "periods", field("nr_periods"));
    add(&mut throttling, "throttledPeriods", field("nr_throttled"));
    add(&mut throttling, "throttledTime", field(time).saturating_mul(nanoseconds));
    throttling
}

fn cpuset(files: Option<Files<'_>>) -> Result<Object, CgroupError> {
    let mut cpuset = Object::new();
    for (key, name) in [("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")] {
        let Some(files) = &files else { continue };
        let text = files.text(name)?.unwrap_or_default();
        let list = numbers(text.trim()).ok_or_else(|| files.unexpected(name, &text))?;
        if !list.is_empty() {
            cpuset.insert(key.to_owned(), list.into());
        }
    }
    for key in [
        "cpu_exclusive",
        "mem_hardwall",
        "mem_exclusive",
        "memory_migrate",
        "memory_spread_page",
        "memory_spread_slab",
        "memory_pressure",
        "sched_load_balance",
        "sched_relax_domain_level",
    ] {
        let text = match &files {
            Some(files) => files.text(&format!("cpuset.{key}"))?,
            None => None,
        };
        // the last one may be -1
        let value: i64 = text.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        cpuset.insert(key.to_owned(), value.into());
    }
    Ok(cpuset)
}

/// A list such as `0-2,7` as its numbers.
fn numbers(list: &str) -> Option<Vec<u16>> {
    let mut numbers = Vec::new();
    for range in list.split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        numbers.extend(first.parse::<u16>().ok()?..=last.parse().ok()?);
    }
    Some(numbers)
}

fn memory_v1(files: Option<Files<'_>>) -> Result<Object, CgroupError> {
    let mut memory = Object::new();
    let Some(files) = files else { return Ok(memory) };
    let raw = raw(&files.text("memory.stat")?.unwrap_or_default());
    add(&mut memory, "cache", raw.get("cache").and_then(Value::as_u64).unwrap_or(0));
    for (key, name) in [
        ("usage", "memory"),
        ("swap", "memory.memsw"),
        ("kernel", "memory.kmem"),
        ("kernelTCP", "memory.kmem.tcp"),
    ] {
        let value =
            |what: &str| files.number(&format!("{name}.{what}")).map(Option::unwrap_or_default);
        let numbers = [
            value("limit_in_bytes")?,
            value("usage_in_bytes")?,
            value("max_usage_in_bytes")?,
            value("failcnt")?,
        ];
        add_object(&mut memory, key, memory_entry(numbers));
    }
    add_object(&mut memory, "raw", raw);
    Ok(memory)
}

fn memory_v2(files: &Files<'_>) -> Result<Object, CgroupError> {
    let mut memory = Object::new();
    let Some(stat) = files.text("memory.stat")? else { return Ok(memory) };
    let raw = raw(&stat);
    add(&mut memory, "cache", raw.get("file").and_then(Value::as_u64).unwrap_or(0));
    let value = |name: &str| files.number(name).map(Option::unwrap_or_default);
    let (limit, usage) = (value("memory.max")?, value("memory.current")?);
    let own = memory_entry([limit, usage, value("memory.peak")?, 0]);
    add_object(&mut memory, "usage", own);
    // v1's number is that of both together
    let swap = value("memory.swap.max")?;
    let both = if swap == u64::MAX { swap } else { swap.saturating_add(limit) };
    let used = value("memory.swap.current")?.saturating_add(usage);
    add_object(&mut memory, "swap", memory_entry([both, used, 0, 0]));
    add_object(&mut memory, "raw", raw);
    add_pressure(&mut memory, files, "memory.pressure")?;
    Ok(memory)
}

fn memory_entry([limit, usage, max, failures]: [u64; 4]) -> Object {
    let mut entry = Object::new();
    if [limit, usage, max, failures] != [0; 4] {
        entry.extend([("limit".to_owned(), limit.into()), ("failcnt".to_owned(), failures.into())]);
        add(&mut entry, "usage", usage);
        add(&mut entry, "max", max);
    }
    entry
}

fn raw(stat: &str) -> Object {
    let lines = stat.lines().filter_map(|line| line.split_once(' '));
    lines.filter_map(|(key, value)| Some((key.to_owned(), number(value.trim())?.into()))).collect()
}

fn pids(files: Option<Files<'_>>) -> Result<Object, CgroupError> {
    let mut pids = Object::new();
    let Some(files) = files else { return Ok(pids) };
    add(&mut pids, "current", files.number("pids.current")?.unwrap_or(0));
    let limit = files.number("pids.max")?.filter(|limit| *limit != u64::MAX);
    add(&mut pids, "limit", limit.unwrap_or(0));
    Ok(pids)
}

fn hugetlb(group: Option<&Group>) -> Result<Object, CgroupError> {
    let mut sizes = Object::new();
    let Some(group) = group else { return Ok(sizes) };
    let files = Files(&group.directory);
    let (current, peak) = match group.version {
        Version::V1 => ("usage_in_bytes", "max_usage_in_bytes"),
        Version::V2 => ("current", ""),
    };
    for size in huge_page_sizes() {
        // reservations where they are counted, as runc
        let mut name = format!("hugetlb.{size}.rsvd");
        let mut usage = files.number(&format!("{name}.{current}"))?;
        if usage.is_none() {
            name = format!("hugetlb.{size}");
            usage = files.number(&format!("{name}.{current}"))?;
        }
        let Some(usage) = usage else { continue };
        let mut entry = Object::new();
        add(&mut entry, "usage", usage);
        let failures = match group.version {
            Version::V1 => {
                add(&mut entry, "max", files.number(&format!("{name}.{peak}"))?.unwrap_or(0));
                files.number(&format!("{name}.failcnt"))?
            }
            Version::V2 => {
                let events = files.text(&format!("hugetlb.{size}.events"))?.unwrap_or_default();
                file::field(&events, "max")
            }
        };
        entry.insert("failcnt".to_owned(), failures.unwrap_or(0).into());
        sizes.insert(size, entry.into());
    }
    Ok(sizes)
}

/// The sizes that this kernel has, by the names that the controller's files have.
fn huge_page_sizes() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/sys/kernel/mm/hugepages") else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| huge_page_size(&name)).collect()
}

fn huge_page_size(name: &str) -> Option<String> {
    let kilobytes: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kilobytes {
        1_048_576.. => format!("{}GB", kilobytes >> 20),
        1024.. => format!("{}MB", kilobytes >> 10),
        _ => format!("{kilobytes}KB"),
    })
}

/// How long processes waited (Linux: accounting/psi.rst), as `psi`.
fn add_pressure(object: &mut Object, files: &Files<'_>, name: &str) -> Result<(), CgroupError> {
    let Some(text) = files.text(name)? else { return Ok(()) };
    let mut pressure = Object::new();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let Some(kind @ ("some" | "full")) = fields.next() else { continue };
        let mut values = Object::new();
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let value = match key {
                "total" => value.parse::<u64>().ok().map(Value::from),
                _ => value.parse::<f64>().ok().map(Value::from),
            };
            values.insert(key.to_owned(), value.ok_or_else(|| files.unexpected(name, line))?);
        }
        if values.values().any(|value| value.as_f64() != Some(0.0)) {
            pressure.insert(kind.to_owned(), values.into());
        }
    }
    object.insert("psi".to_owned(), pressure.into());
    Ok(())
}

#[cfg(test)]
mod tests;
