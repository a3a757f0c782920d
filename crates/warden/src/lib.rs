//! The warden: the one small process that is the parent of every container.
//!
//! It forks, reaps, writes the logs, and holds the ttys and the exit codes. It is synchronous and
//! single-threaded, and outlives the engine. Should it die, another one goes on by the descriptors
//! that the engine keeps ([`Client::adopt`]).
#![forbid(unsafe_code)]

mod client;
#[cfg(fuzzing)]
pub mod fuzzing;
mod hello;
mod protocol;
mod serve;
mod wire;

pub use client::{Client, Created, Handover, PastOutput, UnfinishedLog, WardenError};
pub use protocol::*;
pub use serve::serve;
