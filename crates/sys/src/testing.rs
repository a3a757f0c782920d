//! For the tests of every crate: a test that the machine cannot run is skipped, and counted.

use std::io::Write;

/// Says that the running test could not be done here. Use as `return skip("no cgroup v2")`.
///
/// The line goes to the file that `BULKHEAD_SKIPPED` names, which `cargo xtask test` counts, so
/// that a missing kernel feature never looks like a pass.
pub fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    eprintln!("skipped {test}: {reason}");
    if let Some(path) = std::env::var_os("BULKHEAD_SKIPPED") {
        let line = format!("{test}: {reason}\n");
        let written = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        written.expect("the list of skipped tests can be written");
    }
}
