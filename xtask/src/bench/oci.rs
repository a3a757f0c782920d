//! `bench oci`: the runtimes side by side, in one run, with the same bundle and the same cgroups.
//!
//! The work is done by a second process, in mount namespaces of its own. The first one waits for it,
//! however it ends, and removes the cgroups; mounts and files go with the second's namespaces.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use bulkhead_sys::signal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{PidfdFlags, pidfd_open};

use crate::{setup, target};

mod bundle;
mod cgroups;
mod floor;
mod memory;
mod runtime;
mod seccomp;
mod table;
mod views;

use bundle::{Bundles, Variant};
use memory::Limited;
use runtime::{BULKHEAD, Operation, Runtime};
use table::{Format, Kernel, Report};
use views::View;

/// `bench oci [--rounds N] [--format json] [--bulkhead FILE]`.
pub fn run(arguments: &[&str]) -> Result<()> {
    let options = Options::parse(arguments)?;
    if let Some(cgroup) = &options.inside {
        return inside(&options, cgroup);
    }
    setup::require_root()?;
    let program = match &options.bulkhead {
        Some(file) => file.canonicalize().with_context(|| file.display().to_string())?,
        None => setup::build("bulkhead", "release", &target::host()?)?.join("bulkhead"),
    };
    let script = super::peers()?;
    let installed = Command::new(&script).arg("install").status().context("run peers")?;
    ensure!(installed.success(), "{} install failed", script.display());

    let cgroup = format!("bulkhead-bench-{}", std::process::id());
    bulkhead_sys::process::become_subreaper()?;
    // Ctrl-C ends the other process; this one has to clean up
    signal::block_all()?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["bench", "oci", "--inside", &cgroup, "--bulkhead"])
        .arg(&program)
        .args(["--rounds", &options.rounds.to_string(), "--format", options.format.name()])
        .spawn()?;
    let ended = wait(&child);
    let status = child.wait()?;
    let removed: Result<Vec<()>> =
        cgroups::all(&cgroup).iter().map(|directory| cgroups::remove(directory)).collect();
    ended?;
    removed?;
    ensure!(status.success(), "the bench ended with {status}");
    Ok(())
}

/// Passes SIGTERM and its like on until the child has ended.
fn wait(child: &std::process::Child) -> Result<()> {
    let pid = rustix::process::Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let signals = signal::descriptor()?;
    loop {
        let mut watched =
            [PollFd::new(&pidfd, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        poll(&mut watched, None)?;
        if !watched[0].revents().is_empty() {
            return Ok(());
        }
        while let Some(taken) = signal::take(signals.as_fd())? {
            if taken.number != signal::CHILD {
                let _ = signal::send(pidfd.as_fd(), taken.number);
            }
        }
    }
}

struct Options {
    rounds: usize,
    format: Format,
    bulkhead: Option<PathBuf>,
    inside: Option<String>,
}

impl Options {
    fn parse(arguments: &[&str]) -> Result<Self> {
        let mut options = Self { rounds: 25, format: Format::Table, bulkhead: None, inside: None };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match *word {
                "--rounds" => options.rounds = value()?.parse().context("the number of rounds")?,
                "--format" => options.format = Format::parse(value()?)?,
                "--bulkhead" => options.bulkhead = Some(value()?.into()),
                "--inside" => options.inside = Some((*value()?).to_owned()),
                other => bail!("bench oci has no option {other:?}"),
            }
        }
        ensure!(options.rounds >= 20, "fewer than 20 rounds say nothing");
        Ok(options)
    }
}

fn inside(options: &Options, cgroup: &str) -> Result<()> {
    let program = options.bulkhead.as_deref().context("which program?")?;
    let peers = std::env::var_os("PEERS_DIR").map_or("/var/tmp/peers".into(), PathBuf::from);
    signal::unblock_all()?;
    bulkhead_sys::process::become_subreaper()?;
    // Others that use the machine meanwhile cost the runtimes alike, but not in the same rounds.
    let _ = rustix::process::setpriority_process(None, -20);
    let views = views::open(&peers, program)?;
    let bundles = Bundles::create(Path::new(views::PLACE), cgroup)?;
    for (name, variant) in BUNDLES {
        bundles.write(name, "/noop", variant, None)?;
    }
    let mut runtimes = Vec::new();
    for (index, view) in views.iter().enumerate() {
        view.enter()?;
        for name in [BULKHEAD, "crun", "runc"] {
            if name != "crun" || view.name == "v2" {
                runtimes.push(Runtime::new(name, index, view.name)?);
            }
        }
    }
    let mut bench = Bench {
        cgroup: cgroup.to_owned(),
        bundles,
        kernel: Kernel::default(),
        views,
        runtimes,
        rounds: options.rounds,
    };
    let before = std::fs::read_to_string("/proc/loadavg")?;
    bench.measure()?;
    let report = Report::new(&bench, &before)?;
    report.print(options.format)
}

const BUNDLES: [(&str, Variant); 3] =
    [("plain", Variant::Plain), ("seccomp", Variant::Seccomp), ("userns", Variant::Userns)];

/// In the order of the table.
const OPERATIONS: [Operation; 7] = [
    Operation::Run(Variant::Plain),
    Operation::Run(Variant::Seccomp),
    Operation::Exec(Variant::Plain),
    Operation::Exec(Variant::Seccomp),
    Operation::Cycle(Variant::Plain),
    Operation::Cycle(Variant::Seccomp),
    Operation::Run(Variant::Userns),
];

struct Bench {
    cgroup: String,
    bundles: Bundles,
    kernel: Kernel,
    views: Vec<View>,
    runtimes: Vec<Runtime>,
    rounds: usize,
}

fn bundle(name: &str) -> String {
    format!("{}/bundles/{name}", views::PLACE)
}

fn bundle_of(operation: Operation) -> String {
    bundle(match operation {
        Operation::Cold => "seccomp",
        Operation::Exec(variant) | Operation::Run(variant) | Operation::Cycle(variant) => {
            match variant {
                Variant::Plain => "plain",
                Variant::Seccomp => "seccomp",
                Variant::Userns => "userns",
            }
        }
    })
}

impl Bench {
    fn measure(&mut self) -> Result<()> {
        self.views[0].enter()?;
        let floor_cgroup = self.v2_root()?.join(&self.cgroup);
        std::fs::create_dir_all(&floor_cgroup)?;
        for (index, runtime) in self.runtimes.iter().enumerate() {
            self.views[runtime.view].enter()?;
            for variant in [Variant::Plain, Variant::Seccomp] {
                // in a cgroup of its own: runc refuses one that is not empty
                let name = format!("sleeper-{index}-{variant:?}");
                let bundle = self.bundles.write(&name, "/pause", variant, None)?;
                runtime.start_sleeper(variant, &bundle.to_string_lossy())?;
            }
        }
        // the first round only warms the caches
        for round in 0..=self.rounds {
            self.round(round, &floor_cgroup)?;
        }
        for runtime in &self.runtimes {
            self.views[runtime.view].enter()?;
            runtime.end_sleeper(Variant::Plain);
            runtime.end_sleeper(Variant::Seccomp);
        }
        self.measure_sizes()?;
        self.find_smallest()
    }

    fn v2_root(&self) -> Result<PathBuf> {
        ensure!(self.views[0].name == "v2", "the first view has cgroup v2 alone");
        Ok("/sys/fs/cgroup".into())
    }

    /// Everything once, each operation by all runtimes in a row; who begins changes.
    fn round(&mut self, round: usize, cgroup: &Path) -> Result<()> {
        self.views[0].enter()?;
        let took = floor::run(&self.bundles.root(), cgroup)?;
        let noop = self.bundles.root().join("noop");
        let spawned = runtime::timed(&[noop], Path::new("/mnt/noop.log"))?;
        if round > 0 {
            self.kernel.floor.push(took);
            self.kernel.spawn.push(spawned);
        }
        const COLD_ROUNDS: usize = 5;
        let cold = [Operation::Cold];
        let operations = OPERATIONS.iter().chain(cold.iter().filter(|_| round <= COLD_ROUNDS));
        for &operation in operations {
            for turn in 0..self.runtimes.len() {
                let index = (turn + round) % self.runtimes.len();
                let runtime = &mut self.runtimes[index];
                if runtime.faults.contains_key(&operation) {
                    continue;
                }
                self.views[runtime.view].enter()?;
                match runtime.measure(operation, &bundle_of(operation)) {
                    Ok(took) if round > 0 => {
                        runtime.times.entry(operation).or_default().push(took);
                    }
                    Ok(_) => {}
                    // it is not able to, which the table says
                    Err(error) if round == 0 => {
                        runtime.faults.insert(operation, format!("{error:#}"));
                    }
                    Err(error) => {
                        let text = format!("{error:#}");
                        runtime.failed.entry(operation).or_insert((0, text)).0 += 1;
                    }
                }
            }
        }
        Ok(())
    }

    fn measure_sizes(&mut self) -> Result<()> {
        const TIMES: usize = 5;
        let noop = self.bundles.root().join("noop");
        let ended = runtime::launch(&[noop], None)?.context("the no-op did not end")?;
        self.kernel.peak = ended.peak_resident;
        for runtime in &mut self.runtimes {
            self.views[runtime.view].enter()?;
            for variant in [Variant::Plain, Variant::Seccomp] {
                let bundle = bundle_of(Operation::Run(variant));
                let mut counts = Vec::new();
                let mut peaks = Vec::new();
                for _ in 0..TIMES {
                    counts.push(runtime.count_syscalls(&bundle)?);
                    peaks.push(runtime.measure_peak(&bundle)?);
                }
                counts.sort_unstable();
                peaks.sort_unstable();
                runtime.syscalls.insert(variant, counts[TIMES / 2]);
                runtime.peak.insert(variant, peaks[TIMES / 2]);
            }
        }
        Ok(())
    }

    fn find_smallest(&mut self) -> Result<()> {
        let Some(own) = self.views.iter().find(|view| view.name != "v2") else { return Ok(()) };
        own.enter()?;
        if !memory::is_there() {
            return Ok(());
        }
        for runtime in &mut self.runtimes {
            let find = |limited, runtime: &mut Runtime| {
                memory::smallest(limited, runtime, &self.views, own, &self.bundles, &self.cgroup)
            };
            runtime.smallest = find(Limited::All, runtime)?;
            if self.views[runtime.view].name != "v2" {
                runtime.smallest_limit = find(Limited::Container, runtime)?;
            }
        }
        Ok(())
    }
}
