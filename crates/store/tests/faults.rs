//! A disk that fails: what a caller was told is what the file holds, and the next call that the disk
//! can take works. A program of its own, with one test: failpoints are the process's.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bulkhead_failpoint::{Action, arm};
use bulkhead_store::{Compare, Embedded, Store, Write};

fn record(key: &str, size: usize) -> Write {
    Write::Put(key.to_owned(), vec![7; size])
}

#[test]
fn a_store_that_failed_goes_on_and_what_failed_has_not_happened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Embedded::open(&path).unwrap();
    store.commit(&[], &[record("a", 10), record("b", 10)]).unwrap();
    for point in ["store.write", "store.sync", "store.commit"] {
        for (action, kind) in [(Action::Full, "full"), (Action::Error, "Input/output error")] {
            arm(point, Some(action));
            let changes = [record("a", 20), Write::Delete("b".into()), record("c", 60_000)];
            let error = store.commit(&[], &changes).unwrap_err();
            assert!(error.to_string().contains(kind), "{point}: {error}");
            assert_eq!(store.read("a").unwrap().unwrap().value.len(), 10);
            // While the disk fails every call says so, and none panics.
            let again = store.commit(&[], &[record("d", 10)]).unwrap_err();
            assert!(!again.to_string().contains("close and re-open"), "{point}: {again}");
            arm(point, None);
            let revision = store.commit(&[Compare::Exists("b".into())], &[record("e", 5)]).unwrap();
            store.commit(&[Compare::Unchanged("e".into(), revision)], &[record("e", 6)]).unwrap();
            assert!(store.read("c").unwrap().is_none());
            assert!(store.read("d").unwrap().is_none());
        }
    }
    drop(store);
    let store = Embedded::open(&path).unwrap();
    let sizes: Vec<(String, usize)> =
        store.range("").unwrap().into_iter().map(|entry| (entry.key, entry.value.len())).collect();
    assert_eq!(sizes, [("a".to_owned(), 10), ("b".to_owned(), 10), ("e".to_owned(), 6)]);
}
