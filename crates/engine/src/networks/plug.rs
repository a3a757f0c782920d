//! A container's links, and the ports that lead to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use bulkhead_network::{
    Assigned, Bridge, DefaultRoute, Endpoint, ParentEndpoint, PublishedPort, ReachedBy,
};
use bulkhead_types::Id;

use super::Networks;
use crate::blocking::Blocking;
use crate::deferred_teardown::{PendingLink, PendingUnplug};
use crate::error::io_error;
use crate::{
    Addresses, Attachment, Container, EngineError, Network, NetworkDriver, NetworkStack,
    Networking, ParentLinks, PortBinding,
};

impl Networks {
    /// Gives a cloned container its links.
    pub(crate) fn plug(
        &self,
        container: &Container,
        netns: BorrowedFd<'_>,
    ) -> Result<(), EngineError> {
        let networking = &container.network;
        match networking.stack {
            NetworkStack::Bridge if !networking.attachments.is_empty() => {
                for attachment in &networking.attachments {
                    self.plug_one(networking, attachment, netns)?;
                }
                self.publish(container)
            }
            NetworkStack::Bridge | NetworkStack::None => Ok(self.host.loopback_up(netns)?),
            // A named namespace is its maker's, who says whether `lo` is up in it.
            NetworkStack::Host | NetworkStack::Container(_) | NetworkStack::Netns => Ok(()),
        }
    }

    /// Makes the link of one attachment; `networking` says whether the default route leads through it.
    pub(crate) fn plug_one(
        &self,
        networking: &Networking,
        attachment: &Attachment,
        netns: BorrowedFd<'_>,
    ) -> Result<(), EngineError> {
        let attached = self.get(attachment.network).ok_or_else(|| {
            let name = &attachment.network_name;
            EngineError::not_found(format!("network {name} not found"))
        })?;
        match &attached.network.parent {
            None => {
                let endpoint = endpoint(networking, attachment);
                let bridge = self.bridge(&attached.network);
                self.host.plug(netns, &bridge, &endpoint)?;
                let (ipv4, ipv6) = other_routes(&bridge, attachment, endpoint.default_route);
                if ipv4.is_some() || ipv6.is_some() {
                    self.host.set_default_route(netns, &endpoint.interface, ipv4, ipv6)?;
                }
                Ok(())
            }
            Some(links) => {
                let endpoint = parent_endpoint(links, networking, attachment);
                Ok(self.host.plug_parent(netns, &links.parent, &endpoint)?)
            }
        }
    }

    /// Sets the default route where the networking of a container that runs has it.
    pub(crate) fn route(
        &self,
        networking: &Networking,
        netns: BorrowedFd<'_>,
    ) -> Result<(), EngineError> {
        if let Some(attachment) = networking.gateway() {
            let gateway = attachment.ipv4.and_then(|ipv4| ipv4.gateway);
            self.host.set_default_route(netns, &attachment.interface, gateway, None)?;
        }
        if let Some(attachment) = networking.gateway6() {
            let gateway = attachment.ipv6.and_then(|ipv6| ipv6.gateway);
            self.host.set_default_route(netns, &attachment.interface, None, gateway)?;
        }
        Ok(())
    }

    pub(crate) fn publish(&self, container: &Container) -> Result<(), EngineError> {
        let ports = self.published(container);
        if !ports.is_empty() {
            bulkhead_failpoint::hit("network.publish").map_err(io_error("network.publish"))?;
            self.host.publish(&ports)?;
        }
        Ok(())
    }

    pub(crate) fn unpublish(&self, container: &Container) -> Vec<EngineError> {
        let ports = self.published(container);
        if ports.is_empty() {
            return Vec::new();
        }
        self.host.unpublish(&ports).err().map(EngineError::from).into_iter().collect()
    }

    /// The ports that lead to a container: through the network that its default route leads through.
    pub(super) fn published(&self, container: &Container) -> Vec<PublishedPort> {
        let networking = &container.network;
        let publish = |binding: &PortBinding| {
            let gateway = match binding.host_address {
                IpAddr::V4(_) => networking.gateway(),
                IpAddr::V6(_) => networking.gateway6(),
            };
            Some(PublishedPort {
                protocol: binding.protocol,
                host_address: binding.host_address,
                host_port: binding.host_port,
                container_address: networking.published_address(binding.host_address)?,
                container_port: binding.container_port,
                reached_by: self.reached_by(gateway?.network, binding.host_address),
            })
        };
        networking.ports.iter().filter_map(publish).collect()
    }

    /// How a port is reached that is published at this address of the host and leads to a network.
    pub(super) fn reached_by(&self, network: Id, host_address: IpAddr) -> ReachedBy {
        self.get(network).map_or(ReachedBy::Host, |attached| {
            attached.network.bridge.access.reached_by(host_address)
        })
    }

    /// What the kernel is to hold of a network that is a bridge.
    pub(super) fn bridge(&self, network: &Network) -> Bridge {
        Bridge { publish_policy: self.publish_policy.clone(), ..network.link() }
    }

    /// Has taken down what [`Self::plug`] and [`Self::lease`] made.
    pub(crate) fn unplug(&self, container: &Container, netns: Option<Arc<OwnedFd>>) {
        for attachment in &container.network.attachments {
            let Some(lease) = self.lease_of(attachment) else { continue };
            if lease.retire() {
                let link = match attachment.driver {
                    NetworkDriver::Bridge => PendingLink::Host(host_link(lease.endpoint)),
                    _ => PendingLink::Inside(attachment.interface.clone()),
                };
                let (lease, netns) = (Some(lease), netns.clone());
                self.retired.retire(PendingUnplug { link, lease, netns });
            }
        }
    }

    /// Takes one link of a container that runs down, now: its program is to see it go.
    pub(crate) fn unplug_one(
        &self,
        _: &Blocking,
        attachment: &Attachment,
        netns: BorrowedFd<'_>,
    ) -> Result<(), EngineError> {
        let unplugged = match attachment.driver {
            NetworkDriver::Bridge => self.host.unplug(&host_link(attachment.endpoint)),
            _ => self.host.unplug_parent(netns, &attachment.interface),
        };
        self.give_back(attachment);
        Ok(unplugged?)
    }
}

/// The host's end of a veth pair: 15 bytes at most. Named by the endpoint and not the container,
/// whose next start does not wait until the last one's link has gone.
pub(crate) fn host_link(endpoint: Id) -> String {
    format!("bh{}", endpoint.short())
}

/// What the kernel is to hold of an attachment to a bridge.
pub(crate) fn endpoint(networking: &Networking, attachment: &Attachment) -> Endpoint {
    Endpoint {
        host_link: host_link(attachment.endpoint),
        interface: attachment.interface.clone(),
        mac: attachment.mac.unwrap_or_default(),
        ipv4: attachment.ipv4.map(|ipv4| ipv4.address),
        ipv6: attachment.ipv6.map(|ipv6| ipv6.address),
        default_route: default_route(networking, attachment),
        link_local: attachment.link_local.clone(),
        sysctls: attachment.sysctls.clone(),
    }
}

/// Default routes by another machine than the bridge, of the families whose route leads through it.
fn other_routes(
    bridge: &Bridge,
    attachment: &Attachment,
    leads: DefaultRoute,
) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    fn other<A: PartialEq>(route: Option<A>, bridge: Option<A>, leads: bool) -> Option<A> {
        route.filter(|route| leads && bridge.as_ref() != Some(route))
    }
    let of_bridge = (bridge.ipv4.map(|it| it.address), bridge.ipv6.map(|it| it.address));
    let route4 = attachment.ipv4.and_then(|it| it.gateway);
    let route6 = attachment.ipv6.and_then(|it| it.gateway);
    let both = leads == DefaultRoute::Both;
    (
        other(route4, of_bridge.0, both || leads == DefaultRoute::Ipv4),
        other(route6, of_bridge.1, both || leads == DefaultRoute::Ipv6),
    )
}

/// The same on an interface of the host.
fn parent_endpoint(
    links: &ParentLinks,
    networking: &Networking,
    attachment: &Attachment,
) -> ParentEndpoint {
    fn assigned<A>(addresses: Addresses<A>) -> Assigned<A> {
        let Addresses { address, prefix, gateway } = addresses;
        Assigned { address, prefix, gateway }
    }
    ParentEndpoint {
        driver: links.driver,
        interface: attachment.interface.clone(),
        mac: attachment.mac,
        ipv4: attachment.ipv4.map(assigned),
        ipv6: attachment.ipv6.map(assigned),
        default_route: default_route(networking, attachment),
        link_local: attachment.link_local.clone(),
        sysctls: attachment.sysctls.clone(),
    }
}

/// Of which families the default route leads through an attachment.
fn default_route(networking: &Networking, attachment: &Attachment) -> DefaultRoute {
    let is = |gateway: Option<&Attachment>| {
        gateway.is_some_and(|gateway| gateway.endpoint == attachment.endpoint)
    };
    match (is(networking.gateway()), is(networking.gateway6())) {
        (false, false) => DefaultRoute::None,
        (true, false) => DefaultRoute::Ipv4,
        (false, true) => DefaultRoute::Ipv6,
        (true, true) => DefaultRoute::Both,
    }
}
