//! From the flags of `run` to the body of `POST /containers/create`.

use std::collections::BTreeMap;

use bulkhead_docker_types::{
    ContainerCreate, Device, Empty, HostConfig, LogConfig, Mount, PortBinding, ThrottleDevice,
    WeightDevice, Words,
};
use bulkhead_types::{Port, parse_size};

use super::RunArguments;
use super::endpoint::{is_builtin, networks, pairs};
use super::policy::{restart_policy, ulimit};
use crate::failure::Failure;

pub fn container(arguments: &RunArguments) -> Result<ContainerCreate, Failure> {
    read(arguments).map_err(|cause| cause.with_code(125))
}

fn read(arguments: &RunArguments) -> Result<ContainerCreate, Failure> {
    let (exposed_ports, port_bindings) = ports(arguments)?;
    let (binds, volumes): (Vec<&String>, Vec<&String>) =
        arguments.volume.iter().partition(|volume| volume.contains(':'));
    let attached = attached(arguments)?;
    // as docker, which takes what has no value in a file for nothing
    let mut files = from_files("label", &arguments.label_file)?;
    files.retain(|line| line.contains('='));
    let mut labels = pairs(&files);
    labels.extend(pairs(&arguments.label));
    arguments.health.label(&mut labels);
    let (network_mode, networking_config) = networks(arguments)?;
    Ok(ContainerCreate {
        hostname: arguments.hostname.clone().unwrap_or_default(),
        domainname: arguments.domainname.clone().unwrap_or_default(),
        user: arguments.user.clone().unwrap_or_default(),
        attach_stdin: attached.stdin,
        attach_stdout: attached.stdout,
        attach_stderr: attached.stderr,
        tty: arguments.tty,
        open_stdin: arguments.interactive,
        stdin_once: attached.stdin,
        env: environment(&arguments.env, &arguments.env_file)?,
        cmd: Some(Words(arguments.command().to_vec())).filter(|words| !words.0.is_empty()),
        // `--entrypoint ""` clears the image's.
        entrypoint: arguments.entrypoint.clone().map(|program| Words(vec![program])),
        image: arguments.image().to_owned(),
        working_dir: arguments.workdir.clone().unwrap_or_default(),
        labels,
        healthcheck: arguments.health.check()?,
        exposed_ports,
        volumes: volumes.into_iter().map(|volume| (volume.clone(), Some(Empty {}))).collect(),
        stop_signal: arguments.stop_signal.clone().unwrap_or_default(),
        stop_timeout: arguments.stop_timeout,
        host_config: host(arguments, network_mode, binds, port_bindings)?,
        networking_config,
        ..ContainerCreate::default()
    })
}

fn host(
    arguments: &RunArguments,
    network_mode: String,
    binds: Vec<&String>,
    port_bindings: Bindings,
) -> Result<HostConfig, Failure> {
    let tmpfs = |tmpfs: &String| {
        let (target, options) = tmpfs.split_once(':').unwrap_or((tmpfs, ""));
        (target.to_owned(), options.to_owned())
    };
    let mounts = arguments.mount.iter().map(|mount| mount_request(mount));
    let ulimits = arguments.ulimit.iter().map(|limit| ulimit(limit));
    Ok(HostConfig {
        binds: binds.into_iter().cloned().collect(),
        mounts: mounts.collect::<Result<_, _>>()?,
        tmpfs: arguments.tmpfs.iter().map(tmpfs).collect(),
        pid_mode: arguments.pid.clone().unwrap_or_default(),
        ipc_mode: arguments.ipc.clone().unwrap_or_default(),
        uts_mode: arguments.uts.clone().unwrap_or_default(),
        userns_mode: arguments.userns.clone().unwrap_or_default(),
        cgroupns_mode: arguments.cgroupns.clone().unwrap_or_default(),
        cgroup_parent: arguments.cgroup_parent.clone().unwrap_or_default(),
        port_bindings,
        publish_all_ports: arguments.publish_all,
        links: if is_builtin(&network_mode) { arguments.link.clone() } else { Vec::new() },
        network_mode,
        extra_hosts: arguments.add_host.clone(),
        dns: arguments.dns.clone(),
        dns_search: arguments.dns_search.clone(),
        dns_options: arguments.dns_option.clone(),
        console_size: crate::terminal::size().filter(|_| arguments.tty).unwrap_or_default(),
        restart_policy: restart_policy(arguments.restart.as_deref().unwrap_or("no"))?,
        auto_remove: arguments.rm,
        privileged: arguments.privileged,
        readonly_rootfs: arguments.read_only,
        init: arguments.init.then_some(true),
        cap_add: arguments.cap_add.clone(),
        cap_drop: arguments.cap_drop.clone(),
        security_opt: security_options(&arguments.security_opt)?,
        group_add: arguments.group_add.clone(),
        sysctls: pairs(&arguments.sysctl),
        devices: arguments.device.iter().map(|device| device_request(device)).collect(),
        ulimits: ulimits.collect::<Result<_, _>>()?,
        oom_score_adj: arguments.oom_score_adj.unwrap_or(0),
        shm_size: size(arguments.shm_size.as_deref())?,
        log_config: LogConfig {
            kind: arguments.log_driver.clone().unwrap_or_default(),
            config: pairs(&arguments.log_opt),
        },
        memory: size(arguments.memory.as_deref())?,
        memory_reservation: size(arguments.memory_reservation.as_deref())?,
        memory_swap: match arguments.memory_swap.as_deref() {
            Some("-1") => -1,
            other => size(other)?,
        },
        cpu_shares: signed(arguments.cpu_shares)?,
        nano_cpus: nano_cpus(arguments.cpus)?,
        cpu_period: signed(arguments.cpu_period)?,
        cpu_quota: arguments.cpu_quota.unwrap_or(0),
        cpuset_cpus: arguments.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: arguments.cpuset_mems.clone().unwrap_or_default(),
        pids_limit: arguments.pids_limit,
        memory_swappiness: arguments.memory_swappiness,
        blkio_weight: arguments.blkio_weight.unwrap_or(0),
        blkio_weight_device: weights(&arguments.blkio_weight_device)?,
        blkio_device_read_bps: rates(&arguments.device_read_bps)?,
        blkio_device_write_bps: rates(&arguments.device_write_bps)?,
        blkio_device_read_iops: counts(&arguments.device_read_iops)?,
        blkio_device_write_iops: counts(&arguments.device_write_iops)?,
        volumes_from: arguments.volumes_from.clone(),
        volume_driver: arguments.volume_driver.clone().unwrap_or_default(),
        device_cgroup_rules: arguments.device_cgroup_rule.clone(),
        runtime: arguments.runtime.clone().unwrap_or_default(),
        isolation: arguments.isolation.clone().unwrap_or_default(),
        ..HostConfig::default()
    })
}

/// The streams of the container that this program is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attached {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

/// Those that `-a` names, else output, and input if it is kept open.
pub fn attached(arguments: &RunArguments) -> Result<Attached, Failure> {
    let mut named = Attached { stdin: false, stdout: false, stderr: false };
    for stream in &arguments.attach {
        match stream.to_lowercase().as_str() {
            "stdin" => named.stdin = true,
            "stdout" => named.stdout = true,
            "stderr" => named.stderr = true,
            _ => {
                return Err(Failure::new(format!(
                    "invalid value {stream:?} of --attach: it is stdin, stdout or stderr"
                )));
            }
        }
    }
    match (arguments.detach, arguments.attach.is_empty()) {
        (true, true) => Ok(named),
        (true, false) => Err(Failure::new("Conflicting options: -a and -d")),
        (false, false) => Ok(named),
        (false, true) => Ok(Attached { stdin: arguments.interactive, stdout: true, stderr: true }),
    }
}

/// Lines of files, without comments.
fn from_files(what: &str, files: &[String]) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).map_err(|cause| {
            Failure::new(format!("cannot read the {what} file {file}: {cause}"))
        })?;
        let lines = text
            .lines()
            .map(str::trim_start)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        all.extend(lines.map(str::to_owned));
    }
    Ok(all)
}

/// `NAME=value`, or `NAME` alone for this process's own value; files first, so that flags win.
pub fn environment(flags: &[String], files: &[String]) -> Result<Vec<String>, Failure> {
    let mut environment = from_files("environment", files)?;
    environment.extend(flags.iter().cloned());
    Ok(environment
        .into_iter()
        .filter_map(|entry| match entry.contains('=') {
            true => Some(entry),
            false => std::env::var(&entry).ok().map(|value| format!("{entry}={value}")),
        })
        .collect())
}

/// Bytes; 0 where nothing is said.
fn size(flag: Option<&str>) -> Result<i64, Failure> {
    let Some(flag) = flag else { return Ok(0) };
    let bytes = parse_size(flag).map_err(|cause| Failure::new(cause.to_string()))?;
    i64::try_from(bytes).map_err(|_| Failure::new(format!("{flag} is more than there can be")))
}

fn signed(flag: Option<u64>) -> Result<i64, Failure> {
    let value = flag.unwrap_or(0);
    i64::try_from(value).map_err(|_| Failure::new(format!("{value} is more than there can be")))
}

fn nano_cpus(cpus: Option<f64>) -> Result<i64, Failure> {
    match cpus {
        None => Ok(0),
        Some(cpus) if cpus.is_finite() && cpus > 0.0 => Ok((cpus * 1e9).round() as i64),
        Some(cpus) => Err(Failure::new(format!(
            "--cpus {cpus} makes no sense: give a number above 0, such as 1.5"
        ))),
    }
}

/// `seccomp=FILE` is read here: the engine may not share this file system.
fn security_options(flags: &[String]) -> Result<Vec<String>, Failure> {
    flags
        .iter()
        .map(|flag| match flag.split_once('=') {
            Some(("seccomp", file))
                if file != "unconfined" && file != "builtin" && !file.starts_with('{') =>
            {
                let text = std::fs::read_to_string(file).map_err(|cause| {
                    Failure::new(format!("opening seccomp profile ({file}) failed: {cause}"))
                })?;
                Ok(format!("seccomp={text}"))
            }
            _ => Ok(flag.clone()),
        })
        .collect()
}

/// `PATH:VALUE`
fn of_device<'a>(flag: &'a str, form: &str) -> Result<(&'a str, &'a str), Failure> {
    flag.rsplit_once(':')
        .filter(|(path, _)| path.starts_with("/dev/"))
        .ok_or_else(|| Failure::new(format!("bad format for path: {flag}: write it as {form}")))
}

fn weights(flags: &[String]) -> Result<Vec<WeightDevice>, Failure> {
    let read = |flag: &String| {
        let (path, weight) = of_device(flag, "/dev/DEVICE:WEIGHT")?;
        let weight = weight.parse().map_err(|_| {
            Failure::new(format!("invalid weight for device: {flag}: it is from 10 to 1000"))
        })?;
        Ok(WeightDevice { path: path.to_owned(), weight })
    };
    flags.iter().map(read).collect()
}

/// Bytes a second.
fn rates(flags: &[String]) -> Result<Vec<ThrottleDevice>, Failure> {
    let read = |flag: &String| {
        let (path, rate) = of_device(flag, "/dev/DEVICE:RATE, such as /dev/sda:1mb")?;
        let rate = parse_size(rate)
            .map_err(|cause| Failure::new(format!("invalid rate for device: {flag}: {cause}")))?;
        Ok(ThrottleDevice { path: path.to_owned(), rate })
    };
    flags.iter().map(read).collect()
}

/// Operations a second.
fn counts(flags: &[String]) -> Result<Vec<ThrottleDevice>, Failure> {
    let read = |flag: &String| {
        let (path, rate) = of_device(flag, "/dev/DEVICE:NUMBER")?;
        let rate = rate.parse().map_err(|_| {
            Failure::new(format!("invalid rate for device: {flag}: it is a number above 0"))
        })?;
        Ok(ThrottleDevice { path: path.to_owned(), rate })
    };
    flags.iter().map(read).collect()
}

fn device_request(flag: &str) -> Device {
    let parts: Vec<&str> = flag.split(':').collect();
    let (host, container, permissions) = match parts.as_slice() {
        [host, container, permissions] => (*host, *container, *permissions),
        [host, second] if second.starts_with('/') => (*host, *second, "rwm"),
        [host, permissions] => (*host, *host, *permissions),
        _ => (flag, flag, "rwm"),
    };
    Device {
        path_on_host: host.to_owned(),
        path_in_container: container.to_owned(),
        cgroup_permissions: permissions.to_owned(),
    }
}

/// `type=bind,source=/a,target=/b,readonly`
fn mount_request(flag: &str) -> Result<Mount, Failure> {
    let mut mount = Mount { kind: "volume".to_owned(), ..Mount::default() };
    for field in flag.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, "true"));
        let yes = || match value {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(Failure::new(format!("invalid value for {key}: {value}: say true or false"))),
        };
        match key {
            "type" => value.clone_into(&mut mount.kind),
            "source" | "src" => value.clone_into(&mut mount.source),
            "target" | "destination" | "dst" => value.clone_into(&mut mount.target),
            "readonly" | "ro" => mount.read_only = yes()?,
            "bind-propagation" => {
                value.clone_into(&mut mount.bind_options.get_or_insert_default().propagation);
            }
            "bind-create-src" => {
                mount.bind_options.get_or_insert_default().create_mountpoint = yes()?;
            }
            "bind-recursive" => {
                let bind = mount.bind_options.get_or_insert_default();
                match value {
                    "enabled" => {}
                    "disabled" => bind.non_recursive = true,
                    "writable" => bind.read_only_non_recursive = true,
                    "readonly" => bind.read_only_force_recursive = true,
                    _ => {
                        return Err(Failure::new(format!(
                            "invalid value for bind-recursive: {value}: it is one of enabled, \
                             disabled, writable and readonly"
                        )));
                    }
                }
            }
            "volume-nocopy" => mount.volume_options.get_or_insert_default().no_copy = yes()?,
            "volume-subpath" => {
                value.clone_into(&mut mount.volume_options.get_or_insert_default().subpath);
            }
            "volume-label" => {
                let (name, value) = value.split_once('=').unwrap_or((value, ""));
                let labels = &mut mount.volume_options.get_or_insert_default().labels;
                labels.insert(name.to_owned(), value.to_owned());
            }
            "volume-driver" => {
                let volume = mount.volume_options.get_or_insert_default();
                value.clone_into(&mut volume.driver_config.get_or_insert_default().name);
            }
            "volume-opt" => {
                let (name, value) = value.split_once('=').unwrap_or((value, ""));
                let volume = mount.volume_options.get_or_insert_default();
                let options = &mut volume.driver_config.get_or_insert_default().options;
                options.insert(name.to_owned(), value.to_owned());
            }
            "tmpfs-size" => {
                mount.tmpfs_options.get_or_insert_default().size_bytes = size(Some(value))?;
            }
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(value, 8).map_err(|_| {
                    Failure::new(format!(
                        "invalid tmpfs-mode {value}: write it in octal, such as 1777"
                    ))
                })?;
                mount.tmpfs_options.get_or_insert_default().mode = mode;
            }
            _ => return Err(Failure::new(format!("unexpected key '{key}' in --mount '{flag}'"))),
        }
    }
    if mount.target.is_empty() {
        return Err(Failure::new(format!("--mount '{flag}' has no target: add target=PATH")));
    }
    Ok(mount)
}

type Exposed = BTreeMap<String, Option<Empty>>;
type Bindings = BTreeMap<String, Option<Vec<PortBinding>>>;

/// The exposed ports and the bindings of `-p` and `--expose`.
fn ports(arguments: &RunArguments) -> Result<(Exposed, Bindings), Failure> {
    let mut exposed = Exposed::new();
    let mut bindings = Bindings::new();
    for expose in &arguments.expose {
        let ports = Port::range(expose).map_err(|error| Failure::new(error.to_string()))?;
        exposed.extend(ports.into_iter().map(|port| (port.to_string(), Some(Empty {}))));
    }
    for publish in &arguments.publish {
        for (host_ip, host_port, port) in published(publish)? {
            exposed.insert(port.clone(), Some(Empty {}));
            let list = bindings.entry(port).or_default().get_or_insert_default();
            list.push(PortBinding { host_ip, host_port });
        }
    }
    Ok((exposed, bindings))
}

/// `[[address:][host]:]container[/protocol]` → (address, host port, container port with protocol);
/// ranges give one entry a port, and a range of the host for one port of the container stays one.
fn published(flag: &str) -> Result<Vec<(String, String, String)>, Failure> {
    let wrong = || {
        Failure::new(format!(
            "invalid publish argument {flag:?}: write it as [ADDRESS:][HOST PORT:]CONTAINER PORT[/tcp|/udp]"
        ))
    };
    let (ports, protocol) = flag.split_once('/').unwrap_or((flag, "tcp"));
    if !matches!(protocol, "tcp" | "udp" | "sctp") {
        return Err(wrong());
    }
    let (address, ports) = match ports.strip_prefix('[') {
        Some(literal) => literal.split_once("]:").ok_or_else(wrong)?,
        None => match ports.matches(':').count() {
            0 | 1 => ("", ports),
            2 => ports.split_once(':').ok_or_else(wrong)?,
            _ => return Err(wrong()),
        },
    };
    let (host, container) = ports.split_once(':').unwrap_or(("", ports));
    let container = range(container)?;
    let host: Vec<String> = match host {
        "" => vec![String::new(); container.len()],
        // The first free one of them is taken.
        host if container.len() == 1 && range(host)?.len() > 1 => vec![host.to_owned()],
        host => range(host)?.iter().map(u16::to_string).collect(),
    };
    if host.len() != container.len() {
        return Err(Failure::new(format!(
            "invalid publish argument {flag:?}: the two ranges differ in length"
        )));
    }
    Ok(container
        .into_iter()
        .zip(host)
        .map(|(container, host)| (address.to_owned(), host, format!("{container}/{protocol}")))
        .collect())
}

fn range(text: &str) -> Result<Vec<u16>, Failure> {
    let wrong =
        || Failure::new(format!("invalid port {text:?}: a port is a number from 1 to 65535"));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
    match text.split_once('-') {
        Some((first, last)) => Ok((port(first)?..=port(last)?).collect()),
        None => Ok(vec![port(text)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_read_like_docker() {
        let one = |address: &str, host: &str, container: &str| {
            vec![(address.to_owned(), host.to_owned(), container.to_owned())]
        };
        for (flag, expected) in [
            ("80", one("", "", "80/tcp")),
            ("8080:80", one("", "8080", "80/tcp")),
            ("127.0.0.1:8080:80/udp", one("127.0.0.1", "8080", "80/udp")),
            ("127.0.0.1::80", one("127.0.0.1", "", "80/tcp")),
            ("[::1]:8080:80", one("::1", "8080", "80/tcp")),
            ("[2001:db8::1]::80", one("2001:db8::1", "", "80/tcp")),
            ("8000-8010:80", one("", "8000-8010", "80/tcp")),
        ] {
            assert_eq!(published(flag).expect(flag), expected, "{flag}");
        }
        assert_eq!(published("8000-8002:80-82").expect("ranges").len(), 3);
        for wrong in ["", "x", "0", "70000", "1:2:3:4", "80/icmp", "1-3:80-81", "3-1:80"] {
            assert!(published(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn mounts_name_what_is_wrong() {
        let mount = mount_request("type=bind,src=/a,dst=/b,ro").expect("a mount");
        let wanted = Mount {
            kind: "bind".to_owned(),
            source: "/a".to_owned(),
            target: "/b".to_owned(),
            read_only: true,
            ..Mount::default()
        };
        assert_eq!(mount, wanted);
        let mount = mount_request("src=v,dst=/v,volume-subpath=a/b,volume-nocopy,volume-label=x=y");
        let options = mount.expect("a mount").volume_options.expect("it has options");
        assert_eq!((options.subpath.as_str(), options.no_copy), ("a/b", true));
        assert_eq!(options.labels["x"], "y");
        let mount = mount_request("type=bind,src=/a,dst=/b,ro,bind-recursive=readonly");
        let options = mount.expect("a mount").bind_options.expect("it has options");
        assert!(options.read_only_force_recursive);
        assert!(mount_request("type=bind,src=/a,dst=/b,bind-recursive=maybe").is_err());
        assert!(
            mount_request("type=bind,src=/a").expect_err("no target").message.contains("target")
        );
        assert!(mount_request("typo=bind,dst=/b").expect_err("a typo").message.contains("'typo'"));
    }
}
