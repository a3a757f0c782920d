//! `startTimeout`: how long a container may keep those waiting that depend on it. It counts from its own
//! start (the API reference of ECS, `ContainerDefinition`; ECS's agent, `dependencygraph`).

use std::collections::BTreeMap;
use std::fmt;

use bulkhead_aws_api::acs::{DependencyCondition, HealthStatus, PayloadContainer, PayloadTask};
use bulkhead_types::Timestamp;

use crate::plan::{Found, Phase};

/// A container that is not started yet, and what it waits for at the longest until a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BoundedWait {
    pub waiting: String,
    on: String,
    condition: DependencyCondition,
    seconds: i64,
    pub until: Timestamp,
}

/// The wait that is over first. One without a `startTimeout` is never over, and neither is one that has
/// come true or can do so no more, which `plan` sees.
pub(crate) fn first_to_end(
    task: &PayloadTask,
    found: &BTreeMap<String, Found>,
) -> Option<BoundedWait> {
    let waits = |name: &str| found.get(name).is_none_or(|found| found.phase == Phase::Created);
    let waiting = task.containers.iter().filter(|container| waits(&container.name));
    let all = waiting.flat_map(|container| bounded(task, container, found));
    all.min_by_key(|wait| wait.until)
}

fn bounded<'a>(
    task: &'a PayloadTask,
    waiting: &'a PayloadContainer,
    found: &'a BTreeMap<String, Found>,
) -> impl Iterator<Item = BoundedWait> + 'a {
    waiting.depends_on.iter().filter_map(|on| {
        let condition = on.condition.parse().unwrap_or_default();
        let other = found.get(&on.container_name)?;
        let is_open = other.phase == Phase::Running
            && match condition {
                DependencyCondition::Start => false,
                DependencyCondition::Complete | DependencyCondition::Success => true,
                DependencyCondition::Healthy => other.health != HealthStatus::Healthy,
            };
        let definition = task.containers.iter().find(|it| it.name == on.container_name)?;
        let seconds = definition.start_timeout.filter(|seconds| *seconds > 0 && is_open)?;
        let until = other.started_at?.checked_add(jiff::SignedDuration::from_secs(seconds)).ok()?;
        let (waiting, on) = (waiting.name.clone(), on.container_name.clone());
        Some(BoundedWait { waiting, on, condition, seconds, until })
    })
}

impl fmt::Display for BoundedWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { on, condition, seconds, .. } = self;
        write!(
            f,
            "CannotStartContainerError: dependency {on} was not {condition} within its startTimeout of \
             {seconds} seconds"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_wait_is_over_when_the_start_timeout_of_what_it_is_for_is() {
        let task = |condition: &str, timeout: Option<i64>| -> PayloadTask {
            serde_json::from_value(serde_json::json!({
                "desiredStatus": "RUNNING",
                "containers": [
                    {"name": "web", "essential": true,
                        "dependsOn": [{"containerName": "db", "condition": condition}]},
                    {"name": "db", "essential": false, "startTimeout": timeout},
                ],
            }))
            .unwrap()
        };
        let running = |health| Found {
            phase: Phase::Running,
            health,
            started_at: Some(at(100)),
            ..Found::default()
        };
        let unknown = running(HealthStatus::Unknown);
        let ended = Found { phase: Phase::Exited(1), ..unknown.clone() };
        let cases = [
            ("HEALTHY", Some(30), unknown.clone(), Some(130)),
            ("HEALTHY", Some(30), running(HealthStatus::Unhealthy), Some(130)),
            ("HEALTHY", Some(30), running(HealthStatus::Healthy), None),
            ("HEALTHY", None, unknown.clone(), None),
            ("HEALTHY", Some(0), unknown.clone(), None),
            ("SUCCESS", Some(5), unknown.clone(), Some(105)),
            ("COMPLETE", Some(5), unknown.clone(), Some(105)),
            ("COMPLETE", Some(5), ended, None),
            ("START", Some(5), unknown.clone(), None),
            ("SUCCESS", Some(5), Found::default(), None),
            ("SUCCESS", Some(i64::MAX), unknown.clone(), None),
        ];
        for (condition, timeout, db, until) in cases {
            let found = BTreeMap::from([("db".to_owned(), db)]);
            let wait = first_to_end(&task(condition, timeout), &found);
            assert_eq!(
                wait.map(|wait| wait.until),
                until.map(at),
                "{condition} {timeout:?} {found:?}"
            );
        }
        // One that runs waits for nothing any more.
        let found =
            BTreeMap::from([("db".to_owned(), unknown.clone()), ("web".to_owned(), unknown)]);
        assert_eq!(first_to_end(&task("SUCCESS", Some(5)), &found), None);
    }
}
