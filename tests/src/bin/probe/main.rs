//! What is to be seen and done from inside a container, tried by raw calls: one line of JSON each.
//!
//! `facts` tries everything that needs no partner; the other words are parts of single cases. No
//! attempt would change the host where it succeeds: what stands for a setting is only opened.
#![forbid(unsafe_code)]

mod act;
mod calls;
mod files;
mod race;

use std::process::ExitCode;

use bulkhead_sys::testing::name;
use rustix::io::Errno;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    // some of it would be felt where it is not meant to run
    if !std::path::Path::new("/.probe-root").exists() {
        eprintln!("probe: this is not a container of the isolation suite");
        return ExitCode::FAILURE;
    }
    let done = match words.as_slice() {
        ["facts"] => {
            calls::tell();
            files::tell();
            Ok(())
        }
        ["sweep"] => calls::sweep(),
        ["race"] => race::run(),
        [verb, rest @ ..] => act::run(verb, rest),
        [] => Err("a word is missing".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("probe: {reason}");
            ExitCode::from(2)
        }
    }
}

/// Prints one fact.
pub fn say(check: &str, result: impl std::fmt::Display) {
    println!("{}", serde_json::json!({ "check": check, "result": result.to_string() }));
}

/// `ok`, or the errno's name.
pub fn outcome<T>(result: Result<T, Errno>) -> String {
    result.map_or_else(name, |_| "ok".to_owned())
}

/// The same of what the standard library says.
pub fn io_outcome<T>(result: std::io::Result<T>) -> String {
    outcome(result.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)))
}
