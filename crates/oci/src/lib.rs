//! The OCI runtime's command line: `create`, `start` and their kin, as `containerd`, `dockerd` and
//! `podman` call a runtime.
//!
//! A container is a directory below `--root` that holds its record, a copy of its `config.json` and,
//! until it is started, the socket on which [`start`](commands) calls. No process of ours stays
//! behind: what a command needs to know it reads from there.
#![forbid(unsafe_code)]

mod adapt;
mod arguments;
mod caller;
mod commands;
mod console;
mod control_group;
mod devices;
mod directory;
mod error;
mod foreground;
#[cfg(fuzzing)]
pub mod fuzzing;
mod handshake;
mod hooks;
mod id_maps;
mod inbox;
mod launch;
mod list;
mod listener;
mod log;
mod net_devices;
mod rdt;
mod record;
mod seal;
mod security;
mod sources;
mod usage;

use std::ffi::OsString;

pub use caller::default_root;
pub use error::{Error, Result};
pub use list::{Listed, containers};

/// Runs one command and returns the exit status of the process.
///
/// `arguments` come after the program's name (or after `bulkhead oci`); `name` is what messages
/// call the program. Must be called before the process has a second thread: it forks.
pub fn main(name: &str, arguments: Vec<OsString>) -> u8 {
    let (log, result) = match arguments::Global::parse(arguments) {
        Ok(arguments::Parsed::Answer(text)) => {
            // a closed stdout leaves nobody to tell
            let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
            return 0;
        }
        Ok(arguments::Parsed::Command(global, command)) => {
            let log = log::Log::open(&global);
            let result = match &log {
                Ok(log) => commands::run(&global, command, log),
                Err(_) => Ok(1),
            };
            match log {
                Ok(log) => (log, result),
                Err(error) => (log::Log::standard_error(), Err(error)),
            }
        }
        Err(error) => (log::Log::standard_error(), Err(error)),
    };
    match result {
        Ok(status) => status,
        Err(error) => {
            log.fail(name, &error);
            error.exit_status()
        }
    }
}
