use bulkhead_store::Compare;
use serde_json::Value;

use super::{Control, Setback, attempt};
use crate::arn::{self, Arn, fresh_id};
use crate::attribute;
use crate::cluster::Cluster;
use crate::error::Error;
use crate::instance::{ContainerInstance, RegisterContainerInstance};
use crate::record::{self, Record, key};
use crate::resources::Remaining;
use crate::status::InstanceStatus;
use crate::tag;
use crate::timestamp::Timestamp;

impl Control {
    /// Registers an agent's machine, or takes it back under the ARN it had.
    ///
    /// A machine is known again by the ARN that its agent kept or by its EC2 instance id. Its tasks keep
    /// what they reserved.
    ///
    /// # Errors
    /// `ClusterNotFoundException: Cluster not found.`, on which agents create the cluster.
    pub fn register_container_instance(
        &self,
        request: &RegisterContainerInstance,
    ) -> Result<ContainerInstance, Error> {
        for attribute in &request.attributes {
            attribute::check(attribute)?;
        }
        tag::check(&request.tags)?;
        let instance = attempt(|| {
            let cluster = self.active_cluster(request.cluster.as_deref())?;
            let old = self.known_before(&cluster.value, request)?;
            let (key, condition, instance) = match old {
                Some(mut old) => {
                    renew(&mut old.value, request)?;
                    (old.key.clone(), old.unchanged(), old.value)
                }
                None => {
                    let id = fresh_id();
                    let key = key::instance(&cluster.value.cluster_name, &id);
                    let arn = self.place().container_instance(&cluster.value.cluster_name, &id);
                    (key.clone(), Compare::Absent(key), fresh(arn, request))
                }
            };
            // the cluster is written too: a delete that saw no instance must not win unseen
            let writes = [record::put(&key, &instance), cluster.put()];
            self.store.commit(&[condition, cluster.unchanged()], &writes)?;
            Ok::<_, Setback>(instance)
        })?;
        self.publish_instance(instance.clone());
        Ok(self.with_connection(instance))
    }

    fn known_before(
        &self,
        cluster: &Cluster,
        request: &RegisterContainerInstance,
    ) -> Result<Option<Record<ContainerInstance>>, Error> {
        let name = &cluster.cluster_name;
        if let Some(arn) = &request.container_instance_arn {
            let id = arn::member_id("container-instance", name, arn);
            let old = match id {
                Some(id) => record::read(&*self.store, &key::instance(name, id))?,
                None => None,
            };
            return match old {
                Some(old) => Ok(Some(old)),
                None => Err(Error::invalid(format!(
                    "The container instance {arn} is not registered in the cluster {name}; register without an ARN."
                ))),
            };
        }
        let Some(id) = ec2_instance_id(request) else { return Ok(None) };
        let all: Vec<Record<ContainerInstance>> =
            record::range(&*self.store, &key::instances(name))?;
        Ok(all.into_iter().find(|old| {
            old.value.status != InstanceStatus::Inactive
                && old.value.ec2_instance_id.as_deref() == Some(&id)
        }))
    }
}

fn fresh(arn: Arn, request: &RegisterContainerInstance) -> ContainerInstance {
    ContainerInstance {
        container_instance_arn: arn,
        ec2_instance_id: ec2_instance_id(request),
        version: 1,
        version_info: request.version_info.clone(),
        remaining_resources: request.total_resources.clone(),
        registered_resources: request.total_resources.clone(),
        status: InstanceStatus::Active,
        attributes: request.attributes.clone(),
        registered_at: Some(Timestamp::now()),
        tags: request.tags.clone(),
        ..ContainerInstance::default()
    }
}

/// Takes over what the agent says now. What tasks hold stays held.
fn renew(
    instance: &mut ContainerInstance,
    request: &RegisterContainerInstance,
) -> Result<(), Error> {
    if instance.status == InstanceStatus::Inactive {
        return Err(Error::invalid(
            "The container instance was deregistered; register without an ARN.",
        ));
    }
    let before = Remaining::read(&instance.registered_resources);
    let left = Remaining::read(&instance.remaining_resources);
    let now = Remaining::read(&request.total_resources);
    let only_in = |all: &std::collections::BTreeSet<u16>, but: &std::collections::BTreeSet<u16>| {
        all.difference(but).copied().collect::<Vec<_>>()
    };
    let mut remaining = now.clone();
    remaining.cpu -= before.cpu - left.cpu;
    remaining.memory -= before.memory - left.memory;
    remaining.tcp_used.extend(only_in(&left.tcp_used, &before.tcp_used));
    remaining.udp_used.extend(only_in(&left.udp_used, &before.udp_used));
    instance.registered_resources = request.total_resources.clone();
    instance.remaining_resources = request.total_resources.clone();
    remaining.write(&mut instance.remaining_resources);
    instance.version_info = request.version_info.clone();
    instance.ec2_instance_id = ec2_instance_id(request).or(instance.ec2_instance_id.take());
    // attributes that users put stay, the agent's own are replaced
    instance.attributes.retain(|own| own.target_type.is_some());
    for attribute in &request.attributes {
        instance.attributes.retain(|own| own.name != attribute.name);
        instance.attributes.push(attribute.clone());
    }
    instance.version += 1;
    Ok(())
}

/// The `instanceId` of the identity document.
fn ec2_instance_id(request: &RegisterContainerInstance) -> Option<String> {
    let document: Value =
        serde_json::from_str(request.instance_identity_document.as_ref()?).ok()?;
    document["instanceId"].as_str().map(str::to_owned)
}
