//! A connection of the network, carried to a socket of this process.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

/// How long a client may take to go once everything was said to it.
const LINGER: Duration = Duration::from_secs(30);

/// Copies both ways until the server's side ends or the client breaks off. A client that has shut its
/// sending side goes on receiving.
pub(crate) async fn carry(client: impl AsyncRead + AsyncWrite, server: UnixStream) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = server.into_split();
    let upwards = async {
        tokio::io::copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    let downwards = async {
        tokio::io::copy(&mut from_server, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::pin!(upwards, downwards);
    let outcome = tokio::select! {
        sent = &mut upwards => match sent {
            Ok(()) => downwards.await,
            Err(error) => Err(error),
        },
        answered = &mut downwards => {
            // What it still sends is read, so that its reading does not end with a reset.
            let _ = tokio::time::timeout(LINGER, upwards).await;
            answered
        }
    };
    if let Err(error) = outcome {
        tracing::debug!("API connection: {error}");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn each_side_may_end_first() {
        let (mut client, outer) = UnixStream::pair().expect("a pair");
        let (inner, mut server) = UnixStream::pair().expect("a pair");
        let carried = tokio::spawn(carry(outer, inner));
        client.write_all(b"question").await.expect("room");
        client.shutdown().await.expect("it is open");
        let mut text = String::new();
        server.read_to_string(&mut text).await.expect("text");
        assert_eq!(text, "question");
        server.write_all(b"answer").await.expect("the client still receives");
        drop(server);
        text.clear();
        client.read_to_string(&mut text).await.expect("text");
        assert_eq!(text, "answer");
        carried.await.expect("it ends");

        let (mut client, outer) = UnixStream::pair().expect("a pair");
        let (inner, server) = UnixStream::pair().expect("a pair");
        let carried = tokio::spawn(carry(outer, inner));
        drop(server);
        assert_eq!(client.read(&mut [0; 8]).await.expect("the end"), 0);
        drop(client);
        carried.await.expect("it ends");
    }
}
