//! The isolation suite, and the weak and old runtimes that show its attacks to be real ones.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::setup;
use crate::shell::Shell;
use crate::tally::{Case, Outcome, Tally};

/// Cases A to H of tests/tests/isolation, one line each.
pub fn test(tally: &mut Tally, bin: &Path) -> Result<()> {
    let first = cases(bin, None)?;
    let again = &mut |names: &[String]| {
        // `isolation ID MODE`
        let ids: BTreeSet<&str> = names.iter().filter_map(|name| name.split(' ').nth(1)).collect();
        ids.into_iter().flat_map(|id| cases(bin, Some(id)).unwrap_or_default()).collect()
    };
    tally.cases(first, again);
    Ok(())
}

/// All of them, or those whose id begins so.
fn cases(bin: &Path, only: Option<&str>) -> Result<Vec<Case>> {
    let mut child = Shell::default()
        .command(&cargo())
        .args(["test", "--quiet", "--package", "bulkhead-tests", "--test", "isolation"])
        .args(only.map(|id| ["--", id]).into_iter().flatten())
        .env("BULKHEAD_PROGRAM", bin.join("bulkhead"))
        .env("BULKHEAD_DOCKER", setup::docker_cli()?)
        .current_dir(setup::root())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("run cargo test")?;
    let output = child.stdout.take().context("it was piped")?;
    let mut cases = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        cases.extend(Case::read(&line, "isolation "));
    }
    if !child.wait()?.success() && cases.is_empty() {
        let why = Outcome::Failed("it does not build, or says nothing".to_owned());
        cases.push(Case::new("isolation", why));
    }
    Ok(cases)
}

/// Bulkhead's OCI runtime with walls that a test takes away. It does not compile as a release.
pub fn weakened() -> Result<PathBuf> {
    let flags = ["--quiet", "--package", "bulkhead-oci", "--example", "weakened"];
    let status = Command::new(cargo())
        .arg("build")
        .args(flags)
        .args(["--features", "weak", "--message-format", "json"])
        .current_dir(setup::root())
        .stdout(Stdio::piped())
        .spawn()
        .context("run cargo")?
        .wait_with_output()?;
    ensure!(status.status.success(), "the weakened runtime does not build");
    // the last artefact that is a program
    let text = String::from_utf8_lossy(&status.stdout);
    let marker = "\"executable\":\"";
    let found = text.lines().rev().find_map(|line| {
        let (_, rest) = line.split_once(marker)?;
        Some(PathBuf::from(rest.split('"').next()?))
    });
    found.context("cargo names no program")
}

/// Debian 12's runc, unpacked beside the build: it has bugs that have been corrected since.
pub fn old_runtimes() -> Result<PathBuf> {
    let directory = setup::target().join("old-runtimes");
    if !directory.join("usr/sbin/runc").exists() {
        std::fs::create_dir_all(&directory)?;
        let line = "apt-get update -q && apt-get download runc/bookworm && \
                    dpkg -x runc_*.deb . && rm runc_*.deb";
        // what is not to be had is a control less, which its test tells
        let _ = Shell::default().within(&directory).run(line);
    }
    Ok(directory)
}

fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}
