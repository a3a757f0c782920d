//! The Rust tests of the workspace.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Tally, docker_cli};
use crate::setup;
use crate::shell::Shell;
use crate::target;

/// Far longer than any test takes. A test program that says nothing for so long hangs, and is ended:
/// the others can still tell what they find.
const SILENCE: Duration = Duration::from_secs(300);

/// How many lines of failed tests are said again at the end.
const MAX_SAID: usize = 200;

/// Every test of the workspace, counted by name from the runner's own lines.
pub(super) fn test(tally: &mut Tally, bin: &Path, skipped: &Path) -> Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let aws = setup::aws_cli()?;
    let shell = Shell::default().with_path(bin).with_path(&aws);
    let mut tests = shell.command(&cargo);
    tests.env("BULKHEAD_SKIPPED", skipped).env("BULKHEAD_PROGRAM", bin.join("bulkhead"));
    add_tools(&mut tests)?;
    run(tally, tests, &["--workspace"], "")
}

/// What calls the OCI runtime alone, once more with the runtime's small program, which has another
/// libc and another allocator.
pub(super) fn test_small(tally: &mut Tally, skipped: &Path) -> Result<()> {
    let program = setup::build("bulkhead-oci", "small", &target::musl()?)?.join("bulkhead-oci");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut tests = Shell::default().command(&cargo);
    tests.env("BULKHEAD_SKIPPED", skipped).env("BULKHEAD_PROGRAM", program);
    add_tools(&mut tests)?;
    let mut which = vec!["--package", "bulkhead-tests"];
    for name in ["crun", "escapes", "filters", "net_devices"] {
        which.extend(["--test", name]);
    }
    run(tally, tests, &which, "small: ")
}

fn add_tools(tests: &mut Command) -> Result<()> {
    tests
        .env("BULKHEAD_DOCKER", docker_cli()?)
        .env("BULKHEAD_WEAKENED", crate::isolation::weakened()?)
        .env("BULKHEAD_OLD_RUNTIMES", crate::isolation::old_runtimes()?);
    Ok(())
}

/// Builds the tests, shows what they say, and counts it under their names with `prefix`.
fn run(tally: &mut Tally, mut tests: Command, which: &[&str], prefix: &str) -> Result<()> {
    // what is built is silent for long, and not what the tests' time is for
    let mut build = Command::new(tests.get_program());
    build.arg("test").args(which).args(["--no-run", "--quiet"]).current_dir(setup::root());
    if !build.status().context("run cargo test")?.success() {
        tally.failed.push(format!("{prefix}cargo test (it does not build)"));
        return Ok(());
    }
    let mut child = tests
        .arg("test")
        .args(which)
        .arg("--no-fail-fast")
        .current_dir(setup::root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("run cargo test")?;
    let output = child.stdout.take().context("it was piped")?;
    let failed_before = tally.failed.len();
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let (mut last, mut said) = (String::new(), Said::default());
    loop {
        match lines.recv_timeout(SILENCE) {
            Ok(line) => {
                last = line?;
                println!("{last}");
                count(tally, prefix, &last);
                if said.of_a_failure(&last) && tally.said.len() < MAX_SAID {
                    tally.said.push(last.clone());
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                // all is done, and something that a test left behind holds the pipe
                if child.try_wait()?.is_some() {
                    tally.failed.push(format!("{prefix}what a test left behind"));
                    break;
                }
                println!("ending a test program that is silent for {} s", SILENCE.as_secs());
                tally.failed.push(format!("{prefix}a test program that hung, after: {last}"));
                end_test_programs(&child)?;
            }
        }
    }
    if !child.wait()?.success() && tally.failed.len() == failed_before {
        tally.failed.push(format!("{prefix}cargo test (a test ended the process)"));
    }
    Ok(())
}

/// Where the lines of a runner tell why a test failed.
#[derive(Default)]
struct Said {
    /// Between the title of what failed tests have said and that of their list.
    listed: bool,
    /// After the name, as runners of our own do.
    named: bool,
}

impl Said {
    fn of_a_failure(&mut self, line: &str) -> bool {
        if line == "failures:" {
            self.listed = !self.listed;
            return false;
        }
        if line.starts_with("test ") {
            self.named = line.contains(" ... FAILED (");
        }
        self.listed || self.named
    }
}

fn count(tally: &mut Tally, prefix: &str, line: &str) {
    let Some((name, result)) =
        line.strip_prefix("test ").and_then(|line| line.rsplit_once(" ... "))
    else {
        return;
    };
    // Runners of our own (`harness = false`) put the time behind the result.
    match result.split(' ').next().unwrap_or_default() {
        "ok" => tally.passed += 1,
        "FAILED" => tally.failed.push(format!("{prefix}{name}")),
        _ => {}
    }
}

/// Ends what cargo has started; cargo goes on to the next program.
fn end_test_programs(cargo: &Child) -> Result<()> {
    let cargo = cargo.id();
    let children = std::fs::read_to_string(format!("/proc/{cargo}/task/{cargo}/children"))
        .context("find the test programs")?;
    for child in children.split_whitespace() {
        Command::new("kill").args(["-KILL", child]).status().context("run kill")?;
    }
    Ok(())
}
