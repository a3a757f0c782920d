//! The state machine of a task: pure functions from a task and what was heard to the task after it.

use serde::Deserialize;

use crate::status::{DesiredStatus, StopCode, TaskStatus};
use crate::task::{Container, NetworkBinding, Task};
use crate::timestamp::Timestamp;

/// The request of `SubmitTaskStateChange`: what an agent saw.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskStateChange {
    pub cluster: Option<String>,
    pub task: Option<String>,
    pub status: Option<String>,
    pub reason: Option<String>,
    pub containers: Vec<ContainerStateChange>,
    pub pull_started_at: Option<Timestamp>,
    pub pull_stopped_at: Option<Timestamp>,
    pub execution_stopped_at: Option<Timestamp>,
}

/// What an agent saw of one container; alone it is the request of `SubmitContainerStateChange`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStateChange {
    pub cluster: Option<String>,
    pub task: Option<String>,
    pub container_name: Option<String>,
    pub image_digest: Option<String>,
    pub runtime_id: Option<String>,
    pub exit_code: Option<i32>,
    pub network_bindings: Vec<NetworkBinding>,
    pub reason: Option<String>,
    pub status: Option<String>,
}

/// Works in what an agent reported; `essential` says of a container's name whether it is.
///
/// Reports may come late, twice or out of order after a reconnect, so states only ever go forward and
/// STOPPED is final. Returns whether anything changed.
pub(crate) fn report(
    task: &mut Task,
    change: &TaskStateChange,
    essential: impl Fn(&str) -> bool,
    now: Timestamp,
) -> bool {
    if task.is_stopped() {
        return false;
    }
    let before = task.clone();
    for update in &change.containers {
        let named =
            |container: &&mut Container| Some(&container.name) == update.container_name.as_ref();
        if let Some(container) = task.containers.iter_mut().find(named) {
            report_container(container, update);
        }
    }
    task.pull_started_at = task.pull_started_at.or(change.pull_started_at);
    task.pull_stopped_at = task.pull_stopped_at.or(change.pull_stopped_at);
    task.execution_stopped_at = task.execution_stopped_at.or(change.execution_stopped_at);
    match change.status.as_deref().and_then(known) {
        Some(TaskStatus::Running) if task.last_status == TaskStatus::Pending => {
            task.last_status = TaskStatus::Running;
            task.started_at = Some(now);
        }
        Some(TaskStatus::Stopped) => stopped(task, change.reason.as_deref(), now),
        _ => {}
    }
    let exited = |container: &Container| {
        container.last_status == TaskStatus::Stopped && essential(&container.name)
    };
    if task.desired_status == DesiredStatus::Running && task.containers.iter().any(exited) {
        ask_to_stop(task, StopCode::EssentialContainerExited, ESSENTIAL_EXITED, now);
    }
    if *task == before {
        return false;
    }
    task.version += 1;
    true
}

/// Wants the task stopped, for the given reason unless there is one already.
///
/// Returns whether that is new.
pub(crate) fn ask_to_stop(task: &mut Task, code: StopCode, reason: &str, now: Timestamp) -> bool {
    if task.desired_status == DesiredStatus::Stopped {
        return false;
    }
    task.desired_status = DesiredStatus::Stopped;
    task.stopping_at = Some(now);
    task.stop_code = Some(code);
    task.stopped_reason = Some(reason.into());
    true
}

/// Ends the task.
pub(crate) fn stopped(task: &mut Task, reason: Option<&str>, now: Timestamp) {
    if task.started_at.is_some() {
        let reason = reason.unwrap_or(ESSENTIAL_EXITED);
        ask_to_stop(task, StopCode::EssentialContainerExited, reason, now);
    } else {
        let first = task.containers.iter().find_map(|container| container.reason.clone());
        let reason = reason.map(str::to_owned).or(first);
        ask_to_stop(
            task,
            StopCode::TaskFailedToStart,
            reason.as_deref().unwrap_or("Task failed to start"),
            now,
        );
    }
    task.last_status = TaskStatus::Stopped;
    task.stopped_at = Some(now);
    task.execution_stopped_at.get_or_insert(now);
    for container in &mut task.containers {
        container.last_status = TaskStatus::Stopped;
    }
}

fn report_container(container: &mut Container, update: &ContainerStateChange) {
    if let Some(status) = update.status.as_deref().and_then(known) {
        container.last_status = container.last_status.max(status);
    }
    if !update.network_bindings.is_empty() {
        container.network_bindings.clone_from(&update.network_bindings);
    }
    let keep = |old: &mut Option<String>, new: &Option<String>| {
        if new.as_ref().is_some_and(|text| !text.is_empty()) {
            old.clone_from(new);
        }
    };
    keep(&mut container.image_digest, &update.image_digest);
    keep(&mut container.runtime_id, &update.runtime_id);
    keep(&mut container.reason, &update.reason);
    container.exit_code = update.exit_code.or(container.exit_code);
}

/// ECS's own agents tell of more (`PULLED`, `CREATED`), which are steps on the way to RUNNING.
fn known(status: &str) -> Option<TaskStatus> {
    status.parse().ok()
}

const ESSENTIAL_EXITED: &str = "Essential container in task exited";

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000;

    fn task() -> Task {
        let container = |name: &str| Container { name: name.into(), ..Container::default() };
        Task { containers: vec![container("proxy"), container("side")], ..Task::default() }
    }

    fn hear(task: &mut Task, json: &str) -> bool {
        let change: TaskStateChange = serde_json::from_str(json).unwrap();
        report(task, &change, |name| name == "proxy", Timestamp::from_milliseconds(NOW))
    }

    #[test]
    fn states_go_forward_only() {
        let mut task = task();
        assert!(hear(
            &mut task,
            r#"{"status":"RUNNING","containers":[{"containerName":"proxy","status":"RUNNING",
                "runtimeId":"abc","networkBindings":[{"bindIP":"0.0.0.0","containerPort":80,"hostPort":80,"protocol":"tcp"}]}]}"#
        ));
        assert_eq!((task.last_status, task.version), (TaskStatus::Running, 1));
        assert_eq!(task.containers[0].network_bindings[0].host_port, Some(80));
        assert!(!hear(&mut task, r#"{"status":"PENDING"}"#));
        assert!(hear(
            &mut task,
            r#"{"status":"STOPPED","containers":[{"containerName":"proxy","status":"STOPPED","exitCode":3}]}"#
        ));
        assert_eq!(task.stop_code, Some(StopCode::EssentialContainerExited));
        assert_eq!(task.stopped_reason.as_deref(), Some("Essential container in task exited"));
        assert_eq!(
            (task.containers[0].exit_code, task.containers[1].last_status),
            (Some(3), TaskStatus::Stopped)
        );
        assert!(!hear(&mut task, r#"{"status":"RUNNING"}"#), "STOPPED is final");
    }

    #[test]
    fn a_task_that_never_ran_failed_to_start() {
        let mut task = task();
        hear(
            &mut task,
            r#"{"status":"STOPPED","containers":[{"containerName":"proxy","status":"STOPPED","reason":"CannotPullContainerError: no"}]}"#,
        );
        assert_eq!(task.stop_code, Some(StopCode::TaskFailedToStart));
        assert_eq!(task.stopped_reason.as_deref(), Some("CannotPullContainerError: no"));
    }

    #[test]
    fn only_an_essential_exit_stops_the_task_and_the_first_reason_stays() {
        let mut task = task();
        hear(
            &mut task,
            r#"{"status":"RUNNING","containers":[{"containerName":"side","status":"STOPPED","exitCode":0}]}"#,
        );
        assert_eq!(task.desired_status, DesiredStatus::Running);
        ask_to_stop(
            &mut task,
            StopCode::UserInitiated,
            "enough",
            Timestamp::from_milliseconds(NOW),
        );
        hear(&mut task, r#"{"status":"STOPPED","reason":"other"}"#);
        assert_eq!(task.stop_code, Some(StopCode::UserInitiated));
        assert_eq!(task.stopped_reason.as_deref(), Some("enough"));
    }
}
