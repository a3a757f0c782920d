//! The networks: their records, and the links, addresses and ports that containers have of them.

mod lease;
mod plug;
mod view;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_network::{
    Bridge, Forwarding, GatewayMode, Host, NetworkError, PublishPolicy, PublishedPort,
};
use bulkhead_store::load_all;
use bulkhead_types::{Id, Timestamp};

use crate::allocation::AllocationLock;
use crate::attached_network::AttachedNetwork;
use crate::blocking::Blocking;
use crate::containers::Known;
use crate::deferred_teardown::{DeferredTeardown, PendingUnplug};
use crate::events::Events;
use crate::network::{
    self, CreateNetwork, HostFamilies, Network, SubnetPools, check_name, gets_ipv6, read_pools,
};
use crate::parent_links::{ParentLinks, ParentRequest};
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
    pools: SubnetPools,
    default: Arc<AttachedNetwork>,
    publish_policy: PublishPolicy,
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
        let host = Host::open()?.with_forwarding(match options.ip_forward {
            true => Forwarding::SwitchOn,
            false => Forwarding::Leave,
        });
        let default = default_network::choose(records.store(), &host, options)?;
        let publish_policy = options.publish_policy.clone();
        let bridge = Bridge { publish_policy: publish_policy.clone(), ..default.link() };
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
            pools: options.address_pools.clone(),
            default: Arc::new(AttachedNetwork::new(default)),
            publish_policy,
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
        let with_ipv6 = match &request.parent {
            None => gets_ipv6(request.ipv6, &chosen, host, mtu),
            // Whoever is out there gives out addresses of his own.
            Some(_) => request.ipv6.unwrap_or(chosen.ipv6.is_some()),
        };
        if !with_ipv4 && !with_ipv6 {
            return Err(EngineError::invalid("IPv4 or IPv6 must be enabled"));
        }
        // moby: daemon/libnetwork/drivers/bridge, parseNetworkOptions
        let access = &request.options.access;
        let is_isolated = [access.ipv4.mode, access.ipv6.mode].contains(&GatewayMode::Isolated);
        if is_isolated && !request.internal {
            return Err(EngineError::invalid(
                "gateway mode 'isolated' can only be used for an internal network; add --internal",
            ));
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
            true => Some(self.choose(chosen.ipv4, self.pools.ipv4(), |network| &network.ipv4)?),
            false => None,
        };
        let local = self.pools.ipv6(engine);
        let ipv6 = match with_ipv6 {
            true => Some(self.choose(chosen.ipv6, local, |network| &network.ipv6)?),
            false => None,
        };
        let id = Id::random();
        let parent = request.parent.map(|asked| self.parent_links(&asked, id, request.internal));
        let parent = parent.transpose()?;
        let is_dummy =
            |links: &ParentLinks| matches!(links.parent, bulkhead_network::Parent::Dummy(_));
        let network = Network {
            id,
            name: request.name,
            created: Timestamp::now(),
            // What leads nowhere leads nowhere (moby says so too, of a parent that is not named).
            internal: request.internal || parent.as_ref().is_some_and(is_dummy),
            attachable: request.attachable,
            mtu,
            ipv4,
            ipv6,
            bridge: request.options,
            parent,
            labels: request.labels,
            ipam_options: request.ipam_options,
        };
        let bridge = network.link_name();
        if network.parent.is_none() && self.host.has_link(&bridge)? {
            return Err(EngineError::conflict(format!(
                "an interface called {bridge} exists on this host; name another one"
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
        if let Err(error) = self.ensure(&network) {
            if let Err(fault) = self.forget(may_block, &network) {
                tracing::error!(network = network.name, error = %fault, "undo a creation");
            }
            return Err(error);
        }
        self.events.network(&network, "create", None);
        Ok(network)
    }

    /// What a network is to be on that has no bridge.
    fn parent_links(
        &self,
        asked: &ParentRequest,
        id: Id,
        internal: bool,
    ) -> Result<ParentLinks, EngineError> {
        let parent = asked.parent(id, internal)?;
        let mut links = ParentLinks { driver: asked.driver, parent, own_parent: false };
        let name = links.parent.name();
        let mut is_made_by_us = false;
        for other in self.all() {
            let Some(others) = &other.network.parent else { continue };
            if links.excludes(others) {
                return Err(EngineError::new(
                    Class::Denied,
                    format!(
                        "network {} is already using parent interface {name}, and another of this kind \
                         cannot be beside it; name another parent",
                        other.network.name
                    ),
                ));
            }
            is_made_by_us |= others.own_parent && others.parent.name() == name;
        }
        links.own_parent = is_made_by_us || !self.host.has_link(&name)?;
        Ok(links)
    }

    /// Makes what the links of a network are on.
    fn ensure(&self, network: &Network) -> Result<(), EngineError> {
        match &network.parent {
            None => Ok(self.host.ensure_bridge(&self.bridge(network))?),
            Some(links) => match self.host.ensure_parent(&links.parent) {
                Ok(_) => Ok(()),
                Err(error @ NetworkError::NoSuchLink(_)) => {
                    let words = format!(
                        "{error}: name an interface of this host as the parent, or one such as eth0.10 \
                         for a VLAN of it"
                    );
                    Err(EngineError::invalid(words))
                }
                Err(error) => Err(error.into()),
            },
        }
    }

    /// Removes it; a parent that was the host's own, or that another network is on, stays. Of a bridge
    /// only the link is left, out of use and without its name, until there is a quiet moment.
    fn remove_link(&self, may_block: &Blocking, network: &Network) -> Result<(), EngineError> {
        let Some(links) = &network.parent else {
            if let Some(link) = self.host.retire_bridge(&self.bridge(network))? {
                self.retired.retire(PendingUnplug::bridge(link));
            }
            return Ok(());
        };
        // what only waits to be taken down is on the parent still
        for fault in self.retired.remove_all(may_block) {
            tracing::warn!(error = %fault, "take down a link");
        }
        let shares = |other: &Arc<AttachedNetwork>| {
            let parent = other.network.parent.as_ref();
            other.network.id != network.id
                && parent.is_some_and(|other| other.parent.name() == links.parent.name())
        };
        match links.own_parent && !self.all().iter().any(shares) {
            true => Ok(self.host.remove_parent(&links.parent)?),
            false => Ok(()),
        }
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
        self.remove_link(may_block, network)?;
        bulkhead_failpoint::pass("network.bridge-removed");
        if let Err(error) = self.forget(may_block, network) {
            if let Err(fault) = self.ensure(network) {
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
            if let Some(links) = &attached.network.parent {
                if links.own_parent
                    && let Err(error) = self.ensure(&attached.network)
                {
                    tracing::error!(network = attached.network.name, %error, "make a network again");
                }
                continue;
            }
            let bridge = self.bridge(&attached.network);
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
        let ports: Vec<PublishedPort> = running.flat_map(|one| self.published(one)).collect();
        for (link, error) in self.host.reconcile(&bridges, &ports)? {
            if link == self.default.network.link_name() {
                return Err(error.into());
            }
            tracing::error!(link, %error, "make a network again");
        }
        Ok(())
    }

    /// Puts back what somebody has taken away of our firewall's rules, and tells it in the log.
    pub(crate) fn mend(&self) -> Result<(), EngineError> {
        if !self.host.is_intact()? && self.host.mend()? {
            tracing::warn!(
                "somebody has removed rules of the nftables tables called bulkhead, or br_netfilter has \
                 changed: they are put back, but not what the administrator had put into the chain user"
            );
        }
        Ok(())
    }

    /// Removes every link, the bridges and the rules; the records stay.
    pub(crate) fn tear_down(&self, may_block: &Blocking) -> Vec<EngineError> {
        let mut faults = self.retired.remove_all(may_block);
        for attached in self.all() {
            // of two on one parent the second finds it gone
            faults.extend(
                match &attached.network.parent {
                    None => self.host.remove_bridge(&self.bridge(&attached.network)).err(),
                    Some(links) if links.own_parent => self.host.remove_parent(&links.parent).err(),
                    Some(_) => None,
                }
                .map(Into::into),
            );
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
