//! What the engine answers when it cannot do what was asked.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use bulkhead_types::{Chain, Id};
use rustix::io::Errno;

/// What kind of failure it is: the API's edges turn it into an HTTP status, an AWS code or an exit
/// status, each in one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    NotFound,
    Invalid,
    Conflict,
    Denied,
    Unavailable,
    Unsupported,
    Internal,
}

/// What failed, where somebody decides by it; its words are for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    #[default]
    Other,
    /// The program of a container or an exec is not there.
    ProgramNotFound,
    /// The program is there and may not, or cannot, be run.
    ProgramNotExecutable,
    /// The container does not run.
    NotRunning,
    /// The image that was named is not here; it may be elsewhere.
    ImageNotFound,
}

/// A sentence for the user, in Docker's words where clients match on them, its class, what to do
/// about it, and what it came from.
///
/// `{}` is sentence and hint; `{:#}` adds, for the log, what of the causes they do not say.
#[derive(Debug, Clone)]
pub struct EngineError {
    pub class: Class,
    pub kind: Kind,
    pub message: String,
    pub hint: Option<String>,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return write!(f, "{}", Chain(self));
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl Error for EngineError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_ref().map(|cause| &**cause as &(dyn Error + 'static))
    }
}

impl EngineError {
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, kind: Kind::Other, message: message.into(), hint: None, cause: None }
    }

    /// What the user can do about it.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    #[must_use]
    pub(crate) fn with_cause(self, cause: impl Error + Send + Sync + 'static) -> Self {
        Self { cause: Some(Arc::new(cause)), ..self }
    }

    /// Says first what was to be done: `what: sentence`.
    #[must_use]
    pub fn during(self, what: impl fmt::Display) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }

    pub(crate) fn not_running(container: Id) -> Self {
        let message = format!("container {container} is not running");
        Self { kind: Kind::NotRunning, ..Self::conflict(message) }
    }

    pub(crate) fn no_image(name: &str) -> Self {
        Self { kind: Kind::ImageNotFound, ..Self::not_found(format!("No such image: {name}")) }
    }

    /// The exit code of a container or an exec that could not be started for this reason (moby:
    /// daemon/start.go, `setExitCodeFromError`).
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::ProgramNotFound => 127,
            Kind::ProgramNotExecutable => 126,
            Kind::NotRunning | Kind::ImageNotFound | Kind::Other => 128,
        }
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Class::NotFound, message)
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Class::Invalid, message)
    }

    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Class::Conflict, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Class::Internal, message)
    }
}

impl From<bulkhead_store::StoreError> for EngineError {
    fn from(error: bulkhead_store::StoreError) -> Self {
        let class = match error {
            bulkhead_store::StoreError::InUse(_) | bulkhead_store::StoreError::Conflict => {
                Class::Conflict
            }
            _ => Class::Internal,
        };
        Self::new(class, error.to_string()).with_cause(error)
    }
}

impl From<bulkhead_image::ImageError> for EngineError {
    fn from(error: bulkhead_image::ImageError) -> Self {
        use bulkhead_image::ImageError;
        let class = match error {
            ImageError::NotFound(_) => Class::NotFound,
            ImageError::Denied(_) => Class::Denied,
            ImageError::BadLayer(_) | ImageError::BadImage(_) => Class::Invalid,
            _ => Class::Internal,
        };
        Self::new(class, error.to_string()).with_cause(error)
    }
}

impl From<bulkhead_network::NetworkError> for EngineError {
    fn from(error: bulkhead_network::NetworkError) -> Self {
        use bulkhead_network::NetworkError;
        let class = match error {
            NetworkError::NoIpv6(_)
            | NetworkError::MtuBelowIpv6 { .. }
            | NetworkError::PortFamilies(_)
            // Not "not found": clients take that for a missing image, and start to pull it.
            | NetworkError::NoSuchNamespace(_)
            | NetworkError::InvalidNamespaceName(_)
            | NetworkError::NotANamespace(_)
            | NetworkError::OwnNamespace(_) => Class::Invalid,
            NetworkError::LinkTaken(_) | NetworkError::ParentInUse(_) => Class::Conflict,
            NetworkError::NoSuchKind(_) => Class::Unavailable,
            _ => Class::Internal,
        };
        Self::new(class, error.to_string()).with_cause(error)
    }
}

impl From<bulkhead_resolver::ResolverError> for EngineError {
    fn from(error: bulkhead_resolver::ResolverError) -> Self {
        use bulkhead_resolver::ResolverError;
        let class = match error {
            ResolverError::Gone(_) | ResolverError::Start(_) => Class::Unavailable,
            ResolverError::Refused(_) | ResolverError::Protocol(_) => Class::Internal,
        };
        Self::new(class, error.to_string()).with_cause(error)
    }
}

impl From<bulkhead_warden::WardenError> for EngineError {
    fn from(error: bulkhead_warden::WardenError) -> Self {
        use bulkhead_warden::WardenError;
        let class = match error {
            // Docker answers 400 to a program that cannot be run, and clients make 126 or 127 of it.
            WardenError::Start(_) => Class::Invalid,
            WardenError::Gone(_) => Class::Unavailable,
            WardenError::Unknown(_) | WardenError::OtherVersion { .. } => Class::Conflict,
            _ => Class::Internal,
        };
        let kind = match &error {
            WardenError::Start(failure) => kind_of_start(failure),
            _ => Kind::Other,
        };
        Self { kind, ..Self::new(class, error.to_string()).with_cause(error) }
    }
}

/// By the kernel's reason, whichever step of the start it ended.
fn kind_of_start(failure: &bulkhead_warden::StartFailure) -> Kind {
    match Errno::from_raw_os_error(failure.errno) {
        Errno::NOENT => Kind::ProgramNotFound,
        Errno::ACCESS | Errno::ISDIR | Errno::NOTDIR => Kind::ProgramNotExecutable,
        _ => Kind::Other,
    }
}

impl From<bulkhead_runtime::cgroup::CgroupError> for EngineError {
    fn from(error: bulkhead_runtime::cgroup::CgroupError) -> Self {
        Self::internal(error.to_string()).with_cause(error)
    }
}

/// Says what was done to what when the kernel refused.
pub(crate) fn io_error(what: impl fmt::Display) -> impl FnOnce(std::io::Error) -> EngineError {
    move |cause| EngineError::internal(format!("{what}: {cause}")).with_cause(cause)
}

#[cfg(test)]
mod tests {
    use bulkhead_warden::{StartFailure, WardenError};

    use super::*;

    #[test]
    fn failed_starts_have_dockers_exit_codes_by_the_kernels_reason() {
        for (errno, code) in [
            (Errno::NOENT, 127),
            (Errno::ACCESS, 126),
            (Errno::ISDIR, 126),
            (Errno::NOTDIR, 126),
            (Errno::NOMEM, 128),
        ] {
            let failure =
                StartFailure { message: "permission denied".into(), errno: errno.raw_os_error() };
            let error = EngineError::from(WardenError::Start(failure));
            assert_eq!(error.exit_code(), code, "{errno}");
        }
        let words = EngineError::internal("no such file or directory");
        assert_eq!(words.exit_code(), 128, "words decide nothing");
    }

    #[test]
    fn the_log_has_what_the_sentence_leaves_out() {
        #[derive(Debug, thiserror::Error)]
        #[error("the disk")]
        struct Disk(#[source] std::io::Error);
        let io = || std::io::Error::other("worn out");
        let error = EngineError::internal("record it: the disk").with_cause(Disk(io()));
        let error = error.with_hint("change the disk").during("stop");
        assert_eq!(error.to_string(), "stop: record it: the disk; change the disk");
        assert_eq!(format!("{error:#}"), "stop: record it: the disk; change the disk: worn out");
        let said = io_error("read")(io());
        assert_eq!(format!("{said:#}"), "read: worn out");
    }
}
