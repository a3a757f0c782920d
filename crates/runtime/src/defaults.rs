//! What a container gets without being told: mounts, devices, masked paths, sysctls, limits.
//!
//! The lists are Docker's (moby: daemon/pkg/oci/defaults.go) with the differences that
//! docs/ARCHITECTURE.md names. A privileged container sees all of `/proc` and may write to `/sys`.

use std::path::Path;
use std::sync::LazyLock;

use rustix::process::{Resource, getrlimit};

use crate::{Mount, MountKind};

/// `PATH` for an image that sets none, as in Docker on Linux.
pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `--shm-size` unless given: 64 MiB.
pub const SHM_SIZE: u64 = 64 << 20;

/// Lists the file systems that every container has, in the order in which they are mounted.
///
/// `shm_size` is in bytes.
pub fn mounts(privileged: bool, shm_size: u64) -> Vec<Mount> {
    let closed = |target: &str, kind: MountKind| Mount {
        target: target.to_owned(),
        kind,
        readonly: false,
        nosuid: true,
        nodev: true,
        noexec: true,
    };
    let tmpfs = |options: &[String]| MountKind::Tmpfs { options: options.to_vec() };
    vec![
        closed("/proc", MountKind::Proc),
        // device nodes are bind-mounted below it; Docker leaves it executable
        Mount {
            nodev: false,
            noexec: false,
            ..closed("/dev", tmpfs(&["mode=755".into(), "size=65536k".into()]))
        },
        // terminals are devices
        Mount { nodev: false, ..closed("/dev/pts", MountKind::Devpts) },
        Mount { readonly: !privileged, ..closed("/sys", MountKind::Sysfs) },
        Mount { readonly: !privileged, ..closed("/sys/fs/cgroup", MountKind::Cgroup) },
        closed("/dev/mqueue", MountKind::Mqueue),
        closed("/dev/shm", tmpfs(&["mode=1777".into(), format!("size={shm_size}")])),
    ]
}

/// A device node that is in every container's `/dev`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultDevice {
    pub path: &'static str,
    /// What the host's node of the same path must be, before it is trusted.
    pub major: u32,
    pub minor: u32,
}

/// The character devices that the runtime specification asks for (config-linux.md, "Default
/// Devices"); all have mode 666. `/dev/ptmx` and `/dev/console` are made otherwise.
pub const DEVICES: [DefaultDevice; 6] = [
    DefaultDevice { path: "/dev/null", major: 1, minor: 3 },
    DefaultDevice { path: "/dev/zero", major: 1, minor: 5 },
    DefaultDevice { path: "/dev/full", major: 1, minor: 7 },
    DefaultDevice { path: "/dev/random", major: 1, minor: 8 },
    DefaultDevice { path: "/dev/urandom", major: 1, minor: 9 },
    DefaultDevice { path: "/dev/tty", major: 5, minor: 0 },
];

/// Links of `/dev` (path, what it points to), as Docker's containers have them.
pub const DEVICE_LINKS: [(&str, &str); 6] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// Lists what is hidden in a container; a path that it does not have is to be skipped.
pub fn masked_paths(privileged: bool) -> Vec<String> {
    if privileged {
        return Vec::new();
    }
    let fixed = MASKED_PATHS.iter().map(|path| (*path).to_owned());
    fixed.chain(THERMAL_THROTTLE.iter().cloned()).collect()
}

/// Lists what may only be read in a container; a path that it does not have is to be skipped.
pub fn readonly_paths(privileged: bool) -> Vec<String> {
    if privileged {
        return Vec::new();
    }
    READONLY_PATHS.iter().map(|path| (*path).to_owned()).collect()
}

/// Lists sysctls of a private network namespace: with them ping and ports below 1024 work without
/// `NET_RAW` and `NET_BIND_SERVICE`. Not to be written where the container uses the host's network.
///
/// `groups` is how many group ids from 0 on the container's user namespace has: Docker's 2147483647
/// is refused where it has fewer.
pub fn network_sysctls(groups: u32) -> Vec<(String, String)> {
    let last = groups.clamp(1, 1 << 31) - 1;
    vec![
        ("net.ipv4.ping_group_range".into(), format!("0 {last}")),
        ("net.ipv4.ip_unprivileged_port_start".into(), "0".into()),
    ]
}

/// Lists sysctls of a private user namespace: its share of what the kernel counts for the user who
/// made it, the host's root, so that one container cannot take all from the others and from us.
///
/// Of inotify instances, which are few (inotify(7)), that is half.
pub fn user_sysctls() -> Vec<(String, String)> {
    static HOST: LazyLock<Option<u32>> = LazyLock::new(|| {
        let text = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_instances").ok()?;
        text.trim().parse().ok()
    });
    let share = HOST.map(|most| (most / 2).max(1).to_string());
    share.map(|share| ("user.max_inotify_instances".to_owned(), share)).into_iter().collect()
}

/// Lists the resource limits of a container without `--ulimit`, as [`crate::ProcessSpec`] wants
/// them; what is not listed is inherited.
///
/// `nofile` is 1024 and 524288, systemd's values and those of Docker since 29: a soft limit of a
/// million makes programs slow that close every descriptor they might have. Where this process
/// may not go so high, its own limit is kept.
pub fn rlimits() -> Vec<(String, u64, u64)> {
    let own = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let hard = own.min(524_288);
    vec![("nofile".into(), hard.min(1024), hard)]
}

const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Counters per processor that tell one tenant about another; there are as many as processors, so
/// they are looked up once.
static THERMAL_THROTTLE: LazyLock<Vec<String>> =
    LazyLock::new(|| thermal_throttle(Path::new("/sys/devices/system/cpu")));

fn thermal_throttle(processors: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(processors) else { return Vec::new() };
    let mut numbers: Vec<u32> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let number = entry.file_name().to_str()?.strip_prefix("cpu")?.parse().ok()?;
            entry.path().join("thermal_throttle").is_dir().then_some(number)
        })
        .collect();
    numbers.sort_unstable();
    let path = |number| format!("/sys/devices/system/cpu/cpu{number}/thermal_throttle");
    numbers.into_iter().map(path).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_mount_comes_after_the_one_it_stands_on() {
        let mounts = mounts(false, SHM_SIZE);
        for (index, mount) in mounts.iter().enumerate() {
            let parent = Path::new(&mount.target).parent().unwrap();
            let stands = mounts.iter().position(|it| Path::new(&it.target) == parent);
            assert!(stands.is_none_or(|at| at < index), "{}", mount.target);
            assert!(mount.nosuid, "{}", mount.target);
        }
        assert!(mounts.iter().any(|mount| {
            let options = vec!["mode=1777".to_owned(), "size=67108864".to_owned()];
            mount.kind == MountKind::Tmpfs { options } && mount.target == "/dev/shm"
        }));
    }

    #[test]
    fn only_a_privileged_container_writes_to_sys_and_sees_all() {
        for (privileged, readonly) in
            [(false, vec!["/sys", "/sys/fs/cgroup"]), (true, Vec::<&str>::new())]
        {
            let mounts = mounts(privileged, SHM_SIZE);
            let found: Vec<&str> =
                mounts.iter().filter(|it| it.readonly).map(|it| it.target.as_str()).collect();
            assert_eq!(found, readonly);
            assert_eq!(masked_paths(privileged).is_empty(), privileged);
            assert_eq!(readonly_paths(privileged).is_empty(), privileged);
        }
    }

    #[test]
    fn the_hosts_nodes_are_the_devices_they_are_said_to_be() {
        for device in DEVICES {
            let number = std::fs::metadata(device.path).unwrap().rdev();
            let found = (rustix::fs::major(number), rustix::fs::minor(number));
            assert_eq!(found, (device.major, device.minor), "{}", device.path);
        }
    }

    #[test]
    fn thermal_throttle_is_masked_for_the_processors_that_have_it() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["cpu10", "cpu2", "cpufreq", "cpux"] {
            std::fs::create_dir_all(directory.path().join(name).join("thermal_throttle")).unwrap();
        }
        std::fs::create_dir_all(directory.path().join("cpu3")).unwrap();
        let found = thermal_throttle(directory.path());
        let want = [2, 10].map(|it| format!("/sys/devices/system/cpu/cpu{it}/thermal_throttle"));
        assert_eq!(found, want);
        assert_eq!(thermal_throttle(Path::new("/nonexistent")), Vec::<String>::new());
    }

    #[test]
    fn limits_are_within_what_this_process_may_give() {
        let own = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        for (name, soft, hard) in rlimits() {
            assert!(soft <= hard && hard <= own, "{name}");
        }
    }
}
