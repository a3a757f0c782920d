//! Docker's Engine API over HTTP, for the unmodified docker CLI, docker-py, bollard and Compose.
//!
//! Requests become the engine's types once, at the edge, with every default filled in; answers have
//! the shape that Docker 28 gives them (API 1.24 to 1.51). What Docker's API has no word for is
//! below `/bulkhead/`. Facts about the protocol come from moby v28.5.2 and from a real dockerd.
#![forbid(unsafe_code)]
// json! recurses once for every few tokens, and `docker info` has many.
#![recursion_limit = "512"]

mod auth;
mod bodies;
mod build;
mod carry;
mod clock;
mod container;
mod decode;
mod detach;
mod drain;
mod error;
mod events;
mod extension;
mod fields;
mod filters;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod grpc;
mod hijack;
mod image;
mod lines;
mod network;
mod request;
mod request_line;
mod role;
mod server;
mod swarm;
mod system;
mod tls;
mod version;
mod volume;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use bulkhead_build_service::BuildService;
use bulkhead_buildkit::BuildKit;
use bulkhead_engine::Engine;
use tokio::sync::watch;

use crate::error::ApiError;

pub use role::{InvalidRole, Role};
pub use server::{Listener, listen, serve};
pub use tls::{Tls, TlsError, TlsFiles};

/// What every handler needs.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    engine: Arc<Engine>,
    buildkit: BuildKit,
    shutdown: watch::Sender<bool>,
}

/// Removes what builds of the program before this one have left; before the first of [`router`].
pub fn sweep(engine: &Arc<Engine>) {
    BuildService::new(Arc::clone(engine)).sweep_contexts();
}

/// The API over `engine`, as far as `role` allows. `shutdown` becomes true when a client asks the
/// program to end.
pub fn router(engine: Arc<Engine>, shutdown: watch::Sender<bool>, role: Role) -> Router {
    let routes = complete(routes(Arc::clone(&engine), shutdown));
    if !role.is_limited() {
        return with_layers(routes);
    }
    let limits = role::Limits { engine, role: Arc::new(role) };
    let limited = Router::new()
        .fallback_service(routes)
        .layer(axum::middleware::from_fn_with_state(limits, role::layer));
    with_layers(limited)
}

fn routes(engine: Arc<Engine>, shutdown: watch::Sender<bool>) -> Router {
    let buildkit = BuildKit::new(BuildService::new(Arc::clone(&engine)));
    Router::new()
        .merge(system::routes())
        .merge(container::routes())
        .merge(image::routes())
        .merge(build::routes())
        .merge(grpc::routes())
        .merge(network::routes())
        .merge(volume::routes())
        .merge(swarm::routes())
        .merge(extension::routes())
        .route("/auth", axum::routing::post(auth::log_in))
        .with_state(Api { engine, buildkit, shutdown })
}

/// Adds what needs no engine.
fn complete(routes: Router) -> Router {
    routes
        .route("/_ping", get(system::ping).head(system::ping))
        .fallback(async || ApiError::page_not_found())
        .method_not_allowed_fallback(async || ApiError::page_not_found())
}

/// Serves `routes` with and without a version before the path. That is rewritten before the routes are
/// looked at, so they are a service below.
fn with_layers(routes: Router) -> Router {
    Router::new()
        .fallback_service(routes)
        .layer(axum::middleware::from_fn(version::layer))
        .layer(axum::middleware::from_fn(drain::layer))
}

#[cfg(test)]
mod tests;
