//! The control plane and who may enter, for whoever is on a thread that may wait: both read what is on
//! disk. Only [`Plane`] has them, and it lends them away from the async runtime's threads.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use bulkhead_ecs::{Change, Control};
use tokio::sync::broadcast::Receiver;

use crate::Users;
use crate::pages::Problem;

#[derive(Clone)]
pub struct Plane {
    control: Arc<Control>,
    users: Arc<dyn Users>,
}

impl Plane {
    pub fn new(control: Arc<Control>, users: Arc<dyn Users>) -> Self {
        Self { control, users }
    }

    /// Does what waits for the disk, and shows what came of it.
    pub async fn show<T: IntoResponse>(
        &self,
        work: impl FnOnce(&Control) -> T + Send + 'static,
    ) -> Response {
        let control = Arc::clone(&self.control);
        away(move || work(&control).into_response()).await.unwrap_or_else(Problem::into_response)
    }

    pub async fn check(&self, user: String, password: String) -> Result<bool, Problem> {
        let users = Arc::clone(&self.users);
        away(move || users.check(&user, &password)).await
    }

    /// What changes from now on.
    pub fn changes(&self) -> Receiver<Change> {
        self.control.changes()
    }
}

async fn away<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "what a page asked for panicked");
        Problem::failed()
    })
}
