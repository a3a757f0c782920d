use std::io;

use bulkhead_runtime::cgroup::CgroupError;
use bulkhead_runtime::hook::HookError;
use bulkhead_runtime::plan::PlanError;
use bulkhead_runtime::resctrl::ResctrlError;

pub type Result<T> = std::result::Result<T, Error>;

/// What a command could not do. The wording is an API: `containerd`, `dockerd` and `podman` look
/// for parts of runc's sentences.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Usage(String),
    #[error("container does not exist")]
    NoContainer,
    #[error("container with given ID already exists")]
    Exists,
    #[error("container not running")]
    NotRunning,
    #[error("{0}")]
    Refused(String),
    /// The container could not be created or its program not executed.
    #[error("{command} failed: unable to start container process: {reason}")]
    Start { command: &'static str, reason: String },
    #[error("invalid config.json: {0}")]
    Config(String),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Systemd(#[from] bulkhead_runtime::cgroup::systemd::SystemdError),
    #[error(transparent)]
    Resctrl(#[from] ResctrlError),
    #[error(transparent)]
    Hook(#[from] HookError),
    #[error("{what}: {cause}")]
    System { what: String, cause: io::Error },
}

impl Error {
    /// For `map_err`: what was being done when the kernel refused.
    pub fn system<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |cause| Self::System { what, cause: cause.into() }
    }

    pub fn exit_status(&self) -> u8 {
        match self {
            // what docker and podman take for a command that never ran
            Self::Start { command: "exec", .. } => 255,
            _ => 1,
        }
    }
}

impl From<PlanError> for Error {
    fn from(error: PlanError) -> Self {
        Self::Config(error.to_string())
    }
}
