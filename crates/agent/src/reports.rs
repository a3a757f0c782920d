//! What happened to tasks, on its way to the control plane: in order, and until it is taken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_aws_api::acs::{PayloadTask, TaskStatus};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::api::{Api, ApiError};
use crate::plan::{Found, Learned, Phase};
use crate::state::StateFile;
use bulkhead_types::Chain;

/// A report of one task: the request of `SubmitTaskStateChange`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Report {
    pub task: String,
    pub request: Value,
    /// The last one: the task may be forgotten once it is taken.
    pub last: bool,
}

/// When the pulls of a task began and ended, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pulls {
    pub started: Option<i64>,
    pub stopped: Option<i64>,
}

/// Says in ECS's words how a task stands.
pub(crate) fn describe(
    task: &PayloadTask,
    status: TaskStatus,
    found: &BTreeMap<String, Found>,
    learned: &Learned,
    pulls: Pulls,
) -> Value {
    let containers: Vec<Value> = task
        .containers
        .iter()
        .map(|container| {
            let shown = found.get(&container.name);
            let failure = learned.failures.get(&container.name);
            let container_status = match shown.map(|shown| shown.phase) {
                _ if status == TaskStatus::Stopped => TaskStatus::Stopped,
                Some(Phase::Running) => TaskStatus::Running,
                Some(Phase::Exited(_)) => TaskStatus::Stopped,
                Some(Phase::Created) | None => TaskStatus::Pending,
            };
            let mut value = json!({"containerName": container.name, "status": container_status});
            if let Some(shown) = shown {
                value["runtimeId"] = json!(shown.id);
                if let Some(digest) = &shown.image_digest {
                    value["imageDigest"] = json!(digest);
                }
                if let Phase::Exited(code) = shown.phase {
                    value["exitCode"] = json!(code);
                    if shown.out_of_memory {
                        value["reason"] = json!(OUT_OF_MEMORY);
                    }
                }
                let bindings = shown.bindings.iter().map(|(inside, protocol, address, outside)| {
                    json!({"bindIP": address, "containerPort": inside, "hostPort": outside, "protocol": protocol})
                });
                value["networkBindings"] = bindings.collect();
            }
            if let Some(failure) = failure {
                value["reason"] = json!(failure);
            }
            value
        })
        .collect();
    let mut request = json!({
        "cluster": task.task_cluster_arn, "task": task.arn, "status": status, "containers": containers,
    });
    if status == TaskStatus::Stopped
        && let Some(first) = learned.failures.values().next()
    {
        request["reason"] = json!(first);
    }
    for (member, time) in [("pullStartedAt", pulls.started), ("pullStoppedAt", pulls.stopped)] {
        if let Some(time) = time {
            request[member] = json!(time as f64 / 1000.0);
        }
    }
    request
}

/// Sends reports one after the other for as long as the agent lives.
///
/// While the control plane is away the queue grows by a few reports per task, which is little.
pub(crate) async fn send_all(
    api: Api,
    state: Arc<StateFile>,
    mut queue: mpsc::UnboundedReceiver<Report>,
) {
    while let Some(report) = queue.recv().await {
        let mut pause = FIRST_PAUSE;
        loop {
            match api.call("SubmitTaskStateChange", &report.request).await {
                Ok(_) => break,
                Err(error @ ApiError::Refused { .. }) => {
                    // the control plane does not know the task any more: nothing is left to be told
                    tracing::warn!(task = report.task, error = %Chain(&error), "a report was refused");
                    break;
                }
                Err(error) => {
                    tracing::debug!(error = %Chain(&error), "a report waits");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        if report.last {
            let told = state.change(|state| {
                if let Some(task) = state.tasks.get_mut(&report.task) {
                    task.told = true;
                }
            });
            if let Err(error) = told {
                tracing::error!(error = %Chain(&error), "the report will be sent again after a restart");
            }
        }
    }
}

const OUT_OF_MEMORY: &str = "OutOfMemoryError: Container killed due to memory usage";
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
