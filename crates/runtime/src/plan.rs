//! What a new process does between clone3 and execve, decided before the fork.

use std::borrow::Cow;
use std::ffi::CString;
use std::path::PathBuf;

use bulkhead_sys::mount::{Attributes, Depth, Propagation};
use bulkhead_sys::process::Arguments;
use bulkhead_sys::schedule;
use bulkhead_types::oci;
use rustix::process::{Resource, Rlimit};
use serde::{Deserialize, Serialize};

use crate::capabilities::CapabilitySets;
use crate::seccomp::Compiled;
use crate::{Capabilities, FdIndex, Landlock, User};

mod bundle;
mod compile;
mod display;
mod encode;
mod failure;
mod spawn;
mod walk;

pub use bundle::{
    BundleOptions, BundleSources, CgroupMount, memory_policy_flags, memory_policy_modes,
};
pub use compile::{CgroupHierarchy, Host, PlanError};
pub use encode::DecodeError;
pub use failure::Failure;
pub use spawn::{AHEAD, Beside, Spawned};
pub use walk::{Report, Surroundings};

/// The steps of a new process, and what its parent does for it meanwhile.
///
/// Printing a plan gives one line for each step. Descriptors are named by their place in the list
/// that travels with the request, so that equal specifications give equal plans.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plan {
    /// `CLONE_NEW…` of the namespaces that are new.
    pub namespaces: i32,
    /// Namespaces to enter before the clone, with their `CLONE_NEW…`.
    pub joined: Vec<(FdIndex, i32)>,
    /// What clocks of a new time namespace are ahead of the host's, in the lines of
    /// `/proc/PID/timens_offsets` (time_namespaces(7)); empty is by nothing.
    pub time_offsets: String,
    /// The child begins when its parent says so: one that has id mappings or limits to write.
    pub waits: bool,
    /// The parent sets these, since raising a limit takes a capability of the host's.
    #[serde(with = "encode::limits")]
    pub limits: Vec<(Resource, Rlimit)>,
    /// The parent writes it, for the same reason.
    pub oom_score_adj: Option<i16>,
    steps: Vec<Step>,
    program: Program,
}

/// What is executed at the end.
#[derive(Debug, Serialize, Deserialize)]
struct Program {
    /// As the user wrote it; for messages.
    name: String,
    arguments: Arguments,
    environment: Arguments,
    /// `HOME` comes from the user database where the environment has none.
    wants_home: bool,
    #[serde(with = "encode::filter")]
    filter: Option<Compiled>,
}

/// A file system that is mounted anew.
#[derive(Debug, Serialize, Deserialize)]
struct NewMount {
    kind: String,
    /// What is shown by mount(8) and df(1), and what some file systems are made from.
    source: String,
    /// Keys of fsconfig(2) with their values; a flag has none.
    options: Vec<(String, Option<String>)>,
    attributes: Attributes,
    propagation: Vec<(Propagation, bool)>,
    /// What is done where the kernel refuses (`EPERM`) to mount it in these namespaces.
    refused: Refused,
    /// The directory that it hides is copied into it first.
    copy_up: bool,
    /// Of the host's whole hierarchy of cgroup2, to be kept as they are ([`Host::cgroup2_flags`]).
    kept_flags: Vec<String>,
}

impl NewMount {
    /// Whether it takes over the mode of the directory that it hides.
    fn hides_mode(&self) -> bool {
        self.kind == "tmpfs" && !self.options.iter().any(|(key, _)| key == "mode")
    }

    /// Whether somebody may have asked for what this kernel's cgroup2 does not have.
    fn is_cgroup2_with_options(&self) -> bool {
        self.kind == "cgroup2" && !self.options.is_empty()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Refused {
    Fail,
    /// The container does without, as when a namespace is the host's.
    Skip,
    /// The same file system of the parent's own is shown instead.
    Bind(Cow<'static, str>),
}

/// A tree of mounts that exists outside.
#[derive(Debug, Serialize, Deserialize)]
enum Tree {
    /// A detached one that the parent has cloned, with all its attributes.
    Detached(FdIndex),
    /// A path of the host that the child clones by itself, where the parent may not.
    Host {
        #[serde(with = "encode::path")]
        path: PathBuf,
        recursive: bool,
        changes: Vec<AttributeChange>,
    },
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct AttributeChange {
    depth: Depth,
    clear: Attributes,
    set: Attributes,
}

/// How the process comes from the host's root to its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Entrance {
    /// pivot_root(2).
    Pivot,
    /// The root is moved onto `/`, for hosts that run from an initial ram disk.
    Move,
    /// chroot(2) alone, where the mount namespace is shared.
    Change,
}

/// A device node; the host's of the same path is bound where making one is refused (`EPERM`), as in
/// a user namespace.
#[derive(Debug, Serialize, Deserialize)]
struct Node {
    #[serde(with = "encode::path")]
    path: PathBuf,
    #[serde(with = "encode::file_type")]
    kind: rustix::fs::FileType,
    device: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    /// A node that the parent has made, for one that the host does not have as it is wanted.
    made: Option<FdIndex>,
}

/// One thing to do; each is a few system calls.
#[derive(Debug, Serialize, Deserialize)]
enum Step {
    JoinCgroup {
        procs: FdIndex,
    },
    NewCgroupNamespace,
    BecomeRoot {
        keep_groups: bool,
    },
    Propagation {
        propagation: Propagation,
        recursive: bool,
    },
    AttachRoot {
        root: Tree,
        #[serde(with = "encode::path")]
        at: PathBuf,
    },
    /// Without a mount namespace of its own the root is only opened.
    OpenRoot {
        #[serde(with = "encode::path")]
        path: PathBuf,
    },
    OpenProc,
    BringUpLoopback,
    CheckDirectory {
        #[serde(with = "encode::path")]
        path: PathBuf,
    },
    Mount {
        mount: NewMount,
        #[serde(with = "encode::path")]
        target: PathBuf,
    },
    Attach {
        mount: FdIndex,
        #[serde(with = "encode::path")]
        target: PathBuf,
        directory: bool,
        attributes: Attributes,
    },
    Bind {
        tree: Tree,
        #[serde(with = "encode::path")]
        target: PathBuf,
        follow: bool,
        propagation: Vec<(Propagation, bool)>,
    },
    Device {
        mount: FdIndex,
        #[serde(with = "encode::path")]
        target: PathBuf,
    },
    MakeNode(Node),
    Link {
        #[serde(with = "encode::path")]
        path: PathBuf,
        to: String,
        replace: bool,
    },
    Seal {
        #[serde(with = "encode::path")]
        target: PathBuf,
    },
    OpenTerminal {
        rows: u16,
        columns: u16,
        console: bool,
    },
    Mask {
        #[serde(with = "encode::path")]
        path: PathBuf,
    },
    MakeReadonly {
        #[serde(with = "encode::path")]
        path: PathBuf,
    },
    MakeDirectory {
        #[serde(with = "encode::path")]
        path: PathBuf,
    },
    SealRoot,
    RootPropagation {
        propagation: Propagation,
        recursive: bool,
    },
    EnterRoot(Entrance),
    Hostname(String),
    Domainname(String),
    /// The parent runs hooks meanwhile.
    AwaitHooks,
    Hooks {
        name: Cow<'static, str>,
        #[serde(with = "encode::json")]
        hooks: Vec<oci::Hook>,
        #[serde(with = "encode::json")]
        state: oci::State,
        /// Files of the host for their output, open no longer than they run.
        stdout: Option<FdIndex>,
        stderr: Option<FdIndex>,
    },
    AwaitGo,
    AwaitStart {
        listener: FdIndex,
    },
    Sysctl {
        name: String,
        #[serde(with = "encode::path")]
        path: PathBuf,
        value: String,
    },
    Session {
        terminal: bool,
    },
    LookUpUser(User),
    /// Ids that need no looking up; `HOME` does.
    User {
        uid: u32,
        gid: u32,
        additional_gids: Vec<u32>,
    },
    WorkingDirectory(#[serde(with = "encode::path")] PathBuf),
    NewKeyring,
    Personality(u32),
    Scheduler(schedule::Attributes),
    IoPriority(u16),
    MemoryPolicy {
        mode: i32,
        nodes: Vec<u64>,
    },
    Affinity(Vec<u32>),
    FindProgram,
    CloseDescriptors {
        first: u32,
        umask: u32,
    },
    /// Limits of `RLIMIT_NOFILE`.
    OpenFiles {
        soft: Option<u64>,
        hard: Option<u64>,
    },
    BoundingSet(Capabilities),
    Filter,
    SetIdentity {
        keep_capabilities: bool,
        keep_groups: bool,
    },
    SetCapabilities(CapabilitySets),
    /// Killed when the parent ends. After the last change of ids and capabilities, which the kernel
    /// takes for a reason to forget it (PR_SET_PDEATHSIG(2const)); so a program that raises its
    /// privileges at its exec lives on.
    EndWithParent,
    NoNewPrivileges,
    /// Takes `no_new_privs` or `CAP_SYS_ADMIN`.
    Landlock(Landlock),
    /// A label of a security module that counts from the exec on; a file below `/proc/self/attr`.
    Label {
        file: Cow<'static, str>,
        label: String,
    },
    Init,
    Execute {
        candidates: Vec<CString>,
        searched: bool,
    },
}

/// The namespaces by their names in `/proc/PID/ns`.
pub const KINDS: [(i32, &str); 8] = {
    use bulkhead_sys::process::*;
    [
        (CLONE_NEWUSER, "user"),
        (CLONE_NEWPID, "pid"),
        (CLONE_NEWNET, "net"),
        (CLONE_NEWIPC, "ipc"),
        (CLONE_NEWNS, "mnt"),
        (CLONE_NEWUTS, "uts"),
        (CLONE_NEWCGROUP, "cgroup"),
        (CLONE_NEWTIME, "time"),
    ]
};

#[cfg(test)]
mod tests;
