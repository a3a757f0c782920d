//! Docker's `HostConfig`: from a request to the engine's type, and back for inspect.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use bulkhead_engine::{
    Container, DeviceRequest, HostConfig, MountRequest, MountType, PortBinding, RestartPolicy,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::create::{parse_port, port_name};
use crate::error::ApiError;

/// Docker's `HostConfig` as clients write it: every member of API 1.51, so that a wrong type is an
/// error even where Bulkhead only repeats the value.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct WireHostConfig {
    binds: Vec<String>,
    mounts: Vec<WireMount>,
    tmpfs: BTreeMap<String, String>,
    network_mode: String,
    pid_mode: String,
    ipc_mode: String,
    #[serde(rename = "UTSMode")]
    uts_mode: String,
    userns_mode: String,
    cgroupns_mode: String,
    port_bindings: BTreeMap<String, Vec<WirePortBinding>>,
    publish_all_ports: bool,
    links: Vec<String>,
    extra_hosts: Vec<String>,
    dns: Vec<String>,
    dns_search: Vec<String>,
    dns_options: Vec<String>,
    restart_policy: WireRestartPolicy,
    auto_remove: bool,
    privileged: bool,
    readonly_rootfs: bool,
    init: Option<bool>,
    cap_add: Vec<String>,
    cap_drop: Vec<String>,
    security_opt: Vec<String>,
    group_add: Vec<String>,
    sysctls: BTreeMap<String, String>,
    devices: Vec<WireDevice>,
    ulimits: Vec<WireUlimit>,
    oom_score_adj: i64,
    shm_size: i64,
    log_config: WireLogConfig,
    memory: i64,
    memory_reservation: i64,
    memory_swap: i64,
    cpu_shares: i64,
    nano_cpus: i64,
    cpu_period: i64,
    cpu_quota: i64,
    cpuset_cpus: String,
    cpuset_mems: String,
    pids_limit: Option<i64>,
    cgroup_parent: String,
    runtime: String,
    isolation: String,
    pub(super) volumes_from: Vec<String>,
    volume_driver: String,
    device_requests: Vec<Value>,
    device_cgroup_rules: Vec<String>,
    storage_opt: BTreeMap<String, String>,
    blkio_weight: u16,
    cpu_realtime_period: i64,
    cpu_realtime_runtime: i64,
    oom_kill_disable: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct WirePortBinding {
    host_ip: String,
    host_port: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct WireRestartPolicy {
    name: String,
    maximum_retry_count: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct WireDevice {
    path_on_host: String,
    path_in_container: String,
    cgroup_permissions: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct WireUlimit {
    name: String,
    soft: i64,
    hard: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct WireLogConfig {
    #[serde(rename = "Type")]
    kind: String,
    config: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct WireMount {
    #[serde(rename = "Type")]
    kind: String,
    source: String,
    target: String,
    read_only: bool,
    tmpfs_options: WireTmpfsOptions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct WireTmpfsOptions {
    size_bytes: i64,
    mode: u32,
}

impl WireHostConfig {
    /// Refuses what would change what the container is and is not offered; warns of what would
    /// only change how well it runs.
    pub(crate) fn check(&self) -> Result<Vec<String>, ApiError> {
        for (asked, member, instead) in [
            (!self.device_requests.is_empty(), "DeviceRequests", "name the devices with Devices"),
            (!self.device_cgroup_rules.is_empty(), "DeviceCgroupRules", "use Devices"),
            (!self.storage_opt.is_empty(), "StorageOpt", "leave it out"),
            (
                !matches!(self.volume_driver.as_str(), "" | "local"),
                "VolumeDriver",
                "the only driver is local",
            ),
            (!matches!(self.isolation.as_str(), "" | "default"), "Isolation", "leave it out"),
        ] {
            if asked {
                return Err(ApiError::unsupported(format!(
                    "HostConfig.{member} is not supported by Bulkhead; {instead}"
                )));
            }
        }
        if !matches!(self.runtime.as_str(), "" | "bulkhead" | "runc" | "io.containerd.runc.v2") {
            return Err(ApiError::invalid(format!(
                "unknown or invalid runtime name: {}; Bulkhead is its own runtime",
                self.runtime
            )));
        }
        let warnings = [
            (self.blkio_weight != 0, "BlkioWeight"),
            (self.cpu_realtime_period != 0, "CpuRealtimePeriod"),
            (self.cpu_realtime_runtime != 0, "CpuRealtimeRuntime"),
            (self.oom_kill_disable, "OomKillDisable"),
        ];
        Ok(warnings
            .into_iter()
            .filter(|(asked, _)| *asked)
            .map(|(_, member)| format!("HostConfig.{member} is not supported and was discarded."))
            .collect())
    }
}

pub(crate) fn convert(
    wire: WireHostConfig,
    echo: Map<String, Value>,
) -> Result<HostConfig, ApiError> {
    let restart = restart_policy(&wire)?;
    let mut port_bindings = Vec::new();
    for (port, bindings) in &wire.port_bindings {
        let (container_port, protocol) = parse_port(port)?;
        // An empty list asks for any port of the host, like a list of one empty binding.
        let any = [WirePortBinding::default()];
        for binding in if bindings.is_empty() { &any[..] } else { bindings } {
            port_bindings.push(PortBinding {
                container_port,
                protocol,
                host_address: host_address(&binding.host_ip)?,
                host_port: host_port(&binding.host_port)?,
            });
        }
    }
    Ok(HostConfig {
        binds: wire.binds,
        mounts: wire.mounts.into_iter().map(MountRequest::try_from).collect::<Result<_, _>>()?,
        tmpfs: wire.tmpfs,
        network_mode: wire.network_mode,
        pid_mode: wire.pid_mode,
        ipc_mode: wire.ipc_mode,
        uts_mode: wire.uts_mode,
        userns_mode: wire.userns_mode,
        cgroupns_mode: wire.cgroupns_mode,
        port_bindings,
        publish_all_ports: wire.publish_all_ports,
        links: wire.links,
        extra_hosts: wire.extra_hosts,
        dns: wire.dns,
        dns_search: wire.dns_search,
        dns_options: wire.dns_options,
        restart_policy: restart,
        auto_remove: wire.auto_remove,
        privileged: wire.privileged,
        readonly_rootfs: wire.readonly_rootfs,
        init: wire.init,
        cap_add: wire.cap_add,
        cap_drop: wire.cap_drop,
        security_opt: wire.security_opt,
        group_add: wire.group_add,
        sysctls: wire.sysctls,
        devices: wire
            .devices
            .into_iter()
            .map(|device| DeviceRequest {
                host: device.path_on_host,
                container: device.path_in_container,
                permissions: device.cgroup_permissions,
            })
            .collect(),
        ulimits: wire
            .ulimits
            .into_iter()
            .map(|limit| (limit.name, limit.soft, limit.hard))
            .collect(),
        oom_score_adj: wire.oom_score_adj,
        shm_size: positive("ShmSize", wire.shm_size)?,
        log_driver: wire.log_config.kind,
        log_options: wire.log_config.config,
        memory: positive("Memory", wire.memory)?,
        memory_reservation: positive("MemoryReservation", wire.memory_reservation)?,
        memory_swap: wire.memory_swap,
        cpu_shares: positive("CpuShares", wire.cpu_shares)?,
        nano_cpus: positive("NanoCpus", wire.nano_cpus)?,
        cpu_period: positive("CpuPeriod", wire.cpu_period)?,
        cpu_quota: wire.cpu_quota,
        cpuset_cpus: wire.cpuset_cpus,
        cpuset_mems: wire.cpuset_mems,
        // The CLI sends 0 for what its user did not say; -1 is how that user says "unlimited".
        pids_limit: wire.pids_limit.filter(|limit| *limit != 0),
        cgroup_parent: wire.cgroup_parent,
        echo,
    })
}

fn restart_policy(wire: &WireHostConfig) -> Result<RestartPolicy, ApiError> {
    let WireRestartPolicy { name, maximum_retry_count } = &wire.restart_policy;
    if !matches!(name.as_str(), "" | "no" | "on-failure" | "always" | "unless-stopped") {
        return Err(ApiError::invalid(format!(
            "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )));
    }
    if *maximum_retry_count != 0 && name != "on-failure" {
        return Err(ApiError::invalid(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ));
    }
    let maximum_retries = u32::try_from(*maximum_retry_count).map_err(|_| {
        ApiError::invalid("invalid restart policy: maximum retry count cannot be negative")
    })?;
    if wire.auto_remove && !matches!(name.as_str(), "" | "no") {
        return Err(ApiError::invalid("can't create 'AutoRemove' container with restart policy"));
    }
    Ok(RestartPolicy { name: name.clone(), maximum_retries })
}

fn positive(member: &str, value: i64) -> Result<u64, ApiError> {
    u64::try_from(value).map_err(|_| {
        ApiError::invalid(format!("HostConfig.{member} cannot be negative, and is {value}"))
    })
}

fn host_address(text: &str) -> Result<Ipv4Addr, ApiError> {
    match text {
        "" => Ok(Ipv4Addr::UNSPECIFIED),
        text => text.parse().map_err(|_| {
            ApiError::invalid(format!(
                "cannot publish a port on host address {text:?}: only IPv4 addresses are supported"
            ))
        }),
    }
}

fn host_port(text: &str) -> Result<u16, ApiError> {
    match text {
        "" => Ok(0),
        text => text.parse().map_err(|_| {
            ApiError::invalid(format!("invalid host port {text:?}: expected one port number"))
        }),
    }
}

impl TryFrom<WireMount> for MountRequest {
    type Error = ApiError;

    fn try_from(wire: WireMount) -> Result<Self, ApiError> {
        let kind = match wire.kind.as_str() {
            "bind" => MountType::Bind,
            "volume" => MountType::Volume,
            "tmpfs" => MountType::Tmpfs,
            other => {
                return Err(ApiError::invalid(format!(
                    "invalid mount config for type {other:?}: the types are bind, volume and tmpfs"
                )));
            }
        };
        if wire.target.is_empty() {
            return Err(ApiError::invalid(format!(
                "invalid mount config for type {:?}: field Target must not be empty",
                wire.kind
            )));
        }
        Ok(Self {
            kind,
            source: wire.source,
            target: wire.target,
            readonly: wire.read_only,
            tmpfs_size: positive("Mounts.TmpfsOptions.SizeBytes", wire.tmpfs_options.size_bytes)?,
            tmpfs_mode: wire.tmpfs_options.mode,
        })
    }
}

/// The `HostConfig` that inspect shows: what was asked, every other member at the value Docker
/// gives it, and what the engine decided.
pub(crate) fn view(container: &Container) -> Value {
    let host = &container.host;
    let mut view = defaults();
    for (member, value) in &host.echo {
        let null_for_object = value.is_null() && view.get(member).is_some_and(Value::is_object);
        if !null_for_object {
            view.insert(member.clone(), value.clone());
        }
    }
    let mut ports = Map::new();
    for binding in &host.port_bindings {
        let address = match binding.host_address {
            Ipv4Addr::UNSPECIFIED => String::new(),
            address => address.to_string(),
        };
        let port = match binding.host_port {
            0 => String::new(),
            port => port.to_string(),
        };
        let name = port_name(binding.container_port, binding.protocol);
        if let Value::Array(list) = ports.entry(name).or_insert_with(|| json!([])) {
            list.push(json!({ "HostIp": address, "HostPort": port }));
        }
    }
    let or = |text: &str, default: &str| Value::from(if text.is_empty() { default } else { text });
    let network_mode = match host.network_mode.as_str() {
        "" | "default" => "bridge",
        mode => mode,
    };
    for (member, value) in [
        ("NetworkMode", json!(network_mode)),
        ("PortBindings", Value::Object(ports)),
        ("IpcMode", or(&host.ipc_mode, "private")),
        ("CgroupnsMode", or(&host.cgroupns_mode, "private")),
        ("PidMode", json!(host.pid_mode)),
        ("UTSMode", json!(host.uts_mode)),
        ("UsernsMode", json!(userns_mode(container))),
        (
            "RestartPolicy",
            json!({
                "Name": or(&host.restart_policy.name, "no"),
                "MaximumRetryCount": host.restart_policy.maximum_retries,
            }),
        ),
        (
            "LogConfig",
            json!({ "Type": or(&host.log_driver, "json-file"), "Config": host.log_options }),
        ),
        ("AutoRemove", json!(host.auto_remove)),
        ("Privileged", json!(host.privileged)),
        ("ReadonlyRootfs", json!(host.readonly_rootfs)),
        ("ShmSize", json!(if host.shm_size == 0 { 64 << 20 } else { host.shm_size })),
        ("Memory", json!(host.memory)),
        ("MemoryReservation", json!(host.memory_reservation)),
        ("MemorySwap", json!(host.memory_swap)),
        ("NanoCpus", json!(host.nano_cpus)),
        ("CpuShares", json!(host.cpu_shares)),
        ("Links", links(container)),
        ("PidsLimit", json!(host.pids_limit)),
    ] {
        view.insert(member.to_owned(), value);
    }
    // The CLI sends -1 for what its user did not say.
    if view.get("MemorySwappiness") == Some(&json!(-1)) {
        view.insert("MemorySwappiness".to_owned(), Value::Null);
    }
    if host.privileged {
        view.insert("MaskedPaths".to_owned(), Value::Null);
        view.insert("ReadonlyPaths".to_owned(), Value::Null);
    }
    Value::Object(view)
}

/// `host` says that the container has no user namespace of its own, whoever decided so.
fn userns_mode(container: &Container) -> &str {
    match (container.host.userns_mode.as_str(), container.id_range) {
        ("", None) => "host",
        (mode, _) => mode,
    }
}

/// Docker shows links as `/target:/container/alias`.
fn links(container: &Container) -> Value {
    if container.host.links.is_empty() {
        return Value::Null;
    }
    let shown = container.host.links.iter().map(|link| {
        let (target, alias) = link.split_once(':').unwrap_or((link, link));
        format!("/{target}:/{}/{alias}", container.name)
    });
    Value::from(shown.collect::<Vec<_>>())
}

/// What Docker 28.5 shows of a container for which nothing was asked, in its order.
fn defaults() -> Map<String, Value> {
    serde_json::from_str(DEFAULTS).expect("the text is a JSON object, and a test reads it")
}

const DEFAULTS: &str = r#"{
    "Binds": null, "ContainerIDFile": "", "LogConfig": {"Type": "json-file", "Config": {}},
    "NetworkMode": "bridge", "PortBindings": {},
    "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": false,
    "VolumeDriver": "", "VolumesFrom": null, "ConsoleSize": [0, 0], "CapAdd": null,
    "CapDrop": null, "CgroupnsMode": "private", "Dns": [], "DnsOptions": [], "DnsSearch": [],
    "ExtraHosts": null, "GroupAdd": null, "IpcMode": "private", "Cgroup": "", "Links": null,
    "OomScoreAdj": 0, "PidMode": "", "Privileged": false, "PublishAllPorts": false,
    "ReadonlyRootfs": false, "SecurityOpt": null, "UTSMode": "", "UsernsMode": "",
    "ShmSize": 67108864, "Runtime": "bulkhead", "Isolation": "", "CpuShares": 0, "Memory": 0,
    "NanoCpus": 0, "CgroupParent": "", "BlkioWeight": 0, "BlkioWeightDevice": [],
    "BlkioDeviceReadBps": [], "BlkioDeviceWriteBps": [], "BlkioDeviceReadIOps": [],
    "BlkioDeviceWriteIOps": [], "CpuPeriod": 0, "CpuQuota": 0, "CpuRealtimePeriod": 0,
    "CpuRealtimeRuntime": 0, "CpusetCpus": "", "CpusetMems": "", "Devices": [],
    "DeviceCgroupRules": null, "DeviceRequests": null, "MemoryReservation": 0, "MemorySwap": 0,
    "MemorySwappiness": null, "OomKillDisable": null, "PidsLimit": null, "Ulimits": [],
    "CpuCount": 0, "CpuPercent": 0, "IOMaximumIOps": 0, "IOMaximumBandwidth": 0,
    "MaskedPaths": [
        "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys",
        "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
        "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"
    ],
    "ReadonlyPaths": [
        "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"
    ]
}"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::view::tests::example;

    #[test]
    fn inspect_repeats_what_was_asked() {
        let mut container = example();
        container.host.echo = Map::from_iter([
            ("Dns".to_owned(), json!(["1.1.1.1"])),
            ("CapAdd".to_owned(), Value::Null),
            ("LogConfig".to_owned(), Value::Null),
            ("NetworkMode".to_owned(), json!("default")),
        ]);
        container.host.links = vec!["db:store".to_owned()];
        let view = view(&container);
        for (member, value) in [
            ("Dns", json!(["1.1.1.1"])),
            ("CapAdd", Value::Null),
            ("LogConfig", json!({"Type": "json-file", "Config": {}})),
            ("NetworkMode", json!("bridge")),
            ("Links", json!(["/db:/web/store"])),
            ("UsernsMode", json!("host")),
            ("BlkioDeviceReadBps", json!([])),
        ] {
            assert_eq!(view[member], value, "{member}");
        }
    }
}
