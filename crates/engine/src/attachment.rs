//! How a container is attached to networks while it runs.

use std::cmp::Ordering;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use bulkhead_network::{GatewayHolder, InterfaceSysctl, Protocol};
use bulkhead_types::{Id, Port};
use serde::{Deserialize, Serialize};

use crate::network::NetworkDriver;
use crate::text::serde_by_text;

/// Which network stack a container's processes see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NetworkStack {
    /// Its own, with an interface for every network that it is attached to.
    #[default]
    Bridge,
    /// Its own, with nothing but `lo`.
    None,
    Host,
    Container(Id),
    /// That of a namespace with a name, which the container's mode says.
    Netns,
}

impl fmt::Display for NetworkStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge => f.write_str("bridge"),
            Self::None => f.write_str("none"),
            Self::Host => f.write_str("host"),
            Self::Container(id) => write!(f, "container:{id}"),
            Self::Netns => f.write_str("netns"),
        }
    }
}

impl FromStr for NetworkStack {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" | "default" | "bridge" => Ok(Self::Bridge),
            "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            "netns" => Ok(Self::Netns),
            _ => text
                .strip_prefix("container:")
                .and_then(|id| id.parse().ok())
                .map(Self::Container)
                .ok_or_else(|| format!("no network stack: {text}")),
        }
    }
}

serde_by_text!(NetworkStack);

/// A container's networks: no attachments and no ports while it does not run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Recorded")]
pub struct Networking {
    #[serde(rename = "mode")]
    pub stack: NetworkStack,
    pub attachments: Vec<Attachment>,
    /// With the host ports that were really taken.
    pub ports: Vec<PortBinding>,
}

/// A container's end of one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub network: Id,
    #[serde(default = "default_name")]
    pub network_name: String,
    #[serde(default)]
    pub driver: NetworkDriver,
    /// New with every start.
    pub endpoint: Id,
    /// In the container: `eth0`.
    pub interface: String,
    /// `None` is that of the parent.
    pub mac: Option<[u8; 6]>,
    pub ipv4: Option<Addresses<Ipv4Addr>>,
    #[serde(default)]
    pub ipv6: Option<Addresses<Ipv6Addr>>,
    /// Further names by which others on the network find it.
    #[serde(default)]
    pub aliases: Vec<String>,
    #[serde(default)]
    pub gateway_priority: i64,
    /// Who has the IPv4 gateway's address.
    #[serde(default)]
    pub gateway_holder: GatewayHolder,
    /// As [`crate::EndpointConfig::link_local`].
    #[serde(default)]
    pub link_local: Vec<IpAddr>,
    #[serde(default)]
    pub sysctls: Vec<InterfaceSysctl>,
}

/// Of a record of before there were others.
fn default_name() -> String {
    "bridge".to_owned()
}

impl Attachment {
    /// The highest priority first, then the first name (moby: daemon/libnetwork/sandbox.go, `Less`).
    pub(crate) fn precedence(&self, other: &Self) -> Ordering {
        let priority = other.gateway_priority.cmp(&self.gateway_priority);
        priority.then_with(|| self.network_name.cmp(&other.network_name))
    }
}

/// What an interface has of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses<A> {
    pub address: A,
    pub prefix: u8,
    pub gateway: Option<A>,
}

/// A port of a container that is published at one address of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBinding {
    pub container_port: u16,
    pub protocol: Protocol,
    /// Unspecified means all of its family.
    pub host_address: IpAddr,
    /// 0 where the port is reached by the container's own address alone.
    pub host_port: u16,
}

impl PortBinding {
    /// The container's side.
    ///
    /// # Panics
    /// Where it is 0, which no port that was parsed is.
    pub fn port(&self) -> Port {
        Port::new(self.container_port, self.protocol).expect("it was a port when it was read")
    }
}

impl Networking {
    /// Of a container that does not run.
    pub fn detached(stack: NetworkStack) -> Self {
        Self { stack, ..Self::default() }
    }

    /// The attachment that the default route leads through: the first of those whose network has a
    /// way out.
    pub fn gateway(&self) -> Option<&Attachment> {
        self.gateway_of(|attachment| attachment.ipv4.is_some_and(|ipv4| ipv4.gateway.is_some()))
    }

    /// The same for IPv6.
    pub fn gateway6(&self) -> Option<&Attachment> {
        self.gateway_of(|attachment| attachment.ipv6.is_some_and(|ipv6| ipv6.gateway.is_some()))
    }

    fn gateway_of(&self, leads_out: impl Fn(&Attachment) -> bool) -> Option<&Attachment> {
        let candidates = self.attachments.iter().filter(|attachment| leads_out(attachment));
        candidates.min_by(|one, other| one.precedence(other))
    }

    /// Where ports lead to that are published at this address of the host: to the container's of the
    /// same family, on the network that its default route leads through.
    pub fn published_address(&self, host: IpAddr) -> Option<IpAddr> {
        match host {
            IpAddr::V4(_) => Some(self.gateway()?.ipv4?.address.into()),
            IpAddr::V6(_) => Some(self.gateway6()?.ipv6?.address.into()),
        }
    }

    /// The place on this network.
    pub fn on(&self, network: Id) -> Option<&Attachment> {
        self.attachments.iter().find(|attachment| attachment.network == network)
    }

    /// The IPv4 address on the first network, as people ask for "the" address of a container.
    pub fn address(&self) -> Option<Ipv4Addr> {
        Some(self.attachments.first()?.ipv4?.address)
    }
}

/// A record's, of this version or of the ones before, which knew one network.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Recorded {
    mode: NetworkStack,
    attachments: Vec<Attachment>,
    ports: Vec<PortBinding>,
    network_id: Option<Id>,
    endpoint_id: Option<Id>,
    gateway: Option<Ipv4Addr>,
    address: Option<Ipv4Addr>,
    prefix: u8,
    mac: Option<[u8; 6]>,
}

impl From<Recorded> for Networking {
    fn from(recorded: Recorded) -> Self {
        let Recorded { mode, mut attachments, ports, prefix, gateway, .. } = recorded;
        if let (Some(network), Some(endpoint), Some(mac), Some(address)) =
            (recorded.network_id, recorded.endpoint_id, recorded.mac, recorded.address)
        {
            attachments.push(Attachment {
                network,
                network_name: default_name(),
                driver: NetworkDriver::Bridge,
                endpoint,
                interface: "eth0".to_owned(),
                mac: Some(mac),
                ipv4: Some(Addresses { address, prefix, gateway }),
                ipv6: None,
                aliases: Vec::new(),
                gateway_priority: 0,
                gateway_holder: GatewayHolder::Bridge,
                link_local: Vec::new(),
                sysctls: Vec::new(),
            });
        }
        Self { stack: mode, attachments, ports }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_leads_through_the_highest_priority_then_the_first_name() {
        let on = |name: &str, gateway_priority, leads_out: bool| Attachment {
            network: Id::random(),
            network_name: name.to_owned(),
            driver: NetworkDriver::Bridge,
            endpoint: Id::random(),
            interface: format!("eth-{name}"),
            mac: Some([2; 6]),
            ipv4: Some(Addresses {
                address: Ipv4Addr::new(10, 0, 0, 2),
                prefix: 24,
                gateway: leads_out.then_some(Ipv4Addr::new(10, 0, 0, 1)),
            }),
            ipv6: None,
            aliases: vec![],
            gateway_priority,
            gateway_holder: GatewayHolder::Bridge,
            link_local: vec![],
            sysctls: vec![],
        };
        let gateway = |attachments: Vec<Attachment>| {
            let networking = Networking { attachments, ..Networking::default() };
            networking.gateway().map(|gateway| gateway.network_name.clone())
        };
        assert_eq!(gateway(vec![on("b", 0, true), on("a", 0, true)]).unwrap(), "a");
        assert_eq!(gateway(vec![on("b", 1, true), on("a", 0, true)]).unwrap(), "b");
        assert_eq!(gateway(vec![on("b", -1, true), on("a", 9, false)]).unwrap(), "b");
        assert_eq!(gateway(vec![on("a", 0, false)]), None);
    }

    #[test]
    fn records_of_one_network_are_read() {
        let id = Id::random();
        let old = format!(
            r#"{{"mode":"bridge","network_id":"{id}","endpoint_id":"{id}","gateway":"172.17.0.1",
            "address":"172.17.0.2","prefix":16,"mac":[2,66,172,17,0,2],"ports":[],"sandbox_key":""}}"#
        );
        let read: Networking = serde_json::from_str(&old).unwrap();
        assert_eq!(read.address(), Some(Ipv4Addr::new(172, 17, 0, 2)));
        let own = read.on(id).unwrap();
        assert_eq!((own.endpoint, own.interface.as_str()), (id, "eth0"));
        assert_eq!(own.network_name, "bridge");
        let again: Networking =
            serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
        assert_eq!(again, read);
        for (mode, stack) in [
            ("host", NetworkStack::Host),
            ("none", NetworkStack::None),
            ("netns", NetworkStack::Netns),
            (&format!("container:{id}"), NetworkStack::Container(id)),
        ] {
            let old = format!(
                r#"{{"mode":"{mode}","network_id":null,"endpoint_id":null,"gateway":null,
                "address":null,"prefix":0,"mac":null,"ports":[],"sandbox_key":""}}"#
            );
            let read: Networking = serde_json::from_str(&old).unwrap();
            assert_eq!(read, Networking::detached(stack));
        }
    }
}
