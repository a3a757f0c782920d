//! A plan as text, one line for each step: what snapshots hold and messages quote.

use std::fmt;

use bulkhead_sys::mount::Attributes;

use super::{KINDS, NewMount, Plan, Step, Tree};
use crate::FdIndex;

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
        for line in self.time_offsets.lines() {
            writeln!(f, "time offset {line}")?;
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
            Self::JoinCgroup { procs } => write!(f, "write 0 to tasks {procs}"),
            Self::NewCgroupNamespace => write!(f, "unshare cgroup"),
            Self::BecomeRoot { .. } => write!(f, "become uid 0 of the user namespace"),
            Self::Propagation { propagation, recursive } => {
                write!(f, "make / {propagation:?}{}", if *recursive { " as a tree" } else { "" })
            }
            Self::AttachRoot { root, .. } => write!(f, "attach root {root}"),
            Self::OpenRoot { path } => write!(f, "open root {}", path.display()),
            Self::OpenProc => write!(f, "open a /proc of its own"),
            Self::BringUpLoopback => write!(f, "bring up the loopback interface"),
            Self::CheckDirectory { path } => write!(f, "check directory {}", path.display()),
            Self::Mount { mount, target } => write!(f, "mount {mount} on {}", target.display()),
            Self::Bind { tree, target, propagation, .. } => {
                write!(f, "bind {tree} to {}", target.display())?;
                propagations(f, propagation)
            }
            Self::MakeNode(node) => write!(
                f,
                "make {:?} {}:{} as {} mode {:o} of {}:{}",
                node.kind,
                rustix::fs::major(node.device),
                rustix::fs::minor(node.device),
                node.path.display(),
                node.mode,
                node.uid,
                node.gid
            ),
            Self::Attach { mount, target, attributes, .. } => {
                write!(f, "attach {mount} to {}{}", target.display(), flags(*attributes))
            }
            Self::Device { mount, target } => write!(f, "device {mount} as {}", target.display()),
            Self::Link { path, to, .. } => write!(f, "link {} to {to}", path.display()),
            Self::Seal { target } => write!(f, "make mount {} read-only", target.display()),
            Self::OpenTerminal { rows, columns, .. } => write!(f, "open terminal {rows}x{columns}"),
            Self::Mask { path } => write!(f, "mask {}", path.display()),
            Self::MakeReadonly { path } => write!(f, "make {} read-only", path.display()),
            Self::MakeDirectory { path } => write!(f, "make directory {}", path.display()),
            Self::SealRoot => write!(f, "make the root read-only"),
            Self::RootPropagation { propagation, recursive } => {
                write!(
                    f,
                    "make the root {propagation:?}{}",
                    if *recursive { " as a tree" } else { "" }
                )
            }
            Self::EnterRoot(entrance) => write!(f, "{entrance:?} to the root"),
            Self::Hostname(name) => write!(f, "hostname {name}"),
            Self::Domainname(name) => write!(f, "domainname {name}"),
            Self::AwaitHooks => write!(f, "await hooks"),
            Self::Hooks { name, hooks, .. } => {
                let paths: Vec<&str> = hooks.iter().map(|hook| hook.path.as_str()).collect();
                write!(f, "run {name} hooks {paths:?}")
            }
            Self::AwaitGo => write!(f, "await go"),
            Self::AwaitStart { listener } => write!(f, "await start at {listener}"),
            Self::Sysctl { name, value, .. } => write!(f, "sysctl {name} = {value}"),
            Self::Session { terminal: true } => write!(f, "new session with the terminal"),
            Self::Session { terminal: false } => write!(f, "new session"),
            Self::LookUpUser(user) => {
                write!(f, "look up user {:?} {:?}", user.name, user.additional_groups)
            }
            Self::User { uid, gid, additional_gids } => {
                write!(f, "user {uid}:{gid} {additional_gids:?}")
            }
            Self::Personality(persona) => write!(f, "personality {persona:#x}"),
            Self::Scheduler(attributes) => write!(f, "{attributes:?}"),
            Self::IoPriority(value) => write!(f, "I/O priority {value:#x}"),
            Self::MemoryPolicy { mode, nodes } => write!(f, "memory policy {mode:#x} {nodes:x?}"),
            Self::Affinity(processors) => write!(f, "run on processors {processors:?}"),
            Self::FindProgram => write!(f, "find the program"),
            Self::WorkingDirectory(path) => write!(f, "change directory to {}", path.display()),
            Self::NewKeyring => write!(f, "new session keyring"),
            Self::CloseDescriptors { first, umask } => {
                write!(f, "close descriptors from {first} at exec, umask {umask:03o}")
            }
            Self::OpenFiles { soft, hard } => {
                let number =
                    |it: &Option<u64>| it.map_or("unlimited".to_owned(), |it| it.to_string());
                write!(f, "limit open files to {}, {} at most", number(soft), number(hard))
            }
            Self::BoundingSet(set) => write!(f, "bounding set {:#x}", set.0),
            Self::Filter => write!(f, "install the seccomp filter"),
            Self::SetIdentity { keep_groups: true, .. } => {
                write!(f, "set uid and gid, keep groups")
            }
            Self::SetIdentity { .. } => write!(f, "set uid, gid and groups"),
            Self::SetCapabilities(sets) => {
                write!(f, "capabilities {:#x}", sets.effective.0)?;
                if sets.permitted != sets.effective {
                    write!(f, " permitted {:#x}", sets.permitted.0)?;
                }
                if sets.inheritable.0 | sets.ambient.0 != 0 {
                    write!(f, " inheritable {:#x}", sets.inheritable.0)?;
                    write!(f, " ambient {:#x}", sets.ambient.0)?;
                }
                Ok(())
            }
            Self::Label { file, label } => write!(f, "label {label:?} by {file}"),
            Self::Landlock(policy) => write!(f, "landlock {policy}"),
            Self::EndWithParent => write!(f, "end with the parent"),
            Self::NoNewPrivileges => write!(f, "no new privileges"),
            Self::Init => write!(f, "stay as init, go on in a child"),
            Self::Execute { candidates, .. } => write!(f, "execute the first of {candidates:?}"),
        }
    }
}

impl fmt::Display for NewMount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if self.source != self.kind {
            write!(f, " from {:?}", self.source)?;
        }
        for (key, value) in &self.options {
            let equals = if value.is_some() { "=" } else { "" };
            write!(f, " {key}{equals}{}", value.as_deref().unwrap_or(""))?;
        }
        for flag in &self.kept_flags {
            write!(f, " {flag}")?;
        }
        write!(f, "{}", flags(self.attributes))?;
        f.write_str(if self.copy_up { " with what it hides" } else { "" })?;
        propagations(f, &self.propagation)
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Detached(fd) => write!(f, "{fd}"),
            Self::Host { path, recursive, changes } => {
                write!(f, "{}{}", path.display(), if *recursive { " as a tree" } else { "" })?;
                for change in changes {
                    write!(f, "{}", flags(change.set))?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for FdIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

fn propagations(
    f: &mut fmt::Formatter<'_>,
    list: &[(bulkhead_sys::mount::Propagation, bool)],
) -> fmt::Result {
    list.iter().try_for_each(|(propagation, recursive)| {
        write!(f, " {propagation:?}{}", if *recursive { " as a tree" } else { "" })
    })
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
