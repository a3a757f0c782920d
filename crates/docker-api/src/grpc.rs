//! `POST /grpc`: BuildKit's protocol, which is refused in its own terms.
//!
//! buildx takes an engine that does not hand this connection over for one without a builder, and boots
//! BuildKit in a privileged container, whose images the engine never sees (buildx:
//! driver/docker/factory.go). One that answers is asked to build, and its sentence is shown.

use std::convert::Infallible;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;

use crate::Api;
use crate::error::ApiError;

const WHY: &str = "Bulkhead does not speak BuildKit's protocol yet: build with DOCKER_BUILDKIT=0 \
                   docker build, or with bulkhead build";

/// FAILED_PRECONDITION, which buildx shows; UNIMPLEMENTED it takes for an older BuildKit's.
const STATUS: HeaderValue = HeaderValue::from_static("9");

pub(crate) fn routes() -> Router<Api> {
    Router::new().route("/grpc", post(refuse))
}

async fn refuse(mut request: Request) -> Response {
    let asked = request.headers().get(UPGRADE).is_some_and(|upgrade| upgrade == "h2c");
    if !asked {
        return ApiError::unsupported(WHY).into_response();
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(connection) = upgrade.await else { return };
        let service = service_fn(async |_: Request<Incoming>| Ok::<_, Infallible>(refusal()));
        let served =
            http2::Builder::new(TokioExecutor::new()).serve_connection(connection, service);
        if let Err(error) = served.await {
            tracing::debug!("a client of BuildKit's left: {error}");
        }
    });
    let headers = [(CONNECTION, "Upgrade"), (UPGRADE, "h2c")];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// An answer without a message: its status is among its headers (gRPC over HTTP2, "Trailers-Only").
fn refusal() -> http::Response<Empty<Bytes>> {
    let mut response = http::Response::new(Empty::new());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(HeaderName::from_static("grpc-status"), STATUS);
    headers.insert(HeaderName::from_static("grpc-message"), HeaderValue::from_static(WHY));
    response
}
