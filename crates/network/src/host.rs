//! The host's network namespace, and what is done in it for containers.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use netlink_packet_route::link::LinkMessage;
use rustix::io::Errno;

use crate::firewall::Firewall;
use crate::interface::Interface;
use crate::nft::ruleset::Ipv6Loopback;
use crate::nft::{Nfnetlink, conntrack};
use crate::rtnetlink::Rtnetlink;
use crate::settings::Forwarding;
use crate::survey::{Survey, UsedSubnets};
use crate::{Bridge, Endpoint, NetworkError, PublishedPort, interface, link, netns, settings};

/// The kernel's links, addresses and nftables in the network namespace of the calling thread when
/// it was opened. All methods but [`Host::unplug`],
/// [`Host::unplug_all`] and [`Host::remove_bridge`] block for well under a millisecond to a few milliseconds.
#[derive(Debug)]
pub struct Host {
    netns: OwnedFd,
    /// The kernel changes links under one lock (RTNL), so a second socket would gain nothing.
    route: Mutex<Rtnetlink>,
    firewall: Mutex<Firewall>,
    forwarding: Forwarding,
    /// Beside the firewall's socket, because nobody's start waits for connections to be forgotten.
    connections: Mutex<Nfnetlink>,
}

impl Host {
    pub fn open() -> Result<Self, NetworkError> {
        let what = "open a netlink socket";
        Ok(Self {
            forwarding: Forwarding::default(),
            netns: netns::own().map_err(NetworkError::kernel("open the own network namespace"))?,
            route: Mutex::new(Rtnetlink::open().map_err(NetworkError::kernel(what))?),
            firewall: Mutex::new(Firewall::open().map_err(NetworkError::kernel(what))?),
            connections: Mutex::new(Nfnetlink::open().map_err(NetworkError::kernel(what))?),
        })
    }

    pub fn with_forwarding(self, forwarding: Forwarding) -> Self {
        Self { forwarding, ..self }
    }

    /// Whether the host has an interface of this name.
    pub fn has_link(&self, name: &str) -> Result<bool, NetworkError> {
        link::check_name(name)?;
        Ok(index_of(&mut self.route(), name)?.is_some())
    }

    /// Whether this host uses IPv6: networks are to have it only where the host does.
    pub fn has_ipv6(&self) -> Result<bool, NetworkError> {
        netns::inside(self.netns.as_fd(), || Ok(settings::uses_ipv6()))
            .map_err(NetworkError::kernel("read disable_ipv6 below /proc/sys/net"))
    }

    /// Makes the bridge, its address, forwarding and the base nftables rules; changes nothing the
    /// second time.
    ///
    /// As Docker does, and unless [`Forwarding::Leave`] is said, this sets `net.ipv4.ip_forward` for the whole network namespace, and with an
    /// IPv6 address `net.ipv6.conf.all.forwarding`. The kernel then hears no router advertisements on
    /// interfaces that accept them as a host does (`accept_ra` 1), and forgets the default routes that it has
    /// learnt there; so those get `accept_ra` 2 first, and nothing is lost.
    pub fn ensure_bridge(&self, bridge: &Bridge) -> Result<(), NetworkError> {
        check(bridge)?;
        // the rules stand before there is anything to protect
        let failed = || NetworkError::kernel(format!("set the nftables rules of {}", bridge.name));
        let loopback = self.loopback()?;
        let mut firewall = self.firewall();
        firewall.set_loopback(loopback);
        firewall.add_bridge(bridge).map_err(failed())?;
        drop(firewall);
        self.ensure_bridge_link(bridge)
    }

    fn ensure_bridge_link(&self, bridge: &Bridge) -> Result<(), NetworkError> {
        let failed = || NetworkError::kernel(format!("make bridge {}", bridge.name));
        let mut route = self.route();
        let index = match index_of(&mut route, &bridge.name)? {
            Some(index) => index,
            None => {
                route.change_all(vec![link::new_bridge(bridge)]).map_err(failed())?;
                index_of(&mut route, &bridge.name)?
                    .ok_or_else(|| NetworkError::NoSuchLink(bridge.name.clone()))?
            }
        };
        // before it is up, so that it never has a link-local address nor hears an advertisement
        ignore_absent_ipv6(&mut route, link::indexed(index)).map_err(failed())?;
        self.write_settings(bridge)?;
        let mut changes = vec![link::set_bridge(index, bridge)];
        let access = &bridge.access;
        if let Some(own) = bridge.ipv4.filter(|_| access.ipv4.is_on_bridge()) {
            changes.push(link::new_address(index, own.address.into(), own.prefix));
        }
        if let Some(own) = bridge.ipv6.filter(|_| access.ipv6.is_on_bridge()) {
            // What is forwarded to a container asks for its neighbour from the link-local address.
            changes.extend([
                link::new_address(index, link::link_local(link::bridge_mac(bridge)).into(), 64),
                link::new_address(index, own.address.into(), own.prefix),
                link::loopback_route(index),
            ]);
        }
        route.change_all(changes).map_err(failed())
    }

    /// Removes the bridge, and of endpoints and published ports in its subnet whatever is left; one
    /// that is gone already is no error.
    pub fn remove_bridge(&self, bridge: &Bridge) -> Result<(), NetworkError> {
        let deleted = self.delete_link(&bridge.name);
        self.forget_bridge(bridge).and(deleted)
    }

    /// Removes what the firewall knows of a bridge, and ends the connections of what was on it.
    pub(crate) fn forget_bridge(&self, bridge: &Bridge) -> Result<(), NetworkError> {
        let what = format!("remove the nftables elements of {}", bridge.name);
        let (addresses, removed) = self.firewall().remove_bridge(bridge);
        let forgotten = self.forget(&addresses);
        removed.map_err(NetworkError::kernel(what)).and(forgotten)
    }

    /// How many containers are plugged into a bridge: none, where there is no such bridge.
    pub fn plugged(&self, bridge: &str) -> Result<usize, NetworkError> {
        Ok(survey(&mut self.route())?.veths_on(&[bridge]).len())
    }

    /// Brings `lo` up, makes the veth pair with one end in `netns`, and sets addresses and routes.
    ///
    /// The namespace may be that of a container that runs, with other interfaces: a default route that
    /// is there is replaced where the endpoint's leads elsewhere, and else stays. An internal network
    /// has none.
    pub fn plug(
        &self,
        netns: BorrowedFd<'_>,
        bridge: &Bridge,
        endpoint: &Endpoint,
    ) -> Result<(), NetworkError> {
        link::check_name(&endpoint.host_link)?;
        link::check_name(&endpoint.interface)?;
        let excess = endpoint.ipv4.is_some() && bridge.ipv4.is_none()
            || endpoint.ipv6.is_some() && bridge.ipv6.is_none();
        if excess {
            return Err(NetworkError::EndpointFamilies(endpoint.host_link.clone()));
        }
        let index = index_of(&mut self.route(), &bridge.name)?
            .ok_or_else(|| NetworkError::NoSuchLink(bridge.name.clone()))?;
        // asked for first, because what follows takes a half-made pair away again
        if index_of(&mut self.route(), &endpoint.host_link)?.is_some() {
            return Err(NetworkError::LinkExists(endpoint.host_link.clone()));
        }
        let what = format!("pin {} to its addresses", endpoint.host_link);
        let plugged = self
            .firewall()
            .pin(bridge, endpoint)
            .map_err(NetworkError::kernel(what))
            .and_then(|()| self.plug_host_end(netns, (bridge, index), endpoint))
            .and_then(|()| Interface::on_bridge(bridge, endpoint).configure(netns));
        if plugged.is_err() {
            // the first error is the one to tell; a pair that was never made is no second one
            let _ = self.unplug(&endpoint.host_link);
        }
        plugged
    }

    fn plug_host_end(
        &self,
        netns: BorrowedFd<'_>,
        (bridge, index): (&Bridge, u32),
        endpoint: &Endpoint,
    ) -> Result<(), NetworkError> {
        let mut route = self.route();
        let answers = route
            .change(vec![
                link::new_pair(endpoint, index, bridge.mtu, netns),
                link::no_link_local(link::named(&endpoint.host_link)),
                link::up_port(&endpoint.host_link, bridge),
            ])
            .map_err(NetworkError::kernel(format!("plug {}", endpoint.host_link)))?;
        for (step, answer) in answers.into_iter().enumerate() {
            match answer {
                Err(error) if error.raw_os_error() == Some(Errno::XFULL.raw_os_error()) => {
                    return Err(NetworkError::BridgeFull(bridge.name.clone()));
                }
                // the host's end was looked for before
                Err(error) if step == 0 && error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(NetworkError::LinkTaken(endpoint.interface.clone()));
                }
                Err(error) if step == 1 && link::is_absent_ipv6(&error) => {}
                Err(error) => {
                    let what = format!("plug {} into {}", endpoint.host_link, bridge.name);
                    return Err(NetworkError::kernel(what)(error));
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Only brings `lo` up (`--network none`).
    pub fn loopback_up(&self, netns: BorrowedFd<'_>) -> Result<(), NetworkError> {
        let loopback = link::up(link::indexed(link::LOOPBACK));
        netns::inside(netns, Rtnetlink::open)
            .and_then(|mut route| route.change_all(vec![loopback]))
            .map_err(NetworkError::kernel("bring the container's loopback up"))
    }

    /// Has the container's default routes lead through its interface `interface` by these gateways, in
    /// place of the ones there are; those of a family without a gateway stay as they are.
    ///
    /// For when the network is disconnected that they led through, and they went with its link.
    pub fn set_default_route(
        &self,
        netns: BorrowedFd<'_>,
        interface: &str,
        ipv4: Option<Ipv4Addr>,
        ipv6: Option<Ipv6Addr>,
    ) -> Result<(), NetworkError> {
        interface::set_default_route(netns, interface, ipv4, ipv6)
    }

    /// Removes the host's end (and so the pair), and ends its connections; one that is gone already
    /// is no error.
    ///
    /// The kernel waits for several RCU grace periods when a link goes: this takes 10 to 50 ms, and
    /// is best not waited for.
    pub fn unplug(&self, host_link: &str) -> Result<(), NetworkError> {
        self.unplug_all(&[host_link]).into_iter().next().map_or(Ok(()), Err)
    }

    /// [`Self::unplug`] for several, which costs less than one after the other. Goes on past what
    /// fails and returns all of it.
    pub fn unplug_all(&self, host_links: &[&str]) -> Vec<NetworkError> {
        let deleted = host_links.iter().map(|name| self.delete_link(name));
        let mut faults: Vec<_> = deleted.filter_map(Result::err).collect();
        // No packet comes from a link that is gone, so that what is forgotten stays so.
        let (addresses, unpinned) = self.firewall().unpin(host_links);
        let what = || format!("remove the nftables elements of {}", host_links.join(", "));
        faults.extend(unpinned.map_err(|cause| NetworkError::kernel(what())(cause)).err());
        faults.extend(self.forget(&addresses).err());
        faults
    }

    /// Ends the connections from and to these addresses.
    fn forget(&self, addresses: &[IpAddr]) -> Result<(), NetworkError> {
        let mut socket = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        match conntrack::forget(&mut socket, addresses) {
            // a kernel without nf_conntrack_netlink: old flows end by their timeout
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok(()),
            other => other.map_err(NetworkError::kernel("end the connections of containers")),
        }
    }

    /// Makes the ports lead to their containers, all or none. One that does so already is no error;
    /// one that leads elsewhere is [`NetworkError::PortPublished`].
    ///
    /// Which program of the host listens on a port is not looked at: it would stop being reached.
    pub fn publish(&self, ports: &[PublishedPort]) -> Result<(), NetworkError> {
        self.firewall().publish(ports)
    }

    /// Frees the ports, whomever they lead to; those that are free already are no error.
    pub fn unpublish(&self, ports: &[PublishedPort]) -> Result<(), NetworkError> {
        let failed = NetworkError::kernel("unpublish ports");
        self.firewall().unpublish(ports).map_err(failed)
    }

    /// Whether nobody has changed the nftables ruleset, in any table, or whether the kernel has
    /// bridged packets pass it, since [`Self::reconcile`] or [`Self::mend`]: if somebody has, it is worth
    /// to call the latter. Costs one message and a file's reading.
    pub fn is_intact(&self) -> Result<bool, NetworkError> {
        let failed = NetworkError::kernel("ask for the generation of the nftables ruleset");
        let loopback = self.loopback()?;
        self.firewall().is_intact(loopback).map_err(failed)
    }

    /// Puts back what somebody has taken away of our nftables tables (`nft flush ruleset`, another program's
    /// start), in one transaction, and returns whether anything was missing. No link is touched, and
    /// what others have put into the tables stays.
    pub fn mend(&self) -> Result<bool, NetworkError> {
        let failed = NetworkError::kernel("put the nftables rules back");
        let loopback = self.loopback()?;
        self.firewall().mend(loopback).map_err(failed)
    }

    /// Chains of other programs that drop forwarded packets unless a rule of theirs accepts them, as
    /// `ip filter FORWARD`: what our own table accepts does not get past them.
    pub fn foreign_forward_drops(&self) -> Result<Vec<String>, NetworkError> {
        let failed = NetworkError::kernel("list the chains of the nftables ruleset");
        self.firewall().dropping_forward_chains().map_err(failed)
    }

    /// Makes the kernel hold exactly these endpoints and ports on these bridges: what an engine that
    /// crashed left behind is removed, what a flush of the ruleset lost is put back.
    ///
    /// Every veth on one of the bridges counts as ours, and every port that leads into its subnet; so does
    /// a retired bridge with its veths.
    /// Other bridges are left alone: they may be another engine's. Containers whose link is gone
    /// are not plugged again, because that takes their network namespace. Bridges that cannot be made are
    /// returned, with the reason, and keep no other from being made.
    pub fn reconcile(
        &self,
        bridges: &[(Bridge, Vec<Endpoint>)],
        ports: &[PublishedPort],
    ) -> Result<Vec<(String, NetworkError)>, NetworkError> {
        let loopback = self.loopback()?;
        let mut firewall = self.firewall();
        firewall.set_loopback(loopback);
        firewall.replace(bridges, ports)?;
        drop(firewall);
        let mut faults = Vec::new();
        for (bridge, _) in bridges {
            let made = check(bridge).and_then(|()| self.ensure_bridge_link(bridge));
            faults.extend(made.err().map(|error| (bridge.name.clone(), error)));
        }
        self.delete_strays(bridges)?;
        Ok(faults)
    }

    fn delete_strays(&self, bridges: &[(Bridge, Vec<Endpoint>)]) -> Result<(), NetworkError> {
        let mut route = self.route();
        let survey = survey(&mut route)?;
        let wanted: HashSet<&str> = bridges
            .iter()
            .flat_map(|(_, endpoints)| endpoints.iter().map(|endpoint| endpoint.host_link.as_str()))
            .collect();
        let own = bridges.iter().map(|(bridge, _)| bridge.name.as_str());
        let own: HashSet<&str> = own.collect();
        let mut retired = survey.retired_bridges();
        retired.retain(|name| !own.contains(name));
        let names: Vec<_> = own.iter().copied().chain(retired.iter().copied()).collect();
        let strays = survey.veths_on(&names).into_iter().filter(|name| !wanted.contains(name));
        let deletions: Vec<_> = strays.chain(retired).map(link::delete).collect();
        let answers =
            route.change(deletions).map_err(NetworkError::kernel("remove stale interfaces"))?;
        // all of them are tried before the first refusal is told
        for answer in answers {
            unless_absent(answer).map_err(NetworkError::kernel("remove a stale interface"))?;
        }
        Ok(())
    }

    /// Removes the nftables tables, with what the administrator put into `user`, once the last
    /// bridge was removed from them; `net.ipv4.ip_forward` stays, because others may rely on it.
    pub fn tear_down(&self) -> Result<(), NetworkError> {
        let failed = NetworkError::kernel("remove the nftables tables called bulkhead");
        self.firewall().delete_tables().map_err(failed)
    }

    /// IPv4 addresses of this host's interfaces, without loopback, link-local and our own bridges'; the
    /// default route's first.
    pub fn addresses(&self) -> Result<Vec<Ipv4Addr>, NetworkError> {
        Ok(survey(&mut self.route())?.addresses())
    }

    /// The MTU of the interface that holds the default route, 1500 if there is none.
    pub fn default_mtu(&self) -> Result<u32, NetworkError> {
        Ok(survey(&mut self.route())?.default_mtu().unwrap_or(1500))
    }

    /// Whether a route or an address of this host overlaps `subnet`/`prefix`. Whoever asks about
    /// several subnets takes [`Self::used_subnets`].
    pub fn overlaps(&self, subnet: IpAddr, prefix: u8) -> Result<bool, NetworkError> {
        Ok(self.used_subnets()?.overlaps(subnet, prefix))
    }

    /// The subnets of this host's routes and addresses, for a pool to avoid.
    pub fn used_subnets(&self) -> Result<UsedSubnets, NetworkError> {
        Ok(survey(&mut self.route())?.used_subnets())
    }

    pub(crate) fn delete_link(&self, name: &str) -> Result<(), NetworkError> {
        link::check_name(name)?;
        let failed = NetworkError::kernel(format!("remove interface {name}"));
        unless_absent(self.route().change_all(vec![link::delete(name)])).map_err(failed)
    }

    /// Sets what only files in /proc/sys can set. They are those of the network namespace of the
    /// thread that opens them, and this may be any thread.
    fn write_settings(&self, bridge: &Bridge) -> Result<(), NetworkError> {
        let what = format!("write settings for {} below /proc/sys/net", bridge.name);
        netns::inside(self.netns.as_fd(), || settings::of_bridge(bridge, self.forwarding))
            .map_err(NetworkError::kernel(what))
    }

    fn loopback(&self) -> Result<Ipv6Loopback, NetworkError> {
        netns::inside(self.netns.as_fd(), settings::ipv6_loopback)
            .map_err(NetworkError::kernel("read bridge-nf-call-ip6tables below /proc/sys/net"))
    }

    fn firewall(&self) -> MutexGuard<'_, Firewall> {
        self.firewall.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(crate) fn route(&self) -> MutexGuard<'_, Rtnetlink> {
        // a socket that another thread left in the middle of a request stays usable, because
        // answers are told apart by their sequence numbers
        self.route.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn check(bridge: &Bridge) -> Result<(), NetworkError> {
    link::check_name(&bridge.name)?;
    match bridge.ipv6 {
        Some(_) if !settings::has_ipv6() => Err(NetworkError::NoIpv6(bridge.name.clone())),
        Some(_) if bridge.mtu < MIN_MTU_IPV6 => {
            Err(NetworkError::MtuBelowIpv6 { bridge: bridge.name.clone(), mtu: bridge.mtu })
        }
        _ => Ok(()),
    }
}

/// `IPV6_MIN_MTU`: below it the kernel has no IPv6 on a link (RFC 8200, section 5).
pub const MIN_MTU_IPV6: u32 = 1280;

fn survey(route: &mut Rtnetlink) -> Result<Survey, NetworkError> {
    Survey::take(route).map_err(NetworkError::kernel("list links, addresses and routes"))
}

pub(crate) fn index_of(route: &mut Rtnetlink, name: &str) -> Result<Option<u32>, NetworkError> {
    link::index_of(route, name).map_err(NetworkError::kernel(format!("look up interface {name}")))
}

fn ignore_absent_ipv6(route: &mut Rtnetlink, link: LinkMessage) -> io::Result<()> {
    match route.change_all(vec![link::no_link_local(link)]) {
        Err(error) if link::is_absent_ipv6(&error) => Ok(()),
        other => other,
    }
}

fn is_absent(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NODEV.raw_os_error())
}

fn unless_absent(answer: io::Result<()>) -> io::Result<()> {
    match answer {
        Err(error) if is_absent(&error) => Ok(()),
        other => other,
    }
}
