//! A start through the warden, against what the kernel asks for alone.

use anyhow::{Context, Result, ensure};

use crate::setup;
use crate::shell::Shell;

/// `bench start [RUNS]`: the rows of `crates/warden/examples/start`, with the cgroups that this host
/// has and in a view of it that has cgroup v2 alone, at least 20 of each.
pub fn run(arguments: &[&str]) -> Result<()> {
    setup::require_root()?;
    let runs: usize =
        arguments.first().map_or(Ok(40), |runs| runs.parse()).context("the number of runs")?;
    ensure!(runs >= 20, "fewer than 20 runs say nothing");
    let shell = Shell::default();
    let root = setup::root();
    let root = root.display();
    let program = "cargo run --quiet --release --package bulkhead-warden --example start --";
    for how in ["measure", "measure-v2"] {
        // the shell shows what it says
        shell.run(&format!("cd {root} && {program} {how} {runs}"))?;
    }
    Ok(())
}
