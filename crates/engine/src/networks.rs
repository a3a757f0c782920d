//! The networks, and what a container has of them: leased, plugged in, published, and taken down.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use bulkhead_network::{Bridge, DefaultRoute, Endpoint, Gateway, Host, PublishedPort};
use bulkhead_store::{Store, load, put};
use bulkhead_types::{Digest, Id};

use crate::address_pool::{AddressPool, Exhausted};
use crate::blocking::Blocking;
use crate::containers::{self, Known};
use crate::deferred_teardown::{DeferredTeardown, PendingUnplug};
use crate::error::io_error;
use crate::ports::{Reservation, reserve, wanted};
use crate::{
    Addresses, Attachment, Class, Container, EngineError, NetworkStack, NetworkView, Networking,
    Options, PortBinding, addresses,
};

/// The network that containers are on unless told otherwise, as it was chosen the first time.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct DefaultNetwork {
    pub id: Id,
    pub bridge: Bridge,
    pub created: bulkhead_types::Timestamp,
}

impl DefaultNetwork {
    const KEY: &str = "network/bridge";

    fn ipv4(&self) -> Gateway<Ipv4Addr> {
        self.bridge.ipv4.expect("the default network has IPv4, since before there was any other")
    }

    /// The recorded one, or one on a subnet that no route of this host overlaps. Where another
    /// bridge or address is asked for, the old one goes with all that is left of it.
    ///
    /// # Errors
    /// A conflict, where that would cut off containers that run.
    pub(crate) fn choose(
        store: &dyn Store,
        host: &Host,
        options: &Options,
    ) -> Result<Self, EngineError> {
        let recorded: Option<Self> = load(store, Self::KEY)?;
        let told = options.bridge_address;
        if let Some(network) = &recorded
            && (options.bridge.is_empty() || network.bridge.name == options.bridge)
            && told.is_none_or(|told| network.bridge.ipv4 == Some(gateway(told)))
        {
            return Ok(network.clone());
        }
        if let Some(DefaultNetwork { bridge: old, .. }) = &recorded {
            // A record alone may be of one that a reboot has ended, and a link alone of one that is
            // just being taken down.
            let running = containers::running(store)?;
            if running > 0 && host.plugged(&old.name)? > 0 {
                let address = match old.ipv4 {
                    Some(own) => format!(" ({}/{})", own.address, own.prefix),
                    None => String::new(),
                };
                return Err(EngineError::conflict(format!(
                    "bridge {}{address} cannot be changed while containers are on it ({running}): \
                     start with the same --bridge and --bridge-address, or `bulkhead down` first",
                    old.name
                )));
            }
            host.remove_bridge(old)?;
        }
        let ipv4 = match told {
            Some(told) => gateway(told),
            None => free_subnet(host)?,
        };
        let network = Self {
            id: Id::random(),
            bridge: Bridge {
                name: match options.bridge.as_str() {
                    "" => "bulkhead0".to_owned(),
                    name => name.to_owned(),
                },
                ipv4: Some(ipv4),
                ipv6: None,
                mtu: host.default_mtu()?,
                internal: false,
                inter_container: true,
                masquerade: true,
            },
            created: bulkhead_types::Timestamp::now(),
        };
        store.commit(&[], &[put(Self::KEY, &network)])?;
        Ok(network)
    }
}

fn gateway((address, prefix): (Ipv4Addr, u8)) -> Gateway<Ipv4Addr> {
    Gateway { address, prefix }
}

fn free_subnet(host: &Host) -> Result<Gateway<Ipv4Addr>, EngineError> {
    let used = host.used_subnets()?;
    for second in 17..32 {
        if !used.overlaps(Ipv4Addr::new(172, second, 0, 0).into(), 16) {
            return Ok(gateway((Ipv4Addr::new(172, second, 0, 1), 16)));
        }
    }
    Err(EngineError::new(
        Class::Unavailable,
        "every network from 172.17.0.0/16 to 172.31.0.0/16 overlaps a route of this host; name a \
         free one with --bridge-address",
    ))
}

/// The host's end of a veth pair: 15 bytes at most. Named by the endpoint and not the container,
/// whose next start does not wait until the last one's link has gone.
fn host_link(endpoint: Id) -> String {
    format!("bh{}", endpoint.short())
}

/// The networks of one engine, under `network/` in the store, with their links on this host.
#[derive(Debug)]
pub(crate) struct Networks {
    host: Arc<Host>,
    default: DefaultNetwork,
    addresses: Arc<AddressPool>,
    /// Links of containers that have ended.
    retired: Arc<DeferredTeardown>,
}

impl Networks {
    /// Chooses or reads the default network, and makes its bridge.
    pub(crate) fn open(
        store: &dyn Store,
        options: &Options,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, EngineError> {
        let host = Host::open()?;
        let default = DefaultNetwork::choose(store, &host, options)?;
        host.ensure_bridge(&default.bridge)?;
        warn_of_foreign_drops(&host, &default.bridge.name)?;
        let host = Arc::new(host);
        let own = default.ipv4();
        let addresses = Arc::new(AddressPool::new(own.address, own.prefix));
        let retired = DeferredTeardown::new(runtime, Arc::clone(&host), Arc::clone(&addresses));
        Ok(Self { host, default, addresses, retired: Arc::new(retired) })
    }

    /// Notes that a container starts now: links of others wait.
    pub(crate) fn note_start(&self) {
        self.retired.touch();
    }

    /// The address by which containers reach this host.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.default.ipv4().address
    }

    /// Notes the leases of what is recorded.
    pub(crate) fn recover(&self, known: &Known) {
        for entry in known.entries.values() {
            for attachment in &entry.record.container.network.attachments {
                if let Some(ipv4) = attachment.ipv4 {
                    self.addresses.recover(ipv4.address, attachment.endpoint);
                }
            }
        }
    }

    /// Makes links and published ports those of the containers that run.
    pub(crate) fn reconcile<'a>(
        &self,
        running: impl Iterator<Item = &'a Container> + Clone,
    ) -> Result<(), EngineError> {
        let endpoints = running.clone().flat_map(endpoints).collect();
        let ports: Vec<_> = running.flat_map(published).collect();
        Ok(self.host.reconcile(&[(self.default.bridge.clone(), endpoints)], &ports)?)
    }

    /// Removes every link, the bridge and the rules.
    pub(crate) fn tear_down(&self, may_block: &Blocking) -> Vec<EngineError> {
        let mut faults = self.retired.remove_all(may_block);
        faults.extend(self.host.remove_bridge(&self.default.bridge).err().map(Into::into));
        faults.extend(self.host.tear_down().err().map(Into::into));
        faults
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
        let own = self.default.ipv4();
        let endpoint = Id::random();
        let address = self.lease_address(may_block, endpoint)?;
        networking.attachments.push(Attachment {
            network: self.default.id,
            endpoint,
            interface: "eth0".to_owned(),
            mac: container.config.mac_address.unwrap_or_else(|| addresses::mac(address)),
            ipv4: Some(Addresses { address, prefix: own.prefix, gateway: Some(own.address) }),
            ipv6: None,
            aliases: Vec::new(),
        });
        match reserve(&wanted(container), held) {
            Ok(ports) => {
                networking.ports = ports.iter().map(|port| port.binding).collect();
                Ok((networking, ports))
            }
            Err(error) => {
                self.addresses.release(address, endpoint);
                Err(EngineError::new(
                    Class::Internal,
                    format!(
                        "driver failed programming external connectivity on endpoint {} \
                         ({endpoint}): {error}",
                        container.name
                    ),
                ))
            }
        }
    }

    /// Leases an address. That of a container that has ended can be had at once: if no other is
    /// free, the links that wait for a quiet moment are taken down now.
    fn lease_address(&self, may_block: &Blocking, endpoint: Id) -> Result<Ipv4Addr, EngineError> {
        loop {
            match self.addresses.lease(endpoint) {
                Ok(address) => return Ok(address),
                Err(Exhausted { retired: 0 }) => {
                    return Err(EngineError::internal(
                        "no available IPv4 addresses on this network's address pools: bridge; \
                         stop some containers",
                    ));
                }
                Err(Exhausted { .. }) => {
                    for fault in self.retired.remove_all(may_block) {
                        tracing::warn!(error = %fault, "take down a link");
                    }
                }
            }
        }
    }

    /// As Docker shows them, with the containers that are attached.
    pub(crate) fn views(&self, known: &Known) -> Vec<NetworkView> {
        let created = self.default.created;
        let view = |id: Id, name: &str, driver: &str| NetworkView {
            id,
            name: name.to_owned(),
            driver: driver.to_owned(),
            created,
            subnet: None,
            internal: false,
            containers: BTreeMap::new(),
        };
        let mut bridge = view(self.default.id, "bridge", "bridge");
        let own = self.default.ipv4();
        bridge.subnet =
            Some((addresses::network(own.address, own.prefix), own.prefix, own.address));
        bridge.internal = self.default.bridge.internal;
        for entry in known.entries.values() {
            let container = &entry.record.container;
            let own = container.network.attachments.iter();
            for attachment in own.filter(|attachment| attachment.network == self.default.id) {
                if let Some(ipv4) = attachment.ipv4 {
                    let name = container.name.to_string();
                    let entry = (name, attachment.endpoint, attachment.mac, ipv4.address);
                    bridge.containers.insert(container.id, entry);
                }
            }
        }
        // Ids of networks that are no bridge mean nothing but must stay the same.
        let derived = |name: &str| {
            let digest = Digest::of(format!("{}/{name}", self.default.id).as_bytes());
            digest.hex().parse().expect("a digest has as many digits as an id")
        };
        vec![bridge, view(derived("host"), "host", "host"), view(derived("none"), "none", "null")]
    }

    /// Gives a cloned container its links.
    pub(crate) fn plug(
        &self,
        container: &Container,
        netns: BorrowedFd<'_>,
    ) -> Result<(), EngineError> {
        match container.network.stack {
            NetworkStack::Bridge => {
                for endpoint in endpoints(container) {
                    self.host.plug(netns, &self.default.bridge, &endpoint)?;
                }
                let ports = published(container);
                if !ports.is_empty() {
                    bulkhead_failpoint::hit("network.publish")
                        .map_err(io_error("network.publish"))?;
                    self.host.publish(&ports)?;
                }
                Ok(())
            }
            NetworkStack::None => Ok(self.host.loopback_up(netns)?),
            NetworkStack::Host | NetworkStack::Container(_) => Ok(()),
        }
    }

    /// Has taken down what [`Self::plug`] and [`Self::lease`] made.
    pub(crate) fn unplug(&self, container: &Container, netns: Option<Arc<OwnedFd>>) {
        for attachment in &container.network.attachments {
            let (endpoint, Some(ipv4)) = (attachment.endpoint, attachment.ipv4) else { continue };
            if self.addresses.retire(ipv4.address, endpoint) {
                let (name, address) = (host_link(endpoint), ipv4.address);
                let netns = netns.clone();
                self.retired.retire(PendingUnplug { name, address, endpoint, netns });
            }
        }
    }

    pub(crate) fn unpublish(&self, container: &Container) -> Vec<EngineError> {
        let ports = published(container);
        if ports.is_empty() {
            return Vec::new();
        }
        self.host.unpublish(&ports).err().map(EngineError::from).into_iter().collect()
    }
}

pub(crate) fn endpoints(container: &Container) -> Vec<Endpoint> {
    let primary = container.network.primary().map(|attachment| attachment.endpoint);
    let endpoint = |attachment: &Attachment| Endpoint {
        host_link: host_link(attachment.endpoint),
        interface: attachment.interface.clone(),
        mac: attachment.mac,
        ipv4: attachment.ipv4.map(|ipv4| ipv4.address),
        ipv6: attachment.ipv6.map(|ipv6| ipv6.address),
        default_route: match primary == Some(attachment.endpoint) {
            true => DefaultRoute::Both,
            false => DefaultRoute::None,
        },
    };
    container.network.attachments.iter().map(endpoint).collect()
}

pub(crate) fn published(container: &Container) -> Vec<PublishedPort> {
    let Some(address) = container.network.address() else { return Vec::new() };
    let publish = |binding: &PortBinding| PublishedPort {
        protocol: binding.protocol,
        host_address: binding.host_address.into(),
        host_port: binding.host_port,
        container_address: address.into(),
        container_port: binding.container_port,
    };
    container.network.ports.iter().map(publish).collect()
}

/// A host's firewall has the last word, and Docker's own (FORWARD drops by default) is one: its
/// user should learn why containers reach nothing, and what to do.
fn warn_of_foreign_drops(host: &Host, bridge: &str) -> Result<(), EngineError> {
    for chain in host.foreign_forward_drops()? {
        tracing::warn!(
            "the firewall chain `{chain}` drops forwarded packets by default: containers reach other \
             machines, and are reached by their published ports, only if it accepts packets of {bridge} \
             (with iptables: `iptables -I FORWARD -i {bridge} -j ACCEPT` and `-o {bridge}`; where Docker \
             runs, in its chain DOCKER-USER)"
        );
    }
    Ok(())
}
