//! `cargo xtask test chaos`: kills the engine, the warden and both, at every failpoint and at random
//! moments under load, fills the disk and frees it, and compares afterwards what clients were told
//! with the records, and the records with the machine.
//!
//! Everything is in network, mount and pid namespaces of its own, which end with this program; only
//! the cgroups are the host's. The data directory is a small file system in memory.
//!
//! A round has one failpoint or none. Those of the warden's (`warden.…`) reach one that is started
//! with the engine, so such a round begins with the death of both. Where only the warden dies, all
//! that ran goes on; where both die, what ran has ended, and says why.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::setup;

mod audit;
mod load;
mod names;
mod stage;

use load::{Model, worker};
use stage::{Stage, Victim};

/// What a run has come to.
#[derive(Debug, Default)]
struct Count {
    engine: usize,
    warden: usize,
    both: usize,
    full: usize,
    /// Lines that a dead warden had read and not logged.
    unlogged: usize,
    lost: Vec<String>,
    left: Vec<String>,
}

impl Count {
    fn kill(&mut self, victim: Victim) {
        match victim {
            Victim::Engine => self.engine += 1,
            Victim::Warden => self.warden += 1,
            Victim::Both => self.both += 1,
        }
    }
}

/// Rounds of a run by hand: each failpoint once.
const ROUNDS: usize = 60;
/// Rounds beside the other tests, some half a minute: each failpoint once in seven runs or so.
const FEW: usize = 7;

/// `cargo xtask test chaos [--rounds N] [--seed N]`.
pub fn run(flags: &[&str]) -> Result<()> {
    setup::require_root()?;
    setup::packages(&[
        ("/usr/bin/curl", "curl"),
        ("/usr/bin/busybox", "busybox-static"),
        ("/usr/sbin/nft", "nftables"),
    ])?;
    let (mut rounds, mut seed) = (ROUNDS, None);
    let mut flags = flags.iter();
    while let Some(flag) = flags.next() {
        let number = flags.next().and_then(|number| number.parse::<u64>().ok());
        match (*flag, number) {
            ("--rounds", Some(number)) => rounds = usize::try_from(number)?,
            ("--seed", Some(number)) => seed = Some(number),
            _ => bail!("{flag}: use --rounds N and --seed N"),
        }
    }
    enter(&setup::program("dev")?, rounds, seed)
}

/// The short form, for the tally of all tests.
pub fn test(bin: &Path) -> Result<()> {
    enter(bin, FEW, None)
}

/// Starts this program again in namespaces that end with it.
fn enter(bin: &Path, rounds: usize, seed: Option<u64>) -> Result<()> {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let seed = seed.unwrap_or(u64::from(clock.subsec_nanos()) + clock.as_secs());
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--mount-proc", "--kill-child", "--"])
        .arg(std::env::current_exe()?)
        .arg("chaos-inside")
        .arg(bin)
        .args([rounds.to_string(), seed.to_string()])
        .status()
        .context("run unshare")?;
    ensure!(status.success(), "chaos with --seed {seed} found something: see above");
    Ok(())
}

/// In the namespaces: the rounds, the comparison, the counts.
pub fn inside(arguments: &[&str]) -> Result<()> {
    let [bin, rounds, seed] = arguments else { bail!("started by `cargo xtask test chaos` only") };
    if std::process::id() == 1 {
        return be_init(arguments);
    }
    let (rounds, seed): (usize, u64) = (rounds.parse()?, seed.parse()?);
    let names = failpoints()?;
    println!("chaos: seed {seed}, {rounds} rounds, {} failpoints", names.len());
    let started = Instant::now();
    let stage = Stage::new(Path::new(bin))?;
    let mut count = Count::default();
    let done = rounds_of(&stage, &names, rounds, Random(seed), &mut count);
    if done.is_err() {
        println!("{}", stage.log());
    }
    stage.remove()?;
    done?;
    for lost in &count.lost {
        println!("lost: {lost}");
    }
    for left in &count.left {
        println!("left: {left}");
    }
    println!(
        "chaos: kills of engine {}, warden {}, both {}; {} disk-full moments, {} lost, {} left; \
         {} lines only a dead warden had ({:.0} s, seed {seed})",
        count.engine,
        count.warden,
        count.both,
        count.full,
        count.lost.len(),
        count.left.len(),
        count.unlogged,
        started.elapsed().as_secs_f64()
    );
    ensure!(count.lost.is_empty() && count.left.is_empty(), "something was lost or left");
    Ok(())
}

/// Runs this program again, and reaps what others leave, as the init of a machine does: the kernel
/// tells how a process ended that was handed over only when it was reaped.
fn be_init(arguments: &[&str]) -> Result<()> {
    let child = Command::new("/proc/self/exe").arg("chaos-inside").args(arguments).spawn()?;
    let child = rustix::process::Pid::from_child(&child);
    loop {
        match rustix::process::wait(rustix::process::WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == child => {
                ensure!(status.exit_status() == Some(0), "it failed: see above");
                return Ok(());
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn rounds_of(
    stage: &Stage,
    names: &[String],
    rounds: usize,
    mut random: Random,
    count: &mut Count,
) -> Result<()> {
    stage.up(None)?;
    stage.import()?;
    let model = Model::default();
    load::start_steady(stage, &model)?;
    // From anywhere in the list, so that short runs come to all in time.
    let first = random.below(names.len());
    for round in 0..rounds {
        let fills = round % 5 == 2;
        let point = match round % 4 {
            3 => None,
            // Removals on a full disk are to be seen to the end.
            _ if fills => None,
            _ => Some(names[(first + round - round / 4) % names.len()].as_str()),
        };
        let victim = [Victim::Engine, Victim::Warden, Victim::Both][random.below(3)];
        println!("round {round}: {}, then {victim:?}", point.unwrap_or("no failpoint"));
        Round { stage, model: &model, count, random: &mut random, number: round }
            .run(point, fills, victim)?;
    }
    count.unlogged += audit::records(stage, &model, &mut count.lost)?;
    audit::machine(stage, &mut count.left)?;
    audit::after_removal(stage, &model, &mut count.left)?;
    stage.down()?;
    audit::after_down(stage, &mut count.left)
}

struct Round<'a> {
    stage: &'a Stage,
    model: &'a Model,
    count: &'a mut Count,
    random: &'a mut Random,
    number: usize,
}

impl Round<'_> {
    fn run(&mut self, point: Option<&str>, fills: bool, victim: Victim) -> Result<()> {
        let (stage, model) = (self.stage, self.model);
        let of_warden = point.is_some_and(|name| name.starts_with("warden."));
        let first = if of_warden { Victim::Both } else { Victim::Engine };
        if of_warden {
            model.shakes();
        }
        stage.kill(first)?;
        self.count.kill(first);
        if fills {
            // It must start on a full disk, and take removals there.
            model.fills();
            stage.fill()?;
            self.count.full += 1;
        }
        let armed = point.map(|name| format!("{name}:kill:{}", self.random.below(4) + 1));
        // One that dies on its way up is what was asked for; the next one must not.
        if stage.up(armed.as_deref()).is_err() {
            ensure!(point.is_some(), "the engine does not start: {}", stage.log());
            self.count.kill(if of_warden { Victim::Warden } else { Victim::Engine });
            stage.kill(first)?;
            stage.up(None)?;
        }
        let begun = audit::steady(stage, of_warden, &mut self.count.lost)
            .and_then(|()| if fills { self.make_room() } else { Ok(()) })
            .and_then(|()| load::revive(stage, model));
        if let Err(error) = begun {
            // One that is armed may die of the first thing it is asked for.
            ensure!(point.is_some() && !stage.engine_is_up()?, "{error:#}");
            self.count.kill(Victim::Engine);
            stage.up(None)?;
            load::revive(stage, model)?;
        }
        let engine_died = self.load(point, victim)?;
        if engine_died {
            stage.up(None)?;
        }
        let warden_died = of_warden || victim != Victim::Engine;
        audit::steady(stage, engine_died && warden_died, &mut self.count.lost)?;
        model.is_calm();
        load::revive(stage, model)?;
        let when = format!("after round {}", self.number);
        model.names.compare(stage, &when, &mut self.count.lost)?;
        audit::round(stage, &when, &mut self.count.left)
    }

    /// Removals on a full disk are seen to the end.
    fn make_room(&self) -> Result<()> {
        load::remove_some(self.stage, self.model)?;
        self.stage.free()?;
        self.model.is_free();
        Ok(())
    }

    /// Lets clients work until the failpoint is reached or for a moment, and kills in any case.
    /// Returns whether the engine has died of either.
    fn load(&mut self, point: Option<&str>, victim: Victim) -> Result<bool> {
        let (stage, model, number) = (self.stage, self.model, self.number);
        let moment = Duration::from_millis(self.random.below(1500) as u64 + 500);
        let fills = self.random.below(3) == 0;
        let stop = AtomicBool::new(false);
        let (done, all_done) = std::sync::mpsc::channel();
        std::thread::scope(|scope| -> Result<bool> {
            for worker_number in 0..3 {
                let (stop, done) = (&stop, done.clone());
                scope.spawn(move || {
                    worker(stage, model, &format!("r{number}w{worker_number}"), stop);
                    let _ = done.send(());
                });
            }
            let killed = self.kill_under_load(point, victim, moment, fills);
            stop.store(true, Ordering::Relaxed);
            for _ in 0..3 {
                if all_done.recv_timeout(ANSWER).is_err() {
                    let engine = stage.log();
                    self.count
                        .lost
                        .push(format!("round {number}: no answer to a client: {engine}"));
                    // Its clients hear of it, or this would never end.
                    stage.kill(Victim::Engine)?;
                }
            }
            killed
        })
    }

    fn kill_under_load(
        &mut self,
        point: Option<&str>,
        victim: Victim,
        moment: Duration,
        fills: bool,
    ) -> Result<bool> {
        let (stage, model) = (self.stage, self.model);
        let died = match point {
            Some(name) if name.starts_with("warden.") => {
                // The first of them, and perhaps the next; the engine lives, and so do its clients.
                let mut deaths = 0;
                while deaths < 2 && stage.dies_within(Victim::Warden, moment)? {
                    self.count.kill(Victim::Warden);
                    deaths += 1;
                    until(Duration::from_secs(20), || Ok(stage.warden()?.is_some()))?;
                }
                false
            }
            Some(_) => stage.dies_within(Victim::Engine, moment * 2)?,
            None => stage.dies_within(Victim::Engine, moment)?,
        };
        if died {
            self.count.kill(Victim::Engine);
        } else if fills {
            model.fills();
            stage.fill()?;
            self.count.full += 1;
            stage.dies_within(Victim::Engine, Duration::from_millis(400))?;
            stage.free()?;
            model.is_free();
        }
        // Whatever came of the failpoint, this is the moment of a kill.
        if victim != Victim::Engine {
            model.shakes();
        }
        stage.kill(victim)?;
        self.count.kill(victim);
        if victim == Victim::Warden && !died {
            // The engine starts another one under the same load.
            until(Duration::from_secs(20), || Ok(stage.warden()?.is_some()))?;
            stage.dies_within(Victim::Engine, Duration::from_millis(500))?;
        }
        Ok(!stage.engine_is_up()?)
    }
}

/// How long a client's request may take when nothing is killed any more.
const ANSWER: Duration = Duration::from_secs(40);

fn until(time: Duration, is_so: impl Fn() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + time;
    while !is_so()? {
        ensure!(Instant::now() < end, "no other warden was started");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    Ok(())
}

/// Every failpoint that the sources name, so that none is forgotten here.
fn failpoints() -> Result<Vec<String>> {
    let mut names = BTreeSet::new();
    let mut directories = vec![setup::root().join("crates")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() && !path.ends_with("tests") {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path)?;
                for call in ["failpoint::hit(\"", "failpoint::pass(\""] {
                    let found = text.split(call).skip(1).filter_map(|rest| rest.split('"').next());
                    names.extend(found.map(str::to_owned));
                }
            }
        }
    }
    ensure!(names.len() > 10, "the sources name {} failpoints", names.len());
    Ok(names.into_iter().collect())
}

/// Numbers that a seed gives again (xorshift64*).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        let mut state = self.0 | 1;
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.0 = state;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }
}
