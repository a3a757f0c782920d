//! The next step of a task: a pure function from what should be and what is.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_aws_api::acs::{
    DependencyCondition, DesiredStatus, HealthStatus, PayloadContainer, PayloadTask,
};
use bulkhead_types::Timestamp;

use crate::state::SavedTask;

/// A container as the engine shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub id: String,
    pub docker_name: String,
    pub phase: Phase,
    /// The last time; nothing before the first.
    pub started_at: Option<Timestamp>,
    /// As Docker says it; unknown without a health check, and until it has said something.
    pub health: HealthStatus,
    pub out_of_memory: bool,
    /// (container port, protocol, host address, host port)
    pub bindings: Vec<(u16, String, String, u16)>,
    pub image_digest: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    #[default]
    Created,
    Running,
    Exited(i64),
}

/// What was learned that the engine does not show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Learned {
    /// Containers whose image was pulled for this task.
    pub pulled: BTreeSet<String>,
    /// Why a container could not be brought up, in ECS's words.
    pub failures: BTreeMap<String, String>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Pull(String),
    Create(String),
    Start(String),
    Stop(String),
    /// Nothing until something changes.
    Wait,
    /// Nothing runs any more, nor will again.
    Finish,
}

/// Decides the next step.
pub(crate) fn next(task: &SavedTask, found: &BTreeMap<String, Found>, learned: &Learned) -> Step {
    if ending(task, found, learned) {
        // those that others depend on stop last
        return match stop_order(&task.payload, found) {
            Some(name) => Step::Stop(name),
            None => Step::Finish,
        };
    }
    let containers = &task.payload.containers;
    if let Some(missing) = containers.iter().find(|container| {
        !found.contains_key(&container.name) && !learned.pulled.contains(&container.name)
    }) {
        return Step::Pull(missing.name.clone());
    }
    for container in containers {
        match found.get(&container.name).map(|found| found.phase) {
            None if sources(container).all(|name| found.contains_key(name)) => {
                return Step::Create(container.name.clone());
            }
            Some(Phase::Created) if may_start(container, found) => {
                return Step::Start(container.name.clone());
            }
            _ => {}
        }
    }
    Step::Wait
}

/// Shows a container whose start was cut off as one that was not started.
///
/// An engine that dies in the middle of a start cannot say afterwards how the container ended, and says
/// 255. Where nobody saw it run, starting it again is what was asked for.
pub(crate) fn forgive_cut_off_starts(task: &SavedTask, found: &mut BTreeMap<String, Found>) {
    for (name, container) in found {
        if container.phase == Phase::Exited(UNKNOWN_EXIT) && !task.started.contains(name) {
            container.phase = Phase::Created;
        }
    }
}

/// Whether every container was started, whatever became of it.
pub(crate) fn all_started(task: &PayloadTask, found: &BTreeMap<String, Found>) -> bool {
    task.containers.iter().all(|container| {
        found.get(&container.name).is_some_and(|found| found.phase != Phase::Created)
    })
}

/// Whether the task is on its way out: by order, by a failure, or because an essential container ended.
fn ending(task: &SavedTask, found_all: &BTreeMap<String, Found>, learned: &Learned) -> bool {
    if task.finished_at.is_some()
        || task.payload.desired_status == DesiredStatus::Stopped
        || !learned.failures.is_empty()
    {
        return true;
    }
    task.payload.containers.iter().any(|container| match found_all.get(&container.name) {
        Some(found) => match found.phase {
            Phase::Exited(code) => {
                container.essential
                    || (code != 0 && awaited(&task.payload, container))
                    || health_awaited(&task.payload, container, found_all)
            }
            _ => false,
        },
        // it was made, and somebody removed it
        None => task.made.contains_key(&container.name),
    })
}

/// Whether some container waits for this one's success, which can no longer come.
fn awaited(task: &PayloadTask, container: &PayloadContainer) -> bool {
    let conditions = task.containers.iter().flat_map(|other| &other.depends_on);
    conditions.into_iter().any(|on| {
        on.container_name == container.name
            && on.condition.parse::<DependencyCondition>() == Ok(DependencyCondition::Success)
    })
}

/// Whether some container that was not started yet waits for this one's health, which can no longer come.
fn health_awaited(
    task: &PayloadTask,
    container: &PayloadContainer,
    found: &BTreeMap<String, Found>,
) -> bool {
    let waits = |other: &&PayloadContainer| {
        found.get(&other.name).is_none_or(|other| other.phase == Phase::Created)
    };
    let conditions = task.containers.iter().filter(waits).flat_map(|other| &other.depends_on);
    conditions.into_iter().any(|on| {
        on.container_name == container.name
            && on.condition.parse::<DependencyCondition>() == Ok(DependencyCondition::Healthy)
    })
}

/// What must exist before a container can be created: Docker resolves links and volumes then.
fn sources(container: &PayloadContainer) -> impl Iterator<Item = &str> {
    let links =
        container.links.iter().map(|link| link.split_once(':').map_or(&**link, |(name, _)| name));
    links.chain(container.volumes_from.iter().map(|from| &*from.source_container))
}

fn may_start(container: &PayloadContainer, found: &BTreeMap<String, Found>) -> bool {
    // Docker refuses a link to what does not run; the rest of the sources only has to be there
    let started = |name: &str| found.get(name).is_some_and(|found| found.phase != Phase::Created);
    let linked =
        container.links.iter().map(|link| link.split_once(':').map_or(&**link, |(name, _)| name));
    linked.into_iter().all(started)
        && container.depends_on.iter().all(|on| {
            let Some(other) = found.get(&on.container_name) else { return false };
            match on.condition.parse().unwrap_or_default() {
                DependencyCondition::Complete => matches!(other.phase, Phase::Exited(_)),
                DependencyCondition::Success => other.phase == Phase::Exited(0),
                DependencyCondition::Healthy => {
                    other.phase == Phase::Running && other.health == HealthStatus::Healthy
                }
                DependencyCondition::Start => other.phase != Phase::Created,
            }
        })
}

/// The running container on which no other running one depends.
fn stop_order(task: &PayloadTask, found: &BTreeMap<String, Found>) -> Option<String> {
    let running = |name: &str| found.get(name).is_some_and(|found| found.phase == Phase::Running);
    let needs = |container: &PayloadContainer, name: &str| {
        sources(container).any(|source| source == name)
            || container.depends_on.iter().any(|on| on.container_name == name)
    };
    let mut candidates = task.containers.iter().filter(|container| running(&container.name));
    let free = candidates.clone().find(|container| {
        !task.containers.iter().any(|other| running(&other.name) && needs(other, &container.name))
    });
    // a cycle was refused at registration, but a stop must not depend on that
    free.or_else(|| candidates.next()).map(|container| container.name.clone())
}

/// The exit code that engines show for a process of which they lost sight.
const UNKNOWN_EXIT: i64 = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn saved() -> SavedTask {
        let payload = serde_json::from_value(serde_json::json!({
            "desiredStatus": "RUNNING",
            "containers": [
                {"name": "proxy", "essential": true, "links": ["application:app"]},
                {"name": "application", "essential": true, "dependsOn": [{"containerName": "setup", "condition": "SUCCESS"}]},
                {"name": "setup", "essential": false},
            ],
        }));
        SavedTask { payload: payload.unwrap(), ..SavedTask::default() }
    }

    fn put(found: &mut BTreeMap<String, Found>, name: &str, phase: Phase) {
        found.insert(name.into(), Found { phase, ..Found::default() });
    }

    /// Plays an engine that does what it is told, in which `setup` ends with `code` once it is started.
    fn play(task: &SavedTask, code: i64) -> Vec<String> {
        let (mut found, mut learned, mut steps) = (BTreeMap::new(), Learned::default(), Vec::new());
        loop {
            let step = next(task, &found, &learned);
            match &step {
                Step::Pull(name) => {
                    learned.pulled.insert(name.clone());
                }
                Step::Create(name) => put(&mut found, name, Phase::Created),
                Step::Start(name) if name == "setup" => put(&mut found, name, Phase::Exited(code)),
                Step::Start(name) => put(&mut found, name, Phase::Running),
                Step::Stop(name) => put(&mut found, name, Phase::Exited(137)),
                Step::Wait | Step::Finish => {
                    steps.push(format!("{step:?}"));
                    return steps;
                }
            }
            steps.push(format!("{step:?}"));
        }
    }

    #[test]
    fn containers_come_up_in_the_order_they_need_each_other() {
        assert_eq!(
            play(&saved(), 0).join(" "),
            r#"Pull("proxy") Pull("application") Pull("setup") Create("application") Create("proxy") Create("setup") Start("setup") Start("application") Start("proxy") Wait"#
        );
        let failed = play(&saved(), 1);
        assert_eq!(failed.last().unwrap(), "Finish");
        assert!(!failed.contains(&r#"Start("application")"#.to_owned()));
    }

    #[test]
    fn a_stop_goes_the_other_way_round() {
        let mut task = saved();
        let mut found = BTreeMap::new();
        for name in ["proxy", "application"] {
            put(&mut found, name, Phase::Running);
        }
        put(&mut found, "setup", Phase::Exited(0));
        assert_eq!(next(&task, &found, &Learned::default()), Step::Wait);
        task.payload.desired_status = DesiredStatus::Stopped;
        assert_eq!(next(&task, &found, &Learned::default()), Step::Stop("proxy".into()));
        put(&mut found, "proxy", Phase::Exited(0));
        assert_eq!(next(&task, &found, &Learned::default()), Step::Stop("application".into()));
        put(&mut found, "application", Phase::Exited(0));
        assert_eq!(next(&task, &found, &Learned::default()), Step::Finish);
    }

    #[test]
    fn an_essential_end_a_failure_or_a_vanished_container_ends_the_task() {
        let mut task = saved();
        let mut found = BTreeMap::new();
        put(&mut found, "proxy", Phase::Exited(1));
        put(&mut found, "application", Phase::Running);
        assert_eq!(next(&task, &found, &Learned::default()), Step::Stop("application".into()));
        put(&mut found, "proxy", Phase::Running);
        let failures = [("setup".to_owned(), "CannotPullContainerError: no".to_owned())].into();
        let learned = Learned { failures, ..Learned::default() };
        assert_eq!(next(&task, &found, &learned), Step::Stop("proxy".into()));
        task.made.insert("setup".into(), "id".into());
        assert_eq!(next(&task, &found, &Learned::default()), Step::Stop("proxy".into()));
        assert_eq!(next(&task, &BTreeMap::new(), &Learned::default()), Step::Finish);
    }

    #[test]
    fn one_that_waits_for_health_starts_when_it_comes() {
        let payload = serde_json::from_value(serde_json::json!({
            "desiredStatus": "RUNNING",
            "containers": [
                {"name": "web", "essential": true, "dependsOn": [{"containerName": "db", "condition": "HEALTHY"}]},
                {"name": "db", "essential": false, "healthCheckType": "docker"},
            ],
        }));
        let task = SavedTask { payload: payload.unwrap(), ..SavedTask::default() };
        let (mut found, learned) = (BTreeMap::new(), Learned::default());
        put(&mut found, "web", Phase::Created);
        for (health, step) in [
            (HealthStatus::Unknown, Step::Wait),
            (HealthStatus::Unhealthy, Step::Wait),
            (HealthStatus::Healthy, Step::Start("web".into())),
        ] {
            found.insert("db".into(), Found { phase: Phase::Running, health, ..Found::default() });
            assert_eq!(next(&task, &found, &learned), step, "{health:?}");
        }
        put(&mut found, "db", Phase::Exited(0));
        assert_eq!(next(&task, &found, &learned), Step::Finish, "its health cannot come any more");
        put(&mut found, "web", Phase::Running);
        assert_eq!(next(&task, &found, &learned), Step::Wait);
    }

    #[test]
    fn a_start_that_was_cut_off_is_made_again() {
        let mut task = saved();
        task.started.insert("application".into());
        let mut found = BTreeMap::new();
        put(&mut found, "application", Phase::Exited(255));
        put(&mut found, "proxy", Phase::Exited(255));
        put(&mut found, "setup", Phase::Exited(0));
        forgive_cut_off_starts(&task, &mut found);
        let phases: Vec<_> = found.values().map(|found| found.phase).collect();
        assert_eq!(phases, [Phase::Exited(255), Phase::Created, Phase::Exited(0)]);
    }
}
