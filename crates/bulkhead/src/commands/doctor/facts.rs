//! What there is to know of a machine, read and not judged.

use std::path::Path;

use bulkhead_runtime::cgroup::Layout;
use rustix::process::{Resource, getrlimit};

/// Empty or absent is what cannot be read.
#[derive(Debug)]
pub(super) struct Facts {
    pub is_root: bool,
    /// As uname(2) says it, and its first two numbers.
    pub release: String,
    pub kernel: Option<(u32, u32)>,
    /// Which versions of cgroups are mounted.
    pub cgroups: String,
    pub controllers: Vec<String>,
    pub overlay: bool,
    pub user_namespaces: bool,
    pub seccomp_actions: Vec<String>,
    /// The version of Landlock's interface; 0 is none.
    pub landlock: u32,
    pub lsms: Vec<String>,
    pub time_namespaces: bool,
    /// Chains of others that drop what is forwarded, or why nftables cannot be asked.
    pub nftables: Result<Vec<String>, String>,
    pub bridge_netfilter: bool,
    pub ipv6: bool,
    /// The hard limit of a process's open files.
    pub descriptors: u64,
    /// Of the data directory, or of what is above it.
    pub data_kind: FileSystem,
    /// Bytes that root may still write there.
    pub free: Option<u64>,
    /// Handlers of other processors' programs.
    pub binfmt: Vec<String>,
}

/// A kind of file system, as statfs(2) names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileSystem {
    Ext4,
    Xfs,
    Btrfs,
    Tmpfs,
    Overlay,
    Other(u64),
}

impl FileSystem {
    fn of(magic: u64) -> Self {
        match magic {
            0xef53 => Self::Ext4,
            0x5846_5342 => Self::Xfs,
            0x9123_683e => Self::Btrfs,
            0x0102_1994 => Self::Tmpfs,
            0x794c_7630 => Self::Overlay,
            other => Self::Other(other),
        }
    }

    /// Whether overlayfs has mapped owners of layers on it since Linux 5.19.
    pub(super) fn maps_owners(self) -> bool {
        matches!(self, Self::Ext4 | Self::Xfs | Self::Btrfs)
    }

    pub(super) fn name(self) -> String {
        match self {
            Self::Ext4 => "ext4".to_owned(),
            Self::Xfs => "xfs".to_owned(),
            Self::Btrfs => "btrfs".to_owned(),
            Self::Tmpfs => "tmpfs".to_owned(),
            Self::Overlay => "overlayfs".to_owned(),
            Self::Other(magic) => format!("file system {magic:#x}"),
        }
    }
}

impl Facts {
    /// `data` need not exist.
    pub(super) fn of_this_machine(data: &Path) -> Self {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let kernel = crate::host::version(&release);
        let mounts = text("/proc/self/mountinfo");
        let layout = Layout::parse(&mounts, &text("/proc/self/cgroup"));
        let v2 = text("/sys/fs/cgroup/cgroup.controllers");
        let v1 = layout.v1.iter().flat_map(|hierarchy| hierarchy.controllers.iter().cloned());
        let controllers = v1.chain(words(&v2)).filter(|name| !name.contains('=')).collect();
        let has_v2 = mounts.lines().any(|line| line.contains(" - cgroup2 "));
        let cgroups = match (layout.v1.is_empty(), has_v2) {
            (true, true) => "v2",
            (false, true) => "v1, with an empty v2 beside it (hybrid)",
            (false, false) => "v1",
            (true, false) => "",
        };
        let existing = data.ancestors().find(|path| path.exists());
        let disk = existing.and_then(|path| rustix::fs::statfs(path).ok());
        let host = bulkhead_network::Host::open();
        let nftables = host.and_then(|host| host.foreign_forward_drops());
        Self {
            is_root: rustix::process::geteuid().is_root(),
            release,
            kernel,
            cgroups: cgroups.to_owned(),
            controllers,
            overlay: text("/proc/filesystems").lines().any(|line| line.ends_with("\toverlay"))
                || Path::new("/sys/module/overlay").exists(),
            user_namespaces: text("/proc/sys/user/max_user_namespaces").trim() != "0",
            seccomp_actions: words(&text("/proc/sys/kernel/seccomp/actions_avail")),
            landlock: bulkhead_sys::landlock::abi(),
            lsms: text("/sys/kernel/security/lsm").trim().split(',').map(str::to_owned).collect(),
            time_namespaces: Path::new("/proc/self/ns/time").exists(),
            nftables: nftables.map_err(|cause| cause.to_string()),
            bridge_netfilter: is_on("/proc/sys/net/bridge/bridge-nf-call-iptables"),
            ipv6: Path::new("/proc/sys/net/ipv6").exists()
                && !is_on("/proc/sys/net/ipv6/conf/all/disable_ipv6"),
            descriptors: getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX),
            data_kind: FileSystem::of(disk.as_ref().map_or(0, |disk| disk.f_type as u64)),
            free: disk.map(|disk| disk.f_bfree.saturating_mul(disk.f_bsize as u64)),
            binfmt: binfmt(),
        }
    }
}

fn text(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn words(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

fn is_on(path: &str) -> bool {
    text(path).trim() == "1"
}

fn binfmt() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/sys/fs/binfmt_misc");
    let names = entries.into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("qemu-")).collect();
    names.sort();
    names
}
