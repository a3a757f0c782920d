//! The engine's events, as wake-up calls for the tasks they concern.
//!
//! An event only says where to look. So none that is missed, while the engine restarts say, is lost:
//! after each reconnect everything is looked at.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;

use crate::engine::Engine;
use crate::tasks::Tasks;
use bulkhead_types::Chain;

/// Follows events for as long as the agent lives.
pub(crate) async fn follow(engine: Engine, tasks: Arc<Tasks>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let mut events = Box::pin(engine.events());
        tasks.wake_all();
        while let Some(event) = events.next().await {
            match event {
                Ok(task) => {
                    pause = FIRST_PAUSE;
                    tasks.wake(&task);
                }
                Err(error) => {
                    tracing::debug!(error = %Chain(&error), "the engine's events broke off");
                    break;
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
