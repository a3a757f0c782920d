//! The host's side of container networking: links, addresses, the nftables table, named netns.
//!
//! Everything is a netlink message; no program is executed. [`Host`] is the network namespace that
//! the engine runs in: it makes bridges, plugs containers into them and publishes their ports.
//! [`named`] is `ip netns`. The firewall that [`Host`] keeps is described in `nft/ruleset.rs`.
#![forbid(unsafe_code)]

mod access;
mod device;
mod error;
mod firewall;
mod host;
mod interface;
mod interface_sysctl;
mod link;
pub mod named;
mod netns;
mod nft;
mod parent;
mod publish_policy;
mod resolver_sockets;
mod retired;
mod rtnetlink;
mod settings;
mod survey;
mod types;
pub mod view;

pub use access::{Access, FamilyAccess, GatewayHolder, GatewayMode, ReachedBy};
pub use bulkhead_types::Protocol;
pub use device::move_link;
pub use error::NetworkError;
pub use host::{Host, MIN_MTU_IPV6};
pub use interface_sysctl::InterfaceSysctl;
pub use parent::{
    Assigned, IpvlanFlag, IpvlanMode, MacvlanMode, Parent, ParentDriver, ParentEndpoint,
};
pub use publish_policy::{AddressBlock, PublishPolicy};
pub use resolver_sockets::{RESOLVER_ADDRESS, ResolverSockets, UpstreamSockets};
pub use settings::Forwarding;
pub use survey::UsedSubnets;
pub use types::{Bridge, DefaultRoute, Endpoint, Gateway, PublishedPort};
