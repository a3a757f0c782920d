//! System call filters: Docker's default profile and custom ones, compiled to classic BPF.
//!
//! The compiler is our own. It searches a call's number by halving, so that a filter for three
//! architectures costs at most a dozen steps, and the default profile is compiled once for each
//! set of capabilities in the life of the process: a start pays nothing.
//!
//! A number that no architecture's table knows gets ENOSYS and not EPERM, so that programs fall
//! back from calls which are newer than the profile (runc does the same).

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use bulkhead_sys::seccomp::Instruction;

use crate::{Capabilities, Seccomp};

mod docker;
mod json;
mod profile;
mod program;
mod table;

/// A compiled filter, ready for [`bulkhead_sys::seccomp::install`]. Clones share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub instructions: Arc<[Instruction]>,
}

/// What is wrong with a profile.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    #[error("Decoding seccomp profile failed: {0}")]
    Decode(#[source] serde_json::Error),
    #[error(
        "Decoding seccomp profile failed: invalid kernel version: {0:?}, expected \"<kernel>.<major>\""
    )]
    KernelVersion(String),
    #[error(
        "both 'name' and 'names' are specified in the seccomp profile, use either 'name' or 'names'"
    )]
    NameAndNames,
    #[error(
        "both 'architectures' and 'archMap' are specified in the seccomp profile, use either \
         'architectures' or 'archMap'"
    )]
    ArchitecturesAndMap,
    #[error("seccomp profile: action {0:?} is not supported")]
    Action(String),
    #[error("seccomp profile: operator {0:?} is not supported")]
    Operator(String),
    #[error("seccomp profile: flag {0:?} is not supported")]
    Flag(String),
    #[error("seccomp profile: errno {0} is above 4095")]
    Errno(u32),
    #[error("seccomp profile: a system call has arguments 0 to 5, not {0}")]
    ArgumentIndex(u32),
    #[error("the seccomp profile compiles to {0} instructions, but the kernel takes 4096 at most")]
    TooLong(usize),
}

/// Compiles a profile for a process with these capabilities; `None` is no filter at all.
///
/// # Errors
/// Only for custom profiles.
pub fn compile(
    seccomp: &Seccomp,
    capabilities: Capabilities,
) -> Result<Option<Filter>, SeccompError> {
    match seccomp {
        Seccomp::Unconfined => Ok(None),
        Seccomp::Default => Ok(Some(default_filter(capabilities))),
        Seccomp::Profile(text) => {
            let kernel = rustix::system::uname();
            let release = json::release(&kernel.release().to_string_lossy());
            let Some(profile) = json::parse(text, capabilities, release)? else { return Ok(None) };
            program::assemble(&profile, &table::NATIVE)
                .map(|instructions| Some(Filter { instructions: instructions.into() }))
        }
    }
}

fn default_filter(capabilities: Capabilities) -> Filter {
    static COMPILED: LazyLock<Mutex<HashMap<u64, Filter>>> = LazyLock::new(Mutex::default);
    let relevant = capabilities.intersection(docker::relevant_capabilities());
    // a map of finished filters is whole whatever a panicking thread did
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let filter = compiled.entry(relevant.0).or_insert_with(|| {
        let instructions = program::assemble(&docker::profile(relevant), &table::NATIVE)
            .expect("the default profile is a constant that the tests compile");
        Filter { instructions: instructions.into() }
    });
    filter.clone()
}

#[cfg(test)]
mod tests;
