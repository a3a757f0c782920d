//! The agents' side: who is connected, and what each should be doing.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Control;
use crate::arn::{self, Arn, fresh_id};
use crate::error::Error;
use crate::record::{self, Record, key};
use crate::status::InstanceStatus;
use crate::task::Task;
use crate::task_definition::Definition;

/// A live connection of an agent. Dropping the session's end tells it that it was replaced.
#[derive(Debug)]
pub(super) struct Connection {
    id: String,
    _alive: oneshot::Sender<()>,
}

/// A task that an instance should run, or should stop if its desired status says so.
#[derive(Debug, Clone)]
pub struct TaskOrder {
    pub task: Task,
    /// With the task's overrides worked in.
    pub definition: Definition,
    pub revision: u32,
}

/// An agent's connection, for as long as it lives; the instance counts as connected until it is dropped.
#[derive(Debug)]
pub struct Session {
    control: Arc<Control>,
    cluster: String,
    instance_arn: Arn,
    id: String,
    replaced: oneshot::Receiver<()>,
}

impl Control {
    /// Marks an instance's agent as connected; an older connection of the same instance is told to go.
    ///
    /// # Errors
    /// `InvalidParameterException` where the instance is not registered, or INACTIVE.
    pub fn connect_agent(
        self: &Arc<Self>,
        cluster: Option<&str>,
        instance: &str,
    ) -> Result<Session, Error> {
        let named = arn::cluster_of_member(instance).or(cluster);
        let cluster = self.active_cluster(named)?.value.cluster_name;
        let record = self.instance(&cluster, instance)?;
        let instance_arn = record.value.container_instance_arn.clone();
        if record.value.status == InstanceStatus::Inactive {
            return Err(Error::invalid("The container instance is inactive; register it again."));
        }
        let (alive, replaced) = oneshot::channel();
        let id = fresh_id();
        let connection = Connection { id: id.clone(), _alive: alive };
        self.connections().insert(instance_arn.clone(), connection);
        self.publish_instance(record.value);
        Ok(Session { control: Arc::clone(self), cluster, instance_arn, id, replaced })
    }

    /// Ends the connection of an instance's agent, if there is one.
    pub(super) fn disconnect_agent(&self, instance_arn: &str) {
        self.connections().remove(instance_arn);
    }
}

impl Session {
    pub fn cluster_arn(&self) -> Arn {
        self.control.place().cluster(&self.cluster)
    }

    pub fn instance_arn(&self) -> &Arn {
        &self.instance_arn
    }

    /// Every task of the instance that has not stopped yet.
    pub fn orders(&self) -> Result<Vec<TaskOrder>, Error> {
        let id = self.instance_arn.id();
        let mut orders = Vec::new();
        for entry in self.control.store.range(&key::placed_on(id))? {
            let task = entry.key.rsplit('/').next().unwrap_or_default();
            let found: Option<Record<Task>> =
                record::read(&*self.control.store, &key::task(&self.cluster, task))?;
            let Some(task) = found else { continue };
            let Some(stored) = self.control.find_definition(&task.value.task_definition_arn)?
            else {
                continue;
            };
            let definition = task.value.overrides.apply(&stored.value.definition.definition);
            let revision = stored.value.definition.revision;
            orders.push(TaskOrder { task: task.value, definition, revision });
        }
        Ok(orders)
    }

    /// Waits until a newer connection of the same instance takes over, or the instance is deregistered.
    pub async fn replaced(&mut self) {
        // either way the sender is gone
        let _ = (&mut self.replaced).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut connections = self.control.connections();
        if connections.get(&self.instance_arn).is_none_or(|current| current.id != self.id) {
            return;
        }
        connections.remove(&self.instance_arn);
        drop(connections);
        if let Ok(Some(record)) = self.control.find_instance(&self.cluster, &self.instance_arn) {
            self.control.publish_instance(record.value);
        }
    }
}
