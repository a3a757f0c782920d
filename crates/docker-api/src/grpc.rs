//! `POST /grpc` and `POST /session`: connections that become BuildKit's, in both directions.
//!
//! buildx takes an engine that does not hand these over for one without a builder, and boots BuildKit in a
//! privileged container, whose images the engine never sees (buildx: driver/docker/factory.go).

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bulkhead_buildkit::SessionOffer;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::Api;
use crate::error::{Answer, ApiError};

pub(crate) fn routes() -> Router<Api> {
    Router::new().route("/grpc", post(serve)).route("/session", post(attach))
}

async fn serve(State(api): State<Api>, mut request: Request) -> Answer<Response> {
    let upgrade = upgrade(&mut request)?;
    tokio::spawn(async move {
        if let Ok(connection) = upgrade.await {
            api.buildkit.serve(TokioIo::new(connection)).await;
        }
    });
    Ok(switching())
}

async fn attach(State(api): State<Api>, mut request: Request) -> Answer<Response> {
    let offer = offer(request.headers())?;
    let upgrade = upgrade(&mut request)?;
    tokio::spawn(async move {
        if let Ok(connection) = upgrade.await {
            api.buildkit.attach(offer, TokioIo::new(connection)).await;
        }
    });
    Ok(switching())
}

fn upgrade(request: &mut Request) -> Result<OnUpgrade, ApiError> {
    let asked = request.headers().get(UPGRADE).is_some_and(|upgrade| upgrade == "h2c");
    match asked {
        true => Ok(hyper::upgrade::on(request)),
        false => Err(ApiError::invalid("this request needs the header Upgrade: h2c")),
    }
}

fn switching() -> Response {
    let headers = [(CONNECTION, "Upgrade"), (UPGRADE, "h2c")];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

fn offer(headers: &HeaderMap) -> Result<SessionOffer, ApiError> {
    let all = |name: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.map(str::to_owned).collect::<Vec<_>>()
    };
    let id = all("x-docker-expose-session-uuid").pop().filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| {
        ApiError::invalid("a session needs the header X-Docker-Expose-Session-Uuid")
    })?;
    let methods = all("x-docker-expose-session-grpc-method").into_iter().collect();
    Ok(SessionOffer { id, methods })
}
