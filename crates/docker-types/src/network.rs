//! `/networks`, and the networks of a create request.

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
        pub driver_opts: BTreeMap<String, String>,
        /// The network of the highest has the default route (API 1.48).
        pub gw_priority: i64,
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

object! {
    /// `POST /networks/create`
    pub struct NetworkCreate {
        pub name: String,
        /// Of clients before API 1.44; a name is never given twice.
        pub check_duplicate: bool,
        /// `bridge`, which is also what none means.
        pub driver: String,
        pub scope: String,
        /// `null` is yes.
        #[serde(rename = "EnableIPv4")]
        pub enable_ipv4: Option<bool>,
        #[serde(rename = "EnableIPv6")]
        pub enable_ipv6: Option<bool>,
        #[serde(rename = "IPAM")]
        pub ipam: Option<Ipam>,
        pub internal: bool,
        pub attachable: bool,
        pub ingress: bool,
        pub config_only: bool,
        pub options: BTreeMap<String, String>,
        pub labels: BTreeMap<String, String>,
    }
}

object! {
    /// How a network's addresses are given out.
    pub struct Ipam {
        pub driver: String,
        pub options: BTreeMap<String, String>,
        pub config: Vec<IpamPool>,
    }
}

object! {
    /// Subnets are written as `10.0.0.0/8`.
    pub struct IpamPool {
        pub subnet: String,
        #[serde(rename = "IPRange")]
        pub ip_range: String,
        pub gateway: String,
        pub auxiliary_addresses: BTreeMap<String, String>,
    }
}

object! {
    /// `POST /networks/{id}/connect`
    pub struct NetworkConnect {
        /// Its id or name.
        pub container: String,
        pub endpoint_config: Option<EndpointSettings>,
    }
}

object! {
    /// `POST /networks/{id}/disconnect`
    pub struct NetworkDisconnect {
        /// Its id or name.
        pub container: String,
        pub force: bool,
    }
}
