//! What a run of the tests has found: every part counts here, and the last lines are written here.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

/// How often a case that has failed is run again, alone.
const AGAIN: usize = 2;

/// One thing that was tried.
#[derive(Debug, Clone)]
pub struct Case {
    pub name: String,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// And why.
    Failed(String),
    /// The machine lacks what the case is about.
    Skipped(String),
}

impl Case {
    pub fn new(name: impl Into<String>, outcome: Outcome) -> Self {
        Self { name: name.into(), outcome }
    }

    /// Tries one thing, and says what came of it.
    pub fn of(name: impl Into<String>, check: impl FnOnce() -> Result<()>) -> Self {
        let (name, started) = (name.into(), std::time::Instant::now());
        match check() {
            Ok(()) => {
                println!("check {name} ... ok ({:.1} s)", started.elapsed().as_secs_f64());
                Self::new(name, Outcome::Passed)
            }
            Err(cause) => {
                println!("check {name} ... FAILED: {cause:#}");
                Self::new(name, Outcome::Failed(format!("{cause:#}")))
            }
        }
    }

    /// Reads `case NAME ... ok`, `case NAME ... FAILED: WHY` or `case NAME ... skipped: WHY`, which
    /// scripts and programs of cases write; the name gets `prefix`.
    pub fn read(line: &str, prefix: &str) -> Option<Self> {
        let (name, outcome) = line.strip_prefix("case ")?.split_once(" ... ")?;
        let outcome = match outcome.split_once(": ") {
            _ if outcome == "ok" => Outcome::Passed,
            Some(("skipped", why)) => Outcome::Skipped(why.to_owned()),
            Some(("FAILED", why)) => Outcome::Failed(why.to_owned()),
            _ => Outcome::Failed(outcome.to_owned()),
        };
        Some(Self::new(format!("{prefix}{name}"), outcome))
    }
}

/// What was counted so far.
#[derive(Debug, Default)]
pub struct Tally {
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<String>,
    /// What failed and then passed alone, or the other way round.
    unsteady: Vec<String>,
    /// What failed tests have written.
    said: Vec<String>,
}

impl Tally {
    /// Counts one check that this machine cannot make.
    pub fn skip(&mut self, name: &str, why: &str) {
        println!("skipped {name}: {why}");
        self.skipped.push(one_line(name, why));
    }

    /// Runs one check that looks at what does not change by itself, and counts it.
    pub fn check(&mut self, name: &str, check: impl FnOnce() -> Result<()>) {
        let case = Case::of(name, check);
        let mut failed = Vec::new();
        self.count(case, &mut failed);
        self.failed.extend(failed.iter().map(|(name, why)| one_line(name, why)));
    }

    /// Counts `first`. What failed there is run by `again`, which may run others beside it, for
    /// they cannot be run apart; what passes then has passed, and is unsteady.
    pub fn cases(&mut self, first: Vec<Case>, again: &mut dyn FnMut(&[String]) -> Vec<Case>) {
        let mut seen = BTreeSet::new();
        let mut failed = Vec::new();
        for case in first {
            seen.insert(case.name.clone());
            self.count(case, &mut failed);
        }
        for _ in 0..AGAIN {
            if failed.is_empty() {
                break;
            }
            let names: Vec<String> = failed.iter().map(|(name, _)| name.clone()).collect();
            println!("once more, alone: {}", names.join(", "));
            for case in again(&names) {
                let before = failed.iter().position(|(name, _)| *name == case.name);
                match (before, &case.outcome) {
                    (Some(before), Outcome::Passed | Outcome::Skipped(_)) => {
                        let (name, why) = failed.remove(before);
                        self.unsteady.push(one_line(&name, &why));
                        self.count(case, &mut failed);
                    }
                    (None, Outcome::Failed(why)) if seen.contains(&case.name) => {
                        self.unsteady.push(one_line(&case.name, why));
                    }
                    // a program of cases that ended too early has not told of all
                    (None, _) if seen.insert(case.name.clone()) => self.count(case, &mut failed),
                    _ => {}
                }
            }
        }
        self.failed.extend(failed.iter().map(|(name, why)| one_line(name, why)));
    }

    fn count(&mut self, case: Case, failed: &mut Vec<(String, String)>) {
        match case.outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed(why) => failed.push((case.name, why)),
            Outcome::Skipped(why) => self.skipped.push(one_line(&case.name, &why)),
        }
    }

    /// Keeps lines to be said again at the end: who looks at a long run looks there.
    pub fn say_again(&mut self, lines: impl IntoIterator<Item = String>) {
        let room = MAX_SAID.saturating_sub(self.said.len());
        self.said.extend(lines.into_iter().take(room));
    }

    /// Writes what was found; an error if something failed.
    pub fn finish(mut self) -> Result<()> {
        for line in &self.said {
            println!("{line}");
        }
        for line in &self.skipped {
            println!("skipped {line}");
        }
        for line in &self.failed {
            println!("failed {line}");
        }
        self.unsteady.sort();
        self.unsteady.dedup();
        println!("unsteady:{}", if self.unsteady.is_empty() { " none" } else { "" });
        for line in &self.unsteady {
            println!("  {line}");
        }
        let (failed, skipped) = (self.failed.len(), self.skipped.len());
        println!("{} passed, {failed} failed, {skipped} skipped", self.passed);
        ensure!(self.failed.is_empty(), "some tests failed");
        Ok(())
    }
}

const MAX_SAID: usize = 200;

fn one_line(name: &str, why: &str) -> String {
    let why: String = why.trim().replace('\n', " ").chars().take(400).collect();
    if why.is_empty() { name.to_owned() } else { format!("{name}: {why}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, passed: bool) -> Case {
        let failed = || Outcome::Failed("it was dark".to_owned());
        Case::new(name, if passed { Outcome::Passed } else { failed() })
    }

    #[test]
    fn what_passes_alone_has_passed_and_is_named() {
        let mut tally = Tally::default();
        let mut runs = 0;
        let first = vec![case("steady", true), case("shaky", false), case("broken", false)];
        tally.cases(first, &mut |names| {
            runs += 1;
            names.iter().map(|name| case(name, name == "shaky" && runs == 2)).collect()
        });
        assert_eq!((runs, tally.passed), (2, 2));
        assert_eq!(tally.failed, ["broken: it was dark"]);
        assert_eq!(tally.unsteady, ["shaky: it was dark"]);
        assert!(tally.finish().is_err());
    }

    #[test]
    fn others_that_run_beside_it_count_once() {
        let mut tally = Tally::default();
        let first = vec![case("steady", true), case("start", false)];
        // the whole script: one that has passed fails now, and one was not reached before
        tally.cases(first, &mut |_| {
            vec![case("steady", false), case("start", true), case("later", true)]
        });
        assert_eq!((tally.passed, tally.failed.len()), (3, 0));
        tally.unsteady.sort();
        assert_eq!(tally.unsteady, ["start: it was dark", "steady: it was dark"]);
    }

    #[test]
    fn lines_of_cases() {
        let outcome = |line| Case::read(line, "vm: ").map(|case| (case.name, case.outcome));
        let name = || "vm: a b".to_owned();
        assert_eq!(outcome("case a b ... ok"), Some((name(), Outcome::Passed)));
        let failed = Outcome::Failed("x: y".to_owned());
        assert_eq!(outcome("case a b ... FAILED: x: y"), Some((name(), failed)));
        let skipped = Outcome::Skipped("z".to_owned());
        assert_eq!(outcome("case a b ... skipped: z"), Some((name(), skipped)));
        assert_eq!(outcome("case a b ... o"), Some((name(), Outcome::Failed("o".to_owned()))));
        assert_eq!(outcome("something else ... ok"), None);
    }
}
