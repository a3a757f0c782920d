use std::collections::BTreeSet;
use std::sync::Arc;

use bulkhead_store::Compare;
use serde::{Deserialize, Serialize};

use super::{Change, Control, attempt};
use crate::arn::DefinitionReference;
use crate::error::Error;
use crate::page::{self, Order, Page};
use crate::record::{self, Record, key};
use crate::requirements;
use crate::status::{self, Status};
use crate::tag::{self, Tag};
use crate::task_definition::{ListTaskDefinitions, RegisterTaskDefinition, TaskDefinition};
use crate::timestamp::Timestamp;
use crate::validate;

/// A revision as it lies in the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StoredDefinition {
    pub definition: TaskDefinition,
    pub tags: Vec<Tag>,
}

impl Control {
    /// Checks a task definition, fills in ECS's defaults and keeps it as the family's next revision.
    ///
    /// A revision number is never used twice, whatever is deregistered.
    ///
    /// # Errors
    /// `ClientException` with the first thing that is wrong.
    pub fn register_task_definition(
        &self,
        request: RegisterTaskDefinition,
    ) -> Result<(TaskDefinition, Vec<Tag>), Error> {
        tag::check(&request.tags)?;
        let complete = validate::complete(request.definition)?;
        let family = complete.family.clone();
        let family_key = key::family(&family);
        attempt(|| {
            let last: Option<Record<u32>> = record::read(&*self.store, &family_key)?;
            let revision = last.as_ref().map_or(0, |last| last.value) + 1;
            let definition = TaskDefinition {
                task_definition_arn: self.place().task_definition(&family, revision),
                revision,
                status: Status::Active,
                requires_attributes: requirements::of(&complete),
                compatibilities: requirements::compatibilities(&complete),
                registered_at: Timestamp::now(),
                registered_by: Some(format!("arn:aws:iam::{}:root", self.place().account)),
                deregistered_at: None,
                definition: complete.clone(),
            };
            let stored = StoredDefinition { definition, tags: request.tags.clone() };
            let key = key::definition(&family, revision);
            let numbered =
                last.map_or(Compare::Absent(family_key.clone()), |last| last.unchanged());
            self.store.commit(
                &[numbered, Compare::Absent(key.clone())],
                &[record::put(&family_key, &revision), record::put(&key, &stored)],
            )?;
            self.publish(Change::TaskDefinition(Arc::new(stored.definition.clone())));
            Ok((stored.definition, stored.tags))
        })
    }

    /// The revision that `family`, `family:revision` or an ARN names, with its tags.
    ///
    /// # Errors
    /// `ClientException: Unable to describe task definition.` where there is none.
    pub fn describe_task_definition(
        &self,
        reference: &str,
    ) -> Result<(TaskDefinition, Vec<Tag>), Error> {
        let found = self.find_definition(reference)?;
        let stored =
            found.ok_or_else(|| Error::client("Unable to describe task definition."))?.value;
        Ok((stored.definition, stored.tags))
    }

    /// Makes a revision INACTIVE; what runs from it goes on.
    pub fn deregister_task_definition(&self, reference: &str) -> Result<TaskDefinition, Error> {
        if matches!(DefinitionReference::parse(reference)?, DefinitionReference::Family(_)) {
            return Err(Error::client(format!(
                "Invalid revision number. Number: {reference}; give family:revision or an ARN."
            )));
        }
        attempt(|| {
            let mut stored = self
                .find_definition(reference)?
                .ok_or_else(|| Error::client("The specified task definition does not exist."))?;
            let definition = &mut stored.value.definition;
            if definition.status == Status::Active {
                definition.status = Status::Inactive;
                definition.deregistered_at = Some(Timestamp::now());
                self.store.commit(&[stored.unchanged()], &[stored.put()])?;
                self.publish(Change::TaskDefinition(Arc::new(stored.value.definition.clone())));
            }
            Ok(stored.value.definition)
        })
    }

    /// ARNs of revisions, by family and number.
    pub fn list_task_definitions(
        &self,
        request: &ListTaskDefinitions,
    ) -> Result<Page<String>, Error> {
        let status: Status = status::asked(request.status.as_deref())?.unwrap_or_default();
        let family = request.family_prefix.as_deref().filter(|family| !family.is_empty());
        let prefix = family.map_or(key::DEFINITIONS.to_owned(), key::definitions);
        let mut stored: Vec<Record<StoredDefinition>> = record::range(&*self.store, &prefix)?;
        stored.retain(|record| record.value.definition.status == status);
        let order = match request.sort.as_deref() {
            Some("DESC") => {
                stored.reverse();
                Order::Descending
            }
            _ => Order::Ascending,
        };
        let token = request.next_token.as_deref();
        let page =
            page::cut(stored, |record| record.key.clone(), order, token, request.max_results)?;
        let arn = |record: Record<StoredDefinition>| {
            String::from(record.value.definition.task_definition_arn)
        };
        Ok(Page { items: page.items.into_iter().map(arn).collect(), next_token: page.next_token })
    }

    /// Names of families; `status` is `ACTIVE` (some revision is), `INACTIVE` (none is) or `ALL`, the default.
    pub fn list_task_definition_families(
        &self,
        request: &ListTaskDefinitions,
    ) -> Result<Page<String>, Error> {
        let prefix = request.family_prefix.as_deref().unwrap_or_default();
        let stored: Vec<Record<StoredDefinition>> =
            record::range(&*self.store, &format!("{}{prefix}", key::DEFINITIONS))?;
        let families = |wanted: fn(Status) -> bool| -> BTreeSet<String> {
            let definitions = stored.iter().map(|record| &record.value.definition);
            let kept = definitions.filter(|definition| wanted(definition.status));
            kept.map(|definition| definition.definition.family.clone()).collect()
        };
        let active = families(|status| status == Status::Active);
        let status = request.status.as_deref().filter(|status| *status != "ALL");
        let names = match status::asked(status)? {
            Some(Status::Active) => active,
            Some(Status::Inactive) => families(|_| true).difference(&active).cloned().collect(),
            None => families(|_| true),
        };
        let names = names.into_iter().collect();
        let token = request.next_token.as_deref();
        page::cut(names, String::clone, Order::Ascending, token, request.max_results)
    }

    pub(super) fn find_definition(
        &self,
        reference: &str,
    ) -> Result<Option<Record<StoredDefinition>>, Error> {
        match DefinitionReference::parse(reference)? {
            DefinitionReference::Revision(family, revision) => {
                Ok(record::read(&*self.store, &key::definition(family, revision))?)
            }
            DefinitionReference::Family(family) => {
                let all: Vec<Record<StoredDefinition>> =
                    record::range(&*self.store, &key::definitions(family))?;
                Ok(all
                    .into_iter()
                    .rev()
                    .find(|record| record.value.definition.status == Status::Active))
            }
        }
    }

    /// The revision that a new task is to be made from.
    pub(super) fn definition_to_run(&self, reference: &str) -> Result<StoredDefinition, Error> {
        if reference.is_empty() {
            return Err(Error::client("TaskDefinition can not be blank."));
        }
        let found = self
            .find_definition(reference)?
            .ok_or_else(|| Error::client("TaskDefinition not found."))?;
        if found.value.definition.status != Status::Active {
            return Err(Error::invalid("TaskDefinition is inactive"));
        }
        Ok(found.value)
    }
}
