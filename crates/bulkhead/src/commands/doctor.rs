//! `bulkhead doctor`: what this machine has of what Bulkhead uses, what it lacks, and what it would gain.

mod facts;

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::terminal::printable;
use facts::Facts;

#[derive(Debug, Args)]
pub struct DoctorArguments {
    /// Where the engine keeps, or will keep, images and containers
    #[arg(long, default_value = "/var/lib/bulkhead")]
    data: PathBuf,
    /// `text` or `json`
    #[arg(long, default_value = "text")]
    format: String,
}

/// How it stands with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Has,
    /// Bulkhead runs without it, with less.
    Lacks,
    /// Nothing runs, or not as it should.
    Fails,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Has => "ok",
            Self::Lacks => "lacks",
            Self::Fails => "FAILS",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Point {
    about: &'static str,
    state: State,
    found: String,
    /// What to do, and what comes of it; empty where all is well.
    advice: &'static str,
}

pub fn run(arguments: &DoctorArguments) -> Result<(), Failure> {
    let points = judge(&Facts::of_this_machine(&arguments.data));
    match arguments.format.as_str() {
        "text" => print!("{}", shown(&points)),
        "json" => {
            let all: Vec<Value> = points.iter().map(Point::json).collect();
            let text = serde_json::to_string_pretty(&all);
            println!("{}", text.map_err(|cause| Failure::new(cause.to_string()))?);
        }
        other => return Err(Failure::new(format!("{other:?} is no format: use text or json"))),
    }
    match points.iter().any(|point| point.state == State::Fails) {
        true => Err(Failure::silent(1)),
        false => Ok(()),
    }
}

impl Point {
    fn json(&self) -> Value {
        json!({
            "About": self.about,
            "State": self.state.name().to_lowercase(),
            "Found": self.found,
            "Advice": self.advice,
        })
    }
}

fn shown(points: &[Point]) -> String {
    let mut said = String::new();
    for point in points {
        // Writing to a string does not fail.
        let _ = writeln!(
            said,
            "{:<6} {:<20} {}",
            point.state.name(),
            point.about,
            printable(&point.found)
        );
        if !point.advice.is_empty() {
            let _ = writeln!(said, "       {:<20} {}", "", point.advice);
        }
    }
    said
}

/// What the facts mean, in the order in which somebody would look.
fn judge(facts: &Facts) -> Vec<Point> {
    let mut points = Vec::new();
    let mut say = |about, state, found: String, advice: &'static str| {
        let advice = if state == State::Has { "" } else { advice };
        points.push(Point { about, state, found, advice });
    };
    let has = |yes: bool| if yes { State::Has } else { State::Lacks };
    let must = |yes: bool| if yes { State::Has } else { State::Fails };
    let at_least = |version: (u32, u32)| facts.kernel.is_some_and(|kernel| kernel >= version);

    say("root", must(facts.is_root), word(facts.is_root, "yes", "no"), "run it with sudo");
    say(
        "kernel",
        must(at_least((5, 14))),
        format!("Linux {}", facts.release),
        "Bulkhead needs 5.14 or newer: upgrade the kernel",
    );
    say(
        "cgroups",
        must(!facts.cgroups.is_empty()),
        if facts.cgroups.is_empty() { "none is mounted".to_owned() } else { facts.cgroups.clone() },
        "mount -t cgroup2 cgroup2 /sys/fs/cgroup",
    );
    for (about, controllers, advice) in [
        (
            "limits of memory",
            &["memory"][..],
            "boot with cgroup_enable=memory for -m and OOM events",
        ),
        ("limits of processes", &["pids"], "a kernel with CONFIG_CGROUP_PIDS bounds fork bombs"),
        ("limits of processors", &["cpu"], "a kernel with CONFIG_CFS_BANDWIDTH has --cpus"),
        ("cpusets", &["cpuset"], "a kernel with CONFIG_CPUSETS has --cpuset-cpus"),
        (
            "limits of disks",
            &["io", "blkio"],
            "a kernel with CONFIG_BLK_CGROUP has --device-read-bps and its kin",
        ),
    ] {
        let found = controllers.iter().find(|name| facts.controllers.iter().any(|it| it == *name));
        let words =
            found.map_or_else(|| "no controller".to_owned(), |name| format!("controller {name}"));
        say(about, has(found.is_some()), words, advice);
    }
    say(
        "overlayfs",
        must(facts.overlay),
        word(facts.overlay, "yes", "the kernel does not know it"),
        "modprobe overlay: layers of images are put together with it",
    );
    let mapped = at_least((5, 19)) && facts.data_kind.maps_owners();
    say(
        "user namespaces",
        has(mapped && facts.user_namespaces),
        match (facts.user_namespaces, mapped) {
            (false, _) => "switched off (user.max_user_namespaces is 0)".to_owned(),
            (true, true) => "each container has its own".to_owned(),
            (true, false) => format!(
                "layers on {} of Linux {} cannot be mapped",
                facts.data_kind.name(),
                facts.release
            ),
        },
        "Linux 5.19 with ext4, xfs or btrfs: root in a container is then nobody on the host",
    );
    say(
        "seccomp",
        must(!facts.seccomp_actions.is_empty()),
        word(!facts.seccomp_actions.is_empty(), "filters system calls", "no filters"),
        "a kernel with CONFIG_SECCOMP_FILTER: without it containers have every system call",
    );
    say(
        "Landlock",
        has(facts.landlock > 0),
        match facts.landlock {
            0 => "not on".to_owned(),
            abi => format!("ABI {abi}"),
        },
        "boot with lsm=landlock,… for --security-opt landlock=",
    );
    let apparmor = facts.lsms.iter().any(|name| name == "apparmor");
    say(
        "AppArmor",
        has(apparmor),
        word(apparmor, "on", "not on"),
        "boot with lsm=apparmor,… for one more wall around each container",
    );
    say(
        "time namespaces",
        has(facts.time_namespaces),
        word(facts.time_namespaces, "yes", "no"),
        "Linux 5.6 with CONFIG_TIME_NS: containers that are moved keep their clocks",
    );
    say(
        "exit codes",
        has(at_least((6, 15))),
        word(
            at_least((6, 15)),
            "survive the warden's death",
            "of containers whose warden dies are lost",
        ),
        "Linux 6.15 (PIDFD_GET_INFO) keeps them",
    );
    say(
        "firewall",
        must(facts.nftables.is_ok()),
        match &facts.nftables {
            Ok(_) => "nftables".to_owned(),
            Err(cause) => cause.clone(),
        },
        "modprobe nf_tables: published ports and the walls between networks are made of it",
    );
    let drops = facts.nftables.as_deref().unwrap_or_default();
    say(
        "forwarding",
        has(drops.is_empty()),
        match drops {
            [] => "nobody else's rules drop it".to_owned(),
            chains => format!("dropped by {}", chains.join(", ")),
        },
        "containers reach nothing outside until those chains accept what the bridges forward",
    );
    say(
        "bridge netfilter",
        has(!facts.bridge_netfilter),
        word(!facts.bridge_netfilter, "off", "on: bridged packets pass the firewall too"),
        "sysctl net.bridge.bridge-nf-call-iptables=0 unless something else needs it: it costs speed, and [::1] of published ports",
    );
    say(
        "IPv6",
        has(facts.ipv6),
        word(facts.ipv6, "on", "off"),
        "networks get IPv4 addresses alone; sysctl net.ipv6.conf.all.disable_ipv6=0 changes that",
    );
    say(
        "open files",
        has(facts.descriptors >= 65_536),
        format!("{} at most", facts.descriptors),
        "raise the hard limit (LimitNOFILE= of the service): each attached client takes some",
    );
    say(
        "data directory",
        must(facts.free.is_none_or(|free| free >= 1 << 30)),
        match facts.free {
            Some(free) => format!("{}, {} MiB free", facts.data_kind.name(), free >> 20),
            None => "its file system cannot be asked".to_owned(),
        },
        "free some space, or name another place with --data",
    );
    say(
        "other platforms",
        has(!facts.binfmt.is_empty()),
        match facts.binfmt.as_slice() {
            [] => "only this one".to_owned(),
            names => names.join(", "),
        },
        "install qemu-user-static to run images of other processors",
    );
    points
}

fn word(yes: bool, one: &str, other: &str) -> String {
    if yes { one } else { other }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::facts::FileSystem;
    use super::*;

    fn best() -> Facts {
        let own = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Facts {
            is_root: true,
            release: "6.18.0".into(),
            kernel: Some((6, 18)),
            cgroups: "v2".into(),
            controllers: own(&["cpu", "cpuset", "io", "memory", "pids"]),
            overlay: true,
            user_namespaces: true,
            seccomp_actions: own(&["errno"]),
            landlock: 7,
            lsms: own(&["apparmor"]),
            time_namespaces: true,
            nftables: Ok(Vec::new()),
            bridge_netfilter: false,
            ipv6: true,
            descriptors: 1 << 20,
            data_kind: FileSystem::Ext4,
            free: Some(1 << 40),
            binfmt: own(&["qemu-aarch64"]),
        }
    }

    #[test]
    fn of_a_machine_with_everything_there_is_no_advice() {
        let points = judge(&best());
        assert!(
            points.iter().all(|point| point.state == State::Has && point.advice.is_empty()),
            "{points:?}"
        );
    }

    #[test]
    fn what_is_missing_is_named_and_only_that() {
        type Change = fn(&mut Facts);
        let changes: [(&str, State, Change); 12] = [
            ("root", State::Fails, |facts| facts.is_root = false),
            ("cgroups", State::Fails, |facts| facts.cgroups.clear()),
            ("overlayfs", State::Fails, |facts| facts.overlay = false),
            ("limits of memory", State::Lacks, |facts| {
                facts.controllers.retain(|name| name != "memory")
            }),
            ("user namespaces", State::Lacks, |facts| facts.data_kind = FileSystem::Other(7)),
            ("user namespaces", State::Lacks, |facts| facts.user_namespaces = false),
            ("Landlock", State::Lacks, |facts| facts.landlock = 0),
            ("exit codes", State::Lacks, |facts| facts.kernel = Some((6, 1))),
            ("firewall", State::Fails, |facts| facts.nftables = Err("no".into())),
            ("forwarding", State::Lacks, |facts| {
                facts.nftables = Ok(vec!["ip filter FORWARD".into()])
            }),
            ("data directory", State::Fails, |facts| facts.free = Some(1 << 20)),
            ("other platforms", State::Lacks, |facts| facts.binfmt.clear()),
        ];
        for (about, state, change) in changes {
            let mut facts = best();
            change(&mut facts);
            let points = judge(&facts);
            let found: Vec<_> = points.iter().filter(|point| point.state != State::Has).collect();
            assert_eq!(found.len(), 1, "{about}: {found:?}");
            assert_eq!((found[0].about, found[0].state), (about, state));
            assert!(!found[0].advice.is_empty(), "{about}");
        }
    }
}
