//! A disk that fails: what a caller was told is what the file holds, and the next call that the disk
//! can take works. A program of its own, with one test: failpoints are the process's.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bulkhead_failpoint::{Action, arm};
use bulkhead_store::{Compare, Durability, Embedded, Store, Write};

fn record(key: &str, size: usize) -> Write {
    Write::Put(key.to_owned(), vec![7; size])
}

/// Changes that only the journal has outlive every failure of the database that follows.
fn journaled(store: &Embedded, path: &std::path::Path) {
    let commit = |key: &str| store.commit_to(Durability::Process, &[], &[record(key, 10)]);
    for (number, point) in ["store.write", "store.sync"].into_iter().enumerate() {
        let (early, late) = (format!("j/{number}-early"), format!("j/{number}-late"));
        commit(&early).unwrap();
        arm(point, Some(Action::Error));
        store.commit(&[], &[record("j/never", 10)]).unwrap_err();
        assert!(store.read("j/never").unwrap().is_none());
        arm(point, None);
        commit(&late).unwrap();
        // Where the journal takes nothing, the database does.
        arm("store.journal", Some(Action::Error));
        commit(&format!("j/{number}-straight")).unwrap();
        arm(point, Some(Action::Full));
        let error = commit("j/never").unwrap_err();
        assert!(error.to_string().contains("full"), "{error}");
        arm("store.journal", None);
        arm(point, None);
        commit(&format!("j/{number}-last")).unwrap();
    }
    let copied = tempfile::tempdir().unwrap();
    for name in ["store", "store.journal", "store.witness"] {
        let from = path.with_file_name(name);
        std::fs::copy(from, copied.path().join(name)).unwrap();
    }
    let found = Embedded::open(&copied.path().join("store")).unwrap();
    assert_eq!(found.range("j/").unwrap(), store.range("j/").unwrap());
    assert_eq!(found.range("j/").unwrap().len(), 8);
    drop(found);
    // On a full disk where there is none yet, it opens without one.
    std::fs::remove_file(copied.path().join("store.journal")).unwrap();
    arm("store.journal-open", Some(Action::Full));
    let without = Embedded::open(&copied.path().join("store")).unwrap();
    arm("store.journal-open", None);
    without.commit_to(Durability::Process, &[], &[record("j/x", 1)]).unwrap();
    drop(without);
    let found = Embedded::open(&copied.path().join("store")).unwrap();
    assert!(found.read("j/x").unwrap().is_some());
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
    journaled(&store, &path);
    drop(store);
    let store = Embedded::open(&path).unwrap();
    let without_journaled = |entry: &bulkhead_store::Entry| !entry.key.starts_with("j/");
    let sizes: Vec<(String, usize)> = store
        .range("")
        .unwrap()
        .into_iter()
        .filter(without_journaled)
        .map(|entry| (entry.key, entry.value.len()))
        .collect();
    assert_eq!(sizes, [("a".to_owned(), 10), ("b".to_owned(), 10), ("e".to_owned(), 6)]);
}
