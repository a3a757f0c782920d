//! What containers call each other: told to the resolver as they start, change and end.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use bulkhead_types::Id;

use crate::blocking::{Blocking, blocking};
use crate::data_dir::write_file;
use crate::name_servers::{NameServers, name_servers};
use crate::presence::{has_names, presence};
use crate::{Container, Engine, EngineError};

impl Engine {
    /// Whether the container's names are answered by the resolver.
    pub(crate) fn has_names(&self, container: &Container) -> bool {
        has_names(container, self.networks.default_network().id)
    }

    /// How names are found from inside of a container for which [`Self::has_names`] holds.
    pub(crate) fn name_servers(&self, container: &Container) -> NameServers {
        // also with systemd-resolved's own address in it, which the resolver can ask
        let host_file = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        name_servers(&host_file, &self.with_defaults(container).host)
    }

    fn presence(&self, container: &Container) -> bulkhead_resolver::Container {
        let name_of = |text: &str| {
            let state = self.containers.lock();
            let found = state.entry(state.find(text).ok()?).ok()?;
            Some(found.record.container.name.to_string())
        };
        let default = self.networks.default_network().id;
        presence(container, default, self.name_servers(container), name_of)
    }

    /// Has names answered in a container whose links are plugged.
    pub(crate) fn attach_names(
        &self,
        container: &Container,
        netns: BorrowedFd<'_>,
    ) -> Result<(), EngineError> {
        match self.has_names(container) {
            true => self.name_service.attach(self.presence(container), netns),
            false => Ok(()),
        }
    }

    /// After the networks or the name of a container have changed, if it runs. One that comes to its
    /// first network with names gets the resolver's address; one that leaves its last keeps it.
    pub(crate) fn update_names(&self, id: Id) -> Result<(), EngineError> {
        let (container, netns) = {
            let state = self.containers.lock();
            let entry = state.entry(id)?;
            if !entry.record.is_running() {
                return Ok(());
            }
            (entry.record.container.clone(), entry.runtime.netns.clone())
        };
        if self.name_service.serves(id) {
            return self.name_service.update(self.presence(&container));
        }
        if !self.has_names(&container) {
            return Ok(());
        }
        let netns = netns.ok_or_else(|| EngineError::not_running(id))?;
        self.attach_names(&container, netns.as_fd())?;
        let text = self.name_servers(&container).resolv_conf;
        write_file(&self.data_dir.container(id)?, "resolv.conf", &text)
    }

    /// After a container has got another name: of itself, and of those that have links.
    pub(crate) fn update_names_after_rename(&self, id: Id) -> Result<(), EngineError> {
        let linking: Vec<Id> = {
            let state = self.containers.lock();
            let has_links = |container: &Container| {
                let on_networks = container.endpoints.iter().map(|endpoint| &endpoint.links);
                on_networks.chain([&container.host.links]).any(|links| !links.is_empty())
            };
            let linking = state
                .entries
                .iter()
                .filter(|(other, entry)| **other == id || has_links(&entry.record.container));
            linking.map(|(id, _)| *id).collect()
        };
        linking.into_iter().try_for_each(|id| self.update_names(id))
    }

    /// Makes what the resolver knows match the containers that run.
    pub(crate) fn recover_names(&self, may_block: &Blocking) {
        let running: Vec<_> = {
            let state = self.containers.lock();
            let live = state.entries.values().filter(|entry| entry.runtime.pidfd.is_some());
            live.map(|entry| (Arc::clone(&entry.record), entry.runtime.netns.clone())).collect()
        };
        let running = running
            .into_iter()
            .filter(|(record, _)| self.has_names(&record.container))
            .map(|(record, netns)| (self.presence(&record.container), netns))
            .collect();
        for fault in self.name_service.recover(may_block, running) {
            tracing::error!(error = %fault, "take up the names of running containers");
        }
    }

    /// After the resolver's death.
    pub(super) async fn replace_resolver(self: Arc<Self>) {
        if self.is_ending() {
            return;
        }
        tracing::warn!("the resolver of container names ended without being asked to");
        let engine = Arc::clone(&self);
        let revived = blocking(move |may_block| engine.name_service.revive(may_block)).await;
        if let Err(error) = revived {
            tracing::error!(%error, "start another resolver of container names");
        }
    }
}
