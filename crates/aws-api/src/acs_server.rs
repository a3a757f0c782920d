//! The server's end of ACS: one task per connected agent, which tells it what to run and what to stop.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use bulkhead_ecs::{Arn, Change, Control, DesiredStatus, Session};
use tokio::sync::broadcast;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::acs::{Ack, Frame, HeartbeatMessage, PayloadMessage, PayloadTask};
use crate::answer::request_id;
use bulkhead_types::Chain;

/// Serves one agent until it or a newer connection of the same instance ends this one.
pub(crate) async fn serve(
    mut socket: WebSocket,
    control: Arc<Control>,
    cluster: Option<String>,
    instance: String,
) {
    // before the orders are first read, so that no change falls between
    let changes = control.changes();
    match control.connect_agent(cluster.as_deref(), &instance) {
        Ok(session) => {
            tracing::info!(%instance, "agent connected");
            Connection::new(socket, session, changes).run().await;
            tracing::info!(%instance, "agent disconnected");
        }
        Err(error) => {
            // agents wait an hour after this one: it is final for the instance
            let text = Frame::text(
                "InactiveInstanceException",
                serde_json::json!({"message": error.message}),
            );
            let _ = socket.send(Message::Text(text.into())).await;
        }
    }
}

/// What the agent was told of one task.
struct Told {
    desired: DesiredStatus,
    /// The message to be acknowledged; none once it is.
    waiting: Option<String>,
}

struct Connection {
    socket: WebSocket,
    session: Session,
    changes: broadcast::Receiver<Change>,
    told: HashMap<Arn, Told>,
    sequence: i64,
    last_heard: Instant,
}

/// The other side, or the transport, is gone.
struct Gone;

impl Connection {
    fn new(socket: WebSocket, session: Session, changes: broadcast::Receiver<Change>) -> Self {
        // sequence numbers must grow across connections too: agents compare them
        let sequence = bulkhead_ecs::Timestamp::now().milliseconds();
        Self {
            socket,
            session,
            changes,
            told: HashMap::new(),
            sequence,
            last_heard: Instant::now(),
        }
    }

    async fn run(mut self) {
        // not at once: the first orders need a moment to be acknowledged before they count as lost
        let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if self.send_orders().await.is_err() {
            return;
        }
        loop {
            let result = tokio::select! {
                change = self.changes.recv() => match change {
                    Ok(Change::Task(task)) if task.container_instance_arn != *self.session.instance_arn() => Ok(()),
                    Ok(Change::Task(_)) | Err(broadcast::error::RecvError::Lagged(_)) => self.send_orders().await,
                    Ok(_) => Ok(()),
                    Err(broadcast::error::RecvError::Closed) => Err(Gone),
                },
                _ = heartbeat.tick() => self.beat().await,
                message = self.socket.recv() => match message {
                    Some(Ok(Message::Text(text))) => { self.hear(&text); Ok(()) }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => Err(Gone),
                    Some(Ok(_)) => { self.last_heard = Instant::now(); Ok(()) }
                },
                () = self.session.replaced() => {
                    let _ = self.socket.send(Message::Close(None)).await;
                    Err(Gone)
                }
            };
            if result.is_err() {
                return;
            }
        }
    }

    /// Sends what the agent does not know yet: new tasks, and those that are to stop.
    async fn send_orders(&mut self) -> Result<(), Gone> {
        let orders = self.session.orders().map_err(|error| {
            tracing::error!(error = %Chain(&error), "the orders of an agent could not be read");
            Gone
        })?;
        self.told.retain(|arn, _| orders.iter().any(|order| order.task.task_arn == *arn));
        let news: Vec<PayloadTask> = orders
            .iter()
            .filter(|order| {
                let told = self.told.get(&order.task.task_arn);
                told.is_none_or(|told| told.desired != order.task.desired_status)
            })
            .map(PayloadTask::of)
            .collect();
        self.send_tasks(news).await
    }

    async fn send_tasks(&mut self, tasks: Vec<PayloadTask>) -> Result<(), Gone> {
        if tasks.is_empty() {
            return Ok(());
        }
        self.sequence += 1;
        let message_id = request_id();
        for task in &tasks {
            let told = Told { desired: task.desired_status, waiting: Some(message_id.clone()) };
            self.told.insert(task.arn.clone(), told);
        }
        let message = PayloadMessage {
            message_id,
            cluster_arn: self.session.cluster_arn().into(),
            container_instance_arn: self.session.instance_arn().to_string(),
            seq_num: self.sequence,
            generated_at: bulkhead_ecs::Timestamp::now().milliseconds(),
            tasks,
        };
        self.send(Frame::text("PayloadMessage", message)).await
    }

    /// Shows that we are alive, gives up on an agent that is not, and repeats what was not acknowledged.
    async fn beat(&mut self) -> Result<(), Gone> {
        if self.last_heard.elapsed() > SILENCE {
            tracing::warn!(instance = %self.session.instance_arn(), "the agent is silent; closing");
            return Err(Gone);
        }
        self.told.retain(|_, told| told.waiting.is_none());
        self.send_orders().await?;
        let message = HeartbeatMessage { message_id: request_id(), healthy: true };
        self.send(Frame::text("HeartbeatMessage", message)).await
    }

    fn hear(&mut self, text: &str) {
        self.last_heard = Instant::now();
        let Ok(frame) = serde_json::from_str::<Frame>(text) else {
            tracing::warn!("an agent sent a frame that is not JSON");
            return;
        };
        if frame.kind == "AckRequest"
            && let Ok(ack) = serde_json::from_value::<Ack>(frame.message)
        {
            for told in self.told.values_mut() {
                if told.waiting.as_ref() == Some(&ack.message_id) {
                    told.waiting = None;
                }
            }
        }
    }

    async fn send(&mut self, text: String) -> Result<(), Gone> {
        // a peer that does not read must not hold us for ever
        match tokio::time::timeout(SEND, self.socket.send(Message::Text(text.into()))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }
}

/// Agents take a minute without a message for a dead connection.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// Three heartbeats without an answer.
const SILENCE: Duration = Duration::from_secs(70);
const SEND: Duration = Duration::from_secs(30);
