//! A container's place in the network: leased, plugged in, published, and taken down again.

use std::net::Ipv4Addr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use bulkhead_network::{Bridge, Endpoint, PublishedPort};
use bulkhead_store::{Store, load, put};
use bulkhead_types::Id;

use crate::address_pool::Exhausted;
use crate::blocking::Blocking;
use crate::data_dir::write_file;
use crate::deferred_teardown::PendingUnplug;
use crate::error::io_error;
use crate::hosts::{HostLine, hosts_file, resolv_conf};
use crate::ports::{Reservation, reserve, wanted};
use crate::{
    Addresses, Attachment, Class, Container, Engine, EngineError, Link, NetworkStack, Networking,
    Options, PortBinding, links, pool,
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

    /// The recorded one, or one on a subnet that no route of this host overlaps.
    pub(crate) fn choose(
        store: &dyn Store,
        host: &bulkhead_network::Host,
        options: &Options,
    ) -> Result<Self, EngineError> {
        let recorded: Option<Self> = load(store, Self::KEY)?;
        let told = options.bridge_address;
        if let Some(network) = recorded
            && (options.bridge.is_empty() || network.bridge.name == options.bridge)
            && told.is_none_or(|told| told == (network.bridge.gateway, network.bridge.prefix))
        {
            return Ok(network);
        }
        let (gateway, prefix) = match told {
            Some(told) => told,
            None => free_subnet(host)?,
        };
        let network = Self {
            id: Id::random(),
            bridge: Bridge {
                name: match options.bridge.as_str() {
                    "" => "bulkhead0".to_owned(),
                    name => name.to_owned(),
                },
                gateway,
                prefix,
                mtu: host.default_mtu()?,
                internal: false,
            },
            created: bulkhead_types::Timestamp::now(),
        };
        store.commit(&[], &[put(Self::KEY, &network)])?;
        Ok(network)
    }
}

fn free_subnet(host: &bulkhead_network::Host) -> Result<(Ipv4Addr, u8), EngineError> {
    for second in 17..32 {
        let gateway = Ipv4Addr::new(172, second, 0, 1);
        if !host.overlaps(Ipv4Addr::new(172, second, 0, 0), 16)? {
            return Ok((gateway, 16));
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

impl Engine {
    /// Leases what a start needs, in memory; recorded with the start's transaction.
    pub(crate) fn lease(
        &self,
        may_block: &Blocking,
        container: &Container,
    ) -> Result<(Networking, Vec<Reservation>), EngineError> {
        let mut networking = Networking::detached(container.network.stack);
        if networking.stack != NetworkStack::Bridge {
            return Ok((networking, Vec::new()));
        }
        let bridge = &self.network.bridge;
        let endpoint = Id::random();
        let address = self.lease_address(may_block, endpoint)?;
        let ours = self.containers.lock().published();
        networking.attachments.push(Attachment {
            network: self.network.id,
            endpoint,
            interface: "eth0".to_owned(),
            mac: container.config.mac_address.unwrap_or_else(|| pool::mac(address)),
            ipv4: Some(Addresses { address, prefix: bridge.prefix, gateway: Some(bridge.gateway) }),
            ipv6: None,
            aliases: Vec::new(),
        });
        match reserve(&wanted(container), &ours) {
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
                    for fault in self.remove_retired(may_block) {
                        tracing::warn!(error = %fault, "take down a link");
                    }
                }
            }
        }
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
                    self.host.plug(netns, &self.network.bridge, &endpoint)?;
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
    pub(crate) fn unplug(self: &Arc<Self>, container: &Container, netns: Option<Arc<OwnedFd>>) {
        for attachment in &container.network.attachments {
            let (endpoint, Some(ipv4)) = (attachment.endpoint, attachment.ipv4) else { continue };
            if self.addresses.retire(ipv4.address, endpoint) {
                let (name, address) = (host_link(endpoint), ipv4.address);
                let netns = netns.clone();
                self.retire(PendingUnplug { name, address, endpoint, netns });
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

    /// Writes `hosts`, `hostname` and `resolv.conf` of a container that is about to start.
    pub(crate) fn write_files(
        &self,
        container: &Container,
        directory: &OwnedFd,
    ) -> Result<(), EngineError> {
        write_file(directory, "hostname", &format!("{}\n", container.config.hostname))?;
        if matches!(container.network.stack, NetworkStack::Container(_)) {
            return Ok(());
        }
        write_file(directory, "hosts", &self.hosts_text(container)?)?;
        let host_file = match container.network.stack {
            // The host's servers are reached from the host's network, its loopback ones too.
            NetworkStack::Host if container.host.dns.is_empty() => {
                let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
                return write_file(directory, "resolv.conf", &text);
            }
            _ => host_resolv_conf(),
        };
        write_file(directory, "resolv.conf", &resolv_conf(&host_file, &container.host))
    }

    fn hosts_text(&self, container: &Container) -> Result<String, EngineError> {
        let mut lines = Vec::new();
        for (alias, target) in self.linked(container)? {
            if let Some(address) = target.network.address() {
                lines.push(links::host_line(&alias, &target, address));
            }
        }
        for extra in &container.host.extra_hosts {
            lines.push(extra.line(self.network.bridge.gateway));
        }
        if container.network.stack == NetworkStack::Host {
            let mut text = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
            if !text.ends_with('\n') {
                text.push('\n');
            }
            for HostLine { address, names } in lines {
                text.push_str(&format!("{address}\t{}\n", names.join(" ")));
            }
            return Ok(text);
        }
        let config = &container.config;
        let own = container
            .network
            .address()
            .map(|address| (address, config.hostname.as_str(), config.domainname.as_str()));
        Ok(hosts_file(&lines, own))
    }

    /// The containers that `--link` names, which must run: (alias, container).
    pub(crate) fn linked(
        &self,
        container: &Container,
    ) -> Result<Vec<(String, Container)>, EngineError> {
        let mut all = Vec::new();
        let state = self.containers.lock();
        for link in &container.host.links {
            let alias = &link.alias;
            let target = &state.entry(state.find(&link.container)?)?.record;
            if !target.is_running() {
                return Err(EngineError::conflict(format!(
                    "Cannot link to a non running container: /{} AS /{}/{alias}",
                    target.container.name, container.name
                )));
            }
            all.push((alias.clone(), target.container.clone()));
        }
        Ok(all)
    }

    /// After `target` has got a new address: tells the running containers that are linked to it.
    pub(crate) fn refresh_links(&self, target: Id) {
        let linking: Vec<Container> = {
            let state = self.containers.lock();
            let links_to_target = |container: &Container| {
                let names_it =
                    |link: &Link| state.find(&link.container).is_ok_and(|id| id == target);
                container.host.links.iter().any(names_it)
            };
            state
                .entries
                .values()
                .filter(|entry| {
                    entry.record.is_running() && links_to_target(&entry.record.container)
                })
                .map(|entry| entry.record.container.clone())
                .collect()
        };
        for container in linking {
            let rewritten = self.hosts_text(&container).and_then(|text| {
                write_file(&self.data_dir.container(container.id)?, "hosts", &text)
            });
            if let Err(error) = rewritten {
                tracing::warn!(container = %container.name, %error, "hosts file is not up to date");
            }
        }
    }
}

pub(crate) fn endpoints(container: &Container) -> Vec<Endpoint> {
    let endpoint = |attachment: &Attachment| {
        Some(Endpoint {
            host_link: host_link(attachment.endpoint),
            interface: attachment.interface.clone(),
            address: attachment.ipv4?.address,
            mac: attachment.mac,
        })
    };
    container.network.attachments.iter().filter_map(endpoint).collect()
}

pub(crate) fn published(container: &Container) -> Vec<PublishedPort> {
    let Some(address) = container.network.address() else { return Vec::new() };
    let publish = |binding: &PortBinding| PublishedPort {
        protocol: binding.protocol,
        host_address: binding.host_address,
        host_port: binding.host_port,
        container_address: address,
        container_port: binding.container_port,
    };
    container.network.ports.iter().map(publish).collect()
}

/// The host's resolver configuration; systemd-resolved keeps the real servers in another file.
fn host_resolv_conf() -> String {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let only_stub = text.lines().filter(|line| line.starts_with("nameserver")).all(|line| {
        line.split_whitespace().nth(1).is_some_and(|server| server.starts_with("127.0.0.5"))
    });
    match only_stub {
        true => std::fs::read_to_string("/run/systemd/resolve/resolv.conf").unwrap_or(text),
        false => text,
    }
}
