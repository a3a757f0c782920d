//! A client of the Docker Engine API: small, and it keeps the server's JSON as it is.

use std::path::{Path, PathBuf};

use bulkhead_docker_types::{MISSING, START_STATUS};
use bulkhead_types::Chain;
use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};

use crate::failure::Failure;

pub mod tls;

use tls::Tls;

type ByteStream =
    std::pin::Pin<Box<dyn futures_util::Stream<Item = std::io::Result<Frame<Bytes>>> + Send>>;
type Body = Either<Full<Bytes>, StreamBody<ByteStream>>;

/// Where an engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    Unix(PathBuf),
    /// Host and port; with TLS if the client has keys for it.
    Tcp(String),
}

impl Default for Host {
    fn default() -> Self {
        Self::Unix("/run/bulkhead/docker.sock".into())
    }
}

/// What Docker's CLI reads: a path alone is a socket's.
impl std::str::FromStr for Host {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let refused = |why: &str| {
            Failure::new(format!(
                "the engine's address {text:?} {why}: use a socket's path, unix://PATH or tcp://HOST:PORT"
            ))
        };
        match text.split_once("://") {
            None if text.starts_with('/') => Ok(Self::Unix(text.into())),
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some((scheme @ ("tcp" | "http" | "https"), address)) => {
                let address = address.trim_end_matches('/');
                // behind an IPv6 address's bracket, if there is one
                let name = address.rsplit(']').next().unwrap_or_default();
                match name.rsplit_once(':') {
                    _ if address.is_empty() || address.contains('/') => {
                        Err(refused("names no host and port"))
                    }
                    Some((_, port)) if port.parse::<u16>().is_err() => {
                        Err(refused("has no number as its port"))
                    }
                    Some(_) => Ok(Self::Tcp(address.to_owned())),
                    // Docker's ports, of which the second is that with TLS
                    None if scheme == "https" => Ok(Self::Tcp(format!("{address}:2376"))),
                    None => Ok(Self::Tcp(format!("{address}:2375"))),
                }
            }
            Some((scheme, _)) => {
                Err(refused(&format!("is of the kind {scheme:?}, which is unknown here")))
            }
            None => Err(refused("is neither a path nor a URL")),
        }
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// A connection of either kind.
trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}

/// Talks to one engine; each call has a connection of its own.
#[derive(Debug, Clone)]
pub struct Client {
    host: Host,
    /// The name that the engine's address was found by.
    context: String,
    tls: Option<Tls>,
}

/// A connection taken over for raw bytes (attach, exec).
pub type Hijacked = TokioIo<hyper::upgrade::Upgraded>;

impl Client {
    pub fn new(socket: &Path) -> Self {
        Self::to(Host::Unix(socket.to_owned()))
    }

    pub fn to(host: Host) -> Self {
        Self { host, context: "default".to_owned(), tls: None }
    }

    pub fn with_context(self, context: String) -> Self {
        Self { context, ..self }
    }

    /// The same, with TLS where it goes over a network.
    pub fn with_tls(self, keys: Option<&tls::Keys>) -> Result<Self, Failure> {
        let tls = match (&self.host, keys) {
            (Host::Tcp(_), Some(keys)) => Some(Tls::new(keys)?),
            _ => None,
        };
        Ok(Self { tls, ..self })
    }

    pub fn context(&self) -> &str {
        &self.context
    }

    /// The engine's socket, if it is on this machine.
    pub fn socket(&self) -> Option<&Path> {
        match &self.host {
            Host::Unix(path) => Some(path),
            Host::Tcp(_) => None,
        }
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

    /// A request without a body and with a header more.
    pub async fn call_as(
        &self,
        method: Method,
        path: &str,
        header: &str,
        value: Option<&str>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::builder().method(method).uri(path).header("Host", "bulkhead");
        if let Some(value) = value {
            request = request.header(header, value);
        }
        self.send(request.body(Either::Left(Full::new(Bytes::new())))).await
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
        method: Method,
        path: &str,
        authorization: Option<&str>,
        body: impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Result<Response<Incoming>, Failure> {
        use futures_util::TryStreamExt;
        let frames: ByteStream = Box::pin(body.map_ok(Frame::data));
        let mut request = Request::builder()
            .method(method)
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
        let stream = self.connect().await.map_err(|cause| self.unreachable(&cause))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|cause| {
                Failure::new(format!("the engine does not answer: {}", Chain(&cause)))
            })?;
        tokio::spawn(connection.with_upgrades());
        let response = sender.send_request(request).await.map_err(|cause| {
            Failure::new(format!(
                "the engine ended the connection before it had answered ({}); see its log",
                Chain(&cause)
            ))
        })?;
        let status = response.status();
        let start_status = response.headers().get(START_STATUS);
        let start_status = start_status.and_then(|value| value.to_str().ok()?.parse().ok());
        let missing = response.headers().get(MISSING);
        let missing = missing.and_then(|value| value.to_str().ok()).map(str::to_owned);
        if status.is_client_error() || status.is_server_error() {
            let body = collect(response).await?;
            let message = serde_json::from_slice::<Value>(&body)
                .ok()
                .and_then(|body| body.get("message").and_then(Value::as_str).map(str::to_owned))
                .unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
            let status = Some(status.as_u16());
            return Err(Failure { status, start_status, missing, ..Failure::new(message) });
        }
        Ok(response)
    }

    async fn connect(&self) -> std::io::Result<Box<dyn Stream>> {
        Ok(match &self.host {
            Host::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Host::Tcp(address) if let Some(tls) = &self.tls => {
                Box::new(tls.connect(address).await?)
            }
            Host::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                // keys of a terminal are small, and wait for nothing
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        })
    }

    fn unreachable(&self, cause: &std::io::Error) -> Failure {
        let socket = &self.host;
        Failure::new(match (&self.host, cause.kind()) {
            (Host::Tcp(_), _) => format!("cannot reach the engine at {socket} ({cause})"),
            (_, std::io::ErrorKind::PermissionDenied) => {
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
        let frame = frame.map_err(|cause| {
            Failure::new(format!("the engine's answer broke off: {}", Chain(&cause)))
        })?;
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

/// An answer's bytes as they come.
pub fn body_stream(
    response: Response<Incoming>,
) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send + Unpin {
    use futures_util::TryStreamExt;
    http_body_util::BodyDataStream::new(response.into_body()).map_err(std::io::Error::other)
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
    utf8_percent_encode(text, RESERVED).to_string()
}

/// All but RFC 3986's unreserved characters (section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_engines() {
        let tcp = |text: &str| Host::Tcp(text.to_owned());
        for (text, expected) in [
            ("/run/x.sock", Host::Unix("/run/x.sock".into())),
            ("unix:///run/x.sock", Host::Unix("/run/x.sock".into())),
            ("tcp://10.0.0.1:99", tcp("10.0.0.1:99")),
            ("tcp://box", tcp("box:2375")),
            ("tcp://[::1]:99/", tcp("[::1]:99")),
            ("tcp://[::1]", tcp("[::1]:2375")),
            ("https://box", tcp("box:2376")),
        ] {
            assert_eq!(text.parse::<Host>().map_err(|failure| failure.message), Ok(expected));
        }
        for wrong in ["", "box", "unix://", "ssh://box", "tcp://", "tcp://box:x", "tcp://a/b"] {
            assert!(wrong.parse::<Host>().is_err(), "{wrong}");
        }
    }
}
