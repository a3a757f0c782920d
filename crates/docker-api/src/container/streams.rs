//! What a container sends and how it ends: attach, logs, wait.

use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::IntoResponse;
use bulkhead_engine::{LogLine, LogQuery, Stream, Streams, WaitCondition};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use http::header::CONTENT_TYPE;
use serde_json::json;
use tokio_stream::wrappers::ReceiverStream;

use crate::Api;
use crate::clock;
use crate::error::{Answer, ApiError};
use crate::hijack::{self, Hijack};
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
    let container = api.engine.container(&name)?;
    let stream = api.engine.attach(&name, streams).await?;
    Hijack::of(&mut request).answer(stream, container.config.tty)
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
    let ended = api.engine.wait(&name, condition)?;
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
        details: query.flag("details").then(|| details(&container.config.labels)),
    };
    let lines = api.engine.logs(&name, wanted).await?;
    let body = ReceiverStream::new(lines).map(move |line| Ok::<_, Infallible>(shape.bytes(&line)));
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

/// Docker's frame: the stream, three zeros, the length, the bytes.
pub(super) fn frame(stream: Stream, text: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(text.len() + 8);
    framed.put_u8(match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    });
    framed.put_slice(&[0; 3]);
    framed.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    framed.put_slice(text);
    framed.freeze()
}

/// Docker's `details` are what the log options `labels` and `env` pick; Bulkhead shows the labels.
fn details(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
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
