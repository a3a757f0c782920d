//! What a container gets of its networks before it has a namespace: addresses and host ports.

use std::net::IpAddr;
use std::sync::Arc;

use bulkhead_types::Id;

use super::Networks;
use crate::address_pool::{AddressPool, Exhausted};
use crate::attached_network::{AttachedNetwork, Lease};
use crate::blocking::Blocking;
use crate::ports::{Reservation, has_ipv6, reserve};
use crate::published::{Reached, Unnamed, Wanted, Way, missing, requests, wanted};
use crate::subnet::Address;
use crate::{
    Addresses, Attachment, Class, Container, EndpointConfig, EngineError, NetworkMode,
    NetworkStack, Networking, PortBinding,
};

impl Networks {
    /// The networks of a request for a container, that of its mode first: each by its name, and with
    /// what is asked for there allowed.
    pub(crate) fn endpoints(
        &self,
        mode: &NetworkMode,
        asked: Vec<EndpointConfig>,
        mac: Option<[u8; 6]>,
    ) -> Result<Vec<EndpointConfig>, EngineError> {
        let of_mode = match mode {
            NetworkMode::Bridge if asked.is_empty() => Some("bridge"),
            // A client that names networks and no mode wants those alone (moby:
            // daemon/container_operations.go, updateContainerNetworkSettings).
            NetworkMode::Bridge => None,
            NetworkMode::Named(name) => Some(name.as_str()),
            NetworkMode::None
            | NetworkMode::Host
            | NetworkMode::Container(_)
            | NetworkMode::Netns(_) => {
                return self.none_of(mode, asked);
            }
        };
        let mut endpoints: Vec<EndpointConfig> = Vec::new();
        for endpoint in asked {
            let network = self.required(&endpoint.network)?;
            self.check(&network, &endpoint)?;
            let name = network.network.name.clone();
            if endpoints.iter().any(|other| other.network == name) {
                return Err(EngineError::invalid(format!(
                    "network {name} is named twice; name it once"
                )));
            }
            endpoints.push(EndpointConfig { network: name, ..endpoint });
        }
        // Docker's clients sort by name what their users gave in an order of their own.
        endpoints.sort_by(|one, other| one.network.cmp(&other.network));
        let first = match of_mode {
            Some(name) => self.required(name)?.network.name.clone(),
            None if endpoints.iter().any(|endpoint| endpoint.network == "bridge") => {
                "bridge".to_owned()
            }
            None => endpoints.first().map(|first| first.network.clone()).unwrap_or_default(),
        };
        match endpoints.iter().position(|endpoint| endpoint.network == first) {
            Some(place) => endpoints[..=place].rotate_right(1),
            None => endpoints.insert(0, EndpointConfig::of(first)),
        }
        let primary = &mut endpoints[0];
        if primary.mac.is_some_and(|own| mac.is_some_and(|mac| mac != own)) {
            return Err(EngineError::invalid(
                "the container-wide MAC address must match the endpoint-specific MAC address for the \
                 main network, or be left out",
            ));
        }
        primary.mac = primary.mac.or(mac);
        Ok(endpoints)
    }

    /// Whoever has no network of its own is on none; clients say of the one it has not that they ask
    /// for nothing there.
    fn none_of(
        &self,
        mode: &NetworkMode,
        asked: Vec<EndpointConfig>,
    ) -> Result<Vec<EndpointConfig>, EngineError> {
        let own = mode.to_string();
        let more = asked.into_iter().find(|endpoint| {
            let empty = EndpointConfig::of(endpoint.network.as_str());
            endpoint.network != own && endpoint.network != "default" || *endpoint != empty
        });
        match more {
            None => Ok(Vec::new()),
            Some(endpoint) => Err(EngineError::invalid(format!(
                "conflicting options: a container with the network mode {own} cannot be connected to \
                 network {} as well, nor ask for an address or a name",
                endpoint.network
            ))),
        }
    }

    /// Not "not found": the CLI takes that for a missing image, and starts to pull it.
    fn required(&self, name: &str) -> Result<Arc<AttachedNetwork>, EngineError> {
        self.find(name).map_err(|error| EngineError::invalid(error.message))
    }

    /// Whether a network can give what is asked for (moby: daemon/container_operations.go,
    /// validateEndpointSettings).
    pub(crate) fn check(
        &self,
        attached: &AttachedNetwork,
        endpoint: &EndpointConfig,
    ) -> Result<(), EngineError> {
        endpoint.check()?;
        let network = &attached.network;
        if endpoint.mac.is_some() && network.parent.as_ref().is_some_and(|it| it.shares_address()) {
            return Err(EngineError::invalid(format!(
                "network {}: its links have the hardware address of their parent; leave out the MAC \
                 address",
                network.name
            )));
        }
        if network.ipv6.is_none()
            && let Some(address) = endpoint.link_local.iter().find(|address| address.is_ipv6())
        {
            return Err(EngineError::invalid(format!(
                "network {}: it has no IPv6, and so no link-local address {address}; leave it out, or \
                 name a network with IPv6",
                network.name
            )));
        }
        let asks_address = endpoint.ipv4.is_some() || endpoint.ipv6.is_some();
        if network.id == self.default.network.id {
            if asks_address {
                return Err(EngineError::invalid(format!(
                    "network {}: user specified IP address is supported on user defined networks only",
                    network.name
                )));
            }
            if !endpoint.aliases.is_empty() {
                return Err(EngineError::invalid(format!(
                    "network {}: network-scoped aliases are only supported for user-defined networks",
                    network.name
                )));
            }
            return Ok(());
        }
        can_give(&network.name, &network.ipv4, endpoint.ipv4)?;
        can_give(&network.name, &network.ipv6, endpoint.ipv6)
    }

    /// Leases what a start needs, in memory; recorded with the start's transaction. `held` are the
    /// host ports that containers have now.
    pub(crate) fn lease(
        &self,
        may_block: &Blocking,
        container: &Container,
        held: &[PortBinding],
    ) -> Result<(Networking, Vec<Reservation>), EngineError> {
        let mut networking = Networking::detached(container.network.stack);
        if networking.stack != NetworkStack::Bridge {
            return Ok((networking, Vec::new()));
        }
        let leased = self.lease_all(may_block, container, &mut networking);
        let reserved = leased.and_then(|()| {
            let (wanted, unreached) = self.wanted(container, &networking);
            if let Some(address) = unreached.first() {
                return Err(unreachable(*address));
            }
            reserve(&wanted, held).map_err(|error| {
                let gateway = networking.gateway().or(networking.gateway6());
                let endpoint =
                    gateway.map(|gateway| gateway.endpoint.to_string()).unwrap_or_default();
                let message = format!(
                    "driver failed programming external connectivity on endpoint {} ({endpoint}): \
                     {error}",
                    container.name
                );
                EngineError::new(Class::Internal, message)
            })
        });
        match reserved {
            Ok(ports) => {
                networking.ports = ports.iter().map(|port| port.binding).collect();
                Ok((networking, ports))
            }
            Err(error) => {
                for attachment in &networking.attachments {
                    self.give_back(attachment);
                }
                Err(error)
            }
        }
    }

    fn lease_all(
        &self,
        may_block: &Blocking,
        container: &Container,
        networking: &mut Networking,
    ) -> Result<(), EngineError> {
        for config in &container.endpoints {
            let attachment = self.attach(may_block, config, networking)?;
            networking.attachments.push(attachment);
        }
        Ok(())
    }

    /// Leases a place on one network, beside those in `networking`.
    pub(crate) fn attach(
        &self,
        may_block: &Blocking,
        config: &EndpointConfig,
        networking: &Networking,
    ) -> Result<Attachment, EngineError> {
        let attached = self.named(&config.network)?;
        // It may be another than when this was asked for.
        self.check(&attached, config)?;
        let network = &attached.network;
        let mut lease = Lease {
            network: Arc::clone(&attached),
            endpoint: Id::random(),
            ipv4: None,
            ipv6: None,
        };
        let leased = (|| {
            if let Some(pool) = &attached.ipv4 {
                lease.ipv4 = Some(self.address(may_block, &lease, pool, config.ipv4)?);
            }
            if let Some(pool) = &attached.ipv6 {
                lease.ipv6 = Some(self.address(may_block, &lease, pool, config.ipv6)?);
            }
            let prefix = network.bridge.interface_prefix.as_deref().unwrap_or("eth");
            interface(config, prefix, networking)
        })();
        let interface = match leased {
            Ok(interface) => interface,
            Err(error) => {
                lease.release();
                return Err(error);
            }
        };
        Ok(Attachment {
            network: network.id,
            network_name: network.name.clone(),
            driver: network.driver(),
            endpoint: lease.endpoint,
            interface,
            mac: match &network.parent {
                Some(links) if links.shares_address() => None,
                _ => Some(config.mac.unwrap_or_else(|| mac(&lease))),
            },
            ipv4: lease.ipv4.zip(network.ipv4.as_ref()).map(|(address, pool)| Addresses {
                address,
                prefix: pool.subnet.prefix(),
                gateway: (!network.internal).then_some(pool.route()),
            }),
            ipv6: lease.ipv6.zip(network.ipv6.as_ref()).map(|(address, pool)| Addresses {
                address,
                prefix: pool.subnet.prefix(),
                gateway: (!network.internal).then_some(pool.route()),
            }),
            aliases: config.aliases.clone(),
            gateway_priority: config.gateway_priority,
            gateway_holder: network.bridge.access.ipv4.gateway,
            link_local: config.link_local.clone(),
            sysctls: config.sysctls()?,
        })
    }

    /// Leases an address. That of a container that has ended can be had at once: if no other is
    /// free, the links that wait for a quiet moment are taken down now.
    fn address<A: Address>(
        &self,
        may_block: &Blocking,
        lease: &Lease,
        pool: &AddressPool<A>,
        asked: Option<A>,
    ) -> Result<A, EngineError> {
        let name = &lease.network.network.name;
        loop {
            let leased = match asked {
                Some(address) => pool.lease_exactly(address, lease.endpoint).map(|()| address),
                None => pool.lease(lease.endpoint),
            };
            match (leased, asked) {
                (Ok(address), _) => return Ok(address),
                (Err(Exhausted { retired: 0 }), Some(address)) => {
                    return Err(EngineError::new(
                        Class::Denied,
                        format!(
                            "Address already in use: {address} on network {name}; name another one, or \
                             stop the container that has it"
                        ),
                    ));
                }
                (Err(Exhausted { retired: 0 }), None) => {
                    return Err(EngineError::internal(format!(
                        "no available {} addresses on this network's address pools: {name}; stop some \
                         containers",
                        A::FAMILY
                    )));
                }
                (Err(Exhausted { .. }), _) => {
                    for fault in self.retired.remove_all(may_block) {
                        tracing::warn!(error = %fault, "take down a link");
                    }
                }
            }
        }
    }

    /// Gives back what [`Self::attach`] leased, of an endpoint that has no link.
    pub(crate) fn give_back(&self, attachment: &Attachment) {
        if let Some(lease) = self.lease_of(attachment) {
            lease.release();
        }
    }

    /// The lease that an attachment stands for; `None` where its network has gone.
    pub(crate) fn lease_of(&self, attachment: &Attachment) -> Option<Lease> {
        Some(Lease {
            network: self.get(attachment.network)?,
            endpoint: attachment.endpoint,
            ipv4: attachment.ipv4.map(|ipv4| ipv4.address),
            ipv6: attachment.ipv6.map(|ipv6| ipv6.address),
        })
    }

    pub(crate) fn leases(&self, container: &Container) -> Vec<Lease> {
        let attachments = container.network.attachments.iter();
        attachments.filter_map(|attachment| self.lease_of(attachment)).collect()
    }

    /// What a container on these networks publishes, and what cannot lead to it.
    fn wanted(&self, container: &Container, networking: &Networking) -> (Vec<Wanted>, Vec<IpAddr>) {
        let requests = requests(container);
        let gateway = networking.gateway().or(networking.gateway6());
        // Of one that is on no network, nothing is reached.
        let Some(gateway) = gateway.filter(|_| !requests.is_empty()) else {
            return Default::default();
        };
        let network = self
            .get(gateway.network)
            .map_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), |attached| {
                attached.network.bridge.host_binding
            });
        let reached =
            Reached::of(networking, |network, host_address| self.reached_by(network, host_address));
        let host_has_ipv6 = reached.ipv6 != Way::None && has_ipv6();
        let unnamed = Unnamed { network, host_has_ipv6 };
        wanted(requests, reached, unnamed)
    }

    /// Reserves what a container publishes besides since its networks have changed, and leaves out of
    /// its record what leads nowhere now. A port that cannot be had is told in the log: the container
    /// runs, and is not ended for it.
    pub(crate) fn rebind(
        &self,
        container: &mut Container,
        held: &[PortBinding],
    ) -> Vec<Reservation> {
        let (wanted, _) = self.wanted(container, &container.network);
        let ports = &mut container.network.ports;
        ports.retain(|binding| wanted.iter().any(|one| one.has(binding)));
        let mut reserved = Vec::new();
        for one in missing(wanted, ports) {
            match reserve(&[one], held) {
                Ok(more) => reserved.extend(more),
                Err(error) => {
                    tracing::warn!(container = %container.name, %error, "publish by another network");
                }
            }
        }
        ports.extend(reserved.iter().map(|port| port.binding));
        reserved
    }
}

fn unreachable(address: IpAddr) -> EngineError {
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    EngineError::invalid(format!(
        "cannot publish a port on {address}: the container has no {family} address that leads out; put \
         it on a network with {family}, or publish on another address"
    ))
}

fn can_give<A: Address>(
    network: &str,
    pool: &Option<crate::Pool<A>>,
    asked: Option<A>,
) -> Result<(), EngineError> {
    let Some(address) = asked else { return Ok(()) };
    let family = A::FAMILY;
    let why = match pool {
        None => format!("it has no {family} addresses"),
        Some(pool) if !pool.chosen => {
            "user specified IP address is supported only when connecting to networks with user \
             configured subnets"
                .to_owned()
        }
        Some(pool) if !pool.subnet.contains(address) => {
            format!("no configured subnet contains IP address {address}")
        }
        Some(pool)
            if address == pool.subnet.first()
                || address == pool.gateway
                || (A::BITS == 32 && address == pool.subnet.last()) =>
        {
            format!("{address} is the network's own; name another address")
        }
        Some(_) => return Ok(()),
    };
    Err(EngineError::invalid(format!("network {network}: {why}")))
}

/// The name of the next interface: the one that was asked for, else the first number that is free.
fn interface(
    config: &EndpointConfig,
    prefix: &str,
    networking: &Networking,
) -> Result<String, EngineError> {
    let taken =
        |name: &str| networking.attachments.iter().any(|attachment| attachment.interface == name);
    match config.interface() {
        Some(name) if taken(name) => Err(EngineError::invalid(format!(
            "an interface {name} is there already; name another one"
        ))),
        Some(name) => Ok(name.to_owned()),
        None => {
            let mut names = (0..).map(|number| format!("{prefix}{number}"));
            Ok(names.find(|name| !taken(name)).unwrap_or_default())
        }
    }
}

/// The link address that goes with an address: locally administered, the same for the same
/// address, so that neighbours' caches stay true when it is leased again (as Docker's were).
fn mac(lease: &Lease) -> [u8; 6] {
    let [a, b, c, d] = match (lease.ipv4, lease.ipv6) {
        (Some(address), _) => address.octets(),
        (None, Some(address)) => {
            let octets = address.octets();
            [octets[12], octets[13], octets[14], octets[15]]
        }
        (None, None) => [0; 4],
    };
    [0x02, 0x42, a, b, c, d]
}
