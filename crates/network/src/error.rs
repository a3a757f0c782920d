//! What can go wrong, in one sentence each.

use std::io;

use crate::PublishedPort;

/// Errors say which message the kernel refused, on which object.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("{what}: {cause}")]
    Kernel { what: String, cause: io::Error },
    #[error("interface {0} does not exist")]
    NoSuchLink(String),
    #[error("interface {0} exists already; unplug it first")]
    LinkExists(String),
    #[error(
        "interface {0} exists in the container's network namespace already; give the one that moves \
         another name, or a name with %d"
    )]
    LinkTaken(String),
    #[error("network namespace {0:?} does not exist; `bulkhead netns ls` lists the names")]
    NoSuchNamespace(String),
    #[error(
        "{0:?} is no network namespace, but what is left of one that was not made to the end; \
         `bulkhead netns delete` removes it"
    )]
    NotANamespace(String),
    #[error("network namespace {0:?} is the host's own; share that by --network host")]
    OwnNamespace(String),
    #[error("network namespace {0:?} exists already; delete it first or choose another name")]
    NamespaceExists(String),
    #[error(
        "invalid network namespace name {0:?}: it must be one path component of at most 255 bytes"
    )]
    InvalidNamespaceName(String),
    #[error(
        "bridge {0} is full: the kernel allows 1023 interfaces on one; use another network for \
         further containers"
    )]
    BridgeFull(String),
    #[error(
        "port already published: one of {0} belongs to another container; stop that container or \
         choose another port"
    )]
    PortPublished(String),
    #[error(
        "port {0} cannot lead to {address}: both addresses must be IPv4, or both IPv6",
        address = .0.container_address
    )]
    PortFamilies(PublishedPort),
    #[error("endpoint {0} has an address of a family that its bridge has none of")]
    EndpointFamilies(String),
    #[error("this host's kernel has no links of kind {0}; load the module {0}")]
    NoSuchKind(&'static str),
    #[error(
        "interface {0} carries links of another kind already, macvlan or ipvlan; choose another parent"
    )]
    ParentInUse(String),
    #[error("this host's kernel has no IPv6, so {0} cannot have it; make the network without IPv6")]
    NoIpv6(String),
    #[error(
        "IPv6 needs an MTU of at least 1280, and {bridge} is to have {mtu}; make the network without \
         IPv6 or with a greater MTU"
    )]
    MtuBelowIpv6 { bridge: String, mtu: u32 },
    #[error("{interface} has no setting {setting}; leave it out")]
    NoSuchSetting { interface: String, setting: String },
    #[error("invalid interface name {0:?}: it must be 1 to 15 bytes without slash, colon or space")]
    InvalidLinkName(String),
}

impl NetworkError {
    /// Wraps a refusal of the kernel; `what` names the act and its object.
    pub(crate) fn kernel(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |cause| Self::Kernel { what, cause }
    }
}
