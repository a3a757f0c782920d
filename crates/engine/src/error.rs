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
