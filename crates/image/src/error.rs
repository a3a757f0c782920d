use std::io;

use bulkhead_types::Digest;

/// What can go wrong with images; each text is one sentence for the user.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("{what}: {cause}")]
    Io { what: String, cause: io::Error },
    #[error("content {0} is not here")]
    Missing(Digest),
    #[error("content does not have the digest it was asked by: expected {expected}, found {found}")]
    WrongDigest { expected: Digest, found: Digest },
    #[error("the layer is damaged or hostile: {0}")]
    BadLayer(String),
    #[error("the image is damaged: {0}")]
    BadImage(String),
    /// Worded as Docker does: `manifest for NAME not found`, `pull access denied for …`.
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Denied(String),
    #[error("registry {registry}: {message}")]
    Registry { registry: String, message: String },
}

/// Says what was being done when a call failed.
pub(crate) trait While<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, ImageError>;
}

impl<T, E: Into<io::Error>> While<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, ImageError> {
        self.map_err(|cause| ImageError::Io { what: what(), cause: cause.into() })
    }
}
