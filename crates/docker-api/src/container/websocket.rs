//! `GET /containers/{id}/attach/ws`: attach for clients that cannot take a connection over, such as
//! browsers.

use axum::Extension;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::response::Response;
use bulkhead_engine::Streams;
use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::streams;
use crate::Api;
use crate::detach::{DetachKeys, DetachWatch};
use crate::error::{Answer, ApiError};
use crate::request::Query;
use crate::version::ApiVersion;

pub(crate) async fn attach(
    State(api): State<Api>,
    Path(name): Path<String>,
    Extension(version): Extension<ApiVersion>,
    query: Query,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Answer<Response> {
    let upgrade = upgrade.map_err(|rejection| ApiError::invalid(rejection.body_text()))?;
    // Older clients cannot choose (moby: api/server/router/container/container_routes.go).
    let wants = |stream: &str| version < ApiVersion(42) || query.flag(stream);
    let streams = Streams {
        stdin: wants("stdin") && query.flag("stream"),
        stdout: wants("stdout"),
        stderr: wants("stderr"),
        logs: query.flag("logs"),
    };
    let keys = DetachKeys::parse(query.text("detachKeys"))?;
    let terminal = api.engine.container(&name)?.config.tty;
    let stream = streams::open(&api, &name, &query, streams).await?;
    let container = crate::hijack::to_tokio(stream)
        .map_err(|error| ApiError::internal(format!("the stream of the container: {error}")))?;
    let detach = (terminal && streams.stdin).then(|| keys.watch());
    let form = if version < ApiVersion(28) { Form::Text } else { Form::Binary };
    let output = if terminal { Output::Raw } else { Output::Framed };
    Ok(upgrade.on_upgrade(async move |socket| {
        let (to_client, from_client) = socket.split();
        pass(container, output, form, detach, to_client, from_client).await;
    }))
}

/// What the container's side sends.
#[derive(Debug, Clone, Copy)]
enum Output {
    Raw,
    /// Docker's frames. The client gets what is in them: its messages do not say of which stream.
    Framed,
}

/// What the client's messages are.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// Until API 1.27.
    Text,
    Binary,
}

impl Form {
    fn message(self, bytes: Bytes) -> Message {
        match self {
            Self::Text => Message::Text(String::from_utf8_lossy(&bytes).into_owned().into()),
            Self::Binary => Message::Binary(bytes),
        }
    }
}

/// Passes both ways until either side ends. Nothing more is read before what was read is sent, so
/// that a client which does not read holds the program back.
async fn pass<E>(
    container: UnixStream,
    output: Output,
    form: Form,
    detach: Option<DetachWatch>,
    mut to_client: impl Sink<Message> + Unpin,
    from_client: impl Stream<Item = Result<Message, E>> + Unpin,
) {
    let (mut from_container, to_container) = container.into_split();
    let forward = async {
        while let Some(bytes) = next(&mut from_container, output).await {
            if to_client.send(form.message(bytes)).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = forward => {}
        () = input(from_client, to_container, detach) => {}
    }
    // A client that is gone does not hear it.
    let _ = to_client.send(Message::Close(None)).await;
}

/// Passes the client's messages on until it leaves, by its own or by its keys. A program that takes
/// no more may still have something to say.
async fn input<E>(
    mut from: impl Stream<Item = Result<Message, E>> + Unpin,
    to: tokio::net::unix::OwnedWriteHalf,
    mut detach: Option<DetachWatch>,
) {
    let mut to = Some(to);
    while let Some(Ok(message)) = from.next().await {
        let bytes = match message {
            Message::Text(text) => Bytes::from(text),
            Message::Binary(bytes) => bytes,
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) => continue,
        };
        let (bytes, is_over) = match &mut detach {
            Some(watch) => watch.pass(&bytes),
            None => (bytes.to_vec(), false),
        };
        if let Some(open) = &mut to
            && open.write_all(&bytes).await.is_err()
        {
            to = None;
        }
        if is_over {
            return;
        }
    }
}

/// The next piece of output; `None` is its end.
async fn next(from: &mut (impl AsyncRead + Unpin), output: Output) -> Option<Bytes> {
    match output {
        Output::Raw => {
            let mut bytes = bytes::BytesMut::with_capacity(PIECE);
            from.read_buf(&mut bytes).await.ok().filter(|count| *count > 0)?;
            Some(bytes.freeze())
        }
        Output::Framed => {
            let mut head = [0; 8];
            from.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
            let mut bytes = Vec::new();
            from.take(length.into()).read_to_end(&mut bytes).await.ok()?;
            Some(bytes.into())
        }
    }
}

/// Bytes that one message has at most, of a terminal.
const PIECE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;
    use tokio_util::sync::PollSender;

    use super::*;
    use crate::hijack::frame;

    struct Client {
        sends: mpsc::Sender<Result<Message, Infallible>>,
        hears: mpsc::Receiver<Message>,
        container: UnixStream,
    }

    fn client(output: Output, form: Form, detach: Option<DetachWatch>) -> Client {
        let (container, ours) = UnixStream::pair().expect("a pair");
        let (sends, from_client) = mpsc::channel(1);
        let (to_client, hears) = mpsc::channel(1);
        let (sink, stream) = (PollSender::new(to_client), ReceiverStream::new(from_client));
        tokio::spawn(pass(ours, output, form, detach, sink, stream));
        Client { sends, hears, container }
    }

    #[tokio::test]
    async fn messages_are_what_is_in_the_frames() {
        for (form, want) in [
            (Form::Binary, Message::Binary(Bytes::from_static(b"out"))),
            (Form::Text, Message::Text("out".into())),
        ] {
            let mut client = client(Output::Framed, form, None);
            let framed = frame(bulkhead_engine::Stream::Stderr, b"out");
            client.sends.send(Ok(Message::Text("in".into()))).await.expect("it listens");
            let mut input = [0; 2];
            client.container.read_exact(&mut input).await.expect("the input");
            assert_eq!(&input, b"in");
            client.container.write_all(&framed).await.expect("room");
            drop(client.container);
            assert_eq!(client.hears.recv().await, Some(want));
            assert_eq!(client.hears.recv().await, Some(Message::Close(None)));
        }
    }

    #[tokio::test]
    async fn the_keys_end_the_client_and_not_the_container() {
        let keys = DetachKeys::parse("").expect("the default").watch();
        let mut client = client(Output::Raw, Form::Binary, Some(keys));
        client.container.write_all(b"$ ").await.expect("room");
        assert_eq!(client.hears.recv().await, Some(Message::Binary(Bytes::from_static(b"$ "))));
        let typed = Message::Binary(Bytes::from_static(b"ls\x10\x11"));
        client.sends.send(Ok(typed)).await.expect("it listens");
        let mut input = Vec::new();
        client.container.read_to_end(&mut input).await.expect("the input and its end");
        assert_eq!(input, b"ls");
        assert_eq!(client.hears.recv().await, Some(Message::Close(None)));
    }
}
