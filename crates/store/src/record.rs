use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Entry, Store, StoreError, Write};

/// Reads one JSON record.
pub fn load<T: DeserializeOwned>(store: &dyn Store, key: &str) -> Result<Option<T>, StoreError> {
    store.read(key)?.map(|entry| decode(key, &entry.value)).transpose()
}

/// Reads every JSON record under `prefix`, with its key, in key order.
pub fn load_all<T: DeserializeOwned>(
    store: &dyn Store,
    prefix: &str,
) -> Result<Vec<(String, T)>, StoreError> {
    let decoded = |entry: Entry| decode(&entry.key, &entry.value).map(|value| (entry.key, value));
    store.range(prefix)?.into_iter().map(decoded).collect()
}

/// The write that stores `value` as JSON.
///
/// # Panics
/// If `value` is no JSON: a map whose keys are not strings. Records are types of ours that are.
pub fn put<T: Serialize>(key: impl Into<String>, value: &T) -> Write {
    let bytes = serde_json::to_vec(value).expect("records are plain structs with string keys");
    Write::Put(key.into(), bytes)
}

fn decode<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(value)
        .map_err(|cause| StoreError::Damaged { key: key.to_owned(), cause })
}
