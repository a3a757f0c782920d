//! What a request asks of a container's place on a network.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bulkhead_network::InterfaceSysctl;
use serde::{Deserialize, Serialize};

use crate::extra_host::is_word;
use crate::{EngineError, Link};

/// Settings of the interface, with commas between them.
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

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
    /// Further ones, for talking to neighbours alone.
    pub link_local: Vec<IpAddr>,
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

    /// Settings that the interface is to have.
    ///
    /// # Errors
    /// What is no setting of one interface, all of them in one message, as Docker tells it.
    pub(crate) fn sysctls(&self) -> Result<Vec<InterfaceSysctl>, EngineError> {
        let Some(all) = self.driver_options.get(SYSCTLS) else { return Ok(Vec::new()) };
        let (mut read, mut faults) = (Vec::new(), Vec::new());
        for one in all.split(',') {
            match one.parse() {
                Ok(sysctl) => read.push(sysctl),
                Err(why) => faults.push(why),
            }
        }
        match faults.is_empty() {
            true => Ok(read),
            false => Err(EngineError::invalid(format!(
                "invalid endpoint settings:\n{}",
                faults.join("\n")
            ))),
        }
    }

    /// # Errors
    /// What is no name in a hosts file or an answer of the resolver, and what is not done.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        if let Some(wrong) = self.aliases.iter().find(|alias| alias.is_empty() || !is_word(alias)) {
            return Err(EngineError::invalid(format!("invalid network alias: {wrong:?}")));
        }
        for (name, value) in &self.driver_options {
            let own = name.starts_with("com.docker.network.");
            if own && ![INTERFACE, SYSCTLS].contains(&name.as_str()) {
                return Err(EngineError::new(
                    crate::Class::Unsupported,
                    format!("driver option {name}={value} is not supported; leave it out"),
                ));
            }
        }
        self.sysctls()?;
        let is_link_local = |address: &&IpAddr| match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        if let Some(wrong) = self.link_local.iter().find(|address| !is_link_local(address)) {
            return Err(EngineError::invalid(format!(
                "invalid link-local IP address: {wrong}; they are in 169.254.0.0/16 and fe80::/10"
            )));
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
            ("com.docker.network.endpoint.new_one", "1"),
        ] {
            let options = [(name.to_owned(), value.to_owned())].into();
            let wrong = EndpointConfig { driver_options: options, ..ok.clone() };
            assert!(wrong.check().unwrap_err().message.contains(name));
        }
        for (text, is_one) in
            [("169.254.8.8", true), ("fe80::7", true), ("192.168.0.8", false), ("fd00::1", false)]
        {
            let link_local = vec![text.parse().unwrap()];
            assert_eq!(EndpointConfig { link_local, ..ok.clone() }.check().is_ok(), is_one);
        }
    }

    #[test]
    fn settings_of_the_interface_are_read() {
        let with = |value: &str| {
            let driver_options = [(SYSCTLS.to_owned(), value.to_owned())].into();
            EndpointConfig { driver_options, ..EndpointConfig::of("web") }
        };
        let two = with("net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.ifname.accept_ra=0");
        assert!(two.check().is_ok());
        assert_eq!(two.sysctls().unwrap().len(), 2);
        let wrong = with("net.ipv4.conf.all.a=1,net.ipv4.conf.IFNAME.b=1,c").check().unwrap_err();
        assert_eq!(wrong.message.matches("unrecognised network interface sysctl").count(), 2);
    }
}
