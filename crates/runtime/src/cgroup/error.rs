use std::io;

use bulkhead_types::oci::DeviceAccessRule;
use rustix::io::Errno;

/// What went wrong, with the file and the value. Where runc has words for it they are runc's.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error(
        "no cgroup hierarchy is mounted, and without one containers can be neither limited nor \
         stopped as a whole: mount it with `mount -t cgroup2 none /sys/fs/cgroup`"
    )]
    NotMounted,
    #[error("invalid cgroup path {0:?}: write an absolute path without `.` and `..`")]
    InvalidPath(String),
    #[error("bad sub cgroup path: {0}: `.` and `..` components are not allowed")]
    InvalidSubPath(String),
    #[error("unknown controller {0} in --cgroup")]
    UnknownSubController(String),
    #[error("invalid --cgroup argument: {argument} ({fault})")]
    InvalidSubArgument { argument: String, fault: &'static str },
    #[error("invalid --cgroup argument(s): controller {0} specified multiple times")]
    RepeatedSubController(String),
    #[error("this host has no cgroup controller `{controller}`, which a limit of {path} needs")]
    NoController { controller: &'static str, path: String },
    #[error("cannot set {0} limit: container could not join or create cgroup")]
    NotJoined(&'static str),
    #[error(
        "rootless needs no limits + no cgrouppath when no permission is granted for cgroups: {0}"
    )]
    RootlessLimits(#[source] Box<Self>),
    #[error("unable to set swap limit without memory limit")]
    SwapWithoutMemory,
    #[error("memory+swap limit should be >= memory limit")]
    SwapBelowMemory,
    #[error("invalid memory value: {0}")]
    InvalidMemory(i64),
    #[error("invalid memory swappiness value: {0} (valid range is 0-100)")]
    InvalidSwappiness(u64),
    #[error("rejecting {what} limit {limit} <= usage {usage}")]
    LimitBelowUsage { what: &'static str, limit: u64, usage: u64 },
    #[error("unable to set memory limit to {limit} (current usage: {usage}, peak usage: {peak})")]
    MemoryInUse { limit: String, usage: u64, peak: u64 },
    #[error("the minimum allowed cpu-shares is {0}")]
    TooFewShares(u64),
    #[error("the maximum allowed cpu-shares is {0}")]
    TooManyShares(u64),
    #[error("invalid configuration: cannot use unified on cgroup v1")]
    UnifiedOnV1,
    #[error("unified resource {0:?} must be a file name (no slashes)")]
    UnifiedName(String),
    #[error("unified resource {0:?} must be in the form CONTROLLER.PARAMETER")]
    UnifiedForm(String),
    /// Up to the semicolon as runc says it; scripts for podman look for what crun says, that a
    /// controller is not available under a directory.
    #[error(
        "unified resource {key:?} can't be set: controller {controller:?} not available; the \
         controller `{controller}` is not available under {directory}: use one that its \
         cgroup.controllers lists"
    )]
    UnifiedController { key: String, controller: String, directory: String },
    #[error("unable to set unified resource {key:?}: {cause}")]
    Unified { key: String, cause: Box<Self> },
    #[error(
        "invalid device rule {0:?}: the type is a, b or c, numbers are -1 or more, and the access \
         is of r, w and m"
    )]
    InvalidDeviceRule(Box<DeviceAccessRule>),
    #[error(
        "requested rule [{rule}] not supported by devices cgroupv1 (cannot punch hole in existing \
         wildcard rule [{wider}])"
    )]
    DeviceHole { rule: String, wider: String },
    #[error("container's cgroup is not empty: {0} process(es) found")]
    NotEmpty(usize),
    #[error("container's cgroup unexpectedly frozen")]
    Frozen,
    #[error("cannot enter cgroupv2 {directory:?} with domain controllers -- it is in {kind} mode")]
    NotDomain { directory: String, kind: String },
    #[error("cgroup {0} is in use by other processes")]
    Occupied(String),
    #[error("cgroup {0} does not exist in every hierarchy any more")]
    Gone(String),
    #[error("open {file}: {cause}")]
    Open { file: String, cause: io::Error },
    #[error("read {file}: {cause}")]
    Read { file: String, cause: io::Error },
    #[error("read {file}: unexpected content {text:?}")]
    Unexpected { file: String, text: String },
    #[error("write {value} to {file}: {cause}")]
    Write { value: String, file: String, cause: io::Error },
    #[error("mkdir {directory}: {cause}")]
    Create { directory: String, cause: io::Error },
    #[error("rmdir {directory}: {cause}")]
    Remove { directory: String, cause: io::Error },
    #[error("chown {file}: {cause}")]
    Delegate { file: String, cause: io::Error },
    #[error("restrict devices in {directory} by a BPF program: {cause}")]
    Devices { directory: String, cause: io::Error },
    #[error("cgroup {path} was not {wanted} within {seconds} seconds")]
    Timeout { path: String, wanted: &'static str, seconds: u64 },
    #[error("signal the processes of cgroup {path}: {cause}")]
    Signal { path: String, cause: io::Error },
}

impl CgroupError {
    /// Whether it is for want of permission, in a wide sense: an unprivileged user also finds
    /// hierarchies mounted read-only.
    pub(super) fn is_permission(&self) -> bool {
        let (Self::Open { cause, .. }
        | Self::Read { cause, .. }
        | Self::Write { cause, .. }
        | Self::Create { cause, .. }) = self
        else {
            return false;
        };
        [Errno::PERM, Errno::ACCESS, Errno::ROFS]
            .iter()
            .any(|errno| cause.raw_os_error() == Some(errno.raw_os_error()))
    }

    /// Whether it is because the group was removed meanwhile: a file of an open directory says
    /// `ENOENT` then, one that was opened before `ENODEV`.
    pub(super) fn is_gone(&self) -> bool {
        let (Self::Read { cause, .. } | Self::Write { cause, .. }) = self else { return false };
        [Errno::NOENT, Errno::NODEV]
            .iter()
            .any(|errno| cause.raw_os_error() == Some(errno.raw_os_error()))
    }
}
