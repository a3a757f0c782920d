//! What a client still sends when its answer is known already.
//!
//! An error is often known before the body was read: a flag that is not understood, a container
//! that is read-only, an archive that is none, a disk that is full. A server that then closes the
//! connection makes the client's next write fail, and the client tells its user `broken pipe` in
//! the place of the answer. So whatever a handler leaves unread is read on and thrown away, beside
//! the answer, until the client has seen that.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::header::EXPECT;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;

/// What is thrown away of one request: an archive whose sender looks for its answer only at the end,
/// as docker-py does, is read up to here.
const MOST_BYTES: u64 = 4 << 30;
const MOST_TIME: Duration = Duration::from_secs(30);

/// Keeps what a handler leaves of a request's body readable.
pub(crate) async fn layer(request: Request, next: Next) -> Response {
    // A client that waits for "100 Continue" has sent nothing, and will not after a refusal.
    if request.headers().contains_key(EXPECT) {
        return next.run(request).await;
    }
    next.run(request.map(|body| Body::new(Kept(body)))).await
}

/// A body that is drained when it is dropped before its end.
struct Kept(Body);

impl http_body::Body for Kept {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.0).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.0.is_end_stream() {
            return;
        }
        let rest = std::mem::take(&mut self.0);
        // Without a runtime the connection is gone as well.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(MOST_TIME, drain(rest)));
        }
    }
}

async fn drain(mut body: Body) {
    let mut left = MOST_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len) as u64;
        let Some(rest) = left.checked_sub(length) else { return };
        left = rest;
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::StreamExt;

    use super::*;

    /// A body of `count` pieces that tells how many were taken.
    fn body(count: usize) -> (Body, Arc<AtomicUsize>) {
        let taken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&taken);
        let pieces = futures_util::stream::iter(0..count).map(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Infallible>(Bytes::from_static(b"piece"))
        });
        (Body::from_stream(pieces), taken)
    }

    #[tokio::test]
    async fn what_a_handler_leaves_is_read_to_its_end() {
        let (inner, taken) = body(1000);
        let mut kept = Body::new(Kept(inner));
        kept.frame().await.expect("a piece").expect("no error");
        drop(kept);
        for _ in 0..100_000 {
            if taken.load(Ordering::SeqCst) == 1000 {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("only {} of 1000 pieces were read", taken.load(Ordering::SeqCst));
    }
}
