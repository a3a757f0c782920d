//! `--opt` of a bridge network (docs of Docker's bridge driver; moby:
//! daemon/libnetwork/drivers/bridge/labels.go).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

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
                GATEWAY_MODE_4 | GATEWAY_MODE_6 if value == "nat" => {}
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
            (GATEWAY_MODE_4, "routed"),
            ("com.docker.network.bridge.inhibit_ipv4", "true"),
        ] {
            let error = parse(name, value).unwrap_err();
            assert!(error.message.contains(name), "{error}");
        }
    }
}
