//! An agent's websocket, with the real server on loopback and a plain client.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::time::Duration;

use bulkhead_aws_api::acs::{Frame, PayloadMessage};
use bulkhead_aws_api::sigv4::{self, Credentials, Request};
use bulkhead_aws_api::{AccessKeys, router};
use bulkhead_ecs::{
    Change, Control, CreateCluster, DesiredStatus, Options, RegisterContainerInstance,
    RegisterTaskDefinition, Resource, RunTask, TaskStatus,
};
use bulkhead_store::Embedded;
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

struct OneKey;

impl AccessKeys for OneKey {
    fn secret(&self, access_key_id: &str) -> Option<String> {
        (access_key_id == "AKID").then(|| "secret".to_owned())
    }
}

struct World {
    control: Arc<Control>,
    host: String,
    _directory: tempfile::TempDir,
}

async fn world() -> World {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(&directory.path().join("store")).unwrap();
    let control = Arc::new(Control::new(Arc::new(store), Options::default()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let service = router(Arc::clone(&control), Arc::new(OneKey));
    tokio::spawn(async move { axum::serve(listener, service).await });
    World { control, host, _directory: directory }
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

impl World {
    async fn connect(&self, instance: &str, secret: &str) -> Result<Socket, tungstenite::Error> {
        let query = format!("containerInstanceArn={}&seqNum=1", sigv4::encode(instance.as_bytes()));
        let date = sigv4::amz_date(jiff::Timestamp::now());
        let headers = [("host", &*self.host), ("x-amz-date", &*date)];
        let credentials =
            Credentials { access_key_id: "AKID".into(), secret_access_key: secret.into() };
        let signed =
            Request { method: "GET", path: "/ws", query: &query, headers: &headers, body: b"" };
        let authorization = sigv4::sign(&signed, &credentials, "us-east-1", "ecs");
        let mut request = format!("ws://{}/ws?{query}", self.host).into_client_request()?;
        request.headers_mut().insert("x-amz-date", date.parse().unwrap());
        request.headers_mut().insert("authorization", authorization.parse().unwrap());
        Ok(tokio_tungstenite::connect_async(request).await?.0)
    }

    fn instance(&self) -> String {
        self.control.create_cluster(CreateCluster::default()).unwrap();
        let request = RegisterContainerInstance {
            total_resources: vec![
                Resource::integer("CPU", 1024),
                Resource::integer("MEMORY", 1024),
            ],
            ..RegisterContainerInstance::default()
        };
        self.control.register_container_instance(&request).unwrap().container_instance_arn.into()
    }

    async fn connected(&self, wanted: bool) {
        let mut changes = self.control.changes();
        let now = || self.control.all_container_instances().unwrap()[0].agent_connected;
        while now() != wanted {
            changes.recv().await.unwrap();
        }
    }
}

async fn payload(socket: &mut Socket) -> PayloadMessage {
    loop {
        let message = tokio::time::timeout(Duration::from_secs(10), socket.next()).await;
        let text = message.expect("a payload in time").unwrap().unwrap().into_text().unwrap();
        let frame: Frame = serde_json::from_str(&text).unwrap();
        if frame.kind == "PayloadMessage" {
            return serde_json::from_value(frame.message).unwrap();
        }
    }
}

#[tokio::test]
async fn tasks_reach_the_agent_and_again_after_a_reconnect() {
    let world = world().await;
    let instance = world.instance();
    let mut socket = world.connect(&instance, "secret").await.unwrap();
    world.connected(true).await;
    let definition = RegisterTaskDefinition::from_json(
        r#"{"family": "f", "containerDefinitions": [{"name": "a", "image": "b", "memory": 64, "user": "7"}]}"#,
    )
    .unwrap();
    world.control.register_task_definition(definition).unwrap();
    let request = RunTask { task_definition: "f".into(), ..RunTask::default() };
    let task = world.control.run_task(&request).unwrap().tasks.remove(0);

    let first = payload(&mut socket).await;
    assert_eq!(
        (&*first.tasks[0].arn, first.tasks[0].desired_status),
        (&*task.task_arn, DesiredStatus::Running)
    );
    assert_eq!(first.tasks[0].containers[0].docker_config.config, r#"{"User":"7"}"#);
    let ack = Frame::text("AckRequest", serde_json::json!({"messageId": first.message_id}));
    socket.send(Message::text(ack)).await.unwrap();
    world.control.stop_task(None, task.id(), None).unwrap();
    let second = payload(&mut socket).await;
    assert_eq!(second.tasks[0].desired_status, DesiredStatus::Stopped);
    assert!(second.seq_num > first.seq_num);

    socket.close(None).await.unwrap();
    world.connected(false).await;
    let mut socket = world.connect(&instance, "secret").await.unwrap();
    let again = payload(&mut socket).await;
    assert_eq!(again.tasks[0].arn, task.task_arn);
    assert!(again.seq_num > second.seq_num);

    let mut changes = world.control.changes();
    let stopped =
        serde_json::from_value(serde_json::json!({"task": task.task_arn, "status": "STOPPED"}));
    world.control.submit_task_state_change(&stopped.unwrap()).unwrap();
    let Ok(Change::Task(task)) = changes.recv().await else { panic!("the task changes first") };
    assert_eq!(task.last_status, TaskStatus::Stopped);
}

#[tokio::test]
async fn strangers_and_unknown_instances_are_turned_away() {
    let world = world().await;
    let instance = world.instance();
    let error = world.connect(&instance, "wrong").await.unwrap_err();
    assert!(matches!(error, tungstenite::Error::Http(response) if response.status() == 403));
    let mut socket =
        world.connect(&instance.replace("/default/", "/default/0"), "secret").await.unwrap();
    let text = socket.next().await.unwrap().unwrap().into_text().unwrap();
    let frame: Frame = serde_json::from_str(&text).unwrap();
    assert_eq!(frame.kind, "InactiveInstanceException");
}
