use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{FromRequest, Path, Request, State};
use axum::response::{IntoResponse, Response};
use bulkhead_docker_types::{ExecCreate, ExecStart};
use bulkhead_engine::{CreateExec, Stream};
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::lifecycle;
use crate::Api;
use crate::detach::DetachKeys;
use crate::error::{Answer, ApiError};
use crate::hijack::{Hijack, Output, frame};
use crate::request::{Json, Query};
use crate::role::{Role, check_exec};

pub(super) fn request(body: ExecCreate) -> Result<CreateExec, ApiError> {
    let cmd = body.cmd.map(|words| words.0).unwrap_or_default();
    if cmd.is_empty() {
        return Err(ApiError::invalid("No exec command specified"));
    }
    DetachKeys::parse(&body.detach_keys)?;
    Ok(CreateExec {
        cmd,
        env: body.env,
        user: body.user,
        working_dir: body.working_dir,
        tty: body.tty,
        attach_stdin: body.attach_stdin,
        attach_stdout: body.attach_stdout,
        attach_stderr: body.attach_stderr,
        privileged: body.privileged,
        detach_keys: body.detach_keys,
    })
}

/// `POST /containers/{id}/exec`
pub(crate) async fn create(
    State(api): State<Api>,
    Path(container): Path<String>,
    role: Option<Extension<Arc<Role>>>,
    Json(body): Json<ExecCreate>,
) -> Answer {
    check_exec(role.as_deref(), body.privileged)?;
    let container = api.engine.container_id(&container)?;
    let id = api.engine.exec_create(container, request(body)?).await?;
    Ok((StatusCode::CREATED, axum::Json(json!({ "Id": id }))).into_response())
}

/// `POST /exec/{id}/start`: the body is read before the connection is taken over.
pub(crate) async fn start(
    State(api): State<Api>,
    Path(exec): Path<String>,
    mut request: Request,
) -> Answer<Response> {
    let hijack = Hijack::of(&mut request);
    let Json(body) = Json::<ExecStart>::from_request(request, &()).await?;
    let view = api.engine.exec(&exec).await?;
    let size = body.console_size.unwrap_or_default();
    let terminal = view.create.tty;
    // The start says what the client expects, whatever the process has (moby: the same file).
    let output = if terminal && !body.tty { Output::Unframed } else { Output::of(terminal) };
    let detach = match terminal && view.create.attach_stdin {
        true => Some(DetachKeys::parse(&view.create.detach_keys)?),
        false => None,
    };
    match api.engine.exec_start(view.id, body.detach, size).await {
        Ok(Some(stream)) => hijack.answer(stream, output, detach),
        Ok(None) => Ok(StatusCode::OK.into_response()),
        Err(error) if body.detach => Err(error.into()),
        // The CLI shows no error but the stream's, and takes its exit status from inspect (moby:
        // api/server/router/container/exec.go, postContainerExecStart).
        Err(error) => {
            tracing::info!(exec, "not started: {error}");
            hijack.answer(said(&error.to_string(), terminal)?, output, None)
        }
    }
}

/// A stream that says one thing and ends.
pub(super) fn said(message: &str, terminal: bool) -> Answer<UnixStream> {
    let line = format!("{message}\r\n");
    let bytes = match terminal {
        true => Bytes::from(line),
        false => frame(Stream::Stdout, line.as_bytes()),
    };
    let said = UnixStream::pair().and_then(|(ours, mut theirs)| {
        // A new socket takes a line at once.
        theirs.write_all(&bytes)?;
        Ok(ours)
    });
    said.map_err(|error| ApiError::internal(format!("socketpair: {error}")))
}

pub(crate) async fn resize(
    State(api): State<Api>,
    Path(exec): Path<String>,
    query: Query,
) -> Answer<StatusCode> {
    if let Some((rows, columns)) = lifecycle::size(&query)? {
        let exec = api.engine.exec(&exec).await?.id;
        api.engine.exec_resize(exec, rows, columns).await?;
    }
    Ok(StatusCode::OK)
}

pub(crate) async fn inspect(
    State(api): State<Api>,
    Path(exec): Path<String>,
) -> Answer<axum::Json<Value>> {
    let exec = api.engine.exec(&exec).await?;
    let create = &exec.create;
    let (program, arguments) = match create.cmd.split_first() {
        Some((program, arguments)) => (program.as_str(), arguments),
        None => ("", &[][..]),
    };
    Ok(axum::Json(json!({
        "ID": exec.id,
        "Running": exec.running,
        "ExitCode": exec.exit_code,
        "ProcessConfig": {
            "tty": create.tty,
            "entrypoint": program,
            "arguments": arguments,
            "privileged": create.privileged,
            "user": create.user,
        },
        "OpenStdin": create.attach_stdin,
        "OpenStderr": create.attach_stderr,
        "OpenStdout": create.attach_stdout,
        "CanRemove": !exec.running && exec.exit_code.is_some(),
        "ContainerID": exec.container,
        "DetachKeys": create.detach_keys,
        "Pid": exec.pid,
    })))
}
