//! The agent of a container instance: takes tasks from the control plane and runs them by the Docker API.
//!
//! Speaks ECS's agent protocol upward (signed HTTP and the ACS websocket) and Docker's API downward, and
//! nothing else, so that it can serve a Docker host too. Each task has an actor that compares what should
//! be with what the engine shows and takes one step at a time; a restart, of the agent or the engine, is
//! no special case. Containers go on running while the agent or the control plane is away.
#![forbid(unsafe_code)]

mod actor;
mod api;
mod connection;
mod create;
mod docker;
mod engine;
mod events;
mod health;
mod instance;
mod options;
mod plan;
mod reports;
#[cfg(test)]
mod scripted;
mod start_timeout;
mod state;
mod supervisor;
mod tasks;

pub use options::{Options, RegistryLogin};
pub use state::StateError;
pub use supervisor::run;
