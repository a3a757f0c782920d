//! A client of the Docker Engine API on a unix socket: small, and it keeps the server's JSON as it is.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::failure::Failure;

type ByteStream =
    std::pin::Pin<Box<dyn futures_util::Stream<Item = std::io::Result<Frame<Bytes>>> + Send>>;
type Body = Either<Full<Bytes>, StreamBody<ByteStream>>;

/// Talks to the engine that listens on one socket; each call has a connection of its own.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// A connection taken over for raw bytes (attach, exec).
pub type Hijacked = TokioIo<hyper::upgrade::Upgraded>;

impl Client {
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        json(self.call(Method::GET, path, None, None).await?).await
    }

    pub async fn post(&self, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        json(self.call(Method::POST, path, body, None).await?).await
    }

    pub async fn delete(&self, path: &str) -> Result<Value, Failure> {
        json(self.call(Method::DELETE, path, None, None).await?).await
    }

    /// A request whose answer is read as it comes; `authorization` becomes `X-Registry-Auth`.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        authorization: Option<&str>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::builder().method(method).uri(path).header("Host", "bulkhead");
        if let Some(authorization) = authorization {
            request = request.header("X-Registry-Auth", authorization);
        }
        let bytes = match body {
            Some(body) => {
                request = request.header("Content-Type", "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        self.send(request.body(Either::Left(Full::new(bytes)))).await
    }

    /// Sends a stream (a build context, an image) as the body.
    pub async fn upload(
        &self,
        path: &str,
        authorization: Option<&str>,
        body: impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Result<Response<Incoming>, Failure> {
        use futures_util::TryStreamExt;
        let frames: ByteStream = Box::pin(body.map_ok(Frame::data));
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header("Host", "bulkhead")
            .header("Content-Type", "application/x-tar");
        if let Some(authorization) = authorization {
            request = request.header("X-Registry-Config", authorization);
        }
        self.send(request.body(Either::Right(StreamBody::new(frames)))).await
    }

    /// Asks for the connection itself, as `docker attach` does.
    pub async fn hijack(&self, path: &str, body: Option<&Value>) -> Result<Hijacked, Failure> {
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = Request::post(path)
            .header("Host", "bulkhead")
            .header("Connection", "Upgrade")
            .header("Upgrade", "tcp")
            .header("Content-Type", "application/json")
            .body(Either::Left(Full::new(bytes)));
        let response = self.send(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Failure::new("the engine did not give the connection over for attaching"));
        }
        let upgraded =
            hyper::upgrade::on(response).await.map_err(|cause| Failure::new(cause.to_string()))?;
        Ok(TokioIo::new(upgraded))
    }

    async fn send(
        &self,
        request: http::Result<Request<Body>>,
    ) -> Result<Response<Incoming>, Failure> {
        let request =
            request.map_err(|cause| Failure::new(format!("this is no valid request: {cause}")))?;
        let stream =
            UnixStream::connect(&self.socket).await.map_err(|cause| self.unreachable(&cause))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|cause| Failure::new(format!("the engine does not answer: {cause}")))?;
        tokio::spawn(connection.with_upgrades());
        let response = sender.send_request(request).await.map_err(|cause| {
            Failure::new(format!(
                "the engine ended the connection before it had answered ({cause}); see its log"
            ))
        })?;
        let status = response.status();
        if status.is_client_error() || status.is_server_error() {
            let body = collect(response).await?;
            let message = serde_json::from_slice::<Value>(&body)
                .ok()
                .and_then(|body| body.get("message").and_then(Value::as_str).map(str::to_owned))
                .unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
            return Err(Failure { status: Some(status.as_u16()), ..Failure::new(message) });
        }
        Ok(response)
    }

    fn unreachable(&self, cause: &std::io::Error) -> Failure {
        let socket = self.socket.display();
        Failure::new(match cause.kind() {
            std::io::ErrorKind::PermissionDenied => {
                format!(
                    "permission denied on {socket}: run as root, or as a member of the socket's group"
                )
            }
            _ => format!(
                "cannot reach the engine at {socket} ({cause}): is it running? start it with `bulkhead up`"
            ),
        })
    }
}

/// Reads newline-separated JSON as it comes and hands each object to `each`.
pub async fn each_json(
    response: Response<Incoming>,
    mut each: impl FnMut(Value) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut body = response.into_body();
    let mut pending = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|cause| Failure::new(format!("the engine's answer broke off: {cause}")))?;
        let Ok(data) = frame.into_data() else { continue };
        pending.extend_from_slice(&data);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            if line.iter().any(|byte| !byte.is_ascii_whitespace()) {
                let value = serde_json::from_slice(&line).map_err(|cause| {
                    Failure::new(format!("the engine's answer is not JSON: {cause}"))
                })?;
                each(value)?;
            }
        }
    }
    if pending.iter().any(|byte| !byte.is_ascii_whitespace()) {
        each(serde_json::from_slice(&pending).map_err(|cause| Failure::new(cause.to_string()))?)?;
    }
    Ok(())
}

pub async fn collect(response: Response<Incoming>) -> Result<Bytes, Failure> {
    let collected = response.into_body().collect().await;
    collected
        .map(http_body_util::Collected::to_bytes)
        .map_err(|cause| Failure::new(cause.to_string()))
}

async fn json(response: Response<Incoming>) -> Result<Value, Failure> {
    let bytes = collect(response).await?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes)
        .map_err(|cause| Failure::new(format!("the engine's answer is not JSON: {cause}")))
}

/// Percent-encodes a query value or a path segment (RFC 3986 unreserved characters stay).
pub fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}
