//! The warden: the one small process that is the parent of every container.
//!
//! It forks, reaps, writes the logs and the exit records, and holds the ttys. It is synchronous
//! and single-threaded, outlives the engine, and is never restarted while containers run.
#![forbid(unsafe_code)]

mod client;
#[cfg(fuzzing)]
pub mod fuzzing;
mod protocol;
mod serve;
mod wire;

pub use client::{Client, Created, WardenError};
pub use protocol::*;
pub use serve::serve;
