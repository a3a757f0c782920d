use bulkhead_store::Write;

use super::{Change, Control, Setback, attempt};
use crate::arn;
use crate::error::{Error, Failure};
use crate::health::{self, TaskHealth};
use crate::instance::ContainerInstance;
use crate::page::{self, Order, Page};
use crate::record::{self, Record, key};
use crate::resources::{Remaining, Reservation};
use crate::status::{self, Connectivity, LaunchType, StopCode, TaskStatus};
use crate::task::{ListTasks, Task};
use crate::timestamp::Timestamp;
use crate::transition::{self, ContainerStateChange, TaskStateChange};

impl Control {
    pub fn describe_tasks(
        &self,
        cluster: Option<&str>,
        references: &[String],
        include: &[String],
    ) -> Result<(Vec<Task>, Vec<Failure>), Error> {
        let cluster = self.active_cluster(cluster)?.value.cluster_name;
        if references.is_empty() {
            return Err(Error::invalid("Tasks cannot be empty."));
        }
        if references.len() > 100 {
            return Err(Error::invalid("Tasks can have at most 100 items."));
        }
        let (mut found, mut failures) = (Vec::new(), Vec::new());
        for reference in references {
            match self.find_task(&cluster, reference)? {
                Some(record) => {
                    let mut task = self.with_connectivity(record.value);
                    if !include.iter().any(|word| word == "TAGS") {
                        task.tags.clear();
                    }
                    found.push(task);
                }
                None => failures.push(Failure::missing(match reference.starts_with("arn:") {
                    true => reference.clone(),
                    false => self.place().task(&cluster, reference).into(),
                })),
            }
        }
        Ok((found, failures))
    }

    /// ARNs of tasks; those that are wanted RUNNING unless the status says otherwise.
    pub fn list_tasks(&self, request: &ListTasks) -> Result<Page<String>, Error> {
        let cluster = self.active_cluster(request.cluster.as_deref())?.value.cluster_name;
        let instance = match &request.container_instance {
            Some(reference) => {
                Some(self.instance(&cluster, reference)?.value.container_instance_arn)
            }
            None => None,
        };
        let desired =
            status::asked(request.desired_status.as_deref())?.unwrap_or(TaskStatus::Running);
        let launch_type: Option<LaunchType> = status::asked(request.launch_type.as_deref())?;
        let service = request.service_name.as_ref().map(|name| format!("service:{name}"));
        let mut tasks: Vec<Record<Task>> = record::range(&*self.store, &key::tasks(&cluster))?;
        tasks.retain(|Record { value: task, .. }| {
            TaskStatus::from(task.desired_status) == desired
                && instance.as_ref().is_none_or(|arn| task.container_instance_arn == *arn)
                && (request.family.is_none()
                    || request.family.as_deref() == task.task_definition_arn.family())
                && (request.started_by.is_none() || request.started_by == task.started_by)
                && (service.is_none() || service == task.group)
                && launch_type.is_none_or(|wanted| task.launch_type == wanted)
        });
        let arns = tasks.into_iter().map(|record| record.value.task_arn.into()).collect();
        page::cut(
            arns,
            String::clone,
            Order::Ascending,
            request.next_token.as_deref(),
            request.max_results,
        )
    }

    /// Asks a task to stop; it is STOPPED when its agent says so.
    pub fn stop_task(
        &self,
        cluster: Option<&str>,
        reference: &str,
        reason: Option<&str>,
    ) -> Result<Task, Error> {
        let cluster = self.active_cluster(cluster)?.value.cluster_name;
        let reason = reason.filter(|reason| !reason.is_empty()).unwrap_or("Task stopped by user");
        let id = arn::member_id("task", &cluster, reference).ok_or_else(task_not_found)?;
        self.change_task(&cluster, id, |task| {
            if task.is_stopped() {
                return false;
            }
            let changed =
                transition::ask_to_stop(task, StopCode::UserInitiated, reason, Timestamp::now());
            task.version += i64::from(changed);
            changed
        })
    }

    /// Works in what an agent saw of a task.
    pub fn submit_task_state_change(&self, change: &TaskStateChange) -> Result<Task, Error> {
        let reference = change.task.as_deref().unwrap_or_default();
        let named = arn::cluster_of_member(reference).map(str::to_owned);
        let cluster =
            named.unwrap_or_else(|| arn::cluster_name(change.cluster.as_deref()).to_owned());
        let id = arn::member_id("task", &cluster, reference).ok_or_else(task_not_found)?;
        let task = self.find_task(&cluster, id)?.ok_or_else(task_not_found)?.value;
        let definition = self.find_definition(&task.task_definition_arn)?;
        let essential = |name: &str| {
            let container =
                definition.as_ref().and_then(|d| d.value.definition.definition.container(name));
            container.is_none_or(|container| container.essential)
        };
        self.change_task(&cluster, id, |task| {
            transition::report(task, change, essential, Timestamp::now())
        })
    }

    /// Works in what an agent saw of one container.
    pub fn submit_container_state_change(
        &self,
        change: ContainerStateChange,
    ) -> Result<Task, Error> {
        self.submit_task_state_change(&TaskStateChange {
            cluster: change.cluster.clone(),
            task: change.task.clone(),
            containers: vec![change],
            ..TaskStateChange::default()
        })
    }

    /// Works in what the agent of `instance` saw of the health of its tasks. Those that are not its
    /// own, or not there any more, are passed over.
    pub fn submit_health(&self, instance: &str, tasks: &[TaskHealth]) -> Result<(), Error> {
        for health in tasks {
            let reference = health.task_arn.as_str();
            let Some(cluster) = arn::cluster_of_member(reference) else { continue };
            let Some(id) = arn::member_id("task", cluster, reference) else { continue };
            let Some(task) = self.find_task(cluster, id)? else { continue };
            let placed = &task.value.container_instance_arn;
            if **placed != *instance && placed.id() != instance {
                continue;
            }
            let Some(stored) = self.find_definition(&task.value.task_definition_arn)? else {
                continue;
            };
            let definition = &stored.value.definition.definition;
            self.change_task(cluster, id, |task| health::report(task, health, definition))?;
        }
        Ok(())
    }

    pub(super) fn find_task(
        &self,
        cluster: &str,
        reference: &str,
    ) -> Result<Option<Record<Task>>, Error> {
        let Some(id) = arn::member_id("task", cluster, reference) else { return Ok(None) };
        Ok(record::read(&*self.store, &key::task(cluster, id))?)
    }

    /// Changes a task and, in the same transaction, its instance's counters and bookings.
    ///
    /// `change` says whether it changed anything, and may be called more than once.
    pub(super) fn change_task(
        &self,
        cluster: &str,
        id: &str,
        change: impl Fn(&mut Task) -> bool,
    ) -> Result<Task, Error> {
        let (task, instance) = attempt(|| {
            let mut task = self.find_task(cluster, id)?.ok_or_else(task_not_found)?;
            let before = task.value.last_status;
            if !change(&mut task.value) {
                return Ok::<_, Setback>((task.value, None));
            }
            let mut compare = vec![task.unchanged()];
            let mut writes = vec![task.put()];
            let after = task.value.last_status;
            let mut instance = None;
            if before != after {
                let held = self.instance_of(cluster, &task.value, before, after)?;
                if let Some(record) = held {
                    compare.push(record.unchanged());
                    writes.push(record.put());
                    instance = Some(record.value);
                }
                if after == TaskStatus::Stopped {
                    writes.extend(self.bury(cluster, &task.value));
                }
            }
            self.store.commit(&compare, &writes)?;
            self.publish(Change::Task(task.value.clone().into()));
            Ok((task.value, instance))
        })?;
        if let Some(instance) = instance {
            self.publish_instance(instance);
        }
        if task.is_stopped() {
            self.prune()?;
        }
        Ok(task)
    }

    /// The task's instance with its counters, and its resources if the task ended, set right.
    fn instance_of(
        &self,
        cluster: &str,
        task: &Task,
        before: TaskStatus,
        after: TaskStatus,
    ) -> Result<Option<Record<ContainerInstance>>, Error> {
        let Some(mut record) = self.find_instance(cluster, &task.container_instance_arn)? else {
            return Ok(None);
        };
        let instance = &mut record.value;
        for (status, step) in [(before, -1), (after, 1)] {
            match status {
                TaskStatus::Pending => instance.pending_tasks_count += step,
                TaskStatus::Running => instance.running_tasks_count += step,
                TaskStatus::Stopped => {}
            }
        }
        if after == TaskStatus::Stopped
            && let Some(stored) = self.find_definition(&task.task_definition_arn)?
        {
            let taken = Reservation::of(&stored.value.definition.definition, &task.overrides);
            let mut remaining = Remaining::read(&instance.remaining_resources);
            remaining.give_back(&taken);
            remaining.write(&mut instance.remaining_resources);
        }
        instance.version += 1;
        Ok(Some(record))
    }

    /// What a task's end writes besides: it leaves its instance and enters the list to be pruned.
    fn bury(&self, cluster: &str, task: &Task) -> [Write; 2] {
        let instance = task.container_instance_arn.id();
        let when = task.stopped_at.unwrap_or_else(Timestamp::now).milliseconds();
        let stopped = key::stopped(when, cluster, task.id());
        [Write::Delete(key::placed(instance, task.id())), record::put(&stopped, &())]
    }

    /// Forgets tasks that stopped longer ago than the operator wants them kept; looks at most once a minute.
    fn prune(&self) -> Result<(), Error> {
        let now = Timestamp::now();
        {
            let mut last =
                self.last_prune.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if last.is_some_and(|last| now.milliseconds() - last.milliseconds() < PRUNE_EVERY) {
                return Ok(());
            }
            *last = Some(now);
        }
        let kept = i64::try_from(self.options.stopped_retention.as_millis()).unwrap_or(i64::MAX);
        let oldest = now.milliseconds().saturating_sub(kept);
        for entry in self.store.range(key::STOPPED)? {
            let rest = entry.key[key::STOPPED.len()..].to_owned();
            let mut parts = rest.split('/');
            let (Some(when), Some(cluster), Some(id)) = (parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            // oldest first: the first one that stays ends the search
            if when.parse::<i64>().is_ok_and(|when| when >= oldest) {
                break;
            }
            let mut writes =
                vec![Write::Delete(entry.key.clone()), Write::Delete(key::task(cluster, id))];
            writes.extend(self.forget_tokens(cluster, id)?);
            self.store.commit(&[], &writes)?;
        }
        Ok(())
    }

    pub(super) fn with_connectivity(&self, mut task: Task) -> Task {
        let connected = self.connections().contains_key(&task.container_instance_arn);
        if !task.is_stopped() {
            task.connectivity = Some(match connected {
                true => Connectivity::Connected,
                false => Connectivity::Disconnected,
            });
        }
        task
    }
}

fn task_not_found() -> Error {
    Error::invalid("The referenced task was not found.")
}

/// Milliseconds.
const PRUNE_EVERY: i64 = 60_000;
