//! The network that containers are on unless told otherwise, as it was chosen the first time.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use bulkhead_network::Host;
use bulkhead_store::{Store, load, put};
use bulkhead_types::{Id, Timestamp};
use serde::{Deserialize, Serialize};

use crate::network::{Network, SubnetPools, default_local_subnets};
use crate::network_options::BridgeOptions;
use crate::options::{DefaultIpv6, DefaultNetwork};
use crate::subnet::{Address, Pool, Subnet, route_name};
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

impl Recorded {
    /// The network, with all that may be another at each start.
    fn network(self, told: &DefaultNetwork) -> Result<Network, EngineError> {
        let Self { id, bridge, created } = self;
        let given = [
            ("com.docker.network.bridge.default_bridge", "true".to_owned()),
            ("com.docker.network.bridge.enable_icc", told.inter_container.to_string()),
            ("com.docker.network.bridge.enable_ip_masquerade", told.masquerade.to_string()),
            ("com.docker.network.bridge.host_binding_ipv4", told.host_binding.to_string()),
            ("com.docker.network.bridge.name", bridge.name.clone()),
        ];
        let mtu = told.mtu.map(|mtu| ("com.docker.network.driver.mtu", mtu.to_string()));
        let given = given.into_iter().chain(mtu);
        let subnet = Subnet::around(bridge.gateway, bridge.prefix);
        let ipv4 = Pool { gateway: bridge.gateway, ..Pool::of(subnet) };
        Ok(Network {
            id,
            name: "bridge".to_owned(),
            created,
            internal: bridge.internal,
            attachable: false,
            mtu: told.mtu.unwrap_or(bridge.mtu),
            ipv4: Some(narrowed(ipv4, told.range, told.gateway)?),
            ipv6: told.ipv6.as_ref().map(|told| ipv6(id, told)).transpose()?,
            bridge: BridgeOptions {
                link_name: Some(bridge.name),
                inter_container: told.inter_container,
                masquerade: told.masquerade,
                host_binding: told.host_binding,
                given: given.map(|(name, value)| (name.to_owned(), value)).collect(),
                ..BridgeOptions::default()
            },
            parent: None,
            labels: BTreeMap::new(),
            ipam_options: BTreeMap::new(),
        })
    }
}

/// A local subnet goes with the network's id, so that it is the same at every start.
fn ipv6(id: Id, told: &DefaultIpv6) -> Result<Pool<Ipv6Addr>, EngineError> {
    let local = || default_local_subnets(id).next().expect("there is a first of 65,536");
    let pool = match told.address {
        Some((address, prefix)) => {
            Pool { gateway: address, ..Pool::of(Subnet::around(address, prefix)) }
        }
        None => Pool::of(told.range.unwrap_or_else(local)),
    };
    narrowed(pool, told.range, told.gateway)
}

/// With the part that addresses are drawn from, and another default route than the bridge.
fn narrowed<A: Address>(
    mut pool: Pool<A>,
    range: Option<Subnet<A>>,
    route: Option<A>,
) -> Result<Pool<A>, EngineError> {
    let subnet = pool.subnet;
    let beside = |what: &str| {
        EngineError::invalid(format!("the default network is {subnet}, and {what} is not in it"))
    };
    if let Some(range) = range.filter(|range| *range != subnet) {
        if range.prefix() < subnet.prefix() || !subnet.contains(range.first()) {
            return Err(beside(&format!("its fixed-cidr {range}")));
        }
        pool.range = Some(range);
    }
    if let Some(route) = route.filter(|route| *route != pool.gateway) {
        if !subnet.contains(route) {
            return Err(beside(&format!("its default gateway {route}")));
        }
        pool.auxiliary.insert(route_name::<A>(), route);
    }
    Ok(pool)
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
    let of_range = |range: Subnet<Ipv4Addr>| (Pool::of(range).gateway, range.prefix());
    let told = options.bridge_address.or_else(|| options.default_network.range.map(of_range));
    if let Some(network) = &recorded
        && (options.bridge.is_empty() || network.bridge.name == options.bridge)
        && told.is_none_or(|told| told == (network.bridge.gateway, network.bridge.prefix))
    {
        return network.clone().network(&options.default_network);
    }
    if let Some(old) = recorded {
        let RecordedBridge { name, gateway, prefix, .. } = &old.bridge;
        // A record alone may be of one that a reboot has ended, and a link alone of one that is
        // just being taken down.
        let running = containers::running(store)?;
        if running > 0 && host.plugged(name)? > 0 {
            return Err(EngineError::conflict(format!(
                "bridge {name} ({gateway}/{prefix}) cannot be changed while containers are on it \
                 ({running}): start with the same --bridge and --bip, or `bulkhead down` \
                 first"
            )));
        }
        host.remove_bridge(&old.network(&DefaultNetwork::default())?.link())?;
    }
    let (gateway, prefix) = match told {
        Some(told) => told,
        None => free_subnet(host, &options.address_pools)?,
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
    let chosen = network.clone().network(&options.default_network)?;
    store.commit(&[], &[put(KEY, &network)])?;
    Ok(chosen)
}

fn free_subnet(host: &Host, pools: &SubnetPools) -> Result<(Ipv4Addr, u8), EngineError> {
    let used = host.used_subnets()?;
    let free = pools.ipv4().find(|it| !used.overlaps(it.first().into(), it.prefix()));
    if let Some(subnet) = free {
        return Ok((Pool::of(subnet).gateway, subnet.prefix()));
    }
    Err(EngineError::new(
        Class::Unavailable,
        "every subnet of the default address pools (without any: from 172.17.0.0/16 to 172.31.0.0/16 \
         and in 192.168.0.0/16) overlaps a route of this host; name a free one with --bip",
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
        let recorded: Recorded = serde_json::from_str(&text).unwrap();
        let network = recorded.network(&DefaultNetwork::default()).unwrap();
        assert_eq!((network.id, network.link_name().as_str()), (id, "bulkhead0"));
        let pool = network.ipv4.unwrap();
        assert_eq!(pool.subnet.to_string(), "172.17.0.0/16");
        assert_eq!(pool.gateway, Ipv4Addr::new(172, 17, 0, 1));
    }

    #[test]
    fn what_is_told_is_in_the_network() {
        let bridge = RecordedBridge {
            name: "b0".to_owned(),
            gateway: Ipv4Addr::new(10, 7, 0, 1),
            prefix: 16,
            mtu: 1500,
            internal: false,
        };
        let recorded = Recorded { id: Id::random(), bridge, created: Timestamp::now() };
        let mut told = DefaultNetwork {
            range: Some("10.7.8.0/24".parse().unwrap()),
            gateway: Some(Ipv4Addr::new(10, 7, 0, 9)),
            ipv6: Some(DefaultIpv6::default()),
            mtu: Some(1400),
            inter_container: false,
            masquerade: false,
            host_binding: "127.0.0.1".parse().unwrap(),
        };
        let network = recorded.clone().network(&told).unwrap();
        let (ipv4, ipv6) = (network.ipv4.unwrap(), network.ipv6.unwrap());
        assert_eq!(
            (ipv4.gateway, ipv4.route()),
            ("10.7.0.1".parse().unwrap(), told.gateway.unwrap())
        );
        assert_eq!(ipv4.range, told.range);
        assert!(ipv6.gateway.to_string().starts_with("fd"), "{ipv6:?}");
        assert_eq!((network.mtu, network.bridge.masquerade), (1400, false));
        assert_eq!(network.bridge.given["com.docker.network.bridge.enable_icc"], "false");

        told.ipv6 = Some(DefaultIpv6 {
            address: Some(("2001:db8::5".parse().unwrap(), 64)),
            range: Some("2001:db8::/80".parse().unwrap()),
            gateway: Some("2001:db8::9".parse().unwrap()),
        });
        let ipv6 = recorded.clone().network(&told).unwrap().ipv6.unwrap();
        assert_eq!(ipv6.gateway, "2001:db8::5".parse::<Ipv6Addr>().unwrap());
        assert_eq!((ipv6.route(), ipv6.range.is_some()), ("2001:db8::9".parse().unwrap(), true));
        told.gateway = Some(Ipv4Addr::new(10, 8, 0, 1));
        let error = recorded.clone().network(&told).unwrap_err();
        assert!(error.message.contains("10.8.0.1 is not in it"), "{error}");
        told.range = Some("10.0.0.0/8".parse().unwrap());
        let error = recorded.network(&told).unwrap_err();
        assert!(error.message.contains("10.0.0.0/8 is not in it"), "{error}");
    }
}
