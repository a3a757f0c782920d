//! Health of tasks: pure functions from a task and what an agent reported of its containers.

use serde::{Deserialize, Serialize};

use crate::status::HealthStatus;
use crate::task::Task;
use crate::task_definition::Definition;
use crate::timestamp::Timestamp;

/// What an agent says of the health of one task's containers, in TCS's words (aws/amazon-ecs-agent:
/// ecs-agent/tcs/model/api/api-2.json, `TaskHealth`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskHealth {
    pub task_arn: String,
    pub cluster_arn: String,
    pub task_definition_family: String,
    pub task_definition_version: String,
    pub containers: Vec<ContainerHealth>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerHealth {
    pub container_name: String,
    /// `HEALTHY`, `UNHEALTHY` or `UNKNOWN`.
    pub health_status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_since: Option<Timestamp>,
}

/// Works in what an agent reported; returns whether anything changed.
///
/// Only checks that stand in the definition count, never those of an image.
pub(crate) fn report(task: &mut Task, health: &TaskHealth, definition: &Definition) -> bool {
    if task.is_stopped() {
        return false;
    }
    let before = task.clone();
    for update in &health.containers {
        let checked =
            definition.container(&update.container_name).is_some_and(|it| it.is_checked());
        let Ok(status) = update.health_status.parse::<HealthStatus>() else { continue };
        let own = task.containers.iter_mut().find(|own| own.name == update.container_name);
        if let Some(container) = own.filter(|_| checked) {
            container.health_status = status;
        }
    }
    let essential = definition.container_definitions.iter().filter(|it| it.essential);
    let checked = essential.filter(|it| it.is_checked());
    let statuses = checked.filter_map(|it| {
        let own = task.containers.iter().find(|own| own.name == it.name)?;
        Some(own.health_status)
    });
    task.health_status = of_task(statuses);
    if *task == before {
        return false;
    }
    task.version += 1;
    true
}

/// The worst of the essential containers with checks; without any, nothing is known.
fn of_task(statuses: impl Iterator<Item = HealthStatus>) -> HealthStatus {
    let badness = |status: &HealthStatus| match status {
        HealthStatus::Healthy => 0,
        HealthStatus::Unknown => 1,
        HealthStatus::Unhealthy => 2,
    };
    statuses.max_by_key(badness).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Container;
    use crate::task_definition::RegisterTaskDefinition;

    #[test]
    fn a_task_is_as_its_worst_essential_container_with_a_check() {
        use HealthStatus::{Healthy, Unhealthy, Unknown};
        let json = r#"{"family": "f", "containerDefinitions": [
            {"name": "a", "image": "b", "healthCheck": {"command": ["CMD", "x"]}},
            {"name": "b", "image": "b", "healthCheck": {"command": ["CMD", "x"]}},
            {"name": "side", "image": "b", "essential": false, "healthCheck": {"command": ["CMD", "x"]}},
            {"name": "off", "image": "b", "healthCheck": {"command": ["NONE"]}},
            {"name": "plain", "image": "b"}]}"#;
        let definition = RegisterTaskDefinition::from_json(json).unwrap().definition;
        let container = |name: &str| Container { name: name.into(), ..Container::default() };
        let names = ["a", "b", "side", "off", "plain"];
        let mut task = Task { containers: names.map(container).to_vec(), ..Task::default() };
        let mut hear = |container: &str, status: &str| {
            let containers = vec![ContainerHealth {
                container_name: container.into(),
                health_status: status.into(),
                ..ContainerHealth::default()
            }];
            let health = TaskHealth { containers, ..TaskHealth::default() };
            let changed = report(&mut task, &health, &definition);
            (changed, task.health_status)
        };
        for (container, status, after) in [
            ("a", "HEALTHY", (true, Unknown)),
            ("b", "HEALTHY", (true, Healthy)),
            ("b", "HEALTHY", (false, Healthy)),
            ("side", "UNHEALTHY", (true, Healthy)),
            ("plain", "UNHEALTHY", (false, Healthy)),
            ("off", "UNHEALTHY", (false, Healthy)),
            ("a", "UNHEALTHY", (true, Unhealthy)),
            ("a", "SICK", (false, Unhealthy)),
            ("a", "UNKNOWN", (true, Unknown)),
            ("a", "HEALTHY", (true, Healthy)),
        ] {
            assert_eq!(hear(container, status), after, "{container} {status}");
        }
        task.last_status = crate::status::TaskStatus::Stopped;
        let late = TaskHealth {
            containers: vec![ContainerHealth {
                container_name: "a".into(),
                health_status: "UNHEALTHY".into(),
                status_since: None,
            }],
            ..TaskHealth::default()
        };
        assert!(!report(&mut task, &late, &definition), "STOPPED is final");
    }
}
