use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{Response, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use bulkhead_ecs::Control;
use serde::Deserialize;

use crate::answer::{Dialect, Refusal, request_id};
use crate::authentication::{AccessKeys, authenticate};
use crate::query::Parameters;
use crate::{acs_server, ecs_operations, query, tcs_server};
use bulkhead_types::Chain;

/// The API as a router: `POST /` for the services, `GET /ws` for agents.
pub fn router(control: Arc<Control>, credentials: Arc<dyn AccessKeys>) -> Router {
    let server = Server { control, credentials };
    Router::new().route("/", post(answer)).route("/ws", get(connect)).with_state(server)
}

#[derive(Clone)]
struct Server {
    control: Arc<Control>,
    credentials: Arc<dyn AccessKeys>,
}

async fn answer(State(server): State<Server>, request: Request) -> Response<Body> {
    let id = request_id();
    let (parts, body) = request.into_parts();
    let form = header_text(&parts, "content-type").starts_with("application/x-www-form-urlencoded");
    // the dialect for refusals before the service is known
    let dialect = if form { Dialect::Query } else { Dialect::Json };
    let body = match axum::body::to_bytes(body, LARGEST_BODY).await {
        Ok(body) => body,
        Err(_) => {
            let refusal = Refusal::new(
                "RequestEntityTooLarge",
                "The request is larger than 4 MiB, or it broke off.",
            );
            return dialect.refuse(&id, &refusal);
        }
    };
    // reads of the store are quick, but a commit waits for the disk
    let worker = tokio::task::spawn_blocking(move || server.perform(&parts, &body, &id, dialect));
    match worker.await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(error = %Chain(&error), "an operation panicked");
            let refusal =
                Refusal::new("ServerException", "The control plane failed; its log says why.");
            dialect.refuse(&request_id(), &refusal)
        }
    }
}

impl Server {
    fn perform(&self, parts: &Parts, body: &Bytes, id: &str, dialect: Dialect) -> Response<Body> {
        let verified = match authenticate(&*self.credentials, parts, body) {
            Ok(verified) => verified,
            Err(rejected) => {
                tracing::warn!(%rejected, "refused a request");
                return dialect.refuse(id, &rejected.into());
            }
        };
        // the credential scope says which service is meant: it is signed, and every protocol has it
        let (dialect, result) = match &*verified.service {
            "ecs" => (Dialect::Json, self.perform_ecs(parts, body)),
            "sts" => (Dialect::Query, query::sts(&self.control, &Parameters::read(body), id)),
            "ec2" => (Dialect::Ec2, query::ec2(&self.control, &Parameters::read(body), id)),
            other => {
                let message =
                    format!("Bulkhead does not offer the service '{other}': use ecs, sts or ec2.");
                (dialect, Err(Refusal::new("UnknownOperationException", message)))
            }
        };
        match result {
            Ok(body) => dialect.success(id, body),
            Err(refusal) => {
                tracing::debug!(
                    code = refusal.code,
                    message = refusal.message,
                    "refused an operation"
                );
                dialect.refuse(id, &refusal)
            }
        }
    }

    fn perform_ecs(&self, parts: &Parts, body: &Bytes) -> Result<String, Refusal> {
        let target = header_text(parts, "x-amz-target");
        let Some(("AmazonEC2ContainerServiceV20141113", operation)) = target.split_once('.') else {
            return Err(Refusal::new(
                "UnknownOperationException",
                "X-Amz-Target must be AmazonEC2ContainerServiceV20141113 and an operation.",
            ));
        };
        let host = header_text(parts, header::HOST.as_str());
        let output = ecs_operations::perform(&self.control, operation, body, host)?;
        tracing::debug!(operation, "performed");
        Ok(output.to_string())
    }
}

/// What agents put into the address of their websockets: the first three for ACS, the last two for TCS.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Address {
    cluster_arn: Option<String>,
    container_instance_arn: Option<String>,
    container_instance: Option<String>,
}

async fn connect(State(server): State<Server>, request: Request) -> Response<Body> {
    let id = request_id();
    let (mut parts, _) = request.into_parts();
    if let Err(rejected) = authenticate(&*server.credentials, &parts, b"") {
        tracing::warn!(%rejected, "refused an agent's connection");
        return Dialect::Json.refuse(&id, &rejected.into());
    }
    let address = match Query::<Address>::try_from_uri(&parts.uri) {
        Ok(Query(address)) => address,
        Err(error) => {
            return Dialect::Json
                .refuse(&id, &Refusal::new("InvalidParameterException", error.to_string()));
        }
    };
    let upgrade = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(upgrade) => upgrade.max_message_size(LARGEST_BODY),
        Err(rejection) => return rejection.into_response(),
    };
    if let Some(instance) = address.container_instance_arn {
        return upgrade.on_upgrade(move |socket| {
            acs_server::serve(socket, server.control, address.cluster_arn, instance)
        });
    }
    if let Some(instance) = address.container_instance {
        return upgrade
            .on_upgrade(move |socket| tcs_server::serve(socket, server.control, instance));
    }
    let message =
        "The address must name a containerInstanceArn (ACS) or a containerInstance (TCS).";
    Dialect::Json.refuse(&id, &Refusal::new("InvalidParameterException", message))
}

fn header_text<'a>(parts: &'a Parts, name: &str) -> &'a str {
    parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// A task definition is at most 64 KB and a frame of an agent not much more; this leaves room.
const LARGEST_BODY: usize = 4 << 20;
