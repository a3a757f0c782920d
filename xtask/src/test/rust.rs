//! The Rust tests: each in a process of its own, several at once.
//!
//! `cargo test` builds the programs and this runs them, for it wants to know of each test how it
//! ended, what it wrote and what it left behind (docs/decisions/0006-own-test-runner.md).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::process::{self, Ended};
use crate::setup;
use crate::shell::Shell;
use crate::tally::{Case, Outcome, Tally};
use crate::target;

/// Far longer than any test takes, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(300);

/// Every test of the workspace.
pub(super) fn test(tally: &mut Tally, bin: &Path) -> Result<()> {
    let shell = Shell::default().with_path(bin).with_path(&setup::aws_cli()?);
    let shell =
        with_tools(shell)?.with("BULKHEAD_PROGRAM", &bin.join("bulkhead").to_string_lossy());
    Suite { shell, prefix: "" }.run(tally, &["--workspace"])
}

/// What calls the OCI runtime alone, once more with the runtime's small program, which has another
/// libc and another allocator.
pub(super) fn test_small(tally: &mut Tally) -> Result<()> {
    let program = setup::build("bulkhead-oci", "small", &target::musl()?)?.join("bulkhead-oci");
    let shell = with_tools(Shell::default())?;
    let shell = shell.with("BULKHEAD_PROGRAM", &program.to_string_lossy());
    let mut which = vec!["--package", "bulkhead-tests"];
    for name in ["crun", "escapes", "filters", "net_devices"] {
        which.extend(["--test", name]);
    }
    Suite { shell, prefix: "small: " }.run(tally, &which)
}

/// Those that need neither root nor a program: the crates' own, and their pure neighbours.
pub(super) fn test_without_root(tally: &mut Tally) -> Result<()> {
    let mut which = vec!["--workspace", "--lib", "--bins"];
    for name in ["control", "conformance", "round_trip", "agent_connection"] {
        which.extend(["--test", name]);
    }
    Suite { shell: Shell::default(), prefix: "" }.run(tally, &which)
}

/// What `cargo test FLAG…` would run, for who works on one crate. The program and the docker CLI are
/// those that the environment names, as for `cargo test` itself.
pub fn try_some(flags: &[&str]) -> Result<()> {
    let mut tally = Tally::default();
    Suite { shell: Shell::default(), prefix: "" }.run(&mut tally, flags)?;
    tally.finish()
}

fn with_tools(shell: Shell) -> Result<Shell> {
    Ok(shell
        .with("BULKHEAD_DOCKER", &setup::docker_cli()?.to_string_lossy())
        .with("BULKHEAD_BUILDX", &setup::docker_buildx()?.to_string_lossy())
        .with("BULKHEAD_WEAKENED", &crate::isolation::weakened()?.to_string_lossy())
        .with("BULKHEAD_OLD_RUNTIMES", &crate::isolation::old_runtimes()?.to_string_lossy()))
}

struct Suite {
    /// Where the tests find what they call.
    shell: Shell,
    /// Before each name.
    prefix: &'static str,
}

/// One test of one program.
struct Test {
    /// `CRATE: NAME`, or `CRATE/PROGRAM: NAME` where it is not the crate's own.
    name: String,
    program: PathBuf,
    /// The package's, where cargo runs its tests.
    directory: PathBuf,
    /// As the program calls it.
    own_name: String,
}

impl Suite {
    fn run(&self, tally: &mut Tally, which: &[&str]) -> Result<()> {
        let tests = match self.find(which) {
            Ok(tests) => tests,
            Err(cause) => {
                tally.check(&format!("{}the tests can be listed", self.prefix), || Err(cause));
                return Ok(());
            }
        };
        let place = setup::target().join(format!("test-{}", std::process::id()));
        std::fs::create_dir_all(&place)?;
        let said = Mutex::new(Vec::new());
        let all: Vec<&Test> = tests.iter().collect();
        // Most of a test is waiting: for a program, a link, a disk.
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        let first = self.at_once(&all, processors.div_ceil(2) * 3, &place, &said);
        let again = &mut |names: &[String]| {
            let chosen: Vec<&Test> =
                tests.iter().filter(|test| names.contains(&test.name)).collect();
            self.at_once(&chosen, 1, &place, &said)
        };
        tally.cases(first, again);
        tally.say_again(said.into_inner().unwrap_or_default());
        let _ = std::fs::remove_dir(place);
        Ok(())
    }

    /// Builds the programs and asks each for its tests; those that take long come first.
    fn find(&self, which: &[&str]) -> Result<Vec<Test>> {
        let built = Command::new(cargo())
            .arg("test")
            .args(which)
            .args(["--no-run", "--quiet", "--message-format", "json-render-diagnostics"])
            .current_dir(setup::root())
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("run cargo test")?;
        ensure!(built.status.success(), "they do not build");
        let (mut slow, mut quick) = (Vec::new(), Vec::new());
        for line in String::from_utf8_lossy(&built.stdout).lines() {
            let message: Value = serde_json::from_str(line).unwrap_or_default();
            let (Some(program), true) =
                (message["executable"].as_str(), message["profile"]["test"] == true)
            else {
                continue;
            };
            let manifest = Path::new(message["manifest_path"].as_str().unwrap_or_default());
            let directory = manifest.parent().context("a package has a directory")?;
            let package = directory.file_name().unwrap_or_default().to_string_lossy();
            let target = message["target"]["name"].as_str().unwrap_or_default();
            let outside = message["target"]["kind"][0] == "test";
            let list = if outside { &mut slow } else { &mut quick };
            for own_name in self.list(program, directory)? {
                let of = if outside { format!("{package}/{target}") } else { package.to_string() };
                list.push(Test {
                    name: format!("{}{of}: {own_name}", self.prefix),
                    program: program.into(),
                    directory: directory.to_owned(),
                    own_name,
                });
            }
        }
        slow.append(&mut quick);
        Ok(slow)
    }

    fn list(&self, program: &str, directory: &Path) -> Result<Vec<String>> {
        let mut command = self.shell.command(program);
        let said = command.arg("--list").current_dir(directory).output()?;
        ensure!(said.status.success(), "{program} --list fails");
        let text = String::from_utf8_lossy(&said.stdout);
        Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
    }

    fn at_once(
        &self,
        tests: &[&Test],
        workers: usize,
        place: &Path,
        said: &Mutex<Vec<String>>,
    ) -> Vec<Case> {
        let (next, cases) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(test) = tests.get(number) else { break };
                        let (outcome, line, output) = self.one(test, place, number);
                        println!("test {} ... {line}", test.name);
                        let case = Case::new(&test.name, outcome);
                        cases.lock().expect("nobody panics with it").push(case);
                        if !output.is_empty() {
                            println!("{output}");
                            let title = format!("---- {} ----", test.name);
                            let mut said = said.lock().expect("nobody panics with it");
                            said.push(title);
                            said.extend(output.lines().map(str::to_owned));
                        }
                    }
                });
            }
        });
        cases.into_inner().unwrap_or_default()
    }

    /// The outcome, how a line tells of it, and what a test that failed has written.
    fn one(&self, test: &Test, place: &Path, number: usize) -> (Outcome, String, String) {
        let mut command = self.shell.command(&test.program.to_string_lossy());
        command.args(["--exact", &test.own_name]).current_dir(&test.directory);
        command.env("INSTA_WORKSPACE_ROOT", setup::root());
        let ended = match process::run(&command, LIMIT, place, number) {
            Ok(ended) => ended,
            Err(cause) => {
                let why = format!("{cause:#}");
                return (Outcome::Failed(why.clone()), format!("FAILED: {why}"), String::new());
            }
        };
        let took = format!("({:.2} s)", ended.took.as_secs_f64());
        match judge(&test.own_name, &ended) {
            Outcome::Passed => (Outcome::Passed, format!("ok {took}"), String::new()),
            Outcome::Skipped(why) => {
                let line = format!("skipped {took}: {why}");
                (Outcome::Skipped(why), line, String::new())
            }
            Outcome::Failed(why) => {
                let line = format!("FAILED {took}: {why}");
                (Outcome::Failed(why), line, ended.output)
            }
        }
    }
}

fn judge(own_name: &str, ended: &Ended) -> Outcome {
    let start = format!("test {own_name}");
    // a program that found no test of that name ends well, too
    let ran = |line: &str| line.starts_with(&start) && line.contains(" ... ok");
    let mut faults = ended.faults.clone();
    if !(ended.success && ended.output.lines().any(ran)) {
        // the first line of a panic says where, the next one why; an error that is returned, itself
        let said = |line: &&str| line.contains("panicked at") || line.starts_with("Error: ");
        let why: Vec<&str> = ended.output.lines().skip_while(|line| !said(line)).take(2).collect();
        let why = why.join(" ");
        faults.insert(0, if why.is_empty() { "it did not end well".to_owned() } else { why });
    }
    if !faults.is_empty() {
        return Outcome::Failed(faults.join("; "));
    }
    match ended.skipped.trim() {
        "" => Outcome::Passed,
        reasons => Outcome::Skipped(reasons.replace('\n', "; ")),
    }
}

fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}
