//! ps(1) for `docker top`: its options, as far as people pass them there, and the columns that they ask for.
//!
//! Docker runs the host's ps; here `/proc` is read, so that no program is needed and none is run.

use std::os::unix::fs::MetadataExt;

use bulkhead_types::Timestamp;

use crate::EngineError;

/// What is shown of a process, under which title.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    title: String,
    value: Field,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    User,
    Group,
    UserId,
    GroupId,
    Pid,
    Parent,
    ProcessGroup,
    Session,
    Threads,
    /// Whole percents of a processor since its start.
    Processor,
    /// With one digit behind the point.
    ProcessorExact,
    Memory,
    /// KiB
    Resident,
    /// KiB
    Virtual,
    Terminal,
    State,
    Nice,
    Priority,
    Start,
    Elapsed,
    Time,
    Name,
    Command,
}

/// ps(1), "STANDARD FORMAT SPECIFIERS": names, and the title that ps writes.
const FIELDS: &[(&[&str], &str, Field)] = &[
    (&["user", "euser", "uname", "ruser"], "USER", Field::User),
    (&["group", "egroup", "rgroup"], "GROUP", Field::Group),
    (&["uid", "euid", "ruid"], "UID", Field::UserId),
    (&["gid", "egid", "rgid"], "GID", Field::GroupId),
    (&["pid", "tgid"], "PID", Field::Pid),
    (&["ppid"], "PPID", Field::Parent),
    (&["pgid", "pgrp"], "PGID", Field::ProcessGroup),
    (&["sid", "sess", "session"], "SID", Field::Session),
    (&["nlwp", "thcount"], "NLWP", Field::Threads),
    (&["c"], "C", Field::Processor),
    (&["pcpu", "%cpu"], "%CPU", Field::ProcessorExact),
    (&["pmem", "%mem"], "%MEM", Field::Memory),
    (&["rss", "rssize", "rsz"], "RSS", Field::Resident),
    (&["vsz", "vsize"], "VSZ", Field::Virtual),
    (&["tty", "tt", "tname"], "TT", Field::Terminal),
    (&["stat", "s", "state"], "STAT", Field::State),
    (&["ni", "nice"], "NI", Field::Nice),
    (&["pri"], "PRI", Field::Priority),
    (&["stime", "start_time", "start"], "STIME", Field::Start),
    (&["etime"], "ELAPSED", Field::Elapsed),
    (&["time", "cputime"], "TIME", Field::Time),
    (&["comm", "ucmd", "ucomm"], "COMMAND", Field::Name),
    (&["cmd"], "CMD", Field::Command),
    (&["args", "command"], "COMMAND", Field::Command),
];

/// `-f`
const FULL: &[(&str, Field)] = &[
    ("UID", Field::User),
    ("PID", Field::Pid),
    ("PPID", Field::Parent),
    ("C", Field::Processor),
    ("STIME", Field::Start),
    ("TTY", Field::Terminal),
    ("TIME", Field::Time),
    ("CMD", Field::Command),
];

/// `u`
const USERS: &[(&str, Field)] = &[
    ("USER", Field::User),
    ("PID", Field::Pid),
    ("%CPU", Field::ProcessorExact),
    ("%MEM", Field::Memory),
    ("VSZ", Field::Virtual),
    ("RSS", Field::Resident),
    ("TTY", Field::Terminal),
    ("STAT", Field::State),
    ("START", Field::Start),
    ("TIME", Field::Time),
    ("COMMAND", Field::Command),
];

/// `-A` and nothing more.
const SHORT: &[(&str, Field)] =
    &[("PID", Field::Pid), ("TTY", Field::Terminal), ("TIME", Field::Time), ("CMD", Field::Name)];

impl Column {
    /// Reads ps's arguments; none are `-ef`.
    ///
    /// # Errors
    /// Names an option or a column that is not there, and says where the pid is missing, which Docker
    /// needs too.
    pub fn parse(arguments: &str) -> Result<Vec<Self>, EngineError> {
        let mut list: Option<Vec<Self>> = None;
        let mut format = SHORT;
        let mut words = arguments.split([' ', '+']).filter(|word| !word.is_empty());
        if arguments.trim().is_empty() {
            format = FULL;
        }
        while let Some(word) = words.next() {
            let letters = word.strip_prefix('-').unwrap_or(word);
            for (at, letter) in letters.char_indices() {
                match letter {
                    // Which processes: all of the container's, whatever is said.
                    'e' | 'A' | 'a' | 'x' | 'd' | 'w' => {}
                    'f' | 'F' if word.starts_with('-') => format = FULL,
                    'u' if !word.starts_with('-') => format = USERS,
                    'o' | 'O' if letter == 'o' => {
                        let rest = &letters[at + 1..];
                        let names = if rest.is_empty() { words.next() } else { Some(rest) };
                        let names = names.ok_or_else(|| {
                            EngineError::invalid("ps: option -o needs a list of columns")
                        })?;
                        list.get_or_insert_default().extend(columns(names)?);
                        break;
                    }
                    other => {
                        return Err(EngineError::invalid(format!(
                            "ps: option {other:?} of {arguments:?} is not supported by Bulkhead: \
                             there are -e, -f, -o COLUMNS and aux"
                        )));
                    }
                }
            }
        }
        let usual = |format: &[(&str, Field)]| {
            let column =
                |(title, value): &(&str, Field)| Self { title: (*title).to_owned(), value: *value };
            format.iter().map(column).collect()
        };
        let columns = list.unwrap_or_else(|| usual(format));
        match columns.iter().any(|column: &Self| column.value == Field::Pid) {
            true => Ok(columns),
            // Docker's words (moby: daemon/top_unix.go)
            false => Err(EngineError::internal("Couldn't find PID field in ps output")),
        }
    }

    pub(crate) fn title(&self) -> String {
        self.title.clone()
    }
}

/// `pid,cmd`, `pid=NUMBER`
fn columns(names: &str) -> Result<Vec<Column>, EngineError> {
    let column = |name: &str| {
        let (name, title) = match name.split_once('=') {
            Some((name, title)) => (name, Some(title)),
            None => (name, None),
        };
        let found = FIELDS.iter().find(|(names, ..)| names.contains(&name)).ok_or_else(|| {
            EngineError::invalid(format!("ps: there is no column {name:?} in Bulkhead"))
        })?;
        Ok(Column { title: title.unwrap_or(found.1).to_owned(), value: found.2 })
    };
    names.split(',').filter(|name| !name.is_empty()).map(column).collect()
}

/// What the whole machine says of time and memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    /// Seconds since the epoch.
    boot: i64,
    /// KiB
    memory: u64,
}

impl Machine {
    pub(crate) fn read() -> Self {
        let number = |path: &str, name: &str| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        Self {
            boot: number("/proc/stat", "btime ") as i64,
            memory: number("/proc/meminfo", "MemTotal:"),
        }
    }
}

/// The row of a process, from proc_pid_stat(5); `None` once it has ended.
pub(crate) fn row(pid: u32, columns: &[Column], machine: Machine) -> Option<Vec<String>> {
    let owner = std::fs::metadata(format!("/proc/{pid}")).ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    // The name is in parentheses and may itself hold anything.
    let (start, rest) = stat.rsplit_once(')')?;
    let name = start.split_once('(')?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|it| it.parse::<i64>().ok());
    let ticks = i64::try_from(rustix::param::clock_ticks_per_second()).ok()?.max(1);
    let (used, started) = (number(11)? + number(12)?, machine.boot + number(19)? / ticks);
    let age = (Timestamp::now().as_second() - started).max(1);
    let page = rustix::param::page_size() as i64 / 1024;
    let resident = number(21)? * page;
    let value = |field: Field| -> Option<String> {
        Some(match field {
            Field::User | Field::UserId => owner.uid().to_string(),
            Field::Group | Field::GroupId => owner.gid().to_string(),
            Field::Pid => pid.to_string(),
            Field::Parent => number(1)?.to_string(),
            Field::ProcessGroup => number(2)?.to_string(),
            Field::Session => number(3)?.to_string(),
            Field::Threads => number(17)?.to_string(),
            Field::Processor => (used * 100 / ticks / age).to_string(),
            Field::ProcessorExact => {
                format!("{:.1}", used as f64 * 100.0 / ticks as f64 / age as f64)
            }
            Field::Memory => {
                format!("{:.1}", resident as f64 * 100.0 / machine.memory.max(1) as f64)
            }
            Field::Resident => resident.to_string(),
            Field::Virtual => (number(20)? / 1024).to_string(),
            Field::Terminal => match number(4)? {
                0 => "?".to_owned(),
                device => format!("pts/{}", device & 0xff),
            },
            Field::State => (*fields.first()?).to_owned(),
            Field::Nice => number(16)?.to_string(),
            Field::Priority => (39 - number(15)?).to_string(),
            Field::Start => started_at(started)?,
            Field::Elapsed => duration(age, Hours::WhereNeeded),
            Field::Time => duration(used / ticks, Hours::Always),
            Field::Name => name.to_owned(),
            Field::Command => {
                let words = String::from_utf8_lossy(&command).replace('\0', " ").trim().to_owned();
                // a thread of the kernel's, or one that has ended
                if words.is_empty() { format!("[{name}]") } else { words }
            }
        })
    };
    columns.iter().map(|column| value(column.value)).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hours {
    Always,
    WhereNeeded,
}

/// `[[DD-]HH:]MM:SS`
fn duration(seconds: i64, hours: Hours) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let clock = match rest / 3600 {
        0 if days == 0 && hours == Hours::WhereNeeded => String::new(),
        hours => format!("{hours:02}:"),
    };
    let days = if days > 0 { format!("{days}-") } else { String::new() };
    format!("{days}{clock}{:02}:{:02}", rest / 60 % 60, rest % 60)
}

/// The time of day, or the day where that was another.
fn started_at(second: i64) -> Option<String> {
    let zone = jiff::tz::TimeZone::system();
    let started = Timestamp::from_second(second).ok()?.to_zoned(zone.clone());
    let now = Timestamp::now().to_zoned(zone);
    let format = if started.date() == now.date() { "%H:%M" } else { "%b%d" };
    Some(started.strftime(format).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_pss() {
        let titles = |arguments: &str| {
            let columns = Column::parse(arguments).unwrap();
            columns.iter().map(Column::title).collect::<Vec<_>>().join(" ")
        };
        for (arguments, wanted) in [
            ("", "UID PID PPID C STIME TTY TIME CMD"),
            ("-ef", "UID PID PPID C STIME TTY TIME CMD"),
            ("aux", "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"),
            ("-eo pid,comm", "PID COMMAND"),
            ("-o pid=NUMBER -o ppid,args", "NUMBER PPID COMMAND"),
            ("-A", "PID TTY TIME CMD"),
        ] {
            assert_eq!(titles(arguments), wanted, "{arguments}");
        }
        for (arguments, why) in [
            ("-o user", "Couldn't find PID field"),
            ("-o pid,bogus", "no column \"bogus\""),
            ("-L", "option 'L'"),
            ("-o", "needs a list"),
        ] {
            let error = Column::parse(arguments).unwrap_err().message;
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn this_process_has_a_row() {
        let columns = Column::parse("-o pid,ppid,etime,cmd,rss").unwrap();
        let row = row(std::process::id(), &columns, Machine::read()).unwrap();
        assert_eq!(row[0], std::process::id().to_string());
        assert_eq!(row[1], rustix::process::getppid().unwrap().as_raw_nonzero().to_string());
        assert!(row[4].parse::<u64>().unwrap() > 0);
        assert_eq!(duration(90_061, Hours::Always), "1-01:01:01");
        assert_eq!(duration(61, Hours::WhereNeeded), "01:01");
    }
}
