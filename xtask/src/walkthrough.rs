//! The walk-through as a test: on ports, directories and a bridge of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::demo::{self, Ended, Stage};
use crate::shell::Shell;
use crate::tally::{Case, Tally};

pub fn test(tally: &mut Tally, bin: &Path) {
    let first = all(bin);
    // a step needs those before it
    tally.cases(first, &mut |_| all(bin));
}

fn all(bin: &Path) -> Vec<Case> {
    let orphans = Traces::orphans();
    let stage = match stage() {
        Ok(stage) => stage,
        Err(cause) => return vec![Case::of("ports can be had", || Err(cause))],
    };
    let mut ended = None;
    let mut cases =
        vec![Case::of("the walk-through, with kill -9 of the engine between its steps", || {
            ended = Some(demo::walk_through(&stage, bin, &|| crash(&stage, bin))?);
            Ok(())
        })];
    if let Some(ended) = &ended {
        cases.extend([
            Case::of("the application answers as itself, through the proxy", || page(ended)),
            Case::of("root in the container is nobody outside", || unprivileged(&stage, ended)),
            Case::of("a stopped task frees its port", || stop(&stage, ended)),
        ]);
    }
    cases.push(Case::of("down ends everything", || demo::take_down(&stage, bin)));
    cases.push(Case::of("nothing is left after down", || {
        let mut left = Traces::find(&stage)?;
        // somebody else's
        left.links.retain(|link| !orphans.contains(link));
        ensure!(left == Traces::default(), "{left:#?}");
        ensure!(
            !stage.data.exists() && !stage.run.exists(),
            "{} or {} is left",
            stage.data.display(),
            stage.run.display()
        );
        Ok(())
    }));
    let _ = std::fs::remove_dir_all(stage.data.parent().unwrap_or(&stage.data));
    cases
}

/// Ports that are free now, and a bridge that nobody has.
fn stage() -> Result<Stage> {
    let listeners: Vec<_> =
        (0..4).map(|_| std::net::TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let ports: Vec<u16> = listeners
        .iter()
        .map(|listener| listener.local_addr().map(|address| address.port()))
        .collect::<Result<_, _>>()?;
    let place = PathBuf::from(format!("/var/tmp/bulkhead-walk-{}", std::process::id()));
    let own = std::process::id();
    // a link's name has 15 bytes
    let (bridge, cgroup) = (format!("bhwalk{}", own % 1_000_000), format!("bulkhead-walk-{own}"));
    let (data, run) = (place.join("data"), place.join("run"));
    std::fs::create_dir_all(&place)?;
    Ok(Stage {
        flags: format!(
            "--data {} --run {} --bridge {bridge} --cgroup-parent {cgroup} --api 127.0.0.1:{} --registry 127.0.0.1:{} --console 127.0.0.1:{}",
            data.display(),
            run.display(),
            ports[0],
            ports[1],
            ports[2]
        ),
        host: format!("--host unix://{}", run.join("docker.sock").display()),
        api: format!("http://127.0.0.1:{}", ports[0]),
        registry: format!("127.0.0.1:{}", ports[1]),
        console: format!("http://127.0.0.1:{}/", ports[2]),
        port: ports[3],
        home: place.join("home"),
        bridge,
        cgroup,
        data,
        run,
    })
}

/// Kills the engine where it stands and starts it again.
fn crash(stage: &Stage, bin: &Path) -> Result<()> {
    let shell = Shell::default().with_path(bin);
    let socket = stage.run.join("docker.sock");
    println!("\n\x1b[1m(kill -9 of the engine, then a new start)\x1b[0m");
    let pid =
        std::fs::read_to_string(stage.run.join("bulkhead.pid")).context("read the engine's pid")?;
    let pid: u32 = pid.trim().parse().context("the engine's pid")?;
    shell.run(&format!("kill -9 {pid} && tail --pid={pid} -f /dev/null"))?;
    ensure!(std::os::unix::net::UnixStream::connect(&socket).is_err(), "the engine still answers");
    shell.run(&format!("bulkhead up --detach {}", stage.flags))?;
    Ok(())
}

fn page(ended: &Ended) -> Result<()> {
    let again = ended.shell.ask(&format!("curl --silent --fail {}", ended.url))?;
    ensure!(again.success && again.output == ended.page, "another page: {}", again.output);
    Ok(())
}

/// Looks at the containers' processes from the host.
fn unprivileged(stage: &Stage, ended: &Ended) -> Result<()> {
    let docker = format!("bulkhead {}", stage.host);
    let listed = ended
        .shell
        .ask(&format!("{docker} inspect --format '{{{{.State.Pid}}}}' $({docker} ps -q)"))?;
    let pids: Vec<&str> = listed.output.split_whitespace().collect();
    ensure!(pids.len() == 2, "two containers run, not {}: {}", pids.len(), listed.output);
    for pid in pids {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).context("a uid")?;
        let real: u32 = uid.split_whitespace().next().context("a real uid")?.parse()?;
        ensure!(real >= 100_000, "process {pid} is uid {real} on the host");
        let map = std::fs::read_to_string(format!("/proc/{pid}/uid_map"))?;
        ensure!(map.split_whitespace().next() == Some("0"), "0 is not mapped: {map}");
        for namespace in ["pid", "net", "ipc", "mnt", "uts", "user", "cgroup", "time"] {
            let inside = std::fs::read_link(format!("/proc/{pid}/ns/{namespace}"))?;
            let outside = std::fs::read_link(format!("/proc/self/ns/{namespace}"))?;
            ensure!(
                inside != outside,
                "process {pid} shares the {namespace} namespace with the host"
            );
        }
    }
    Ok(())
}

fn stop(stage: &Stage, ended: &Ended) -> Result<()> {
    let aws = |line: &str| ended.shell.run(&format!("aws ecs {line} --endpoint-url {}", stage.api));
    let task = &ended.task;
    aws(&format!("stop-task --task {task} --query task.desiredStatus --output text"))?;
    aws(&format!("wait tasks-stopped --tasks {task}"))?;
    std::net::TcpListener::bind(("0.0.0.0", stage.port))
        .context("the task's port is still taken")?;
    Ok(())
}

/// What this walk-through could leave on a machine; others may have a Bulkhead of their own here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Traces {
    mounts: Vec<String>,
    links: Vec<String>,
    cgroups: Vec<String>,
    rules: Vec<String>,
    processes: Vec<String>,
}

impl Traces {
    /// The ends of veth pairs that no bridge holds any more.
    fn orphans() -> Vec<String> {
        let entries = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
        let orphan = |entry: std::fs::DirEntry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = name.len() == 14 && name.starts_with("bh");
            (ours && !entry.path().join("master").exists()).then_some(name)
        };
        entries.filter_map(orphan).collect()
    }

    fn find(stage: &Stage) -> Result<Self> {
        let place = stage.data.parent().context("a place")?.to_string_lossy().into_owned();
        let shell = Shell::default();
        let lines = |line: &str| -> Result<Vec<String>> {
            Ok(shell.ask(line)?.output.lines().map(str::to_owned).collect())
        };
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        let mut links = Self::orphans();
        if Path::new("/sys/class/net").join(&stage.bridge).exists() {
            links.push(stage.bridge.clone());
        }
        Ok(Self {
            mounts: mounts
                .lines()
                .filter(|line| line.contains(&place))
                .map(str::to_owned)
                .collect(),
            links,
            cgroups: lines(&format!(
                "find /sys/fs/cgroup -mindepth 1 -type d -name {}",
                stage.cgroup
            ))?,
            rules: rules(&stage.bridge)?,
            // The pattern is written so that the shell that runs it does not match.
            processes: lines(&format!("pgrep --full '[b]ulkhead.*{place}'"))?,
        })
    }
}

/// The lines of the ruleset that name a bridge. What nft says beside them is no rule: it warns of
/// each table that another program has made by way of iptables-nft.
fn rules(bridge: &str) -> Result<Vec<String>> {
    let said = Command::new("nft").args(["list", "ruleset"]).output().context("run nft")?;
    let error = String::from_utf8_lossy(&said.stderr);
    ensure!(said.status.success(), "nft list ruleset: {error}");
    let text = String::from_utf8_lossy(&said.stdout);
    Ok(text.lines().filter(|line| line.contains(bridge)).map(str::to_owned).collect())
}
