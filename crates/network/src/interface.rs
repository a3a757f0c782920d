//! The container's side of an endpoint: its interface, addresses and default routes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;

use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use crate::rtnetlink::Rtnetlink;
use crate::{Bridge, Endpoint, InterfaceSysctl, NetworkError, link, netns, settings};

/// What a container's interface is to have.
#[derive(Debug, Default)]
pub(crate) struct Interface<'a> {
    pub name: &'a str,
    /// With their prefixes.
    pub addresses: Vec<(IpAddr, u8)>,
    /// An address for talking to neighbours, beside one of IPv6.
    pub link_local: LinkLocal,
    pub default_routes: Vec<DefaultVia>,
    pub sysctls: &'a [InterfaceSysctl],
}

/// Where a link's link-local IPv6 address comes from.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum LinkLocal {
    /// It has none.
    #[default]
    None,
    /// Made here from its hardware address, and used at once.
    Of([u8; 6]),
    /// Made by the kernel, where several links have one hardware address.
    Kernel,
}

/// Where a default route leads.
#[derive(Debug, Clone, Copy)]
pub(crate) enum DefaultVia {
    Gateway(IpAddr),
    /// Everybody is reached on the link itself.
    Link(AddressFamily),
}

impl Interface<'_> {
    /// What an endpoint on a bridge is to have.
    pub(crate) fn on_bridge<'a>(bridge: &Bridge, endpoint: &'a Endpoint) -> Interface<'a> {
        let mut interface = Interface {
            name: &endpoint.interface,
            sysctls: &endpoint.sysctls,
            ..Interface::default()
        };
        let mut add = |address: IpAddr, prefix, gateway: IpAddr, leads: bool| {
            interface.addresses.push((address, prefix));
            if leads && !bridge.internal {
                interface.default_routes.push(DefaultVia::Gateway(gateway));
            }
        };
        if let (Some(address), Some(own)) = (endpoint.ipv4, bridge.ipv4) {
            add(address.into(), own.prefix, own.address.into(), endpoint.default_route.ipv4());
        }
        if let (Some(address), Some(own)) = (endpoint.ipv6, bridge.ipv6) {
            add(address.into(), own.prefix, own.address.into(), endpoint.default_route.ipv6());
            interface.link_local = LinkLocal::Of(endpoint.mac);
        }
        interface.addresses.extend(with_prefix(&endpoint.link_local));
        interface
    }

    /// Sets the interface up and brings `lo` up, in one datagram once the interface's index is known;
    /// in two where it has settings, which stand before it is up (moby: libnetwork/osl, `AddInterface`).
    pub(crate) fn configure(&self, netns: BorrowedFd<'_>) -> Result<(), NetworkError> {
        for sysctl in self.sysctls {
            let file = sysctl.file(self.name);
            let is_there = netns::inside(netns, || Ok(std::path::Path::new(&file).is_file()));
            if !is_there.map_err(NetworkError::kernel(format!("look for {file}")))? {
                return Err(NetworkError::NoSuchSetting {
                    interface: self.name.to_owned(),
                    setting: sysctl.to_string(),
                });
            }
        }
        let list: Vec<_> = self.addresses.iter().map(|(address, _)| address.to_string()).collect();
        self.set_up(netns).map_err(NetworkError::kernel(format!(
            "configure {} with {} in the container's network namespace",
            self.name,
            list.join(" and ")
        )))
    }

    fn set_up(&self, netns: BorrowedFd<'_>) -> io::Result<()> {
        let has_ipv6 = self.addresses.iter().any(|(address, _)| address.is_ipv6());
        let mut route = netns::inside(netns, || {
            if has_ipv6 {
                settings::enable_ipv6(self.name)?;
            }
            Rtnetlink::open()
        })?;
        let index = index_of(&mut route, self.name)?;
        let mut quiet = Vec::new();
        if !matches!(self.link_local, LinkLocal::Kernel) {
            quiet.push(link::no_link_local(link::indexed(index)));
        }
        let up = [link::up(link::indexed(link::LOOPBACK)), link::up(link::indexed(index))];
        let mut addresses = Vec::new();
        if let LinkLocal::Of(mac) = self.link_local {
            addresses.push(link::new_address(index, link::link_local(mac).into(), 64));
        }
        let own = self.addresses.iter();
        addresses.extend(own.map(|(address, prefix)| link::new_address(index, *address, *prefix)));
        let routes = self.default_routes.iter().map(|via| match via {
            DefaultVia::Gateway(gateway) => link::default_route(index, *gateway),
            DefaultVia::Link(family) => link::default_route_on_link(index, *family),
        });
        let may_fail = quiet.len();
        let mut changes = quiet;
        if self.sysctls.is_empty() {
            changes.extend(up.into_iter().chain(addresses));
        } else {
            changes.extend(addresses);
            answered(route.change(std::mem::take(&mut changes))?, may_fail)?;
            netns::inside(netns, || {
                let set = |sysctl: &InterfaceSysctl| {
                    let file = sysctl.file(self.name);
                    let told = |error: io::Error| {
                        io::Error::new(error.kind(), format!("{sysctl}: {error}"))
                    };
                    settings::set(&file, sysctl.value()).map_err(told)
                };
                self.sysctls.iter().try_for_each(set)
            })?;
            changes.extend(up);
        }
        let may_fail = if self.sysctls.is_empty() { may_fail } else { 0 };
        changes.extend(routes);
        answered(route.change(changes)?, may_fail)
    }
}

/// The first refusal, but for those of the first `may_fail` changes where there is no IPv6.
fn answered(answers: Vec<io::Result<()>>, may_fail: usize) -> io::Result<()> {
    for (step, answer) in answers.into_iter().enumerate() {
        match answer {
            Err(error) if step < may_fail && link::is_absent_ipv6(&error) => {}
            other => other?,
        }
    }
    Ok(())
}

/// Link-local addresses with the prefixes of RFC 3927 and RFC 4291.
pub(crate) fn with_prefix(link_local: &[IpAddr]) -> impl Iterator<Item = (IpAddr, u8)> {
    link_local.iter().map(|address| (*address, if address.is_ipv4() { 16 } else { 64 }))
}

/// Deletes a link of the container's; one that is gone already is no error.
pub(crate) fn delete(netns: BorrowedFd<'_>, interface: &str) -> Result<(), NetworkError> {
    link::check_name(interface)?;
    let deleted = netns::inside(netns, Rtnetlink::open)
        .and_then(|mut route| route.change_all(vec![link::delete(interface)]));
    match deleted {
        Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(()),
        other => other.map_err(NetworkError::kernel(format!(
            "remove {interface} from the container's network namespace"
        ))),
    }
}

pub(crate) fn set_default_route(
    netns: BorrowedFd<'_>,
    interface: &str,
    ipv4: Option<Ipv4Addr>,
    ipv6: Option<Ipv6Addr>,
) -> Result<(), NetworkError> {
    link::check_name(interface)?;
    let gateways = ipv4.map(IpAddr::from).into_iter().chain(ipv6.map(IpAddr::from));
    let set = || {
        let mut route = netns::inside(netns, Rtnetlink::open)?;
        let index = index_of(&mut route, interface)?;
        route.change_all(gateways.map(|gateway| link::default_route(index, gateway)).collect())
    };
    set().map_err(NetworkError::kernel(format!(
        "set the default route through {interface} in the container's network namespace"
    )))
}

fn index_of(route: &mut Rtnetlink, interface: &str) -> io::Result<u32> {
    match route.one(RouteNetlinkMessage::GetLink(link::named(interface)))? {
        RouteNetlinkMessage::NewLink(link) => Ok(link.header.index),
        _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}
