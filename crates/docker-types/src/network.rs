//! The networks of a create request.

use std::collections::BTreeMap;

use crate::null::object;

object! {
    pub struct NetworkingConfig {
        /// By the network's name.
        pub endpoints_config: BTreeMap<String, Option<EndpointSettings>>,
    }
}

object! {
    /// What a request may ask of a network; the rest of Docker's type is only reported.
    pub struct EndpointSettings {
        pub links: Vec<String>,
        pub aliases: Vec<String>,
        #[serde(rename = "IPAMConfig")]
        pub ipam_config: Option<EndpointIpam>,
        pub mac_address: String,
    }
}

object! {
    pub struct EndpointIpam {
        #[serde(rename = "IPv4Address")]
        pub ipv4_address: String,
        #[serde(rename = "IPv6Address")]
        pub ipv6_address: String,
        #[serde(rename = "LinkLocalIPs")]
        pub link_local_ips: Vec<String>,
    }
}
