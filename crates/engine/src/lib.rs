//! The container engine: Docker's meaning of containers, images, networks, volumes and events,
//! without HTTP.
//!
//! Crash-only: every decision is a store transaction before it is an effect, and [`Engine::open`]
//! is the one path that both a first start and a recovery take.
//!
//! [`Engine`] is in `engine.rs`, and each verb in a file of its name below (`engine/start.rs`,
//! `engine/stop.rs`, …). It stands on components that know nothing of it and own their lock, their
//! part of the records and their recovery (`containers.rs`, `images.rs`, `networks.rs`, `volumes.rs`,
//! `execs.rs`, `build_cache.rs`); what can be decided without the kernel is in pure files
//! (`image_defaults.rs`, `mount_requests.rs`, `restart.rs`, `hosts.rs`, …).
#![forbid(unsafe_code)]

mod address_pool;
mod allocation;
mod attached_network;
mod attachment;
mod bind;
mod blocking;
mod build_cache;
mod cgroups;
mod clone_mount;
mod confinement;
mod container;
mod containers;
mod copy;
mod data_dir;
mod default_network;
mod deferred_teardown;
mod descriptors;
mod device_nodes;
mod endpoint;
mod engine;
mod error;
mod events;
mod exclusive;
mod execs;
mod extra_host;
mod file_system;
mod free_ranges;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod health;
mod hosts;
mod image_defaults;
mod image_records;
mod images;
mod limits;
mod link;
mod links;
mod log_budget;
mod log_changes;
mod log_options;
mod log_reader;
mod marks;
mod modes;
mod mount_requests;
mod mount_sources;
mod mounts;
mod name_servers;
mod name_service;
mod names;
mod namespaces;
mod network;
mod network_options;
mod networks;
mod options;
mod parent_links;
mod port_request;
mod ports;
mod presence;
mod ps;
mod published;
mod records;
mod repeated;
mod resolv_conf;
mod restart;
mod security;
mod settings;
mod shared_memory;
mod shipping;
mod signals;
mod subnet;
mod sysctls;
mod text;
mod tmpfs_options;
mod transaction;
mod ulimits;
mod user_ids;
mod validate;
mod volume_mounts;
mod volumes;

pub use attachment::{Addresses, Attachment, NetworkStack, Networking, PortBinding};
pub use bind::Bind;
pub use build_cache::{CacheEntry, CachedStep, PrunedCache};
pub use bulkhead_logs::AwsEnvironment;
pub use container::*;
pub use containers::ContainerSnapshot;
pub use endpoint::EndpointConfig;
pub use engine::{
    BuildCache, Change, ChangeKind, ContainerAction, ContainerFiles, ContainerSize, Engine,
    ImageAction,
};
pub use error::{Class, EngineError, Kind};
pub use extra_host::{ExtraHost, HostAddress};
pub use health::{Health, HealthResult, HealthStatus, ON_FAILURE_LABEL, OnFailure};
pub use images::{ContentHold, Images};
pub use link::Link;
pub use log_options::{LogDriver, LogOptions};
pub use modes::{CgroupnsMode, IpcMode, NetworkMode, PidMode, UsernsMode, UtsMode};
pub use mounts::*;
pub use network::{CreateNetwork, Network, NetworkDriver, PoolRequest, SubnetPools};
pub use network_options::BridgeOptions;
pub use networks::{NetworkEndpoint, NetworkView};
pub use options::{DefaultIpv6, DefaultNetwork, Options};
pub use parent_links::{ParentLinks, ParentRequest};
pub use port_request::PortRequest;
pub use ps::Column;
pub use repeated::{Isolation, RuntimeName};
pub use restart::RestartPolicy;
pub use security::SecurityOptions;
pub use settings::{ContainerDefaults, Settings};
pub use subnet::{Address, Pool, Subnet};
pub use tmpfs_options::TmpfsOptions;
pub use ulimits::Ulimit;
pub use volume_mounts::DriverOptions;
pub use volumes::Volumes;
