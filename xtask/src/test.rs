//! `cargo xtask test`: format, lints, every test of the workspace, the real clients and the
//! walk-through. Its last line counts them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::setup;
use crate::shell::Shell;
use crate::tally::Tally;

pub mod process;
pub mod rust;
mod traces;

const PACKAGES: &[(&str, &str)] = &[
    ("/usr/bin/busybox", "busybox-static"),
    ("/usr/lib/x86_64-linux-gnu/libseccomp.so.2", "libseccomp2"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/bin/ip", "iproute2"),
    ("/usr/bin/socat", "socat"),
    ("/usr/bin/openssl", "openssl"),
    ("/usr/bin/chromium", "chromium"),
    ("/usr/bin/chromedriver", "chromium-driver"),
];

/// The parts by name, in the order of their run.
const PARTS: &[&str] = &[
    "format",
    "lint",
    "unit",
    "small",
    "isolation",
    "clients",
    "compose",
    "walkthrough",
    "chaos",
    "vm",
];

/// Parts that are only run by name: what they need is of another Debian, or of other people.
const BY_NAME: &[&str] = &["compose"];

/// These parts; none means all but those by name.
pub fn run(parts: &[&str]) -> Result<()> {
    if let Some(unknown) = parts.iter().find(|part| !PARTS.contains(part)) {
        bail!("there is no part {unknown:?}: use {}", PARTS.join(", "));
    }
    setup::require_root()?;
    setup::packages(&[setup::WALKTHROUGH, PACKAGES].concat())?;
    std::fs::create_dir_all(setup::target())?;
    let mut tally = Tally::default();
    let wanted = |part: &&&str| match parts {
        [] => !BY_NAME.contains(*part),
        some => some.contains(*part),
    };
    let mut program = None;
    for part in PARTS.iter().filter(wanted) {
        let started = Instant::now();
        match *part {
            "format" => format(&mut tally),
            "lint" => lint(&mut tally, deny_program()),
            built => {
                if program.is_none() {
                    let bin = setup::program("dev")?;
                    tally.check("the program is static", || is_static(&bin.join("bulkhead")));
                    program = Some(bin);
                }
                let bin = program.as_deref().context("it was built")?;
                part_with_program(&mut tally, built, bin)?;
            }
        }
        println!("part {part}: {:.0} s", started.elapsed().as_secs_f64());
    }
    tally.finish()
}

fn part_with_program(tally: &mut Tally, part: &str, bin: &Path) -> Result<()> {
    match part {
        "unit" => rust::test(tally, bin)?,
        "small" => rust::test_small(tally)?,
        "isolation" => crate::isolation::test(tally, bin)?,
        "clients" => crate::clients::test(tally, bin),
        "compose" => crate::compose::test(tally, bin),
        "walkthrough" => crate::walkthrough::test(tally, bin),
        "chaos" => tally.check("chaos: nothing is lost or left", || crate::chaos::test(bin)),
        "vm" => crate::vm::test(tally, bin),
        unknown => bail!("the part {unknown} is listed, and nothing runs it"),
    }
    Ok(())
}

/// What a change needs before it is shown to others: no root, no network, a few minutes.
pub fn check() -> Result<()> {
    let mut tally = Tally::default();
    format(&mut tally);
    let deny = found_deny()?.context("it is not here: `cargo install --locked cargo-deny`");
    lint(&mut tally, deny);
    rust::test_without_root(&mut tally)?;
    tally.finish()
}

fn format(tally: &mut Tally) {
    tally.check("format", || cargo(&["fmt", "--all", "--check"]));
    tally.check("crates depend downwards only", crate::layers::check);
    tally.check("modules do not import in circles", crate::circles::check);
}

fn lint(tally: &mut Tally, deny_program: Result<PathBuf>) {
    tally.check("clippy", || {
        cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])
    });
    match deny_program {
        Ok(program) => tally.check("cargo-deny", || deny(&program)),
        Err(cause) => tally.skip("cargo-deny", &format!("{cause:#}")),
    }
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

/// cargo-deny: this machine's, or one that was built beside the tests.
fn found_deny() -> Result<Option<PathBuf>> {
    let found = Shell::default().ask("command -v cargo-deny")?;
    if found.success {
        return Ok(Some(PathBuf::from(found.output.trim())));
    }
    let installed = tools().join("bin/cargo-deny");
    Ok(installed.exists().then_some(installed))
}

/// The same, built if there is none.
fn deny_program() -> Result<PathBuf> {
    if let Some(found) = found_deny()? {
        return Ok(found);
    }
    let root = tools();
    cargo(&["install", "--quiet", "--locked", "cargo-deny", "--root", &root.to_string_lossy()])
        .context("cargo-deny is not installed, and cannot be")?;
    Ok(root.join("bin/cargo-deny"))
}

fn tools() -> PathBuf {
    setup::target().join("tools")
}

/// Licences, sources and banned crates. Advisories need their database, which not every machine can
/// reach.
fn deny(program: &Path) -> Result<()> {
    let status = Command::new(program)
        .args(["--workspace", "check", "--hide-inclusion-graph", "licenses", "bans", "sources"])
        .current_dir(setup::root())
        .status()
        .context("run cargo-deny")?;
    ensure!(status.success(), "cargo-deny found something");
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
