//! The figures of block devices.

use serde_json::Value;

use super::{Files, Object, add, add_pressure};
use crate::cgroup::CgroupError;

/// Takes the first set of files that the I/O scheduler of this host keeps, from the most telling.
pub(super) fn block_io_v1(files: Option<Files<'_>>) -> Result<Object, CgroupError> {
    const TWO: &[(&str, &str)] =
        &[("ioServicedRecursive", "io_serviced"), ("ioServiceBytesRecursive", "io_service_bytes")];
    const ALL: &[(&str, &str)] = &[
        ("sectorsRecursive", "sectors"),
        ("ioServiceTimeRecursive", "io_service_time"),
        ("ioWaitTimeRecursive", "io_wait_time"),
        ("ioMergedRecursive", "io_merged"),
        ("ioQueueRecursive", "io_queued"),
        ("ioTimeRecursive", "time"),
        ("ioServicedRecursive", "io_serviced"),
        ("ioServiceBytesRecursive", "io_service_bytes"),
    ];
    let Some(files) = files else { return Ok(Object::new()) };
    for (prefix, suffix, tables) in [
        ("blkio.bfq.", "_recursive", ALL),
        ("blkio.bfq.", "_recursive", TWO),
        ("blkio.", "_recursive", ALL),
        ("blkio.throttle.", "_recursive", TWO),
        ("blkio.throttle.", "", TWO),
    ] {
        let mut block_io = Object::new();
        for (index, (key, name)) in tables.iter().enumerate() {
            let name = format!("{prefix}{name}{suffix}");
            let text = files.text(&name)?.unwrap_or_default();
            let entries: Option<Vec<Value>> =
                text.lines().filter(|line| !line.starts_with("Total")).map(block_entry).collect();
            let entries = entries.ok_or_else(|| files.unexpected(&name, &text))?;
            if entries.is_empty() && index == 0 {
                break;
            }
            if !entries.is_empty() {
                block_io.insert((*key).to_owned(), entries.into());
            }
        }
        if !block_io.is_empty() {
            return Ok(block_io);
        }
    }
    Ok(Object::new())
}

/// `MAJOR:MINOR [OPERATION] NUMBER`
fn block_entry(line: &str) -> Option<Value> {
    let fields: Vec<&str> = line.split([' ', ':']).filter(|field| !field.is_empty()).collect();
    let (operation, value) = match fields[..] {
        [_, _, value] => ("", value),
        [_, _, operation, value] => (operation, value),
        _ => return None,
    };
    Some(entry(fields[0].parse().ok()?, fields[1].parse().ok()?, operation, value.parse().ok()?))
}

fn entry(major: u64, minor: u64, operation: &str, value: u64) -> Value {
    let mut entry = Object::new();
    add(&mut entry, "major", major);
    add(&mut entry, "minor", minor);
    if !operation.is_empty() {
        entry.insert("op".to_owned(), operation.into());
    }
    add(&mut entry, "value", value);
    entry.into()
}

/// `io.stat` has `MAJOR:MINOR KEY=NUMBER …`; the keys get the names of v1.
pub(super) fn block_io_v2(files: &Files<'_>) -> Result<Object, CgroupError> {
    let mut tables: [(&str, Vec<Value>); 2] =
        [("ioServiceBytesRecursive", Vec::new()), ("ioServicedRecursive", Vec::new())];
    let text = files.text("io.stat")?.unwrap_or_default();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let device = fields.next().and_then(|device| {
            let (major, minor) = device.split_once(':')?;
            Some((major.parse::<u64>().ok()?, minor.parse::<u64>().ok()?))
        });
        let Some((major, minor)) = device else { continue };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let (table, operation) = match key {
                "rbytes" => (0, "Read"),
                "wbytes" => (0, "Write"),
                "rios" => (1, "Read"),
                "wios" => (1, "Write"),
                _ => continue,
            };
            let value = value.parse().map_err(|_| files.unexpected("io.stat", line))?;
            tables[table].1.push(entry(major, minor, operation, value));
        }
    }
    let filled = tables.into_iter().filter(|(_, entries)| !entries.is_empty());
    let mut block_io: Object =
        filled.map(|(key, entries)| (key.to_owned(), entries.into())).collect();
    add_pressure(&mut block_io, files, "io.pressure")?;
    Ok(block_io)
}
