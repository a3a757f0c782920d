//! What people wait for, as ratios against Docker: `run --rm`, `exec`, fifty at once, `rm -f`.

use anyhow::{Context, Result, ensure};

use super::side_by_side::{Engines, Mark, Operation, print_head};

const IMAGE: &str = "bulkhead-bench-noop";
/// The container that `exec` enters.
const RUNNING: &str = "bulkhead-bench-running";
/// The one that is made to be removed.
const REMOVED: &str = "bulkhead-bench-removed";
const PARALLEL: usize = 50;

/// `bench run [RUNS]`: each operation by each client, in turns, at least 20 of each; of fifty at once
/// a fifth as many.
pub fn run(arguments: &[&str]) -> Result<()> {
    let runs: usize =
        arguments.first().map_or(Ok(25), |runs| runs.parse()).context("the number of runs")?;
    ensure!(runs >= 20, "fewer than 20 runs say nothing");
    Engines::with(|engines| {
        let measured = compare(engines, runs);
        // Docker's outlives this run.
        for line in [format!("rm -f {RUNNING} {REMOVED}"), format!("rmi {IMAGE}")] {
            let _ = engines.ways[0].command(&line).output();
        }
        measured
    })
}

fn operations(runs: usize) -> [Operation; 4] {
    let run = format!("run --rm {IMAGE} /bin/true");
    let exec = format!("exec {RUNNING} /bin/true");
    [
        Operation::new("run --rm", &[&run], runs, [Mark::Ratio(8.0), Mark::Ratio(25.0)]),
        Operation::new("exec", &[&exec], runs, [Mark::None, Mark::Ratio(15.0)]),
        Operation {
            at_once: PARALLEL,
            ..Operation::new(
                &format!("{PARALLEL} × run --rm"),
                &[&run],
                runs.div_ceil(5),
                [Mark::Ratio(9.0), Mark::Ratio(12.0)],
            )
        },
        Operation {
            before: vec![format!("run -d --name {REMOVED} {IMAGE} /bin/sleep 1000")],
            ..Operation::new(
                "rm -f",
                &[&format!("rm -f {REMOVED}")],
                runs,
                [Mark::None, Mark::Milliseconds(10.0)],
            )
        },
    ]
}

fn compare(engines: &Engines, runs: usize) -> Result<()> {
    for way in engines.by_docker() {
        let shell = engines.shell.clone().with("DOCKER_HOST", &way.host);
        shell.run(&format!("{} busybox {IMAGE}", engines.peers.display()))?;
        let _ = way.command(&format!("rm -f {RUNNING} {REMOVED}")).output();
        way.run(&format!("run -d --name {RUNNING} {IMAGE} /bin/sleep 100000"), 1)?;
    }
    print_head("A no-op on the default bridge");
    for operation in operations(runs) {
        engines.compare(&operation, &engines.ways)?;
    }
    Ok(())
}
