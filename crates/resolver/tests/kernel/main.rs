//! The resolver against the real kernel: this program runs itself as the resolver, and its clients
//! ask from network namespaces of their own.
#![allow(clippy::unwrap_used)] // a test without the harness, so not known to be one

use std::panic::catch_unwind;
use std::path::Path;
use std::process::ExitCode;

mod cases;
mod fixture;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, resolver, flag, socket] = arguments.as_slice()
        && (resolver.as_str(), flag.as_str()) == ("resolver", "--socket")
    {
        return match bulkhead_resolver::serve(Path::new(socket)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    let exact = arguments.iter().any(|word| word == "--exact");
    let filter = arguments.iter().skip(1).find(|word| !word.starts_with('-'));
    let wanted = |name: &str| {
        filter.is_none_or(|filter| name == filter || (!exact && name.contains(filter.as_str())))
    };
    let cases: Vec<_> = cases::ALL.iter().filter(|(name, _)| wanted(name)).collect();
    if arguments.iter().any(|word| word == "--list") {
        cases.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if !rustix::process::geteuid().is_root() {
        bulkhead_sys::testing::skip("network namespaces need root");
        return ExitCode::SUCCESS;
    }
    let mut bad = 0;
    for (name, case) in &cases {
        let passed = catch_unwind(case).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        bad += usize::from(!passed);
    }
    let word = if bad == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {} passed; {bad} failed; 0 ignored", cases.len() - bad);
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
