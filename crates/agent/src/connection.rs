//! The agent's end of ACS: orders come in, receipts go out.

use std::time::Duration;

use bulkhead_aws_api::acs::{Ack, Frame, HeartbeatMessage, PayloadMessage};
use bulkhead_aws_api::sigv4::encode;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::api::Api;
use crate::state::StateError;
use bulkhead_types::Chain;

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// An open connection to the control plane.
pub(crate) struct Connection {
    socket: Socket,
    cluster: String,
    instance_arn: String,
}

/// Why a connection could not be made or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("connect to the control plane: {0}")]
    Connect(String),
    #[error("the connection to the control plane broke: {0}")]
    Broken(String),
    #[error("the control plane was silent for {} s", SILENCE.as_secs())]
    Silent,
    /// The instance has to register anew.
    #[error("the control plane does not know this instance: {0}")]
    Inactive(String),
    #[error(transparent)]
    State(#[from] StateError),
}

impl Connection {
    pub(crate) async fn open(api: &Api, cluster: &str, instance_arn: &str) -> Result<Self, Ended> {
        let query = format!(
            "clusterArn={}&containerInstanceArn={}&agentHash=bulkhead&agentVersion={}&seqNum=1&protocolVersion=2&sendCredentials=true",
            encode(cluster.as_bytes()),
            encode(instance_arn.as_bytes()),
            env!("CARGO_PKG_VERSION"),
        );
        let socket = open_socket(api, &query).await?;
        Ok(Self { socket, cluster: cluster.to_owned(), instance_arn: instance_arn.to_owned() })
    }

    /// Takes orders until the connection ends; each is acknowledged once `accept` has it on disk.
    pub(crate) async fn serve(
        mut self,
        mut accept: impl FnMut(PayloadMessage) -> Result<(), StateError>,
    ) -> Ended {
        loop {
            let message = match tokio::time::timeout(SILENCE, self.socket.next()).await {
                Err(_) => return Ended::Silent,
                Ok(None) => return Ended::Broken("it was closed".into()),
                Ok(Some(Err(error))) => return Ended::Broken(Chain(&error).to_string()),
                Ok(Some(Ok(message))) => message,
            };
            let Message::Text(text) = message else { continue };
            let Ok(frame) = serde_json::from_str::<Frame>(&text) else {
                tracing::warn!("the control plane sent a frame that is not JSON");
                continue;
            };
            let answered = match &*frame.kind {
                "PayloadMessage" => match serde_json::from_value::<PayloadMessage>(frame.message) {
                    Ok(payload) => {
                        let id = payload.message_id.clone();
                        if let Err(error) = accept(payload) {
                            return error.into();
                        }
                        self.acknowledge("AckRequest", id).await
                    }
                    Err(error) => {
                        // not acknowledged: the control plane will say it again, perhaps a newer one better
                        tracing::error!(error = %Chain(&error), "an order is not understood");
                        Ok(())
                    }
                },
                "HeartbeatMessage" => {
                    let heartbeat = serde_json::from_value::<HeartbeatMessage>(frame.message);
                    let id = heartbeat.map(|heartbeat| heartbeat.message_id).unwrap_or_default();
                    self.acknowledge("HeartbeatAckRequest", id).await
                }
                "InactiveInstanceException" => {
                    let message = frame.message["message"].as_str().unwrap_or_default();
                    return Ended::Inactive(message.to_owned());
                }
                other => {
                    tracing::debug!(kind = other, "a message of another kind");
                    Ok(())
                }
            };
            if let Err(error) = answered {
                return Ended::Broken(Chain(&error).to_string());
            }
        }
    }

    async fn acknowledge(
        &mut self,
        kind: &str,
        message_id: String,
    ) -> Result<(), tungstenite::Error> {
        let ack = Ack {
            cluster: self.cluster.clone(),
            container_instance: self.instance_arn.clone(),
            message_id,
        };
        self.socket.send(Message::text(Frame::text(kind, ack))).await
    }
}

/// Opens a signed websocket to the control plane, with what `query` says.
pub(crate) async fn open_socket(api: &Api, query: &str) -> Result<Socket, Ended> {
    let connect = |reason: String| Ended::Connect(reason);
    let address = api.endpoint().replacen("http", "ws", 1);
    let mut request = format!("{address}/ws?{query}")
        .into_client_request()
        .map_err(|error| connect(error.to_string()))?;
    for (name, value) in api.signed("GET", "/ws", query, &[], b"") {
        let value =
            value.parse().map_err(|_| connect(format!("the header {name} cannot be sent")))?;
        request.headers_mut().insert(name, value);
    }
    let attempt = tokio_tungstenite::connect_async(request);
    match tokio::time::timeout(TIMEOUT, attempt).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(tungstenite::Error::Http(response))) => {
            let body = response.body().clone().unwrap_or_default();
            Err(connect(format!("{} {}", response.status(), String::from_utf8_lossy(&body))))
        }
        Ok(Err(error)) => Err(connect(error.to_string())),
        Err(_) => Err(connect(format!("no answer in {} s", TIMEOUT.as_secs()))),
    }
}

const TIMEOUT: Duration = Duration::from_secs(30);
/// The server sends a heartbeat at least every 30 s; ECS's agent waits for one to two minutes.
const SILENCE: Duration = Duration::from_secs(90);
