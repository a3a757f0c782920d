use axum::response::{IntoResponse, Response};
use bulkhead_docker_types::{MISSING, START_STATUS};
use bulkhead_engine::{Class, EngineError, Kind};
use http::{HeaderName, HeaderValue, StatusCode};

/// An answer that is a refusal: a status and the sentence that clients show.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// The exit status that the error is about, which only streams of a build tell.
    pub(crate) code: Option<u8>,
    /// Why a program could not be started, as an exit status for clients that know the header.
    pub(crate) start_status: Option<u8>,
    /// What is not there, for clients that know that header.
    pub(crate) missing: Option<&'static str>,
    /// The whole story, for the log.
    pub(crate) log: Option<String>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: visible(&message.into()),
            code: None,
            start_status: None,
            missing: None,
            log: None,
        }
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
        let start_status = match error.kind {
            Kind::ProgramNotFound | Kind::ProgramNotExecutable => Some(error.exit_code()),
            Kind::NotRunning | Kind::ImageNotFound | Kind::Other => None,
        };
        let missing = (error.kind == Kind::ImageNotFound).then_some("image");
        Self { start_status, missing, log, ..Self::new(status(error.class), error.to_string()) }
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
        let mut response = (self.status, axum::Json(body)).into_response();
        if let Some(status) = self.start_status {
            let name = HeaderName::from_static(START_STATUS);
            response.headers_mut().insert(name, HeaderValue::from(u16::from(status)));
        }
        if let Some(missing) = self.missing {
            let name = HeaderName::from_static(MISSING);
            response.headers_mut().insert(name, HeaderValue::from_static(missing));
        }
        response
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_read_why_a_program_did_not_start_from_a_header() {
        let status = |error: EngineError| {
            let response = ApiError::from(error).into_response();
            let header = response.headers().get(START_STATUS);
            header.map(|value| value.to_str().expect("a number").to_owned())
        };
        let words = || EngineError::invalid("no such file or directory");
        let of = |kind| {
            let mut error = words();
            error.kind = kind;
            error
        };
        assert_eq!(status(of(Kind::ProgramNotFound)).as_deref(), Some("127"));
        assert_eq!(status(of(Kind::ProgramNotExecutable)).as_deref(), Some("126"));
        assert_eq!(status(words()), None);
    }

    #[test]
    fn clients_read_that_an_image_is_missing_from_a_header() {
        let missing = |kind| {
            let mut error = EngineError::not_found("in any words");
            error.kind = kind;
            let response = ApiError::from(error).into_response();
            response.headers().get(MISSING).map(|value| value.as_bytes().to_owned())
        };
        assert_eq!(missing(Kind::ImageNotFound).as_deref(), Some(&b"image"[..]));
        assert_eq!(missing(Kind::Other), None);
    }
}
