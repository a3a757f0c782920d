use std::sync::Arc;

use bulkhead_store::Compare;

use super::{Change, Control, Setback, attempt};
use crate::arn;
use crate::cluster::{Cluster, CreateCluster, DescribeClusters, check_name};
use crate::error::{Code, Error, Failure};
use crate::instance::ContainerInstance;
use crate::page::{self, Order, Page};
use crate::record::{self, Record, key};
use crate::status::{InstanceStatus, Status};
use crate::tag;

impl Control {
    /// Creates a cluster; one of that name that is ACTIVE is returned as it is.
    ///
    /// # Errors
    /// `InvalidParameterException` for a bad name or bad tags.
    pub fn create_cluster(&self, request: CreateCluster) -> Result<Cluster, Error> {
        let name = arn::cluster_name(request.cluster_name.as_deref());
        check_name(name)?;
        tag::check(&request.tags)?;
        let cluster = Cluster {
            cluster_arn: self.place().cluster(name),
            cluster_name: name.to_owned(),
            status: Status::Active,
            tags: request.tags.clone(),
            settings: request.settings.clone(),
            configuration: request.configuration.clone(),
            capacity_providers: request.capacity_providers.clone(),
            default_capacity_provider_strategy: request.default_capacity_provider_strategy.clone(),
            service_connect_defaults: request.service_connect_defaults.clone(),
            ..Cluster::default()
        };
        let key = key::cluster(name);
        attempt(|| {
            let condition = match record::read::<Cluster>(&*self.store, &key)? {
                Some(old) if old.value.status == Status::Active => {
                    return Ok(self.counted(old.value)?);
                }
                Some(old) => old.unchanged(),
                None => Compare::Absent(key.clone()),
            };
            self.store.commit(&[condition], &[record::put(&key, &cluster)])?;
            self.publish(Change::Cluster(Arc::new(cluster.clone())));
            Ok(cluster.clone())
        })
    }

    /// Describes clusters, and names those that are not there.
    pub fn describe_clusters(
        &self,
        request: &DescribeClusters,
    ) -> Result<(Vec<Cluster>, Vec<Failure>), Error> {
        if request.clusters.len() > 100 {
            return Err(Error::invalid("Clusters can have at most 100 items."));
        }
        let default = ["default".to_owned()];
        let references =
            if request.clusters.is_empty() { &default[..] } else { &request.clusters[..] };
        let included = |what: &str| request.include.iter().any(|word| word == what);
        let (mut found, mut failures) = (Vec::new(), Vec::new());
        for reference in references {
            let name = arn::cluster_name(Some(reference));
            let Some(record) = record::read::<Cluster>(&*self.store, &key::cluster(name))? else {
                failures.push(Failure::missing(self.place().cluster(name)));
                continue;
            };
            let mut cluster = self.counted(record.value)?;
            if !included("TAGS") {
                cluster.tags.clear();
            }
            if !included("SETTINGS") {
                cluster.settings.clear();
            }
            if !included("CONFIGURATIONS") {
                cluster.configuration = None;
            }
            found.push(cluster);
        }
        Ok((found, failures))
    }

    /// The ARNs of the clusters that are ACTIVE.
    pub fn list_clusters(
        &self,
        next_token: Option<&str>,
        maximum: Option<i64>,
    ) -> Result<Page<String>, Error> {
        let clusters: Vec<Record<Cluster>> = record::range(&*self.store, key::CLUSTERS)?;
        let active = clusters.into_iter().filter(|cluster| cluster.value.status == Status::Active);
        let arns = active.map(|cluster| cluster.value.cluster_arn.into()).collect();
        page::cut(arns, String::clone, Order::Ascending, next_token, maximum)
    }

    /// Makes a cluster INACTIVE.
    ///
    /// # Errors
    /// `ClusterContainsTasksException` and `ClusterContainsContainerInstancesException` while it is in use.
    pub fn delete_cluster(&self, reference: &str) -> Result<Cluster, Error> {
        attempt(|| {
            let name = arn::cluster_name(Some(reference));
            let mut cluster: Record<Cluster> = record::read(&*self.store, &key::cluster(name))?
                .ok_or_else(Error::cluster_not_found)?;
            if cluster.value.status != Status::Active {
                return Ok(cluster.value);
            }
            let counted = self.counted(cluster.value.clone())?;
            if counted.registered_container_instances_count > 0 {
                return Err(Setback::Refused(Error::new(
                    Code::ClusterContainsContainerInstances,
                    "The Cluster cannot be deleted while Container Instances are active or draining.",
                )));
            }
            if counted.running_tasks_count + counted.pending_tasks_count > 0 {
                return Err(Setback::Refused(Error::new(
                    Code::ClusterContainsTasks,
                    "The Cluster cannot be deleted while Tasks are active.",
                )));
            }
            cluster.value.status = Status::Inactive;
            self.store.commit(&[cluster.unchanged()], &[cluster.put()])?;
            self.publish(Change::Cluster(Arc::new(cluster.value.clone())));
            Ok(cluster.value)
        })
    }

    /// Fills in the counters, which are sums over the cluster's instances.
    pub(super) fn counted(&self, mut cluster: Cluster) -> Result<Cluster, Error> {
        let prefix = key::instances(&cluster.cluster_name);
        let instances: Vec<Record<ContainerInstance>> = record::range(&*self.store, &prefix)?;
        let is_here = |instance: &&ContainerInstance| instance.status != InstanceStatus::Inactive;
        let here = || instances.iter().map(|record| &record.value).filter(is_here);
        cluster.registered_container_instances_count =
            i32::try_from(here().count()).unwrap_or(i32::MAX);
        cluster.running_tasks_count = here().map(|instance| instance.running_tasks_count).sum();
        cluster.pending_tasks_count = here().map(|instance| instance.pending_tasks_count).sum();
        Ok(cluster)
    }
}
