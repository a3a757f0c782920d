//! Answers, and errors in the specification's JSON.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// An answer to a request, or why there is none.
pub(crate) type Answer = Result<Response, Refusal>;

/// An error of the specification's table ("Error Codes"), and headers that go with it.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// Boxed, because few refusals have any.
    pub(crate) headers: Box<HeaderMap>,
}

impl Refusal {
    pub(crate) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).expect("the callers write valid statuses");
        Self { status, code, message: message.into(), headers: Box::default() }
    }

    pub(crate) fn blob_unknown() -> Self {
        Self::new(404, "BLOB_UNKNOWN", "blob unknown to registry")
    }

    pub(crate) fn manifest_unknown() -> Self {
        Self::new(404, "MANIFEST_UNKNOWN", "manifest unknown")
    }

    pub(crate) fn name_unknown() -> Self {
        Self::new(404, "NAME_UNKNOWN", "repository name not known to registry")
    }

    pub(crate) fn unsupported() -> Self {
        Self::new(405, "UNSUPPORTED", "the operation is unsupported")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let error = serde_json::json!({ "code": self.code, "message": self.message });
        let mut response = json(&serde_json::json!({ "errors": [error] }));
        *response.status_mut() = self.status;
        response.headers_mut().extend(*self.headers);
        response
    }
}

/// Trouble with the disk: told to the log, not to the client.
impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        tracing::error!("registry: {error}");
        Self::new(500, "UNKNOWN", "the registry cannot use its storage; see its log")
    }
}

impl From<bulkhead_image::ImageError> for Refusal {
    fn from(error: bulkhead_image::ImageError) -> Self {
        use bulkhead_image::ImageError;
        match error {
            ImageError::WrongDigest { .. } => {
                Self::new(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
            }
            ImageError::Missing(_) => Self::blob_unknown(),
            other => std::io::Error::other(other).into(),
        }
    }
}

pub(crate) fn json(value: &serde_json::Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A header out of names, digests and numbers, which hold no byte that a header may not.
pub(crate) fn header(value: impl ToString) -> HeaderValue {
    HeaderValue::from_str(&value.to_string()).expect("validated names are visible ASCII")
}
