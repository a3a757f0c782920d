//! Transactions that do not wait for the disk, against a model: none is lost by the end of a process,
//! and a power cut takes the last ones at most.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bulkhead_store::{Durability, Embedded, Revision, Store, Write};
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Commit(Durability, Vec<(u8, Option<usize>)>),
    /// The process ends, as by `kill -9`: all that it has written stays.
    Kill,
    /// Of what was not flushed, some pages are on disk and some are not.
    PowerCut(Vec<bool>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let durability = prop_oneof![4 => Just(Durability::Process), 1 => Just(Durability::Disk)];
    // now and then one that fills the journal
    let size = prop_oneof![20 => 0_usize..9000, 1 => 300_000_usize..400_000];
    let changes = vec((0_u8..6, proptest::option::weighted(0.7, size)), 1..4);
    let step = prop_oneof![
        8 => (durability, changes).prop_map(|(durability, changes)| Step::Commit(durability, changes)),
        1 => Just(Step::Kill),
        1 => vec(any::<bool>(), 1..40).prop_map(Step::PowerCut),
    ];
    vec(step, 1..30)
}

/// Key → the revision that wrote it and its value.
type State = BTreeMap<String, (Revision, Vec<u8>)>;

fn state(store: &Embedded) -> State {
    let entries = store.range("").unwrap();
    entries.into_iter().map(|entry| (entry.key, (entry.modified, entry.value))).collect()
}

/// The files of a store that is open elsewhere, as the next process finds them.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for name in ["store", "store.journal", "store.witness"] {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

/// Page by page what was written since `old`, or not.
fn cut(old: &[u8], new: &[u8], reached: &[bool]) -> Vec<u8> {
    const PAGE: usize = 4096;
    let page = |bytes: &[u8], at: usize| {
        let mut page = bytes.get(at..).unwrap_or_default().to_vec();
        page.resize(PAGE, 0);
        page
    };
    let pages = (0..new.len()).step_by(PAGE).zip(reached.iter().cycle());
    pages.flat_map(|(at, reached)| page(if *reached { new } else { old }, at)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_was_committed_is_there_whatever_ends_the_process(steps in steps()) {
        let root = tempfile::tempdir().unwrap();
        let place = |number: usize| -> PathBuf { root.path().join(number.to_string()) };
        std::fs::create_dir(place(0)).unwrap();
        let mut store = Embedded::open(&place(0).join("store")).unwrap();
        store.confirm();
        let journal = |number| std::fs::read(place(number).join("store.journal")).unwrap();
        // What is on disk for certain, and what came after it.
        let (mut flushed, mut since, mut opened) = (journal(0), vec![State::new()], 0);
        for step in steps {
            match step {
                Step::Commit(durability, changes) => {
                    let write = |(key, size): &(u8, Option<usize>)| match size {
                        Some(size) => Write::Put(format!("k/{key}"), vec![*key; *size]),
                        None => Write::Delete(format!("k/{key}")),
                    };
                    let writes: Vec<Write> = changes.iter().map(write).collect();
                    let before = store.commit(&[], &[]).unwrap();
                    let revision = store.commit_to(durability, &[], &writes).unwrap();
                    let mut expected = since.last().unwrap().clone();
                    let last: BTreeMap<_, _> = changes.into_iter().collect();
                    for (key, size) in last {
                        match size {
                            Some(size) => {
                                expected.insert(format!("k/{key}"), (revision, vec![key; size]))
                            }
                            None => expected.remove(&format!("k/{key}")),
                        };
                    }
                    prop_assert_eq!(&state(&store), &expected);
                    if revision == before {
                        continue;
                    }
                    if durability == Durability::Disk {
                        flushed = journal(opened);
                        since.clear();
                    }
                    since.push(expected);
                }
                Step::Kill => {
                    copy(&place(opened), &place(opened + 1));
                    opened += 1;
                    store = Embedded::open(&place(opened).join("store")).unwrap();
                    prop_assert!(!store.history_is_lost());
                    prop_assert_eq!(&state(&store), since.last().unwrap());
                }
                Step::PowerCut(reached) => {
                    copy(&place(opened), &place(opened + 1));
                    let left = cut(&flushed, &journal(opened), &reached);
                    opened += 1;
                    std::fs::write(place(opened).join("store.journal"), left).unwrap();
                    store = Embedded::open(&place(opened).join("store")).unwrap();
                    prop_assert!(!store.history_is_lost(), "nothing was put back");
                    let found = state(&store);
                    prop_assert!(since.contains(&found), "a state that never was");
                    since = vec![found];
                    flushed = journal(opened);
                }
            }
        }
    }
}

fn text(key: &str) -> Write {
    Write::Put(key.to_owned(), b"text".to_vec())
}

#[test]
fn a_journal_is_only_that_of_its_store() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Embedded::open(&path).unwrap();
    store.commit_to(Durability::Process, &[], &[text("a")]).unwrap();
    drop(store);
    std::fs::remove_file(&path).unwrap();
    let store = Embedded::open(&path).unwrap();
    assert!(store.read("a").unwrap().is_none());
    assert!(directory.path().join("store.journal.of-another-store").exists());
    store.commit_to(Durability::Process, &[], &[text("b")]).unwrap();
    drop(store);
    let early = std::fs::read(&path).unwrap();
    let store = Embedded::open(&path).unwrap();
    assert!(store.read("b").unwrap().is_some(), "it is in the journal alone");
    store.commit(&[], &[text("c")]).unwrap();
    store.commit_to(Durability::Process, &[], &[text("d")]).unwrap();
    drop(store);
    // Put back to an earlier moment: the journal follows one that it does not know.
    std::fs::write(&path, early).unwrap();
    let store = Embedded::open(&path).unwrap();
    assert!(store.history_is_lost());
    assert!(store.range("").unwrap().is_empty());
}
