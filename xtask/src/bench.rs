//! Speed as ratios against Docker, in one run on one machine.

pub mod many;
pub mod start;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::setup;
use crate::shell::Shell;

pub mod oci;

/// `bench run [RUNS]`: `run --rm` of a no-op on the default bridge, in turns, at least 20 of each.
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

fn measure(shell: &Shell, inside: &str, bin: &Path, ours: &Path, runs: usize) -> Result<()> {
    let peers = peers()?;
    let started = shell.run(&format!("{inside} {} dockerd", peers.display()))?;
    let docker_host = started.lines().last().context("peers says no DOCKER_HOST")?.to_owned();
    let our_host = format!("unix://{}", ours.display());
    for host in [&docker_host, &our_host] {
        shell
            .clone()
            .with("DOCKER_HOST", host)
            .run(&format!("{} busybox bench-noop", peers.display()))?;
    }
    let bulkhead = bin.join("bulkhead");
    let run = ["run", "--rm", "bench-noop", "/bin/true"];
    let line = |program: &Path, host: &str| {
        let mut command = Command::new(program);
        command.args(run).env("DOCKER_HOST", host).env("BULKHEAD_HOST", host).stdin(Stdio::null());
        command
    };
    let docker = PathBuf::from("docker");
    let rows = [
        ("docker CLI → Docker", docker.clone(), docker_host.clone()),
        ("docker CLI → Bulkhead", docker, our_host.clone()),
        ("bulkhead → Bulkhead", bulkhead, our_host),
    ];
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); rows.len()];
    for round in 0..=runs {
        for ((_, program, host), times) in rows.iter().zip(&mut times) {
            let before = Instant::now();
            let output = line(program, host).output().context("run the client")?;
            let took = before.elapsed();
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            // The first round only warms the caches.
            if round > 0 {
                times.push(took);
            }
        }
    }
    let _ = shell.ask(&format!("{} stop", peers.display()));
    let base = median(&mut times[0]);
    println!("\n`run --rm` of a no-op on the default bridge, {runs} runs each, in turns\n");
    println!("{:<24}{:>10}{:>10}{:>10}{:>9}", "", "min ms", "median ms", "max ms", "ratio");
    for ((name, _, _), times) in rows.iter().zip(&mut times) {
        let middle = median(times);
        println!(
            "{name:<24}{:>10.1}{:>10.1}{:>10.1}{:>8.1}×",
            milliseconds(times[0]),
            milliseconds(middle),
            milliseconds(times[times.len() - 1]),
            base.as_secs_f64() / middle.as_secs_f64()
        );
    }
    Ok(())
}

/// Sorts, and takes the middle.
fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The script that installs the newest Docker and its kin beside the machine's own programs.
fn peers() -> Result<PathBuf> {
    let path = std::env::var_os("BULKHEAD_PEERS")
        .map_or_else(|| setup::root().join("../shared/tools/peers"), PathBuf::from);
    path.canonicalize()
        .with_context(|| format!("{} is not there: set BULKHEAD_PEERS", path.display()))
}

fn tempdir() -> Result<PathBuf> {
    let path = PathBuf::from(format!("/var/tmp/bulkhead-bench-{}", std::process::id()));
    std::fs::create_dir_all(&path)?;
    Ok(path)
}
