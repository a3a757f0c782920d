//! The resolver: the one small process that answers the names of all user-defined networks.
//!
//! It listens inside the containers, on sockets that the engine opened in their network namespaces,
//! and outlives the engine. What the networks do not know it asks of other servers. It is synchronous,
//! has one thread and no privileges. Should it die, another one goes on with the copies of the
//! sockets that the engine keeps.
#![forbid(unsafe_code)]

mod cache;
mod client;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod hello;
mod local;
mod protocol;
mod query;
mod raw;
mod schedule;
mod serve;
mod wire;
mod zones;

pub use client::{Client, ResolverError};
pub use protocol::*;
pub use serve::serve;
