//! The comparison: what clients were told with the records, and the records with the machine.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::load::{AGAIN, LINES, Model, STEADY, Told};
use super::stage::{Stage, run};

/// How long the machine may take to come to rest.
const REST: Duration = Duration::from_secs(20);

/// Everything that a client was told is in the records, and every byte that was written.
pub fn records(stage: &Stage, model: &Model, lost: &mut Vec<String>) -> Result<()> {
    let all = model.containers().clone();
    for (name, told) in &all {
        let found = inspect(stage, name);
        match (told, found) {
            (Told::Unknown, _) | (Told::Removed, Err(_)) => {}
            (Told::Removed, Ok(_)) => lost.push(format!("{name}: it was removed, and is there")),
            (_, Err(error)) => lost.push(format!("{name}: {told:?}, and is not there: {error}")),
            (Told::Created, Ok(_)) => {}
            (Told::Started(code) | Told::Ended(code), Ok(state)) => {
                let code = u64::from(*code);
                if state["Status"] != "exited" || state["ExitCode"] != code {
                    lost.push(format!("{name}: it ended with {code}, and is {state}"));
                }
                if model.was_cramped(name) {
                    continue;
                }
                let lines = stage.bulkhead(&["logs", name])?.lines().count();
                if lines != LINES {
                    lost.push(format!("{name}: {lines} of {LINES} lines"));
                }
                let file = stage.data().join(format!("volumes/{name}/_data/file"));
                let text = std::fs::read_to_string(&file).unwrap_or_default();
                if text.trim() != name {
                    lost.push(format!("{name}: its volume's file holds {text:?}"));
                }
            }
        }
    }
    let steady = inspect(stage, STEADY)?;
    if steady["Status"] != "running" || steady["RestartCount"].as_u64().unwrap_or(0) != 0 {
        lost.push(format!("{STEADY}: {steady}"));
    }
    if stage.bulkhead(&["logs", STEADY])? != "begin" {
        lost.push(format!("{STEADY}: its log"));
    }
    // It ends each second: seen running once is enough.
    let runs = || Ok(inspect(stage, AGAIN)?["Status"] == "running");
    if !comes_to(Duration::from_secs(90), runs)? {
        lost.push(format!("{AGAIN}: {}", inspect(stage, AGAIN)?));
    }
    Ok(())
}

/// Every directory, cgroup, link and rule belongs to a container of the records.
pub fn machine(stage: &Stage, left: &mut Vec<String>) -> Result<()> {
    stage.bulkhead(&["rm", "-f", AGAIN])?;
    let ids: BTreeSet<String> = lines(&stage.bulkhead(&["ps", "-aq", "--no-trunc"])?);
    let live: BTreeSet<String> = lines(&stage.bulkhead(&["ps", "-q", "--no-trunc"])?);
    for name in entries(&stage.data().join("containers")) {
        if !ids.contains(&name) {
            left.push(format!("the directory of container {name}"));
        }
    }
    let own = |found: &BTreeSet<String>| found.is_subset(&live);
    if !comes_to(REST, || Ok(own(&cgroups(&stage.cgroup)?)))? {
        left.push(format!("cgroups {:?}", &cgroups(&stage.cgroup)? - &live));
    }
    at_rest(live.len(), "with one container", left)
}

/// When everything is removed nothing is there.
pub fn after_removal(stage: &Stage, model: &Model, left: &mut Vec<String>) -> Result<()> {
    for id in lines(&stage.bulkhead(&["ps", "-aq", "--no-trunc"])?) {
        stage.bulkhead(&["rm", "-f", &id])?;
    }
    for name in model.containers().keys() {
        // Named, so they outlive their containers; some were never made.
        let path = format!("/volumes/{name}");
        let _ = stage.request("DELETE", &path);
    }
    for name in ["containers", "volumes"] {
        let place = stage.data().join(name);
        if !comes_to(REST, || Ok(entries(&place).is_empty()))? {
            left.push(format!("{name}: {:?}", entries(&place)));
        }
    }
    for name in entries(&stage.data().join("lost+found")) {
        left.push(format!("lost+found/{name}"));
    }
    if !comes_to(REST, || Ok(cgroups(&stage.cgroup)?.is_empty()))? {
        left.push(format!("cgroups {:?}", cgroups(&stage.cgroup)?));
    }
    at_rest(0, "after all were removed", left)
}

/// After `down --purge` there is nothing of Bulkhead's in these namespaces.
pub fn after_down(stage: &Stage, left: &mut Vec<String>) -> Result<()> {
    if stage.data().exists() {
        left.push("the data directory".to_owned());
    }
    let processes = || -> Result<Vec<String>> {
        let numbers =
            entries(Path::new("/proc")).into_iter().filter_map(|name| name.parse::<u32>().ok());
        let commands =
            numbers.filter_map(|number| std::fs::read(format!("/proc/{number}/cmdline")).ok());
        let text = commands.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
        Ok(text.filter(|line| line.contains("warden") || line.contains("in-background")).collect())
    };
    if !comes_to(REST, || Ok(processes()?.is_empty()))? {
        left.push(format!("processes {:?}", processes()?));
    }
    let links = run("ip", &["-o", "link", "show"])?;
    if links.contains("chaos0") || links.contains(": bh") {
        left.push(format!("links: {links}"));
    }
    let rules = run("nft", &["list", "ruleset"])?;
    if rules.contains("bulkhead") {
        left.push(format!("rules: {rules}"));
    }
    for entry in std::fs::read_dir("/sys/fs/cgroup")?.flatten() {
        for path in
            [entry.path().join(&stage.cgroup), Path::new("/sys/fs/cgroup").join(&stage.cgroup)]
        {
            if path.exists() {
                left.push(format!("cgroup {}", path.display()));
            }
        }
    }
    Ok(())
}

fn inspect(stage: &Stage, name: &str) -> Result<Value> {
    let text = stage.request("GET", &format!("/containers/{name}/json"))?;
    let all: Value = serde_json::from_str(&text)?;
    let mut state = all.get("State").cloned().with_context(|| text.clone())?;
    state["RestartCount"] = all["RestartCount"].clone();
    Ok(state)
}

/// Links and pinned addresses are those of `live` containers; links are taken down in quiet moments.
fn at_rest(live: usize, when: &str, left: &mut Vec<String>) -> Result<()> {
    let links = || -> Result<usize> {
        let all = run("ip", &["-o", "link", "show", "type", "veth"])?;
        Ok(all.lines().filter(|line| !line.contains("host")).count())
    };
    if !comes_to(REST, || Ok(links()? <= live))? {
        left.push(format!("{} links {when}", links()?));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    if mounts.lines().any(|line| line.contains(" - overlay ") && line.contains("/chaos-")) {
        left.push(format!("mounts {when}: {mounts}"));
    }
    Ok(())
}

fn cgroups(parent: &str) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = entries(root).into_iter().map(|name| root.join(name).join(parent));
    for engine in hierarchies.chain([root.join(parent)]).flat_map(|path| directories(&path)) {
        for container in directories(&engine) {
            found.insert(container.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
    Ok(found)
}

fn directories(path: &Path) -> Vec<std::path::PathBuf> {
    let all = std::fs::read_dir(path).into_iter().flatten().flatten();
    all.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn entries(path: &Path) -> Vec<String> {
    let all = std::fs::read_dir(path).into_iter().flatten().flatten();
    all.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(str::to_owned).collect()
}

/// Looks again until it is so, or the time is over.
fn comes_to(time: Duration, is_so: impl Fn() -> Result<bool>) -> Result<bool> {
    let end = Instant::now() + time;
    loop {
        if is_so()? {
            return Ok(true);
        }
        if Instant::now() > end {
            return Ok(false);
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
}
