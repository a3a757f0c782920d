//! The rules and their elements as acts: what is inserted when, and what is put back.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;

use rustix::io::Errno;

use crate::nft::ruleset::{self, Ipv6Loopback, Placed};
use crate::nft::{Batch, Element, Family, Nfnetlink, chains};
use crate::{Bridge, Endpoint, NetworkError, PublishedPort};

/// Our two tables in the network namespace in which this was opened.
#[derive(Debug)]
pub(crate) struct Firewall {
    socket: Nfnetlink,
    /// The ruleset's generation after our last change, if all of it then was as we want it.
    intact: Option<u32>,
    /// Elements by host link: an endpoint is unplugged by its name alone.
    endpoints: HashMap<String, Vec<Placed>>,
    /// All that was inserted and not removed since: what a flush has lost is put back from it.
    held: HashMap<Place, Element>,
    loopback: Ipv6Loopback,
}

impl Firewall {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self {
            socket: Nfnetlink::open()?,
            intact: None,
            endpoints: HashMap::new(),
            held: HashMap::new(),
            loopback: Ipv6Loopback::default(),
        })
    }

    /// Says what the rules are to do with connections to `[::1]`, from when they are next written.
    pub(crate) fn set_loopback(&mut self, loopback: Ipv6Loopback) {
        self.loopback = loopback;
    }

    /// Makes tables, chains and rules, and the bridge's elements.
    pub(crate) fn add_bridge(&mut self, bridge: &Bridge) -> io::Result<()> {
        let mut batch = Batch::default();
        chains::base(&mut batch, self.loopback);
        let placed = ruleset::bridge(bridge);
        insert(&mut batch, &placed);
        self.commit(&batch)?;
        self.hold(&placed);
        Ok(())
    }

    /// Removes the bridge's elements, and what an engine that crashed left in its subnet. Returns
    /// the addresses there: their connections are to be forgotten, also where this failed.
    pub(crate) fn remove_bridge(&mut self, bridge: &Bridge) -> (Vec<IpAddr>, io::Result<()>) {
        match self.concerning(&[bridge]) {
            Ok(stale) => {
                let removed = self.commit(&removing(&stale));
                if removed.is_ok() {
                    self.let_go(&stale);
                }
                (addresses(&stale), removed)
            }
            Err(error) => (Vec::new(), Err(error)),
        }
    }

    /// The elements of these bridges and of whatever has an address in their subnets.
    fn concerning(&mut self, bridges: &[&Bridge]) -> io::Result<Vec<Placed>> {
        Ok(ruleset::concerning(self.found()?, bridges))
    }

    /// All elements that the kernel holds.
    fn found(&mut self) -> io::Result<Vec<Placed>> {
        let mut placed = Vec::new();
        for (family, set) in ruleset::SETS {
            let found = match self.socket.elements(family, ruleset::TABLE, set.name) {
                Err(error) if is_absent(&error) => Vec::new(),
                other => other?,
            };
            placed.extend(found.into_iter().map(|element| (family, set.name, element)));
        }
        Ok(placed)
    }

    pub(crate) fn pin(&mut self, bridge: &Bridge, endpoint: &Endpoint) -> io::Result<()> {
        let placed = ruleset::endpoint(endpoint);
        match self.commit(&inserting(&placed)) {
            // somebody flushed the ruleset: the rest comes back by `reconcile`
            Err(error) if is_absent(&error) => {
                self.add_bridge(bridge)?;
                self.commit(&inserting(&placed))?;
            }
            other => other?,
        }
        self.hold(&placed);
        self.endpoints.insert(endpoint.host_link.clone(), placed);
        Ok(())
    }

    /// Removes the elements of these endpoints; those that are gone already are no error. Returns
    /// the addresses that they were pinned to: their connections are to be forgotten, also where
    /// this failed.
    pub(crate) fn unpin(&mut self, host_links: &[&str]) -> (Vec<IpAddr>, io::Result<()>) {
        let (mut placed, mut looked_up) = (Vec::new(), Ok(()));
        for host_link in host_links {
            match self.endpoints.remove(*host_link) {
                Some(known) => placed.extend(known),
                None => match self.with_interface(host_link) {
                    Ok(found) => placed.extend(found),
                    Err(error) => looked_up = looked_up.and(Err(error)),
                },
            }
        }
        (addresses(&placed), self.remove_all(&placed).and(looked_up))
    }

    pub(crate) fn publish(&mut self, ports: &[PublishedPort]) -> Result<(), NetworkError> {
        let placed = elements_of(ports)?;
        let published = match self.commit(&inserting(&placed)) {
            Err(error) if is_absent(&error) => {
                let mut batch = Batch::default();
                chains::base(&mut batch, self.loopback);
                insert(&mut batch, &placed);
                self.commit(&batch)
            }
            other => other,
        };
        if published.is_ok() {
            self.hold(&placed);
        }
        published.map_err(|cause| {
            let list: Vec<_> = ports.iter().map(PublishedPort::to_string).collect();
            let list = list.join(", ");
            if cause.kind() == io::ErrorKind::AlreadyExists {
                NetworkError::PortPublished(list)
            } else {
                NetworkError::Kernel { what: format!("publish {list}"), cause }
            }
        })
    }

    pub(crate) fn unpublish(&mut self, ports: &[PublishedPort]) -> io::Result<()> {
        // what cannot be published is not
        let placed: Vec<_> = ports.iter().filter_map(ruleset::port).flatten().collect();
        self.remove_all(&placed)
    }

    /// Removes elements, whichever of them are there.
    fn remove_all(&mut self, placed: &[Placed]) -> io::Result<()> {
        // Before it is tried: what could not be removed is not to come back.
        self.let_go(placed);
        match self.commit(&removing(placed)) {
            // one is gone, so none was removed: one by one
            Err(error) if is_absent(&error) => {
                let answers: Vec<_> = placed
                    .iter()
                    .map(|each| unless_absent(self.commit(&removing(std::slice::from_ref(each)))))
                    .collect();
                answers.into_iter().collect()
            }
            other => other,
        }
    }

    /// Replaces all rules, and the elements of these bridges and of whatever has an address in
    /// their subnets, in one transaction: nothing is open in between. Elements of other bridges
    /// are another engine's.
    pub(crate) fn replace(
        &mut self,
        bridges: &[(Bridge, Vec<Endpoint>)],
        ports: &[PublishedPort],
    ) -> Result<(), NetworkError> {
        let mut elements = elements_of(ports)?;
        self.replace_elements(bridges, &mut elements)
            .map_err(NetworkError::kernel("replace the nftables rules"))
    }

    fn replace_elements(
        &mut self,
        bridges: &[(Bridge, Vec<Endpoint>)],
        elements: &mut Vec<Placed>,
    ) -> io::Result<()> {
        let before = self.socket.generation()?;
        let mut batch = Batch::default();
        chains::base(&mut batch, self.loopback);
        let named: Vec<&Bridge> = bridges.iter().map(|(bridge, _)| bridge).collect();
        let stale = self.concerning(&named)?;
        remove(&mut batch, &stale);
        for (bridge, endpoints) in bridges {
            elements.extend(ruleset::bridge(bridge));
            for endpoint in endpoints {
                let placed = ruleset::endpoint(endpoint);
                self.endpoints.insert(endpoint.host_link.clone(), placed.clone());
                elements.extend(placed);
            }
        }
        insert(&mut batch, elements);
        self.socket.commit(&batch)?;
        self.let_go(&stale);
        self.hold(elements);
        self.intact = self.socket.generation().ok().filter(|after| *after == following(before));
        Ok(())
    }

    pub(crate) fn is_intact(&mut self, loopback: Ipv6Loopback) -> io::Result<bool> {
        Ok(self.loopback == loopback && self.intact == Some(self.socket.generation()?))
    }

    /// Puts back what somebody has taken away of our tables: rules, and elements. Returns whether
    /// anything was; what others have added is left alone.
    pub(crate) fn mend(&mut self, loopback: Ipv6Loopback) -> io::Result<bool> {
        // Nothing is protected, or all of it was torn down.
        if self.held.is_empty() {
            return Ok(false);
        }
        let before = self.socket.generation()?;
        let is_whole = self.loopback == loopback && self.rules_are_whole(loopback)?;
        self.loopback = loopback;
        let found: HashSet<Place> = self.found()?.iter().map(place).collect();
        let missing = self.held.iter().filter(|(place, _)| !found.contains(*place));
        let missing: Vec<Placed> =
            missing.map(|((family, set, _), element)| (*family, *set, element.clone())).collect();
        if is_whole && missing.is_empty() {
            self.intact = Some(before);
            return Ok(false);
        }
        let mut batch = Batch::default();
        chains::base(&mut batch, loopback);
        insert(&mut batch, &missing);
        self.socket.commit(&batch)?;
        self.intact = self.socket.generation().ok().filter(|after| *after == following(before));
        Ok(true)
    }

    /// Whether each of our chains has as many rules as it is to have.
    fn rules_are_whole(&mut self, loopback: Ipv6Loopback) -> io::Result<bool> {
        for family in ruleset::FAMILIES {
            let found = match self.socket.rules(family, ruleset::TABLE) {
                Err(error) if is_absent(&error) => HashMap::new(),
                other => other?,
            };
            let counts = chains::counts(loopback);
            let mut own = counts.iter().filter(|(of, _, _)| *of == family);
            if own.any(|(_, chain, count)| found.get(*chain) != Some(count)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn hold(&mut self, placed: &[Placed]) {
        self.held.extend(placed.iter().map(|one| (place(one), one.2.clone())));
    }

    fn let_go(&mut self, placed: &[Placed]) {
        for one in placed {
            self.held.remove(&place(one));
        }
    }

    pub(crate) fn dropping_forward_chains(&mut self) -> io::Result<Vec<String>> {
        self.socket.dropping_forward_chains()
    }

    /// Deletes both tables, unless they still serve a bridge: perhaps another engine's.
    pub(crate) fn delete_tables(&mut self) -> io::Result<()> {
        match self.socket.elements(Family::Inet, ruleset::TABLE, ruleset::BRIDGES.name) {
            Ok(bridges) if !bridges.is_empty() => return Ok(()),
            Err(error) if !is_absent(&error) => return Err(error),
            _ => {}
        }
        let answers = ruleset::FAMILIES.map(|family| {
            let mut batch = Batch::default();
            batch.delete_table(family, ruleset::TABLE);
            unless_absent(self.commit(&batch))
        });
        self.intact = None;
        self.held.clear();
        answers.into_iter().collect()
    }

    /// Every element whose key begins with the interface.
    fn with_interface(&mut self, name: &str) -> io::Result<Vec<Placed>> {
        let mut placed = Vec::new();
        for (family, set) in ruleset::keyed_by_interface() {
            let found = match self.socket.elements(family, ruleset::TABLE, set) {
                Err(error) if is_absent(&error) => continue,
                other => other?,
            };
            let own = found.into_iter().filter(|element| ruleset::is_of(element, name));
            placed.extend(own.map(|element| (family, set, element)));
        }
        Ok(placed)
    }

    /// Commits, and stays `intact` if nobody else changed the ruleset before or meanwhile.
    fn commit(&mut self, batch: &Batch) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let before = self.intact;
        self.socket.commit(batch)?;
        self.intact = before
            .map(following)
            .filter(|expected| self.socket.generation().is_ok_and(|after| after == *expected));
        Ok(())
    }
}

/// Where an element is, and its key.
type Place = (Family, &'static str, Vec<u8>);

fn place((family, set, element): &Placed) -> Place {
    (*family, set, element.key.clone())
}

/// The kernel counts up at each commit and leaves 0 out (net/netfilter/nf_tables_api.c).
fn following(generation: u32) -> u32 {
    generation.checked_add(1).unwrap_or(1)
}

fn elements_of(ports: &[PublishedPort]) -> Result<Vec<Placed>, NetworkError> {
    let placed = |port| ruleset::port(port).ok_or(NetworkError::PortFamilies(*port));
    let placed: Vec<_> = ports.iter().map(placed).collect::<Result<_, _>>()?;
    Ok(placed.into_iter().flatten().collect())
}

fn inserting(elements: &[Placed]) -> Batch {
    let mut batch = Batch::default();
    insert(&mut batch, elements);
    batch
}

/// Adds elements to `batch`, one message per set.
fn insert(batch: &mut Batch, elements: &[Placed]) {
    for (family, set) in ruleset::SETS {
        batch.insert(family, ruleset::TABLE, set.name, &of(elements, family, set.name));
    }
}

fn removing(elements: &[Placed]) -> Batch {
    let mut batch = Batch::default();
    remove(&mut batch, elements);
    batch
}

/// Removes elements as part of `batch`, one message per set.
fn remove(batch: &mut Batch, elements: &[Placed]) {
    for (family, set) in ruleset::SETS {
        batch.remove(family, ruleset::TABLE, set.name, &of(elements, family, set.name));
    }
}

fn of(elements: &[Placed], family: Family, set: &str) -> Vec<Element> {
    let here = elements.iter().filter(|(a, b, _)| *a == family && *b == set);
    here.map(|(_, _, element)| element.clone()).collect()
}

/// The addresses that endpoints among these elements are pinned to.
fn addresses(elements: &[Placed]) -> Vec<IpAddr> {
    let pinned = |(_, set, element): &Placed| ruleset::pinned_address(set, element);
    elements.iter().filter_map(pinned).collect()
}

fn is_absent(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NOENT.raw_os_error())
}

fn unless_absent(answer: io::Result<()>) -> io::Result<()> {
    match answer {
        Err(error) if is_absent(&error) => Ok(()),
        other => other,
    }
}
