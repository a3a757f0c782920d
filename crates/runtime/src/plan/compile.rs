use std::ffi::CString;
use std::path::PathBuf;

use bulkhead_sys::process::{Arguments, CLONE_NEWCGROUP, CLONE_NEWUSER};
use rustix::process::{Resource, Rlimit};

use crate::cgroup::Hierarchies;

use super::{Entrance, KINDS, Plan, Program, Step, Tree};
use crate::capabilities::CapabilitySets;
use crate::landlock::LandlockError;
use crate::seccomp::{self, SeccompError};
use crate::{ContainerSpec, FdIndex, Namespaces, ProcessSpec, Source, defaults};

mod mounts;

pub(super) use mounts::cgroup_steps;
use mounts::mount_steps;

/// What plans need to know of the host; read once.
#[derive(Debug, Clone, Default)]
pub struct Host {
    pub cgroups: Vec<CgroupHierarchy>,
    /// [`Layout::v2_flags`](crate::cgroup::Layout), where a container may share the host's cgroup
    /// namespace. In one of its own the kernel ignores them.
    pub cgroup2_flags: Vec<String>,
}

/// A cgroup hierarchy that the host has mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CgroupHierarchy {
    /// `cpu,cpuacct` or `name=systemd`.
    V1(String),
    V2,
}

impl From<&Hierarchies> for Host {
    /// What is mounted, rather than what the kernel knows: a view of cgroup v2 alone is one.
    fn from(hierarchies: &Hierarchies) -> Self {
        let v1 = hierarchies.v1().map(|controllers| CgroupHierarchy::V1(controllers.join(",")));
        let v2 = hierarchies.has_v2().then_some(CgroupHierarchy::V2);
        Self { cgroups: v1.chain(v2).collect(), cgroup2_flags: Vec::new() }
    }
}

impl Host {
    /// Reads the text of `/proc/self/cgroup`, cgroups(7): `4:cpu,cpuacct:/path` for each hierarchy
    /// of v1, `0::/path` for v2.
    pub fn parse(proc_self_cgroup: &str) -> Self {
        let hierarchy = |line: &str| {
            let mut fields = line.split(':');
            match (fields.next()?, fields.next()?) {
                ("0", "") => Some(CgroupHierarchy::V2),
                (_, "") => None,
                (_, controllers) => Some(CgroupHierarchy::V1(controllers.to_owned())),
            }
        };
        let cgroups = proc_self_cgroup.lines().filter_map(hierarchy).collect();
        Self { cgroups, cgroup2_flags: Vec::new() }
    }
}

/// A specification that no process can be made of.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    #[error(transparent)]
    Landlock(#[from] LandlockError),
    #[error("no command specified")]
    NoCommand,
    #[error("{0:?} holds a zero byte")]
    ZeroByte(String),
    #[error("the mount namespace of a container cannot be another's")]
    SharedMounts,
    #[error("a container with a user namespace of its own needs a range of ids")]
    NoIds,
    #[error("{0:?} is not an absolute path")]
    Relative(String),
    #[error("invalid ulimit type: {0}")]
    UnknownLimit(String),
    #[error("invalid sysctl name: {0:?}")]
    Sysctl(String),
    #[error("{0}")]
    Invalid(String),
}

/// Whether a process outlives the warden that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// Another warden goes on with it.
    Own,
    /// Nobody else knows of it: at the end of the one that made it, also in the middle of this, there
    /// is nobody who could tell of it or end it.
    OfWarden,
}

impl Plan {
    /// Compiles the first process of a container.
    pub fn container(spec: &ContainerSpec, host: &Host) -> Result<Self, PlanError> {
        if spec.namespaces.mnt != Source::Private {
            return Err(PlanError::SharedMounts);
        }
        if spec.namespaces.user == Source::Private && spec.id_range.is_none() {
            return Err(PlanError::NoIds);
        }
        let sources = sources(&spec.namespaces);
        let of = |wanted: Source| {
            let those = sources.iter().filter(move |(_, source)| *source == wanted);
            those.fold(0, |all, (kind, _)| all | kind)
        };
        let private = of(Source::Private);
        let joined = sources.iter().filter_map(|(kind, source)| match source {
            Source::Join(fd) => Some((*fd, *kind)),
            _ => None,
        });

        let mut steps = Vec::with_capacity(64);
        steps.extend(spec.cgroup_v1_procs.iter().map(|&procs| Step::JoinCgroup { procs }));
        if private & CLONE_NEWCGROUP != 0 {
            // Only now: the namespace's root is the cgroup that its maker is in.
            steps.push(Step::NewCgroupNamespace);
        }
        if spec.namespaces.user != Source::Host {
            steps.push(Step::BecomeRoot { keep_groups: false });
        }
        steps.push(Step::AttachRoot { root: Tree::Detached(spec.rootfs), at: "/root".into() });
        if !spec.sysctls.is_empty() {
            steps.push(Step::OpenProc);
        }
        for mount in &spec.mounts {
            mount_steps(mount, host, &spec.cgroup_v1_groups, &mut steps)?;
        }
        for device in &spec.devices {
            steps.push(Step::Device { mount: device.fd, target: absolute(&device.path)? });
        }
        if spec.mounts.iter().any(|mount| mount.target == "/dev") {
            let links = defaults::DEVICE_LINKS.iter();
            steps.extend(links.map(|(path, to)| Step::Link {
                path: path.into(),
                to: (*to).into(),
                replace: false,
            }));
        }
        if spec.process.terminal {
            let (rows, columns) = spec.process.terminal_size;
            steps.push(Step::OpenTerminal { rows, columns, console: true });
        }
        for path in &spec.readonly_paths {
            steps.push(Step::MakeReadonly { path: absolute(path)? });
        }
        for path in &spec.masked_paths {
            steps.push(Step::Mask { path: absolute(path)? });
        }
        let directory = &spec.process.working_directory;
        if !matches!(directory.as_str(), "" | "/") {
            steps.push(Step::MakeDirectory { path: absolute(directory)? });
        }
        if spec.rootfs_readonly {
            steps.push(Step::SealRoot);
        }
        steps.push(Step::EnterRoot(Entrance::Pivot));
        if spec.namespaces.uts == Source::Private {
            steps.push(Step::Hostname(spec.hostname.clone()));
            if !spec.domainname.is_empty() {
                steps.push(Step::Domainname(spec.domainname.clone()));
            }
        }
        steps.push(Step::AwaitGo);
        for (name, value) in &spec.sysctls {
            let (name, path, value) = (name.clone(), sysctl_path(name)?, value.clone());
            steps.push(Step::Sysctl { name, path, value });
        }
        Self {
            namespaces: private & !CLONE_NEWCGROUP,
            joined: joined.collect(),
            ..Self::process(&spec.process, Life::Own)?
        }
        .after(steps)
    }

    /// Compiles one more process of a running container, which its parent brings into `namespaces`.
    pub fn exec(
        process: &ProcessSpec,
        cgroup_v1_procs: &[FdIndex],
        namespaces: i32,
    ) -> Result<Self, PlanError> {
        let mut steps = Vec::with_capacity(24);
        // Before its root: the files of the host are opened by then, but the warden's copy of the
        // cgroup would count what the process does.
        steps.extend(cgroup_v1_procs.iter().map(|&procs| Step::JoinCgroup { procs }));
        if namespaces & CLONE_NEWUSER != 0 {
            steps.push(Step::BecomeRoot { keep_groups: false });
        }
        if process.terminal {
            let (rows, columns) = process.terminal_size;
            steps.push(Step::OpenTerminal { rows, columns, console: false });
        }
        Self::process(process, Life::OfWarden)?.after(steps)
    }

    fn process(process: &ProcessSpec, life: Life) -> Result<Self, PlanError> {
        let name = process.arguments.first().filter(|it| !it.is_empty());
        let name = name.ok_or(PlanError::NoCommand)?.clone();
        let directory = match process.working_directory.as_str() {
            "" => PathBuf::from("/"),
            directory => absolute(directory)?,
        };
        let filter = seccomp::compile(&process.seccomp, process.capabilities)?;
        let filtered = filter.is_some();
        let no_new_privileges = process.no_new_privileges;
        let mut steps = vec![
            Step::Session { terminal: process.terminal },
            Step::LookUpUser(process.user.clone()),
            Step::WorkingDirectory(directory),
            Step::NewKeyring,
            Step::CloseDescriptors { first: 3, umask: 0o022 },
        ];
        let mut limits: Vec<_> = process.rlimits.iter().map(limit).collect::<Result<_, _>>()?;
        steps.extend(put_off_few_files(&mut limits));
        steps.push(Step::BoundingSet(process.capabilities));
        // Without no_new_privs a filter takes CAP_SYS_ADMIN, which the next steps give away; with
        // it the filter comes last, so that it need not allow them.
        // Before the filter, which need not allow its calls. What is said below of a filter goes for
        // it as well.
        let landlock = || process.landlock.clone().map(Step::Landlock);
        if !no_new_privileges {
            steps.extend(landlock());
            if filtered {
                steps.push(Step::Filter);
            }
        }
        steps.push(Step::SetIdentity { keep_capabilities: false, keep_groups: false });
        let sets = CapabilitySets::without_inheritance(process.capabilities);
        steps.push(Step::SetCapabilities(sets));
        if life == Life::OfWarden {
            steps.push(Step::EndWithParent);
        }
        if no_new_privileges {
            steps.push(Step::NoNewPrivileges);
            steps.extend(landlock());
            if filtered {
                steps.push(Step::Filter);
            }
        }
        if process.init {
            steps.push(Step::Init);
        }
        let searched = !name.contains('/');
        steps
            .push(Step::Execute { candidates: candidates(&name, &process.environment)?, searched });

        Ok(Self {
            namespaces: 0,
            joined: Vec::new(),
            time_offsets: String::new(),
            waits: true,
            limits,
            oom_score_adj: process.oom_score_adj,
            steps,
            program: Program {
                name,
                arguments: strings(&process.arguments)?,
                environment: strings(&process.environment)?,
                wants_home: !process.environment.iter().any(|it| it.starts_with("HOME=")),
                filter,
            },
        })
    }

    pub(super) fn after(mut self, mut steps: Vec<Step>) -> Result<Self, PlanError> {
        steps.append(&mut self.steps);
        Ok(Self { steps, ..self })
    }
}

fn sources(namespaces: &Namespaces) -> Vec<(i32, Source)> {
    let source = |name: &str| match name {
        "user" => namespaces.user,
        "pid" => namespaces.pid,
        "net" => namespaces.net,
        "ipc" => namespaces.ipc,
        "mnt" => namespaces.mnt,
        "uts" => namespaces.uts,
        "cgroup" => namespaces.cgroup,
        _ => namespaces.time,
    };
    KINDS.iter().map(|(kind, name)| (*kind, source(name))).collect()
}

/// `net.ipv4.ip_forward` is `net/ipv4/ip_forward`; as in sysctl(8), a name whose first separator is
/// a slash is a path already, and its dots belong to a name such as `eth0.100`.
pub(super) fn sysctl_path(name: &str) -> Result<PathBuf, PlanError> {
    let path = match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => name.to_owned(),
        _ => name
            .chars()
            .map(|letter| match letter {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
    };
    let good = |part: &str| !matches!(part, "" | "." | "..");
    if path.split('/').all(good) { Ok(path.into()) } else { Err(PlanError::Sysctl(name.into())) }
}

/// Where the program may be: itself if it has a slash, otherwise in each directory of `PATH`.
pub(super) fn candidates(name: &str, environment: &[String]) -> Result<Vec<CString>, PlanError> {
    if name.contains('/') {
        return Ok(vec![string(name)?]);
    }
    let default = &defaults::PATH["PATH=".len()..];
    // the last one counts, as in getenv(3) of most C libraries and in Docker
    let path = environment.iter().rev().find_map(|it| it.strip_prefix("PATH="));
    let directories = path.unwrap_or(default).split(':');
    directories
        .map(|directory| match directory {
            "" => string(&format!("./{name}")),
            directory => string(&format!("{directory}/{name}")),
        })
        .collect()
}

/// A limit of open files that is too low for what the walk itself opens is set at its end, by the
/// process, which needs no privilege to lower one. What is left to the parent allows that.
fn put_off_few_files(limits: &mut Vec<(Resource, Rlimit)>) -> Option<Step> {
    const ENOUGH: u64 = 512;
    let is_few = |value: Option<u64>| value.is_some_and(|most| most < ENOUGH);
    let at = limits
        .iter()
        .position(|(resource, limit)| *resource == Resource::Nofile && is_few(limit.current))?;
    let (soft, hard) = (limits[at].1.current, limits[at].1.maximum);
    if hard < soft && hard.is_some() {
        // the parent is told what is wrong with it before anything is done
        return None;
    }
    if is_few(hard) {
        limits.remove(at);
    } else {
        limits[at].1.current = hard;
    }
    Some(Step::OpenFiles { soft, hard })
}

pub(super) fn limit(
    (name, soft, hard): &(String, u64, u64),
) -> Result<(Resource, Rlimit), PlanError> {
    let resource = match name.as_str() {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return Err(PlanError::UnknownLimit(name.clone())),
    };
    let value = |value: u64| (value != u64::MAX).then_some(value);
    Ok((resource, Rlimit { current: value(*soft), maximum: value(*hard) }))
}

pub(super) fn absolute(path: &str) -> Result<PathBuf, PlanError> {
    if path.contains('\0') {
        return Err(PlanError::ZeroByte(path.to_owned()));
    }
    let path = PathBuf::from(path);
    let relative = |path: &PathBuf| PlanError::Relative(path.display().to_string());
    if path.is_absolute() { Ok(path) } else { Err(relative(&path)) }
}

pub(super) fn string(text: &str) -> Result<CString, PlanError> {
    CString::new(text).map_err(|_| PlanError::ZeroByte(text.to_owned()))
}

pub(super) fn strings(texts: &[String]) -> Result<Arguments, PlanError> {
    Ok(Arguments::new(texts.iter().map(|text| string(text)).collect::<Result<_, _>>()?))
}
