//! What a container sends and how it ends: attach, logs, wait.

use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::IntoResponse;
use bulkhead_engine::{EngineError, LogLine, LogQuery, Streams, WaitCondition};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use http::header::CONTENT_TYPE;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio_stream::wrappers::ReceiverStream;

use crate::Api;
use crate::clock;
use crate::detach::DetachKeys;
use crate::error::{Answer, ApiError};
use crate::hijack::{self, Hijack, Output, frame, frame_error};
use crate::lines;
use crate::request::Query;
use crate::version::ApiVersion;

/// `POST /containers/{id}/attach`, also before the start: `docker run` attaches first.
pub(crate) async fn attach(
    State(api): State<Api>,
    Path(name): Path<String>,
    query: Query,
    mut request: Request,
) -> Answer {
    let streams = Streams {
        stdin: query.flag("stdin") && query.flag("stream"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        logs: query.flag("logs"),
    };
    let detach = DetachKeys::parse(query.text("detachKeys"))?;
    let terminal = api.engine.container(&name)?.config.tty;
    let stream = open(&api, &name, &query, streams).await?;
    let detach = (terminal && streams.stdin).then_some(detach);
    Hijack::of(&mut request).answer(stream, Output::of(terminal), detach)
}

/// The container's side of an attach, which without `stream` ends with what was logged.
pub(super) async fn open(
    api: &Api,
    name: &str,
    query: &Query,
    streams: Streams,
) -> Answer<std::os::unix::net::UnixStream> {
    match query.flag("stream") {
        true => Ok(api.engine.attach(api.engine.container_id(name)?, streams).await?),
        false => past(api, name, streams).await,
    }
}

/// What an attach without `stream` gets: the log so far if it asks for it, and the end.
async fn past(api: &Api, name: &str, streams: Streams) -> Answer<std::os::unix::net::UnixStream> {
    let fault = |error| ApiError::internal(format!("socketpair: {error}"));
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(fault)?;
    if streams.logs && (streams.stdout || streams.stderr) {
        let query =
            LogQuery { stdout: streams.stdout, stderr: streams.stderr, ..LogQuery::default() };
        let mut lines = api.engine.logs(api.engine.container_id(name)?, query).await?;
        theirs.set_nonblocking(true).map_err(fault)?;
        let mut theirs = tokio::net::UnixStream::from_std(theirs).map_err(fault)?;
        let terminal = api.engine.container(name)?.config.tty;
        let shape = Shape { framed: !terminal, timestamps: false, details: None };
        tokio::spawn(async move {
            while let Some(line) = lines.recv().await {
                let Ok(bytes) = shape.record(line) else { return };
                if theirs.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(ours)
}

/// `POST /containers/{id}/wait`: the headers go out at once, since the CLI starts the container
/// only when it has them, and the body when the condition holds.
pub(crate) async fn wait(State(api): State<Api>, Path(name): Path<String>, query: Query) -> Answer {
    let condition = match query.text("condition") {
        "" | "not-running" => WaitCondition::NotRunning,
        "next-exit" => WaitCondition::NextExit,
        "removed" => WaitCondition::Removed,
        other => return Err(ApiError::invalid(format!("invalid condition: {other:?}"))),
    };
    let ended = api.engine.wait(api.engine.container_id(&name)?, condition)?;
    let body = futures_util::stream::once(async move {
        let line = match ended.await {
            Ok(code) => json!({ "StatusCode": code }),
            Err(error) => json!({ "StatusCode": 125, "Error": { "Message": error.message } }),
        };
        Ok::<_, Infallible>(lines::encode(&line))
    });
    Ok(lines::body(Body::from_stream(body)))
}

/// `GET /containers/{id}/logs`
pub(crate) async fn logs(
    State(api): State<Api>,
    Path(name): Path<String>,
    axum::Extension(version): axum::Extension<ApiVersion>,
    query: Query,
) -> Answer {
    let wanted = LogQuery {
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        follow: query.flag("follow"),
        since: query.time("since")?,
        // 0 is how some clients write "no end"
        until: query.time("until")?.filter(|until| until.as_nanosecond() != 0),
        tail: tail(query.text("tail")),
    };
    if !wanted.stdout && !wanted.stderr {
        return Err(ApiError::invalid("Bad parameters: you must choose at least one stream"));
    }
    let container = api.engine.container(&name)?;
    let shape = Shape {
        framed: !container.config.tty,
        timestamps: query.flag("timestamps"),
        details: query.flag("details").then(|| details(&api.engine.log_details(&container))),
    };
    let lines = api.engine.logs(api.engine.container_id(&name)?, wanted).await?;
    let body = ReceiverStream::new(lines).map(move |line| shape.record(line));
    let kind = hijack::content_type(container.config.tty, version);
    Ok(([(CONTENT_TYPE, kind)], Body::from_stream(body)).into_response())
}

/// A number of lines; anything that is none means all of them, as in Docker.
fn tail(text: &str) -> Option<usize> {
    text.parse().ok()
}

/// How a record of the log looks on the wire.
struct Shape {
    framed: bool,
    timestamps: bool,
    details: Option<String>,
}

impl Shape {
    /// What could not be read is said in the stream, on the one of its own that Docker's frames
    /// have for it (moby: api/pkg/stdcopy, `Systemerr`); without frames the stream breaks off.
    fn record(&self, line: Result<LogLine, EngineError>) -> Result<Bytes, EngineError> {
        match line {
            Ok(line) => Ok(self.bytes(&line)),
            Err(error) if self.framed => Ok(frame_error(&error.to_string())),
            Err(error) => Err(error),
        }
    }

    fn bytes(&self, line: &LogLine) -> Bytes {
        let mut text = BytesMut::new();
        if self.timestamps {
            text.put_slice(clock::rfc3339_fixed(line.at).as_bytes());
            text.put_u8(b' ');
        }
        if let Some(details) = &self.details {
            text.put_slice(details.as_bytes());
            text.put_u8(b' ');
        }
        text.put_slice(&line.text);
        if self.framed { frame(line.stream, &text) } else { text.freeze() }
    }
}

/// What the log options `labels`, `env` and `tag` pick (moby: daemon/logs.go, api/server/httputils).
fn details(chosen: &BTreeMap<String, String>) -> String {
    let escape = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pairs = chosen.iter().map(|(key, value)| format!("{}={}", escape(key), escape(value)));
    pairs.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use bulkhead_engine::Stream;

    use super::*;

    #[test]
    fn log_lines_are_framed_like_docker() {
        let line = LogLine {
            stream: Stream::Stderr,
            at: "2026-11-23T19:28:20.7945Z".parse().expect("a time"),
            text: b"hi\n".to_vec(),
        };
        let shape = Shape { framed: true, timestamps: false, details: None };
        assert_eq!(&shape.bytes(&line)[..], b"\x02\0\0\0\0\0\0\x03hi\n");
        let shape = Shape { framed: false, timestamps: true, details: Some("a=b".to_owned()) };
        assert_eq!(&shape.bytes(&line)[..], b"2026-11-23T19:28:20.794500000Z a=b hi\n");
        assert_eq!((tail("all"), tail("7"), tail("")), (None, Some(7), None));
    }
}
