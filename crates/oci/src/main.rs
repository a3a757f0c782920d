//! `bulkhead-oci`: the runtime's command line without the rest of Bulkhead, which has the same as
//! `bulkhead oci`.
//!
//! A runtime is executed for every container and every `exec`, most often to live for some
//! milliseconds. Then what a program costs is its own size: the pages that its start touches, which
//! for the whole of Bulkhead are several times those of its work.
#![forbid(unsafe_code)]

use std::process::ExitCode;

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    // so that one command line serves both programs
    if arguments.first().is_some_and(|word| word == "oci") {
        arguments.remove(0);
    }
    ExitCode::from(bulkhead_oci::main("bulkhead", arguments))
}
