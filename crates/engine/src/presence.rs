//! What the resolver of names is to know of a container: a function of its record.

use std::net::IpAddr;

use bulkhead_network::GatewayHolder;
use bulkhead_resolver::{Link, Membership, Upstream};
use bulkhead_types::Id;

use crate::name_servers::NameServers;
use crate::{Attachment, Container, EndpointConfig, NetworkDriver};

/// Whether names are answered in a container: on the default network there are none, as with Docker.
pub(crate) fn has_names(container: &Container, default_network: Id) -> bool {
    container.network.attachments.iter().any(|attachment| attachment.network != default_network)
}

/// `name_of` finds the name of the container that a link means.
pub(crate) fn presence(
    container: &Container,
    default_network: Id,
    servers: NameServers,
    name_of: impl Fn(&str) -> Option<String>,
) -> bulkhead_resolver::Container {
    let mut attachments: Vec<&Attachment> = container
        .network
        .attachments
        .iter()
        .filter(|attachment| attachment.network != default_network)
        .collect();
    attachments.sort_by(|one, other| one.precedence(other));
    let membership = |attachment: &&Attachment| {
        let config = container
            .endpoints
            .iter()
            .find(|config| config.network == attachment.network_name)
            .cloned()
            .unwrap_or_else(|| EndpointConfig {
                aliases: attachment.aliases.clone(),
                ..EndpointConfig::of(attachment.network_name.clone())
            });
        let links = config.links.iter().chain(&container.host.links).map(|link| Link {
            alias: link.alias.clone(),
            target: name_of(&link.container).unwrap_or_else(|| link.container.clone()),
        });
        let (ipv4, ipv6) = (attachment.ipv4, attachment.ipv6);
        let all = |ipv4: Option<std::net::Ipv4Addr>, ipv6: Option<std::net::Ipv6Addr>| {
            ipv4.map(IpAddr::from).into_iter().chain(ipv6.map(IpAddr::from)).collect()
        };
        Membership {
            network: attachment.network,
            network_name: attachment.network_name.clone(),
            names: container.dns_names(&config),
            addresses: all(ipv4.map(|ipv4| ipv4.address), ipv6.map(|ipv6| ipv6.address)),
            gateways: match attachment.driver {
                NetworkDriver::Bridge => {
                    let is_host = attachment.gateway_holder == GatewayHolder::Bridge;
                    let ipv4 = ipv4.filter(|_| is_host).and_then(|it| it.gateway);
                    all(ipv4, ipv6.and_then(|it| it.gateway))
                }
                // Another machine's, and this host is not reached by its own interface at all.
                NetworkDriver::Macvlan | NetworkDriver::Ipvlan => Vec::new(),
            },
            links: links.collect(),
        }
    };
    // On internal networks alone nothing leaves, not even a question (CVE-2024-29018). Servers that are
    // asked from the container's own place are reached no further than it reaches itself.
    let leads_out = container.network.gateway().is_some() || container.network.gateway6().is_some();
    let upstream = match servers.upstream {
        Upstream { reach: reach @ bulkhead_resolver::Reach::Host, .. } if !leads_out => {
            Upstream { servers: Vec::new(), reach }
        }
        upstream => upstream,
    };
    bulkhead_resolver::Container {
        id: container.id,
        networks: attachments.iter().map(membership).collect(),
        upstream,
        bare_names: servers.bare_names,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::tests::container;
    use crate::name_servers::name_servers;
    use crate::{Addresses, HostConfig};

    fn attachment(network: Id, name: &str, last: u8, way_out: bool, priority: i64) -> Attachment {
        let gateway = way_out.then(|| [10, 0, 0, 1].into());
        Attachment {
            network,
            network_name: name.to_owned(),
            driver: NetworkDriver::Bridge,
            endpoint: Id::random(),
            interface: "eth0".to_owned(),
            mac: Some([2, 0, 0, 0, 0, last]),
            ipv4: Some(Addresses { address: [10, 0, 0, last].into(), prefix: 24, gateway }),
            ipv6: None,
            aliases: Vec::new(),
            gateway_priority: priority,
            gateway_holder: GatewayHolder::Bridge,
            link_local: Vec::new(),
            sysctls: Vec::new(),
        }
    }

    #[test]
    fn a_container_is_known_on_the_users_networks_alone() {
        let (default, front, back) = (Id::random(), Id::random(), Id::random());
        let mut web = container("web");
        web.network.attachments = vec![attachment(default, "bridge", 2, true, 0)];
        assert!(!has_names(&web, default));
        web.network.attachments.push(attachment(front, "front", 3, true, 0));
        web.network.attachments.push(attachment(back, "back", 4, true, 5));
        assert!(has_names(&web, default));
        let link = crate::Link { container: "0123".to_owned(), alias: "db".to_owned() };
        web.endpoints = vec![EndpointConfig {
            aliases: vec!["www".to_owned()],
            links: vec![link],
            ..EndpointConfig::of("front")
        }];
        let servers = || name_servers("nameserver 10.0.0.9\n", &HostConfig::default());
        let name_of = |text: &str| (text == "0123").then(|| "store".to_owned());
        let known = presence(&web, default, servers(), name_of);
        let names: Vec<&str> =
            known.networks.iter().map(|member| member.network_name.as_str()).collect();
        assert_eq!(names, ["back", "front"]);
        let front = &known.networks[1];
        assert_eq!(front.names[..2], [web.name.to_string(), "www".to_owned()]);
        assert!(front.names.contains(&web.id.short()));
        assert_eq!(front.addresses, [IpAddr::from([10, 0, 0, 3])]);
        assert_eq!(front.gateways, [IpAddr::from([10, 0, 0, 1])]);
        assert_eq!(
            (front.links[0].alias.as_str(), front.links[0].target.as_str()),
            ("db", "store")
        );
        assert_eq!(known.upstream.servers.len(), 1);
    }

    #[test]
    fn the_host_is_not_the_router_of_its_own_interface() {
        let mut web = container("web");
        let lan = Attachment {
            driver: NetworkDriver::Macvlan,
            ..attachment(Id::random(), "lan", 3, true, 0)
        };
        web.network.attachments = vec![lan];
        let servers = name_servers("nameserver 10.0.0.9\n", &HostConfig::default());
        let known = presence(&web, Id::random(), servers, |_| None);
        assert!(known.networks[0].gateways.is_empty());
        assert_eq!(known.upstream.servers.len(), 1);
        let other = Attachment {
            gateway_holder: GatewayHolder::Other,
            ..attachment(Id::random(), "own", 3, true, 0)
        };
        web.network.attachments = vec![other];
        let servers = name_servers("nameserver 10.0.0.9\n", &HostConfig::default());
        assert!(presence(&web, Id::random(), servers, |_| None).networks[0].gateways.is_empty());
    }

    #[test]
    fn nothing_is_asked_for_a_container_without_a_way_out() {
        let (default, inner) = (Id::random(), Id::random());
        let mut web = container("web");
        web.network.attachments = vec![attachment(inner, "inner", 3, false, 0)];
        let host_file = "nameserver 10.0.0.9\n";
        let known =
            presence(&web, default, name_servers(host_file, &HostConfig::default()), |_| None);
        assert!(known.upstream.servers.is_empty() && known.networks[0].gateways.is_empty());
        // its own server may be on the network itself
        let own = HostConfig { dns: vec![[10, 0, 0, 7].into()], ..HostConfig::default() };
        let known = presence(&web, default, name_servers(host_file, &own), |_| None);
        assert_eq!(known.upstream.servers.len(), 1);
    }
}
