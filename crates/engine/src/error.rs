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

/// A sentence for the user, in Docker's words where clients match on them, and its class.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    pub class: Class,
    pub message: String,
}

impl EngineError {
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into() }
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
        Self::new(class, error.to_string())
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
        Self::new(class, error.to_string())
    }
}

impl From<bulkhead_network::NetworkError> for EngineError {
    fn from(error: bulkhead_network::NetworkError) -> Self {
        Self::internal(error.to_string())
    }
}

impl From<bulkhead_warden::WardenError> for EngineError {
    fn from(error: bulkhead_warden::WardenError) -> Self {
        use bulkhead_warden::WardenError;
        let class = match error {
            // Docker answers 400 to a program that cannot be run, and clients make 126 or 127 of it.
            WardenError::Start(_) => Class::Invalid,
            WardenError::Gone(_) => Class::Unavailable,
            WardenError::Unknown(_) => Class::Conflict,
            _ => Class::Internal,
        };
        Self::new(class, error.to_string())
    }
}

impl From<bulkhead_runtime::cgroup::CgroupError> for EngineError {
    fn from(error: bulkhead_runtime::cgroup::CgroupError) -> Self {
        Self::internal(error.to_string())
    }
}

/// Says what was done to what when the kernel refused.
pub(crate) fn io_error(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> EngineError {
    move |cause| EngineError::internal(format!("{what}: {cause}"))
}
