//! The files that a container has of the engine in its `/etc`: `hosts`, `hostname` and `resolv.conf`.

use std::os::fd::OwnedFd;

use bulkhead_types::Id;

use crate::data_dir::write_file;
use crate::extra_host::HostLine;
use crate::hosts::{hosts_file, resolv_conf};
use crate::{Container, Engine, EngineError, ExtraHost, Link, NetworkDriver, NetworkStack, links};

impl Engine {
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
        let container = &self.with_defaults(container);
        let host_file = match container.network.stack {
            // The host's servers are reached from the host's network, its loopback ones too.
            NetworkStack::Host if container.host.dns.is_empty() => {
                let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
                return write_file(directory, "resolv.conf", &text);
            }
            _ if self.has_names(container) => {
                let text = self.name_servers(container).resolv_conf;
                return write_file(directory, "resolv.conf", &text);
            }
            // What ip-netns(8) has processes in the namespace see.
            NetworkStack::Netns => {
                let own = container.host.network_mode.to_string().replacen(':', "/", 1);
                std::fs::read_to_string(format!("/etc/{own}/resolv.conf"))
                    .unwrap_or_else(|_| host_resolv_conf())
            }
            _ => host_resolv_conf(),
        };
        write_file(directory, "resolv.conf", &resolv_conf(&host_file, &container.host))
    }

    fn hosts_text(&self, container: &Container) -> Result<String, EngineError> {
        let mut lines = Vec::new();
        for (alias, target) in self.linked(container)? {
            if let Some(address) = self.default_address(&target) {
                lines.push(links::host_line(&alias, &target, address));
            }
        }
        let gateways = match self.settings().containers.host_gateways.as_slice() {
            [] => vec![self.gateway_of(container).into()],
            told => told.to_vec(),
        };
        for extra in &container.host.extra_hosts {
            lines.extend(extra.lines(&gateways));
        }
        lines.extend(self.host_line(container));
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

    /// `host.docker.internal` where no resolver answers it: on the default network. A name that was asked
    /// for stays what it was asked to be.
    fn host_line(&self, container: &Container) -> Option<HostLine> {
        let is_asked = |host: &ExtraHost| host.name() == HOST_NAME;
        if self.has_names(container) || container.host.extra_hosts.iter().any(is_asked) {
            return None;
        }
        let gateway = container.network.gateway()?;
        (gateway.driver == NetworkDriver::Bridge).then_some(())?;
        gateway.ipv4?.gateway?;
        let address = self.gateway_of(container).to_string();
        Some(HostLine { address, names: vec![HOST_NAME.to_owned()] })
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
            if let Err(error) = self.rewrite_hosts(container.id) {
                tracing::warn!(container = %container.name, %error, "hosts file is not up to date");
            }
        }
    }

    /// Writes the hosts file of a container anew, if it runs; the next start does so anyway.
    pub(crate) fn rewrite_hosts(&self, id: Id) -> Result<(), EngineError> {
        let record = self.containers.record(id)?;
        if !record.is_running() {
            return Ok(());
        }
        let text = self.hosts_text(&record.container)?;
        write_file(&self.data_dir.container(id)?, "hosts", &text)
    }
}

/// As Docker Desktop has it everywhere.
const HOST_NAME: &str = "host.docker.internal";

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
