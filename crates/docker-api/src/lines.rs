//! Answers that go on: one JSON object a line while something happens (pull, push, build, events).

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bulkhead_image::Progress;
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::error::{Answer, ApiError};

/// Where the lines of an answer go.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    sender: mpsc::UnboundedSender<Line>,
    /// Room for lines that wait to be read.
    room: Arc<Semaphore>,
}

/// A line, and the room it takes until it is read.
type Line = (Value, Option<OwnedSemaphorePermit>);

/// Lines of a program's output that may wait for a slow client.
const ROOM: usize = 64;

impl Lines {
    /// Never waits: for lines of which an answer has few.
    pub(crate) fn send(&self, line: Value) {
        // Fails once the client has left, and then nobody reads.
        let _ = self.sender.send((line, None));
    }

    /// Waits until the client has read enough of what it was sent: for lines without end, such as
    /// a program's output, which is held back and neither kept in memory nor lost.
    pub(crate) async fn send_when_read(&self, line: Value) {
        let permit = Arc::clone(&self.room).acquire_owned().await.ok();
        let _ = self.sender.send((line, permit));
    }

    pub(crate) fn progress(&self, progress: Progress) {
        let mut line = json!({ "status": progress.status });
        if let Some(current) = progress.current {
            let mut detail = json!({ "current": current });
            if let Some(total) = progress.total {
                detail["total"] = json!(total);
            }
            line["progressDetail"] = detail;
        } else if !progress.id.is_empty() {
            line["progressDetail"] = json!({});
        }
        if !progress.id.is_empty() {
            line["id"] = json!(progress.id);
        }
        self.send(line);
    }
}

/// Runs `work` and answers with the lines it sends.
///
/// An error before the first line is the answer's status; after it, the last line, as in Docker
/// (moby: pkg/streamformatter).
pub(crate) async fn answer<Work, Done>(work: Work) -> Answer
where
    Work: FnOnce(Lines) -> Done,
    Done: Future<Output = Result<(), ApiError>> + Send + 'static,
{
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(ROOM));
    let work = work(Lines { sender: sender.clone(), room });
    let mut work = AbortOnDrop(tokio::spawn(work));
    let last = async move {
        match (&mut work.0).await {
            Ok(done) => done,
            Err(panic) => {
                Err(ApiError::internal(format!("the request could not be finished: {panic}")))
            }
        }
    };
    let mut last = Box::pin(last);
    drop(sender);
    let first = receiver.recv().await;
    if first.is_none() {
        last.await?;
        return Ok(body(Body::empty()));
    }
    let lines = futures_util::stream::iter(first)
        .chain(UnboundedReceiverStream::new(receiver))
        .map(|(line, _room)| line);
    let end = futures_util::stream::once(async move { last.as_mut().await })
        .filter_map(|done| async move { done.err().map(|error| error_line(&error)) });
    let stream = lines.chain(end).map(|line| Ok::<_, Infallible>(encode(&line)));
    Ok(body(Body::from_stream(stream)))
}

/// As [`answer`], but the status is 200 whatever happens.
pub(crate) async fn answer_in_band<Work, Done>(work: Work) -> Answer
where
    Work: FnOnce(Lines) -> Done,
    Done: Future<Output = Result<(), ApiError>> + Send + 'static,
{
    answer(|lines| {
        let done = work(lines.clone());
        async move {
            if let Err(error) = done.await {
                lines.send(error_line(&error));
            }
            Ok(())
        }
    })
    .await
}

/// A client that goes gives up what it asked for, as with Docker: Ctrl-C ends a build.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) fn body(body: Body) -> Response {
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

pub(crate) fn encode(line: &Value) -> Bytes {
    let mut text = line.to_string();
    text.push_str("\r\n");
    Bytes::from(text)
}

fn error_line(error: &ApiError) -> Value {
    let mut detail = json!({ "message": error.message });
    if let Some(code) = error.code {
        detail = json!({ "code": code, "message": error.message });
    }
    json!({ "errorDetail": detail, "error": error.message })
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    async fn text(response: Response) -> String {
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    #[tokio::test]
    async fn an_early_error_is_a_status_and_a_late_one_a_line() {
        let early = answer(|_| async { Err(ApiError::not_found("no such thing")) }).await;
        assert_eq!(early.expect_err("an error").status, StatusCode::NOT_FOUND);
        let late = answer(|lines| async move {
            lines.send(json!({ "status": "a" }));
            Err(ApiError::internal("broke"))
        });
        assert_eq!(
            text(late.await.expect("a stream")).await,
            "{\"status\":\"a\"}\r\n{\"errorDetail\":{\"message\":\"broke\"},\"error\":\"broke\"}\r\n"
        );
    }

    #[tokio::test]
    async fn output_waits_for_its_reader() {
        let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = Arc::clone(&sent);
        let answer = answer(|lines| async move {
            for _ in 0..10 * ROOM {
                lines.send_when_read(json!({ "stream": "x" })).await;
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            Ok(())
        });
        let response = answer.await.expect("a stream");
        // One thread: whatever the work could do it has done before this goes on.
        for _ in 0..10 * ROOM {
            tokio::task::yield_now().await;
        }
        let unread = sent.load(std::sync::atomic::Ordering::Relaxed);
        assert!(unread <= ROOM + 1, "{unread} lines are kept for a client that reads none");
        assert_eq!(text(response).await.lines().count(), 10 * ROOM, "and none is lost");
    }

    #[tokio::test]
    async fn progress_has_dockers_members() {
        let lines = answer(|lines| async move {
            lines.progress(Progress {
                id: "abc".to_owned(),
                status: "Downloading".to_owned(),
                current: Some(1),
                total: Some(2),
            });
            Ok(())
        });
        assert_eq!(
            text(lines.await.expect("a stream")).await,
            "{\"status\":\"Downloading\",\"progressDetail\":{\"current\":1,\"total\":2},\"id\":\"abc\"}\r\n"
        );
    }
}
