//! Isolation cases A to H against the engine's default settings, each with a control.
//!
//! A case is judged in three modes: the defaults, `--userns=host`, and a user that is not root.
//! Where it holds nowhere but by accident it proves nothing, so each is also judged where a wall is
//! taken away, and has to fail there.
#![forbid(unsafe_code)]

mod capabilities;
mod cgroups;
mod devices;
mod exec;
mod judge;
mod mounts;
mod namespaces;
mod proc;
mod rig;
mod seccomp;

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use judge::{Case, Control, How, MODES, Mode, Outcome};
use rig::{Facts, Rig};

fn main() -> ExitCode {
    let only: Option<String> = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    match run(only.as_deref()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(cause) => {
            println!("case setup default ... FAILED: {cause:#}");
            ExitCode::FAILURE
        }
    }
}

/// Outcomes by group: passed, failed, skipped, controls that flipped, controls that did not.
type Counts = BTreeMap<char, [usize; 5]>;

fn run(only: Option<&str>) -> Result<bool> {
    let rig = Rig::start()?;
    let before = rig.fingerprint()?;
    let mut counts = Counts::new();
    let seen = Seen {
        modes: MODES
            .iter()
            .map(|mode| Ok((*mode, rig.facts(mode.flags())?)))
            .collect::<Result<_>>()?,
        controls: judge::CONTROLS
            .iter()
            .map(|(name, flags)| Ok((*name, rig.facts(flags)?)))
            .collect::<Result<_>>()?,
    };
    let groups = [
        namespaces::CASES,
        capabilities::CASES,
        seccomp::CASES,
        proc::CASES,
        mounts::CASES,
        devices::CASES,
        cgroups::CASES,
        exec::CASES,
    ];
    for case in groups.into_iter().flatten() {
        if only.is_none_or(|only| case.id.starts_with(only)) {
            try_case(&rig, &seen, case, &mut counts);
        }
    }
    let changed = before.differences(&rig.fingerprint()?);
    let outcome = judge::ensure(changed.is_empty(), || format!("changed: {changed:?}"));
    report(&mut counts, "Z1", "host", &outcome);
    drop(rig);
    for (group, [passed, failed, skipped, flipped, unproven]) in &counts {
        println!(
            "group {group}: {passed} passed, {failed} failed, {skipped} skipped; \
             {flipped} controls flipped, {unproven} did not"
        );
    }
    Ok(counts.values().all(|count| count[1] == 0))
}

struct Seen {
    modes: Vec<(Mode, Facts)>,
    controls: Vec<(&'static str, Facts)>,
}

fn try_case(rig: &Rig, seen: &Seen, case: &Case, counts: &mut Counts) {
    let settled = |outcome: Result<Outcome>| {
        outcome.unwrap_or_else(|cause| Outcome::Failed(format!("{cause:#}")))
    };
    let flipped = match &case.how {
        How::Lacking(reason) => {
            let outcome = Outcome::Skipped((*reason).to_owned());
            return report(counts, case.id, "default", &outcome);
        }
        How::Facts(judge) => {
            for (mode, facts) in &seen.modes {
                report(counts, case.id, mode.name(), &judge(facts, *mode));
            }
            let flips =
                seen.controls.iter().find_map(|(name, facts)| match judge(facts, Mode::Default) {
                    Outcome::Failed(reason) => Some(format!("{name}: {reason}")),
                    _ => None,
                });
            flips.ok_or_else(|| "no control takes this wall away".to_owned())
        }
        How::Scene { modes, run, control } => {
            for mode in *modes {
                report(counts, case.id, mode.name(), &settled(run(rig, mode.flags())));
            }
            let (name, outcome) = match control {
                Control::Flags(flags) => (flags.join(" "), settled(run(rig, flags))),
                Control::Other(name, run) => ((*name).to_owned(), settled(run(rig))),
                Control::None(reason) => ((*reason).to_owned(), Outcome::Ok),
            };
            match outcome {
                Outcome::Failed(reason) => Ok(format!("{name}: {reason}")),
                Outcome::Skipped(reason) => Err(format!("{name}: {reason}")),
                Outcome::Ok => Err(name),
            }
        }
    };
    let count = counts.entry(case.group()).or_default();
    match flipped {
        Ok(how) => {
            count[3] += 1;
            println!("control {} flips by {}", case.id, judge::short(&how));
        }
        Err(why) => {
            count[4] += 1;
            println!("control {} DOES NOT FLIP: {}", case.id, judge::short(&why));
        }
    }
}

fn report(counts: &mut Counts, id: &str, mode: &str, outcome: &Outcome) {
    let count = counts.entry(id.chars().next().unwrap_or('?')).or_default();
    let text = match outcome {
        Outcome::Ok => {
            count[0] += 1;
            "ok".to_owned()
        }
        Outcome::Failed(reason) => {
            count[1] += 1;
            format!("FAILED: {}", judge::short(reason))
        }
        Outcome::Skipped(reason) => {
            count[2] += 1;
            format!("skipped: {reason}")
        }
    };
    println!("case {id} {mode} ... {text}");
}
