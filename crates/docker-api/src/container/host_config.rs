//! Docker's `HostConfig`: from a request to the engine's type, and back for inspect.

use std::net::IpAddr;

use bulkhead_docker_types as wire;
use bulkhead_engine::{
    BindOptions, BlockIo, Container, DeviceRequest, DriverOptions, Fill, HostConfig, LogDriver,
    LogOptions, MissingSource, MountOptions, MountRequest, MountsBelow, NetworkMode, OnFailure,
    PortRequest, RestartPolicy, SecurityOptions, TmpfsOptions, Ulimit, UsernsMode, VolumeOptions,
};
use bulkhead_types::Port;
use serde_json::{Map, Value};

use crate::error::ApiError;

/// Reads what a request says of the host, and warns of what is done in another way than it asks.
pub(crate) fn parse(wire: wire::HostConfig) -> Result<(HostConfig, Vec<String>), ApiError> {
    let mut warnings = Vec::new();
    if wire.log_config.kind == "local" {
        warnings.push("The log is written as json-file, which rotates; there is no local.".into());
    }
    let log_driver: LogDriver = wire.log_config.kind.parse()?;
    let host = HostConfig {
        binds: all(&wire.binds)?,
        mounts: wire.mounts.into_iter().map(mount).collect::<Result<_, _>>()?,
        tmpfs: wire
            .tmpfs
            .into_iter()
            .map(|(target, options)| Ok((target, TmpfsOptions::parse(&options)?)))
            .collect::<Result<_, ApiError>>()?,
        volumes_from: all(&wire.volumes_from)?,
        network_mode: wire.network_mode.parse()?,
        pid_mode: wire.pid_mode.parse()?,
        ipc_mode: wire.ipc_mode.parse()?,
        uts_mode: wire.uts_mode.parse()?,
        userns_mode: wire.userns_mode.parse()?,
        cgroupns_mode: wire.cgroupns_mode.parse()?,
        port_bindings: port_bindings(&wire.port_bindings)?,
        publish_all_ports: wire.publish_all_ports,
        links: all(&wire.links)?,
        extra_hosts: all(&wire.extra_hosts)?,
        dns: wire.dns.iter().map(|server| nameserver(server)).collect::<Result<_, _>>()?,
        dns_search: wire.dns_search,
        dns_options: wire.dns_options,
        restart_policy: RestartPolicy::parse(
            &wire.restart_policy.name,
            wire.restart_policy.maximum_retry_count,
        )?,
        auto_remove: wire.auto_remove,
        privileged: wire.privileged,
        readonly_rootfs: wire.readonly_rootfs,
        init: wire.init,
        cap_add: wire.cap_add,
        cap_drop: wire.cap_drop,
        security_opt: SecurityOptions::parse(wire.security_opt)?,
        masked_paths: paths("MaskedPaths", wire.masked_paths)?,
        readonly_paths: paths("ReadonlyPaths", wire.readonly_paths)?,
        group_add: wire.group_add,
        sysctls: wire.sysctls,
        annotations: wire.annotations,
        devices: wire.devices.into_iter().map(device).collect(),
        ulimits: wire
            .ulimits
            .iter()
            .map(|limit| Ulimit::new(&limit.name, limit.soft, limit.hard))
            .collect::<Result<_, _>>()?,
        oom_score_adj: wire.oom_score_adj,
        shm_size: positive("ShmSize", wire.shm_size)?,
        log_driver,
        log_options: LogOptions::parse(log_driver, wire.log_config.config)?,
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
        cgroup_parent: cgroup_parent(wire.cgroup_parent)?,
        // -1 is how clients say nothing
        memory_swappiness: match wire.memory_swappiness {
            None | Some(-1) => None,
            Some(percent) => Some(positive("MemorySwappiness", percent)?),
        },
        block_io: BlockIo {
            weight: wire.blkio_weight,
            weight_devices: wire
                .blkio_weight_device
                .into_iter()
                .map(|device| (device.path, device.weight))
                .collect(),
            read_bps: rates(wire.blkio_device_read_bps),
            write_bps: rates(wire.blkio_device_write_bps),
            read_iops: rates(wire.blkio_device_read_iops),
            write_iops: rates(wire.blkio_device_write_iops),
        },
        device_cgroup_rules: wire.device_cgroup_rules,
        console_size: wire.console_size,
        volume_driver: wire.volume_driver,
        isolation: wire.isolation.parse()?,
        runtime: wire.runtime.parse()?,
        // The engine reads it from the labels, which an image has too.
        health_on_failure: OnFailure::None,
    };
    Ok((host, warnings))
}

fn rates(list: Vec<wire::ThrottleDevice>) -> Vec<(String, u64)> {
    list.into_iter().map(|device| (device.path, device.rate)).collect()
}

/// The same for inspect.
fn throttles(list: &[(String, u64)]) -> Vec<wire::ThrottleDevice> {
    list.iter()
        .map(|(path, rate)| wire::ThrottleDevice { path: path.clone(), rate: *rate })
        .collect()
}

fn all<T: std::str::FromStr>(texts: &[String]) -> Result<Vec<T>, ApiError>
where
    ApiError: From<T::Err>,
{
    texts.iter().map(|text| text.parse().map_err(ApiError::from)).collect()
}

fn port_bindings(
    wire: &std::collections::BTreeMap<String, Option<Vec<wire::PortBinding>>>,
) -> Result<Vec<PortRequest>, ApiError> {
    let mut all = Vec::new();
    for (port, bindings) in wire {
        let port: Port = port.parse().map_err(ApiError::invalid_value)?;
        // An empty list asks for any port of the host, like a list of one empty binding; null asks
        // for nothing (moby: daemon/server/router/container, `backfillEmptyPBs`).
        let any = [wire::PortBinding::default()];
        let bindings = match bindings {
            None => &[][..],
            Some(bindings) if bindings.is_empty() => &any[..],
            Some(bindings) => bindings,
        };
        for binding in bindings {
            let (host_port, last_host_port) = host_ports(&binding.host_port)?;
            all.push(PortRequest {
                container_port: port.number(),
                protocol: port.protocol(),
                host_address: host_address(&binding.host_ip)?,
                host_port,
                last_host_port,
            });
        }
    }
    Ok(all)
}

fn positive(member: &str, value: i64) -> Result<u64, ApiError> {
    u64::try_from(value).map_err(|_| {
        ApiError::invalid(format!("HostConfig.{member} cannot be negative, and is {value}"))
    })
}

fn nameserver(text: &str) -> Result<IpAddr, ApiError> {
    text.parse().map_err(|_| ApiError::invalid(format!("bad nameserver address {text:?}")))
}

fn paths(member: &str, paths: Option<Vec<String>>) -> Result<Option<Vec<String>>, ApiError> {
    let relative = paths.iter().flatten().find(|path| !path.starts_with('/'));
    match relative {
        Some(path) => Err(ApiError::invalid(format!(
            "HostConfig.{member} takes absolute paths, and {path:?} is none"
        ))),
        None => Ok(paths),
    }
}

/// A path below the place that Bulkhead's groups have, or from the root of the hierarchies.
fn cgroup_parent(text: String) -> Result<String, ApiError> {
    if text.split('/').any(|part| matches!(part, "." | "..")) {
        return Err(ApiError::invalid(format!(
            "HostConfig.CgroupParent {text:?} leads out of its place; give a path without dots"
        )));
    }
    Ok(text)
}

fn host_address(text: &str) -> Result<Option<IpAddr>, ApiError> {
    let read = |text: &str| {
        let address: IpAddr = text.parse().map_err(|_| {
            ApiError::invalid(format!(
                "cannot publish a port on host address {text:?}: it is no IP address"
            ))
        })?;
        Ok(address.to_canonical())
    };
    (!text.is_empty()).then(|| read(text)).transpose()
}

/// One port, or the first and the last of several of which one is taken; 0 is any.
fn host_ports(text: &str) -> Result<(u16, Option<u16>), ApiError> {
    let port = |text: &str| text.parse::<u16>().ok();
    let read = match text.split_once('-') {
        _ if text.is_empty() => Some((0, None)),
        None => port(text).map(|port| (port, None)),
        Some((first, last)) => port(first).zip(port(last)).and_then(|(first, last)| {
            (first > 0 && first <= last).then(|| (first, (first < last).then_some(last)))
        }),
    };
    read.ok_or_else(|| {
        ApiError::invalid(format!(
            "invalid host port {text:?}: expected a port number, or a range such as 8000-8010"
        ))
    })
}

fn device(wire: wire::Device) -> DeviceRequest {
    DeviceRequest {
        host: wire.path_on_host,
        container: wire.path_in_container,
        permissions: wire.cgroup_permissions,
    }
}

fn mount(wire: wire::Mount) -> Result<MountRequest, ApiError> {
    let wire::Mount {
        kind,
        source,
        target,
        read_only,
        bind_options,
        volume_options,
        tmpfs_options,
    } = wire;
    let invalid =
        |why: &str| ApiError::invalid(format!("invalid mount config for type {kind:?}: {why}"));
    // Options of another kind would have no effect.
    for (given, name, of) in [
        (bind_options.is_some(), "BindOptions", "bind"),
        (volume_options.is_some(), "VolumeOptions", "volume"),
        (tmpfs_options.is_some(), "TmpfsOptions", "tmpfs"),
    ] {
        if given && kind != of {
            return Err(invalid(&format!("field {name} must not be specified")));
        }
    }
    let options = match kind.as_str() {
        "bind" => MountOptions::Bind(bind(bind_options.unwrap_or_default())?),
        "volume" => {
            let options = volume_options.unwrap_or_default();
            let driver = options.driver_config.unwrap_or_default();
            if !matches!(driver.name.as_str(), "" | "local") {
                return Err(invalid(&format!(
                    "there is no volume driver {:?}; the only one is local",
                    driver.name
                )));
            }
            MountOptions::Volume(VolumeOptions {
                fill: if options.no_copy { Fill::Leave } else { Fill::FromImage },
                subpath: options.subpath,
                labels: options.labels,
                driver_options: DriverOptions::parse(driver.options)?,
            })
        }
        "tmpfs" => {
            let options = tmpfs_options.unwrap_or_default();
            let size = positive("Mounts.TmpfsOptions.SizeBytes", options.size_bytes)?;
            MountOptions::Tmpfs(TmpfsOptions::of_mount(size, options.mode, &options.options)?)
        }
        _ => return Err(invalid("the types are bind, volume and tmpfs")),
    };
    Ok(MountRequest::new(&source, &target, read_only, options)?)
}

fn bind(wire: wire::BindOptions) -> Result<BindOptions, ApiError> {
    let below = match (
        wire.non_recursive,
        wire.read_only_non_recursive,
        wire.read_only_force_recursive,
    ) {
        (false, false, false) => MountsBelow::Follow,
        (true, false, false) => MountsBelow::Leave,
        (false, true, false) => MountsBelow::FollowWritable,
        (false, false, true) => MountsBelow::FollowReadonly,
        _ => {
            return Err(ApiError::invalid(
                "invalid mount config for type \"bind\": of NonRecursive, ReadOnlyNonRecursive and \
                 ReadOnlyForceRecursive only one can be said",
            ));
        }
    };
    Ok(BindOptions {
        missing: match wire.create_mountpoint {
            true => MissingSource::MakeDirectory,
            false => MissingSource::Refuse,
        },
        propagation: wire.propagation.parse()?,
        below,
    })
}

/// The same in Docker's words.
fn of_engine(container: &Container) -> wire::HostConfig {
    fn texts<T: ToString>(values: &[T]) -> Vec<String> {
        values.iter().map(T::to_string).collect()
    }
    let host = &container.host;
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let mut port_bindings = std::collections::BTreeMap::new();
    for binding in &host.port_bindings {
        let bindings: &mut Option<Vec<wire::PortBinding>> =
            port_bindings.entry(binding.port().to_string()).or_default();
        bindings.get_or_insert_default().push(wire::PortBinding {
            host_ip: binding.host_address.map(|it| it.to_string()).unwrap_or_default(),
            host_port: match (binding.host_port, binding.last_host_port) {
                (0, _) => String::new(),
                (first, None) => first.to_string(),
                (first, Some(last)) => format!("{first}-{last}"),
            },
        });
    }
    wire::HostConfig {
        binds: texts(&host.binds),
        mounts: host.mounts.iter().map(mount_of_engine).collect(),
        tmpfs: host.tmpfs.iter().map(|(at, options)| (at.clone(), options.to_string())).collect(),
        volumes_from: texts(&host.volumes_from),
        network_mode: host.network_mode.to_string(),
        pid_mode: host.pid_mode.to_string(),
        ipc_mode: host.ipc_mode.to_string(),
        uts_mode: host.uts_mode.to_string(),
        // `host` says that the container has no user namespace of its own, whoever decided so.
        userns_mode: match (host.userns_mode, container.id_range) {
            (UsernsMode::Default, None) => UsernsMode::Host.to_string(),
            (mode, _) => mode.to_string(),
        },
        cgroupns_mode: host.cgroupns_mode.to_string(),
        cgroup_parent: host.cgroup_parent.clone(),
        port_bindings,
        publish_all_ports: host.publish_all_ports,
        // Docker shows links as `/target:/container/alias`; those of a user's network are its
        // endpoint's.
        links: host
            .links
            .iter()
            .filter(|_| !matches!(host.network_mode, NetworkMode::Named(_)))
            .map(|link| format!("/{}:/{}/{}", link.container, container.name, link.alias))
            .collect(),
        extra_hosts: texts(&host.extra_hosts),
        dns: texts(&host.dns),
        dns_search: host.dns_search.clone(),
        dns_options: host.dns_options.clone(),
        restart_policy: wire::RestartPolicy {
            name: host.restart_policy.name().to_owned(),
            maximum_retry_count: host.restart_policy.maximum_retries().into(),
        },
        auto_remove: host.auto_remove,
        privileged: host.privileged,
        readonly_rootfs: host.readonly_rootfs,
        init: host.init,
        cap_add: host.cap_add.clone(),
        cap_drop: host.cap_drop.clone(),
        security_opt: host.security_opt.given().to_vec(),
        masked_paths: host.masked_paths.clone(),
        readonly_paths: host.readonly_paths.clone(),
        group_add: host.group_add.clone(),
        sysctls: host.sysctls.clone(),
        annotations: host.annotations.clone(),
        devices: host
            .devices
            .iter()
            .map(|device| wire::Device {
                path_on_host: device.host.clone(),
                path_in_container: device.container.clone(),
                cgroup_permissions: device.permissions.clone(),
            })
            .collect(),
        ulimits: host
            .ulimits
            .iter()
            .map(|limit| wire::Ulimit {
                name: limit.name().to_owned(),
                soft: limit.soft(),
                hard: limit.hard(),
            })
            .collect(),
        memory_swappiness: host.memory_swappiness.and_then(|percent| i64::try_from(percent).ok()),
        device_cgroup_rules: host.device_cgroup_rules.clone(),
        blkio_weight: host.block_io.weight,
        blkio_weight_device: host
            .block_io
            .weight_devices
            .iter()
            .map(|(path, weight)| wire::WeightDevice { path: path.clone(), weight: *weight })
            .collect(),
        blkio_device_read_bps: throttles(&host.block_io.read_bps),
        blkio_device_write_bps: throttles(&host.block_io.write_bps),
        blkio_device_read_iops: throttles(&host.block_io.read_iops),
        blkio_device_write_iops: throttles(&host.block_io.write_iops),
        oom_score_adj: host.oom_score_adj,
        shm_size: if host.shm_size == 0 { 64 << 20 } else { signed(host.shm_size) },
        log_config: wire::LogConfig {
            kind: host.log_driver.to_string(),
            config: host.log_options.given().clone(),
        },
        memory: signed(host.memory),
        memory_reservation: signed(host.memory_reservation),
        // Docker writes its default down when the container is made.
        memory_swap: match (host.memory, host.memory_swap) {
            (0, swap) => swap,
            (memory, 0) => signed(memory.saturating_mul(2)),
            (_, swap) => swap,
        },
        cpu_shares: signed(host.cpu_shares),
        nano_cpus: signed(host.nano_cpus),
        cpu_period: signed(host.cpu_period),
        cpu_quota: host.cpu_quota,
        cpuset_cpus: host.cpuset_cpus.clone(),
        cpuset_mems: host.cpuset_mems.clone(),
        pids_limit: host.pids_limit,
        console_size: host.console_size,
        volume_driver: host.volume_driver.clone(),
        isolation: host.isolation.to_string(),
        runtime: host.runtime.to_string(),
        ..wire::HostConfig::default()
    }
}

fn mount_of_engine(mount: &MountRequest) -> wire::Mount {
    let mut shown = wire::Mount {
        kind: mount.kind().name().to_owned(),
        source: mount.source.clone(),
        target: mount.target.clone(),
        read_only: mount.readonly,
        ..wire::Mount::default()
    };
    match &mount.options {
        MountOptions::Bind(bind) => {
            let options = wire::BindOptions {
                propagation: match bind.propagation {
                    bulkhead_engine::Propagation::Rprivate => String::new(),
                    propagation => propagation.to_string(),
                },
                non_recursive: bind.below == MountsBelow::Leave,
                create_mountpoint: bind.missing == MissingSource::MakeDirectory,
                read_only_non_recursive: bind.below == MountsBelow::FollowWritable,
                read_only_force_recursive: bind.below == MountsBelow::FollowReadonly,
            };
            shown.bind_options = Some(options).filter(|given| *given != Default::default());
        }
        MountOptions::Volume(volume) => {
            let driver = wire::DriverConfig {
                name: String::new(),
                options: volume.driver_options.given().clone(),
            };
            let options = wire::VolumeOptions {
                no_copy: volume.fill == Fill::Leave,
                labels: volume.labels.clone(),
                driver_config: Some(driver).filter(|driver| !driver.options.is_empty()),
                subpath: volume.subpath.clone(),
            };
            shown.volume_options = Some(options).filter(|given| *given != Default::default());
        }
        MountOptions::Tmpfs(tmpfs) => {
            let options = wire::TmpfsOptions {
                size_bytes: tmpfs.size().and_then(|size| i64::try_from(size).ok()).unwrap_or(0),
                mode: tmpfs.mode().unwrap_or(0),
                options: tmpfs
                    .words()
                    .iter()
                    .filter(|word| !word.contains('='))
                    .map(|word| vec![word.clone()])
                    .collect(),
            };
            shown.tmpfs_options = Some(options).filter(|given| *given != Default::default());
        }
    }
    shown
}

/// The `HostConfig` that inspect shows: what was asked, every other member at the value Docker
/// gives it, and what the engine decided.
pub(crate) fn view(container: &Container) -> Value {
    let mut view = defaults();
    let shown = serde_json::to_value(of_engine(container));
    if let Ok(Value::Object(members)) = shown {
        view.extend(members);
    }
    if container.host.privileged || container.host.security_opt.is_unmasked() {
        view.insert("MaskedPaths".to_owned(), Value::Null);
        view.insert("ReadonlyPaths".to_owned(), Value::Null);
    }
    Value::Object(view)
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
    use serde_json::json;

    use super::*;
    use crate::container::view::tests::example;

    fn parsed(host: Value) -> HostConfig {
        let wire = serde_json::from_value(host).expect("a HostConfig");
        parse(wire).expect("it is valid").0
    }

    #[test]
    fn inspect_repeats_what_was_asked() {
        let mut container = example();
        container.host = parsed(json!({
            "Dns": ["1.1.1.1"], "CapAdd": null, "NetworkMode": "default", "Links": ["db:store"],
            "Binds": ["/a:/b:ro,z"], "Tmpfs": {"/t": "size=1m"}, "VolumesFrom": ["x:ro"],
            "SecurityOpt": ["no-new-privileges"], "ExtraHosts": ["up:host-gateway"],
            "LogConfig": {"Type": "local", "Config": {"max-size": "1m"}},
            "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
            "PortBindings": {"80/tcp": [], "81/tcp": null, "82/udp": [{"HostPort": "5"}]},
        }));
        let view = view(&container);
        for (member, value) in [
            ("Dns", json!(["1.1.1.1"])),
            ("CapAdd", Value::Null),
            ("LogConfig", json!({"Type": "local", "Config": {"max-size": "1m"}})),
            ("NetworkMode", json!("bridge")),
            ("Links", json!(["/db:/web/store"])),
            ("UsernsMode", json!("host")),
            ("BlkioDeviceReadBps", json!([])),
            ("Binds", json!(["/a:/b:ro,z"])),
            ("Tmpfs", json!({"/t": "size=1m"})),
            ("VolumesFrom", json!(["x:ro"])),
            ("SecurityOpt", json!(["no-new-privileges"])),
            ("ExtraHosts", json!(["up:host-gateway"])),
            ("Ulimits", json!([{"Name": "nofile", "Soft": 1, "Hard": 2}])),
            ("RestartPolicy", json!({"Name": "on-failure", "MaximumRetryCount": 3})),
            ("PidMode", json!("")),
            ("IpcMode", json!("private")),
            (
                "PortBindings",
                json!({
                    "80/tcp": [{"HostIp": "", "HostPort": ""}],
                    "82/udp": [{"HostIp": "", "HostPort": "5"}],
                }),
            ),
        ] {
            assert_eq!(view[member], value, "{member}");
        }
    }

    #[test]
    fn words_without_effect_are_repeated() {
        let mut container = example();
        container.host = parsed(json!({"Isolation": "default", "VolumeDriver": "nfs"}));
        let shown = view(&container);
        let members = ["Isolation", "VolumeDriver", "Runtime"].map(|member| shown[member].clone());
        assert_eq!(members, ["default", "nfs", "bulkhead"]);
        container.host = parsed(json!({"Runtime": "runc"}));
        assert_eq!(view(&container)["Runtime"], "runc");
        for (wrong, part) in
            [(json!({"Isolation": "hyperv"}), "Windows"), (json!({"Runtime": "crun"}), "crun")]
        {
            let wire = serde_json::from_value(wrong).expect("a HostConfig");
            assert!(parse(wire).expect_err(part).message.contains(part));
        }
    }

    #[test]
    fn mounts_keep_what_the_two_syntaxes_differ_in() {
        let asked = json!([
            {"Type": "bind", "Source": "/a", "Target": "/a", "ReadOnly": true,
             "BindOptions": {"Propagation": "rslave", "ReadOnlyNonRecursive": true}},
            {"Type": "volume", "Source": "data", "Target": "/b",
             "VolumeOptions": {"NoCopy": true, "Labels": {"a": "b"}, "Subpath": "x/y"}},
            {"Type": "tmpfs", "Target": "/c", "TmpfsOptions": {"SizeBytes": 4096, "Mode": 1023}},
            {"Type": "bind", "Source": "/d", "Target": "/d"},
        ]);
        let mut container = example();
        container.host = parsed(json!({"Mounts": asked}));
        assert_eq!(view(&container)["Mounts"], asked);
        let missing = |mount: &MountRequest| match &mount.options {
            MountOptions::Bind(bind) => bind.missing,
            other => panic!("{other:?}"),
        };
        assert_eq!(missing(&container.host.mounts[3]), MissingSource::Refuse);
        let host = parsed(json!({"Binds": ["/d:/d"]}));
        assert_eq!(missing(&host.binds[0].mount), MissingSource::MakeDirectory);
    }
}
