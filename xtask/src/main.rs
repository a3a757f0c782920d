//! `cargo xtask`: what developers of Bulkhead run. `cargo xtask` alone lists the commands.
#![forbid(unsafe_code)]

mod bench;
mod clients;
mod demo;
mod layers;
mod setup;
mod shell;
mod test;
mod vm;
mod walkthrough;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  demo            set up this machine, build Bulkhead and run the SecurityApp walk-through; leave it running
  demo --down     remove every trace of it
  test [PART …]   everything that is tested: format lint unit clients walkthrough vm (default: all)
  bench run       `run --rm` of a no-op: bulkhead, and the docker CLI against Bulkhead and Docker
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let finished = match words.as_slice() {
        ["demo"] => demo::up(),
        ["demo", "--down"] => demo::down(),
        ["test", parts @ ..] => test::run(parts),
        ["bench", "run", rest @ ..] => bench::run(rest),
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
