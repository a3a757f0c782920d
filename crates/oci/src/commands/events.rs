use std::io::Write;
use std::time::Duration;

use bulkhead_runtime::cgroup::Cgroup;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::state::alive;
use crate::arguments::{Command, Global};
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::record::Identity;

pub fn run(global: &Global, command: &Command) -> Result<u8> {
    let directory = Directory::open(&global.root, command.id()?)?;
    let interval = duration(command.value("interval").unwrap_or("5s"))?;
    let (record, status) = directory.look()?;
    let record = record.filter(|_| alive(status)).ok_or(Error::NotRunning)?;
    let cgroup = record.cgroup.open()?.filter(Cgroup::exists).ok_or_else(|| {
        Error::Refused("the container has no cgroup that would count what it uses".to_owned())
    })?;
    let tell = |kind: &str, data: serde_json::Value| {
        let mut line = serde_json::json!({ "type": kind, "id": record.id });
        if !data.is_null() {
            line["data"] = data;
        }
        writeln!(std::io::stdout(), "{line}").map_err(Error::system("write to standard output"))
    };
    if command.has("stats") {
        tell("stats", cgroup.oci_stats()?)?;
        return Ok(0);
    }
    let pidfd = record.process.and_then(Identity::open).ok_or(Error::NotRunning)?;
    let mut killed = cgroup.oom_kill_count()?;
    let timeout = Timespec {
        tv_sec: i64::try_from(interval.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: interval.subsec_nanos().into(),
    };
    loop {
        let ended = match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Err(Errno::INTR) => continue,
            other => other.map_err(Error::system("wait for the container"))? > 0,
        };
        let now = cgroup.oom_kill_count().unwrap_or(killed);
        if now > killed {
            killed = now;
            tell("oom", serde_json::Value::Null)?;
        }
        if ended {
            return Ok(0);
        }
        tell("stats", cgroup.oci_stats()?)?;
    }
}

/// Reads a time as Go writes it: `5s`, `500ms`, `1m30s`.
fn duration(text: &str) -> Result<Duration> {
    let wrong =
        || Error::Usage(format!("invalid --interval {text:?}: write a time such as 5s or 500ms"));
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.find(|character: char| character.is_ascii_digit()).unwrap_or(rest.len());
        let nanoseconds: u64 = match &rest[..letters] {
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(wrong()),
        };
        rest = &rest[letters..];
        let part = number.checked_mul(nanoseconds).ok_or_else(wrong)?;
        total = total.checked_add(Duration::from_nanos(part)).ok_or_else(wrong)?;
    }
    if total.is_zero() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_writes_them() {
        for (text, milliseconds) in
            [("5s", 5000), ("500ms", 500), ("1m30s", 90_000), ("2h", 7_200_000)]
        {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
        for text in ["", "5", "s", "0s", "5 s", "-5s", "99999999999999999999s", "5x"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
