mod agents;
mod attributes;
mod clusters;
mod definitions;
mod instances;
mod registration;
mod settings;
mod start;
mod tags;
mod tasks;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bulkhead_store::{Store, StoreError};
use tokio::sync::broadcast;

use crate::arn::{self, Arn, Place};
use crate::cluster::Cluster;
use crate::error::Error;
use crate::instance::ContainerInstance;
use crate::record::{self, Record, key};
use crate::status::Status;
use crate::task::Task;
use crate::task_definition::TaskDefinition;
use crate::timestamp::Timestamp;

pub use agents::{Session, TaskOrder};

/// What the operator decides.
#[derive(Debug, Clone)]
pub struct Options {
    pub place: Place,
    /// How long a STOPPED task stays describable. AWS keeps it about an hour; users ask for longer.
    pub stopped_retention: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { place: Place::default(), stopped_retention: Duration::from_secs(24 * 60 * 60) }
    }
}

/// Something that is not as it was; holds it as it is now.
#[derive(Debug, Clone)]
pub enum Change {
    Cluster(Arc<Cluster>),
    ContainerInstance(Arc<ContainerInstance>),
    Task(Arc<Task>),
    TaskDefinition(Arc<TaskDefinition>),
}

/// The control plane: every operation of the ECS API as a method.
///
/// Methods block for as long as the store does (one fsync at most) and may be called from many threads.
#[derive(Debug)]
pub struct Control {
    store: Arc<dyn Store>,
    options: Options,
    changes: broadcast::Sender<Change>,
    /// The agents that are connected now, by instance ARN.
    connections: Mutex<HashMap<Arn, agents::Connection>>,
    last_prune: Mutex<Option<Timestamp>>,
}

impl Control {
    pub fn new(store: Arc<dyn Store>, options: Options) -> Self {
        let (changes, _) = broadcast::channel(CHANGES_KEPT);
        Self {
            store,
            options,
            changes,
            connections: Mutex::default(),
            last_prune: Mutex::default(),
        }
    }

    pub fn place(&self) -> &Place {
        &self.options.place
    }

    /// What changes from now on, in the order it happened.
    ///
    /// A receiver that falls behind gets `Lagged` and should read again what it shows.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    fn publish(&self, change: Change) {
        // an error only says that nobody listens
        let _ = self.changes.send(change);
    }

    fn publish_instance(&self, instance: ContainerInstance) {
        self.publish(Change::ContainerInstance(Arc::new(self.with_connection(instance))));
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<Arn, agents::Connection>> {
        // every change of the map is a single insert or remove, so a panic leaves it whole
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_connection(&self, mut instance: ContainerInstance) -> ContainerInstance {
        instance.agent_connected =
            self.connections().contains_key(&instance.container_instance_arn);
        instance
    }

    /// The cluster, which must be there and ACTIVE.
    fn active_cluster(&self, reference: Option<&str>) -> Result<Record<Cluster>, Error> {
        let name = arn::cluster_name(reference);
        let cluster: Record<Cluster> = record::read(&*self.store, &key::cluster(name))?
            .ok_or_else(Error::cluster_not_found)?;
        if cluster.value.status == Status::Active {
            return Ok(cluster);
        }
        Err(Error::new(crate::Code::ClusterNotFound, "The referenced cluster was inactive."))
    }
}

/// Why one attempt at a transaction did not happen.
#[derive(Debug)]
enum Setback {
    /// Somebody else was first: read again and decide anew.
    Conflict,
    Refused(Error),
}

impl From<StoreError> for Setback {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict => Self::Conflict,
            other => Self::Refused(other.into()),
        }
    }
}

impl From<Error> for Setback {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// Repeats a read-decide-commit until its comparisons hold.
fn attempt<T>(mut transaction: impl FnMut() -> Result<T, Setback>) -> Result<T, Error> {
    for _ in 0..ATTEMPTS {
        match transaction() {
            Ok(value) => return Ok(value),
            Err(Setback::Conflict) => {}
            Err(Setback::Refused(error)) => return Err(error),
        }
    }
    Err(Error::new(
        crate::Code::Server,
        "Too many concurrent changes of the same thing; try again.",
    ))
}

/// Each conflict means that somebody else got on, so this many in a row is a fault and not load.
const ATTEMPTS: usize = 1000;
/// Changes kept for a slow receiver.
const CHANGES_KEPT: usize = 1024;
