//! What changes in the cluster, as server-sent events.

use std::convert::Infallible;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use bulkhead_ecs::Change;
use futures_util::Stream;
use tokio::sync::broadcast::error::RecvError;

use crate::Console;

/// `event: task` with the task as DescribeTasks shows it, at every change of one.
///
/// A browser that fell behind is told to come again: EventSource reconnects by itself, and the next
/// page it loads is whole.
pub async fn stream(
    State(console): State<Console>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changes = console.control.changes();
    let events = futures_util::stream::unfold(changes, |mut changes| async move {
        loop {
            match changes.recv().await {
                Ok(Change::Task(task)) => {
                    let Ok(event) = Event::default().event("task").json_data(&*task) else {
                        continue;
                    };
                    return Some((Ok(event), changes));
                }
                Ok(_) => {}
                Err(RecvError::Lagged(_) | RecvError::Closed) => return None,
            }
        }
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}
