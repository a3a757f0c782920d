//! `/bulkhead/…`: what Docker's API has no word for.

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use bulkhead_engine::EngineError;
use bulkhead_network::NetworkError;
use http::StatusCode;
use serde_json::{Value, json};

use crate::Api;
use crate::error::{Answer, ApiError};
use crate::request::Query;

pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/bulkhead/info", get(info))
        .route("/bulkhead/down", post(down))
        .route("/bulkhead/netns/attach", post(attach_netns))
}

async fn info(State(api): State<Api>) -> axum::Json<Value> {
    let options = api.engine.options();
    axum::Json(json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "Data": options.data,
        "Run": options.run,
        "Bridge": options.bridge,
        "FirstId": options.first_id,
    }))
}

/// Stops everything and ends the engine. Answers when the machine is clean.
async fn down(State(api): State<Api>) -> Answer<StatusCode> {
    let done = api.engine.tear_down().await;
    // Whatever was left over was reported; an engine without a warden has nothing more to do.
    let _ = api.shutdown.send(true);
    done?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /bulkhead/netns/attach?container=X&name=Y`: gives the container's network namespace a name
/// for `ip netns` and `bulkhead netns`.
async fn attach_netns(State(api): State<Api>, query: Query) -> Answer<StatusCode> {
    let container = query.text("container");
    if container.is_empty() {
        return Err(ApiError::invalid("the parameter container is missing"));
    }
    let name = match query.text("name") {
        "" => api.engine.container(container)?.name.to_string(),
        name => name.to_owned(),
    };
    let namespace = api.engine.namespace(api.engine.container_id(container)?, "net").await?;
    let attached = tokio::task::spawn_blocking(move || {
        use std::os::fd::AsFd;
        bulkhead_network::named::attach(&name, namespace.as_fd())
    });
    let attached = attached.await.map_err(|panic| ApiError::internal(panic.to_string()))?;
    attached.map_err(|error| {
        let message = error.to_string();
        ApiError::from(match error {
            NetworkError::NamespaceExists(_) => EngineError::conflict(message),
            NetworkError::InvalidNamespaceName(_) => EngineError::invalid(message),
            NetworkError::NoSuchNamespace(_) | NetworkError::NoSuchLink(_) => {
                EngineError::not_found(message)
            }
            _ => EngineError::internal(message),
        })
    })?;
    Ok(StatusCode::NO_CONTENT)
}
