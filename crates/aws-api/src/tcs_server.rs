//! The server's end of TCS, to which agents send metrics and health.
//!
//! Everything is acknowledged, as agents would otherwise reconnect. Health is worked into the tasks;
//! metrics are not kept.

use std::sync::Arc;

use axum::extract::ws::{Message, WebSocket};
use bulkhead_ecs::Control;
use bulkhead_types::Chain;
use serde_json::json;

use crate::acs::{Frame, PublishHealth};
use crate::answer::request_id;

pub(crate) async fn serve(mut socket: WebSocket, control: Arc<Control>, instance: String) {
    while let Some(Ok(message)) = socket.recv().await {
        let Message::Text(text) = message else { continue };
        let Ok(frame) = serde_json::from_str::<Frame>(&text) else { continue };
        let answer = match &*frame.kind {
            "PublishMetricsRequest" => "AckPublishMetric",
            "PublishHealthRequest" => {
                match serde_json::from_value::<PublishHealth>(frame.message) {
                    Ok(health) => work_in(&control, &instance, health).await,
                    Err(error) => {
                        tracing::warn!(error = %Chain(&error), "a report of health is not understood");
                    }
                }
                "AckPublishHealth"
            }
            "PublishInstanceStatusRequest" => "AckPublishInstanceStatus",
            _ => continue,
        };
        let text = Frame::text(answer, json!({"message": request_id()}));
        if socket.send(Message::Text(text.into())).await.is_err() {
            return;
        }
    }
}

/// It waits for the disk, which no thread of the runtime shall.
async fn work_in(control: &Arc<Control>, instance: &str, health: PublishHealth) {
    let (control, instance) = (Arc::clone(control), instance.to_owned());
    let submit = move || control.submit_health(&instance, &health.tasks);
    match tokio::task::spawn_blocking(submit).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(error = %error.message, "record the health of tasks"),
        Err(error) => tracing::error!(%error, "record the health of tasks"),
    }
}
