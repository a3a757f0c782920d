//! Swarm and plugins, which Bulkhead does not have, answered so that clients go on.

use axum::Router;
use axum::routing::{any, get};
use http::StatusCode;
use serde_json::{Value, json};

use crate::Api;
use crate::error::ApiError;

pub(crate) fn routes() -> Router<Api> {
    let families = ["swarm", "nodes", "services", "tasks", "secrets", "configs"];
    families
        .iter()
        .fold(Router::new(), |router, family| {
            router
                .route(&format!("/{family}"), any(no_manager))
                .route(&format!("/{family}/{{*rest}}"), any(no_manager))
        })
        .route("/plugins", get(no_plugins))
        .route("/plugins/{*rest}", any(no_plugin))
}

async fn no_manager() -> ApiError {
    ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to \
         connect this node to swarm and try again.",
    )
}

async fn no_plugins() -> axum::Json<Value> {
    axum::Json(json!([]))
}

async fn no_plugin() -> ApiError {
    ApiError::unsupported("plugins are not supported by Bulkhead")
}
