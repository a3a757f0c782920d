//! `cargo xtask test`: format, lints, every test of the workspace, the real clients and the
//! walk-through. Its last line counts them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::setup;
use crate::shell::Shell;
use crate::walkthrough;

mod rust;

/// What was counted so far.
#[derive(Debug, Default)]
pub struct Tally {
    passed: usize,
    failed: Vec<String>,
    skipped: usize,
    /// What failed Rust tests have written.
    said: Vec<String>,
}

impl Tally {
    /// Counts one check that this machine cannot make.
    pub fn skip(&mut self, name: &str, why: &str) {
        println!("skipped {name}: {why}");
        self.skipped += 1;
    }

    /// Counts what another program has found: `ok`, `FAILED: …` or `skipped: …`.
    pub fn count(&mut self, name: &str, outcome: &str) {
        match outcome.split(':').next().unwrap_or_default() {
            "ok" => self.passed += 1,
            "skipped" => self.skipped += 1,
            _ => self.failed.push(one_line(name, outcome)),
        }
    }

    /// Runs one check that is not a Rust test, and counts it.
    pub fn check(&mut self, name: &str, check: impl FnOnce() -> Result<()>) {
        match check() {
            Ok(()) => {
                println!("check {name} ... ok");
                self.passed += 1;
            }
            Err(cause) => {
                let outcome = format!("FAILED: {cause:#}");
                println!("check {name} ... {outcome}");
                self.failed.push(one_line(name, &outcome));
            }
        }
    }
}

/// What failed and why, since who looks at a long run looks at its end.
fn one_line(name: &str, outcome: &str) -> String {
    let why = outcome.strip_prefix("FAILED").unwrap_or(outcome).trim_start_matches(':').trim();
    let why: String = why.replace('\n', " ").chars().take(400).collect();
    if why.is_empty() { name.to_owned() } else { format!("{name}: {why}") }
}

const PACKAGES: &[(&str, &str)] = &[
    ("/usr/bin/busybox", "busybox-static"),
    ("/usr/lib/x86_64-linux-gnu/libseccomp.so.2", "libseccomp2"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/bin/ip", "iproute2"),
    ("/usr/bin/chromium", "chromium"),
    ("/usr/bin/chromedriver", "chromium-driver"),
];

/// The parts by name; none means all.
pub fn run(parts: &[&str]) -> Result<()> {
    let known = ["format", "lint", "unit", "small", "isolation", "clients", "walkthrough", "vm"];
    if let Some(unknown) = parts.iter().find(|part| !known.contains(part)) {
        bail!("there is no part {unknown:?}: use {}", known.join(", "));
    }
    let wanted = |part: &str| parts.is_empty() || parts.contains(&part);
    setup::require_root()?;
    setup::packages(&[setup::WALKTHROUGH, PACKAGES].concat())?;
    let mut tally = Tally::default();
    let skipped = setup::target().join(format!("skipped-{}", std::process::id()));
    std::fs::create_dir_all(setup::target())?;
    if wanted("format") {
        tally.check("format", || cargo(&["fmt", "--all", "--check"]));
        tally.check("unsafe lives in sys alone", only_sys_is_unsafe);
        tally.check("crates depend downwards only", crate::layers::check);
    }
    if wanted("lint") {
        tally.check("clippy", || {
            cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])
        });
        tally.check("cargo-deny", deny);
    }
    let bin = setup::program("dev")?;
    tally.check("the program is static", || is_static(&bin.join("bulkhead")));
    if wanted("unit") {
        rust::test(&mut tally, &bin, &skipped)?;
    }
    if wanted("small") {
        rust::test_small(&mut tally, &skipped)?;
    }
    if wanted("isolation") {
        crate::isolation::test(&mut tally, &bin)?;
    }
    if wanted("clients") {
        crate::clients::test(&mut tally, &bin);
    }
    if wanted("walkthrough") {
        walkthrough::test(&mut tally, &bin);
    }
    if wanted("vm") {
        crate::vm::test(&mut tally, &bin);
    }
    let skips = std::fs::read_to_string(&skipped).unwrap_or_default();
    let _ = std::fs::remove_file(&skipped);
    let skipped = skips.lines().count();
    for line in skips.lines() {
        println!("skipped {line}");
    }
    for text in &tally.said {
        println!("{text}");
    }
    for name in &tally.failed {
        println!("failed {name}");
    }
    // A skipped test has returned early, which the test runner took for a pass.
    let passed = tally.passed.saturating_sub(skipped);
    let skipped = skipped + tally.skipped;
    println!("{passed} passed, {} failed, {skipped} skipped", tally.failed.len());
    ensure!(tally.failed.is_empty(), "some tests failed");
    Ok(())
}

fn cargo(arguments: &[&str]) -> Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let status = Command::new(cargo)
        .args(arguments)
        .current_dir(setup::root())
        .status()
        .context("run cargo")?;
    ensure!(status.success(), "cargo {} failed", arguments[0]);
    Ok(())
}

/// The docker CLI: this machine's, else Debian's unpacked beside the build, without its daemon.
pub fn docker_cli() -> Result<PathBuf> {
    let found = Shell::default().ask("command -v docker")?;
    if found.success {
        return Ok(found.output.trim().into());
    }
    let directory = setup::target().join("docker-cli");
    let docker = directory.join("usr/bin/docker");
    if !docker.exists() {
        std::fs::create_dir_all(&directory)?;
        Shell::default()
            .within(&directory)
            .run("apt-get update -q && apt-get download docker.io && dpkg -x docker.io_*.deb . && rm docker.io_*.deb")?;
    }
    Ok(docker)
}

/// Licences, sources and banned crates. Advisories need their database, which not every machine can
/// reach, so they are left to a scheduled job.
fn deny() -> Result<()> {
    let tools = setup::target().join("tools");
    let installed = tools.join("bin/cargo-deny");
    let program = match Shell::default().ask("command -v cargo-deny")? {
        found if found.success => PathBuf::from(found.output.trim()),
        _ if installed.exists() => installed,
        _ => {
            cargo(&[
                "install",
                "--quiet",
                "--locked",
                "cargo-deny",
                "--root",
                &tools.to_string_lossy(),
            ])?;
            installed
        }
    };
    let status = Command::new(program)
        .args(["--workspace", "check", "--hide-inclusion-graph", "licenses", "bans", "sources"])
        .current_dir(setup::root())
        .status()
        .context("run cargo-deny")?;
    ensure!(status.success(), "cargo-deny found something");
    Ok(())
}

fn only_sys_is_unsafe() -> Result<()> {
    for entry in std::fs::read_dir(setup::root().join("crates"))? {
        let entry = entry?;
        if entry.file_name() == "sys" {
            continue;
        }
        let source = entry.path().join("src");
        let file = if source.join("lib.rs").exists() {
            source.join("lib.rs")
        } else {
            source.join("main.rs")
        };
        let text = std::fs::read_to_string(&file)?;
        ensure!(
            text.contains("#![forbid(unsafe_code)]"),
            "{} does not forbid unsafe code",
            file.display()
        );
    }
    Ok(())
}

/// A static program asks for no loader: no program header of the type PT_INTERP (elf(5)).
fn is_static(program: &Path) -> Result<()> {
    let elf = std::fs::read(program).with_context(|| format!("read {}", program.display()))?;
    let number = |at: usize, size: usize| -> Option<usize> {
        let bytes = elf.get(at..at + size)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    let headers = (|| Some((number(32, 8)?, number(54, 2)?, number(56, 2)?)))();
    let (first, size, count) = headers.context("the program is no 64-bit ELF file")?;
    let interpreter = (0..count).any(|header| number(first + header * size, 4) == Some(PT_INTERP));
    ensure!(!interpreter, "{} asks for a dynamic loader", program.display());
    Ok(())
}

const PT_INTERP: usize = 3;
