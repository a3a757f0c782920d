//! Escapes that other runtimes had, by the number they are known under: each is tried on Bulkhead,
//! which stops it, and on a control, where it has to succeed. A control is Bulkhead with the one
//! wall taken away, or an old runtime.
//!
//! Nothing is aimed at the host: what would be written to is a canary beside the bundle.
#![forbid(unsafe_code)]

mod descriptors;
mod identity;
mod kill;
mod links;
mod names;
mod races;
mod settings;

use anyhow::{Result, ensure};
use bulkhead_sys::testing::skip;
use bulkhead_tests::bundle::Runtime;

/// What became of an attack.
#[derive(Debug)]
pub enum Attempt {
    Stopped(String),
    Escaped(String),
}

/// Bulkhead stops it, and the control does not.
pub fn stopped_here(
    name: &str,
    control: Option<Runtime>,
    attack: impl Fn(&Runtime) -> Result<Attempt>,
) -> Result<()> {
    let ours = match attack(&Runtime::bulkhead())? {
        Attempt::Stopped(how) => how,
        Attempt::Escaped(how) => anyhow::bail!("{name}: {how}"),
    };
    let Some(control) = control else {
        skip("the control is not at hand: `cargo xtask test` makes it");
        return Ok(());
    };
    match attack(&control)? {
        Attempt::Escaped(how) => {
            println!("{name}: {}: {how}; bulkhead: {}", control.name, ours.trim());
            Ok(())
        }
        Attempt::Stopped(how) => {
            ensure!(false, "{name}: the control {} stops it as well: {how}", control.name);
            Ok(())
        }
    }
}

/// Names of the entries of a canary directory, which has none unless somebody got out.
pub fn entries(directory: &std::path::Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Judges by a canary directory.
pub fn by_directory(canary: &std::path::Path, said: &bulkhead_tests::Said) -> Result<Attempt> {
    let found = entries(canary)?;
    Ok(if found.is_empty() {
        Attempt::Stopped(format!("status {}: {}", said.code, said.stderr.trim()))
    } else {
        Attempt::Escaped(format!("made {} on the host", found.join(" ")))
    })
}
