//! `EndpointSettings`: what a client asks for on a network, and what it is told of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bulkhead_docker_types::{EndpointSettings, NetworkingConfig};
use bulkhead_engine::{Attachment, Container, EndpointConfig, Link, NetworkStack};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::error::ApiError;

/// Reads a request's networks, by name or id; links of the default one, which are the container's,
/// come apart.
pub(crate) fn read_all(
    config: NetworkingConfig,
) -> Result<(Vec<EndpointConfig>, Vec<Link>), ApiError> {
    let (mut endpoints, mut links) = (Vec::new(), Vec::new());
    for (network, settings) in config.endpoints_config {
        let network = if network == "default" { "bridge".to_owned() } else { network };
        let mut endpoint = read(&network, settings.unwrap_or_default())?;
        if network == "bridge" {
            links.append(&mut endpoint.links);
        }
        endpoints.push(endpoint);
    }
    Ok((endpoints, links))
}

/// Reads what is asked for on one network.
pub(crate) fn read(network: &str, settings: EndpointSettings) -> Result<EndpointConfig, ApiError> {
    let ipam = settings.ipam_config.unwrap_or_default();
    let links = settings.links.iter().map(|link| link.parse());
    Ok(EndpointConfig {
        network: network.to_owned(),
        ipv4: address(&ipam.ipv4_address, "IPv4")?,
        ipv6: address(&ipam.ipv6_address, "IPv6")?,
        link_local: ipam.link_local_ips.iter().map(link_local).collect::<Result<_, _>>()?,
        mac: match settings.mac_address.as_str() {
            "" => None,
            text => Some(read_mac_address(text)?),
        },
        aliases: settings.aliases,
        links: links.collect::<Result<_, _>>()?,
        driver_options: settings.driver_opts,
        gateway_priority: settings.gw_priority,
    })
}

fn link_local(text: &String) -> Result<IpAddr, ApiError> {
    text.parse().map_err(|_| ApiError::invalid(format!("invalid link-local IP address: {text}")))
}

fn address<A: std::str::FromStr>(text: &str, family: &str) -> Result<Option<A>, ApiError> {
    match text {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| ApiError::invalid(format!("invalid {family} address: {text}"))),
    }
}

/// Reads `02:42:ac:11:00:02`; one for a single station, as every link has.
pub(crate) fn read_mac_address(text: &str) -> Result<[u8; 6], ApiError> {
    let octet = |part: &str| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok()).flatten();
    let octets: Option<Vec<u8>> = text.split([':', '-']).map(octet).collect();
    octets
        .and_then(|octets| <[u8; 6]>::try_from(octets).ok())
        .filter(|octets| octets[0] & 1 == 0 && *octets != [0; 6])
        .ok_or_else(|| ApiError::invalid(format!("{text} is not a valid mac address")))
}

/// `02:42:ac:11:00:02`
pub(crate) fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

/// Network name → endpoint; empty for a container that shares another's network.
#[derive(Debug)]
pub(crate) struct Networks<'a>(&'a Container);

impl<'a> Networks<'a> {
    pub(crate) fn of(container: &'a Container) -> Self {
        Self(container)
    }
}

impl Serialize for Networks<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let container = self.0;
        match container.network.stack {
            NetworkStack::Container(_) | NetworkStack::Netns => {
                serializer.collect_map::<&str, (), _>([])
            }
            NetworkStack::Host | NetworkStack::None => {
                let name = container.network.stack.to_string();
                serializer.collect_map([(name, EndpointView::default())])
            }
            NetworkStack::Bridge => {
                serializer.collect_map(container.endpoints.iter().map(|config| {
                    let is_there =
                        |attachment: &&Attachment| attachment.network_name == config.network;
                    let attachment = container.network.attachments.iter().find(is_there);
                    (&config.network, EndpointView::of(container, config, attachment))
                }))
            }
        }
    }
}

/// Docker's `EndpointSettings`. One that does not run has no endpoint yet.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct EndpointView {
    #[serde(rename = "IPAMConfig")]
    ipam_config: Option<BTreeMap<&'static str, Value>>,
    links: Option<Vec<String>>,
    aliases: Option<Vec<String>>,
    pub mac_address: String,
    driver_opts: Option<BTreeMap<String, String>>,
    gw_priority: i64,
    #[serde(rename = "NetworkID")]
    network_id: String,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    pub gateway: String,
    #[serde(rename = "IPAddress")]
    pub address: String,
    #[serde(rename = "IPPrefixLen")]
    pub prefix_len: u8,
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: u8,
    #[serde(rename = "DNSNames")]
    dns_names: Option<Vec<String>>,
}

impl EndpointView {
    fn of(container: &Container, config: &EndpointConfig, attachment: Option<&Attachment>) -> Self {
        let link_local = &config.link_local;
        let ipam: BTreeMap<&'static str, Value> = [
            ("IPv4Address", config.ipv4.map(|address| json!(address))),
            ("IPv6Address", config.ipv6.map(|address| json!(address))),
            ("LinkLocalIPs", (!link_local.is_empty()).then(|| json!(link_local))),
        ]
        .into_iter()
        .filter_map(|(name, address)| Some((name, address?)))
        .collect();
        let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
        let links: Vec<String> = config.links.iter().map(Link::to_string).collect();
        let mut view = Self {
            ipam_config: (!ipam.is_empty()).then_some(ipam),
            links: some(&links),
            aliases: some(&config.aliases),
            mac_address: config.mac.map(mac).unwrap_or_default(),
            driver_opts: (!config.driver_options.is_empty()).then(|| config.driver_options.clone()),
            gw_priority: config.gateway_priority,
            // They are there from the first start on.
            dns_names: (config.network != "bridge" && container.state.started_at.is_some())
                .then(|| container.dns_names(config)),
            ..Self::default()
        };
        if let Some(attachment) = attachment {
            view.mac_address = attachment.mac.map(mac).unwrap_or_default();
            view.network_id = attachment.network.to_string();
            view.endpoint_id = attachment.endpoint.to_string();
            if let Some(ipv4) = attachment.ipv4 {
                view.gateway = ipv4.gateway.map(|it| it.to_string()).unwrap_or_default();
                view.address = ipv4.address.to_string();
                view.prefix_len = ipv4.prefix;
            }
            if let Some(ipv6) = attachment.ipv6 {
                view.ipv6_gateway = ipv6.gateway.map(|it| it.to_string()).unwrap_or_default();
                view.global_ipv6_address = ipv6.address.to_string();
                view.global_ipv6_prefix_len = ipv6.prefix;
            }
        }
        view
    }

    /// The one on the default bridge, which has members of its own beside the list.
    pub(crate) fn of_default(container: &Container) -> Self {
        let is_default = |config: &&EndpointConfig| config.network == "bridge";
        let attachments = container.network.attachments.iter();
        let attachment = attachments.into_iter().find(|it| it.network_name == "bridge");
        match container.endpoints.iter().find(is_default) {
            Some(config) if attachment.is_some() => Self::of(container, config, attachment),
            _ => Self::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decode::decode;

    #[test]
    fn settings_are_read() {
        let config: NetworkingConfig = decode(json!({"EndpointsConfig": {
            "default": {"Links": ["db:store"]},
            "web": {
                "IPAMConfig": {"IPv4Address": "10.0.0.9"}, "Aliases": ["www"], "GwPriority": 3,
                "MacAddress": "02:42:0a:00:00:09", "Links": ["db"],
                "DriverOpts": {"com.docker.network.endpoint.ifname": "web0"},
            },
            "null": null,
        }}))
        .expect("a valid body");
        let (endpoints, links) = read_all(config).expect("valid");
        assert_eq!(links, ["db:store".parse().expect("a link")]);
        assert_eq!(endpoints[0], EndpointConfig::of("bridge"));
        assert_eq!(endpoints[1], EndpointConfig::of("null"));
        let web = &endpoints[2];
        assert_eq!(web.ipv4, Some([10, 0, 0, 9].into()));
        assert_eq!((web.mac, web.gateway_priority), (Some([2, 0x42, 10, 0, 0, 9]), 3));
        assert_eq!(web.links, ["db".parse().expect("a link")]);
        for wrong in [
            json!({"IPAMConfig": {"IPv4Address": "10.0.0.900"}}),
            json!({"IPAMConfig": {"IPv6Address": "10.0.0.9"}}),
            json!({"MacAddress": "03:42:0a:00:00:09"}),
            json!({"Links": ["a:b\nc"]}),
        ] {
            let settings = decode(wrong.clone()).expect("a valid body");
            assert!(read("web", settings).is_err(), "{wrong}");
        }
    }
}
