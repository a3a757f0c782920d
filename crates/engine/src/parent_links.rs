//! Networks of links on an interface of the host: Docker's drivers `macvlan` and `ipvlan`, and their
//! options (moby: daemon/libnetwork/drivers/macvlan and ipvlan).

use std::collections::BTreeMap;

use bulkhead_network::{IpvlanFlag, IpvlanMode, MacvlanMode, Parent, ParentDriver};
use bulkhead_types::Id;
use serde::{Deserialize, Serialize};

use crate::network_options::{BridgeOptions, INTERFACE_PREFIX, PREFIX, link_name};
use crate::{Class, EngineError};

/// What the containers' links of a network are on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentLinks {
    pub driver: ParentDriver,
    pub parent: Parent,
    /// Whether the parent was made for a network, and goes with the last one that is on it.
    pub own_parent: bool,
}

impl ParentLinks {
    /// Whether each link has its parent's hardware address.
    pub(crate) fn shares_address(&self) -> bool {
        match self.driver {
            ParentDriver::Macvlan(mode) => mode == MacvlanMode::Passthru,
            ParentDriver::Ipvlan(..) => true,
        }
    }

    /// Whether two networks cannot be on one parent.
    pub(crate) fn excludes(&self, other: &Self) -> bool {
        let alone = |links: &Self| links.driver == ParentDriver::Macvlan(MacvlanMode::Passthru);
        let kind = |links: &Self| std::mem::discriminant(&links.driver);
        self.parent.name() == other.parent.name()
            && (alone(self) || alone(other) || kind(self) != kind(other))
    }
}

/// Docker's name of a driver.
fn driver_name(driver: ParentDriver) -> &'static str {
    match driver {
        ParentDriver::Macvlan(_) => "macvlan",
        ParentDriver::Ipvlan(..) => "ipvlan",
    }
}

/// A request for such a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentRequest {
    pub driver: ParentDriver,
    /// `None` asks for one that leads nowhere.
    pub parent: Option<Parent>,
}

impl ParentRequest {
    /// Reads the options of `macvlan`, with what all networks have of them.
    pub fn macvlan(given: BTreeMap<String, String>) -> Result<(Self, BridgeOptions), EngineError> {
        let mode = match option(&given, "macvlan_mode") {
            "" | "bridge" => MacvlanMode::Bridge,
            "private" => MacvlanMode::Private,
            "vepa" => MacvlanMode::Vepa,
            "passthru" => MacvlanMode::Passthru,
            other => {
                return Err(EngineError::invalid(format!(
                    "requested macvlan mode '{other}' is not valid, 'bridge' mode is the macvlan \
                     driver default"
                )));
            }
        };
        Self::read(ParentDriver::Macvlan(mode), given)
    }

    /// The same of `ipvlan`.
    pub fn ipvlan(given: BTreeMap<String, String>) -> Result<(Self, BridgeOptions), EngineError> {
        let mode = match option(&given, "ipvlan_mode") {
            "" | "l2" => IpvlanMode::L2,
            "l3" => IpvlanMode::L3,
            "l3s" => IpvlanMode::L3s,
            other => {
                return Err(EngineError::invalid(format!(
                    "requested ipvlan mode '{other}' is not valid, 'l2' mode is the ipvlan driver \
                     default"
                )));
            }
        };
        let flag = match option(&given, "ipvlan_flag") {
            "" | "bridge" => IpvlanFlag::Bridge,
            "private" => IpvlanFlag::Private,
            "vepa" => IpvlanFlag::Vepa,
            other => {
                return Err(EngineError::invalid(format!(
                    "requested ipvlan flag '{other}' is not valid, 'bridge' flag is the ipvlan \
                     driver default"
                )));
            }
        };
        Self::read(ParentDriver::Ipvlan(mode, flag), given)
    }

    fn read(
        driver: ParentDriver,
        given: BTreeMap<String, String>,
    ) -> Result<(Self, BridgeOptions), EngineError> {
        let name = driver_name(driver);
        let parent = match option(&given, "parent") {
            "" => None,
            "lo" => {
                return Err(EngineError::invalid(format!(
                    "loopback interface is not a valid {name} parent link"
                )));
            }
            parent => Some(Parent::of_option(parent)),
        };
        let mut interface_prefix = None;
        for (option, value) in &given {
            if option == INTERFACE_PREFIX {
                interface_prefix = Some(link_name(option, value)?);
            } else if option.starts_with(PREFIX) {
                return Err(EngineError::new(
                    Class::Unsupported,
                    format!("{option}={value} is not an option of {name}; leave it out"),
                ));
            }
        }
        let options = BridgeOptions { interface_prefix, given, ..BridgeOptions::default() };
        Ok((Self { driver, parent }, options))
    }

    /// What the network `id` is on.
    ///
    /// # Errors
    /// An internal network that is on an interface of the host: what it sends would leave.
    pub(crate) fn parent(&self, id: Id, internal: bool) -> Result<Parent, EngineError> {
        match &self.parent {
            Some(parent) if internal => Err(EngineError::invalid(format!(
                "an internal network has no way out, and its parent {} is one; leave out --internal, or \
                 the parent",
                parent.name()
            ))),
            Some(parent) => Ok(parent.clone()),
            None => Ok(Parent::Dummy(format!("dm-{}", id.short()))),
        }
    }
}

fn option<'a>(given: &'a BTreeMap<String, String>, name: &str) -> &'a str {
    given.get(name).map(String::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(options: &[(&str, &str)]) -> BTreeMap<String, String> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        options.iter().map(own).collect()
    }

    #[test]
    fn options_are_read() {
        let vlan = Parent::Vlan { link: "eth0".to_owned(), id: 10 };
        let options = given(&[("parent", "eth0.10"), ("macvlan_mode", "private"), ("x", "y")]);
        let (read, kept) = ParentRequest::macvlan(options.clone()).unwrap();
        assert_eq!(read.driver, ParentDriver::Macvlan(MacvlanMode::Private));
        assert_eq!((read.parent, kept.given), (Some(vlan), options));
        let options = given(&[("ipvlan_mode", "l3"), (INTERFACE_PREFIX, "lan")]);
        let (read, kept) = ParentRequest::ipvlan(options).unwrap();
        assert_eq!(read.driver, ParentDriver::Ipvlan(IpvlanMode::L3, IpvlanFlag::Bridge));
        assert_eq!((read.parent, kept.interface_prefix.as_deref()), (None, Some("lan")));
    }

    #[test]
    fn wrong_options_are_told() {
        for (name, value, part) in [
            ("macvlan_mode", "l2", "'l2' is not valid"),
            ("parent", "lo", "loopback interface is not a valid macvlan parent link"),
            (
                "com.docker.network.driver.mtu",
                "1400",
                "driver.mtu=1400 is not an option of macvlan",
            ),
        ] {
            let error = ParentRequest::macvlan(given(&[(name, value)])).unwrap_err();
            assert!(error.message.contains(part), "{error}");
        }
        for (name, value) in [("ipvlan_mode", "bridge"), ("ipvlan_flag", "l3")] {
            let error = ParentRequest::ipvlan(given(&[(name, value)])).unwrap_err();
            assert!(error.message.contains("is not valid"), "{error}");
        }
    }

    #[test]
    fn an_internal_network_is_on_nothing() {
        let id = Id::random();
        let request = |options: &[(&str, &str)]| ParentRequest::macvlan(given(options)).unwrap().0;
        let (alone, on_link) = (request(&[]), request(&[("parent", "eth0")]));
        assert_eq!(alone.parent(id, true).unwrap().name(), format!("dm-{}", id.short()));
        assert_eq!(on_link.parent(id, false).unwrap().name(), "eth0");
        assert!(on_link.parent(id, true).unwrap_err().message.contains("its parent eth0 is one"));
    }

    #[test]
    fn one_parent_carries_what_goes_together() {
        use MacvlanMode::{Bridge, Passthru, Private};
        let on = |parent: &str, driver| ParentLinks {
            driver,
            parent: Parent::of_option(parent),
            own_parent: false,
        };
        let macvlan = |mode| on("eth0", ParentDriver::Macvlan(mode));
        let ipvlan = on("eth0", ParentDriver::Ipvlan(IpvlanMode::L2, IpvlanFlag::Bridge));
        for (one, other, excludes) in [
            (macvlan(Bridge), macvlan(Private), false),
            (macvlan(Bridge), macvlan(Passthru), true),
            (macvlan(Bridge), ipvlan.clone(), true),
            (ipvlan.clone(), ipvlan.clone(), false),
            (macvlan(Passthru), on("eth1", ParentDriver::Macvlan(Passthru)), false),
        ] {
            assert_eq!((one.excludes(&other), other.excludes(&one)), (excludes, excludes));
        }
    }
}
