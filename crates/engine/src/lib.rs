//! The container engine: Docker's meaning of containers, images, networks, volumes and events,
//! without HTTP.
//!
//! Crash-only: every decision is a store transaction before it is an effect, and [`Engine::open`]
//! is the one path that both a first start and a recovery take.
//!
//! [`Engine`] is in `engine.rs`; what it does is spread over files named by it (`start.rs`,
//! `control.rs`, `images.rs`, …), and what can be decided without the kernel is in pure ones
//! (`merge.rs`, `mounts.rs`, `restart.rs`, `hosts.rs`, …).
#![forbid(unsafe_code)]

mod attach;
mod cgroups;
mod container;
mod control;
mod copy;
mod create;
mod descriptors;
mod ends;
mod engine;
mod error;
mod events;
mod files;
mod hosts;
mod images;
mod limits;
mod links;
mod log_reader;
mod logs;
mod merge;
mod mounts;
mod names;
mod networking;
mod observe;
mod options;
mod places;
mod pool;
mod ports;
mod recover;
mod restart;
mod retired;
mod security;
mod signals;
mod sources;
mod specification;
mod start;
mod state;
mod step;
mod sysctls;
mod volumes;

pub use container::*;
pub use engine::Engine;
pub use error::{Class, EngineError};
pub use files::{Change, ChangeKind, ContainerFiles};
pub use images::ContentHold;
pub use options::Options;
