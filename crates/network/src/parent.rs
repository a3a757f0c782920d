//! Links on an interface of the host: Docker's drivers `macvlan` and `ipvlan`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{
    InfoData, InfoIpVlan, InfoKind, InfoMacVlan, InfoVlan, IpVlanFlags, IpVlanMode, LinkAttribute,
    LinkInfo, LinkMessage, MacVlanMode,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::interface::{DefaultVia, Interface, LinkLocal, with_prefix};
use crate::rtnetlink::{Change, Rtnetlink};
use crate::{DefaultRoute, Host, InterfaceSysctl, NetworkError, interface, link};

/// The interface of the host that containers' links are on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Parent {
    /// The host's own.
    Link(String),
    /// VLAN `id` of the host's `link`, made for the network: `link.id`.
    Vlan { link: String, id: u16 },
    /// One that leads nowhere: the network is internal.
    Dummy(String),
}

/// What kind of link a container gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParentDriver {
    Macvlan(MacvlanMode),
    Ipvlan(IpvlanMode, IpvlanFlag),
}

/// Docker's `macvlan_mode`: who of one parent reaches whom.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MacvlanMode {
    /// Everybody, directly.
    #[default]
    Bridge,
    /// Everybody, by the switch outside.
    Vepa,
    /// Nobody.
    Private,
    /// There is one only, and it has the parent's hardware address.
    Passthru,
}

/// Docker's `ipvlan_mode`: on which layer the parent passes packets on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpvlanMode {
    #[default]
    L2,
    /// As a router: without broadcasts, and each default route leads to the link itself.
    L3,
    /// [`Self::L3`] with the host's connection tracking.
    L3s,
}

/// Docker's `ipvlan_flag`, as [`MacvlanMode`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpvlanFlag {
    #[default]
    Bridge,
    Private,
    Vepa,
}

/// One container's place on a parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentEndpoint {
    pub driver: ParentDriver,
    /// The name inside, `eth0`.
    pub interface: String,
    /// Of a macvlan; those of ipvlan and of [`MacvlanMode::Passthru`] have their parent's.
    pub mac: Option<[u8; 6]>,
    pub ipv4: Option<Assigned<Ipv4Addr>>,
    pub ipv6: Option<Assigned<Ipv6Addr>>,
    pub default_route: DefaultRoute,
    /// As [`crate::Endpoint::link_local`].
    pub link_local: Vec<IpAddr>,
    pub sysctls: Vec<InterfaceSysctl>,
}

/// An address in a network that is not the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assigned<A> {
    pub address: A,
    pub prefix: u8,
    /// A router outside. Without one there is no default route, but on [`IpvlanMode::L3`].
    pub gateway: Option<A>,
}

impl Host {
    /// Makes a parent interface that a network is to have of its own, and brings it up: a VLAN
    /// sub-interface or a dummy. Returns whether it was made now, and so is to be removed with the
    /// network; one that is the host's is only looked for.
    pub fn ensure_parent(&self, parent: &Parent) -> Result<bool, NetworkError> {
        parent.ensure(&mut self.route())
    }

    /// Removes a parent interface that [`Self::ensure_parent`] has made; one that is gone already is no
    /// error. The host's own stays.
    pub fn remove_parent(&self, parent: &Parent) -> Result<(), NetworkError> {
        match parent {
            Parent::Link(_) => Ok(()),
            Parent::Vlan { .. } | Parent::Dummy(_) => self.delete_link(&parent.name()),
        }
    }

    /// Gives the container a link of its own on a parent interface, with addresses and routes, and
    /// brings `lo` up. As with [`Self::plug`], the namespace may be that of a container that runs.
    ///
    /// The rules of [`Self::publish`] do not concern such a link: its network is the parent's.
    pub fn plug_parent(
        &self,
        netns: BorrowedFd<'_>,
        parent: &Parent,
        endpoint: &ParentEndpoint,
    ) -> Result<(), NetworkError> {
        endpoint.make(&mut self.route(), netns, parent)?;
        let configured = endpoint.interface().configure(netns);
        if configured.is_err() {
            // the first error is the one to tell
            let _ = interface::delete(netns, &endpoint.interface);
        }
        configured
    }

    /// Takes the container's link off its parent, while the container runs; one that is gone already
    /// is no error. A link goes with its namespace besides.
    pub fn unplug_parent(
        &self,
        netns: BorrowedFd<'_>,
        interface: &str,
    ) -> Result<(), NetworkError> {
        interface::delete(netns, interface)
    }
}

impl Parent {
    /// Reads Docker's option `parent`: a name such as `eth0.50` is VLAN 50 of `eth0`, which is used
    /// if it is there, and made if not.
    pub fn of_option(text: &str) -> Self {
        let vlan = text.rsplit_once('.').and_then(|(link, id)| {
            let id = id.parse().ok().filter(|id| (1..=4094).contains(id))?;
            Some(Self::Vlan { link: link.to_owned(), id })
        });
        vlan.unwrap_or_else(|| Self::Link(text.to_owned()))
    }

    /// The interface's name.
    pub fn name(&self) -> String {
        match self {
            Self::Link(name) | Self::Dummy(name) => name.clone(),
            Self::Vlan { link, id } => format!("{link}.{id}"),
        }
    }

    fn ensure(&self, route: &mut Rtnetlink) -> Result<bool, NetworkError> {
        let name = self.name();
        link::check_name(&name)?;
        if index_of(route, &name)?.is_some() {
            return Ok(false);
        }
        let mut made = link::named(&name);
        let (kind, info) = match self {
            Self::Link(_) => return Err(NetworkError::NoSuchLink(name)),
            Self::Dummy(_) => ("dummy", vec![LinkInfo::Kind(InfoKind::Dummy)]),
            Self::Vlan { link, id } => {
                let below =
                    index_of(route, link)?.ok_or_else(|| NetworkError::NoSuchLink(link.clone()))?;
                made.attributes.push(LinkAttribute::Link(below));
                let data = InfoData::Vlan(vec![InfoVlan::Id(*id)]);
                ("vlan", vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(data)])
            }
        };
        made.attributes.push(LinkAttribute::LinkInfo(info));
        create(route, made, kind, &format!("make interface {name}"))?;
        route
            .change_all(vec![link::up(link::named(&name))])
            .map_err(NetworkError::kernel(format!("bring {name} up")))?;
        Ok(true)
    }
}

impl ParentEndpoint {
    /// Makes the link, directly in the container's namespace.
    fn make(
        &self,
        route: &mut Rtnetlink,
        netns: BorrowedFd<'_>,
        parent: &Parent,
    ) -> Result<(), NetworkError> {
        link::check_name(&self.interface)?;
        let below = index_of(route, &parent.name())?
            .ok_or_else(|| NetworkError::NoSuchLink(parent.name()))?;
        let mut made = link::named(&self.interface);
        made.attributes
            .extend([LinkAttribute::Link(below), LinkAttribute::NetNsFd(netns.as_raw_fd())]);
        made.attributes.extend(self.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
        let (kind, info) = match self.driver {
            ParentDriver::Macvlan(mode) => {
                let mode = match mode {
                    MacvlanMode::Bridge => MacVlanMode::Bridge,
                    MacvlanMode::Vepa => MacVlanMode::Vepa,
                    MacvlanMode::Private => MacVlanMode::Private,
                    MacvlanMode::Passthru => MacVlanMode::Passthrough,
                };
                let data = InfoData::MacVlan(vec![InfoMacVlan::Mode(mode)]);
                ("macvlan", vec![LinkInfo::Kind(InfoKind::MacVlan), LinkInfo::Data(data)])
            }
            ParentDriver::Ipvlan(mode, flag) => {
                let mode = match mode {
                    IpvlanMode::L2 => IpVlanMode::L2,
                    IpvlanMode::L3 => IpVlanMode::L3,
                    IpvlanMode::L3s => IpVlanMode::L3S,
                };
                let flags = match flag {
                    IpvlanFlag::Bridge => IpVlanFlags::empty(),
                    IpvlanFlag::Private => IpVlanFlags::Private,
                    IpvlanFlag::Vepa => IpVlanFlags::Vepa,
                };
                let data = InfoData::IpVlan(vec![InfoIpVlan::Mode(mode), InfoIpVlan::Flags(flags)]);
                ("ipvlan", vec![LinkInfo::Kind(InfoKind::IpVlan), LinkInfo::Data(data)])
            }
        };
        made.attributes.push(LinkAttribute::LinkInfo(info));
        let what = format!("make {} of kind {kind} on {}", self.interface, parent.name());
        match create(route, made, kind, &what) {
            Err(NetworkError::Kernel { cause, .. })
                if cause.kind() == io::ErrorKind::AlreadyExists =>
            {
                Err(NetworkError::LinkTaken(self.interface.clone()))
            }
            Err(NetworkError::Kernel { cause, .. })
                if cause.raw_os_error() == Some(Errno::BUSY.raw_os_error()) =>
            {
                Err(NetworkError::ParentInUse(parent.name()))
            }
            other => other,
        }
    }

    /// What the link is to have.
    fn interface(&self) -> Interface<'_> {
        let on_link =
            matches!(self.driver, ParentDriver::Ipvlan(IpvlanMode::L3 | IpvlanMode::L3s, _));
        let mut interface =
            Interface { name: &self.interface, sysctls: &self.sysctls, ..Interface::default() };
        let mut add = |address: IpAddr, prefix, gateway: Option<IpAddr>, family, leads: bool| {
            interface.addresses.push((address, prefix));
            let via = match gateway {
                _ if on_link => Some(DefaultVia::Link(family)),
                gateway => gateway.map(DefaultVia::Gateway),
            };
            interface.default_routes.extend(via.filter(|_| leads));
        };
        if let Some(Assigned { address, prefix, gateway }) = self.ipv4 {
            let gateway = gateway.map(IpAddr::from);
            let leads = self.default_route.ipv4();
            add(address.into(), prefix, gateway, AddressFamily::Inet, leads);
        }
        if let Some(Assigned { address, prefix, gateway }) = self.ipv6 {
            let gateway = gateway.map(IpAddr::from);
            let leads = self.default_route.ipv6();
            add(address.into(), prefix, gateway, AddressFamily::Inet6, leads);
            interface.link_local = match self.mac {
                Some(mac) => LinkLocal::Of(mac),
                None => LinkLocal::Kernel,
            };
        }
        interface.addresses.extend(with_prefix(&self.link_local));
        interface
    }
}

/// Makes a link of a kind that this kernel may be without.
fn create(
    route: &mut Rtnetlink,
    message: LinkMessage,
    kind: &'static str,
    what: &str,
) -> Result<(), NetworkError> {
    let change: Change = (RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL);
    match route.change_all(vec![change]) {
        Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => {
            Err(NetworkError::NoSuchKind(kind))
        }
        other => other.map_err(NetworkError::kernel(what)),
    }
}

fn index_of(route: &mut Rtnetlink, name: &str) -> Result<Option<u32>, NetworkError> {
    link::index_of(route, name).map_err(NetworkError::kernel(format!("look up interface {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_with_a_number_is_a_vlan() {
        let vlan = |link: &str, id| Parent::Vlan { link: link.to_owned(), id };
        for (text, parent) in [
            ("eth0", Parent::Link("eth0".to_owned())),
            ("eth0.50", vlan("eth0", 50)),
            ("eth0.1.4094", vlan("eth0.1", 4094)),
            ("eth0.0", Parent::Link("eth0.0".to_owned())),
            ("eth0.4095", Parent::Link("eth0.4095".to_owned())),
            ("lan.x", Parent::Link("lan.x".to_owned())),
        ] {
            assert_eq!(Parent::of_option(text), parent);
            assert_eq!(parent.name(), text);
        }
    }
}
