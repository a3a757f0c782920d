//! `docker rename`.

use std::sync::Arc;

use bulkhead_types::{Id, Name};

use crate::blocking::{Blocking, blocking};
use crate::names;
use crate::transaction::Transaction;
use crate::{Engine, EngineError};

impl Engine {
    pub async fn rename(self: &Arc<Self>, id: Id, new: &str) -> Result<(), EngineError> {
        let new_name: Name = new.strip_prefix('/').unwrap_or(new).parse().map_err(|_| {
            EngineError::invalid(format!(
                "Error when allocating new name: Invalid container name ({new}), only \
                 [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            ))
        })?;
        let guard = self.containers.exclusive(id).await?;
        let engine = Arc::clone(self);
        blocking(move |may_block| {
            let _guard = guard;
            engine.rename_now(may_block, id, new_name)
        })
        .await
    }

    fn rename_now(&self, may_block: &Blocking, id: Id, new_name: Name) -> Result<(), EngineError> {
        let _creating = self.allocation.hold(may_block);
        let owner = self.containers.lock().names.get(&new_name).copied();
        match owner {
            Some(owner) if owner == id => {
                return Err(EngineError::invalid(
                    "Error when allocating new name: renaming a container with the same name as \
                     its current name",
                ));
            }
            Some(owner) => {
                let conflict = names::conflict(&new_name, owner);
                return Err(conflict.during("Error when allocating new name"));
            }
            None => {}
        }
        let old = self.containers.record(id)?.container.name;
        let mut record = self.containers.record(id)?;
        record.container.name = new_name;
        let container = record.container.clone();
        let mut transaction = Transaction::default();
        self.containers.put(&mut transaction, &record);
        transaction.commit(&self.records, may_block)?;
        self.update_names_after_rename(id)?;
        self.events.container(&container, "rename", &[("oldName", format!("/{old}"))]);
        Ok(())
    }
}
