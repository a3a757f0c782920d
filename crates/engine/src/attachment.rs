//! How a container is attached to networks while it runs.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use bulkhead_network::Protocol;
use bulkhead_types::{Id, Port};
use serde::{Deserialize, Serialize};

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
}

impl fmt::Display for NetworkStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge => f.write_str("bridge"),
            Self::None => f.write_str("none"),
            Self::Host => f.write_str("host"),
            Self::Container(id) => write!(f, "container:{id}"),
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
    /// New with every start.
    pub endpoint: Id,
    /// In the container: `eth0`.
    pub interface: String,
    pub mac: [u8; 6],
    pub ipv4: Option<Addresses<Ipv4Addr>>,
    #[serde(default)]
    pub ipv6: Option<Addresses<Ipv6Addr>>,
    /// Further names by which others on the network find it.
    #[serde(default)]
    pub aliases: Vec<String>,
}

/// What an interface has of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses<A> {
    pub address: A,
    pub prefix: u8,
    pub gateway: Option<A>,
}

/// A port of a container that is published on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBinding {
    pub container_port: u16,
    pub protocol: Protocol,
    /// Unspecified means all.
    pub host_address: Ipv4Addr,
    /// 0 draws one from the ephemeral range.
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

    /// The attachment that its default route leads through, and its ports are published from.
    pub fn primary(&self) -> Option<&Attachment> {
        self.attachments.first()
    }

    /// The primary attachment's IPv4 address.
    pub fn address(&self) -> Option<Ipv4Addr> {
        Some(self.primary()?.ipv4?.address)
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
                endpoint,
                interface: "eth0".to_owned(),
                mac,
                ipv4: Some(Addresses { address, prefix, gateway }),
                ipv6: None,
                aliases: Vec::new(),
            });
        }
        Self { stack: mode, attachments, ports }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_one_network_are_read() {
        let id = Id::random();
        let old = format!(
            r#"{{"mode":"bridge","network_id":"{id}","endpoint_id":"{id}","gateway":"172.17.0.1",
            "address":"172.17.0.2","prefix":16,"mac":[2,66,172,17,0,2],"ports":[],"sandbox_key":""}}"#
        );
        let read: Networking = serde_json::from_str(&old).unwrap();
        assert_eq!(read.address(), Some(Ipv4Addr::new(172, 17, 0, 2)));
        let primary = read.primary().unwrap();
        assert_eq!((primary.endpoint, primary.interface.as_str()), (id, "eth0"));
        let again: Networking =
            serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
        assert_eq!(again, read);
        for (mode, stack) in [
            ("host", NetworkStack::Host),
            ("none", NetworkStack::None),
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
