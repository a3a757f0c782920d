//! Dockerfiles: parsed, turned into a graph of stages and steps, run with a cache into an image.
//!
//! Running a step is the engine's work, behind [`Executor`]; this crate decides what runs. The
//! way through it: `parse` cuts the text into lines, `instruction` says what each means, `plan`
//! which stages are needed, `build` walks them; `state` holds what an image is so far, `copy`
//! makes the layers of COPY and ADD, reading lower layers and the context through `view`.
#![forbid(unsafe_code)]

mod build;
mod cache;
mod copy;
mod error;
mod expand;
mod flags;
mod glob;
mod ignore;
mod instruction;
mod owner;
mod parse;
mod plan;
mod request;
mod state;
mod view;

pub use build::build;
pub use cache::{Cache, CachedStep};
pub use error::BuildError;
pub use request::{BuildRequest, Executor, Output, RunStep};
