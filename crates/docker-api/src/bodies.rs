//! Bodies that are read and written by threads that block.

use std::future::Future;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};

use axum::body::{Body, BodyDataStream};
use futures_util::{StreamExt, TryStreamExt};
use tokio::io::AsyncReadExt;
use tokio_util::io::{ReaderStream, StreamReader};

use crate::error::{Answer, ApiError};

/// Why a body ended before its end, known once its stream has ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fault(Arc<OnceLock<String>>);

impl Fault {
    /// An error if the sender has gone: what was read until then may look whole and is not. `what`
    /// names the body.
    pub(crate) fn check(&self, what: &str) -> Result<(), ApiError> {
        match self.0.get() {
            Some(cause) => Err(ApiError::invalid(format!("{what} could not be received: {cause}"))),
            None => Ok(()),
        }
    }
}

/// A stream from which a thread that blocks reads the body, and what went wrong with it.
///
/// When the stream is dropped early, what is left of the body is [`crate::drain`]'s.
pub(crate) fn upload(body: BodyDataStream) -> Answer<(UnixStream, Fault)> {
    let (mut reading, mut writing) = pair()?;
    // A socket that is closed while it holds something unread ends as a broken one for the other
    // side (Linux: net/unix/af_unix.c, unix_release_sock): this byte is read after a whole body
    // only, so that a body that was cut cannot pass for a shorter one.
    let unread = |error| ApiError::internal(format!("write to a socket pair: {error}"));
    io::Write::write_all(&mut reading, &[0]).map_err(unread)?;
    let fault = Fault::default();
    let told = fault.clone();
    tokio::spawn(async move {
        let mut body = StreamReader::new(body.map_err(io::Error::other));
        match tokio::io::copy_buf(&mut body, &mut writing).await {
            Ok(_) => drop(writing.read_exact(&mut [0]).await),
            // Nobody reads any more, and whoever did says why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            // Before the end of the stream, so that whoever sees that finds this.
            Err(error) => drop(told.0.set(error.to_string())),
        }
    });
    Ok((reading, fault))
}

/// A body that a thread that blocks writes. If it fails, the answer is cut off as a broken one: its
/// status is long sent, and what has arrived must not pass for the whole.
pub(crate) fn download<E: std::fmt::Display + Send + 'static>(
    what: &'static str,
    write: impl FnOnce(UnixStream) -> Result<(), E> + Send + 'static,
) -> Answer<Body> {
    let (writing, reading) = pair()?;
    let written = tokio::task::spawn_blocking(move || write(writing));
    let end = end(what, written);
    let end = futures_util::stream::once(end).filter_map(|fault| async move { fault.map(Err) });
    Ok(Body::from_stream(ReaderStream::new(reading).chain(end)))
}

async fn end<E: std::fmt::Display>(
    what: &'static str,
    written: impl Future<Output = Result<Result<(), E>, tokio::task::JoinError>>,
) -> Option<io::Error> {
    let cause = match written.await {
        Ok(Ok(())) => return None,
        Ok(Err(error)) => error.to_string(),
        Err(panic) => panic.to_string(),
    };
    tracing::warn!("{what} was not sent to its end: {cause}");
    Some(io::Error::other(cause))
}

/// The first end is for a thread that blocks.
fn pair() -> Answer<(UnixStream, tokio::net::UnixStream)> {
    UnixStream::pair()
        .and_then(|(blocking, other)| {
            other.set_nonblocking(true)?;
            Ok((blocking, tokio::net::UnixStream::from_std(other)?))
        })
        .map_err(|error| ApiError::internal(format!("socketpair: {error}")))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[tokio::test]
    async fn a_sender_that_is_gone_is_told_from_one_that_has_ended() {
        for (cut, text) in [(false, ""), (true, "the archive could not be received: gone")] {
            let pieces = vec![Ok("a"), Ok("b")].into_iter();
            let pieces = pieces.chain(cut.then(|| Err(io::Error::other("gone"))));
            let body = Body::from_stream(futures_util::stream::iter(pieces.collect::<Vec<_>>()));
            let (mut stream, fault) = upload(body.into_data_stream()).expect("a stream");
            let read = tokio::task::spawn_blocking(move || {
                let mut text = String::new();
                stream.read_to_string(&mut text).map(|_| text)
            });
            let read = read.await.expect("no panic");
            assert_eq!(read.ok().as_deref(), (!cut).then_some("ab"));
            let message = fault.check("the archive").err().map(|error| error.message);
            assert_eq!(message.unwrap_or_default(), text);
        }
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_no_whole_body() {
        for fails in [false, true] {
            let body = download("a file", move |mut to| {
                to.write_all(b"part")?;
                if fails { Err(io::Error::other("disk")) } else { Ok(()) }
            });
            let read = axum::body::to_bytes(body.expect("a body"), 100).await;
            assert_eq!(read.is_err(), fails);
        }
    }
}
