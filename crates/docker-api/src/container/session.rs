//! `/bulkhead/containers/…`: a process from its creation to its end, on one connection.
//!
//! `docker run` makes four requests and `docker exec` three; what each waits for is a part of a short
//! process's whole time. Bulkhead's own command line makes one of these. Its body is that of Docker's
//! `create`, its refusals are that one's, and the connection is then taken over for Docker's frames (a
//! terminal's output too), between two of stream 4, which are JSON: first `Id` and `Warnings`, last
//! `StatusCode`, or `Failure`: the `Message` of a start that failed, and the exit status that says why.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, Path, Request, State};
use bulkhead_docker_types::{ContainerCreate, ExecCreate};
use bulkhead_engine::{Streams, WaitCondition};
use futures_util::future::FutureExt;
use http::uri::{PathAndQuery, Uri};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::Api;
use crate::detach::DetachKeys;
use crate::error::{Answer, ApiError};
use crate::hijack::{Hijack, Output, Session, frame_control};
use crate::request::{Json, Query};
use crate::role::{Role, check_exec};

/// `POST /bulkhead/containers/run?name=N`: create, attach, start and wait.
pub(crate) async fn run(State(api): State<Api>, mut request: Request) -> Answer {
    let hijack = Hijack::of(&mut request);
    hijack.expect_upgrade()?;
    let (query, body) = read::<ContainerCreate>(request, "/containers/create").await?;
    let streams = Streams {
        stdin: body.attach_stdin,
        stdout: body.attach_stdout,
        stderr: body.attach_stderr,
        logs: false,
    };
    let (container, warnings) = super::create::make(&api, &query, body).await?;
    let (id, terminal) = (container.id, container.config.tty);
    // Both before the start, so that neither the first output nor a quick end is missed.
    let stream = api.engine.attach(id, streams).await?;
    let condition = match container.host.auto_remove {
        true => WaitCondition::Removed,
        false => WaitCondition::NextExit,
    };
    let ended = api.engine.wait(id, condition)?;
    let engine = Arc::clone(&api.engine);
    // A task of its own: it starts whether the client stays or not, as by `start`.
    let start = tokio::spawn(async move { engine.start(id).await });
    let started = async move {
        let failure = match start.await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => ApiError::from(error),
            Err(panic) => ApiError::internal(format!("the engine failed: {panic}")),
        };
        tracing::info!(container = %id.short(), "not started: {failure}");
        let failure = json!({ "Message": failure.message, "StartStatus": failure.start_status });
        Err(frame_control(&json!({ "Failure": failure })))
    };
    let end = async move {
        let code = ended.await.unwrap_or_else(|error| {
            tracing::warn!(container = %id.short(), %error, "wait for the end");
            125
        });
        frame_control(&json!({ "StatusCode": code }))
    };
    let session = Session {
        head: frame_control(&json!({ "Id": id, "Warnings": warnings })),
        started: started.boxed(),
        end: end.boxed(),
    };
    let detach = if terminal && streams.stdin { Some(DetachKeys::parse("")?) } else { None };
    hijack.answer_session(stream, framed(terminal), detach, session)
}

/// `POST /bulkhead/containers/{id}/exec`: create, start, and the exit code.
pub(crate) async fn exec(
    State(api): State<Api>,
    Path(name): Path<String>,
    mut request: Request,
) -> Answer {
    let hijack = Hijack::of(&mut request);
    hijack.expect_upgrade()?;
    let path = request.uri().path().trim_start_matches("/bulkhead").to_owned();
    let role = request.extensions().get::<Arc<Role>>().cloned();
    let (_, body) = read::<ExecCreate>(request, &path).await?;
    check_exec(role.as_ref(), body.privileged)?;
    let size = body.console_size.unwrap_or_default();
    let create = super::exec::request(body)?;
    let (terminal, stdin) = (create.tty, create.attach_stdin);
    let keys = DetachKeys::parse(&create.detach_keys)?;
    let id = api.engine.exec_create(api.engine.container_id(&name)?, create).await?;
    let stream = match api.engine.exec_start(id, false, size).await {
        Ok(Some(stream)) => stream,
        // One that is not detached has a stream.
        Ok(None) => return Err(ApiError::internal("the exec has no stream")),
        // Told in the stream, and by the exit code that `docker exec` finds (see `exec::start`).
        Err(error) => {
            tracing::info!(exec = %id, "not started: {error}");
            super::exec::said(&error.to_string(), terminal)?
        }
    };
    let engine = Arc::clone(&api.engine);
    let end = async move {
        let code = engine.exec(&id.to_string()).await.ok().and_then(|exec| exec.exit_code);
        frame_control(&json!({ "StatusCode": code }))
    };
    let session = Session {
        head: frame_control(&json!({ "Id": id, "Warnings": [] })),
        started: std::future::ready(Ok(())).boxed(),
        end: end.boxed(),
    };
    let detach = (terminal && stdin).then_some(keys);
    hijack.answer_session(stream, framed(terminal), detach, session)
}

fn framed(terminal: bool) -> Output {
    if terminal { Output::Unframed } else { Output::Framed }
}

/// Reads a request as the operation of Docker's that is at `path` reads it.
async fn read<T: DeserializeOwned>(mut request: Request, path: &str) -> Answer<(Query, T)> {
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let target: PathAndQuery =
        format!("{path}{query}").parse().map_err(|_| ApiError::page_not_found())?;
    *request.uri_mut() = Uri::from(target);
    let (mut parts, body) = request.into_parts();
    let query = Query::from_request_parts(&mut parts, &()).await?;
    let Json(body) = Json::<T>::from_request(Request::from_parts(parts, body), &()).await?;
    Ok((query, body))
}
