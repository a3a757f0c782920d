//! `bulkhead`: an OCI runtime, a Docker-compatible engine, an ECS-compatible scheduler and their
//! console in one program.
//!
//! The warden, the resolver and the OCI runtime are dispatched before the command line is parsed: they are started
//! by other programs, often, and have to be small.
#![forbid(unsafe_code)]

mod address;
mod background;
mod cli;
mod client;
mod commands;
mod configuration;
mod credentials;
mod engine;
mod failure;
mod host;
mod inherited;
mod leftover;
mod listener;
mod log_file;
mod nearest;
mod rows;
mod table;
mod template;
mod terminal;
mod up;
mod usage;

use std::process::ExitCode;

use crate::failure::Failure;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|name| name == "warden") {
        return warden(&arguments[2..]);
    }
    if arguments.get(1).is_some_and(|name| name == "resolver") {
        return resolver(&arguments[2..]);
    }
    if let Some(status) = oci(&arguments) {
        return status;
    }
    // asked by scripts, again and again: all commands' descriptions would take longer than the answer
    if let [_, flag] = arguments.as_slice()
        && ["--version", "-V", "-v"].iter().any(|version| flag == version)
    {
        println!("bulkhead {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let cli = match cli::Cli::read(&arguments) {
        Ok(cli) => cli,
        Err(wrong) => return usage::explain(wrong, &arguments),
    };
    let finished = match cli.command {
        cli::Command::Up(arguments) => up::run(arguments),
        cli::Command::Engine(arguments) => engine::run(arguments),
        _ => {
            bulkhead_sys::signal::end_at_broken_pipes();
            run(cli)
        }
    };
    match finished {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                // it may quote what a stranger has named, on several lines
                let lines = failure.message.trim_end().lines().map(terminal::printable);
                eprintln!("bulkhead: {}", lines.collect::<Vec<_>>().join("\n"));
            }
            ExitCode::from(failure.exit_code)
        }
    }
}

/// `bulkhead oci …`, or the program under the name of a runtime.
fn oci(arguments: &[std::ffi::OsString]) -> Option<ExitCode> {
    let name = std::path::Path::new(arguments.first()?).file_name()?.to_str()?;
    let (name, first) = match name {
        "runc" | "bulkhead-oci" => (name, 1),
        _ if arguments.get(1).is_some_and(|word| word == "oci") => ("bulkhead", 2),
        _ => return None,
    };
    Some(ExitCode::from(bulkhead_oci::main(name, arguments[first..].to_vec())))
}

/// Every command but `up` and `engine` is a client, and needs no more than one thread.
fn run(cli: cli::Cli) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(commands::run(cli))
}

/// `bulkhead resolver --socket PATH`: not for people; the engine starts it.
fn resolver(arguments: &[std::ffi::OsString]) -> ExitCode {
    let [flag, socket] = arguments else {
        eprintln!(
            "usage: bulkhead resolver --socket PATH (the engine starts it; see `bulkhead up`)"
        );
        return ExitCode::FAILURE;
    };
    if flag != "--socket" {
        eprintln!("usage: bulkhead resolver --socket PATH");
        return ExitCode::FAILURE;
    }
    match bulkhead_resolver::serve(std::path::Path::new(socket)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("bulkhead resolver: {cause}");
            ExitCode::FAILURE
        }
    }
}

/// `bulkhead warden --socket PATH`: not for people; the engine starts it.
fn warden(arguments: &[std::ffi::OsString]) -> ExitCode {
    let [flag, socket] = arguments else {
        eprintln!("usage: bulkhead warden --socket PATH (the engine starts it; see `bulkhead up`)");
        return ExitCode::FAILURE;
    };
    if flag != "--socket" {
        eprintln!("usage: bulkhead warden --socket PATH");
        return ExitCode::FAILURE;
    }
    match bulkhead_warden::serve(std::path::Path::new(socket)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            eprintln!("bulkhead warden: {cause}");
            ExitCode::FAILURE
        }
    }
}
