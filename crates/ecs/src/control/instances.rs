use std::collections::BTreeMap;

use bulkhead_store::{Compare, Write};

use super::{Control, Setback, attempt};
use crate::arn::{self, Arn};
use crate::error::{Error, Failure};
use crate::instance::{ContainerInstance, DescribeContainerInstances, ListContainerInstances};
use crate::page::{self, Order, Page};
use crate::placement::Node;
use crate::query::Query;
use crate::record::{self, Record, key};
use crate::status::{self, InstanceStatus, StopCode};
use crate::timestamp::Timestamp;
use crate::transition;

impl Control {
    pub fn describe_container_instances(
        &self,
        request: &DescribeContainerInstances,
    ) -> Result<(Vec<ContainerInstance>, Vec<Failure>), Error> {
        let cluster = self.active_cluster(request.cluster.as_deref())?.value.cluster_name;
        if request.container_instances.is_empty() {
            return Err(Error::invalid("Container instances cannot be empty."));
        }
        if request.container_instances.len() > 100 {
            return Err(Error::invalid("Container instances can have at most 100 items."));
        }
        let tags = request.include.iter().any(|word| word == "TAGS");
        let (mut found, mut failures) = (Vec::new(), Vec::new());
        for reference in &request.container_instances {
            match self.find_instance(&cluster, reference)? {
                Some(record) => {
                    let mut instance = self.with_connection(record.value);
                    if !tags {
                        instance.tags.clear();
                    }
                    found.push(instance);
                }
                None => failures.push(Failure::missing(self.instance_arn(&cluster, reference))),
            }
        }
        Ok((found, failures))
    }

    /// ARNs of a cluster's instances; INACTIVE ones only where the status asks for them.
    pub fn list_container_instances(
        &self,
        request: &ListContainerInstances,
    ) -> Result<Page<String>, Error> {
        let cluster = self.active_cluster(request.cluster.as_deref())?.value.cluster_name;
        let filter = request.filter.as_deref().filter(|text| !text.is_empty());
        let query = filter.map(Query::parse).transpose()?;
        let wanted: Option<InstanceStatus> = status::asked(request.status.as_deref())?;
        let mut nodes = self.nodes(&cluster)?;
        nodes.retain(|(_, node)| {
            let status = node.instance.status;
            let right =
                wanted.map_or(status != InstanceStatus::Inactive, |wanted| wanted == status);
            right && query.as_ref().is_none_or(|query| node.matches(query))
        });
        let arns = nodes
            .into_iter()
            .map(|(_, node)| node.instance.container_instance_arn.into())
            .collect();
        page::cut(
            arns,
            String::clone,
            Order::Ascending,
            request.next_token.as_deref(),
            request.max_results,
        )
    }

    /// All instances of all clusters that are not INACTIVE: EC2's `DescribeInstances` and pages need them.
    pub fn all_container_instances(&self) -> Result<Vec<ContainerInstance>, Error> {
        let all: Vec<Record<ContainerInstance>> = record::range(&*self.store, key::INSTANCES)?;
        let is_here = |instance: &ContainerInstance| instance.status != InstanceStatus::Inactive;
        let here = all.into_iter().map(|record| record.value).filter(is_here);
        Ok(here.map(|instance| self.with_connection(instance)).collect())
    }

    /// Takes an instance out of its cluster.
    ///
    /// With `force` its tasks are given up: they count as STOPPED here, while the machine may still run them.
    ///
    /// # Errors
    /// `InvalidParameterException` while tasks run and `force` is not set.
    pub fn deregister_container_instance(
        &self,
        cluster: Option<&str>,
        reference: &str,
        force: bool,
    ) -> Result<ContainerInstance, Error> {
        let cluster = self.active_cluster(cluster)?.value.cluster_name;
        let id = arn::member_id("container-instance", &cluster, reference).unwrap_or(reference);
        let placed = self.store.range(&key::placed_on(id))?;
        if !placed.is_empty() && !force {
            return Err(Error::invalid(
                "Found running tasks on the instance. Stop them first, or deregister with force.",
            ));
        }
        for entry in placed {
            let task = entry.key.rsplit('/').next().unwrap_or_default();
            self.change_task(&cluster, task, |task| {
                let now = Timestamp::now();
                transition::ask_to_stop(task, StopCode::TerminationNotice, DEREGISTERED, now);
                transition::stopped(task, None, now);
                true
            })?;
        }
        let instance = attempt(|| {
            let mut record = self.instance(&cluster, reference)?;
            record.value.status = InstanceStatus::Inactive;
            record.value.version += 1;
            self.store.commit(&[record.unchanged()], &[record.put()])?;
            Ok::<_, Setback>(record.value)
        })?;
        self.disconnect_agent(&instance.container_instance_arn);
        self.publish_instance(instance.clone());
        Ok(self.with_connection(instance))
    }

    /// Sets instances ACTIVE or DRAINING; a draining one gets no new tasks.
    pub fn update_container_instances_state(
        &self,
        cluster: Option<&str>,
        references: &[String],
        status: &str,
    ) -> Result<(Vec<ContainerInstance>, Vec<Failure>), Error> {
        let status = match status.parse() {
            Ok(status @ (InstanceStatus::Active | InstanceStatus::Draining)) => status,
            Ok(InstanceStatus::Inactive) | Err(_) => {
                return Err(Error::invalid(format!(
                    "Container instance status should be one of [ACTIVE, DRAINING], not {status}."
                )));
            }
        };
        if references.len() > 10 {
            return Err(Error::invalid("Container instances can have at most 10 items."));
        }
        let cluster = self.active_cluster(cluster)?.value.cluster_name;
        let (mut changed, mut failures) = (Vec::new(), Vec::new());
        for reference in references {
            let result = attempt(|| {
                let Some(mut record) = self.find_instance(&cluster, reference)? else {
                    return Ok(Err("MISSING"));
                };
                if record.value.status == InstanceStatus::Inactive {
                    return Ok(Err("INACTIVE"));
                }
                record.value.status = status;
                record.value.version += 1;
                self.store.commit(&[record.unchanged()], &[record.put()])?;
                Ok::<_, Setback>(Ok(record.value))
            })?;
            match result {
                Ok(instance) => {
                    self.publish_instance(instance.clone());
                    changed.push(self.with_connection(instance));
                }
                Err(reason) => failures.push(Failure {
                    reason: reason.into(),
                    ..Failure::missing(self.instance_arn(&cluster, reference))
                }),
            }
        }
        Ok((changed, failures))
    }

    pub(super) fn find_instance(
        &self,
        cluster: &str,
        reference: &str,
    ) -> Result<Option<Record<ContainerInstance>>, Error> {
        let Some(id) = arn::member_id("container-instance", cluster, reference) else {
            return Ok(None);
        };
        Ok(record::read(&*self.store, &key::instance(cluster, id))?)
    }

    pub(super) fn instance(
        &self,
        cluster: &str,
        reference: &str,
    ) -> Result<Record<ContainerInstance>, Error> {
        self.find_instance(cluster, reference)?
            .ok_or_else(|| Error::invalid("The referenced container instance was not found."))
    }

    /// The cluster's instances as placement sees them, with the comparison that a booking needs.
    pub(super) fn nodes(&self, cluster: &str) -> Result<Vec<(Compare, Node)>, Error> {
        let all: Vec<Record<ContainerInstance>> =
            record::range(&*self.store, &key::instances(cluster))?;
        all.into_iter()
            .map(|record| {
                let condition = record.unchanged();
                let instance = self.with_connection(record.value);
                let id = instance.container_instance_arn.id();
                let placed: Vec<Record<String>> = record::range(&*self.store, &key::placed_on(id))?;
                let mut groups = BTreeMap::new();
                for group in placed {
                    *groups.entry(group.value).or_insert(0) += 1;
                }
                Ok((condition, Node::new(instance, groups)))
            })
            .collect()
    }

    pub(super) fn instance_arn(&self, cluster: &str, reference: &str) -> Arn {
        match reference.starts_with("arn:") {
            true => reference.into(),
            false => self.place().container_instance(cluster, reference),
        }
    }

    pub(super) fn put_instance(&self, cluster: &str, instance: &ContainerInstance) -> Write {
        let id = instance.container_instance_arn.id();
        record::put(&key::instance(cluster, id), instance)
    }
}

const DEREGISTERED: &str = "The container instance was deregistered by force.";
