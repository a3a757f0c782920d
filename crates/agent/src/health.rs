//! The health of this machine's tasks, on its way to the control plane: by TCS, as ECS's agent sends it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bulkhead_aws_api::acs::{
    ContainerHealth, Frame, HealthMetadata, HealthStatus, PayloadTask, PublishHealth, TaskHealth,
};
use bulkhead_aws_api::sigv4::encode;
use bulkhead_types::Chain;
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;

use crate::api::Api;
use crate::connection::{Ended, open_socket};
use crate::options::Options;
use crate::plan::{Found, Phase};
use crate::state::{StateFile, random_hex};

/// What is known now; only the newest is worth sending.
#[derive(Debug, Default)]
pub(crate) struct HealthBoard {
    tasks: Mutex<BTreeMap<String, TaskHealth>>,
    changed: Notify,
}

impl HealthBoard {
    /// Notes how a task's containers are.
    pub(crate) fn note(&self, task: &PayloadTask, found: &BTreeMap<String, Found>) {
        let health = describe(task, found);
        let mut tasks = self.tasks();
        let last = tasks.get(&health.task_arn);
        if health.containers.is_empty() || last == Some(&health) {
            return;
        }
        tasks.insert(health.task_arn.clone(), health);
        self.changed.notify_one();
    }

    pub(crate) fn forget(&self, task: &str) {
        self.tasks().remove(task);
    }

    fn all(&self) -> Vec<TaskHealth> {
        self.tasks().values().cloned().collect()
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<String, TaskHealth>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of the containers whose definition has a check.
fn describe(task: &PayloadTask, found: &BTreeMap<String, Found>) -> TaskHealth {
    let checked = task.containers.iter().filter(|container| container.health_check_type.is_some());
    let containers = checked.map(|container| {
        let shown = found.get(&container.name);
        let health = match shown.filter(|shown| shown.phase == Phase::Running) {
            Some(shown) => shown.health,
            None => HealthStatus::Unknown,
        };
        ContainerHealth {
            container_name: container.name.clone(),
            health_status: health.to_string(),
            status_since: None,
        }
    });
    TaskHealth {
        task_arn: task.arn.to_string(),
        cluster_arn: task.task_cluster_arn.to_string(),
        task_definition_family: task.family.clone(),
        task_definition_version: task.version.clone(),
        containers: containers.collect(),
    }
}

/// Sends what is known for as long as the agent lives: when it changes, and now and then again.
///
/// Without this connection tasks run all the same.
pub(crate) async fn publish(
    api: Api,
    options: Arc<Options>,
    state: Arc<StateFile>,
    board: Arc<HealthBoard>,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let instance = state.read(|state| state.container_instance_arn.clone());
        let started = tokio::time::Instant::now();
        if let Some(instance) = instance {
            let ended = publish_once(&api, &options.cluster, &instance, &board).await;
            tracing::debug!(reason = %ended, "health is not sent just now");
        }
        pause = if started.elapsed() > LONGEST_PAUSE { FIRST_PAUSE } else { pause };
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn publish_once(api: &Api, cluster: &str, instance: &str, board: &HealthBoard) -> Ended {
    let request = json!({"containerInstance": instance, "cluster": cluster});
    let endpoint = match api.call("DiscoverPollEndpoint", &request).await {
        Ok(answer) => answer["telemetryEndpoint"].as_str().map(str::to_owned),
        Err(error) => return Ended::Connect(Chain(&error).to_string()),
    };
    let api = endpoint.map_or_else(|| api.clone(), |endpoint| api.at(&endpoint));
    let query = format!(
        "cluster={}&containerInstance={}&agentHash=bulkhead&agentVersion={}",
        encode(cluster.as_bytes()),
        encode(instance.as_bytes()),
        env!("CARGO_PKG_VERSION"),
    );
    let mut socket = match open_socket(&api, &query).await {
        Ok(socket) => socket,
        Err(ended) => return ended,
    };
    loop {
        let tasks = board.all();
        if !tasks.is_empty() {
            let health = PublishHealth {
                metadata: HealthMetadata {
                    cluster: cluster.to_owned(),
                    container_instance: instance.to_owned(),
                    fin: true,
                    message_id: random_hex(16),
                },
                tasks,
                timestamp: jiff::Timestamp::now().as_millisecond() as f64 / 1000.0,
            };
            let frame = Message::text(Frame::text("PublishHealthRequest", health));
            if let Err(error) = socket.send(frame).await {
                return Ended::Broken(Chain(&error).to_string());
            }
        }
        let again = tokio::time::sleep(AGAIN);
        tokio::pin!(again);
        loop {
            tokio::select! {
                () = board.changed.notified() => break,
                () = &mut again => break,
                message = socket.next() => match message {
                    // receipts
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Ended::Broken(Chain(&error).to_string()),
                    None => return Ended::Broken("it was closed".to_owned()),
                },
            }
        }
    }
}

/// ECS's agent sends health every 20 to 30 s.
const AGAIN: Duration = Duration::from_secs(20);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_checks_of_the_definition_are_told() {
        let task: PayloadTask = serde_json::from_value(json!({
            "arn": "arn:aws:ecs:r:0:task/default/0a", "taskClusterArn": "arn:aws:ecs:r:0:cluster/default",
            "family": "f", "version": "3",
            "containers": [
                {"name": "web", "healthCheckType": "docker"}, {"name": "db", "healthCheckType": "docker"},
                {"name": "plain"},
            ],
        }))
        .unwrap();
        let running = |health| Found { phase: Phase::Running, health, ..Found::default() };
        let mut found = BTreeMap::from([
            ("web".to_owned(), running(HealthStatus::Healthy)),
            ("plain".to_owned(), running(HealthStatus::Unhealthy)),
        ]);
        assert_eq!(
            serde_json::to_value(describe(&task, &found)).unwrap(),
            json!({
                "taskArn": "arn:aws:ecs:r:0:task/default/0a",
                "clusterArn": "arn:aws:ecs:r:0:cluster/default",
                "taskDefinitionFamily": "f", "taskDefinitionVersion": "3",
                "containers": [
                    {"containerName": "web", "healthStatus": "HEALTHY"},
                    {"containerName": "db", "healthStatus": "UNKNOWN"},
                ],
            })
        );
        let board = HealthBoard::default();
        board.note(&task, &found);
        found.insert("web".into(), Found { phase: Phase::Exited(0), ..Found::default() });
        board.note(&task, &found);
        assert_eq!(board.all()[0].containers[0].health_status, "UNKNOWN");
        board.forget("arn:aws:ecs:r:0:task/default/0a");
        assert!(board.all().is_empty());
    }
}
