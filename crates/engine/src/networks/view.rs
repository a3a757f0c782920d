//! The networks as clients see them, with the containers that are on them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use bulkhead_types::{Digest, Id, Timestamp};

use super::Networks;
use crate::Addresses;
use crate::containers::Known;
use crate::network::Network;

/// A network and who is on it.
#[derive(Debug, Clone)]
pub struct NetworkView {
    pub id: Id,
    pub name: String,
    /// `bridge`, `macvlan`, `ipvlan`, `host` or `null`
    pub driver: &'static str,
    pub created: Timestamp,
    /// Of one that containers have addresses on.
    pub network: Option<Network>,
    /// The containers that run on it.
    pub containers: BTreeMap<Id, NetworkEndpoint>,
}

impl NetworkView {
    /// One that is always there.
    pub fn is_predefined(&self) -> bool {
        crate::network::PREDEFINED.contains(&self.name.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkEndpoint {
    /// The container's.
    pub name: String,
    pub endpoint: Id,
    pub mac: Option<[u8; 6]>,
    pub ipv4: Option<Addresses<Ipv4Addr>>,
    pub ipv6: Option<Addresses<Ipv6Addr>>,
}

impl Networks {
    /// All of them: `bridge`, `host`, `none`, then the user's, the oldest first.
    pub(crate) fn views(&self, known: &Known) -> Vec<NetworkView> {
        let mut on: BTreeMap<Id, BTreeMap<Id, NetworkEndpoint>> = BTreeMap::new();
        for entry in known.entries.values() {
            let container = &entry.record.container;
            for attachment in &container.network.attachments {
                let endpoint = NetworkEndpoint {
                    name: container.name.to_string(),
                    endpoint: attachment.endpoint,
                    mac: attachment.mac,
                    ipv4: attachment.ipv4,
                    ipv6: attachment.ipv6,
                };
                on.entry(attachment.network).or_default().insert(container.id, endpoint);
            }
        }
        let bridges = self.all().into_iter().map(|attached| {
            let network = attached.network.clone();
            NetworkView {
                id: network.id,
                name: network.name.clone(),
                driver: network.driver().name(),
                created: network.created,
                containers: on.remove(&network.id).unwrap_or_default(),
                network: Some(network),
            }
        });
        let mut views: Vec<NetworkView> = bridges.collect();
        let no_bridge = |name: &str, driver| NetworkView {
            id: self.derived(name),
            name: name.to_owned(),
            driver,
            created: self.default.network.created,
            network: None,
            containers: BTreeMap::new(),
        };
        views.splice(1..1, [no_bridge("host", "host"), no_bridge("none", "null")]);
        views
    }

    /// Ids of networks that are no bridge mean nothing but must stay the same.
    fn derived(&self, name: &str) -> Id {
        let digest = Digest::of(format!("{}/{name}", self.default.network.id).as_bytes());
        digest.hex().parse().expect("a digest has as many digits as an id")
    }
}
