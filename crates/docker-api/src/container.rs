//! `/containers` and `/exec`.

mod archive;
pub(crate) mod create;
mod defaults;
mod endpoints;
mod exec;
mod found;
mod host_config;
mod lifecycle;
pub(crate) mod list;
mod session;
mod stats;
mod streams;
mod update;
mod view;
mod websocket;

use axum::Router;
use axum::routing::{delete, get, post};

use crate::Api;

pub(crate) use endpoints::{mac, read as read_endpoint};

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/containers/create", post(create::create))
        .route("/containers/json", get(list::list))
        .route("/containers/prune", post(lifecycle::prune))
        .route("/containers/{id}", delete(lifecycle::remove))
        .route("/containers/{id}/{alias}", delete(lifecycle::remove_link))
        .route("/containers/{id}/json", get(lifecycle::inspect))
        .route("/containers/{id}/start", post(lifecycle::start))
        .route("/containers/{id}/stop", post(lifecycle::stop))
        .route("/containers/{id}/restart", post(lifecycle::restart))
        .route("/containers/{id}/kill", post(lifecycle::kill))
        .route("/containers/{id}/pause", post(lifecycle::pause))
        .route("/containers/{id}/unpause", post(lifecycle::unpause))
        .route("/containers/{id}/rename", post(lifecycle::rename))
        .route("/containers/{id}/resize", post(lifecycle::resize))
        .route("/containers/{id}/top", get(lifecycle::top))
        .route("/containers/{id}/wait", post(streams::wait))
        .route("/containers/{id}/attach", post(streams::attach))
        .route("/containers/{id}/attach/ws", get(websocket::attach))
        .route("/containers/{id}/logs", get(streams::logs))
        .route("/containers/{id}/stats", get(stats::stats))
        .route("/containers/{id}/archive", get(archive::get).head(archive::stat).put(archive::put))
        .route("/containers/{id}/changes", get(lifecycle::changes))
        .route("/containers/{id}/update", post(update::update))
        .route("/containers/{id}/export", get(archive::export))
        .route("/containers/{id}/exec", post(exec::create))
        .route("/bulkhead/containers/json", get(list::table))
        .route("/bulkhead/containers/run", post(session::run))
        .route("/bulkhead/containers/{id}/exec", post(session::exec))
        .route("/exec/{id}/start", post(exec::start))
        .route("/exec/{id}/resize", post(exec::resize))
        .route("/exec/{id}/json", get(exec::inspect))
}
