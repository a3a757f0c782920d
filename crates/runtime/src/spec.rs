use bulkhead_sys::mount::Propagation;
use bulkhead_types::IdMap;
use serde::{Deserialize, Serialize};

use crate::Landlock;

/// A container with every default resolved, as the engine hands it to the runtime.
///
/// Host paths never appear: whatever comes from the host is a descriptor that the caller has
/// resolved, named by its index in the list that travels with the specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub hostname: String,
    pub domainname: String,
    pub namespaces: Namespaces,
    /// The uid and gid mapping of a private user namespace.
    pub id_range: Option<IdMap>,
    /// A detached mount of the root file system (fsmount(2) or open_tree(2)).
    pub rootfs: FdIndex,
    pub rootfs_readonly: bool,
    /// In the order in which they are mounted.
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    /// Written in the container's own namespaces: `net.ipv4.ping_group_range`, `0 65535`.
    pub sysctls: Vec<(String, String)>,
    /// `tasks` of every v1 hierarchy that the child joins, opened for writing; and the
    /// directory of the v2 cgroup for `CLONE_INTO_CGROUP`.
    pub cgroup_v1_procs: Vec<FdIndex>,
    pub cgroup_v2: Option<FdIndex>,
    /// What the mount of cgroups shows of v1 to a container with a cgroup namespace of its own: its
    /// groups, as detached mounts, by the name of the hierarchy's directory. One that is not here is
    /// mounted anew, for which the kernel walks all groups of the host (Linux:
    /// kernel/cgroup/cgroup-v1.c, `cgroup1_get_tree`).
    pub cgroup_v1_groups: Vec<(String, FdIndex)>,
    pub process: ProcessSpec,
}

/// An index into the descriptors that travel with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FdIndex(pub u16);

/// Where each namespace comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    pub pid: Source,
    pub net: Source,
    pub ipc: Source,
    pub mnt: Source,
    pub uts: Source,
    pub user: Source,
    pub cgroup: Source,
    pub time: Source,
}

impl Namespaces {
    /// All of them new.
    pub const PRIVATE: Self = Self {
        pid: Source::Private,
        net: Source::Private,
        ipc: Source::Private,
        mnt: Source::Private,
        uts: Source::Private,
        user: Source::Private,
        cgroup: Source::Private,
        time: Source::Private,
    };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A new one of its own.
    Private,
    /// The host's.
    Host,
    /// The one that this descriptor of `/proc/PID/ns/…` names.
    Join(FdIndex),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path in the container, resolved below its root.
    pub target: String,
    pub kind: MountKind,
    pub readonly: bool,
    pub nosuid: bool,
    pub nodev: bool,
    pub noexec: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    Proc,
    Sysfs,
    /// `options` as in mount(8), for example `mode=755`, `size=65536k`.
    Tmpfs {
        options: Vec<String>,
    },
    Devpts,
    Mqueue,
    /// The container's own cgroup hierarchies (v1, v2 or both, as the host has them).
    Cgroup,
    /// A detached mount that the caller made with open_tree(2): a bind mount or a volume.
    Detached {
        fd: FdIndex,
        is_directory: bool,
    },
    /// The same, with its attributes set already; what is mounted below it later, on either side,
    /// passes as `propagation` says. The mount's own attributes here are not looked at.
    Bound {
        fd: FdIndex,
        propagation: Propagation,
    },
}

/// A device node that is bind-mounted from the host, since mknod(2) is refused in a user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Absolute path in the container, such as `/dev/null`.
    pub path: String,
    /// An `O_PATH` descriptor of the host's node, checked by the caller to be that device.
    pub fd: FdIndex,
}

/// A process in a container: its first, or one that exec adds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    pub arguments: Vec<String>,
    /// `NAME=value`; the runtime searches `PATH` of these for the program, inside the container.
    pub environment: Vec<String>,
    pub working_directory: String,
    pub user: User,
    pub terminal: bool,
    /// Rows and columns of the terminal at first; 0 leaves it alone.
    pub terminal_size: (u16, u16),
    pub capabilities: Capabilities,
    pub no_new_privileges: bool,
    pub seccomp: Seccomp,
    /// (`RLIMIT_…` name without the prefix in lower case, soft, hard); `u64::MAX` is unlimited.
    pub rlimits: Vec<(String, u64, u64)>,
    pub oom_score_adj: Option<i16>,
    /// Makes the runtime's own init process 1, which reaps orphans and forwards signals.
    pub init: bool,
    pub landlock: Option<Landlock>,
}

/// The `--user` of Docker, resolved inside the container when the plan runs, since only there can
/// `/etc/passwd` be read safely.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// `""`, `name`, `name:group`, `uid`, `uid:gid` …
    pub name: String,
    pub additional_groups: Vec<String>,
}

/// A set of capabilities by bit number (capabilities(7)), given as bounding, permitted and
/// effective set; inheritable and ambient stay empty unless the user is not root inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities(pub u64);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// Docker's default profile for the process's capabilities.
    Default,
    Unconfined,
    /// A profile in Docker's JSON format.
    Profile(String),
    /// Docker's default profile without packet sockets: a process may have `NET_RAW` for ping's sake
    /// and cannot read or write frames.
    WithoutPackets,
}
