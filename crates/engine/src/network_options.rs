//! `--opt` of a bridge network (docs of Docker's bridge driver; moby:
//! daemon/libnetwork/drivers/bridge/labels.go).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use bulkhead_network::{Access, GatewayHolder, GatewayMode};
use serde::{Deserialize, Serialize};

use crate::EngineError;

pub(crate) const PREFIX: &str = "com.docker.network.";
const LINK_NAME: &str = "com.docker.network.bridge.name";
const MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const INTER_CONTAINER: &str = "com.docker.network.bridge.enable_icc";
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const MTU: &str = "com.docker.network.driver.mtu";
pub(crate) const INTERFACE_PREFIX: &str = "com.docker.network.container_iface_prefix";
const GATEWAY_MODE_4: &str = "com.docker.network.bridge.gateway_mode_ipv4";
const GATEWAY_MODE_6: &str = "com.docker.network.bridge.gateway_mode_ipv6";
const INHIBIT_4: &str = "com.docker.network.bridge.inhibit_ipv4";
const TRUSTED: &str = "com.docker.network.bridge.trusted_host_interfaces";
const HOST_4: &str = "com.docker.network.host_ipv4";
const HOST_6: &str = "com.docker.network.host_ipv6";

/// Longest name of a link, without the zero at its end (linux/if.h, `IFNAMSIZ`).
const LONGEST_LINK: usize = 15;

/// What is done of a bridge network's options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeOptions {
    /// `None` goes with the network's id.
    pub link_name: Option<String>,
    /// Packets leave with the host's address.
    pub masquerade: bool,
    /// Containers of the network reach each other.
    pub inter_container: bool,
    /// Where ports are published that name no address of the host.
    pub host_binding: IpAddr,
    /// Bytes; `None` is that of the host's default route.
    pub mtu: Option<u32>,
    /// `eth` in `eth0`.
    pub interface_prefix: Option<String>,
    /// Who reaches its containers, and as whom they reach others.
    #[serde(default)]
    pub access: Access,
    /// All that were given, as they were written: inspect repeats them.
    pub given: BTreeMap<String, String>,
}

impl Default for BridgeOptions {
    fn default() -> Self {
        Self {
            link_name: None,
            masquerade: true,
            inter_container: true,
            host_binding: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            mtu: None,
            interface_prefix: None,
            access: Access::default(),
            given: BTreeMap::new(),
        }
    }
}

impl BridgeOptions {
    /// # Errors
    /// A value that is none, and an option of Docker's own that is not done. Others mean nothing to a
    /// bridge, here and there, and are only repeated.
    pub fn parse(given: BTreeMap<String, String>) -> Result<Self, EngineError> {
        let mut options = Self::default();
        for (name, value) in &given {
            let wrong = |what: &str| {
                EngineError::invalid(format!("invalid value for {name}: {value:?} is {what}"))
            };
            match name.as_str() {
                LINK_NAME => options.link_name = Some(link_name(name, value)?),
                INTERFACE_PREFIX => options.interface_prefix = Some(link_name(name, value)?),
                MASQUERADE => {
                    options.masquerade = boolean(value).ok_or_else(|| wrong("not a boolean"))?;
                }
                INTER_CONTAINER => {
                    options.inter_container =
                        boolean(value).ok_or_else(|| wrong("not a boolean"))?;
                }
                HOST_BINDING => {
                    let address: IpAddr = value.parse().map_err(|_| wrong("not an IP address"))?;
                    options.host_binding = address.to_canonical();
                }
                MTU => {
                    // The least that IPv4 has to carry, and the most that a link can (RFC 791).
                    let mtu = value.parse().ok().filter(|mtu| (68..=65_535).contains(mtu));
                    options.mtu = Some(mtu.ok_or_else(|| wrong("no number from 68 to 65535"))?);
                }
                GATEWAY_MODE_4 => {
                    options.access.ipv4.mode =
                        gateway_mode(value).ok_or_else(|| wrong(NO_GATEWAY_MODE))?;
                }
                GATEWAY_MODE_6 => {
                    options.access.ipv6.mode =
                        gateway_mode(value).ok_or_else(|| wrong(NO_GATEWAY_MODE))?;
                }
                INHIBIT_4 => {
                    let inhibits = boolean(value).ok_or_else(|| wrong("not a boolean"))?;
                    options.access.ipv4.gateway =
                        if inhibits { GatewayHolder::Other } else { GatewayHolder::Bridge };
                }
                TRUSTED => {
                    let names = value.split(':').filter(|part| !part.is_empty());
                    options.access.trusted_interfaces =
                        names.map(|part| link_name(name, part)).collect::<Result<_, _>>()?;
                }
                HOST_4 => {
                    let address = value.parse().map_err(|_| wrong("not an IPv4 address"))?;
                    options.access.ipv4.leaves_as = Some(address);
                }
                HOST_6 => {
                    let address = value.parse().map_err(|_| wrong("not an IPv6 address"))?;
                    options.access.ipv6.leaves_as = Some(address);
                }
                _ if name.starts_with(PREFIX) => {
                    return Err(EngineError::new(
                        crate::Class::Unsupported,
                        format!("{name}={value} is not supported; leave the option out"),
                    ));
                }
                _ => {}
            }
        }
        Ok(Self { given, ..options })
    }
}

const NO_GATEWAY_MODE: &str = "none of nat, nat-unprotected, routed and isolated";

fn gateway_mode(value: &str) -> Option<GatewayMode> {
    match value {
        "nat" => Some(GatewayMode::Nat),
        "nat-unprotected" => Some(GatewayMode::NatUnprotected),
        "routed" => Some(GatewayMode::Routed),
        "isolated" => Some(GatewayMode::Isolated),
        _ => None,
    }
}

pub(crate) fn link_name(option: &str, value: &str) -> Result<String, EngineError> {
    let is_name = !value.is_empty()
        && value.len() <= LONGEST_LINK
        && !matches!(value, "." | "..")
        && value.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%'));
    match is_name {
        true => Ok(value.to_owned()),
        false => Err(EngineError::invalid(format!(
            "invalid value for {option}: {value:?} is no name of a link: 1 to 15 characters, without \
             spaces, slash, colon and percent"
        ))),
    }
}

/// As Go reads one (strconv.ParseBool).
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn parse(name: &str, value: &str) -> Result<BridgeOptions, EngineError> {
        BridgeOptions::parse([(name.to_owned(), value.to_owned())].into())
    }

    #[test]
    fn options_are_read() {
        assert_eq!(parse(LINK_NAME, "br-web").unwrap().link_name.unwrap(), "br-web");
        assert!(!parse(MASQUERADE, "false").unwrap().masquerade);
        assert!(!parse(INTER_CONTAINER, "0").unwrap().inter_container);
        assert_eq!(parse(MTU, "1400").unwrap().mtu, Some(1400));
        for (text, address) in
            [("127.0.0.1", "127.0.0.1"), ("::", "::"), ("::ffff:1.2.3.4", "1.2.3.4")]
        {
            let read = parse(HOST_BINDING, text).unwrap().host_binding;
            assert_eq!(read, address.parse::<IpAddr>().unwrap());
        }
        let access = |name: &str, value: &str| parse(name, value).unwrap().access;
        assert_eq!(access(GATEWAY_MODE_4, "nat"), Access::default());
        assert_eq!(access(GATEWAY_MODE_4, "routed").ipv4.mode, GatewayMode::Routed);
        let unprotected = access(GATEWAY_MODE_6, "nat-unprotected");
        assert_eq!(unprotected.ipv6.mode, GatewayMode::NatUnprotected);
        assert_eq!(access(GATEWAY_MODE_6, "isolated").ipv6.mode, GatewayMode::Isolated);
        assert_eq!(access(INHIBIT_4, "1").ipv4.gateway, GatewayHolder::Other);
        assert_eq!(access(TRUSTED, "eth0:wlan0:").trusted_interfaces, ["eth0", "wlan0"]);
        assert_eq!(access(HOST_4, "192.0.2.1").ipv4.leaves_as, Some([192, 0, 2, 1].into()));
        assert_eq!(access(HOST_6, "::1").ipv6.leaves_as, Some(Ipv6Addr::LOCALHOST));
        assert!(parse("com.example.own", "x").unwrap().given.contains_key("com.example.own"));
    }

    #[test]
    fn wrong_values_and_what_is_not_done_are_refused() {
        for (name, value) in [
            (LINK_NAME, "a/b"),
            (LINK_NAME, "sixteen-bytes-xx"),
            (LINK_NAME, ""),
            (MASQUERADE, "maybe"),
            (MTU, "67"),
            (MTU, "big"),
            (HOST_BINDING, "localhost"),
            (GATEWAY_MODE_4, "bridged"),
            (GATEWAY_MODE_6, ""),
            (INHIBIT_4, "maybe"),
            (TRUSTED, "eth0:a/b"),
            (HOST_4, "::1"),
            (HOST_6, "192.0.2.1"),
            ("com.docker.network.bridge.default_bridge", "true"),
            ("com.docker.network.bridge.new_one", "true"),
        ] {
            let error = parse(name, value).unwrap_err();
            assert!(error.message.contains(name), "{error}");
        }
    }
}
