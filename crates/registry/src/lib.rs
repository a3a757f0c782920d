//! A registry server for the OCI distribution specification, on a content store of its own.
//!
//! Blobs are shared between repositories on disk, but a repository answers only for those that
//! were uploaded or mounted into it: knowing a digest opens nothing.
#![forbid(unsafe_code)]

mod answer;
mod blobs;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod lists;
mod manifests;
mod referrers;
mod request;
mod route;
mod serve;
mod store;
mod uploads;

use std::path::Path;
use std::sync::Arc;

use store::Store;
use uploads::Uploads;

/// Answers whether a user may enter.
pub trait Users: Send + Sync + 'static {
    /// Called where it may take its time, as a password hash does.
    fn check(&self, user: &str, password: &str) -> bool;
}

/// What every request works on.
pub(crate) struct Registry {
    store: Store,
    uploads: Uploads,
    users: Arc<dyn Users>,
}

/// The routes of the registry (`/v2/…`) over the directory `storage`, behind HTTP basic
/// authentication.
///
/// One process owns the directory. What a crash left unfinished in it is removed here.
pub fn router(storage: &Path, users: Arc<dyn Users>) -> Result<axum::Router, std::io::Error> {
    let registry =
        Arc::new(Registry { store: Store::open(storage)?, uploads: Uploads::default(), users });
    Ok(axum::Router::new()
        .route("/v2", axum::routing::any(serve::serve))
        .route("/v2/", axum::routing::any(serve::serve))
        .route("/v2/{*rest}", axum::routing::any(serve::serve))
        .with_state(registry))
}
