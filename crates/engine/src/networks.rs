//! The networks: their records, and the links, addresses and ports that containers have of them.

mod lease;
mod plug;
mod view;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_network::{Host, PublishedPort};
use bulkhead_store::load_all;
use bulkhead_types::{Id, Timestamp};

use crate::allocation::AllocationLock;
use crate::attached_network::AttachedNetwork;
use crate::blocking::Blocking;
use crate::containers::Known;
use crate::deferred_teardown::DeferredTeardown;
use crate::events::Events;
use crate::network::{
    self, CreateNetwork, HostFamilies, Network, check_name, default_local_subnets, default_subnets,
    gets_ipv6, read_pools,
};
use crate::records::Records;
use crate::subnet::{Address, Pool, Subnet};
use crate::transaction::Transaction;
use crate::{Class, Container, EngineError, Options, default_network};

pub use view::{NetworkEndpoint, NetworkView};

const PREFIX: &str = "user-network/";

fn key(id: Id) -> String {
    format!("{PREFIX}{id}")
}

/// The networks of one engine, under `network/bridge` and `user-network/` in the store, with their
/// links on this host.
#[derive(Debug)]
pub(crate) struct Networks {
    host: Arc<Host>,
    records: Arc<Records>,
    events: Arc<Events>,
    allocation: AllocationLock,
    default: Arc<AttachedNetwork>,
    /// The user's own. Held for moments: nothing blocks under it.
    known: Mutex<BTreeMap<Id, Arc<AttachedNetwork>>>,
    /// Links of containers that have ended.
    retired: Arc<DeferredTeardown>,
}

impl Networks {
    /// Chooses or reads the default network, and makes its bridge; reads the others.
    pub(crate) fn open(
        records: Arc<Records>,
        options: &Options,
        events: Arc<Events>,
        allocation: AllocationLock,
        runtime: tokio::runtime::Handle,
    ) -> Result<Self, EngineError> {
        let host = Host::open()?;
        let default = default_network::choose(records.store(), &host, options)?;
        let bridge = default.link();
        host.ensure_bridge(&bridge)?;
        warn_of_foreign_drops(&host, &bridge.name)?;
        let host = Arc::new(host);
        let recorded: Vec<(String, Network)> = load_all(records.store(), PREFIX)?;
        let known = recorded
            .into_iter()
            .map(|(_, network)| (network.id, Arc::new(AttachedNetwork::new(network))))
            .collect();
        let retired = Arc::new(DeferredTeardown::new(runtime, Arc::clone(&host)));
        Ok(Self {
            host,
            records,
            events,
            allocation,
            default: Arc::new(AttachedNetwork::new(default)),
            known: Mutex::new(known),
            retired,
        })
    }

    /// Notes that a container starts now: links of others wait.
    pub(crate) fn note_start(&self) {
        self.retired.touch();
    }

    pub(crate) fn default_network(&self) -> &Network {
        &self.default.network
    }

    /// All with bridges, the default one first, then the oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<AttachedNetwork>> {
        let mut own: Vec<_> = self.known().values().cloned().collect();
        own.sort_by_key(|network| network.network.created);
        [Arc::clone(&self.default)].into_iter().chain(own).collect()
    }

    pub(crate) fn get(&self, id: Id) -> Option<Arc<AttachedNetwork>> {
        match id == self.default.network.id {
            true => Some(Arc::clone(&self.default)),
            false => self.known().get(&id).cloned(),
        }
    }

    /// The network of this name.
    pub(crate) fn named(&self, name: &str) -> Result<Arc<AttachedNetwork>, EngineError> {
        if self.default.network.name == name {
            return Ok(Arc::clone(&self.default));
        }
        let known = self.known();
        let named = known.values().find(|network| network.network.name == name);
        named.cloned().ok_or_else(|| EngineError::not_found(format!("network {name} not found")))
    }

    /// Finds a network with a bridge by name, id or unambiguous start of an id, in this order.
    pub(crate) fn find(&self, text: &str) -> Result<Arc<AttachedNetwork>, EngineError> {
        let text = if text == "default" { "bridge" } else { text };
        network::find(self.all(), text, |one| (&one.network.name, one.network.id))
    }

    /// Makes a network, and its bridge; `engine` chooses the local prefix of IPv6.
    pub(crate) fn create(
        &self,
        may_block: &Blocking,
        engine: Id,
        request: CreateNetwork,
    ) -> Result<Network, EngineError> {
        check_name(&request.name)?;
        let chosen = read_pools(&request.pools)?;
        let with_ipv4 = request.ipv4.unwrap_or(true);
        let mtu = request.options.mtu.map_or_else(|| self.host.default_mtu(), Ok)?;
        let host = match self.host.has_ipv6()? {
            true => HostFamilies::Both,
            false => HostFamilies::Ipv4,
        };
        let with_ipv6 = gets_ipv6(request.ipv6, &chosen, host, mtu);
        if !with_ipv4 && !with_ipv6 {
            return Err(EngineError::invalid("IPv4 or IPv6 must be enabled"));
        }
        for (family, is_on, has_pool) in
            [("IPv4", with_ipv4, chosen.ipv4.is_some()), ("IPv6", with_ipv6, chosen.ipv6.is_some())]
        {
            if !is_on && has_pool {
                return Err(EngineError::invalid(format!(
                    "a subnet of {family} is named and {family} is switched off; leave one of them out"
                )));
            }
        }
        let _allocating = self.allocation.hold(may_block);
        let others = self.all();
        if others.iter().any(|other| other.network.name == request.name) {
            return Err(EngineError::conflict(format!(
                "network with name {} already exists",
                request.name
            )));
        }
        let ipv4 = match with_ipv4 {
            true => Some(self.choose(chosen.ipv4, default_subnets(), |network| &network.ipv4)?),
            false => None,
        };
        let local = default_local_subnets(engine);
        let ipv6 = match with_ipv6 {
            true => Some(self.choose(chosen.ipv6, local, |network| &network.ipv6)?),
            false => None,
        };
        let network = Network {
            id: Id::random(),
            name: request.name,
            created: Timestamp::now(),
            internal: request.internal,
            attachable: request.attachable,
            mtu,
            ipv4,
            ipv6,
            bridge: request.options,
            labels: request.labels,
            ipam_options: request.ipam_options,
        };
        let bridge = network.link();
        if self.host.has_link(&bridge.name)? {
            return Err(EngineError::conflict(format!(
                "an interface called {} exists on this host; name another one",
                bridge.name
            )));
        }
        let mut transaction = Transaction::default();
        let attached = Arc::new(AttachedNetwork::new(network.clone()));
        transaction.put(key(network.id), &network, || {
            self.known().insert(attached.network.id, attached);
        });
        transaction.commit(&self.records, may_block)?;
        bulkhead_failpoint::pass("network.recorded");
        // One whose engine dies here has its bridge from the next.
        if let Err(error) = self.host.ensure_bridge(&bridge) {
            if let Err(fault) = self.forget(may_block, &network) {
                tracing::error!(network = network.name, error = %fault, "undo a creation");
            }
            return Err(error.into());
        }
        self.events.network(&network, "create", None);
        Ok(network)
    }

    /// The pool that was asked for, or the first of `defaults` that neither a network nor a route of
    /// this host overlaps.
    fn choose<A: Address + Into<std::net::IpAddr>>(
        &self,
        asked: Option<Pool<A>>,
        mut defaults: impl Iterator<Item = Subnet<A>>,
        of: impl Fn(&Network) -> &Option<Pool<A>>,
    ) -> Result<Pool<A>, EngineError> {
        let all = self.all();
        let holder = |subnet: &Subnet<A>| {
            let overlaps = |network: &&Arc<AttachedNetwork>| {
                of(&network.network).as_ref().is_some_and(|pool| pool.subnet.overlaps(subnet))
            };
            all.iter().find(overlaps)
        };
        if let Some(pool) = asked {
            return match holder(&pool.subnet) {
                None => Ok(pool),
                Some(other) => Err(EngineError::new(
                    Class::Denied,
                    format!(
                        "invalid pool request: Pool overlaps with other one on this address space: {} \
                         with network {}; name another subnet",
                        pool.subnet, other.network.name
                    ),
                )),
            };
        }
        let used = self.host.used_subnets()?;
        defaults
            .find(|subnet| {
                holder(subnet).is_none()
                    && !used.overlaps(subnet.first().into(), subnet.prefix())
            })
            .map(Pool::of)
            .ok_or_else(|| {
                EngineError::new(
                    Class::Denied,
                    format!(
                        "all predefined address pools have been fully subnetted ({}): name a subnet \
                         with --subnet, or remove networks that are not used (docker network prune)",
                        A::FAMILY
                    ),
                )
            })
    }

    /// Removes a network that no running container is on, its bridge first: one whose engine dies
    /// then has it again from the next.
    pub(crate) fn remove(
        &self,
        may_block: &Blocking,
        id: Id,
        users: impl FnOnce() -> Vec<(String, Id)>,
    ) -> Result<(), EngineError> {
        let _allocating = self.allocation.hold(may_block);
        let found = self.known().get(&id).cloned();
        let Some(attached) = found else {
            return Err(EngineError::not_found(format!("network {id} not found")));
        };
        let network = &attached.network;
        if attached.is_in_use() {
            let users: Vec<String> = users()
                .into_iter()
                .map(|(name, endpoint)| format!("name:\"{name}\" id:\"{}\"", endpoint.short()))
                .collect();
            return Err(EngineError::new(
                Class::Denied,
                format!(
                    "error while removing network: network {} has active endpoints ({})",
                    network.name,
                    users.join(", ")
                ),
            ));
        }
        // What only waits to be taken down is on the bridge still.
        for fault in self.retired.remove_all(may_block) {
            tracing::warn!(error = %fault, "take down a link");
        }
        self.host.remove_bridge(&network.link())?;
        bulkhead_failpoint::pass("network.bridge-removed");
        if let Err(error) = self.forget(may_block, network) {
            if let Err(fault) = self.host.ensure_bridge(&network.link()) {
                tracing::error!(network = network.name, error = %fault, "undo a removal");
            }
            return Err(error);
        }
        self.events.network(network, "destroy", None);
        Ok(())
    }

    fn forget(&self, may_block: &Blocking, network: &Network) -> Result<(), EngineError> {
        let mut transaction = Transaction::default();
        transaction.delete(key(network.id), || drop(self.known().remove(&network.id)));
        transaction.commit(&self.records, may_block)
    }

    /// Notes the leases of what is recorded.
    pub(crate) fn recover(&self, known: &Known) {
        for entry in known.entries.values() {
            for lease in self.leases(&entry.record.container) {
                lease.recover();
            }
        }
    }

    /// Makes bridges, links and published ports those of the containers that run. A network of the
    /// user's whose bridge cannot be made is told in the log, and keeps nobody else from his.
    pub(crate) fn reconcile<'a>(
        &self,
        running: impl Iterator<Item = &'a Container> + Clone,
    ) -> Result<(), EngineError> {
        let mut bridges = Vec::new();
        for attached in self.all() {
            let bridge = attached.network.link();
            if attached.network.id != self.default.network.id
                && let Err(error) = self.host.ensure_bridge(&bridge)
            {
                tracing::error!(network = attached.network.name, %error, "make a bridge again");
                continue;
            }
            let on_it = running.clone().flat_map(|container| {
                container
                    .network
                    .attachments
                    .iter()
                    .filter(|attachment| attachment.network == attached.network.id)
                    .map(|attachment| plug::endpoint(&container.network, attachment))
            });
            bridges.push((bridge, on_it.collect()));
        }
        let ports: Vec<PublishedPort> = running.flat_map(plug::published).collect();
        Ok(self.host.reconcile(&bridges, &ports)?)
    }

    /// Removes every link, the bridges and the rules; the records stay.
    pub(crate) fn tear_down(&self, may_block: &Blocking) -> Vec<EngineError> {
        let mut faults = self.retired.remove_all(may_block);
        for attached in self.all() {
            faults.extend(self.host.remove_bridge(&attached.network.link()).err().map(Into::into));
        }
        faults.extend(self.host.tear_down().err().map(Into::into));
        faults
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Id, Arc<AttachedNetwork>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
