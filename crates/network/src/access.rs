//! Who reaches a network's containers, and as whom they reach others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// How packets get into a network and out of it (Docker's `com.docker.network.bridge.*`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Access {
    pub ipv4: FamilyAccess<Ipv4Addr>,
    pub ipv6: FamilyAccess<Ipv6Addr>,
    /// Interfaces of the host from which published ports are reached at the container's own address
    /// too (Docker's `trusted_host_interfaces`).
    pub trusted_interfaces: Vec<String>,
}

/// The same of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilyAccess<A> {
    #[serde(default)]
    pub mode: GatewayMode,
    #[serde(default)]
    pub gateway: GatewayHolder,
    /// The host's address that packets leave with, where they do not keep their own; `None` is that of
    /// the interface they leave by (Docker's `com.docker.network.host_ipv4` and `host_ipv6`).
    #[serde(default = "nothing")]
    pub leaves_as: Option<A>,
}

impl<A> Default for FamilyAccess<A> {
    fn default() -> Self {
        Self { mode: GatewayMode::Nat, gateway: GatewayHolder::Bridge, leaves_as: None }
    }
}

fn nothing<A>() -> Option<A> {
    None
}

/// Docker's `gateway_mode_ipv4` and `gateway_mode_ipv6`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayMode {
    /// Others reach what is published, at the host's addresses.
    #[default]
    Nat,
    /// Besides, all but other networks reach every port at the container's own address.
    NatUnprotected,
    /// No address is translated: everybody reaches what is published at the container's own address.
    Routed,
    /// The bridge has no address: not even the host is reached. Of internal networks alone.
    Isolated,
}

/// Who has the address that containers' default routes lead to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GatewayHolder {
    #[default]
    Bridge,
    /// Somebody on the network (Docker's `inhibit_ipv4`).
    Other,
}

impl<A> FamilyAccess<A> {
    /// Whether the bridge has an address of this family.
    pub(crate) fn is_on_bridge(&self) -> bool {
        self.mode != GatewayMode::Isolated && self.gateway == GatewayHolder::Bridge
    }

    /// Whether published ports lead from the host's addresses to the container's.
    pub fn translates(&self) -> bool {
        matches!(self.mode, GatewayMode::Nat | GatewayMode::NatUnprotected)
    }
}

/// By which address a published port is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReachedBy {
    #[default]
    Host,
    /// By the container's own, from where the network allows it.
    Container,
    Both,
}

impl ReachedBy {
    pub(crate) const fn host(self) -> bool {
        matches!(self, Self::Host | Self::Both)
    }

    pub(crate) const fn container(self) -> bool {
        matches!(self, Self::Container | Self::Both)
    }
}

impl Access {
    /// How a port is reached that is published at an address of the host of this family.
    pub fn reached_by(&self, host_address: IpAddr) -> ReachedBy {
        let translates = match host_address {
            IpAddr::V4(_) => self.ipv4.translates(),
            IpAddr::V6(_) => self.ipv6.translates(),
        };
        match (translates, self.trusted_interfaces.is_empty()) {
            (false, _) => ReachedBy::Container,
            (true, true) => ReachedBy::Host,
            (true, false) => ReachedBy::Both,
        }
    }
}
