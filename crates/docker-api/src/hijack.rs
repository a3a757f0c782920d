//! Connections that stop being HTTP: attach, exec, and the bytes between them and the warden.

use std::io;
use std::os::unix::net::UnixStream as StdStream;

use axum::body::Body;
use axum::extract::Request;
use axum::response::IntoResponse;
use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{HeaderValue, StatusCode};
use hyper::ext::ReasonPhrase;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_util::io::ReaderStream;

use crate::error::{Answer, ApiError};
use crate::version::ApiVersion;

const RAW: &str = "application/vnd.docker.raw-stream";
const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";

/// What a request says about taking its connection over.
#[derive(Debug)]
pub(crate) struct Hijack {
    /// `None` when the client did not ask for an upgrade.
    upgrade: Option<OnUpgrade>,
    version: ApiVersion,
}

impl Hijack {
    pub(crate) fn of(request: &mut Request) -> Self {
        let asked = request.headers().contains_key(UPGRADE);
        Self {
            upgrade: asked.then(|| hyper::upgrade::on(&mut *request)),
            version: request
                .extensions()
                .get::<ApiVersion>()
                .copied()
                .unwrap_or(crate::version::MAXIMUM),
        }
    }

    /// Answers, and connects the client with `stream` until the container's side ends.
    ///
    /// 101 and not 200: hyper hands a connection over only on 101 or CONNECT, and docker CLI and
    /// docker-py both ask for `Upgrade: tcp`. A client that does not ask gets the output as an
    /// ordinary body, and cannot send input.
    pub(crate) fn answer(self, stream: StdStream, terminal: bool) -> Answer {
        let stream = to_tokio(stream).map_err(|error| {
            ApiError::internal(format!("the stream of the container cannot be used: {error}"))
        })?;
        let kind = content_type(terminal, self.version);
        let Some(upgrade) = self.upgrade else {
            let body = Body::from_stream(ReaderStream::new(stream));
            return Ok(([(CONTENT_TYPE, kind)], body).into_response());
        };
        tokio::spawn(async move {
            match upgrade.await {
                Ok(client) => copy(TokioIo::new(client), stream).await,
                Err(error) => tracing::debug!("the client left before the upgrade: {error}"),
            }
        });
        let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
        response.extensions_mut().insert(ReasonPhrase::from_static(b"UPGRADED"));
        for (name, value) in [(CONTENT_TYPE, kind), (CONNECTION, "Upgrade"), (UPGRADE, "tcp")] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        Ok(response)
    }
}

/// What the output's bytes are: frames, or just as the program wrote them. Clients before 1.42 know
/// one name only.
pub(crate) fn content_type(terminal: bool, version: ApiVersion) -> &'static str {
    if terminal || version < ApiVersion(42) { RAW } else { MULTIPLEXED }
}

fn to_tokio(stream: StdStream) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Copies both ways. A client that shuts its sending side goes on receiving, since the CLI does so
/// at once when stdin is not attached; the end of the container's side is the end of all.
async fn copy(client: impl AsyncRead + AsyncWrite, container: UnixStream) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_container, mut to_container) = container.into_split();
    let input = async {
        let copied = tokio::io::copy(&mut from_client, &mut to_container).await;
        let shut = to_container.shutdown().await;
        if copied.and(shut).is_ok() {
            std::future::pending::<()>().await;
        }
        // A write that failed means that the container's side takes no more; its last output may
        // still be on the way.
        std::future::pending::<()>().await;
    };
    let output = async {
        let copied = tokio::io::copy(&mut from_container, &mut to_client).await;
        let shut = to_client.shutdown().await;
        copied.map(|_| ()).and(shut)
    };
    tokio::select! {
        () = input => {}
        ended = output => if let Err(error) = ended {
            tracing::debug!("an attached client left: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn output_goes_on_after_the_client_shut_its_side() {
        let (mut client, server) = UnixStream::pair().expect("a pair");
        let (mut container, ours) = UnixStream::pair().expect("a pair");
        let copying = tokio::spawn(copy(server, ours));
        client.write_all(b"in").await.expect("room");
        client.shutdown().await.expect("half closed");
        let mut input = Vec::new();
        container.read_to_end(&mut input).await.expect("input and its end");
        assert_eq!(input, b"in");
        container.write_all(b"out").await.expect("room");
        drop(container);
        let mut output = Vec::new();
        client.read_to_end(&mut output).await.expect("output and its end");
        assert_eq!(output, b"out");
        copying.await.expect("ends with the container");
    }

    #[test]
    fn old_clients_know_one_content_type() {
        for (terminal, version, kind) in
            [(false, 51, MULTIPLEXED), (true, 51, RAW), (false, 41, RAW), (true, 41, RAW)]
        {
            assert_eq!(content_type(terminal, ApiVersion(version)), kind);
        }
    }
}
