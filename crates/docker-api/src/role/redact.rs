//! Hiding what a client may not see in an answer of ours.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use serde_json::Value;

use crate::error::ApiError;

/// What stands in the place of a value.
const HIDDEN: &str = "***";

/// The answer of an inspect with the values of the container's environment hidden: passwords are in it.
/// Fails closed, by an error in the place of the answer.
pub(super) async fn environment(response: Response) -> Response {
    if response.status() != StatusCode::OK {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let Ok(bytes) = axum::body::to_bytes(body, usize::MAX).await else {
        return unreadable();
    };
    let Ok(mut document) = serde_json::from_slice::<Value>(&bytes) else { return unreadable() };
    hide(&mut document);
    head.headers.remove(CONTENT_LENGTH);
    Response::from_parts(head, Body::from(document.to_string()))
}

fn unreadable() -> Response {
    ApiError::internal("the answer could not be read, to hide the environment in it")
        .into_response()
}

fn hide(container: &mut Value) {
    let variables = container.pointer_mut("/Config/Env").and_then(Value::as_array_mut);
    for variable in variables.into_iter().flatten() {
        let text = variable.as_str().unwrap_or_default();
        let name = text.split_once('=').map_or(text, |(name, _)| name);
        *variable = format!("{name}={HIDDEN}").into();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_stay_and_values_go() {
        let mut container = json!({ "Config": { "Env": ["PATH=/bin", "PASSWORD=a=b", "EMPTY="] } });
        hide(&mut container);
        let expected = json!(["PATH=***", "PASSWORD=***", "EMPTY=***"]);
        assert_eq!(container["Config"]["Env"], expected);
        let mut without = json!({ "Config": { "Env": null } });
        hide(&mut without);
        assert_eq!(without["Config"]["Env"], Value::Null);
    }
}
