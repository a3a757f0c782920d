//! The container engine: Docker's meaning of containers, images, networks, volumes and events,
//! without HTTP.
//!
//! Crash-only: every decision is a store transaction before it is an effect, and [`Engine::open`]
//! is the one path that both a first start and a recovery take.
//!
//! [`Engine`] is in `engine.rs`; what it does is spread over files named by it (`start.rs`,
//! `stop.rs`, `images.rs`, …), and what can be decided without the kernel is in pure ones
//! (`image_defaults.rs`, `mount_requests.rs`, `restart.rs`, `hosts.rs`, …).
#![forbid(unsafe_code)]

mod address_pool;
mod addresses;
mod allocation;
mod attach;
mod attachment;
mod blocking;
mod build_cache;
mod build_step;
mod cgroups;
mod changes;
mod container;
mod containers;
mod content;
mod copy;
mod create;
mod data_dir;
mod deferred_teardown;
mod descriptors;
mod device_nodes;
mod engine;
mod error;
mod etc_files;
mod events;
mod exclusive;
mod execs;
mod exit;
mod files;
mod hosts;
mod image_defaults;
mod image_records;
mod images;
mod info;
mod kill;
mod limits;
mod links;
mod log_changes;
mod log_options;
mod log_reader;
mod logs;
mod marks;
mod modes;
mod mount_requests;
mod mount_sources;
mod mounts;
mod names;
mod namespaces;
mod networks;
mod oom;
mod options;
mod pause;

mod ports;
mod records;
mod recover;
mod remove;
mod rename;
mod restart;
mod security;
mod settle;
mod signals;
mod sizes;
mod specification;
mod start;
mod stats;
mod stop;
mod sysctls;
mod text;
mod top;
mod transaction;
mod ulimits;
mod update;
mod user_ids;
mod validate;
mod volume_mounts;
mod volumes;
mod wait;
mod warden_death;

pub use attachment::{Addresses, Attachment, NetworkStack, Networking};
pub use build_cache::{BuildCache, CacheEntry, CachedStep, PrunedCache};
pub use changes::{Change, ChangeKind};
pub use container::*;
pub use engine::Engine;
pub use error::{Class, EngineError, Kind};
pub use events::{ContainerAction, ImageAction};
pub use files::ContainerFiles;
pub use hosts::{ExtraHost, HostAddress};
pub use images::{ContentHold, Images};
pub use links::Link;
pub use log_options::{LogDriver, LogOptions};
pub use modes::{CgroupnsMode, IpcMode, NetworkMode, PidMode, UsernsMode, UtsMode};
pub use mounts::*;
pub use options::Options;
pub use restart::RestartPolicy;
pub use security::SecurityOptions;
pub use sizes::ContainerSize;
pub use ulimits::Ulimit;
pub use volume_mounts::DriverOptions;
pub use volumes::Volumes;
