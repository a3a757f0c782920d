//! Logs that are sent elsewhere: whose, where to, and when that begins.

use std::collections::BTreeMap;

use bulkhead_types::Id;

use crate::shipping::{Order, Watch};
use crate::{Container, Engine, EngineError, HostConfig};

impl Engine {
    /// Whether this machine can send a log at all as `host` asks for it.
    pub(crate) fn check_log(&self, host: &HostConfig) -> Result<(), EngineError> {
        if let Some((destination, _)) = host.log_options.remote(host.log_driver)? {
            destination.check(self.shipping.environment())?;
        }
        Ok(())
    }

    /// Sends what the container's log has and gets, if its driver does.
    pub(crate) fn ship(&self, id: Id) {
        let shipped = || -> Result<(), EngineError> {
            let (container, lifecycle) = {
                let state = self.containers.lock();
                let entry = state.entry(id)?;
                (entry.record.container.clone(), entry.lifecycle.subscribe())
            };
            let Some(order) = self.log_order(&container)? else { return Ok(()) };
            let path = self.data_dir.log_path(id);
            // One that never ran has no directory, and nothing to be sent.
            let Some(directory) = path.parent().filter(|directory| directory.exists()) else {
                return Ok(());
            };
            let changes = self.log_changes.of(&path).inspect_err(|error| {
                tracing::warn!(container = %container.name, %error, "watch a log that is sent");
            });
            let watch = Watch { lifecycle, changes: changes.ok() };
            self.shipping.ship(id, &order, directory.to_owned(), Some(watch))
        };
        if let Err(error) = shipped() {
            tracing::error!(container = %id.short(), %error, "its log is not sent");
        }
    }

    /// Goes on with all logs that are to be sent.
    pub(crate) fn recover_shipping(&self) {
        let known = self.containers.ids();
        self.shipping.settle(|id| known.contains(&id));
        for id in known {
            self.ship(id);
        }
        for (id, order) in self.shipping.left() {
            let path = self.data_dir.log_path(id);
            let directory = path.parent().unwrap_or(&path).to_owned();
            if let Err(error) = self.shipping.ship(id, &order, directory, None) {
                tracing::error!(container = %id.short(), %error, "what it has left to be sent is not");
            }
        }
    }

    /// Before a removal is recorded. A log that cannot be held is told, and stops nothing: what takes room
    /// must be removable where there is none.
    pub(crate) fn hold_log(&self, container: &Container) {
        let held = || -> Result<(), EngineError> {
            let Some(order) = self.log_order(container)? else { return Ok(()) };
            let path = self.data_dir.log_path(container.id);
            let directory = path.parent().unwrap_or(&path);
            self.shipping
                .hold(container.id, &order, directory)
                .map_err(crate::error::io_error("keep what of the log is not sent"))
        };
        if let Err(error) = held() {
            tracing::error!(container = %container.name, %error, "what its log has not sent is lost");
        }
    }

    fn log_order(&self, container: &Container) -> Result<Option<Order>, EngineError> {
        let host = &container.host;
        let Some((_, selection)) = host.log_options.remote(host.log_driver)? else {
            return Ok(None);
        };
        let origin = selection.origin(&self.writer(container)).map_err(EngineError::invalid)?;
        Ok(Some(Order::new(host.log_driver, host.log_options.clone(), origin)))
    }

    /// The labels and variables that the container's log options chose, with its tag where one was asked
    /// for (`docker logs --details`).
    pub fn log_details(&self, container: &Container) -> BTreeMap<String, String> {
        let Ok(selection) = container.host.log_options.selection() else {
            return BTreeMap::new();
        };
        let writer = self.writer(container);
        let mut details = selection.attributes(&writer);
        details.extend(selection.tag(&writer).map(|tag| ("tag".to_owned(), tag)));
        details
    }

    fn writer(&self, container: &Container) -> bulkhead_logs::Container {
        bulkhead_logs::Container {
            id: container.id.to_string(),
            name: container.name.to_string(),
            image_id: container.image_id.to_string(),
            image_name: container.image.clone(),
            command: container.arguments.clone(),
            created: container.created,
            hostname: self.hostname.clone(),
            env: container.config.env.clone(),
            labels: container.config.labels.clone(),
        }
    }
}
