//! `cargo xtask`: what developers of Bulkhead run. `cargo xtask` alone lists the commands.
#![forbid(unsafe_code)]

mod bench;
mod chaos;
mod circles;
mod clients;
mod compose;
mod demo;
mod isolation;
mod layers;
mod setup;
mod shell;
mod tally;
mod target;
mod test;
mod vm;
mod walkthrough;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  build           build the program for use, and the runtime's small one; say where they are
  demo            set up this machine, build Bulkhead and run the SecurityApp walk-through; leave it running
  demo --down     remove every trace of it
  check           what a change needs first, without root: format, lints, layers, the crates' own tests
  try [FLAG …]    the Rust tests that `cargo test FLAG …` would run, each in a process of its own
  test [PART …]   everything that is tested: format lint unit small isolation clients walkthrough chaos vm;
                  compose by name alone: projects of Docker Compose, with what they show on Docker
  compose [--docker | --record] [CASE …]
                  some of them: on Bulkhead, on Docker, or what Docker shows written down
  test chaos [--rounds N] [--seed N]
                  kill the engine at every failpoint under load, fill its disk, and compare
  bench run       `run --rm`, `exec`, fifty at once, `rm -f`: bulkhead, and the docker CLI against Bulkhead and Docker
  bench oci [--rounds N] [--format json] [--bulkhead FILE]
                  a no-op by `bulkhead oci`, crun and runc: run, exec, create, memory, system calls
  bench many [N]  with N containers running, 1000 unless said: the next start, ps, memory, engine start
  bench network   networks beside Docker's: create, run, Compose, throughput, latency, names, published ports
  bench start     a start through the warden, against overlay, mounts and exec alone; cgroup v1 and v2
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let finished = match words.as_slice() {
        ["build"] => build(),
        ["demo"] => demo::up(),
        ["demo", "--down"] => demo::down(),
        ["compose", words @ ..] => compose::run(words),
        ["try", flags @ ..] => test::rust::try_some(flags),
        ["check"] => test::check(),
        ["test", "chaos", flags @ ..] => chaos::run(flags),
        // in the namespaces of the one above
        ["chaos-inside", rest @ ..] => chaos::inside(rest),
        ["test", parts @ ..] => test::run(parts),
        // between the runner and each test
        ["one-test", rest @ ..] => match test::process::one_test(rest) {
            Ok(code) => return code,
            Err(cause) => Err(cause),
        },
        ["bench", "run", rest @ ..] => bench::run::run(rest),
        ["bench", "oci", rest @ ..] => bench::oci::run(rest),
        ["bench", "many", rest @ ..] => bench::many::run(rest),
        ["bench", "network", rest @ ..] => bench::network::run(rest),
        // in the containers of the one above
        ["bench", "probe", rest @ ..] => bench::probe::run(rest),
        ["bench", "start", rest @ ..] => bench::start::run(rest),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match finished {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("xtask: {cause:#}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> anyhow::Result<()> {
    let (host, musl) = (target::host()?, target::musl()?);
    for (package, profile, target) in
        [("bulkhead", "release", &host), ("bulkhead-oci", "small", &musl)]
    {
        println!("{}", setup::build(package, profile, target)?.join(package).display());
    }
    Ok(())
}
