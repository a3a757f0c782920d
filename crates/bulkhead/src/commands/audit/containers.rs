//! The checks of one container: functions of what `inspect` says of it.

use serde_json::Value;

use super::Level::{High, Low, Medium};
use super::{Finding, Level};
use crate::commands::show::text;

/// Of a container as `GET /containers/{}/json` describes it; `programs` are the command lines of its
/// processes.
pub(super) fn findings(container: &Value, programs: &[String]) -> Vec<Finding> {
    let name = text(&container["Name"]).trim_start_matches('/').to_owned();
    let seen = Seen { name, host: &container["HostConfig"], container };
    let mut found = Vec::new();
    seen.namespaces(&mut found);
    seen.privileges(&mut found);
    seen.mounts(&mut found);
    seen.ports(&mut found);
    seen.limits(&mut found);
    seen.habits(&mut found, programs);
    found
}

struct Seen<'a> {
    name: String,
    host: &'a Value,
    container: &'a Value,
}

/// Capabilities by which the host can be had where the user namespace is the host's, and more of the
/// kernel reached where it is not.
const STRONG: [&str; 12] = [
    "ALL",
    "SYS_ADMIN",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_PTRACE",
    "SYS_BOOT",
    "SYS_TIME",
    "DAC_READ_SEARCH",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "BPF",
    "PERFMON",
];

/// Directories of the host that are its own configuration, or every program's.
const SENSITIVE: [&str; 14] = [
    "/",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/root",
    "/run",
    "/sys",
    "/usr",
    "/var",
    "/var/lib/docker",
    "/var/lib/bulkhead",
];

impl Seen<'_> {
    fn tell(
        &self,
        found: &mut Vec<Finding>,
        (check, level): (&'static str, Level),
        what: impl Into<String>,
        means: &'static str,
        mend: impl Into<String>,
    ) {
        let (subject, what, mend) = (self.name.clone(), what.into(), mend.into());
        found.push(Finding { check, level, subject, what, means, mend });
    }

    fn namespaces(&self, found: &mut Vec<Finding>) {
        for (member, check, flag, means) in [
            (
                "NetworkMode",
                "5.10",
                "--network=host",
                "it sees and changes the host's own network: abstract sockets, loopback services, every port",
            ),
            (
                "PidMode",
                "5.16",
                "--pid=host",
                "it sees, and as root signals, every process of the host",
            ),
            (
                "IpcMode",
                "5.17",
                "--ipc=host",
                "it reads and writes the shared memory of the host's programs",
            ),
            ("UTSMode", "5.21", "--uts=host", "it can change the host's name"),
            (
                "UsernsMode",
                "5.31",
                "--userns=host",
                "root in it is root of the host, held back by capabilities and the filter alone",
            ),
        ] {
            if self.host[member] == "host" {
                let mend = format!("make it anew without {flag}");
                let level = if member == "UTSMode" { Medium } else { High };
                self.tell(
                    found,
                    (check, level),
                    format!("shares the host's namespace ({flag})"),
                    means,
                    mend,
                );
            }
        }
    }

    fn privileges(&self, found: &mut Vec<Finding>) {
        if self.host["Privileged"] == true {
            self.tell(
                found,
                ("5.5", High),
                "runs privileged",
                "it has every capability, every device, and no filter of system calls",
                "make it anew without --privileged, with the --cap-add and --device that it needs",
            );
        }
        let added = strings(&self.host["CapAdd"]);
        let (strong, others): (Vec<_>, Vec<_>) = added
            .iter()
            .map(|name| name.trim_start_matches("CAP_").to_owned())
            .partition(|name| STRONG.contains(&name.as_str()));
        for (names, level, means) in [
            (
                strong,
                High,
                "these reach the kernel's own interfaces; some of them are as good as root",
            ),
            (others, Low, "it can do more than other containers"),
        ] {
            if !names.is_empty() {
                let what = format!("has further capabilities: {}", names.join(", "));
                self.tell(found, ("5.4", level), what, means, "make it anew without --cap-add");
            }
        }
        let options = strings(&self.host["SecurityOpt"]);
        let has = |words: &[&str]| {
            options.iter().any(|option| words.contains(&option.replace(':', "=").as_str()))
        };
        if has(&["seccomp=unconfined"]) {
            self.tell(
                found,
                ("5.22", High),
                "runs without a filter of system calls",
                "every system call of the kernel can be attacked from it",
                "make it anew without --security-opt seccomp=unconfined",
            );
        }
        if has(&["apparmor=unconfined"]) {
            self.tell(
                found,
                ("5.2", Medium),
                "runs without an AppArmor profile",
                "one wall less between it and the files of the kernel",
                "make it anew without --security-opt apparmor=unconfined",
            );
        }
        if has(&["systempaths=unconfined"]) {
            self.tell(
                found,
                ("-", High),
                "sees the masked paths of /proc and /sys",
                "some of them leak, or change, what is the host's",
                "make it anew without --security-opt systempaths=unconfined",
            );
        }
        if !has(&["no-new-privileges", "no-new-privileges=true"]) {
            self.tell(
                found,
                ("5.26", Low),
                "may gain privileges by set-user-ID programs",
                "a user of it may become its root",
                "make it anew with --security-opt no-new-privileges",
            );
        }
        let devices = self.host["Devices"].as_array().into_iter().flatten();
        let devices: Vec<String> = devices.map(|device| text(&device["PathOnHost"])).collect();
        if !devices.is_empty() {
            self.tell(
                found,
                ("5.18", Medium),
                format!("has devices of the host: {}", devices.join(", ")),
                "the driver of each can be attacked from it",
                "make it anew without --device, or with fewer permissions (--device PATH:PATH:r)",
            );
        }
    }

    fn mounts(&self, found: &mut Vec<Finding>) {
        for mount in self.container["Mounts"].as_array().into_iter().flatten() {
            let (source, target) = (text(&mount["Source"]), text(&mount["Destination"]));
            if mount["Type"] != "bind" {
                continue;
            }
            if source.ends_with("/docker.sock") || source.ends_with("/containerd.sock") {
                self.tell(
                    found,
                    ("5.32", High),
                    format!("has an engine's socket ({source})"),
                    "whoever may write to it is root of the host",
                    "give it a socket with a role: bulkhead engine --socket PATH:role=read-only",
                );
            }
            let writable = mount["RW"] == true;
            if SENSITIVE.contains(&source.as_str()) {
                let level = if writable { High } else { Medium };
                let how = if writable { "writes to" } else { "reads" };
                self.tell(
                    found,
                    ("5.6", level),
                    format!("{how} {source} of the host, at {target}"),
                    "what is there belongs to the host itself",
                    "mount the files that it needs alone, with :ro",
                );
            }
            if matches!(mount["Propagation"].as_str(), Some("shared" | "rshared")) {
                self.tell(
                    found,
                    ("5.20", High),
                    format!("shares mounts below {source} with the host"),
                    "what it mounts there the host sees, too",
                    "make it anew with rslave or rprivate in the place of shared",
                );
            }
        }
        if self.host["ReadonlyRootfs"] != true {
            self.tell(
                found,
                ("5.13", Low),
                "writes to its own root",
                "whoever takes it over can keep programs in it",
                "make it anew with --read-only, and --tmpfs or a volume for what it writes",
            );
        }
    }

    fn ports(&self, found: &mut Vec<Finding>) {
        let ports = self.container["NetworkSettings"]["Ports"].as_object().into_iter().flatten();
        let (mut low, mut everywhere) = (Vec::new(), Vec::new());
        for binding in ports.flat_map(|(_, bindings)| bindings.as_array().into_iter().flatten()) {
            let (address, port) = (text(&binding["HostIp"]), text(&binding["HostPort"]));
            if port.parse::<u16>().is_ok_and(|port| port < 1024) && !low.contains(&port) {
                low.push(port.clone());
            }
            if matches!(address.as_str(), "0.0.0.0" | "::" | "") && !everywhere.contains(&port) {
                everywhere.push(port);
            }
        }
        if !low.is_empty() {
            self.tell(
                found,
                ("5.8", Low),
                format!("has privileged ports of the host: {}", low.join(", ")),
                "clients take what answers there for a service of the host's administrator",
                "publish another port: -p 8080:80",
            );
        }
        if !everywhere.is_empty() {
            self.tell(
                found,
                ("5.14", Low),
                format!("is reached at every address of the host: port {}", everywhere.join(", ")),
                "networks that need it not reach it, too",
                "name the address: -p 127.0.0.1:8080:80",
            );
        }
        if self.container["NetworkSettings"]["Networks"].get("bridge").is_some() {
            self.tell(
                found,
                ("5.30", Low),
                "is on the default network",
                "all containers there reach each other",
                "give it a network: bulkhead network create NAME, run --network NAME",
            );
        }
    }

    fn limits(&self, found: &mut Vec<Finding>) {
        let number = |member: &str| self.host[member].as_i64().unwrap_or(0);
        let update = |flag: &str| format!("bulkhead update {flag} {}", self.name);
        if number("Memory") <= 0 {
            self.tell(
                found,
                ("5.11", Medium),
                "has all memory of the host",
                "it can make the kernel end other programs",
                update("--memory 512m"),
            );
        }
        if number("CpuShares") <= 0 && number("NanoCpus") <= 0 && number("CpuQuota") <= 0 {
            self.tell(
                found,
                ("5.12", Low),
                "has all processors of the host",
                "it can slow down everything else",
                update("--cpus 1"),
            );
        }
        if number("PidsLimit") < 0 {
            self.tell(
                found,
                ("5.29", Medium),
                "may start as many processes as it likes",
                "a fork bomb takes the host's process ids",
                update("--pids-limit 512"),
            );
        }
        if self.host["RestartPolicy"]["Name"] == "always" {
            self.tell(
                found,
                ("5.15", Low),
                "is started again without end",
                "one that fails at once takes a processor, and hides that it fails",
                update("--restart on-failure:5"),
            );
        }
    }

    fn habits(&self, found: &mut Vec<Finding>, programs: &[String]) {
        let config = &self.container["Config"];
        let user = text(&config["User"]);
        if matches!(user.split(':').next(), Some("" | "0" | "root")) {
            self.tell(
                found,
                ("4.1", Low),
                "runs as root",
                "a fault of its program has every right inside",
                "make it anew with --user, or name one in the image (USER)",
            );
        }
        let probe = config["Healthcheck"]["Test"][0].as_str();
        if matches!(probe, None | Some("NONE")) {
            self.tell(
                found,
                ("5.27", Low),
                "has no health check",
                "nobody notices when it hangs",
                "make it anew with --health-cmd, or name one in the image (HEALTHCHECK)",
            );
        }
        let image = text(&config["Image"]);
        let last = image.rsplit('/').next().unwrap_or_default();
        let is_pinned = image.contains("@sha256:") || image.starts_with("sha256:");
        if !is_pinned && (!last.contains(':') || last.ends_with(":latest")) {
            self.tell(
                found,
                ("5.28", Low),
                format!("is of {image}, whatever that is at the moment"),
                "the next start may run another program",
                "name a version or a digest of the image",
            );
        }
        let is_sshd = |line: &String| {
            let program = line.split_ascii_whitespace().next().unwrap_or_default();
            program.rsplit('/').next().is_some_and(|name| name.trim_end_matches(':') == "sshd")
        };
        if programs.iter().any(is_sshd) {
            self.tell(
                found,
                ("5.7", Medium),
                "runs an SSH server",
                "keys and accounts in it are nobody's to look after",
                "enter it by bulkhead exec",
            );
        }
    }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A container about which there is nothing to say.
    fn careful() -> Value {
        json!({
            "Name": "/web",
            "Config": {
                "User": "1000", "Image": "registry:5000/web:1.2",
                "Healthcheck": { "Test": ["CMD", "true"] },
            },
            "HostConfig": {
                "NetworkMode": "front", "PidMode": "", "IpcMode": "private", "Privileged": false,
                "CapAdd": null, "SecurityOpt": ["no-new-privileges"], "Devices": null,
                "ReadonlyRootfs": true, "Memory": 1 << 20, "NanoCpus": 1, "PidsLimit": 100,
                "RestartPolicy": { "Name": "on-failure" },
            },
            "Mounts": [{ "Type": "volume", "Source": "/var", "Destination": "/data", "RW": true }],
            "NetworkSettings": { "Networks": { "front": {} }, "Ports": { "80/tcp": null } },
        })
    }

    fn checks(container: &Value, programs: &[&str]) -> Vec<(&'static str, Level)> {
        let programs: Vec<String> = programs.iter().map(|&line| line.to_owned()).collect();
        findings(container, &programs).iter().map(|it| (it.check, it.level)).collect()
    }

    #[test]
    fn of_a_careful_one_there_is_nothing_to_say() {
        assert_eq!(checks(&careful(), &["nginx: master", "/bin/sh -c sshd"]), []);
    }

    #[test]
    fn each_check_finds_what_it_is_for() {
        let port = |address: &str, port: &str| json!({ "HostIp": address, "HostPort": port });
        let mount = |source: &str, rw: bool, propagation: &str| json!([{ "Type": "bind", "Source": source, "Destination": "/x", "RW": rw, "Propagation": propagation }]);
        for (path, value, expected) in [
            ("/HostConfig/NetworkMode", json!("host"), ("5.10", High)),
            ("/HostConfig/PidMode", json!("host"), ("5.16", High)),
            ("/HostConfig/IpcMode", json!("host"), ("5.17", High)),
            ("/HostConfig/UTSMode", json!("host"), ("5.21", Medium)),
            ("/HostConfig/UsernsMode", json!("host"), ("5.31", High)),
            ("/HostConfig/Privileged", json!(true), ("5.5", High)),
            ("/HostConfig/CapAdd", json!(["CAP_SYS_ADMIN"]), ("5.4", High)),
            ("/HostConfig/CapAdd", json!(["NET_ADMIN"]), ("5.4", Low)),
            (
                "/HostConfig/SecurityOpt",
                json!(["no-new-privileges", "seccomp=unconfined"]),
                ("5.22", High),
            ),
            (
                "/HostConfig/SecurityOpt",
                json!(["no-new-privileges", "apparmor:unconfined"]),
                ("5.2", Medium),
            ),
            (
                "/HostConfig/SecurityOpt",
                json!(["no-new-privileges", "systempaths=unconfined"]),
                ("-", High),
            ),
            ("/HostConfig/SecurityOpt", json!([]), ("5.26", Low)),
            ("/HostConfig/Devices", json!([{ "PathOnHost": "/dev/kvm" }]), ("5.18", Medium)),
            ("/HostConfig/ReadonlyRootfs", json!(false), ("5.13", Low)),
            ("/HostConfig/Memory", json!(0), ("5.11", Medium)),
            ("/HostConfig/NanoCpus", json!(0), ("5.12", Low)),
            ("/HostConfig/PidsLimit", json!(-1), ("5.29", Medium)),
            ("/HostConfig/RestartPolicy/Name", json!("always"), ("5.15", Low)),
            ("/Mounts", mount("/run/docker.sock", true, "rprivate"), ("5.32", High)),
            ("/Mounts", mount("/etc", true, "rprivate"), ("5.6", High)),
            ("/Mounts", mount("/etc", false, "rprivate"), ("5.6", Medium)),
            ("/Mounts", mount("/srv", false, "rshared"), ("5.20", High)),
            ("/NetworkSettings/Ports/80~1tcp", json!([port("10.0.0.1", "80")]), ("5.8", Low)),
            (
                "/NetworkSettings/Ports/80~1tcp",
                json!([port("0.0.0.0", "8080"), port("::", "8080")]),
                ("5.14", Low),
            ),
            ("/NetworkSettings/Networks", json!({ "bridge": {} }), ("5.30", Low)),
            ("/Config/User", json!(""), ("4.1", Low)),
            ("/Config/User", json!("root:root"), ("4.1", Low)),
            ("/Config/Healthcheck", Value::Null, ("5.27", Low)),
            ("/Config/Image", json!("registry:5000/web"), ("5.28", Low)),
            ("/Config/Image", json!("web:latest"), ("5.28", Low)),
        ] {
            let mut container = careful();
            let (parent, member) = path.rsplit_once('/').expect("a path");
            let parent = container.pointer_mut(parent).expect("there");
            parent[member.replace("~1", "/")] = value.clone();
            assert_eq!(checks(&container, &[]), [expected], "{path} {value}");
        }
        assert_eq!(checks(&careful(), &["sshd: /usr/sbin/sshd -D [listener]"]), [("5.7", Medium)]);
        assert_eq!(checks(&careful(), &["/usr/sbin/sshd -D"]), [("5.7", Medium)]);
    }
}
