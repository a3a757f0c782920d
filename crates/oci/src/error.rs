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
    #[error("{what}: {}", spelled(cause))]
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

/// As Go spells it, which is what the callers look for: "no such file or directory", without the
/// number behind it.
fn spelled(cause: &io::Error) -> String {
    let text = cause.to_string();
    match cause.raw_os_error() {
        None => text,
        Some(_) => text.split(" (os error").next().unwrap_or_default().to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn causes_are_spelled_as_go_does() {
        let error = Error::system("open /x")(Errno::NOENT);
        assert_eq!(error.to_string(), "open /x: no such file or directory");
        let error = Error::system("read /x")(io::Error::other("Two words"));
        assert_eq!(error.to_string(), "read /x: Two words");
    }
}
