//! Connections that stop being HTTP: attach, exec, and the bytes between them and the warden.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::IntoResponse;
use bulkhead_engine::Stream;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::TryStreamExt;
use futures_util::future::{BoxFuture, FutureExt};
use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{HeaderValue, StatusCode};
use hyper::ext::ReasonPhrase;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio_util::io::ReaderStream;

use crate::detach::{DetachKeys, DetachWatch};
use crate::error::{Answer, ApiError};
use crate::version::ApiVersion;

const RAW: &str = "application/vnd.docker.raw-stream";
const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";

/// What comes from the container, and what the client wants of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// A terminal's bytes, sent as they are.
    Raw,
    /// Docker's frames, sent as they are.
    Framed,
    /// A terminal's bytes for a client that expects frames.
    Unframed,
}

impl Output {
    pub(crate) fn of(terminal: bool) -> Self {
        if terminal { Self::Raw } else { Self::Framed }
    }

    fn form(self, bytes: Bytes) -> Bytes {
        match self {
            Self::Raw | Self::Framed => bytes,
            Self::Unframed => frame(Stream::Stdout, &bytes),
        }
    }
}

/// Docker's frame: the stream, three zeros, the length, the bytes.
pub(crate) fn frame(stream: Stream, text: &[u8]) -> Bytes {
    frame_of(
        match stream {
            Stream::Stdout => 1,
            Stream::Stderr => 2,
        },
        text,
    )
}

/// What Bulkhead's own clients are told between the frames of Docker's streams; see [`Session`].
pub(crate) fn frame_control(value: &serde_json::Value) -> Bytes {
    frame_of(4, value.to_string().as_bytes())
}

/// The frame that clients show as an error of the engine's.
pub(crate) fn frame_error(message: &str) -> Bytes {
    frame_of(3, message.as_bytes())
}

fn frame_of(stream: u8, text: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(text.len() + 8);
    framed.put_u8(stream);
    framed.put_slice(&[0; 3]);
    framed.put_u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
    framed.put_slice(text);
    framed.freeze()
}

/// What stands around the output on a connection that lasts from a process's start to its end.
pub(crate) struct Session {
    /// Sent before the output.
    pub(crate) head: Bytes,
    /// Whether the process has started; sent in the place of the output where it has not.
    pub(crate) started: BoxFuture<'static, Result<(), Bytes>>,
    /// Sent behind the output.
    pub(crate) end: BoxFuture<'static, Bytes>,
}

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

    /// Answers, and connects the client with `stream` until the container's side ends, or until
    /// `detach` finds its keys in what the client sends.
    ///
    /// 101 and not 200: hyper hands a connection over only on 101 or CONNECT, and docker CLI and
    /// docker-py both ask for `Upgrade: tcp`. A client that does not ask gets the output as an
    /// ordinary body, and cannot send input.
    pub(crate) fn answer(
        self,
        stream: StdStream,
        output: Output,
        detach: Option<DetachKeys>,
    ) -> Answer {
        self.connect(stream, output, detach, None)
    }

    /// As [`Self::answer`], with more than output on the connection. The client must have asked for
    /// it ([`Self::expect_upgrade`]).
    pub(crate) fn answer_session(
        self,
        stream: StdStream,
        output: Output,
        detach: Option<DetachKeys>,
        session: Session,
    ) -> Answer {
        self.connect(stream, output, detach, Some(session))
    }

    /// Refuses a client that could not be given the connection.
    pub(crate) fn expect_upgrade(&self) -> Result<(), ApiError> {
        let refused = || ApiError::invalid("this request needs the header Upgrade: tcp");
        self.upgrade.as_ref().map(|_| ()).ok_or_else(refused)
    }

    fn connect(
        self,
        stream: StdStream,
        output: Output,
        detach: Option<DetachKeys>,
        session: Option<Session>,
    ) -> Answer {
        let stream = to_tokio(stream).map_err(|error| {
            ApiError::internal(format!("the stream of the container cannot be used: {error}"))
        })?;
        let kind = content_type(output == Output::Raw, self.version);
        let Some(upgrade) = self.upgrade else {
            let chunks =
                ReaderStream::with_capacity(stream, BUFFER).map_ok(move |bytes| output.form(bytes));
            let body = Body::from_stream(chunks);
            return Ok(([(CONTENT_TYPE, kind)], body).into_response());
        };
        tokio::spawn(async move {
            match upgrade.await.map(upgrade::downcast::<TokioIo<UnixStream>>) {
                Ok(Ok(parts)) => {
                    let client = Client { stream: parts.io.into_inner(), sent: parts.read_buf };
                    copy(client, stream, output, detach.map(DetachKeys::watch), session).await;
                }
                Ok(Err(_)) => tracing::error!("the API is served on something but Unix sockets"),
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

/// For the async runtime.
pub(crate) fn to_tokio(stream: StdStream) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// A connection that was HTTP.
#[derive(Debug)]
struct Client {
    stream: UnixStream,
    /// What the client sent right behind its request.
    sent: Bytes,
}

/// Copies both ways. A client that shuts its sending side goes on receiving, since the CLI does so
/// at once when stdin is not attached; the end of the container's side is the end of all.
///
/// Neither direction reads more before what it has read is written: a client that does not read
/// holds the container's program back, and nothing is kept here but one buffer.
async fn copy(
    client: Client,
    container: UnixStream,
    output: Output,
    detach: Option<DetachWatch>,
    session: Option<Session>,
) {
    let (from_client, mut to_client) = client.stream.into_split();
    let mut from_client = client.sent.chain(from_client);
    let (mut from_container, mut to_container) = container.into_split();
    let (begin, begun) = tokio::sync::oneshot::channel();
    let input = async {
        // What reaches a terminal before its program is flushed away with the program's first change
        // of the terminal's mode.
        let _ = begun.await;
        if let Ok(Passed::Detached) = pass(&mut from_client, &mut to_container, detach).await {
            return;
        }
        // A write that failed means that the container's side takes no more; its last output may
        // still be on the way.
        let _ = to_container.shutdown().await;
        std::future::pending::<()>().await;
    };
    let (head, mut started, end) = match session {
        Some(Session { head, started, end }) => (head, started, Some(end)),
        None => (Bytes::new(), std::future::ready(Ok(())).boxed(), None),
    };
    let is_session = end.is_some();
    if let Err(error) = to_client.write_all(&head).await {
        tracing::debug!("a client left its session: {error}");
        return;
    }
    let ended = {
        let forward = async {
            if !is_session {
                head_is_read(to_client.as_ref()).await;
            }
            send(&mut from_container, &mut to_client, output).await
        };
        tokio::pin!(input, forward);
        let mut begin = Some(begin);
        loop {
            tokio::select! {
                () = &mut input => break Ok(Ended::Detached),
                sent = &mut forward => break match sent {
                    Ok(()) if begin.is_none() => Ok(Ended::Output),
                    Ok(()) => Ok(started.await.map_or_else(Ended::NotStarted, |()| Ended::Output)),
                    Err(error) => Err(error),
                },
                result = &mut started, if begin.is_some() => match (result, begin.take()) {
                    (Ok(()), Some(begin)) => drop(begin.send(())),
                    (Ok(()), None) => {}
                    (Err(failure), _) => break Ok(Ended::NotStarted(failure)),
                },
            }
        }
    };
    let last = match (ended, end) {
        (Ok(Ended::NotStarted(failure)), _) => failure,
        (Ok(Ended::Output), Some(end)) => end.await,
        (Ok(Ended::Output | Ended::Detached), _) => Bytes::new(),
        (Err(error), _) => {
            tracing::debug!("an attached client left: {error}");
            return;
        }
    };
    // A client that has gone needs no end.
    let _ = to_client.write_all(&last).await;
    // For the client this is the end of the output. The container's side ends with it.
    drop((from_container, to_container));
    if to_client.shutdown().await.is_ok() {
        let _ = tokio::time::timeout(LINGER, discard(&mut from_client)).await;
    }
}

/// Why copying ended.
enum Ended {
    Output,
    /// The client has left the process, which goes on.
    Detached,
    NotStarted(Bytes),
}

/// How long a client may take to read the last of its output and to go; only one that neither goes
/// nor stops sending takes so long.
const LINGER: Duration = Duration::from_secs(30);

/// Reads to the end what a client still sends.
///
/// Where a socket is closed with something unread in it, its peer's reading ends with "connection
/// reset by peer" (unix_release_sock in the kernel's net/unix/af_unix.c): `yes | docker run -i …`
/// would fail with that in the place of the program's status.
async fn discard(from: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    tokio::io::copy(from, &mut tokio::io::sink()).await.map(drop)
}

/// Waits until the client has read the answer's head.
///
/// docker-py reads the head through a buffer and the stream past it, and loses what it finds
/// behind the head in one read (docker-py: docker/api/client.py, `_get_raw_response_socket`). A
/// dockerd is so slow to start a process that this hardly ever happens; Bulkhead is not.
async fn head_is_read(client: &UnixStream) {
    const PATIENCE: Duration = Duration::from_millis(100);
    let _ = tokio::time::timeout(PATIENCE, all_is_read(client)).await;
}

/// Waits until the peer has read what was sent to it.
async fn all_is_read(socket: &UnixStream) -> io::Result<()> {
    loop {
        // A reader frees what it has read, for which its writer is woken.
        socket.writable().await?;
        let asked =
            socket.try_io(Interest::WRITABLE, || {
                match bulkhead_sys::socket::unread_by_peer(socket.as_fd()) {
                    Ok(0) | Err(_) => Ok(()),
                    Ok(_) => Err(io::ErrorKind::WouldBlock.into()),
                }
            });
        match asked {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            answer => return answer,
        }
    }
}

/// Passes the container's output on until its end; an error is that the client is gone.
async fn send(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    output: Output,
) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(BUFFER);
        match from.read_buf(&mut buffer).await {
            // The warden ends it; that it is gone as a whole is an end, too.
            Ok(0) | Err(_) => return Ok(()),
            Ok(_) => to.write_all(&output.form(buffer.split().freeze())).await?,
        }
    }
}

/// What is passed on at once: about what a socket takes.
const BUFFER: usize = 64 << 10;

/// How input ended.
enum Passed {
    All,
    Detached,
}

async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    detach: Option<DetachWatch>,
) -> io::Result<Passed> {
    let Some(mut detach) = detach else {
        tokio::io::copy(from, to).await?;
        return Ok(Passed::All);
    };
    let mut buffer = [0; 4096];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(Passed::All);
        }
        let (bytes, found) = detach.pass(&buffer[..count]);
        to.write_all(&bytes).await?;
        if found {
            return Ok(Passed::Detached);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_goes_on_after_the_client_shut_its_side() {
        let (mut client, server) = UnixStream::pair().expect("a pair");
        let (mut container, ours) = UnixStream::pair().expect("a pair");
        let server = Client { stream: server, sent: Bytes::from_static(b"early ") };
        let copying = tokio::spawn(copy(server, ours, Output::Framed, None, None));
        client.write_all(b"in").await.expect("room");
        client.shutdown().await.expect("half closed");
        let mut input = Vec::new();
        container.read_to_end(&mut input).await.expect("input and its end");
        assert_eq!(input, b"early in");
        container.write_all(b"out").await.expect("room");
        drop(container);
        let mut output = Vec::new();
        client.read_to_end(&mut output).await.expect("output and its end");
        assert_eq!(output, b"out");
        copying.await.expect("ends with the container");
    }

    #[tokio::test]
    async fn detaching_ends_the_client_and_not_the_container() {
        let (mut client, server) = UnixStream::pair().expect("a pair");
        let (mut container, ours) = UnixStream::pair().expect("a pair");
        let server = Client { stream: server, sent: Bytes::new() };
        let keys = DetachKeys::parse("").expect("the default").watch();
        let copying = tokio::spawn(copy(server, ours, Output::Unframed, Some(keys), None));
        client.write_all(b"in\x10\x11").await.expect("room");
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.expect("the end");
        container.read_to_end(&mut rest).await.expect("input and its end");
        assert_eq!(rest, b"in");
        drop(client);
        copying.await.expect("ends with the client");
    }

    #[tokio::test]
    async fn a_client_that_sends_on_sees_the_end_and_no_error() {
        let (mut client, server) = UnixStream::pair().expect("a pair");
        let (mut container, ours) = UnixStream::pair().expect("a pair");
        let server = Client { stream: server, sent: Bytes::new() };
        let copying = tokio::spawn(copy(server, ours, Output::Framed, None, None));
        container.write_all(b"out").await.expect("room");
        // as `yes |` does: more than every buffer holds, and nobody takes it
        let (mut from_server, mut to_server) = client.split();
        let sends = async { while to_server.write_all(&[b'y'; 4096]).await.is_ok() {} };
        let ends = async {
            let mut first = [0; 3];
            from_server.read_exact(&mut first).await.expect("the output");
            drop(container);
            let mut output = Vec::new();
            from_server.read_to_end(&mut output).await.expect("an end");
            output
        };
        let rest = tokio::select! { () = sends => panic!("nobody takes it"), rest = ends => rest };
        assert_eq!(rest, b"");
        drop(client);
        copying.await.expect("ends with the client");
    }

    #[tokio::test]
    async fn a_session_has_a_head_and_an_end_around_its_output() {
        for starts in [true, false] {
            let (mut client, server) = UnixStream::pair().expect("a pair");
            let (mut container, ours) = UnixStream::pair().expect("a pair");
            let server = Client { stream: server, sent: Bytes::new() };
            let refused = Bytes::from_static(b"refused");
            let session = Session {
                head: Bytes::from_static(b"head "),
                started: std::future::ready(if starts { Ok(()) } else { Err(refused) }).boxed(),
                end: std::future::ready(Bytes::from_static(b" end")).boxed(),
            };
            let copying = tokio::spawn(copy(server, ours, Output::Framed, None, Some(session)));
            if starts {
                container.write_all(b"out").await.expect("room");
                drop(container);
            }
            let mut all = Vec::new();
            client.read_to_end(&mut all).await.expect("an end");
            assert_eq!(all, if starts { &b"head out end"[..] } else { b"head refused" });
            drop(client);
            copying.await.expect("ends with the container");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whoever_waits_for_a_reader_is_woken_by_it() {
        for _ in 0..2000 {
            let (mut client, mut server) = StdStream::pair().expect("a pair");
            io::Write::write_all(&mut server, b"head").expect("room");
            let server = to_tokio(server).expect("a socket");
            let reader = std::thread::spawn(move || {
                let read = io::Read::read(&mut client, &mut [0; 4096]);
                (read, client)
            });
            all_is_read(&server).await.expect("a socket");
            assert_eq!(reader.join().expect("it reads").0.expect("the head"), 4);
        }
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
