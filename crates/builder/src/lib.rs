//! Dockerfiles: parsed, turned into a graph of operations, run with a cache into an image.
//!
//! Running a step is the engine's work, behind [`Executor`]; this crate decides what runs, and
//! tells it as [`Event`]s that front ends put into words. The way through it: `parse` cuts the
//! text into lines, `instruction` says what each means, `plan` which stages are needed, `graph`
//! which operations they are, with digests and inputs, and `build` runs them; `state` holds what
//! an image is so far, `copy` makes the layers of COPY and ADD, reading lower layers and the
//! context through `view`.
#![forbid(unsafe_code)]

mod build;
mod cache;
mod change;
mod copy;
mod error;
mod event;
mod expand;
mod flags;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod graph;
mod ignore;
mod instruction;
mod owner;
mod parse;
mod plan;
mod request;
mod state;
mod view;

pub use build::{build, check};
pub use cache::{Cache, CachedStep};
pub use change::change;
pub use error::BuildError;
pub use event::{Event, Events, Place, Vertex, Warning};
pub use request::{BuildRequest, DockerfileSource, Executor, Fetched, Pull};
