//! What a request asks of a container's place on a network.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::extra_host::is_word;
use crate::{EngineError, Link};

/// The interface's name in the container.
const INTERFACE: &str = "com.docker.network.endpoint.ifname";

/// A network that a container is connected to, whether it runs or not, with what it asks for there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointConfig {
    /// The network's name, which the next start looks for.
    pub network: String,
    pub ipv4: Option<Ipv4Addr>,
    pub ipv6: Option<Ipv6Addr>,
    /// `None` goes with the address.
    pub mac: Option<[u8; 6]>,
    /// Further names by which others on the network find it.
    pub aliases: Vec<String>,
    /// Names that it alone has for others on the network.
    pub links: Vec<Link>,
    /// As they were given.
    pub driver_options: BTreeMap<String, String>,
    /// The network with the highest has the default route.
    pub gateway_priority: i64,
}

impl EndpointConfig {
    /// With nothing asked for.
    pub fn of(network: impl Into<String>) -> Self {
        Self { network: network.into(), ..Self::default() }
    }

    /// The name that the interface is to have.
    pub(crate) fn interface(&self) -> Option<&str> {
        self.driver_options.get(INTERFACE).map(String::as_str)
    }

    /// # Errors
    /// What is no name in a hosts file or an answer of the resolver, and what is not done.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        if let Some(wrong) = self.aliases.iter().find(|alias| alias.is_empty() || !is_word(alias)) {
            return Err(EngineError::invalid(format!("invalid network alias: {wrong:?}")));
        }
        for (name, value) in &self.driver_options {
            let own = name.starts_with("com.docker.network.");
            if own && name != INTERFACE {
                return Err(EngineError::new(
                    crate::Class::Unsupported,
                    format!("driver option {name}={value} is not supported; leave it out"),
                ));
            }
        }
        if let Some(name) = self.interface()
            && (name.is_empty()
                || name.len() > 15
                || name == "lo"
                || !is_word(name)
                || name.contains('/'))
        {
            return Err(EngineError::invalid(format!(
                "invalid {INTERFACE}: {name:?} is no name of an interface: 1 to 15 characters"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_name_is_refused() {
        let ok = EndpointConfig { aliases: vec!["db".into()], ..EndpointConfig::of("web") };
        assert!(ok.check().is_ok());
        let wrong_alias = EndpointConfig { aliases: vec!["a b".into()], ..ok.clone() };
        assert!(wrong_alias.check().is_err());
        for (name, value) in [
            (INTERFACE, "a-name-of-sixteen"),
            (INTERFACE, "lo"),
            ("com.docker.network.endpoint.sysctls", "net.ipv4.conf.IFNAME.log_martians=1"),
        ] {
            let options = [(name.to_owned(), value.to_owned())].into();
            let wrong = EndpointConfig { driver_options: options, ..ok.clone() };
            assert!(wrong.check().unwrap_err().message.contains(name));
        }
    }
}
