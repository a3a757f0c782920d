//! The bodies of Docker's Engine API (1.51), as JSON has them: one set of types for the server that
//! reads them and for the clients (the command line, the agent) that write them, and of its answers what
//! clients read.
//!
//! They say nothing about what a value means: that is the engine's, and `docker-api` converts. Go's
//! rules for `null` hold: it is the same as a member that is missing. Members at their zero value
//! are left out when they are written, which is the same to Go's decoder.
#![forbid(unsafe_code)]

mod answers;
mod container;
mod exec;
mod host_config;
mod mount;
mod network;
mod null;
mod volume;

/// A header of refusals beside Docker's own: the exit status, as a decimal number, of a program that
/// could not be started, 126 or 127 (chroot(1), "Exit status"). Docker's clients ignore it and look for
/// words in the message.
pub const START_STATUS: &str = "bulkhead-start-status";

/// A header of refusals beside Docker's own: what is not there, where that is something else than what
/// the path names. `image` is the only value.
pub const MISSING: &str = "bulkhead-missing";

pub use answers::{
    ContainerId, ContainerInspect, ContainerState, EventActor, EventMessage, Health, ImageInspect,
    InspectedConfig, NetworkSettings, Plugins, Progress, SystemInfo,
};
pub use container::{ContainerCreate, Empty, Healthcheck, Words};
pub use exec::{ExecCreate, ExecStart};
pub use host_config::{
    Device, HostConfig, LogConfig, PortBinding, RestartPolicy, ThrottleDevice, Ulimit, WeightDevice,
};
pub use mount::{BindOptions, DriverConfig, Mount, TmpfsOptions, VolumeOptions};
pub use network::{
    EndpointIpam, EndpointSettings, Ipam, IpamPool, NetworkConnect, NetworkCreate,
    NetworkDisconnect, NetworkingConfig,
};
pub use volume::VolumeCreate;
