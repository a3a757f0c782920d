//! The web console: pages over the control plane, rendered here, alive through one event stream.
//!
//! Pages work without a build step and almost without scripts. Nothing is served before a log-in
//! but the log-in itself and the style; every change is a POST from a page of our own.
#![forbid(unsafe_code)]

mod forms;
mod live;
mod pages;
mod plane;
mod session;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Redirect};
use axum::routing::{get, post};
use bulkhead_ecs::Control;

use plane::Plane;
use session::Sessions;

/// Answers whether a user may enter; asked on a thread that may wait.
pub trait Users: Send + Sync + 'static {
    fn check(&self, user: &str, password: &str) -> bool;
}

#[derive(Clone)]
struct Console {
    plane: Plane,
    sessions: Arc<Sessions>,
}

/// The console's routes.
pub fn router(control: Arc<Control>, users: Arc<dyn Users>) -> Router {
    let console = Console { plane: Plane::new(control, users), sessions: Arc::default() };
    let inside = Router::new()
        .route("/", get(|| async { Redirect::to("/clusters") }))
        .route("/clusters", get(pages::clusters).post(forms::create_cluster))
        .route("/clusters/{cluster}", get(pages::cluster))
        .route("/clusters/{cluster}/run-task", get(pages::run_task).post(forms::run_task))
        .route("/clusters/{cluster}/tasks/{task}", get(pages::task))
        .route("/clusters/{cluster}/tasks/{task}/stop", post(forms::stop_task))
        .route("/clusters/{cluster}/instances/{instance}", get(pages::instance))
        .route("/task-definitions", get(pages::task_definitions).post(forms::register))
        .route("/task-definitions/new", get(pages::new_task_definition))
        .route("/task-definitions/{family}/{revision}", get(pages::task_definition))
        .route("/task-definitions/{family}/{revision}/deregister", post(forms::deregister))
        .route("/live", get(live::stream))
        .route("/logout", post(session::log_out))
        .layer(from_fn_with_state(console.clone(), session::require));
    Router::new()
        .route("/login", get(session::form).post(session::log_in))
        .route("/assets/style.css", get(|| asset("text/css", include_str!("../assets/style.css"))))
        .route(
            "/assets/live.js",
            get(|| asset("text/javascript", include_str!("../assets/live.js"))),
        )
        .route(
            "/assets/icon.svg",
            get(|| asset("image/svg+xml", include_str!("../assets/icon.svg"))),
        )
        .merge(inside)
        .layer(axum::middleware::from_fn(session::guard))
        .with_state(console)
}

async fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "max-age=3600")], text)
}
