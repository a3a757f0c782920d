//! What people wait for, as ratios against Docker: `run --rm`, `exec`, fifty at once, `rm -f`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{median, milliseconds, peers, tempdir};
use crate::setup;
use crate::shell::Shell;

const IMAGE: &str = "bulkhead-bench-noop";
/// The container that `exec` enters.
const RUNNING: &str = "bulkhead-bench-running";
/// The one that is made to be removed.
const REMOVED: &str = "bulkhead-bench-removed";
const PARALLEL: usize = 50;

/// `bench run [RUNS]`: each operation by each client, in turns, at least 20 of each; of fifty at once
/// a fifth as many.
pub fn run(arguments: &[&str]) -> Result<()> {
    setup::require_root()?;
    let runs: usize =
        arguments.first().map_or(Ok(25), |runs| runs.parse()).context("the number of runs")?;
    ensure!(runs >= 20, "fewer than 20 runs say nothing");
    let bin = setup::program("release")?;
    let place = tempdir()?;
    let ours = place.join("run/docker.sock");
    let flags = format!(
        "--data {0}/data --run {0}/run --bridge bhbench0 --cgroup-parent bulkhead-bench --api 127.0.0.1:0 --console 127.0.0.1:0 --registry 127.0.0.1:0",
        place.display()
    );
    let shell = Shell::default().with_path(&bin);
    // Both engines in a network namespace of the bench's own: Docker's rules and bridge go with it.
    let netns = format!("bhbench-{}", std::process::id());
    shell.run(&format!("ip netns add {netns} && ip -n {netns} link set lo up"))?;
    let inside = format!("nsenter --net=/run/netns/{netns}");
    let measured = shell
        .run(&format!("{inside} bulkhead up --detach {flags}"))
        .and_then(|_| measure(&shell, &inside, &bin, &ours, runs));
    shell.run(&format!(
        "{inside} bulkhead down --purge --yes --data {0}/data --run {0}/run",
        place.display()
    ))?;
    shell.run(&format!("ip netns delete {netns}"))?;
    std::fs::remove_dir_all(&place)?;
    measured
}

/// A client and the engine that it talks to.
struct Way {
    name: &'static str,
    program: PathBuf,
    host: String,
}

impl Way {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        let variables = [("DOCKER_HOST", &self.host), ("BULKHEAD_HOST", &self.host)];
        command.args(arguments).envs(variables);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Runs a command that must succeed, so many times at once.
    fn run(&self, arguments: &[&str], at_once: usize) -> Result<Duration> {
        let before = Instant::now();
        let children = (0..at_once).map(|_| self.command(arguments).spawn());
        let children = children.collect::<Result<Vec<_>, _>>().context("start the client")?;
        for child in children {
            let output = child.wait_with_output()?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.success(), "{} {}: {said}", self.name, arguments.join(" "));
        }
        Ok(before.elapsed())
    }
}

/// What the issue asks for, of the docker CLI on Bulkhead and of `bulkhead`.
#[derive(Clone, Copy)]
enum Mark {
    None,
    /// So many times as fast as Docker.
    Ratio(f64),
    Milliseconds(f64),
}

struct Operation {
    title: String,
    /// Untimed, before each.
    before: &'static [&'static str],
    arguments: &'static [&'static str],
    at_once: usize,
    runs: usize,
    marks: [Mark; 2],
}

fn operations(runs: usize) -> [Operation; 4] {
    let one = |title: &str, arguments, marks| Operation {
        title: title.to_owned(),
        before: &[],
        arguments,
        at_once: 1,
        runs,
        marks,
    };
    const RUN: &[&str] = &["run", "--rm", IMAGE, "/bin/true"];
    let exec: &[&str] = &["exec", RUNNING, "/bin/true"];
    let remove: &[&str] = &["rm", "-f", REMOVED];
    [
        one("run --rm", RUN, [Mark::Ratio(8.0), Mark::Ratio(25.0)]),
        one("exec", exec, [Mark::None, Mark::Ratio(15.0)]),
        Operation {
            at_once: PARALLEL,
            runs: runs.div_ceil(5),
            ..one(&format!("{PARALLEL} × run --rm"), RUN, [Mark::Ratio(9.0), Mark::Ratio(12.0)])
        },
        Operation {
            before: &["run", "-d", "--name", REMOVED, IMAGE, "/bin/sleep", "1000"],
            ..one("rm -f", remove, [Mark::None, Mark::Milliseconds(10.0)])
        },
    ]
}

fn measure(shell: &Shell, inside: &str, bin: &Path, ours: &Path, runs: usize) -> Result<()> {
    let peers = peers()?;
    let started = shell.run(&format!("{inside} {} dockerd", peers.display()))?;
    let docker_host = started.lines().last().context("peers says no DOCKER_HOST")?.to_owned();
    let our_host = format!("unix://{}", ours.display());
    let docker = PathBuf::from("docker");
    let way = |name, program: &Path, host: &str| Way {
        name,
        program: program.to_owned(),
        host: host.to_owned(),
    };
    let ways = [
        way("docker → Docker", &docker, &docker_host),
        way("docker → Bulkhead", &docker, &our_host),
        way("bulkhead → Bulkhead", &bin.join("bulkhead"), &our_host),
    ];
    let measured = compare(shell, &peers, &ways, runs);
    // Docker's outlives this run.
    for what in [&["rm", "-f", RUNNING, REMOVED][..], &["rmi", IMAGE]] {
        let _ = ways[0].command(what).output();
    }
    let _ = shell.ask(&format!("{} stop", peers.display()));
    measured
}

fn compare(shell: &Shell, peers: &Path, ways: &[Way; 3], runs: usize) -> Result<()> {
    for way in &ways[..2] {
        let shell = shell.clone().with("DOCKER_HOST", &way.host);
        shell.run(&format!("{} busybox {IMAGE}", peers.display()))?;
        let _ = way.command(&["rm", "-f", RUNNING, REMOVED]).output();
        way.run(&["run", "-d", "--name", RUNNING, IMAGE, "/bin/sleep", "100000"], 1)?;
    }
    println!("\nA no-op on the default bridge, in turns; ratios are of the medians, to Docker's\n");
    println!(
        "{:<14}{:<22}{:>5}{:>10}{:>10}{:>10}{:>9}  mark",
        "", "", "runs", "min ms", "median ms", "max ms", "ratio"
    );
    for operation in operations(runs) {
        let mut times: [Vec<Duration>; 3] = Default::default();
        for round in 0..=operation.runs {
            for (way, times) in ways.iter().zip(&mut times) {
                if !operation.before.is_empty() {
                    way.run(operation.before, 1)?;
                }
                let took = way.run(operation.arguments, operation.at_once)?;
                // The first round only warms the caches.
                if round > 0 {
                    times.push(took);
                }
            }
        }
        print(&operation, ways, &mut times);
    }
    Ok(())
}

fn print(operation: &Operation, ways: &[Way; 3], times: &mut [Vec<Duration>; 3]) {
    let base = median(&mut times[0]);
    let marks = [Mark::None, operation.marks[0], operation.marks[1]];
    for ((way, times), mark) in ways.iter().zip(times).zip(marks) {
        let middle = median(times);
        let ratio = base.as_secs_f64() / middle.as_secs_f64();
        let word = |met: bool| if met { "met" } else { "missed" };
        let mark = match mark {
            Mark::None => String::new(),
            Mark::Ratio(mark) => format!("≥ {mark} × {}", word(ratio >= mark)),
            Mark::Milliseconds(mark) => {
                format!("≤ {mark} ms {}", word(milliseconds(middle) <= mark))
            }
        };
        println!(
            "{:<14}{:<22}{:>5}{:>10.1}{:>10.1}{:>10.1}{ratio:>8.1}×  {mark}",
            operation.title,
            way.name,
            times.len(),
            milliseconds(times[0]),
            milliseconds(middle),
            milliseconds(times[times.len() - 1]),
        );
    }
}
