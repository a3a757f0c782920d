//! `--add-host`, and the lines of `/etc/hosts`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::EngineError;
use crate::text::serde_by_text;

/// `--add-host`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraHost {
    name: String,
    address: HostAddress,
    /// As it was asked for.
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostAddress {
    /// This host as the container sees it.
    Gateway,
    Ip(IpAddr),
}

impl FromStr for ExtraHost {
    type Err = EngineError;

    /// Reads `name:address` or `name=address`.
    fn from_str(text: &str) -> Result<Self, EngineError> {
        let invalid = || EngineError::invalid(format!("bad format for add-host: \"{text}\""));
        let (name, address) =
            text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(invalid)?;
        if name.is_empty() || !is_word(name) {
            return Err(invalid());
        }
        let address = match address.trim_start_matches('[').trim_end_matches(']') {
            "host-gateway" => HostAddress::Gateway,
            other => HostAddress::Ip(other.parse().map_err(|_| {
                EngineError::invalid(format!("invalid IP address in add-host: \"{address}\""))
            })?),
        };
        Ok(Self { name: name.to_owned(), address, text: text.to_owned() })
    }
}

impl fmt::Display for ExtraHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

serde_by_text!(ExtraHost);

impl ExtraHost {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// One line for each address: this host may have one of each family.
    pub(crate) fn lines(&self, host_gateways: &[IpAddr]) -> Vec<HostLine> {
        let own;
        let addresses = match self.address {
            HostAddress::Gateway => host_gateways,
            HostAddress::Ip(address) => {
                own = [address];
                &own
            }
        };
        let line = |address: &IpAddr| HostLine {
            address: address.to_string(),
            names: vec![self.name.clone()],
        };
        addresses.iter().map(line).collect()
    }
}

/// One line of `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostLine {
    pub address: String,
    pub names: Vec<String>,
}

/// Whether a text is one word of one line.
pub(crate) fn is_word(text: &str) -> bool {
    !text.contains(|c: char| c.is_whitespace() || c.is_control())
}
