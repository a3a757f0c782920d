//! What a case is, and how its outcome is told.

use anyhow::Result;

use crate::rig::{Facts, Rig};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Default,
    /// The host's ids, as in Docker.
    Host,
    /// Uid 1000 in the container.
    User,
}

pub const MODES: &[Mode] = &[Mode::Default, Mode::Host, Mode::User];

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Host => "userns=host",
            Self::User => "user",
        }
    }

    pub fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Default => &[],
            Self::Host => &["--userns=host"],
            Self::User => &["--user", "1000:1000"],
        }
    }
}

/// Where a wall is taken away: a case that holds in all of these has shown nothing.
pub const CONTROLS: &[(&str, &[&str])] = &[
    ("seccomp=unconfined", &["--security-opt", "seccomp=unconfined"]),
    (
        "the host's namespaces",
        &[
            "--userns=host",
            "--pid=host",
            "--net=host",
            "--ipc=host",
            "--uts=host",
            "--cgroupns=host",
        ],
    ),
    ("--privileged", &["--privileged"]),
    (
        "everything off",
        &["--privileged", "--pid=host", "--net=host", "--ipc=host", "--cgroupns=host"],
    ),
    ("other devices and sizes", &["--device", "/dev/null:/dev/extra", "--shm-size", "128m"]),
];

#[derive(Debug)]
pub enum Outcome {
    Ok,
    Failed(String),
    /// The machine lacks what the case is about.
    Skipped(String),
}

type Judge = fn(&Facts, Mode) -> Outcome;

pub struct Case {
    pub id: &'static str,
    pub how: How,
}

pub enum How {
    /// By what one look from inside has shown.
    Facts(Judge),
    /// By a scene of its own, which takes the flags of the container.
    Scene { modes: &'static [Mode], run: fn(&Rig, &[&str]) -> Result<Outcome>, control: Control },
    /// Not to be tried here, and why.
    Lacking(&'static str),
}

pub enum Control {
    /// The same scene with these flags has to fail.
    Flags(&'static [&'static str]),
    /// Another scene has to fail.
    Other(&'static str, fn(&Rig) -> Result<Outcome>),
    None(&'static str),
}

impl Case {
    pub fn group(&self) -> char {
        self.id.chars().next().unwrap_or('?')
    }
}

pub const fn facts(id: &'static str, judge: Judge) -> Case {
    Case { id, how: How::Facts(judge) }
}

pub const fn scene(
    id: &'static str,
    modes: &'static [Mode],
    run: fn(&Rig, &[&str]) -> Result<Outcome>,
    control: Control,
) -> Case {
    Case { id, how: How::Scene { modes, run, control } }
}

pub fn ensure(holds: bool, why: impl FnOnce() -> String) -> Outcome {
    if holds { Outcome::Ok } else { Outcome::Failed(why()) }
}

/// Each fact is one of `wanted`. What this kernel does not have is left out, and where that is all
/// of it, the case is skipped.
pub fn each(facts: &Facts, names: &[&str], wanted: &[&str]) -> Outcome {
    const ABSENT: [&str; 3] = ["absent", "ENOENT", "EAFNOSUPPORT"];
    let mut looked = 0;
    for name in names {
        let found = facts.of(name);
        if wanted.contains(&found) {
            looked += 1;
        } else if !ABSENT.contains(&found) {
            return Outcome::Failed(format!("{name}: {found}, not {}", wanted.join(" or ")));
        }
    }
    if looked == 0 {
        Outcome::Skipped(format!("this kernel has no {names:?}"))
    } else {
        Outcome::Ok
    }
}

/// The first that is not ok, or else a skip only if nothing was ok.
pub fn all(outcomes: impl IntoIterator<Item = Outcome>) -> Outcome {
    let (mut passed, mut skipped) = (false, None);
    for outcome in outcomes {
        match outcome {
            Outcome::Ok => passed = true,
            Outcome::Skipped(reason) => skipped = Some(reason),
            failed @ Outcome::Failed(_) => return failed,
        }
    }
    match skipped {
        Some(reason) if !passed => Outcome::Skipped(reason),
        _ => Outcome::Ok,
    }
}

/// One line of it.
pub fn short(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.chars().take(220).collect()
}
