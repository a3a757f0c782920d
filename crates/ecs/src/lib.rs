//! Clusters, task definitions, container instances and tasks: Amazon ECS's meaning without HTTP.
//!
//! [`Control`] is the whole surface. Its methods take and return plain values whose serde names are
//! the AWS API's own, so that the API edge and the console show one and the same thing. Decisions
//! are pure functions (validation, placement, the task's state machine, a container definition's
//! Docker form); `Control` applies them in transactions that compare first, so several schedulers may
//! work on one store without booking a port twice. Which agents are connected, and that something has
//! changed, is known to one process alone.
#![forbid(unsafe_code)]

mod arn;
mod attribute;
mod cluster;
mod control;
pub mod docker;
mod error;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod health;
mod instance;
mod page;
pub mod placement;
mod query;
mod record;
mod requirements;
mod resources;
mod setting;
mod status;
mod tag;
mod task;
mod task_definition;
mod timestamp;
mod transition;
mod validate;

pub use arn::{Arn, Place};
pub use attribute::Attribute;
pub use cluster::{Cluster, CreateCluster, DescribeClusters};
pub use control::{Change, Control, Options, Session, TaskOrder};
pub use error::{Code, Error, Failure};
pub use health::{ContainerHealth, TaskHealth};
pub use instance::{
    ContainerInstance, DescribeContainerInstances, ListContainerInstances,
    RegisterContainerInstance, Resource, VersionInfo,
};
pub use page::Page;
pub use setting::Setting;
pub use status::{
    Connectivity, DependencyCondition, DesiredStatus, HealthStatus, InstanceStatus, LaunchType,
    Status, StopCode, TaskStatus,
};
pub use tag::Tag;
pub use task::{
    Container, ContainerOverride, ListTasks, NetworkBinding, RunTask, RunTaskResult, StartTask,
    Task, TaskOverride,
};
pub use task_definition::{
    ContainerDefinition, ContainerDependency, Definition, HealthCheck, HostEntry, HostVolume,
    KeyValuePair, ListTaskDefinitions, LogConfiguration, MountPoint, PlacementConstraint,
    PlacementStrategy, PortMapping, RegisterTaskDefinition, SystemControl, TaskDefinition, Ulimit,
    Volume, VolumeFrom, without_nulls,
};
pub use timestamp::Timestamp;
pub use transition::{ContainerStateChange, TaskStateChange};
