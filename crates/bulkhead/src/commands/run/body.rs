//! From the flags of `run` to the body of `POST /containers/create`.

use std::collections::BTreeMap;

use bulkhead_types::parse_size;
use serde_json::{Map, Value, json};

use super::RunArguments;
use crate::failure::Failure;

pub fn container(arguments: &RunArguments) -> Result<Value, Failure> {
    let usage = |cause: Failure| cause.with_code(125);
    let (ports, bindings) = ports(arguments).map_err(usage)?;
    let (binds, volumes): (Vec<&String>, Vec<&String>) =
        arguments.volume.iter().partition(|volume| volume.contains(':'));
    let attached = !arguments.detach;
    Ok(json!({
        "Hostname": arguments.hostname.clone().unwrap_or_default(),
        "Domainname": arguments.domainname.clone().unwrap_or_default(),
        "User": arguments.user.clone().unwrap_or_default(),
        "AttachStdin": attached && arguments.interactive,
        "AttachStdout": attached,
        "AttachStderr": attached,
        "Tty": arguments.tty,
        "OpenStdin": arguments.interactive,
        "StdinOnce": attached && arguments.interactive,
        "Env": environment(&arguments.env, &arguments.env_file).map_err(usage)?,
        "Cmd": if arguments.command.is_empty() { Value::Null } else { json!(arguments.command) },
        "Entrypoint": entrypoint(arguments.entrypoint.as_deref()),
        "Image": arguments.image,
        "WorkingDir": arguments.workdir.clone().unwrap_or_default(),
        "Labels": pairs(&arguments.label),
        "ExposedPorts": ports,
        "Volumes": volumes.iter().map(|volume| ((*volume).clone(), json!({}))).collect::<Map<_, _>>(),
        "StopSignal": arguments.stop_signal,
        "StopTimeout": arguments.stop_timeout,
        "HostConfig": host(arguments, binds, bindings).map_err(usage)?,
    }))
}

/// What `HostConfig` holds, in three objects because one would be too deep for the macro.
fn host(
    arguments: &RunArguments,
    binds: Vec<&String>,
    bindings: Map<String, Value>,
) -> Result<Value, Failure> {
    let places = json!({
            "Binds": binds,
            "Mounts": arguments.mount.iter().map(|mount| mount_request(mount)).collect::<Result<Vec<_>, _>>()?,
            "Tmpfs": arguments.tmpfs.iter().map(|tmpfs| {
                let (target, options) = tmpfs.split_once(':').unwrap_or((tmpfs, ""));
                (target.to_owned(), json!(options))
            }).collect::<Map<_, _>>(),
            "NetworkMode": arguments.network.clone().unwrap_or_else(|| "default".to_owned()),
            "PidMode": arguments.pid.clone().unwrap_or_default(),
            "IpcMode": arguments.ipc.clone().unwrap_or_default(),
            "UTSMode": arguments.uts.clone().unwrap_or_default(),
            "UsernsMode": arguments.userns.clone().unwrap_or_default(),
            "CgroupnsMode": arguments.cgroupns.clone().unwrap_or_default(),
            "CgroupParent": arguments.cgroup_parent.clone().unwrap_or_default(),
            "PortBindings": bindings,
            "PublishAllPorts": arguments.publish_all,
            "Links": arguments.link,
            "ExtraHosts": arguments.add_host,
            "Dns": arguments.dns,
            "DnsSearch": arguments.dns_search,
            "DnsOptions": arguments.dns_option,
            "ConsoleSize": crate::terminal::size().filter(|_| arguments.tty).unwrap_or_default(),
    });
    let rights = json!({
            "RestartPolicy": restart_policy(arguments.restart.as_deref())?,
            "AutoRemove": arguments.rm,
            "Privileged": arguments.privileged,
            "ReadonlyRootfs": arguments.read_only,
            "Init": arguments.init.then_some(true),
            "CapAdd": arguments.cap_add,
            "CapDrop": arguments.cap_drop,
            "SecurityOpt": security_options(&arguments.security_opt)?,
            "GroupAdd": arguments.group_add,
            "Sysctls": pairs(&arguments.sysctl),
            "Devices": arguments.device.iter().map(|device| device_request(device)).collect::<Vec<_>>(),
            "Ulimits": arguments.ulimit.iter().map(|limit| ulimit(limit)).collect::<Result<Vec<_>, _>>()?,
    });
    let limits = json!({
            "OomScoreAdj": arguments.oom_score_adj.unwrap_or(0),
            "ShmSize": size(arguments.shm_size.as_deref())?,
            "LogConfig": {"Type": arguments.log_driver.clone().unwrap_or_default(), "Config": pairs(&arguments.log_opt)},
            "Memory": size(arguments.memory.as_deref())?,
            "MemoryReservation": size(arguments.memory_reservation.as_deref())?,
            "MemorySwap": match arguments.memory_swap.as_deref() {
                Some("-1") => json!(-1),
                other => json!(size(other)?),
            },
            "CpuShares": arguments.cpu_shares.unwrap_or(0),
            "NanoCpus": nano_cpus(arguments.cpus)?,
            "CpuPeriod": arguments.cpu_period.unwrap_or(0),
            "CpuQuota": arguments.cpu_quota.unwrap_or(0),
            "CpusetCpus": arguments.cpuset_cpus.clone().unwrap_or_default(),
            "CpusetMems": arguments.cpuset_mems.clone().unwrap_or_default(),
            "PidsLimit": arguments.pids_limit,
    });
    Ok(Value::Object(
        [places, rights, limits].into_iter().filter_map(into_object).flatten().collect(),
    ))
}

fn into_object(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(fields) => Some(fields),
        _ => None,
    }
}

/// `NAME=value`, or `NAME` alone for this process's own value; files first, so that flags win.
pub fn environment(flags: &[String], files: &[String]) -> Result<Vec<String>, Failure> {
    let mut environment = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).map_err(|cause| {
            Failure::new(format!("cannot read the environment file {file}: {cause}"))
        })?;
        let lines = text
            .lines()
            .map(str::trim_start)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        environment.extend(lines.map(str::to_owned));
    }
    environment.extend(flags.iter().cloned());
    Ok(environment
        .into_iter()
        .filter_map(|entry| match entry.contains('=') {
            true => Some(entry),
            false => std::env::var(&entry).ok().map(|value| format!("{entry}={value}")),
        })
        .collect())
}

/// `--entrypoint ""` clears the image's.
fn entrypoint(flag: Option<&str>) -> Value {
    match flag {
        None => Value::Null,
        Some("") => json!([""]),
        Some(program) => json!([program]),
    }
}

fn pairs(flags: &[String]) -> BTreeMap<&str, &str> {
    flags.iter().map(|flag| flag.split_once('=').unwrap_or((flag, ""))).collect()
}

fn size(flag: Option<&str>) -> Result<u64, Failure> {
    flag.map_or(Ok(0), parse_size).map_err(|cause| Failure::new(cause.to_string()))
}

fn nano_cpus(cpus: Option<f64>) -> Result<u64, Failure> {
    match cpus {
        None => Ok(0),
        Some(cpus) if cpus.is_finite() && cpus > 0.0 => Ok((cpus * 1e9).round() as u64),
        Some(cpus) => Err(Failure::new(format!(
            "--cpus {cpus} makes no sense: give a number above 0, such as 1.5"
        ))),
    }
}

fn restart_policy(flag: Option<&str>) -> Result<Value, Failure> {
    let flag = flag.unwrap_or("no");
    let (name, retries) = flag.split_once(':').unwrap_or((flag, "0"));
    let retries: u32 = retries.parse().map_err(|_| {
        Failure::new(format!("invalid restart policy {flag:?}: the number of retries is no number"))
    })?;
    Ok(json!({"Name": name, "MaximumRetryCount": retries}))
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

fn device_request(flag: &str) -> Value {
    let parts: Vec<&str> = flag.split(':').collect();
    let (host, container, permissions) = match parts.as_slice() {
        [host, container, permissions] => (*host, *container, *permissions),
        [host, second] if second.starts_with('/') => (*host, *second, "rwm"),
        [host, permissions] => (*host, *host, *permissions),
        _ => (flag, flag, "rwm"),
    };
    json!({"PathOnHost": host, "PathInContainer": container, "CgroupPermissions": permissions})
}

/// `name=soft[:hard]`
fn ulimit(flag: &str) -> Result<Value, Failure> {
    let wrong =
        || Failure::new(format!("invalid ulimit argument: {flag}: write it as NAME=SOFT[:HARD]"));
    let (name, values) = flag.split_once('=').ok_or_else(wrong)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |text: &str| {
        if text == "unlimited" { Ok(-1) } else { text.parse::<i64>().map_err(|_| wrong()) }
    };
    Ok(json!({"Name": name, "Soft": number(soft)?, "Hard": number(hard)?}))
}

/// `type=bind,source=/a,target=/b,readonly`
fn mount_request(flag: &str) -> Result<Value, Failure> {
    let mut mount = Map::new();
    mount.insert("Type".into(), json!("volume"));
    let mut tmpfs = Map::new();
    for field in flag.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, "true"));
        match key {
            "type" => mount.insert("Type".into(), json!(value)),
            "source" | "src" => mount.insert("Source".into(), json!(value)),
            "target" | "destination" | "dst" => mount.insert("Target".into(), json!(value)),
            "readonly" | "ro" => {
                mount.insert("ReadOnly".into(), json!(value == "true" || value == "1"))
            }
            "tmpfs-size" => tmpfs.insert("SizeBytes".into(), json!(size(Some(value))?)),
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(value, 8).map_err(|_| {
                    Failure::new(format!(
                        "invalid tmpfs-mode {value}: write it in octal, such as 1777"
                    ))
                })?;
                tmpfs.insert("Mode".into(), json!(mode))
            }
            _ => return Err(Failure::new(format!("unexpected key '{key}' in --mount '{flag}'"))),
        };
    }
    if !mount.contains_key("Target") {
        return Err(Failure::new(format!("--mount '{flag}' has no target: add target=PATH")));
    }
    if !tmpfs.is_empty() {
        mount.insert("TmpfsOptions".into(), tmpfs.into());
    }
    Ok(mount.into())
}

type Object = Map<String, Value>;

/// The exposed ports and the bindings of `-p` and `--expose`.
fn ports(arguments: &RunArguments) -> Result<(Object, Object), Failure> {
    let mut exposed = Map::new();
    let mut bindings: Map<String, Value> = Map::new();
    for expose in &arguments.expose {
        let (port, protocol) = expose.split_once('/').unwrap_or((expose, "tcp"));
        for port in range(port)? {
            exposed.insert(format!("{port}/{protocol}"), json!({}));
        }
    }
    for publish in &arguments.publish {
        for (address, host, port) in published(publish)? {
            exposed.insert(port.clone(), json!({}));
            let binding = json!({"HostIp": address, "HostPort": host});
            let list = bindings.entry(port).or_insert_with(|| json!([]));
            list.as_array_mut().expect("it was made as a list on the line above").push(binding);
        }
    }
    Ok((exposed, bindings))
}

/// `[[address:][host]:]container[/protocol]` → (address, host port, container port with protocol);
/// ranges give one entry a port.
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
    let host: Vec<String> = if host.is_empty() {
        vec![String::new(); container.len()]
    } else {
        range(host)?.iter().map(u16::to_string).collect()
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
        ] {
            assert_eq!(published(flag).expect(flag), expected, "{flag}");
        }
        assert_eq!(published("8000-8002:80-82").expect("ranges").len(), 3);
        for wrong in ["", "x", "0", "70000", "1:2:3:4", "80/icmp", "1-2:80"] {
            assert!(published(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn mounts_name_what_is_wrong() {
        let mount = mount_request("type=bind,src=/a,dst=/b,ro").expect("a mount");
        assert_eq!(
            mount,
            json!({"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true})
        );
        assert!(
            mount_request("type=bind,src=/a").expect_err("no target").message.contains("target")
        );
        assert!(mount_request("typo=bind,dst=/b").expect_err("a typo").message.contains("'typo'"));
    }
}
