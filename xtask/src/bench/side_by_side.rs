//! Docker and Bulkhead in one run on one machine: the same commands by each client, in turns.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{median, milliseconds, peers, tempdir};
use crate::setup;
use crate::shell::Shell;

/// Both engines in a network namespace of the bench's own: Docker's rules and bridge go with it.
pub struct Engines {
    pub shell: Shell,
    pub peers: PathBuf,
    /// Of the network namespace, below `/run/netns`.
    pub netns: String,
    pub place: PathBuf,
    /// The docker CLI on Docker, the same on Bulkhead, and `bulkhead`.
    pub ways: [Way; 3],
}

impl Engines {
    /// Starts both, measures, and takes away what was made.
    pub fn with(measure: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        setup::require_root()?;
        let program = std::env::var_os("BULKHEAD_PROGRAM").map(PathBuf::from);
        let bin = match program.as_deref().and_then(Path::parent) {
            Some(directory) => directory.to_owned(),
            None => setup::program("release")?,
        };
        let place = tempdir()?;
        let flags = format!(
            "--data {0}/data --run {0}/run --bridge bhbench0 --cgroup-parent bulkhead-bench --api 127.0.0.1:0 --console 127.0.0.1:0 --registry 127.0.0.1:0",
            place.display()
        );
        let shell = Shell::default().with_path(&bin);
        let netns = format!("bhbench-{}", std::process::id());
        shell.run(&format!("ip netns add {netns} && ip -n {netns} link set lo up"))?;
        let inside = format!("nsenter --net=/run/netns/{netns}");
        let measured =
            shell.run(&format!("{inside} bulkhead up --detach {flags}")).and_then(|_| {
                let peers = peers()?;
                let started = shell.run(&format!("{inside} {} dockerd", peers.display()))?;
                let docker_host = started.lines().last().context("peers says no DOCKER_HOST")?;
                let our_host = format!("unix://{}/run/docker.sock", place.display());
                let way = |name, program: PathBuf, host: &str| Way {
                    name,
                    program,
                    host: host.to_owned(),
                };
                let engines = Self {
                    shell: shell.clone(),
                    peers,
                    netns: netns.clone(),
                    place: place.clone(),
                    ways: [
                        way("docker → Docker", "docker".into(), docker_host),
                        way("docker → Bulkhead", "docker".into(), &our_host),
                        way("bulkhead → Bulkhead", bin.join("bulkhead"), &our_host),
                    ],
                };
                let measured = measure(&engines);
                let _ = shell.ask(&format!("{} stop", engines.peers.display()));
                measured
            });
        shell.run(&format!(
            "{inside} bulkhead down --purge --yes --data {0}/data --run {0}/run",
            place.display()
        ))?;
        shell.run(&format!("ip netns delete {netns}"))?;
        std::fs::remove_dir_all(&place)?;
        measured
    }

    /// The two engines, each by the docker CLI.
    pub fn by_docker(&self) -> &[Way] {
        &self.ways[..2]
    }

    /// Times an operation by each of `ways`, in turns, and prints a line for each; the first round
    /// only warms the caches.
    pub fn compare(&self, operation: &Operation, ways: &[Way]) -> Result<()> {
        let mut times = vec![Vec::new(); ways.len()];
        for round in 0..=operation.runs {
            for (way, times) in ways.iter().zip(&mut times) {
                for line in &operation.before {
                    way.run(line, 1)?;
                }
                let before = Instant::now();
                for line in &operation.lines {
                    way.run(line, operation.at_once)?;
                }
                if round > 0 {
                    times.push(before.elapsed());
                }
                for line in &operation.after {
                    way.run(line, 1)?;
                }
            }
        }
        operation.print(ways, &mut times);
        Ok(())
    }
}

/// A client and the engine that it talks to.
pub struct Way {
    pub name: &'static str,
    pub program: PathBuf,
    pub host: String,
}

impl Way {
    /// The same engine by another client.
    pub fn by(&self, name: &'static str, program: &Path) -> Self {
        Self { name, program: program.to_owned(), host: self.host.clone() }
    }

    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(&self.program);
        let variables = [("DOCKER_HOST", &self.host), ("BULKHEAD_HOST", &self.host)];
        command.args(line.split_ascii_whitespace()).envs(variables);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command that must succeed, so many times at once.
    pub fn run(&self, line: &str, at_once: usize) -> Result<()> {
        let children = (0..at_once).map(|_| self.command(line).stdout(Stdio::null()).spawn());
        let children = children.collect::<Result<Vec<_>, _>>().context("start the client")?;
        for child in children {
            let output = child.wait_with_output()?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.success(), "{} {line}: {said}", self.name);
        }
        Ok(())
    }

    /// Runs a command that must succeed, and returns what it says.
    pub fn ask(&self, line: &str) -> Result<String> {
        let output = self.command(line).output().context("start the client")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let (said, complaint) = (text(&output.stdout), text(&output.stderr));
        // what cannot be started in a container the docker CLI says on standard output
        let success = output.status.success();
        ensure!(success, "{} {line}: {}, {said} {complaint}", self.name, output.status);
        Ok(said)
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Mark {
    None,
    /// So many times as fast as Docker.
    Ratio(f64),
    Milliseconds(f64),
}

/// What is timed: `lines` after each other, each `at_once` times at once.
#[derive(Debug)]
pub struct Operation {
    pub title: String,
    /// Untimed, before each and after each.
    pub before: Vec<String>,
    pub after: Vec<String>,
    pub lines: Vec<String>,
    pub at_once: usize,
    pub runs: usize,
    /// Of the ways behind the first, which is Docker's.
    pub marks: [Mark; 2],
}

impl Operation {
    pub fn new(title: &str, lines: &[&str], runs: usize, marks: [Mark; 2]) -> Self {
        Self {
            title: title.to_owned(),
            before: Vec::new(),
            after: Vec::new(),
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
            at_once: 1,
            runs,
            marks,
        }
    }

    fn print(&self, ways: &[Way], times: &mut [Vec<Duration>]) {
        let base = median(&mut times[0]);
        let marks = [Mark::None, self.marks[0], self.marks[1]];
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
                "{:<24}{:<22}{:>5}{:>10.1}{:>10.1}{:>10.1}{ratio:>8.1}×  {mark}",
                self.title,
                way.name,
                times.len(),
                milliseconds(times[0]),
                milliseconds(middle),
                milliseconds(times[times.len() - 1]),
            );
        }
    }
}

/// Above the lines of [`Engines::compare`].
pub fn print_head(title: &str) {
    println!("\n{title}, in turns; ratios are of the medians, to Docker's\n");
    println!(
        "{:<24}{:<22}{:>5}{:>10}{:>10}{:>10}{:>9}  mark",
        "", "", "runs", "min ms", "median ms", "max ms", "ratio"
    );
}
