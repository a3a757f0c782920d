use std::collections::BTreeMap;

use bulkhead_store::{Compare, Write};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::definitions::StoredDefinition;
use super::{Change, Control, Setback, attempt};
use crate::arn::{Arn, fresh_id, fresh_uuid};
use crate::error::{Code, Error, Failure};
use crate::placement::{self, Node, Wish};
use crate::record::{self, key};
use crate::resources::Reservation;
use crate::status::{
    self, Connectivity, DesiredStatus, HealthStatus, InstanceStatus, LaunchType, TaskStatus,
};
use crate::tag::{self, Tag};
use crate::task::{Container, RunTask, RunTaskResult, StartTask, Task, TaskOverride};
use crate::task_definition::Definition;
use crate::timestamp::Timestamp;

/// What a client token stood for, so that a repeated request starts nothing twice.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    request: Value,
    tasks: Vec<String>,
}

impl Control {
    /// Places `count` tasks on the instances that fit best and books what they reserve.
    ///
    /// # Errors
    /// `InvalidParameterException: No Container Instances were found in your cluster.`, and for what is
    /// wrong with the request. That no instance has room is not an error but a failure per instance.
    pub fn run_task(&self, request: &RunTask) -> Result<RunTaskResult, Error> {
        let count = match request.count.unwrap_or(1) {
            count @ 1..=10 => usize::try_from(count).expect("1 to 10 fits"),
            _ => return Err(Error::invalid("count should be between 1 and 10.")),
        };
        let launch_type = launch_type(request.launch_type.as_deref())?;
        let cluster = self.active_cluster(request.cluster.as_deref())?.value.cluster_name;
        let stored = self.definition_to_run(&request.task_definition)?;
        let start = Start::new(
            self,
            &cluster,
            &stored,
            StartOptions {
                overrides: &request.overrides,
                group: request.group.as_deref(),
                started_by: request.started_by.as_deref(),
                tags: &request.tags,
                propagate_tags: request.propagate_tags.as_deref(),
                execute_command: request.enable_execute_command,
                launch_type,
            },
        )?;
        let definition = &stored.definition.definition;
        let constraints: Vec<_> = definition
            .placement_constraints
            .iter()
            .chain(&request.placement_constraints)
            .cloned()
            .collect();
        let wish = Wish::new(
            &start.group,
            start.reservation.clone(),
            stored.definition.requires_attributes.clone(),
            &constraints,
            &request.placement_strategy,
        )?;
        let token = request.client_token.as_deref().filter(|token| !token.is_empty());
        let remembered = serde_json::to_value(request).unwrap_or_default();
        let result = attempt(|| {
            if let Some(token) = token
                && let Some(result) = self.remembered(&cluster, token, &remembered)?
            {
                return Ok((result, Vec::new()));
            }
            let mut nodes = self.nodes(&cluster)?;
            nodes.retain(|(_, node)| node.instance.status == InstanceStatus::Active);
            if nodes.is_empty() {
                return Err(Error::invalid(NO_INSTANCES).into());
            }
            let (conditions, mut nodes): (Vec<Compare>, Vec<Node>) = nodes.into_iter().unzip();
            let (placed, failures) = placement::place(&mut nodes, &wish, count, chance);
            let tasks: Vec<Task> = placed.iter().map(|index| start.task(&nodes[*index])).collect();
            let keep = token.map(|token| {
                let tasks = tasks.iter().map(|task| task.id().to_owned()).collect();
                let remembered = Remembered { request: remembered.clone(), tasks };
                (key::client_token(&cluster, token), remembered)
            });
            let changed = self.book(&start, &mut nodes, &conditions, &tasks, &placed, keep)?;
            Ok((RunTaskResult { tasks, failures }, changed))
        });
        let (result, changed) = result?;
        self.announce(&result.tasks, changed);
        Ok(result)
    }

    /// Starts one task on each of the named instances, without choosing.
    pub fn start_task(&self, request: &StartTask) -> Result<RunTaskResult, Error> {
        if request.container_instances.is_empty() || request.container_instances.len() > 10 {
            return Err(Error::invalid("Container instances should have between 1 and 10 items."));
        }
        let cluster = self.active_cluster(request.cluster.as_deref())?.value.cluster_name;
        let stored = self.definition_to_run(&request.task_definition)?;
        let start = Start::new(
            self,
            &cluster,
            &stored,
            StartOptions {
                overrides: &request.overrides,
                group: request.group.as_deref(),
                started_by: request.started_by.as_deref(),
                tags: &request.tags,
                propagate_tags: request.propagate_tags.as_deref(),
                execute_command: request.enable_execute_command,
                launch_type: LaunchType::Ec2,
            },
        )?;
        let requires = stored.definition.requires_attributes.clone();
        let wish = Wish::new(&start.group, start.reservation.clone(), requires, &[], &[])?;
        let wanted: Vec<Arn> = request
            .container_instances
            .iter()
            .map(|one| self.instance_arn(&cluster, one))
            .collect();
        let (result, changed) = attempt(|| {
            let (conditions, mut nodes): (Vec<Compare>, Vec<Node>) =
                self.nodes(&cluster)?.into_iter().unzip();
            let (mut placed, mut failures) = (Vec::new(), Vec::new());
            for arn in &wanted {
                let Some(index) =
                    nodes.iter().position(|node| node.instance.container_instance_arn == *arn)
                else {
                    failures.push(Failure::missing(arn.clone()));
                    continue;
                };
                match wish.refusal(&nodes[index]) {
                    Some(reason) => failures
                        .push(Failure { reason: reason.into(), ..Failure::missing(arn.clone()) }),
                    None => {
                        nodes[index].remaining.take(&start.reservation);
                        placed.push(index);
                    }
                }
            }
            let tasks: Vec<Task> = placed.iter().map(|index| start.task(&nodes[*index])).collect();
            let changed = self.book(&start, &mut nodes, &conditions, &tasks, &placed, None)?;
            Ok::<_, Setback>((RunTaskResult { tasks, failures }, changed))
        })?;
        self.announce(&result.tasks, changed);
        Ok(result)
    }

    /// Commits tasks and the bookings of their instances in one transaction.
    fn book(
        &self,
        start: &Start<'_>,
        nodes: &mut [Node],
        conditions: &[Compare],
        tasks: &[Task],
        placed: &[usize],
        token: Option<(String, Remembered)>,
    ) -> Result<Vec<Node>, Setback> {
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        let mut per_node: BTreeMap<usize, i32> = BTreeMap::new();
        for index in placed {
            *per_node.entry(*index).or_default() += 1;
        }
        let (mut compare, mut writes) = (Vec::new(), Vec::new());
        let mut changed = Vec::new();
        for (index, count) in per_node {
            let node = &mut nodes[index];
            node.remaining.write(&mut node.instance.remaining_resources);
            node.instance.pending_tasks_count += count;
            node.instance.version += 1;
            compare.push(conditions[index].clone());
            writes.push(self.put_instance(start.cluster, &node.instance));
            changed.push(node.clone());
        }
        for task in tasks {
            let key = key::task(start.cluster, task.id());
            let instance = task.container_instance_arn.id();
            writes.push(record::put(&key, task));
            writes.push(record::put(&key::placed(instance, task.id()), &start.group));
            compare.push(Compare::Absent(key));
        }
        if let Some((key, remembered)) = token {
            writes.push(record::put(&key, &remembered));
            compare.push(Compare::Absent(key));
        }
        self.store.commit(&compare, &writes)?;
        Ok(changed)
    }

    fn announce(&self, tasks: &[Task], changed: Vec<Node>) {
        for node in changed {
            self.publish_instance(node.instance);
        }
        for task in tasks {
            self.publish(Change::Task(task.clone().into()));
        }
    }

    /// What the token started before, if it was used.
    fn remembered(
        &self,
        cluster: &str,
        token: &str,
        request: &Value,
    ) -> Result<Option<RunTaskResult>, Error> {
        let key = key::client_token(cluster, token);
        let Some(old) = record::read::<Remembered>(&*self.store, &key)? else { return Ok(None) };
        if old.value.request != *request {
            let arns = old.value.tasks.iter();
            let arns = arns.map(|id| self.place().task(cluster, id).into()).collect();
            return Err(Error {
                code: Code::Conflict,
                message: "The client token was used before with other parameters.".into(),
                resource_ids: arns,
            });
        }
        let mut tasks = Vec::new();
        for id in &old.value.tasks {
            tasks.extend(
                record::read::<Task>(&*self.store, &key::task(cluster, id))?.map(|task| task.value),
            );
        }
        Ok(Some(RunTaskResult { tasks, failures: Vec::new() }))
    }

    /// Forgets a token together with the tasks it started.
    pub(super) fn forget_tokens(&self, cluster: &str, id: &str) -> Result<Vec<Write>, Error> {
        let prefix = key::client_token(cluster, "");
        let all: Vec<record::Record<Remembered>> = record::range(&*self.store, &prefix)?;
        let of_task = all.into_iter().filter(|old| old.value.tasks.iter().any(|task| task == id));
        Ok(of_task.map(|old| Write::Delete(old.key)).collect())
    }
}

/// What requests that start tasks have in common.
struct StartOptions<'a> {
    overrides: &'a TaskOverride,
    group: Option<&'a str>,
    started_by: Option<&'a str>,
    tags: &'a [Tag],
    propagate_tags: Option<&'a str>,
    execute_command: bool,
    launch_type: LaunchType,
}

/// A checked request to start tasks.
struct Start<'a> {
    control: &'a Control,
    cluster: &'a str,
    stored: &'a StoredDefinition,
    options: StartOptions<'a>,
    reservation: Reservation,
    group: String,
    tags: Vec<Tag>,
}

impl<'a> Start<'a> {
    fn new(
        control: &'a Control,
        cluster: &'a str,
        stored: &'a StoredDefinition,
        options: StartOptions<'a>,
    ) -> Result<Self, Error> {
        let definition = &stored.definition.definition;
        for over in &options.overrides.container_overrides {
            if definition.container(&over.name).is_none() {
                return Err(Error::invalid(format!(
                    "Override for container named {} is not a container in the TaskDefinition.",
                    over.name
                )));
            }
        }
        if options.started_by.is_some_and(|text| text.is_empty() || text.len() > 128) {
            return Err(Error::invalid("startedBy should have 1 to 128 characters."));
        }
        let group = options.group.filter(|group| !group.is_empty());
        if group.is_some_and(|group| group.starts_with("service:")) {
            return Err(Error::invalid(
                "Invalid namespace for group: service: is kept for services.",
            ));
        }
        let mut tags = options.tags.to_vec();
        tag::check(&tags)?;
        match options.propagate_tags {
            None | Some("NONE" | "") => {}
            Some("TASK_DEFINITION") => {
                let own = std::mem::replace(&mut tags, stored.tags.clone());
                tag::merge(&mut tags, &own)?;
            }
            Some(other) => {
                return Err(Error::invalid(format!(
                    "Invalid propagateTags '{other}': a task can only take them from the TASK_DEFINITION."
                )));
            }
        }
        Ok(Self {
            control,
            cluster,
            stored,
            reservation: Reservation::of(definition, options.overrides),
            group: group.map_or_else(|| format!("family:{}", definition.family), str::to_owned),
            tags,
            options,
        })
    }

    /// A new PENDING task on `node`.
    fn task(&self, node: &Node) -> Task {
        let place = self.control.place();
        let id = fresh_id();
        let task_arn = place.task(self.cluster, &id);
        let effective = self.options.overrides.apply(&self.stored.definition.definition);
        let now = Timestamp::now();
        let zone = node.instance.attribute("ecs.availability-zone");
        Task {
            containers: self.containers(&effective, &id, &task_arn),
            task_arn,
            cluster_arn: place.cluster(self.cluster),
            task_definition_arn: self.stored.definition.task_definition_arn.clone(),
            container_instance_arn: node.instance.container_instance_arn.clone(),
            availability_zone: zone.map(str::to_owned),
            connectivity: Some(Connectivity::Connected),
            connectivity_at: Some(now),
            cpu: self.reservation.cpu.to_string(),
            memory: self.reservation.memory.to_string(),
            created_at: Some(now),
            desired_status: DesiredStatus::Running,
            last_status: TaskStatus::Pending,
            health_status: HealthStatus::Unknown,
            enable_execute_command: self.options.execute_command,
            group: Some(self.group.clone()),
            launch_type: self.options.launch_type,
            overrides: self.shown_overrides(),
            started_by: self.options.started_by.map(str::to_owned),
            tags: self.tags.clone(),
            version: 1,
            ..Task::default()
        }
    }

    fn containers(&self, effective: &Definition, id: &str, task_arn: &Arn) -> Vec<Container> {
        let one = |container: &crate::ContainerDefinition| Container {
            container_arn: self.control.place().container(self.cluster, id, &fresh_uuid()),
            task_arn: task_arn.clone(),
            name: container.name.clone(),
            image: container.image.clone(),
            last_status: TaskStatus::Pending,
            health_status: HealthStatus::Unknown,
            cpu: container.cpu.to_string(),
            memory: container.memory.map(|limit| limit.to_string()),
            memory_reservation: container.memory_reservation.map(|limit| limit.to_string()),
            ..Container::default()
        };
        effective.container_definitions.iter().map(one).collect()
    }

    /// ECS shows an entry for every container, changed or not.
    fn shown_overrides(&self) -> TaskOverride {
        let mut shown = self.options.overrides.clone();
        let all = self.stored.definition.definition.container_definitions.iter();
        shown.container_overrides = all
            .map(|container| {
                let default = || crate::ContainerOverride {
                    name: container.name.clone(),
                    ..Default::default()
                };
                self.options.overrides.container(&container.name).cloned().unwrap_or_else(default)
            })
            .collect();
        shown
    }
}

fn launch_type(word: Option<&str>) -> Result<LaunchType, Error> {
    match status::asked(word)?.unwrap_or_default() {
        kind @ (LaunchType::Ec2 | LaunchType::External) => Ok(kind),
        LaunchType::Fargate | LaunchType::ManagedInstances => Err(Error::new(
            Code::UnsupportedFeature,
            "Bulkhead runs tasks on container instances only: use launch type EC2 or EXTERNAL.",
        )),
    }
}

/// One of `count` equals, by the kernel's random numbers.
fn chance(count: usize) -> usize {
    let number = getrandom::u64().expect("the kernel has random bytes after boot");
    usize::try_from(number % count as u64).expect("a remainder of a usize fits")
}

const NO_INSTANCES: &str = "No Container Instances were found in your cluster.";
