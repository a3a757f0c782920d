//! The warden against the real kernel: this program runs itself as the warden.
#![allow(clippy::unwrap_used)] // a test without the harness, so not known to be one
#![allow(clippy::disallowed_types, reason = "a test calls other programs as users do")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

mod cases;
mod fixture;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, warden, flag, socket] = arguments.as_slice()
        && (warden.as_str(), flag.as_str()) == ("warden", "--socket")
    {
        return match bulkhead_warden::serve(Path::new(socket)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    if let [_, client, directory] = arguments.as_slice()
        && client == "client"
    {
        cases::client(Path::new(directory));
    }
    if let [_, connect, name] = arguments.as_slice()
        && connect == "abstract"
    {
        return cases::connect_to_abstract(name);
    }
    let exact = arguments.iter().any(|word| word == "--exact");
    let nofile = rustix::process::Resource::Nofile;
    let limit = rustix::process::getrlimit(nofile);
    let usual = rustix::process::Rlimit { current: Some(fixture::USUAL_DESCRIPTORS), ..limit };
    rustix::process::setrlimit(nofile, usual).unwrap();
    let listing = arguments.iter().any(|it| it == "--list");
    let filter = arguments.iter().skip(1).find(|it| !it.starts_with('-'));
    let cases: Vec<_> = cases::all()
        .filter(|(name, _)| {
            filter.is_none_or(|filter| name == filter || (!exact && name.contains(filter.as_str())))
        })
        .collect();
    if listing {
        cases.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((name, case)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let passed = std::thread::scope(|scope| {
                        let thread = std::thread::Builder::new().name((*name).to_owned());
                        let case = AssertUnwindSafe(case);
                        let run = move || catch_unwind(|| (case.0)()).is_ok();
                        thread.spawn_scoped(scope, run).unwrap().join().unwrap_or(false)
                    });
                    println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
                    if !passed {
                        failed.lock().unwrap().push(*name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    let (all, bad) = (cases.len(), failed.len());
    let word = if bad == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {} passed; {bad} failed; 0 ignored", all - bad);
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
