//! What a new process does between clone3 and execve, decided before the fork.

use std::fmt;
use std::path::PathBuf;

use bulkhead_sys::mount::Attributes;
use bulkhead_sys::process::Arguments;
use rustix::process::{Resource, Rlimit};

use crate::seccomp::Compiled;
use crate::{Capabilities, FdIndex, User};

mod compile;
mod failure;
mod walk;

pub use compile::{CgroupHierarchy, Host, PlanError};
pub use failure::Failure;
pub use walk::{Report, Surroundings};

/// The steps of a new process, and what its parent does for it meanwhile.
///
/// Printing a plan gives one line for each step. Descriptors are named by their place in the list
/// that travels with the request, so that equal specifications give equal plans.
#[derive(Debug)]
pub struct Plan {
    /// `CLONE_NEW…` of the namespaces that are new.
    pub namespaces: i32,
    /// Namespaces to enter before the clone, with their `CLONE_NEW…`.
    pub joined: Vec<(FdIndex, i32)>,
    /// The parent sets these, since raising a limit takes a capability of the host's.
    pub limits: Vec<(Resource, Rlimit)>,
    /// The parent writes it, for the same reason.
    pub oom_score_adj: Option<i16>,
    steps: Vec<Step>,
    program: Program,
}

/// What is executed at the end.
#[derive(Debug)]
struct Program {
    /// As the user wrote it; for messages.
    name: String,
    arguments: Arguments,
    environment: Arguments,
    /// `HOME` comes from the user database where the environment has none.
    wants_home: bool,
    filter: Option<Compiled>,
}

/// A file system that is mounted anew.
#[derive(Debug)]
struct NewMount {
    kind: &'static str,
    /// Keys of fsconfig(2) with their values; a flag has none.
    options: Vec<(String, Option<String>)>,
    attributes: Attributes,
    /// What is done where the kernel refuses (`EPERM`) to mount it in these namespaces.
    refused: Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    Fail,
    /// The container does without, as when a namespace is the host's.
    Skip,
    /// The same file system of the warden's own is shown instead.
    Bind(&'static str),
}

/// One thing to do; each is a few system calls.
#[derive(Debug)]
enum Step {
    JoinCgroup { procs: FdIndex },
    NewCgroupNamespace,
    BecomeRoot,
    AttachRoot { root: FdIndex },
    Mount { mount: NewMount, target: PathBuf },
    Attach { mount: FdIndex, target: PathBuf, directory: bool, attributes: Attributes },
    Device { mount: FdIndex, target: PathBuf },
    Link { path: PathBuf, to: String },
    Seal { target: PathBuf },
    OpenTerminal { rows: u16, columns: u16, console: bool },
    KeepSysctls,
    Mask { path: PathBuf },
    MakeReadonly { path: PathBuf },
    MakeDirectory { path: PathBuf },
    SealRoot,
    EnterRoot,
    Hostname(String),
    Domainname(String),
    AwaitGo,
    Sysctl { name: String, path: PathBuf, value: String },
    Session { terminal: bool },
    LookUpUser(User),
    WorkingDirectory(PathBuf),
    NewKeyring,
    CloseDescriptors,
    BoundingSet(Capabilities),
    Filter,
    SetIdentity,
    SetCapabilities(Capabilities),
    NoNewPrivileges,
    Init,
    Execute { candidates: Vec<std::ffi::CString>, searched: bool },
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (fd, kind) in &self.joined {
            writeln!(f, "join {} of {fd}", namespaces(*kind))?;
        }
        writeln!(f, "clone [{}]", namespaces(self.namespaces))?;
        for (resource, limit) in &self.limits {
            let text = |value: Option<u64>| value.map_or("unlimited".into(), |it| it.to_string());
            writeln!(f, "limit {resource:?} {} {}", text(limit.current), text(limit.maximum))?;
        }
        if let Some(score) = self.oom_score_adj {
            writeln!(f, "oom_score_adj {score}")?;
        }
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        writeln!(f, "arguments {:?}", self.program.arguments.strings())?;
        writeln!(f, "environment {:?}", self.program.environment.strings())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JoinCgroup { procs } => write!(f, "write 0 to cgroup.procs {procs}"),
            Self::NewCgroupNamespace => write!(f, "unshare cgroup"),
            Self::BecomeRoot => write!(f, "become uid 0 of the user namespace"),
            Self::AttachRoot { root } => write!(f, "attach root {root}"),
            Self::Mount { mount, target } => {
                write!(f, "mount {} on {}", mount.kind, target.display())?;
                for (key, value) in &mount.options {
                    write!(
                        f,
                        " {key}{}{}",
                        if value.is_some() { "=" } else { "" },
                        value.as_deref().unwrap_or("")
                    )?;
                }
                write!(f, "{}", flags(mount.attributes))
            }
            Self::Attach { mount, target, attributes, .. } => {
                write!(f, "attach {mount} to {}{}", target.display(), flags(*attributes))
            }
            Self::Device { mount, target } => write!(f, "device {mount} as {}", target.display()),
            Self::Link { path, to } => write!(f, "link {} to {to}", path.display()),
            Self::Seal { target } => write!(f, "make mount {} read-only", target.display()),
            Self::OpenTerminal { rows, columns, .. } => write!(f, "open terminal {rows}x{columns}"),
            Self::KeepSysctls => write!(f, "open /proc/sys"),
            Self::Mask { path } => write!(f, "mask {}", path.display()),
            Self::MakeReadonly { path } => write!(f, "make {} read-only", path.display()),
            Self::MakeDirectory { path } => write!(f, "make directory {}", path.display()),
            Self::SealRoot => write!(f, "make the root read-only"),
            Self::EnterRoot => write!(f, "pivot to the root"),
            Self::Hostname(name) => write!(f, "hostname {name}"),
            Self::Domainname(name) => write!(f, "domainname {name}"),
            Self::AwaitGo => write!(f, "await go"),
            Self::Sysctl { name, value, .. } => write!(f, "sysctl {name} = {value}"),
            Self::Session { terminal: true } => write!(f, "new session with the terminal"),
            Self::Session { terminal: false } => write!(f, "new session"),
            Self::LookUpUser(user) => {
                write!(f, "look up user {:?} {:?}", user.name, user.additional_groups)
            }
            Self::WorkingDirectory(path) => write!(f, "change directory to {}", path.display()),
            Self::NewKeyring => write!(f, "new session keyring"),
            Self::CloseDescriptors => write!(f, "close descriptors from 3 at exec"),
            Self::BoundingSet(set) => write!(f, "bounding set {:#x}", set.0),
            Self::Filter => write!(f, "install the seccomp filter"),
            Self::SetIdentity => write!(f, "set uid, gid and groups"),
            Self::SetCapabilities(set) => write!(f, "capabilities {:#x}", set.0),
            Self::NoNewPrivileges => write!(f, "no new privileges"),
            Self::Init => write!(f, "stay as init, go on in a child"),
            Self::Execute { candidates, .. } => write!(f, "execute the first of {candidates:?}"),
        }
    }
}

impl fmt::Display for FdIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

fn flags(attributes: Attributes) -> String {
    let known = [
        (Attributes::RDONLY, " ro"),
        (Attributes::NOSUID, " nosuid"),
        (Attributes::NODEV, " nodev"),
        (Attributes::NOEXEC, " noexec"),
    ];
    known.iter().filter(|(bit, _)| attributes.0 & bit.0 != 0).map(|(_, name)| *name).collect()
}

fn namespaces(kinds: i32) -> String {
    let kinds = KINDS.iter().filter(|(bit, _)| kinds & bit != 0).map(|(_, name)| *name);
    kinds.collect::<Vec<_>>().join(" ")
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
