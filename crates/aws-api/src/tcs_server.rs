//! The server's end of TCS, to which agents send metrics and health.
//!
//! Everything is acknowledged, as agents would otherwise reconnect; nothing is kept yet.

use axum::extract::ws::{Message, WebSocket};
use serde_json::json;

use crate::acs::Frame;
use crate::answer::request_id;

pub(crate) async fn serve(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        let Message::Text(text) = message else { continue };
        let Ok(frame) = serde_json::from_str::<Frame>(&text) else { continue };
        let answer = match &*frame.kind {
            "PublishMetricsRequest" => "AckPublishMetric",
            "PublishHealthRequest" => "AckPublishHealth",
            "PublishInstanceStatusRequest" => "AckPublishInstanceStatus",
            _ => continue,
        };
        let text = Frame::text(answer, json!({"message": request_id()}));
        if socket.send(Message::Text(text.into())).await.is_err() {
            return;
        }
    }
}
