//! How things lie in the store: one key per thing, JSON values, and reading, changing and comparing them.

use bulkhead_store::{Compare, Entry, Revision, Store, StoreError, Write};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A value with the revision that wrote it, to be compared when it is written again.
#[derive(Debug, Clone)]
pub(crate) struct Record<T> {
    pub key: String,
    pub modified: Revision,
    pub value: T,
}

impl<T: Serialize + DeserializeOwned> Record<T> {
    pub(crate) fn unchanged(&self) -> Compare {
        Compare::Unchanged(self.key.clone(), self.modified)
    }

    pub(crate) fn put(&self) -> Write {
        put(&self.key, &self.value)
    }
}

pub(crate) fn put(key: &str, value: &impl Serialize) -> Write {
    let bytes = serde_json::to_vec(value).expect("our own types with text keys always become JSON");
    Write::Put(key.to_owned(), bytes)
}

pub(crate) fn read<T: DeserializeOwned>(
    store: &dyn Store,
    key: &str,
) -> Result<Option<Record<T>>, StoreError> {
    store.read(key)?.map(decode).transpose()
}

pub(crate) fn range<T: DeserializeOwned>(
    store: &dyn Store,
    prefix: &str,
) -> Result<Vec<Record<T>>, StoreError> {
    store.range(prefix)?.into_iter().map(decode).collect()
}

fn decode<T: DeserializeOwned>(entry: Entry) -> Result<Record<T>, StoreError> {
    match serde_json::from_slice(&entry.value) {
        Ok(value) => Ok(Record { key: entry.key, modified: entry.modified, value }),
        Err(cause) => Err(StoreError::Damaged { key: entry.key, cause }),
    }
}

/// The keys. Names and ids have no `/`, so no prefix reaches into another thing's keys.
pub(crate) mod key {
    pub(crate) const CLUSTERS: &str = "ecs/cluster/";
    pub(crate) const DEFINITIONS: &str = "ecs/definition/";
    pub(crate) const FAMILIES: &str = "ecs/family/";
    pub(crate) const INSTANCES: &str = "ecs/instance/";
    pub(crate) const STOPPED: &str = "ecs/stopped/";

    pub(crate) fn cluster(name: &str) -> String {
        format!("{CLUSTERS}{name}")
    }

    /// Zero-padded, so that the order of keys is the order of revisions.
    pub(crate) fn definition(family: &str, revision: u32) -> String {
        format!("{DEFINITIONS}{family}/{revision:010}")
    }

    pub(crate) fn definitions(family: &str) -> String {
        format!("{DEFINITIONS}{family}/")
    }

    /// The last revision number that the family gave out.
    pub(crate) fn family(family: &str) -> String {
        format!("{FAMILIES}{family}")
    }

    pub(crate) fn instance(cluster: &str, id: &str) -> String {
        format!("{INSTANCES}{cluster}/{id}")
    }

    pub(crate) fn instances(cluster: &str) -> String {
        format!("{INSTANCES}{cluster}/")
    }

    pub(crate) fn task(cluster: &str, id: &str) -> String {
        format!("ecs/task/{cluster}/{id}")
    }

    pub(crate) fn tasks(cluster: &str) -> String {
        format!("ecs/task/{cluster}/")
    }

    /// One for each unfinished task of an instance; the value is the task's group.
    pub(crate) fn placed(instance: &str, task: &str) -> String {
        format!("ecs/placed/{instance}/{task}")
    }

    pub(crate) fn placed_on(instance: &str) -> String {
        format!("ecs/placed/{instance}/")
    }

    /// Zero-padded milliseconds, so that the oldest come first.
    pub(crate) fn stopped(milliseconds: i64, cluster: &str, id: &str) -> String {
        format!("{STOPPED}{milliseconds:015}/{cluster}/{id}")
    }

    pub(crate) fn setting(name: &str) -> String {
        format!("ecs/setting/{name}")
    }

    pub(crate) fn client_token(cluster: &str, token: &str) -> String {
        format!("ecs/token/{cluster}/{token}")
    }
}
