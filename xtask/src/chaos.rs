//! `cargo xtask test chaos`: kills the engine at every failpoint and at random moments under load,
//! fills its disk and frees it, and compares afterwards what clients were told with the records, and
//! the records with the machine.
//!
//! Everything is in network, mount and pid namespaces of its own, which end with this program; only
//! the cgroups are the host's. The data directory is a small file system in memory.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::setup;

mod audit;
mod load;
mod stage;

use load::{Model, worker};
use stage::Stage;

/// What a run has come to.
#[derive(Debug, Default)]
struct Count {
    kills: usize,
    full: usize,
    lost: Vec<String>,
    left: Vec<String>,
}

/// Rounds of a run by hand: some four minutes.
const ROUNDS: usize = 40;
/// Rounds beside the other tests: each failpoint once in three runs.
const FEW: usize = 12;

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
        "chaos: {} kills, {} disk-full moments, {} lost, {} left ({:.0} s, seed {seed})",
        count.kills,
        count.full,
        count.lost.len(),
        count.left.len(),
        started.elapsed().as_secs_f64()
    );
    ensure!(count.lost.is_empty() && count.left.is_empty(), "something was lost or left");
    Ok(())
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
        stage.kill()?;
        let fills = round % 5 == 2;
        let point = match round % 4 {
            3 => None,
            // Removals on a full disk are to be seen to the end.
            _ if fills => None,
            _ => Some(format!(
                "{}:kill:{}",
                names[(first + round - round / 4) % names.len()],
                random.below(4) + 1
            )),
        };
        if fills {
            // It must start on a full disk, and take removals there.
            model.fills();
            stage.fill()?;
            count.full += 1;
        }
        // One that dies on its way up is what was asked for; the next one must not.
        if stage.up(point.as_deref()).is_err() {
            ensure!(point.is_some(), "the engine does not start: {}", stage.log());
            count.kills += 1;
            stage.up(None)?;
        }
        if fills {
            load::remove_some(stage, &model)?;
            stage.free()?;
            model.is_free();
        }
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| -> Result<()> {
            for number in 0..3 {
                let (stop, model) = (&stop, &model);
                scope.spawn(move || worker(stage, model, &format!("r{round}w{number}"), stop));
            }
            let moment = Duration::from_millis(random.below(1500) as u64 + 500);
            let died = stage.dies_within(if point.is_some() { moment * 2 } else { moment })?;
            if !died && random.below(3) == 0 {
                model.fills();
                stage.fill()?;
                count.full += 1;
                stage.dies_within(Duration::from_millis(400))?;
                stage.free()?;
                model.is_free();
            }
            // Whatever came of the failpoint, this is the moment of a kill.
            stage.kill()?;
            count.kills += 1;
            stop.store(true, Ordering::Relaxed);
            Ok(())
        })?;
    }
    stage.up(None)?;
    audit::records(stage, &model, &mut count.lost)?;
    audit::machine(stage, &mut count.left)?;
    audit::after_removal(stage, &model, &mut count.left)?;
    stage.down()?;
    audit::after_down(stage, &mut count.left)
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
