//! The bundles that every runtime gets, and the two programs in them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::seccomp;

/// The least that a program can be: `exit(0)`.
pub const NOOP: &[u8] = &[0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];

/// `pause()` for ever; SIGKILL ends it.
pub const PAUSE: &[u8] = &[0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];

/// What differs between bundles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variant {
    Plain,
    Seccomp,
    Userns,
}

/// Where the bundles are, seen from inside a view.
#[derive(Debug)]
pub struct Bundles {
    place: PathBuf,
    cgroup: String,
}

impl Bundles {
    /// Makes the root file system in the empty directory `place`; cgroups will be below `cgroup`.
    pub fn create(place: &Path, cgroup: &str) -> Result<Self> {
        let root = place.join("rootfs");
        for directory in ["proc", "dev", "sys"] {
            std::fs::create_dir_all(root.join(directory))?;
        }
        for (name, code) in [("noop", NOOP), ("pause", PAUSE)] {
            let file = root.join(name);
            std::fs::write(&file, elf(code))?;
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755))?;
        }
        Ok(Self { place: place.to_owned(), cgroup: cgroup.to_owned() })
    }

    pub fn root(&self) -> PathBuf {
        self.place.join("rootfs")
    }

    /// A bundle whose container is in the cgroup `CGROUP/name`.
    pub fn write(
        &self,
        name: &str,
        program: &str,
        variant: Variant,
        memory: Option<u64>,
    ) -> Result<PathBuf> {
        let bundle = self.place.join("bundles").join(name);
        std::fs::create_dir_all(&bundle)?;
        let mut config = config(&self.root(), program);
        config["linux"]["cgroupsPath"] = json!(format!("/{}/{name}", self.cgroup));
        if let Some(limit) = memory {
            config["linux"]["resources"]["memory"] = json!({ "limit": limit });
        }
        match variant {
            Variant::Plain => {}
            Variant::Seccomp => config["linux"]["seccomp"] = seccomp::docker(),
            Variant::Userns => {
                let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
                config["linux"]["uidMappings"] = map.clone();
                config["linux"]["gidMappings"] = map;
                config["linux"]["namespaces"]
                    .as_array_mut()
                    .context("namespaces are a list")?
                    .push(json!({ "type": "user" }));
            }
        }
        let text = serde_json::to_string_pretty(&config)?;
        std::fs::write(bundle.join("config.json"), text)?;
        Ok(bundle)
    }
}

pub const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
];

pub const READONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What `runc spec` writes, without the terminal.
fn config(root: &Path, program: &str) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": [program],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true,
        },
        "root": { "path": root, "readonly": true },
        "hostname": "bench",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
            { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
              "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
            { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
              "options": ["nosuid", "noexec", "nodev"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] },
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" },
                { "type": "mount" }, { "type": "cgroup" },
            ],
            "maskedPaths": MASKED,
            "readonlyPaths": READONLY,
        },
    })
}

/// An x86-64 program of one segment that is nothing but `code`: no compiler is needed, and nothing
/// of a C library's start is in the figures.
fn elf(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let length = HEADERS + code.len() as u64;
    let mut file = Vec::new();
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // ET_EXEC, EM_X86_64, version
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    // entry, place of the program headers, of the sections
    [BASE + HEADERS, 64, 0].iter().for_each(|word| file.extend(word.to_le_bytes()));
    // flags; sizes and numbers of headers
    file.extend([0; 4]);
    [64u16, 56, 1, 0, 0, 0].iter().for_each(|half| file.extend(half.to_le_bytes()));
    // PT_LOAD, readable and executable
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    [0, BASE, BASE, length, length, 0x1000]
        .iter()
        .for_each(|word: &u64| file.extend(word.to_le_bytes()));
    file.extend(code);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_noop_runs_and_ends_well() {
        let place = std::env::temp_dir().join(format!("bulkhead-noop-{}", std::process::id()));
        Bundles::create(&place, "none").unwrap();
        let status = std::process::Command::new(place.join("rootfs/noop")).status().unwrap();
        std::fs::remove_dir_all(&place).unwrap();
        assert!(status.success(), "{status}");
    }
}
