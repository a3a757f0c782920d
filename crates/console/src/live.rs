//! What changes in the cluster, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use bulkhead_ecs::Change;
use futures_util::Stream;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::Console;
use crate::session::{Sessions, token};

/// One page's stream. It belongs to a log-in and ends with it.
struct Watch {
    changes: Receiver<Change>,
    sessions: Arc<Sessions>,
    token: String,
}

/// `task`, `instance`, `cluster` and `task-definition`, each with what the describe operation of the
/// API shows, at every change of one.
///
/// A browser that fell behind is sent away: EventSource comes back by itself, and the page then
/// fetches what it missed.
pub async fn stream(
    State(console): State<Console>,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let watch = Watch {
        changes: console.plane.changes(),
        sessions: Arc::clone(&console.sessions),
        token: token(&headers).unwrap_or_default().to_owned(),
    };
    let events = futures_util::stream::unfold(watch, |mut watch| async move {
        Some((Ok(watch.next().await?), watch))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}

impl Watch {
    /// The next event, or `None` when the stream is over.
    async fn next(&mut self) -> Option<Event> {
        loop {
            let change = tokio::select! {
                change = self.changes.recv() => change,
                () = self.sessions.ended(&self.token) => return None,
            };
            let event = match change {
                Ok(Change::Task(task)) => Event::default().event("task").json_data(&*task),
                Ok(Change::ContainerInstance(instance)) => {
                    Event::default().event("instance").json_data(&*instance)
                }
                Ok(Change::Cluster(cluster)) => {
                    Event::default().event("cluster").json_data(&*cluster)
                }
                Ok(Change::TaskDefinition(definition)) => {
                    Event::default().event("task-definition").json_data(&*definition)
                }
                Err(RecvError::Lagged(_) | RecvError::Closed) => return None,
            };
            match event {
                Ok(event) => return Some(event),
                Err(cause) => tracing::error!(%cause, "a change could not be told"),
            }
        }
    }
}
