//! Speed as ratios against Docker, in one run on one machine.

pub mod many;
pub mod network;
pub mod oci;
pub mod probe;
pub mod run;
mod side_by_side;
pub mod start;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::setup;

/// Sorts, and takes the middle.
fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The script that installs the newest Docker and its kin beside the machine's own programs.
fn peers() -> Result<PathBuf> {
    let path = std::env::var_os("BULKHEAD_PEERS")
        .map_or_else(|| setup::root().join("../shared/tools/peers"), PathBuf::from);
    path.canonicalize()
        .with_context(|| format!("{} is not there: set BULKHEAD_PEERS", path.display()))
}

fn tempdir() -> Result<PathBuf> {
    let path = PathBuf::from(format!("/var/tmp/bulkhead-bench-{}", std::process::id()));
    std::fs::create_dir_all(&path)?;
    Ok(path)
}
