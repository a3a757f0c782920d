use axum::response::{IntoResponse, Response};
use bulkhead_engine::{Class, EngineError};
use http::StatusCode;

/// An answer that is a refusal: a status and the sentence that clients show.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// The exit status that the error is about, which only streams of a build tell.
    pub(crate) code: Option<u8>,
    /// The whole story, for the log.
    pub(crate) log: Option<String>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: visible(&message.into()), code: None, log: None }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A value that its own type refuses.
    pub(crate) fn invalid_value(error: impl std::fmt::Display) -> Self {
        Self::invalid(error.to_string())
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// What any path or method that the API does not have answers (moby: api/server/server.go).
    pub(crate) fn page_not_found() -> Self {
        Self::not_found("page not found")
    }
}

/// The one table from an error's class to its HTTP status (moby: api/server/httpstatus/status.go).
fn status(class: Class) -> StatusCode {
    match class {
        Class::NotFound => StatusCode::NOT_FOUND,
        Class::Invalid => StatusCode::BAD_REQUEST,
        Class::Conflict => StatusCode::CONFLICT,
        Class::Denied => StatusCode::FORBIDDEN,
        Class::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Class::Unsupported => StatusCode::NOT_IMPLEMENTED,
        Class::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let log = Some(visible(&format!("{error:#}")));
        Self { log, ..Self::new(status(error.class), error.to_string()) }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status.is_server_error() && self.status != StatusCode::NOT_IMPLEMENTED {
            tracing::warn!(
                status = self.status.as_u16(),
                "{}",
                self.log.as_ref().unwrap_or(&self.message)
            );
        }
        let body = serde_json::json!({ "message": self.message });
        (self.status, axum::Json(body)).into_response()
    }
}

/// What a handler gives back.
pub(crate) type Answer<T = Response> = Result<T, ApiError>;

/// What a client sends back to it in a message does nothing to its terminal: control characters are
/// written as escapes.
fn visible(message: &str) -> String {
    let is_shown = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    let mut text = String::with_capacity(message.len());
    for c in message.chars() {
        if is_shown(c) { text.push(c) } else { text.extend(c.escape_default()) }
    }
    text
}
