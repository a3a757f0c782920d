//! From a resolved container specification to a running process: the plan, cgroups, seccomp.
//!
//! [`ContainerSpec`] and [`ProcessSpec`] say what is wanted, [`Plan`] is the same as a list of
//! kernel steps: plain bytes plus file descriptors that a child walks after `clone3`, without
//! locks or logs. It allocates only to read `/etc/passwd`, to make mount points and to run hooks, and its
//! parents, the warden and the commands of the OCI runtime, have one thread.
#![forbid(unsafe_code)]

pub mod capabilities;
pub mod cgroup;
pub mod defaults;
pub mod hook;
pub mod landlock;
pub mod mount_options;
pub mod plan;
pub mod resctrl;
pub mod seccomp;
mod spec;
pub mod user;

pub use landlock::Landlock;
pub use plan::Plan;
pub use spec::*;
