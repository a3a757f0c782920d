//! Builds on an engine: the context's directory, the containers of RUN, the cache of steps.
//!
//! Between the builder, which knows Dockerfiles and no engine, and the front ends, each of which
//! knows one protocol: a front end unpacks a context into a [`ContextDirectory`], gives what it
//! was asked for as a [`Build`], and words the [`Event`]s that come while [`BuildService::build`]
//! goes.
#![forbid(unsafe_code)]

mod cache;
mod context;
mod credentials;
mod executor;
mod prune;
mod service;

pub use bulkhead_builder::{BuildError, DockerfileSource, Event, Events, Place, Vertex, Warning};
pub use context::{ContextDirectory, ContextError};
pub use credentials::{AskCredentials, CredentialSource};
pub use prune::PruneOptions;
pub use service::{Build, BuildService, Built, ServiceError};
