//! A client of Docker's Engine API on a Unix socket, as small as what tasks need.
//!
//! Each request has a connection of its own: an engine may come, go and be replaced at any time, and
//! a connection that was kept would be one more thing that can be stale.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_types::Chain;
use bytes::Bytes;
use futures_util::{Stream, stream};
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::UnixStream;

/// The API of one engine.
#[derive(Debug, Clone)]
pub(crate) struct Docker {
    socket: Arc<Path>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum DockerError {
    /// In Docker's words.
    #[error("{message}")]
    Refused { status: StatusCode, message: String },
    #[error("an answer that is not understood: {0}")]
    NotUnderstood(serde_json::Error),
    #[error("{0}")]
    Unreachable(String),
}

impl Docker {
    pub(crate) fn at(socket: &Path) -> Self {
        Self { socket: socket.into() }
    }

    /// Reads an object.
    pub(crate) async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, DockerError> {
        object(self.request(Method::GET, target, None, None).await?).await
    }

    /// Reads objects as they come, one a line.
    pub(crate) async fn follow<T: DeserializeOwned>(
        &self,
        target: &str,
    ) -> Result<impl Stream<Item = Result<T, DockerError>> + Send + use<T>, DockerError> {
        Ok(lines(self.request(Method::GET, target, None, None).await?))
    }

    /// Sends an object, or nothing, and reads one.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        target: &str,
        body: &Value,
    ) -> Result<T, DockerError> {
        object(self.request(Method::POST, target, Some(body), None).await?).await
    }

    /// Asks for something that is answered with lines of progress; `login` is Docker's `AuthConfig`.
    pub(crate) async fn progress<T: DeserializeOwned>(
        &self,
        target: &str,
        login: Option<&Value>,
    ) -> Result<impl Stream<Item = Result<T, DockerError>> + Send + use<T>, DockerError> {
        Ok(lines(self.request(Method::POST, target, None, login).await?))
    }

    /// Asks for something that is answered with a status alone.
    pub(crate) async fn ask(&self, method: Method, target: &str) -> Result<(), DockerError> {
        whole(self.request(method, target, None, None).await?).await.map(drop)
    }

    /// Answers when the head of the response is there and says that it was done, now or before.
    async fn request(
        &self,
        method: Method,
        target: &str,
        body: Option<&Value>,
        login: Option<&Value>,
    ) -> Result<Response<Incoming>, DockerError> {
        let mut request = Request::new(Full::new(match body {
            Some(body) => Bytes::from(body.to_string()),
            None => Bytes::new(),
        }));
        *request.method_mut() = method;
        *request.uri_mut() =
            format!("/v{API}{target}").parse().map_err(|error: http::uri::InvalidUri| {
                DockerError::Unreachable(format!("{target:?} is no address: {error}"))
            })?;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_static("docker"));
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(login) = login {
            use base64::Engine as _;
            let text = base64::engine::general_purpose::URL_SAFE.encode(login.to_string());
            let text = HeaderValue::try_from(text).expect("base64 is ASCII");
            headers.insert("x-registry-auth", text);
        }
        let response = tokio::time::timeout(TIMEOUT, self.send(request)).await;
        let response = response.unwrap_or_else(|_| {
            Err(DockerError::Unreachable(format!("no answer in {} s", TIMEOUT.as_secs())))
        })?;
        let status = response.status();
        // 304: there was nothing to do
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        let body = whole(response).await?;
        let said = serde_json::from_slice::<Value>(&body).unwrap_or_default();
        let message = match said["message"].as_str() {
            Some(message) => message.to_owned(),
            None => String::from_utf8_lossy(&body).trim().to_owned(),
        };
        Err(DockerError::Refused { status, message })
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, DockerError> {
        let stream = UnixStream::connect(&*self.socket).await.map_err(|error| {
            DockerError::Unreachable(format!("{}: {error}", self.socket.display()))
        })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // ends with the answer, or when nobody reads it any more
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(broken)
    }
}

/// A path or path and query with its parts in place.
pub(crate) fn target(path: &[&str], query: &[(&str, &str)]) -> String {
    let mut target = String::new();
    for part in path {
        target.push('/');
        target.extend(utf8_percent_encode(part, RESERVED));
    }
    if !query.is_empty() {
        target.push('?');
        let pairs = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        target.push_str(&pairs);
    }
    target
}

/// Docker's `filters`: all values of all names.
pub(crate) fn filters(filters: &[(&str, &str)]) -> String {
    let mut map = json!({});
    for (name, value) in filters {
        map[name][value] = json!(true);
    }
    map.to_string()
}

async fn object<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, DockerError> {
    serde_json::from_slice(&whole(response).await?).map_err(DockerError::NotUnderstood)
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, DockerError> {
    let collected = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
    let broken = |error: Box<dyn std::error::Error + Send + Sync>| {
        DockerError::Unreachable(Chain(&*error).to_string())
    };
    Ok(collected.map_err(broken)?.to_bytes())
}

/// The objects of a stream, one a line.
fn lines<T: DeserializeOwned>(
    response: Response<Incoming>,
) -> impl Stream<Item = Result<T, DockerError>> + Send + use<T> {
    let begun = (response.into_body(), Vec::new(), 0);
    stream::try_unfold(begun, async |(mut body, mut buffer, mut searched)| {
        loop {
            let newline = buffer[searched..].iter().position(|byte| *byte == b'\n');
            let line: Vec<u8> = match newline {
                Some(at) => buffer.drain(..=searched + at).collect(),
                None => match body.frame().await {
                    Some(frame) => {
                        searched = buffer.len();
                        if let Ok(data) = frame.map_err(broken)?.into_data() {
                            buffer.extend_from_slice(&data);
                        }
                        continue;
                    }
                    // the last line may be without its end
                    None if buffer.iter().all(u8::is_ascii_whitespace) => return Ok(None),
                    None => std::mem::take(&mut buffer),
                },
            };
            searched = 0;
            if line.iter().any(|byte| !byte.is_ascii_whitespace()) {
                let object = serde_json::from_slice(&line).map_err(DockerError::NotUnderstood)?;
                return Ok(Some((object, (body, buffer, searched))));
            }
        }
    })
}

fn broken(error: hyper::Error) -> DockerError {
    DockerError::Unreachable(Chain(&error).to_string())
}

/// Until the answer begins: a stop may take its whole grace period, a pull longer.
const TIMEOUT: Duration = Duration::from_secs(2 * 60 * 60);
const LARGEST_ANSWER: usize = 64 << 20;
/// What Docker 25 and later speak, and Bulkhead.
const API: &str = "1.44";
/// All of a path but RFC 3986's unreserved characters (section 2.3), and what images' names have.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/')
    .remove(b':')
    .remove(b'@');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stranger_has_named_stays_where_it_belongs() {
        for (path, query, expected) in [
            (&["containers", "a", "json"][..], &[][..], "/containers/a/json"),
            (
                &["images", "r.example:5000/a@sha256:00", "json"],
                &[],
                "/images/r.example:5000/a@sha256:00/json",
            ),
            (&["images", "a?b#c d%", "json"], &[], "/images/a%3Fb%23c%20d%25/json"),
            (
                &["images", "create"],
                &[("fromImage", "a&b=c"), ("tag", "1")],
                "/images/create?fromImage=a%26b%3Dc&tag=1",
            ),
        ] {
            assert_eq!(target(path, query), expected);
        }
        assert_eq!(
            filters(&[("label", "a=b"), ("label", "c"), ("type", "x")]),
            r#"{"label":{"a=b":true,"c":true},"type":{"x":true}}"#
        );
    }
}
