//! What a thousand running containers cost: the next start, the list, memory, the engine's own start.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{median, milliseconds, tempdir};
use crate::setup;
use crate::shell::Shell;

/// `bench many [N]`: N containers that sleep, 1,000 unless it is said. Everything is in a network
/// namespace, a cgroup and directories of the bench's own, which go with it.
pub fn run(arguments: &[&str]) -> Result<()> {
    setup::require_root()?;
    setup::packages(&[("/usr/bin/busybox", "busybox-static")])?;
    let number: usize =
        arguments.first().map_or(Ok(1000), |number| number.parse()).context("how many")?;
    // Linux gives a bridge 1,024 ports (BR_MAX_PORTS)
    ensure!((1..=1000).contains(&number), "1 to 1,000 containers fit on a bridge");
    let program = match std::env::var_os("BULKHEAD_PROGRAM") {
        Some(program) => PathBuf::from(program),
        None => setup::program("release")?.join("bulkhead"),
    };
    let bench =
        Bench { program, place: tempdir()?, netns: format!("bhmany-{}", std::process::id()) };
    let shell = Shell::default();
    shell.run(&format!("ip netns add {0} && ip -n {0} link set lo up", bench.netns))?;
    let measured = bench.up().and_then(|_| bench.measure(number));
    let ended = bench.down();
    shell.run(&format!("ip netns delete {}", bench.netns))?;
    std::fs::remove_dir_all(&bench.place)?;
    let rows = measured?;
    println!("\n{number} running containers\n");
    println!("{:<44}{:>14}{:>14}", "", "figure", "mark");
    for Row { what, figure, mark } in rows {
        println!("{what:<44}{figure:>14}{mark:>14}");
    }
    ended
}

/// One line of the table.
struct Row {
    what: String,
    figure: String,
    mark: &'static str,
}

/// An engine of the bench's own.
#[derive(Debug)]
struct Bench {
    program: PathBuf,
    place: PathBuf,
    netns: String,
}

/// Starts of which the middle counts.
const STARTS: usize = 21;
const LISTS: usize = 200;
const ENGINE_STARTS: usize = 5;

impl Bench {
    fn measure(&self, number: usize) -> Result<Vec<Row>> {
        self.import()?;
        // the first ones only warm the caches
        self.starts(3)?;
        let empty = self.memory()?;
        let (first, first_least) = self.starts(STARTS)?;
        for _ in 0..number {
            self.bulkhead(&RUN)?;
        }
        let (last, last_least) = self.starts(STARTS)?;
        self.until_links_are_down(number)?;
        let mut lists = Vec::new();
        for _ in 0..LISTS {
            let before = Instant::now();
            let listed = self.bulkhead(&["ps"])?;
            lists.push(before.elapsed());
            ensure!(
                listed.lines().count() == number + 1,
                "ps shows {} lines",
                listed.lines().count()
            );
        }
        let list = median(&mut lists);
        let slow = lists[LISTS * 99 / 100];
        let full = self.memory()?;
        let mut starts = Vec::new();
        for _ in 0..ENGINE_STARTS {
            self.kill_engine()?;
            let before = Instant::now();
            self.up()?;
            starts.push(before.elapsed());
        }
        let again = self.memory()?;
        let started = median(&mut starts);
        let row = |what: String, figure: String, mark| Row { what, figure, mark };
        let each = |kilobytes: u64| kilobytes as f64 / 1024.0 / number as f64;
        let time = |time: Duration| format!("{:.1} ms", milliseconds(time));
        Ok(vec![
            row("the first start, median".into(), time(first), ""),
            row(format!("the {}th start, median", number + 1), time(last), ""),
            row(
                "  as often as long".into(),
                format!("{:.2} ×", last.div_duration_f64(first)),
                "≤ 1.25 ×",
            ),
            row(
                "  of the shortest".into(),
                format!("{:.2} ×", last_least.div_duration_f64(first_least)),
                "",
            ),
            row("bulkhead ps, median".into(), time(list), ""),
            row("bulkhead ps, 99th percentile".into(), time(slow), "≤ 10 ms"),
            row("memory (PSS) without containers".into(), format!("{} kB", empty.total()), ""),
            row(
                "  with them: engine and warden".into(),
                format!("{} + {} kB", full.engine, full.warden),
                "",
            ),
            row("  a container".into(), format!("{:.3} MiB", each(full.total())), "≤ 0.1 MiB"),
            row(
                "  after the engine's restart".into(),
                format!("{:.3} MiB", each(again.total())),
                "",
            ),
            row("engine start, median".into(), time(started), "≤ 400 ms"),
        ])
    }

    /// Returns when the bridge has the ports of `number` containers alone: those of the ones that were
    /// removed are taken down a moment later, which is none of a list's business.
    fn until_links_are_down(&self, number: usize) -> Result<()> {
        let line = format!(
            "for _ in $(seq 100); do \
                 [ $(ip -n {} -o link show type veth | wc -l) -le {number} ] && exit 0; sleep 0.1; \
             done; exit 1",
            self.netns
        );
        let said = Shell::default().ask(&line)?;
        ensure!(said.success, "links of removed containers stay: {}", said.output);
        Ok(())
    }

    /// Times of `run --detach` with nothing else changed: median and shortest.
    fn starts(&self, times: usize) -> Result<(Duration, Duration)> {
        let mut took = Vec::new();
        for _ in 0..times {
            let before = Instant::now();
            let id = self.bulkhead(&RUN)?;
            took.push(before.elapsed());
            self.bulkhead(&["rm", "--force", id.trim()])?;
        }
        let middle = median(&mut took);
        Ok((middle, took[0]))
    }

    /// What the processes of Bulkhead itself hold, in kB of PSS.
    fn memory(&self) -> Result<Memory> {
        let mut memory = Memory::default();
        let place = self.place.display().to_string();
        let program = std::fs::metadata(&self.program)?;
        let program = (program.dev(), program.ino());
        for entry in std::fs::read_dir("/proc")? {
            let directory = entry?.path();
            // one that has ended meanwhile holds nothing; by its path the warden's is not found, which
            // lives in a mount namespace of its own
            let Ok(exe) = std::fs::metadata(directory.join("exe")) else { continue };
            if (exe.dev(), exe.ino()) != program {
                continue;
            }
            let command = std::fs::read(directory.join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).into_owned();
            if !command.contains(&place) {
                continue;
            }
            let text = std::fs::read_to_string(directory.join("smaps_rollup")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
            let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap_or(0);
            match command.contains("warden.sock") {
                true => memory.warden += kilobytes,
                false => memory.engine += kilobytes,
            }
        }
        ensure!(memory.engine > 0 && memory.warden > 0, "no processes of Bulkhead: {memory:?}");
        Ok(memory)
    }

    fn up(&self) -> Result<String> {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.netns))
            .arg(&self.program)
            .args(["up", "--detach", "--bridge", "bhmany0"])
            .args(["--cgroup-parent", &self.netns])
            .args(["--api", "127.0.0.1:0", "--console", "127.0.0.1:0", "--registry", "127.0.0.1:0"])
            .arg("--data")
            .arg(self.place.join("data"))
            .arg("--run")
            .arg(self.place.join("run"));
        said(&mut command)
    }

    fn down(&self) -> Result<()> {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.netns))
            .arg(&self.program)
            .args(["down", "--purge", "--yes", "--data"])
            .arg(self.place.join("data"))
            .arg("--run")
            .arg(self.place.join("run"));
        said(&mut command).map(drop)
    }

    /// Ends the engine as a crash does; the warden and what it runs go on.
    fn kill_engine(&self) -> Result<()> {
        let text = std::fs::read_to_string(self.place.join("run/bulkhead.pid"))?;
        let pid = Pid::from_raw(text.trim().parse()?).context("a pid")?;
        let engine = pidfd_open(pid, PidfdFlags::empty())?;
        pidfd_send_signal(&engine, Signal::KILL)?;
        let mut polled = [rustix::event::PollFd::new(&engine, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut polled, None)?;
        Ok(())
    }

    fn bulkhead(&self, arguments: &[&str]) -> Result<String> {
        let socket = self.place.join("run/docker.sock");
        let mut command = Command::new(&self.program);
        command.arg("-H").arg(format!("unix://{}", socket.display())).args(arguments);
        said(&mut command)
    }

    fn import(&self) -> Result<()> {
        let tree = self.place.join("tree");
        std::fs::create_dir_all(tree.join("bin"))?;
        std::fs::copy("/usr/bin/busybox", tree.join("bin/sleep"))?;
        let tar = self.place.join("tree.tar");
        said(Command::new("tar").arg("-C").arg(&tree).arg("-cf").arg(&tar).arg("."))?;
        self.bulkhead(&["import", &tar.to_string_lossy(), "many"]).map(drop)
    }
}

const RUN: [&str; 5] = ["run", "--detach", "many", "/bin/sleep", "1000000"];

#[derive(Debug, Clone, Copy, Default)]
struct Memory {
    engine: u64,
    warden: u64,
}

impl Memory {
    fn total(self) -> u64 {
        self.engine + self.warden
    }
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().context("run a program")?;
    ensure!(
        output.status.success(),
        "{}: {}",
        Path::new(command.get_program()).display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
