//! `bulkhead audit`: what of the containers that run, and of the engine, is less safe than it could be.
//!
//! The checks and their numbers are those of the CIS Docker Benchmark (1.6, sections 2 to 5). Those that
//! a program cannot judge are listed, and not passed.

mod containers;
mod engine;

use std::cmp::Reverse;
use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::show::text;
use crate::client::{Client, encode};
use crate::failure::Failure;
use crate::terminal::printable;

#[derive(Debug, Args)]
pub struct AuditArguments {
    /// Containers that do not run, too
    #[arg(short, long)]
    all: bool,
    /// The least level at which the exit status is 1, for CI
    #[arg(long, value_enum, default_value_t = FailOn::High)]
    fail_on: FailOn,
    /// `text` or `json`
    #[arg(long, default_value = "text")]
    format: String,
    /// Only these containers
    containers: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailOn {
    High,
    Medium,
    Low,
    Never,
}

/// What whoever takes over the container, or the network, gains by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    /// One wall less, of several.
    Low,
    /// A way to disturb others, or a step towards the host.
    Medium,
    /// The host, or as good as it.
    High,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }

    /// Whether this is to be told by the exit status.
    fn fails(self, on: FailOn) -> bool {
        match on {
            FailOn::High => self >= Self::High,
            FailOn::Medium => self >= Self::Medium,
            FailOn::Low => true,
            FailOn::Never => false,
        }
    }
}

/// Something that is less safe than it could be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    /// Of the benchmark; a dash where it has none.
    check: &'static str,
    level: Level,
    /// The container; empty where it is the engine.
    subject: String,
    what: String,
    /// What follows from it.
    means: &'static str,
    /// What to do.
    mend: String,
}

impl Finding {
    fn json(&self) -> Value {
        json!({
            "Check": self.check,
            "Level": self.level.name(),
            "Container": self.subject,
            "Finding": self.what,
            "Means": self.means,
            "Mend": self.mend,
        })
    }
}

/// What is not judged, and why.
const NOT_CHECKED: [(&str, &str); 6] = [
    ("1", "the host: partitions, kernel and auditd are its administrator's"),
    ("4.2 to 4.11", "how images are built and where they come from"),
    ("5.3", "SELinux: Bulkhead has no labels for containers yet"),
    ("5.9", "whether a published port is needed"),
    ("5.19", "whether a limit of processes' resources fits what runs"),
    ("5.23, 5.24", "who enters containers, and as which user: see `bulkhead events`"),
];

pub async fn run(client: &Client, arguments: AuditArguments) -> Result<(), Failure> {
    let as_json = match arguments.format.as_str() {
        "text" => false,
        "json" => true,
        other => {
            return Err(Failure::new(format!("{other:?} is no format: use text or json")));
        }
    };
    let names = match arguments.containers.is_empty() {
        true => all(client, arguments.all).await?,
        false => arguments.containers.clone(),
    };
    let mut findings = Vec::new();
    let mut checked = 0;
    for name in names {
        let container = match client.get(&format!("/containers/{}/json", encode(&name))).await {
            Ok(container) => container,
            // one of the list has gone meanwhile
            Err(failure) if failure.status == Some(404) && arguments.containers.is_empty() => {
                continue;
            }
            Err(failure) => return Err(failure),
        };
        let processes = match container["State"]["Running"].as_bool() {
            Some(true) => programs(client, &name).await,
            _ => Vec::new(),
        };
        findings.extend(containers::findings(&container, &processes));
        checked += 1;
    }
    if arguments.containers.is_empty() {
        findings.extend(engine::findings(client).await?);
    }
    findings.sort_by_key(|finding| (Reverse(finding.level), finding.subject.clone()));
    if as_json {
        let all: Vec<Value> = findings.iter().map(Finding::json).collect();
        let text = serde_json::to_string_pretty(&all);
        println!("{}", text.map_err(|cause| Failure::new(cause.to_string()))?);
    } else {
        print!("{}", shown(&findings, checked));
    }
    match findings.iter().any(|finding| finding.level.fails(arguments.fail_on)) {
        true => Err(Failure::silent(1)),
        false => Ok(()),
    }
}

async fn all(client: &Client, stopped: bool) -> Result<Vec<String>, Failure> {
    let listed = client.get(&format!("/containers/json?all={}", u8::from(stopped))).await?;
    Ok(listed.as_array().into_iter().flatten().map(|container| text(&container["Id"])).collect())
}

/// The command lines of a container's processes; none where they cannot be had.
async fn programs(client: &Client, name: &str) -> Vec<String> {
    let Ok(top) = client.get(&format!("/containers/{}/top", encode(name))).await else {
        return Vec::new();
    };
    let rows = top["Processes"].as_array().into_iter().flatten();
    rows.filter_map(|row| row.as_array()?.last()?.as_str().map(str::to_owned)).collect()
}

fn shown(findings: &[Finding], checked: usize) -> String {
    let mut said = String::new();
    for finding in findings {
        let subject = match finding.subject.as_str() {
            "" => "the engine",
            name => name,
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            said,
            "{:<7} {:<5} {}: {}\n              {}\n              mend: {}",
            finding.level.name(),
            finding.check,
            printable(subject),
            printable(&finding.what),
            finding.means,
            printable(&finding.mend),
        );
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let _ = writeln!(
        said,
        "{checked} container{} checked: {} high, {} medium, {} low",
        if checked == 1 { "" } else { "s" },
        count(Level::High),
        count(Level::Medium),
        count(Level::Low)
    );
    let _ = writeln!(said, "Not checked:");
    for (check, why) in NOT_CHECKED {
        let _ = writeln!(said, "  {check:<12} {why}");
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(level: Level, subject: &str) -> Finding {
        Finding {
            check: "5.5",
            level,
            subject: subject.to_owned(),
            what: "runs \u{1b}[31mprivileged".to_owned(),
            means: "root in it is root of the host",
            mend: "make it anew without --privileged".to_owned(),
        }
    }

    #[test]
    fn the_exit_status_is_of_the_level_that_was_asked_for() {
        for (level, on, fails) in [
            (Level::High, FailOn::High, true),
            (Level::Medium, FailOn::High, false),
            (Level::Medium, FailOn::Medium, true),
            (Level::Low, FailOn::Medium, false),
            (Level::Low, FailOn::Low, true),
            (Level::High, FailOn::Never, false),
        ] {
            assert_eq!(level.fails(on), fails, "{level:?} {on:?}");
        }
    }

    #[test]
    fn what_strangers_have_named_does_nothing_to_the_terminal() {
        let said = shown(&[finding(Level::High, "web"), finding(Level::Low, "")], 1);
        assert!(!said.contains('\u{1b}'), "{said}");
        assert!(
            said.contains("high    5.5   web: runs") && said.contains("the engine: runs"),
            "{said}"
        );
        assert!(said.contains("1 container checked: 1 high, 0 medium, 1 low"), "{said}");
    }
}
