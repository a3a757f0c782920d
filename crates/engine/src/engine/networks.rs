//! The networks for clients: what concerns containers too.

use std::net::Ipv4Addr;
use std::sync::Arc;

use bulkhead_types::Id;

use crate::blocking::blocking;
use crate::network;
use crate::{
    Class, Container, CreateNetwork, Engine, EngineError, Network, NetworkDriver, NetworkView,
};

impl Engine {
    pub fn networks(&self) -> Vec<NetworkView> {
        self.networks.views(&self.containers.lock())
    }

    /// Finds a network by name, id or unambiguous start of an id, in this order.
    pub fn network(&self, text: &str) -> Result<NetworkView, EngineError> {
        network::find(self.networks(), text, |view| (&view.name, view.id))
    }

    pub async fn create_network(
        self: &Arc<Self>,
        request: CreateNetwork,
    ) -> Result<Network, EngineError> {
        let engine = Arc::clone(self);
        blocking(move |may_block| engine.networks.create(may_block, engine.id, request)).await
    }

    /// Removes a network that no running container is on.
    pub async fn remove_network(self: &Arc<Self>, view: &NetworkView) -> Result<(), EngineError> {
        if view.is_predefined() {
            return Err(EngineError::new(
                Class::Denied,
                format!("{} is a pre-defined network and cannot be removed", view.name),
            ));
        }
        let engine = Arc::clone(self);
        let id = view.id;
        blocking(move |may_block| {
            let users = || engine.users_of_network(id);
            engine.networks.remove(may_block, id, users)
        })
        .await
    }

    /// The containers that run on a network, with their endpoints.
    fn users_of_network(&self, network: Id) -> Vec<(String, Id)> {
        let known = self.containers.lock();
        let records = known.entries.values().map(|entry| &entry.record.container);
        records
            .filter_map(|container| {
                let attachment = container.network.on(network)?;
                Some((container.name.to_string(), attachment.endpoint))
            })
            .collect()
    }

    /// A container's address on the default network, where links of the old kind lead to.
    pub(crate) fn default_address(&self, container: &Container) -> Option<Ipv4Addr> {
        let attachment = container.network.on(self.networks.default_network().id)?;
        Some(attachment.ipv4?.address)
    }

    /// The address by which a container reaches this host: its own gateway's, where it has one.
    pub(crate) fn gateway_of(&self, container: &Container) -> Ipv4Addr {
        // That of an interface of the host's leads to another machine.
        let own = container.network.gateway().filter(|it| it.driver == NetworkDriver::Bridge);
        let own = own.and_then(|gateway| self.networks.get(gateway.network));
        let own = own.and_then(|attached| Some(attached.network.ipv4.as_ref()?.gateway));
        let default = self.networks.default_network().ipv4.as_ref();
        own.or_else(|| default.map(|pool| pool.gateway)).unwrap_or(Ipv4Addr::LOCALHOST)
    }
}
