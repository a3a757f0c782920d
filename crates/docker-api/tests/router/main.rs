//! The router with a real engine behind it, driven by requests without a socket: what needs no client.
//!
//! Every case is a process of its own in a network and mount namespace of its own, with its own data
//! directory, cgroup parent and warden; this program starts itself as each of them. At the end of each
//! nothing may be left.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_types, reason = "a test starts itself")]

mod cases;
mod rig;

use std::panic::AssertUnwindSafe;
use std::process::{Command, ExitCode, Stdio};

use futures_util::FutureExt;
use rig::Rig;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["warden", "--socket", socket] => match bulkhead_warden::serve(socket.as_ref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("warden: {error}");
                ExitCode::FAILURE
            }
        },
        ["--exact", name] => one(name),
        rest => all(rest),
    }
}

/// Runs the cases whose name holds any of the filters.
fn all(arguments: &[&str]) -> ExitCode {
    let filters: Vec<&&str> = arguments.iter().filter(|it| !it.starts_with('-')).collect();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|it| name.contains(**it));
    let mut failed = 0;
    for (name, _) in cases::ALL.iter().filter(|(name, _)| wanted(name)) {
        if arguments.contains(&"--list") {
            println!("{name}: test");
            continue;
        }
        let mut itself = Command::new(std::env::current_exe().expect("/proc is mounted"));
        let status = itself.args(["--exact", name]).stdin(Stdio::null()).status();
        failed += usize::from(!status.expect("this program can be started").success());
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(name: &str) -> ExitCode {
    let Some((_, case)) = cases::ALL.iter().find(|(own, _)| *own == name) else {
        eprintln!("there is no test {name}");
        return ExitCode::FAILURE;
    };
    if !std::path::Path::new("/bin/busybox").exists() {
        bulkhead_sys::testing::skip("/bin/busybox (busybox-static) is not installed");
        return ExitCode::SUCCESS;
    }
    // Before there is any other thread: all of them, and the warden, are to be inside.
    rig::enter_own_namespaces();
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let passed = runtime.block_on(async {
        let rig = Rig::new().await;
        let passed = AssertUnwindSafe(case(&rig)).catch_unwind().await.is_ok();
        rig.done().await && passed
    });
    println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
