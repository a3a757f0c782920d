//! System call filters: Docker's default profile and those of others, compiled to classic BPF.
//!
//! The compiler is our own. It searches a call's number by halving, so that a filter for three
//! architectures costs at most a dozen steps, and the default profile is compiled when Bulkhead is
//! built, for the usual sets of capabilities. Docker's profile as it stands in a `config.json` takes
//! 20 µs, and 60 µs at the first time in a process, where libseccomp takes milliseconds: a [`Cache`]
//! on disk saves little (examples/seccomp_cost.rs measures all three).
//!
//! A program does what runc's would, libseccomp's with a stub in front. The tests run both on every
//! number and at every boundary of the arguments. The differences are these, and on purpose:
//!
//! - A number that no architecture's table knows gets ENOSYS and not EPERM, so that programs fall
//!   back from calls that are newer than the profile, unless the profile's default lets them
//!   through. runc does so above the greatest number that the profile names, even to calls that it
//!   could know to be old; libseccomp itself does not.
//! - `socketcall(SYS_SOCKET)` is closed where `socket` depends on its arguments
//!   ([`CompileOptions::close_socketcall`]).
//! - An argument of `socket`, `socketpair` or `personality` that the kernel takes as an `int` is
//!   compared as one: to libseccomp, on 64-bit architectures, 2^32 + AF_VSOCK is not AF_VSOCK.
//! - Where rules contradict each other, that is, have different actions and can hold at once: ours
//!   come in libseccomp's order, by argument, kind of comparison and value, the shorter of two first.
//!   libseccomp refuses some such profiles, and joins the high halves of several ordered comparisons
//!   in a way that depends on the order in which they came.
//! - libseccomp 2.5 has two mistakes that ours has not: with several rules with conditions on one
//!   64-bit call it may compare a half of an argument that it has loaded for an earlier rule, and in
//!   a profile of up to 32 calls that allows x32 it may forget to load the call's number.
//! - An architecture that is not this machine's is accepted and changes nothing. libseccomp adds code
//!   that is never reached, and refuses big-endian ones on a little-endian machine.
//! - An errno above 4,095 is refused, where the kernel would lower it. One with an action that has
//!   none is refused as the specification asks, and by crun; runc ignores it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use bulkhead_sys::seccomp::{Flags, Instruction};

use crate::{Capabilities, Seccomp, capabilities};

pub use cache::Cache;
pub use features::features;
pub use oci::CompileOptions;

mod cache;
mod docker;
mod features;
pub mod interpreter;
mod json;
mod names;
mod oci;
mod outcome;
mod profile;
mod program;
mod table;

/// A compiled filter, ready for [`bulkhead_sys::seccomp::install`]. Clones share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    pub instructions: Arc<[Instruction]>,
    pub flags: Flags,
    /// Some calls are answered by a listener: the filter has to be installed with
    /// [`bulkhead_sys::seccomp::install_with_listener`], else these calls are ENOSYS.
    pub listener: bool,
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
    #[error("seccomp profile: architecture {0:?} is not supported")]
    Architecture(String),
    #[error("seccomp profile: operator {0:?} is not supported")]
    Operator(String),
    #[error("seccomp profile: flag {0:?} is not supported")]
    Flag(String),
    #[error("seccomp profile: errno {0} is above 4095")]
    Errno(u32),
    #[error("seccomp profile: an errno is specified for action {0:?}, which has none")]
    ErrnoOfAction(String),
    #[error("seccomp profile: a system call has arguments 0 to 5, not {0}")]
    ArgumentIndex(u32),
    #[error(
        "seccomp profile: system call {0:?} is not known to any architecture: correct its name, or \
         leave out the annotation run.oci.seccomp_fail_unknown_syscall to have it passed over"
    )]
    UnknownCall(String),
    #[error("seccomp profile: empty string is not a valid syscall")]
    EmptyName,
    #[error("SCMP_ACT_NOTIFY cannot be used as default action")]
    NotifyDefault,
    #[error("SCMP_ACT_NOTIFY cannot be used for the write syscall")]
    NotifyWrite,
    #[error("seccomp listenerPath is not set, but the profile has SCMP_ACT_NOTIFY")]
    NoListener,
    #[error("the seccomp profile compiles to {0} instructions, but the kernel takes 4096 at most")]
    TooLong(usize),
}

/// Compiles a profile for a process with these capabilities; `None` is no filter at all.
///
/// Custom profiles are those of `docker run --security-opt seccomp=FILE`; the hole of `socketcall`
/// is closed in them too.
///
/// # Errors
/// Only for custom profiles.
pub fn compile(
    seccomp: &Seccomp,
    capabilities: Capabilities,
) -> Result<Option<Compiled>, SeccompError> {
    match seccomp {
        Seccomp::Unconfined => Ok(None),
        Seccomp::Default => Ok(Some(default_filter(capabilities, 0))),
        Seccomp::WithoutPackets => Ok(Some(default_filter(capabilities, docker::PACKETS_CLOSED))),
        Seccomp::Profile(text) => {
            let kernel = rustix::system::uname();
            let release = json::release(&kernel.release().to_string_lossy());
            let Some(profile) = json::parse(text, capabilities, release)? else { return Ok(None) };
            assemble(&profile).map(Some)
        }
    }
}

/// Compiles a profile of `config.json`; `None` if it has neither a default action nor a rule, which
/// is no filter.
///
/// Names of unknown calls are ignored, as runc does; [`refuse_unknown_calls`] is for who minds.
pub fn compile_oci(
    seccomp: &bulkhead_types::oci::Seccomp,
    options: CompileOptions,
) -> Result<Option<Compiled>, SeccompError> {
    let (flags, listener) = oci::installation(seccomp)?;
    let Some(profile) = oci::profile(seccomp, options, table::NATIVE)? else { return Ok(None) };
    Ok(Some(Compiled { flags, listener, ..assemble(&profile)? }))
}

/// Finds fault with a profile that names a call which no architecture has: one that is misspelt, or
/// newer than this program.
pub fn refuse_unknown_calls(seccomp: &bulkhead_types::oci::Seccomp) -> Result<(), SeccompError> {
    let mut names = seccomp.syscalls.iter().flat_map(|entry| &entry.names);
    match names.find(|name| !names::is_call(name)) {
        Some(name) => Err(SeccompError::UnknownCall(name.clone())),
        None => Ok(()),
    }
}

fn assemble(profile: &profile::Profile) -> Result<Compiled, SeccompError> {
    let program = program::assemble(profile, table::NATIVE).map_err(SeccompError::TooLong)?;
    Ok(Compiled { instructions: program.into(), flags: Flags::NONE, listener: false })
}

include!(concat!(env!("OUT_DIR"), "/docker.rs"));

/// Finds the program that the build made, else makes one, once in the life of the process.
fn default_filter(capabilities: Capabilities, variant: u32) -> Compiled {
    static COMPILED: LazyLock<Mutex<HashMap<u32, Compiled>>> = LazyLock::new(Mutex::default);
    let has = |name: &str| capabilities::parse(name).is_some_and(|bit| capabilities.has(bit));
    let relevant = docker::relevant(has) | variant;
    // a map of finished filters is whole whatever a panicking thread did
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let filter = compiled.entry(relevant).or_insert_with(|| {
        let ready = PRECOMPILED.iter().find(|(capabilities, _)| *capabilities == relevant);
        match ready {
            Some((_, program)) => {
                Compiled { instructions: (*program).into(), flags: Flags::NONE, listener: false }
            }
            None => assemble(&docker::profile(table::NATIVE, relevant))
                .expect("the default profile is a constant that the tests compile"),
        }
    });
    filter.clone()
}

#[cfg(test)]
mod tests;
