//! Containers on hosts with cgroup v2 alone and with v1 alone, whatever this machine has.
#![forbid(unsafe_code)]

use std::process::Command;

use anyhow::{Context, Result, ensure};
use bulkhead_tests::{Daemon, run};

/// With the flags of the host's mount, which one without would take from the whole host.
const V2: &str = "
flags=$(sed -n 's/.* - cgroup2 [^ ]* r[ow],*//p' /proc/self/mountinfo | head -n 1)
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 ${flags:+-o \"$flags\"} cgroup2 /sys/fs/cgroup";

/// Every v1 hierarchy that the machine has in use, each at a directory of its own.
const V1: &str = "
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t tmpfs tmpfs /sys/fs/cgroup
cut -d: -f2 /proc/self/cgroup | grep . | while read -r names; do
    mkdir \"/sys/fs/cgroup/$names\"
    case $names in name=*) options=none,$names ;; *) options=$names ;; esac
    mount -t cgroup -o \"$options\" cgroup \"/sys/fs/cgroup/$names\"
done";

#[test]
fn cgroup_v2_alone() -> Result<()> {
    lead_a_life(V2, "2")
}

#[test]
fn cgroup_v1_alone() -> Result<()> {
    let used = std::fs::read_to_string("/proc/self/cgroup")?;
    if !used.lines().any(|line| line.contains(":memory:") || line.contains(":pids:")) {
        bulkhead_sys::testing::skip("this machine's controllers are all cgroup v2's");
        return Ok(());
    }
    lead_a_life(V1, "1")
}

fn lead_a_life(mounts: &'static str, version: &str) -> Result<()> {
    let daemon = Daemon::start_with_cgroups(Some(mounts))?;
    let ok = |arguments: &[&str]| daemon.docker(arguments)?.ok();
    daemon.busybox("busybox")?;
    assert_eq!(ok(&["info", "--format", "{{.CgroupVersion}}"])?, version);
    assert_eq!(ok(&["run", "--rm", "busybox", "cat", "/proc/1/comm"])?, "cat");

    // a limit is kept, or the client is told that it is not
    for (flags, limited, warned) in [
        (["-m", "64m"], "{{.MemoryLimit}}", "memory limit capabilities"),
        (["--pids-limit", "20"], "{{.PidsLimit}}", "pids limit capabilities"),
        (["--cpus", "0.5"], "{{.CPUCfsQuota}}", "CPU CFS scheduler"),
        (["--cpuset-cpus", "0"], "{{.CPUSet}}", "cpuset"),
    ] {
        let limited = ok(&["info", "--format", limited])? == "true";
        let said = daemon.docker(&["run", "--rm", flags[0], flags[1], "busybox", "true"])?;
        let warning = format!("Your kernel does not support {warned}");
        ensure!(said.code == 0, "{flags:?}: {}", said.stderr);
        assert_eq!(said.stderr.contains(&warning), !limited, "{flags:?}: {}", said.stderr);
    }

    let id = ok(&["run", "-d", "--name", "idle", "busybox", "sleep", "1000"])?;
    let place = places(&daemon, "idle", version)?;
    ensure!(place.len() == 1, "the hierarchies differ: {place:?}");
    ensure!(place[0].starts_with(&format!("/{}/", daemon.cgroup())), "{place:?}");
    ensure!(place[0].ends_with(&format!("/{id}")), "{place:?}");
    // the root of the container's cgroup namespace, in every hierarchy that Bulkhead uses
    let inside = ok(&["exec", "idle", "cat", "/proc/self/cgroup"])?;
    assert_eq!(in_version(&inside, version), ["/"], "{inside}");

    ok(&["pause", "idle"])?;
    assert_eq!(ok(&["inspect", "--format", "{{.State.Status}}", "idle"])?, "paused");
    ok(&["unpause", "idle"])?;
    ensure!(ok(&["top", "idle"])?.contains("sleep 1000"));
    daemon.crash()?;
    daemon.up()?;
    assert_eq!(ok(&["inspect", "--format", "{{.State.Status}}", "idle"])?, "running");
    ok(&["stop", "--time", "0", "idle"])?;
    assert_eq!(ok(&["inspect", "--format", "{{.State.ExitCode}}", "idle"])?, "137");
    ok(&["start", "idle"])?;
    assert_eq!(places(&daemon, "idle", version)?, place);
    ok(&["rm", "--force", "idle"])?;

    let parent = daemon.cgroup().to_owned();
    drop(daemon);
    // the walk may meet cgroups that other tests remove
    let left = format!("find /sys/fs/cgroup -type d -name '{parent}*' 2>/dev/null || true");
    assert_eq!(run(Command::new("sh").args(["-c", &left]))?.ok()?, "");
    Ok(())
}

/// Where a container's first process is, in the hierarchies of a version.
fn places(daemon: &Daemon, name: &str, version: &str) -> Result<Vec<String>> {
    let pid = daemon.docker(&["inspect", "--format", "{{.State.Pid}}", name])?.ok()?;
    let file = format!("/proc/{pid}/cgroup");
    let text = std::fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    Ok(in_version(&text, version))
}

/// The different paths in the lines of cgroups(7)'s /proc/PID/cgroup; v2's begins with `0::`.
fn in_version(text: &str, version: &str) -> Vec<String> {
    let mut paths: Vec<String> = text
        .lines()
        .filter(|line| line.starts_with("0::") == (version == "2"))
        .filter_map(|line| line.splitn(3, ':').nth(2).map(str::to_owned))
        .collect();
    paths.sort();
    paths.dedup();
    paths
}
