//! The network that containers are on unless told otherwise, as it was chosen the first time.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use bulkhead_network::Host;
use bulkhead_store::{Store, load, put};
use bulkhead_types::{Id, Timestamp};
use serde::{Deserialize, Serialize};

use crate::network::{Network, default_subnets};
use crate::network_options::BridgeOptions;
use crate::subnet::{Pool, Subnet};
use crate::{Class, EngineError, Options, containers};

const KEY: &str = "network/bridge";

/// Its record, which is older than networks of the user's own.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Recorded {
    id: Id,
    bridge: RecordedBridge,
    created: Timestamp,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct RecordedBridge {
    name: String,
    gateway: Ipv4Addr,
    prefix: u8,
    mtu: u32,
    internal: bool,
}

impl From<Recorded> for Network {
    fn from(recorded: Recorded) -> Self {
        let Recorded { id, bridge, created } = recorded;
        let subnet = Subnet::around(bridge.gateway, bridge.prefix);
        let given = [
            ("com.docker.network.bridge.default_bridge", "true"),
            ("com.docker.network.bridge.enable_icc", "true"),
            ("com.docker.network.bridge.enable_ip_masquerade", "true"),
            ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0"),
            ("com.docker.network.bridge.name", bridge.name.as_str()),
        ];
        let given = given.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Self {
            id,
            name: "bridge".to_owned(),
            created,
            internal: bridge.internal,
            attachable: false,
            mtu: bridge.mtu,
            ipv4: Some(Pool { gateway: bridge.gateway, ..Pool::of(subnet) }),
            ipv6: None,
            bridge: BridgeOptions {
                link_name: Some(bridge.name),
                given,
                ..BridgeOptions::default()
            },
            parent: None,
            labels: BTreeMap::new(),
            ipam_options: BTreeMap::new(),
        }
    }
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
) -> Result<Network, EngineError> {
    let recorded: Option<Recorded> = load(store, KEY)?;
    let told = options.bridge_address;
    if let Some(network) = &recorded
        && (options.bridge.is_empty() || network.bridge.name == options.bridge)
        && told.is_none_or(|told| told == (network.bridge.gateway, network.bridge.prefix))
    {
        return Ok(network.clone().into());
    }
    if let Some(old) = recorded {
        let RecordedBridge { name, gateway, prefix, .. } = &old.bridge;
        // A record alone may be of one that a reboot has ended, and a link alone of one that is
        // just being taken down.
        let running = containers::running(store)?;
        if running > 0 && host.plugged(name)? > 0 {
            return Err(EngineError::conflict(format!(
                "bridge {name} ({gateway}/{prefix}) cannot be changed while containers are on it \
                 ({running}): start with the same --bridge and --bridge-address, or `bulkhead down` \
                 first"
            )));
        }
        host.remove_bridge(&Network::from(old).link())?;
    }
    let (gateway, prefix) = match told {
        Some(told) => told,
        None => free_subnet(host)?,
    };
    let network = Recorded {
        id: Id::random(),
        bridge: RecordedBridge {
            name: match options.bridge.as_str() {
                "" => "bulkhead0".to_owned(),
                name => name.to_owned(),
            },
            gateway,
            prefix,
            mtu: host.default_mtu()?,
            internal: false,
        },
        created: Timestamp::now(),
    };
    store.commit(&[], &[put(KEY, &network)])?;
    Ok(network.into())
}

fn free_subnet(host: &Host) -> Result<(Ipv4Addr, u8), EngineError> {
    let used = host.used_subnets()?;
    let free = default_subnets().find(|it| !used.overlaps(it.first().into(), it.prefix()));
    if let Some(subnet) = free {
        return Ok((Pool::of(subnet).gateway, subnet.prefix()));
    }
    Err(EngineError::new(
        Class::Unavailable,
        "every network from 172.17.0.0/16 to 172.31.0.0/16 and in 192.168.0.0/16 overlaps a route of \
         this host; name a free one with --bridge-address",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_before_networks_is_read() {
        let id = Id::random();
        let text = format!(
            r#"{{"id":"{id}","bridge":{{"name":"bulkhead0","gateway":"172.17.0.1","prefix":16,
            "mtu":1500,"internal":false}},"created":"2026-11-01T00:00:00Z"}}"#
        );
        let network: Network = serde_json::from_str::<Recorded>(&text).unwrap().into();
        assert_eq!((network.id, network.link_name().as_str()), (id, "bulkhead0"));
        let pool = network.ipv4.unwrap();
        assert_eq!(pool.subnet.to_string(), "172.17.0.0/16");
        assert_eq!(pool.gateway, Ipv4Addr::new(172, 17, 0, 1));
    }
}
