//! A registry server for the OCI distribution specification, on a content store of its own.
#![forbid(unsafe_code)]
#![allow(clippy::todo, unused_variables)]

use std::path::Path;
use std::sync::Arc;

/// Answers whether a user may enter.
pub trait Users: Send + Sync + 'static {
    fn check(&self, user: &str, password: &str) -> bool;
}

/// The routes of the registry (`/v2/…`) over the directory `storage`, behind HTTP basic
/// authentication.
pub fn router(storage: &Path, users: Arc<dyn Users>) -> Result<axum::Router, std::io::Error> {
    todo!()
}
