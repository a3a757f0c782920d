//! `-p`, as a request says it.

use std::net::IpAddr;

use bulkhead_network::Protocol;
use bulkhead_types::Port;
use serde::{Deserialize, Serialize};

/// A port of a container that is to be published while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    pub container_port: u16,
    pub protocol: Protocol,
    /// `None` leaves it to the network: every address of the host, of both families, unless it says
    /// otherwise. `0.0.0.0` is every one of IPv4 alone, as records of before IPv6 have it.
    #[serde(default)]
    pub host_address: Option<IpAddr>,
    /// 0 draws one from the ephemeral range.
    pub host_port: u16,
    /// Of a range of which the first free one is taken, which begins with `host_port`.
    #[serde(default)]
    pub last_host_port: Option<u16>,
}

impl PortRequest {
    /// The container's side.
    ///
    /// # Panics
    /// Where it is 0, which no port that was parsed is.
    pub fn port(&self) -> Port {
        Port::new(self.container_port, self.protocol).expect("it was a port when it was read")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_before_ipv6_are_read() {
        let old =
            r#"{"container_port":80,"protocol":"tcp","host_address":"0.0.0.0","host_port":8080}"#;
        let read: PortRequest = serde_json::from_str(old).unwrap();
        assert_eq!(read.host_address, Some(std::net::Ipv4Addr::UNSPECIFIED.into()));
        assert_eq!((read.host_port, read.last_host_port), (8080, None));
        let again = serde_json::from_str(&serde_json::to_string(&read).unwrap());
        assert_eq!(again.ok(), Some(read));
    }
}
