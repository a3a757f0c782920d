//! `daemon.json` as types, and what of it is the engine's.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bulkhead_engine::{
    BridgeOptions, CgroupnsMode, ContainerDefaults, DefaultIpv6, DefaultNetwork, IpcMode,
    LogDriver, LogOptions, ParentRequest, Settings, Subnet, SubnetPools, Ulimit,
};
use bulkhead_image::RegistryOptions;
use bulkhead_runtime::Seccomp;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The keys that are done; the others have been taken out by the table of keys.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct Daemon {
    pub hosts: Vec<String>,
    pub group: Option<String>,
    pub pidfile: Option<PathBuf>,
    pub data_root: Option<PathBuf>,
    pub exec_root: Option<PathBuf>,
    pub debug: bool,
    pub log_level: Option<String>,
    pub log_format: Option<String>,
    pub raw_logs: bool,
    pub tls: Option<bool>,
    pub tlsverify: Option<bool>,
    pub tlscacert: Option<PathBuf>,
    pub tlscert: Option<PathBuf>,
    pub tlskey: Option<PathBuf>,
    pub cgroup_parent: Option<String>,
    pub live_restore: Option<bool>,
    pub bridge: Option<String>,
    bip: Option<String>,
    bip6: Option<String>,
    fixed_cidr: Option<String>,
    fixed_cidr_v6: Option<String>,
    default_gateway: Option<String>,
    default_gateway_v6: Option<String>,
    mtu: Option<i64>,
    ip: Option<String>,
    ipv6: bool,
    icc: Option<bool>,
    ip_masq: Option<bool>,
    pub ip_forward: Option<bool>,
    iptables: Option<bool>,
    ip6tables: Option<bool>,
    firewall_backend: Option<String>,
    default_address_pools: Vec<AddressPool>,
    default_network_opts: BTreeMap<String, BTreeMap<String, String>>,
    dns: Vec<String>,
    dns_opts: Vec<String>,
    dns_search: Vec<String>,
    host_gateway_ip: Option<String>,
    host_gateway_ips: Vec<String>,
    log_driver: Option<String>,
    log_opts: BTreeMap<String, String>,
    labels: Vec<String>,
    default_ulimits: BTreeMap<String, Limit>,
    default_shm_size: Option<Size>,
    default_ipc_mode: Option<String>,
    default_cgroupns_mode: Option<String>,
    default_runtime: Option<String>,
    init: bool,
    no_new_privileges: bool,
    seccomp_profile: Option<String>,
    registry_mirrors: Vec<String>,
    insecure_registries: Vec<String>,
    max_concurrent_downloads: Option<i64>,
    max_concurrent_uploads: Option<i64>,
    max_download_attempts: Option<i64>,
    shutdown_timeout: Option<i64>,
    storage_driver: Option<String>,
    userns_remap: Option<String>,
    exec_opts: Vec<String>,
    pub features: BTreeMap<String, bool>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct AddressPool {
    base: String,
    size: u8,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Limit {
    /// The key's, said again.
    #[serde(default)]
    name: String,
    soft: i64,
    hard: i64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Size {
    Bytes(u64),
    Text(String),
}

impl Daemon {
    /// # Errors
    /// A sentence that names the key whose value is of the wrong kind.
    pub fn read(keys: Map<String, Value>) -> Result<Self, String> {
        serde_path_to_error::deserialize(Value::Object(keys)).map_err(|error| {
            let path = error.path().to_string();
            format!("{path}: {}", error.inner().to_string().replace("invalid type: ", "found "))
        })
    }

    /// Refuses values that ask for what is not done.
    ///
    /// # Errors
    /// The first, by the name of its key.
    pub fn check(&self) -> Result<(), String> {
        let only = |key: &str, value: &Option<String>, known: &[&str], why: &str| match value {
            Some(value) if !value.is_empty() && !known.contains(&value.as_str()) => {
                Err(format!("{key}: {value:?} is not supported: {why}"))
            }
            _ => Ok(()),
        };
        only(
            "storage-driver",
            &self.storage_driver,
            &["overlay2", "overlayfs", "overlay"],
            "layers of images are on overlay2; leave it out",
        )?;
        only(
            "firewall-backend",
            &self.firewall_backend,
            &["nftables"],
            "the rules are nftables'; leave it out",
        )?;
        only(
            "userns-remap",
            &self.userns_remap,
            &["default"],
            "every container has a range of ids of its own, which nobody chooses; say \"default\" or \
             leave it out",
        )?;
        only(
            "bridge",
            &self.bridge.clone().filter(|name| name == "none"),
            &[],
            "the default network is always there; run containers with --network none",
        )?;
        for (key, value) in [("iptables", self.iptables), ("ip6tables", self.ip6tables)] {
            if value == Some(false) {
                return Err(format!(
                    "{key}: false is not supported: the rules are what keeps containers apart and \
                     publishes their ports; leave it out"
                ));
            }
        }
        for option in &self.exec_opts {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            match (name.trim().to_lowercase().as_str(), value.trim()) {
                ("native.cgroupdriver", "cgroupfs") => {}
                ("native.cgroupdriver", value) => {
                    return Err(format!(
                        "exec-opts: the cgroup driver {value:?} is not supported: the engine makes \
                         cgroups itself; say native.cgroupdriver=cgroupfs or leave it out"
                    ));
                }
                _ => return Err(format!("exec-opts: unknown option: {option:?}")),
            }
        }
        Ok(())
    }

    /// What asks for nothing that is not so anyway, and may be meant otherwise; a sentence each.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.live_restore == Some(false) {
            remarks.push(
                "live-restore: false has no effect: containers always outlive the engine; `bulkhead \
                 down` ends them"
                    .to_owned(),
            );
        }
        for (name, _) in self.features.iter().filter(|(_, is_on)| **is_on) {
            let why = match name.as_str() {
                "buildkit" => "clients build by the classic protocol, which reads the same files",
                "containerd-snapshotter" => "images are kept by the engine itself",
                "cdi" => "devices are named by --device",
                _ => "there is no such feature here",
            };
            remarks.push(format!("features: {name} has no effect: {why}"));
        }
        remarks
    }

    /// # Errors
    /// A sentence that names the key.
    pub fn bridge_address(&self) -> Result<Option<(Ipv4Addr, u8)>, String> {
        let wrong = "an address with a prefix from 8 to 30, such as 172.30.0.1/16";
        with_prefix("bip", self.bip.as_deref(), 8..=30, wrong)
    }

    /// # Errors
    /// A sentence that names the key.
    pub fn default_network(&self) -> Result<DefaultNetwork, String> {
        let wrong6 = "an IPv6 address with a prefix from 8 to 126, such as fd00:1::1/64";
        let address: Option<(Ipv6Addr, u8)> =
            with_prefix("bip6", self.bip6.as_deref(), 8..=126, wrong6)?;
        let range = parsed("fixed-cidr-v6", self.fixed_cidr_v6.as_deref())?;
        let gateway = parsed("default-gateway-v6", self.default_gateway_v6.as_deref())?;
        let asks = address.is_some() || range.is_some() || gateway.is_some();
        if asks && !self.ipv6 {
            return Err(
                "bip6, fixed-cidr-v6 and default-gateway-v6 mean nothing without ipv6: say ipv6 too"
                    .to_owned(),
            );
        }
        let mtu = match self.mtu {
            None | Some(0) => None,
            Some(mtu @ 68..=65_535) => u32::try_from(mtu).ok(),
            Some(other) => return Err(format!("mtu: {other} is no number from 68 to 65535")),
        };
        Ok(DefaultNetwork {
            range: parsed::<Subnet<Ipv4Addr>>("fixed-cidr", self.fixed_cidr.as_deref())?,
            gateway: parsed("default-gateway", self.default_gateway.as_deref())?,
            ipv6: self.ipv6.then_some(DefaultIpv6 { address, range, gateway }),
            mtu,
            inter_container: self.icc.unwrap_or(true),
            masquerade: self.ip_masq.unwrap_or(true),
            host_binding: parsed("ip", self.ip.as_deref())?
                .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        })
    }

    /// # Errors
    /// A sentence that names the key.
    pub fn address_pools(&self) -> Result<SubnetPools, String> {
        let mut pools = SubnetPools::default();
        for AddressPool { base, size } in &self.default_address_pools {
            let added = pools.add(base, *size);
            added.map_err(|why| format!("default-address-pools: {why}"))?;
        }
        Ok(pools)
    }

    /// # Errors
    /// A sentence that names the key.
    pub fn settings(&self) -> Result<Settings, String> {
        for label in &self.labels {
            let Some((key, value)) = label.split_once('=') else {
                return Err(format!("labels: {label:?} is not of the form KEY=VALUE"));
            };
            let differs = |other: &&String| {
                other.split_once('=').is_some_and(|(name, own)| name == key && own != value)
            };
            if let Some(other) = self.labels.iter().find(differs) {
                return Err(format!("labels: conflict labels for {label} and {other}"));
            }
        }
        for (driver, options) in &self.default_network_opts {
            let options = options.clone();
            let read = match driver.as_str() {
                "bridge" => BridgeOptions::parse(options).map(drop),
                "macvlan" => ParentRequest::macvlan(options).map(drop),
                "ipvlan" => ParentRequest::ipvlan(options).map(drop),
                _ => {
                    return Err(format!(
                        "default-network-opts: there is no network driver {driver:?}; there are \
                         bridge, macvlan and ipvlan"
                    ));
                }
            };
            read.map_err(|why| format!("default-network-opts: {why}"))?;
        }
        let shutdown_timeout = match self.shutdown_timeout {
            None => None,
            // for ever, as in Docker
            Some(-1) => Some(Duration::from_secs(u32::MAX.into())),
            Some(seconds) => {
                let wrong = |_| format!("shutdown-timeout: {seconds} is no number of seconds");
                Some(Duration::from_secs(u64::try_from(seconds).map_err(wrong)?))
            }
        };
        Ok(Settings {
            registries: self.registries()?,
            labels: self.labels.clone(),
            debug: self.debug,
            shutdown_timeout,
            containers: self.container_defaults()?,
            network_options: self.default_network_opts.clone(),
        })
    }

    /// What Docker says of its configuration when it has read it anew (moby: daemon/reload.go).
    pub fn attributes(&self, settings: &Settings) -> BTreeMap<String, String> {
        let list = |words: &[String]| serde_json::to_string(words).unwrap_or_default();
        let mirrors: Vec<String> =
            settings.registries.registry_mirrors.iter().map(ToString::to_string).collect();
        let features: Vec<String> =
            self.features.iter().map(|(name, is_on)| format!("{name}:{is_on}")).collect();
        let containers = &settings.containers;
        let timeout = settings.shutdown_timeout.map_or(2, |timeout| timeout.as_secs());
        [
            ("debug", self.debug.to_string()),
            ("default-cgroupns-mode", containers.cgroupns_mode.to_string()),
            ("default-ipc-mode", containers.ipc_mode.to_string()),
            ("default-runtime", containers.runtime.to_string()),
            ("default-shm-size", containers.shm_size.to_string()),
            ("features", format!("map[{}]", features.join(" "))),
            ("insecure-registries", list(&settings.registries.insecure_registries)),
            ("labels", list(&settings.labels)),
            ("live-restore", "true".to_owned()),
            ("max-concurrent-downloads", settings.registries.max_downloads.to_string()),
            ("max-concurrent-uploads", settings.registries.max_uploads.to_string()),
            ("max-download-attempts", settings.registries.max_attempts.to_string()),
            ("registry-mirrors", list(&mirrors)),
            ("runtimes", "bulkhead".to_owned()),
            ("shutdown-timeout", timeout.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    fn registries(&self) -> Result<RegistryOptions, String> {
        let usual = RegistryOptions::default();
        let number = |key: &str, value: Option<i64>, usual| match value {
            // Docker's zero is what it has without a word
            None | Some(0) => Ok(usual),
            Some(number) => usize::try_from(number)
                .ok()
                .and_then(NonZeroUsize::new)
                .ok_or_else(|| format!("{key}: {number} is no number from 1 on")),
        };
        if let Some(range) = self.insecure_registries.iter().find(|name| name.contains('/')) {
            return Err(format!(
                "insecure-registries: {range:?} is no registry: name each by HOST[:PORT], without \
                 ranges of addresses"
            ));
        }
        let mirrors = self.registry_mirrors.iter();
        Ok(RegistryOptions {
            insecure_registries: self.insecure_registries.clone(),
            registry_mirrors: mirrors
                .map(|mirror| mirror.parse().map_err(|why| format!("registry-mirrors: {why}")))
                .collect::<Result<_, _>>()?,
            max_downloads: number(
                "max-concurrent-downloads",
                self.max_concurrent_downloads,
                usual.max_downloads,
            )?,
            max_uploads: number(
                "max-concurrent-uploads",
                self.max_concurrent_uploads,
                usual.max_uploads,
            )?,
            max_attempts: number(
                "max-download-attempts",
                self.max_download_attempts,
                usual.max_attempts,
            )?,
        })
    }

    fn container_defaults(&self) -> Result<ContainerDefaults, String> {
        let log_driver: LogDriver =
            parsed("log-driver", self.log_driver.as_deref())?.unwrap_or_default();
        let log_options = LogOptions::parse(log_driver, self.log_opts.clone());
        let (seccomp, seccomp_name) = seccomp(self.seccomp_profile.as_deref())?;
        let ipc_mode: IpcMode =
            parsed("default-ipc-mode", self.default_ipc_mode.as_deref())?.unwrap_or_default();
        if !matches!(ipc_mode, IpcMode::Private | IpcMode::Shareable) {
            return Err(format!(
                "default-ipc-mode: {ipc_mode} is not supported as default: say private or shareable"
            ));
        }
        let cgroupns: CgroupnsMode =
            parsed("default-cgroupns-mode", self.default_cgroupns_mode.as_deref())?
                .unwrap_or_default();
        if matches!(cgroupns, CgroupnsMode::Container(_)) {
            return Err("default-cgroupns-mode: say host or private".to_owned());
        }
        let mut ulimits = Vec::new();
        for (name, limit) in &self.default_ulimits {
            if !limit.name.is_empty() && limit.name != *name {
                return Err(format!(
                    "default-ulimits: {name} is called {:?} in itself",
                    limit.name
                ));
            }
            let read = Ulimit::new(name, limit.soft, limit.hard);
            ulimits.push(read.map_err(|why| format!("default-ulimits: {why}"))?);
        }
        let word = |key: &str, words: &[String]| {
            let is_wrong = |word: &&String| {
                word.is_empty() || word.contains(|c: char| c.is_whitespace() || c.is_control())
            };
            match words.iter().find(is_wrong) {
                Some(wrong) => Err(format!("{key}: {wrong:?} is not one word")),
                None => Ok(words.to_vec()),
            }
        };
        Ok(ContainerDefaults {
            log_driver,
            log_options: log_options.map_err(|why| format!("log-opts: {why}"))?,
            shm_size: match &self.default_shm_size {
                None => 0,
                Some(Size::Bytes(bytes)) => *bytes,
                Some(Size::Text(text)) => bulkhead_types::parse_size(text)
                    .map_err(|why| format!("default-shm-size: {why}"))?,
            },
            ipc_mode,
            cgroupns_mode: cgroupns,
            runtime: parsed("default-runtime", self.default_runtime.as_deref())?
                .unwrap_or_default(),
            init: self.init,
            no_new_privileges: self.no_new_privileges,
            seccomp,
            seccomp_name,
            ulimits,
            dns: addresses("dns", &self.dns)?,
            dns_search: word("dns-search", &self.dns_search)?,
            dns_options: word("dns-opts", &self.dns_opts)?,
            host_gateways: self.host_gateways()?,
        })
    }

    fn host_gateways(&self) -> Result<Vec<IpAddr>, String> {
        let older = self.host_gateway_ip.iter().filter(|text| !text.is_empty());
        if older.clone().next().is_some() && !self.host_gateway_ips.is_empty() {
            return Err(
                "host-gateway-ip and host-gateway-ips must not both be specified".to_owned()
            );
        }
        let all: Vec<String> = older.chain(&self.host_gateway_ips).cloned().collect();
        let all = addresses("host-gateway-ips", &all)?;
        let of = |is_ipv4: bool| all.iter().filter(|it| it.is_ipv4() == is_ipv4).count();
        match of(true) > 1 || of(false) > 1 {
            true => Err("host-gateway-ips: there is one address of each family at most".to_owned()),
            false => Ok(all),
        }
    }
}

fn addresses(key: &str, texts: &[String]) -> Result<Vec<IpAddr>, String> {
    let read =
        |text: &String| text.parse().map_err(|_| format!("{key}: {text:?} is no IP address"));
    texts.iter().map(read).collect()
}

/// A value that is said, and not empty.
fn parsed<T: FromStr>(key: &str, text: Option<&str>) -> Result<Option<T>, String>
where
    T::Err: Display,
{
    let text = text.filter(|text| !text.is_empty());
    let read = |text: &str| text.parse().map_err(|why| format!("{key}: {text:?}: {why}"));
    text.map(read).transpose()
}

fn with_prefix<A: FromStr>(
    key: &str,
    text: Option<&str>,
    prefixes: std::ops::RangeInclusive<u8>,
    wanted: &str,
) -> Result<Option<(A, u8)>, String> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let read = || {
        let (address, prefix) = text.split_once('/')?;
        let prefix = prefix.parse().ok().filter(|prefix| prefixes.contains(prefix))?;
        Some((address.parse().ok()?, prefix))
    };
    let read =
        read().ok_or_else(|| format!("invalid value for {key}: {text:?} is not {wanted}"))?;
    Ok(Some(read))
}

/// The filter, and what it is called.
fn seccomp(name: Option<&str>) -> Result<(Seccomp, String), String> {
    Ok(match name.unwrap_or_default() {
        "" | "builtin" => (Seccomp::Default, "builtin".to_owned()),
        "unconfined" => (Seccomp::Unconfined, "unconfined".to_owned()),
        path => {
            let failed = |why: String| format!("seccomp-profile: {path}: {why}");
            let text = std::fs::read_to_string(Path::new(path));
            let text = text.map_err(|error| failed(error.to_string()))?;
            serde_json::from_str::<Map<String, Value>>(&text)
                .map_err(|error| failed(format!("it is no JSON object: {error}")))?;
            (Seccomp::Profile(text), path.to_owned())
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<Daemon, String> {
        let Value::Object(keys) = value else { panic!("an object") };
        let daemon = Daemon::read(keys)?;
        daemon.check()?;
        daemon.bridge_address()?;
        daemon.default_network()?;
        daemon.address_pools()?;
        daemon.settings()?;
        Ok(daemon)
    }

    #[test]
    fn what_is_wrong_is_named_by_its_key() {
        for (value, part) in [
            (json!({"hosts": "unix:///x"}), "hosts: found string"),
            (json!({"log-opts": {"max-size": 10}}), "log-opts.max-size: found integer `10`"),
            (json!({"log-opts": {"max-siz": "10m"}}), "log-opts: unknown log opt 'max-siz'"),
            (json!({"log-driver": "splunk"}), "log-driver: \"splunk\": logger: no log driver"),
            (json!({"bip": "10.0.0.1"}), "bip: \"10.0.0.1\""),
            (json!({"bip6": "fd00::1/64"}), "say ipv6 too"),
            (json!({"mtu": 5}), "mtu: 5"),
            (json!({"fixed-cidr": "10.0.0.1/8"}), "fixed-cidr: \"10.0.0.1/8\": invalid subnet"),
            (json!({"default-address-pools": [{"base": "10.0.0.0/8", "size": 4}]}), "size 4"),
            (
                json!({"default-address-pools": [{"base": "10.0.0.0/8"}]}),
                "default-address-pools[0]",
            ),
            (json!({"default-network-opts": {"overlay": {}}}), "no network driver \"overlay\""),
            (
                json!({"default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "x"}}}),
                "mtu",
            ),
            (json!({"labels": ["a"]}), "labels: \"a\""),
            (json!({"labels": ["a=1", "a=2"]}), "conflict labels for a=1 and a=2"),
            (json!({"dns": ["x"]}), "dns: \"x\""),
            (json!({"dns-search": ["a b"]}), "dns-search: \"a b\""),
            (json!({"default-ulimits": {"nofiles": {"Soft": 1, "Hard": 1}}}), "nofiles"),
            (json!({"default-ulimits": {"nofile": {"Soft": 1}}}), "default-ulimits.nofile"),
            (json!({"default-shm-size": "x"}), "default-shm-size"),
            (json!({"default-ipc-mode": "host"}), "say private or shareable"),
            (json!({"default-cgroupns-mode": "x"}), "default-cgroupns-mode"),
            (json!({"default-runtime": "kata"}), "default-runtime: \"kata\""),
            (json!({"seccomp-profile": "/nowhere.json"}), "seccomp-profile: /nowhere.json"),
            (json!({"registry-mirrors": ["x"]}), "registry-mirrors: \"x\""),
            (json!({"insecure-registries": ["10.0.0.0/8"]}), "name each by HOST"),
            (json!({"max-concurrent-downloads": -1}), "max-concurrent-downloads: -1"),
            (json!({"shutdown-timeout": -2}), "shutdown-timeout: -2"),
            (json!({"storage-driver": "btrfs"}), "storage-driver: \"btrfs\""),
            (json!({"userns-remap": "ann"}), "userns-remap: \"ann\""),
            (json!({"bridge": "none"}), "--network none"),
            (json!({"iptables": false}), "iptables: false"),
            (json!({"firewall-backend": "iptables"}), "firewall-backend"),
            (json!({"exec-opts": ["native.cgroupdriver=systemd"]}), "\"systemd\""),
            (json!({"host-gateway-ips": ["1.1.1.1", "1.1.1.2"]}), "one address of each family"),
            (json!({"host-gateway-ip": "1.1.1.1", "host-gateway-ips": ["::1"]}), "must not both"),
        ] {
            let error = read(value).expect_err(part);
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn what_is_said_is_in_effect() {
        let daemon = read(json!({
            "bip": "10.7.0.1/16", "fixed-cidr": "10.7.1.0/24", "ipv6": true, "mtu": 1400, "icc": false,
            "ip": "127.0.0.1", "ip-masq": false, "default-gateway": "10.7.0.9",
            "default-address-pools": [{"base": "10.8.0.0/16", "size": 24}],
            "default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1300"}},
            "log-driver": "local", "log-opts": {"max-size": "1m"}, "labels": ["a=b"], "debug": true,
            "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 1, "Hard": 2}},
            "default-shm-size": "1m", "default-ipc-mode": "shareable", "default-runtime": "runc",
            "init": true, "no-new-privileges": true, "seccomp-profile": "unconfined",
            "dns": ["10.0.0.1"], "dns-search": ["a.example"], "dns-opts": ["ndots:2"],
            "host-gateway-ips": ["10.0.0.9", "fd00::9"], "shutdown-timeout": 7,
            "insecure-registries": ["r.example:5000"], "registry-mirrors": ["https://m.example"],
            "max-concurrent-downloads": 1, "max-concurrent-uploads": 2, "max-download-attempts": 3,
            "storage-driver": "overlay2", "userns-remap": "default",
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
        }))
        .unwrap();
        assert_eq!(daemon.bridge_address(), Ok(Some((Ipv4Addr::new(10, 7, 0, 1), 16))));
        let network = daemon.default_network().unwrap();
        assert_eq!(
            (network.mtu, network.inter_container, network.masquerade),
            (Some(1400), false, false)
        );
        assert_eq!(network.range.unwrap().to_string(), "10.7.1.0/24");
        assert_eq!(network.gateway, Some(Ipv4Addr::new(10, 7, 0, 9)));
        assert_eq!(network.host_binding, IpAddr::from(Ipv4Addr::LOCALHOST));
        assert!(network.ipv6.is_some());
        assert_eq!(daemon.address_pools().unwrap().given().count(), 1);
        let settings = daemon.settings().unwrap();
        assert_eq!((settings.labels.as_slice(), settings.debug), (&["a=b".to_owned()][..], true));
        assert_eq!(settings.shutdown_timeout, Some(Duration::from_secs(7)));
        assert_eq!(settings.network_options["bridge"].len(), 1);
        let registries = settings.registries;
        assert_eq!(registries.max_downloads.get(), 1);
        assert_eq!((registries.max_uploads.get(), registries.max_attempts.get()), (2, 3));
        assert_eq!(registries.registry_mirrors[0].to_string(), "https://m.example/");
        let containers = settings.containers;
        assert_eq!((containers.log_driver, containers.shm_size), (LogDriver::Local, 1 << 20));
        assert_eq!((containers.runtime.to_string(), containers.init), ("runc".to_owned(), true));
        assert_eq!((containers.seccomp, containers.ulimits.len()), (Seccomp::Unconfined, 1));
        assert_eq!((containers.dns.len(), containers.host_gateways.len()), (1, 2));
        assert!(read(json!({})).unwrap().remarks().is_empty());
        let told = json!({"live-restore": false, "features": {"buildkit": true, "x": false}});
        assert_eq!(read(told).unwrap().remarks().len(), 2);
    }
}
