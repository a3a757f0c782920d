//! `docker network connect` and `disconnect`.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bulkhead_types::Id;

use crate::blocking::{Blocking, blocking};
use crate::error::io_error;
use crate::ports::Reservation;
use crate::{
    Class, Container, EndpointConfig, Engine, EngineError, NetworkStack, NetworkView, Networking,
};

impl Engine {
    /// Connects a container to a network: at once if it runs, else with its next start.
    ///
    /// # Errors
    /// A conflict or a denial where it is on the network already, or has no network of its own.
    pub async fn connect(
        self: &Arc<Self>,
        container: Id,
        network: &NetworkView,
        config: EndpointConfig,
    ) -> Result<(), EngineError> {
        if network.network.is_none() {
            return Err(EngineError::invalid(match network.name.as_str() {
                "host" => {
                    "cannot connect container to host network - container must be created in host \
                     network mode"
                }
                _ => {
                    "container cannot be connected to multiple networks with one of the networks in \
                     private (none) mode"
                }
            }));
        }
        let guard = self.containers.exclusive(container).await?;
        let engine = Arc::clone(self);
        let config = EndpointConfig { network: network.name.clone(), ..config };
        blocking(move |may_block| {
            let _guard = guard;
            engine.connect_now(may_block, container, config)
        })
        .await
    }

    fn connect_now(
        self: &Arc<Self>,
        may_block: &Blocking,
        id: Id,
        config: EndpointConfig,
    ) -> Result<(), EngineError> {
        let record = self.containers.record(id)?;
        let before = record.container.clone();
        match before.network.stack {
            NetworkStack::Bridge => {}
            NetworkStack::None => {
                return Err(EngineError::invalid(
                    "container cannot be connected to multiple networks with one of the networks in \
                     private (none) mode",
                ));
            }
            NetworkStack::Host | NetworkStack::Container(_) | NetworkStack::Netns => {
                return Err(EngineError::invalid(
                    "container sharing network namespace with another container or host cannot be \
                     connected to any other network",
                ));
            }
        }
        let attached = self.networks.named(&config.network)?;
        self.networks.check(&attached, &config)?;
        if before.endpoints.iter().any(|endpoint| endpoint.network == config.network) {
            return Err(EngineError::new(
                Class::Denied,
                format!(
                    "endpoint with name {} already exists in network {}",
                    before.name, config.network
                ),
            ));
        }
        let mut after = before.clone();
        after.endpoints.push(config.clone());
        if !record.is_running() {
            self.containers.change(may_block, id, |record| record.container = after)?;
            return Ok(());
        }
        let netns = self.running_netns(id)?;
        let attachment = self.networks.attach(may_block, &config, &before.network)?;
        after.network.attachments.push(attachment.clone());
        let ports = self.rebind(&before, &mut after);
        // The link first: one that an engine leaves which dies here is in no record, and goes.
        let connected = self
            .networks
            .plug_one(&after.network, &attachment, netns.as_fd())
            .and_then(|()| bulkhead_failpoint::hit("connect.plugged").map_err(io_error("connect")))
            .and_then(|()| {
                let container = after.clone();
                self.containers.change(may_block, id, |record| record.container = container)
            });
        if let Err(error) = connected {
            if let Err(fault) = self.networks.unplug_one(may_block, &attachment, netns.as_fd()) {
                tracing::warn!(container = %before.name, error = %fault, "undo a connection");
            }
            return Err(error);
        }
        self.keep_ports(&after, ports)?;
        self.move_gateway(&before, &after, &netns)?;
        self.events.network(&attached.network, "connect", Some(id));
        self.update_names(id)
    }

    /// Takes a container off a network: at once if it runs.
    ///
    /// # Errors
    /// Denied, where it is not on it.
    pub async fn disconnect(
        self: &Arc<Self>,
        container: Id,
        network: &NetworkView,
    ) -> Result<(), EngineError> {
        if network.name == "host" {
            return Err(EngineError::invalid(
                "container cannot be disconnected from host network or connected to host network",
            ));
        }
        let guard = self.containers.exclusive(container).await?;
        let engine = Arc::clone(self);
        let name = network.name.clone();
        blocking(move |may_block| {
            let _guard = guard;
            engine.disconnect_now(may_block, container, &name)
        })
        .await
    }

    fn disconnect_now(
        self: &Arc<Self>,
        may_block: &Blocking,
        id: Id,
        network: &str,
    ) -> Result<(), EngineError> {
        let record = self.containers.record(id)?;
        let before = record.container.clone();
        if !before.endpoints.iter().any(|endpoint| endpoint.network == network) {
            return Err(EngineError::new(
                Class::Denied,
                format!("container {id} is not connected to network {network}"),
            ));
        }
        let mut after = before.clone();
        after.endpoints.retain(|endpoint| endpoint.network != network);
        let is_on_it = |attachment: &crate::Attachment| attachment.network_name == network;
        let attachment = before.network.attachments.iter().find(|it| is_on_it(it)).cloned();
        after.network.attachments.retain(|attachment| !is_on_it(attachment));
        let ports = self.rebind(&before, &mut after);
        // The record first: the link of an engine that dies here is in none, and goes.
        let container = after.clone();
        self.containers.change(may_block, id, |record| record.container = container)?;
        bulkhead_failpoint::pass("disconnect.recorded");
        let Some(attachment) = attachment else { return Ok(()) };
        // Its name goes before its address, which another may have at once.
        let forgotten = self.update_names(id);
        let netns = self.running_netns(id)?;
        let unplugged = self.networks.unplug_one(may_block, &attachment, netns.as_fd());
        self.keep_ports(&after, ports)?;
        self.move_gateway(&before, &after, &netns)?;
        if let Some(attached) = self.networks.get(attachment.network) {
            self.events.network(&attached.network, "disconnect", Some(id));
        }
        unplugged.and(forgotten)
    }

    /// Reserves the host ports that a container of another network has besides.
    fn rebind(&self, before: &Container, after: &mut Container) -> Vec<Reservation> {
        if gateways(&before.network) == gateways(&after.network) {
            return Vec::new();
        }
        let held = self.containers.lock().published();
        self.networks.rebind(after, &held)
    }

    /// Holds these ports besides, and gives those back that are in the record no more.
    fn keep_ports(&self, after: &Container, more: Vec<Reservation>) -> Result<(), EngineError> {
        let mut state = self.containers.lock();
        let held = &mut state.entry_mut(after.id)?.runtime.ports;
        held.retain(|port| after.network.ports.contains(&port.binding));
        held.extend(more);
        Ok(())
    }

    /// Sets default route and published ports anew, where another network has them now.
    fn move_gateway(
        &self,
        before: &Container,
        after: &Container,
        netns: &OwnedFd,
    ) -> Result<(), EngineError> {
        if gateways(&before.network) == gateways(&after.network) {
            return Ok(());
        }
        self.networks.route(&after.network, netns.as_fd())?;
        for fault in self.networks.unpublish(before) {
            tracing::warn!(container = %before.name, error = %fault, "publish by another network");
        }
        self.networks.publish(after)
    }

    fn running_netns(&self, id: Id) -> Result<Arc<OwnedFd>, EngineError> {
        let netns = self.containers.lock().entry(id)?.runtime.netns.clone();
        netns.ok_or_else(|| EngineError::not_running(id))
    }
}

fn gateways(networking: &Networking) -> [Option<Id>; 2] {
    [networking.gateway(), networking.gateway6()]
        .map(|gateway| gateway.map(|attachment| attachment.endpoint))
}
