//! The comparison: what clients were told with the records, and the records with the machine.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::load::{AGAIN, LINES, Model, STEADY, Told};
use super::stage::{Stage, run};

/// How many wardens die in a round, at most: two of a failpoint, and one at the moment of the kill.
const DEATHS: usize = 3;

/// How long the machine may take to come to rest.
const REST: Duration = Duration::from_secs(20);

/// Everything that a client was told is in the records, and every byte that was written. Returns how
/// many lines only a warden had that died.
pub fn records(stage: &Stage, model: &Model, lost: &mut Vec<String>) -> Result<usize> {
    let mut unlogged = 0;
    let all = model.containers().clone();
    for (name, told) in &all {
        let found = inspect(stage, name);
        match (told, found) {
            (Told::Unknown, _) | (Told::Removed, Err(_)) => {}
            (Told::Removed, Ok(_)) => lost.push(format!("{name}: it was removed, and is there")),
            (_, Err(error)) => lost.push(format!("{name}: {told:?}, and is not there: {error}")),
            (Told::Created, Ok(_)) => {}
            (Told::Started(code) | Told::Ended(code), Ok(state)) => {
                // Whoever was killed with the warden has not ended by itself.
                let is_shaken = model.was_shaken(name);
                let is_killed = is_shaken && matches!(told, Told::Started(_)) && says_why(&state);
                let code = u64::from(*code);
                if !is_killed && (state["Status"] != "exited" || state["ExitCode"] != code) {
                    lost.push(format!("{name}: it ended with {code}, and is {state}"));
                }
                // What waited for the disk is written when there is room.
                let complete = || Ok(logged(stage, name)?.len() == LINES);
                let patience = if is_shaken { Duration::ZERO } else { REST };
                let is_complete = comes_to(patience, complete)?;
                let found = logged(stage, name)?;
                let numbers = found.iter().map(|line| line.strip_prefix("line ")?.parse().ok());
                let numbers: Option<Vec<usize>> = numbers.collect();
                match numbers {
                    // One gap for each warden at most: what it had just read.
                    Some(numbers) if is_once(&numbers) && gaps(&numbers) <= DEATHS => {}
                    _ => lost.push(format!("{name}: its log is {found:?}")),
                }
                match (is_complete, is_killed, is_shaken) {
                    (true, ..) | (_, true, _) => {}
                    (_, _, true) => unlogged += LINES.saturating_sub(found.len()),
                    _ => lost.push(format!("{name}: {} of {LINES} lines", found.len())),
                }
                if is_killed || model.was_cramped(name) {
                    continue;
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
    let begun = stage.bulkhead(&["logs", STEADY])?;
    let (starts, count) = (model.steady_starts(), begun.lines().count());
    if count == 0 || count > starts || begun.lines().any(|line| line != "begin") {
        lost.push(format!("{STEADY}: started {starts} times, its log is {begun:?}"));
    }
    // It ends each second: seen running once is enough.
    let runs = || Ok(inspect(stage, AGAIN)?["Status"] == "running");
    if !comes_to(Duration::from_secs(90), runs)? {
        lost.push(format!("{AGAIN}: {}", inspect(stage, AGAIN)?));
    }
    Ok(unlogged)
}

/// Nothing is written twice.
fn is_once(numbers: &[usize]) -> bool {
    numbers.windows(2).all(|pair| pair[0] < pair[1])
}

/// How often something is missing.
fn gaps(numbers: &[usize]) -> usize {
    let all = std::iter::once(None).chain(numbers.iter().map(|number| Some(*number)));
    let next = numbers.iter().copied().chain([LINES]);
    all.zip(next).filter(|(before, next)| before.map_or(0, |before| before + 1) != *next).count()
}

/// Whether a container's state says that nobody knows how it ended, since its warden died with the
/// engine.
fn says_why(state: &Value) -> bool {
    let why = state["Error"].as_str().unwrap_or_default();
    state["Status"] == "exited" && state["ExitCode"] == 255 && why.contains("(the warden) ended")
}

fn logged(stage: &Stage, name: &str) -> Result<Vec<String>> {
    Ok(stage.bulkhead(&["logs", name])?.lines().map(str::to_owned).collect())
}

/// [`STEADY`] runs after a kill, or says that it ended with engine and warden.
pub fn steady(stage: &Stage, wardens_died_too: bool, lost: &mut Vec<String>) -> Result<()> {
    let state = inspect(stage, STEADY)?;
    if state["Status"] != "running" && !(wardens_died_too && says_why(&state)) {
        lost.push(format!("{STEADY}: {state}"));
    }
    Ok(())
}

/// What the machine has for containers is what the running ones have: cgroups, links, addresses that
/// are pinned, ports that are published, wardens' processes.
pub fn round(stage: &Stage, when: &str, left: &mut Vec<String>) -> Result<()> {
    let mut difference = None;
    // One that restarts by its policy is between two states each second.
    comes_to(REST, || {
        difference = differs(stage)?;
        Ok(difference.is_none())
    })?;
    left.extend(difference.map(|difference| format!("{when}: {difference}")));
    Ok(())
}

fn differs(stage: &Stage) -> Result<Option<String>> {
    let all: Vec<Value> = serde_json::from_str(&stage.request("GET", "/containers/json")?)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    // One that waits for its restart is listed, and has nothing.
    let all: Vec<&Value> = all.iter().filter(|container| container["State"] == "running").collect();
    let ids: BTreeSet<String> = all.iter().map(|container| text(&container["Id"])).collect();
    let (mut ports, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for container in &all {
        let networks = container["NetworkSettings"]["Networks"].as_object();
        let address = networks.and_then(|all| Some(text(&all.values().next()?["IPAddress"])));
        addresses.extend(address.clone());
        for port in container["Ports"].as_array().into_iter().flatten() {
            if let (Some(address), Some(public)) = (&address, port["PublicPort"].as_u64()) {
                ports.insert(format!(
                    "{} {public} {address} {}",
                    text(&port["Type"]),
                    port["PrivatePort"]
                ));
            }
        }
    }
    let found = cgroups(&stage.cgroup)?;
    if found != ids {
        return Ok(Some(format!("containers {ids:?} run, and there are cgroups {found:?}")));
    }
    let links = links()?;
    if links.len() != ids.len() {
        return Ok(Some(format!("{} containers run, and there are links {links:?}", ids.len())));
    }
    let words = |element: &Value| -> String {
        let parts = element["concat"].as_array().cloned().unwrap_or_else(|| vec![element.clone()]);
        let word = |part: &Value| part.as_str().map_or_else(|| part.to_string(), str::to_owned);
        parts.iter().map(word).collect::<Vec<_>>().join(" ")
    };
    let mapped = elements("map", "inet", "ports")?;
    let published: BTreeSet<String> =
        mapped.iter().map(|pair| format!("{} {}", words(&pair[0]), words(&pair[1]))).collect();
    if published != ports {
        return Ok(Some(format!("ports {ports:?} are published, and nftables has {published:?}")));
    }
    // By number: nft(8) does not print the names of a set that it has not made.
    let pinned = elements("set", "bridge", "pinned")?.len();
    if pinned != links.len() {
        return Ok(Some(format!("there are links {links:?}, and nftables pins {pinned}")));
    }
    let endpoints: Vec<String> =
        elements("set", "bridge", "endpoints")?.iter().map(&words).collect();
    let allowed: BTreeSet<String> =
        endpoints.iter().filter_map(|words| words.rsplit(' ').next()).map(str::to_owned).collect();
    if endpoints.len() != links.len() || allowed != addresses {
        return Ok(Some(format!(
            "addresses {addresses:?} are given, and nftables has {endpoints:?}"
        )));
    }
    let strays = wardens_without(stage.warden()?.map(|(pid, _)| pid));
    if !strays.is_empty() {
        return Ok(Some(format!("processes of wardens that are gone: {strays:?}")));
    }
    Ok(None)
}

/// The elements of one of our sets or maps.
fn elements(kind: &str, family: &str, name: &str) -> Result<Vec<Value>> {
    let text = run("nft", &["-j", "list", kind, family, "bulkhead", name])?;
    let all: Value = serde_json::from_str(&text)?;
    let list = all["nftables"].as_array().cloned().unwrap_or_default();
    let found = list.iter().find_map(|object| object[kind]["elem"].as_array().cloned());
    Ok(found.unwrap_or_default())
}

/// The host's ends of containers' links.
fn links() -> Result<BTreeSet<String>> {
    let all = run("ip", &["-o", "link", "show", "type", "veth"])?;
    let names = all.lines().filter_map(|line| line.split([' ', '@']).nth(1).map(str::to_owned));
    Ok(names.filter(|name| !name.starts_with("host")).collect())
}

/// Processes that are copies of a warden, and not of this one's making.
fn wardens_without(warden: Option<i32>) -> Vec<i32> {
    let numbers: Vec<i32> =
        entries(Path::new("/proc")).iter().filter_map(|it| it.parse().ok()).collect();
    let is_of_a_warden = |pid: &&i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("\0warden\0--socket\0")
    };
    let belongs = |mut pid: i32| {
        while pid > 1 {
            if Some(pid) == warden {
                return true;
            }
            pid = parent(pid).unwrap_or(0);
        }
        // it has ended meanwhile
        pid == 0
    };
    numbers.iter().filter(is_of_a_warden).copied().filter(|pid| !belongs(*pid)).collect()
}

fn parent(pid: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:\t"))?.parse().ok()
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
    if !comes_to(REST, || Ok(links()?.len() <= live))? {
        left.push(format!("links {:?} {when}", links()?));
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
fn comes_to(time: Duration, mut is_so: impl FnMut() -> Result<bool>) -> Result<bool> {
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
