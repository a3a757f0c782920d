//! The names of the networks. A container sees those of the networks that it is on, and no others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use bulkhead_types::Id;

use crate::protocol::Container;

/// What all networks know, as the containers on them have brought it.
#[derive(Debug, Default)]
pub(crate) struct Zones(HashMap<Id, Zone>);

/// One network: gone with the last container on it.
#[derive(Debug)]
struct Zone {
    name: String,
    members: usize,
    by_name: HashMap<Box<str>, Vec<Host>>,
    by_address: HashMap<IpAddr, Vec<(Id, Box<str>)>>,
}

#[derive(Debug)]
struct Host {
    container: Id,
    addresses: Rc<[IpAddr]>,
}

impl Zones {
    pub fn add(&mut self, container: &Container) {
        for member in &container.networks {
            let zone = self.0.entry(member.network).or_insert_with(|| Zone {
                name: String::new(),
                members: 0,
                by_name: HashMap::new(),
                by_address: HashMap::new(),
            });
            zone.name = member.network_name.to_ascii_lowercase();
            zone.members += 1;
            let addresses: Rc<[IpAddr]> = member.addresses.clone().into();
            for name in &member.names {
                let hosts = zone.by_name.entry(key(name)).or_default();
                // a name that is given twice is one
                if hosts.last().is_none_or(|host| host.container != container.id) {
                    hosts.push(Host { container: container.id, addresses: Rc::clone(&addresses) });
                }
            }
            if let Some(first) = member.names.first() {
                let full: Box<str> = format!("{first}.{}", member.network_name).into();
                for address in &member.addresses {
                    let hosts = zone.by_address.entry(*address).or_default();
                    hosts.push((container.id, full.clone()));
                }
            }
        }
    }

    /// Takes away what [`Self::add`] brought.
    pub fn remove(&mut self, container: &Container) {
        for member in &container.networks {
            let Some(zone) = self.0.get_mut(&member.network) else { continue };
            for name in &member.names {
                if let Some(hosts) = zone.by_name.get_mut(&*key(name)) {
                    hosts.retain(|host| host.container != container.id);
                    if hosts.is_empty() {
                        zone.by_name.remove(&*key(name));
                    }
                }
            }
            for address in &member.addresses {
                if let Some(hosts) = zone.by_address.get_mut(address) {
                    hosts.retain(|(id, _)| *id != container.id);
                    if hosts.is_empty() {
                        zone.by_address.remove(address);
                    }
                }
            }
            zone.members -= 1;
            if zone.members == 0 {
                self.0.remove(&member.network);
            }
        }
    }

    /// The addresses, of both families, that a name stands for to this container; `None` where none
    /// of its networks knows the name.
    ///
    /// A network's name may follow that of a container, and both may have dots, so each way to divide
    /// it is tried (moby: libnetwork/sandbox.go, `ResolveName`).
    pub fn find(&self, asker: &Container, name: &str) -> Option<Vec<IpAddr>> {
        self.find_on(asker, name, None).or_else(|| {
            let dots = name.rmatch_indices('.');
            dots.into_iter()
                .find_map(|(dot, _)| self.find_on(asker, &name[..dot], Some(&name[dot + 1..])))
        })
    }

    fn find_on(&self, asker: &Container, name: &str, network: Option<&str>) -> Option<Vec<IpAddr>> {
        let zones = || {
            asker
                .networks
                .iter()
                .filter_map(|member| Some((member, self.0.get(&member.network)?)))
                .filter(|(_, zone)| network.is_none_or(|network| zone.name == network))
        };
        // What only the asker calls so comes first, and is on that network no other's name.
        let linked = |link: &&crate::protocol::Link| link.alias.eq_ignore_ascii_case(name);
        zones()
            .find_map(|(member, zone)| {
                zone.addresses(&key(&member.links.iter().find(linked)?.target))
            })
            .or_else(|| {
                zones()
                    .filter(|(member, _)| !member.links.iter().any(|link| linked(&link)))
                    .find_map(|(_, zone)| zone.addresses(name))
            })
    }

    /// The name of whoever has this address on one of the asker's networks, with the network's.
    pub fn find_host(&self, asker: &Container, address: IpAddr) -> Option<&str> {
        asker.networks.iter().find_map(|member| {
            let (_, name) = self.0.get(&member.network)?.by_address.get(&address)?.first()?;
            Some(&**name)
        })
    }
}

impl Zone {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let mut all = Vec::new();
        for host in self.by_name.get(name)? {
            for address in &*host.addresses {
                if !all.contains(address) {
                    all.push(*address);
                }
            }
        }
        Some(all)
    }
}

fn key(name: &str) -> Box<str> {
    name.trim_end_matches('.').to_ascii_lowercase().into()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::protocol::{BareNames, Link, Membership, Reach, Upstream};

    /// A container that is known on `networks`, each with the names that it has there.
    pub(crate) fn container(networks: &[(Id, &str, &[&str], &[&str])]) -> Container {
        let member =
            |(network, network_name, names, addresses): &(Id, &str, &[&str], &[&str])| Membership {
                network: *network,
                network_name: (*network_name).to_owned(),
                names: names.iter().map(|name| (*name).to_owned()).collect(),
                addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
                gateways: Vec::new(),
                links: Vec::new(),
            };
        Container {
            id: Id::random(),
            networks: networks.iter().map(member).collect(),
            upstream: Upstream { servers: Vec::new(), reach: Reach::Host },
            bare_names: BareNames::Forward,
        }
    }

    fn found(zones: &Zones, asker: &Container, name: &str) -> Option<Vec<String>> {
        let all = zones.find(asker, name)?;
        Some(all.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_network_knows_who_is_on_it_and_tells_nobody_else() {
        let (front, back) = (Id::random(), Id::random());
        let web = container(&[
            (front, "front", &["web", "www"], &["10.1.0.2", "fd01::2"]),
            (back, "back", &["web"], &["10.2.0.2"]),
        ]);
        let db = container(&[(back, "back", &["DB.main", "sql"], &["10.2.0.3"])]);
        let guest = container(&[(front, "front", &["guest"], &["10.1.0.9"])]);
        let mut zones = Zones::default();
        for container in [&web, &db, &guest] {
            zones.add(container);
        }
        let cases: &[(&Container, &str, Option<&[&str]>)] = &[
            (&web, "sql", Some(&["10.2.0.3"])),
            (&web, "db.main", Some(&["10.2.0.3"])),
            (&web, "db.main.back", Some(&["10.2.0.3"])),
            (&web, "db.main.front", None),
            (&web, "web", Some(&["10.1.0.2", "fd01::2"])),
            (&web, "web.back", Some(&["10.2.0.2"])),
            (&db, "web", Some(&["10.2.0.2"])),
            (&db, "www", None),
            (&db, "web.front", None),
            (&guest, "sql", None),
            (&guest, "sql.back", None),
            (&guest, "web", Some(&["10.1.0.2", "fd01::2"])),
            (&guest, "main", None),
        ];
        for (asker, name, wanted) in cases {
            let wanted = wanted.map(|all| all.iter().map(ToString::to_string).collect());
            assert_eq!(found(&zones, asker, name), wanted, "{name}");
        }
        let host = |asker, address: &str| zones.find_host(asker, address.parse().unwrap());
        assert_eq!(host(&web, "10.2.0.3"), Some("DB.main.back"));
        assert_eq!(host(&guest, "10.2.0.3"), None);
        assert_eq!(host(&guest, "fd01::2"), Some("web.front"));
    }

    #[test]
    fn containers_of_one_name_are_all_meant() {
        let network = Id::random();
        let member = |own: &str, address: &str| {
            container(&[(network, "net", &[own, "service", "service"], &[address])])
        };
        let (one, two) = (member("one", "10.0.0.2"), member("two", "10.0.0.3"));
        let mut zones = Zones::default();
        zones.add(&one);
        zones.add(&two);
        assert_eq!(found(&zones, &one, "service").unwrap(), ["10.0.0.2", "10.0.0.3"]);
        zones.remove(&one);
        assert_eq!(found(&zones, &two, "service").unwrap(), ["10.0.0.3"]);
        assert_eq!(found(&zones, &two, "one"), None);
        zones.remove(&two);
        assert!(zones.0.is_empty());
    }

    #[test]
    fn an_alias_is_its_containers_own() {
        let network = Id::random();
        let db = container(&[(network, "net", &["db"], &["10.0.0.2"])]);
        let other = container(&[(network, "net", &["store"], &["10.0.0.3"])]);
        let mut web = container(&[(network, "net", &["web"], &["10.0.0.4"])]);
        let link = |alias: &str, target: &str| Link { alias: alias.into(), target: target.into() };
        web.networks[0].links = vec![link("Store", "db"), link("gone", "nobody")];
        let mut zones = Zones::default();
        for container in [&db, &other, &web] {
            zones.add(container);
        }
        assert_eq!(found(&zones, &web, "store").unwrap(), ["10.0.0.2"]);
        assert_eq!(found(&zones, &web, "store.net").unwrap(), ["10.0.0.2"]);
        assert_eq!(found(&zones, &other, "store").unwrap(), ["10.0.0.3"]);
        assert_eq!(found(&zones, &web, "gone"), None);
    }
}
