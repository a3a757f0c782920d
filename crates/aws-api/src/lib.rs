//! The AWS-compatible edge: ECS, and as much of STS and EC2 as its clients need, over signed HTTP.
//!
//! One port serves all services, as the credential scope of the signature says which is meant. Agents
//! come in by the same port: their websockets (ACS for orders, TCS for metrics) are signed alike.
#![forbid(unsafe_code)]

pub mod acs;
mod acs_server;
mod answer;
mod authentication;
mod ecs_operations;
mod query;
mod server;
pub mod sigv4;
mod tcs_server;

pub use authentication::AccessKeys;
pub use server::router;
