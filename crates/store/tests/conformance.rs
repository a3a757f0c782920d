//! What every store must do, and what the embedded one must survive.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_types, reason = "a test calls other programs as users do")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use bulkhead_store::{
    Compare, Durability, Embedded, Store, StoreError, Write, load, load_all, put,
};
use tokio::sync::broadcast::error::TryRecvError;

fn conformance(store: &dyn Store) {
    let text = |text: &str| text.as_bytes().to_vec();
    assert_eq!(store.read("a").unwrap(), None);
    assert_eq!(store.commit(&[], &[Write::Delete("a".into())]).unwrap(), 0, "nothing changed");

    let mut all = store.watch("");
    let mut letters = store.watch("a/");
    let first = store
        .commit(
            &[Compare::Absent("a/1".into())],
            &[Write::Put("a/1".into(), text("one")), Write::Put("b".into(), text("b"))],
        )
        .unwrap();
    assert_eq!(first, 1);
    assert!(matches!(
        store.commit(
            &[Compare::Absent("a/1".into())],
            &[Write::Put("a/2".into(), text("must not appear"))]
        ),
        Err(StoreError::Conflict)
    ));
    assert_eq!(store.read("a/2").unwrap(), None, "all or nothing");
    let second = store
        .commit(
            &[Compare::Unchanged("a/1".into(), first), Compare::Exists("b".into())],
            &[
                Write::Put("a/1".into(), text("two")),
                Write::Put("a/0".into(), text("zero")),
                Write::Delete("b".into()),
            ],
        )
        .unwrap();
    assert_eq!(second, 2);
    assert!(matches!(
        store.commit(&[Compare::Unchanged("a/1".into(), first)], &[Write::Delete("a/1".into())]),
        Err(StoreError::Conflict)
    ));

    // What does not wait for the disk is read, compared, counted and told as the rest is.
    let third = store
        .commit_to(
            Durability::Process,
            &[Compare::Unchanged("a/1".into(), second)],
            &[Write::Put("a/3".into(), text("three")), Write::Delete("a/3".into())],
        )
        .unwrap();
    assert_eq!(third, second, "nothing changed");
    let third = store
        .commit_to(Durability::Process, &[], &[Write::Put("c".into(), text("three"))])
        .unwrap();
    assert_eq!(third, 3);
    assert_eq!(store.read("c").unwrap().unwrap().modified, third);
    assert!(matches!(
        store.commit_to(Durability::Process, &[Compare::Absent("c".into())], &[]),
        Err(StoreError::Conflict)
    ));

    let keys: Vec<String> = store.range("a/").unwrap().into_iter().map(|e| e.key).collect();
    assert_eq!(keys, ["a/0", "a/1"]);
    let entry = store.read("a/1").unwrap().unwrap();
    assert_eq!((entry.value.as_slice(), entry.modified), (b"two".as_slice(), second));

    assert_eq!(all.try_recv().unwrap().len(), 2);
    assert_eq!(all.try_recv().unwrap().len(), 3);
    assert_eq!(all.try_recv().unwrap()[0].key, "c");
    let seen = letters.try_recv().unwrap();
    assert_eq!((seen[0].key.as_str(), seen[0].value.as_deref()), ("a/1", Some(b"one".as_slice())));
    assert_eq!(letters.try_recv().unwrap().len(), 2);
    assert_eq!(letters.try_recv().unwrap_err(), TryRecvError::Empty);
}

#[test]
fn the_embedded_store_conforms() {
    let directory = tempfile::tempdir().unwrap();
    conformance(&Embedded::open(&directory.path().join("store")).unwrap());
}

#[test]
fn records_and_revisions_survive_a_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Embedded::open(&path).unwrap();
    store.commit(&[], &[put("n/1", &1_u32), put("n/2", &2_u32)]).unwrap();
    store.commit(&[], &[put("n/2", &22_u32)]).unwrap();
    drop(store);
    let store = Embedded::open(&path).unwrap();
    assert_eq!(
        load_all::<u32>(&store, "n/").unwrap(),
        [("n/1".to_owned(), 1), ("n/2".to_owned(), 22)]
    );
    assert_eq!(store.commit(&[Compare::Unchanged("n/2".into(), 2)], &[put("n/3", &3)]).unwrap(), 3);
    assert!(matches!(
        load::<String>(&store, "n/1"),
        Err(StoreError::Damaged { key, .. }) if key == "n/1"
    ));
}

#[test]
fn a_store_that_was_lost_or_put_back_says_so_until_that_is_confirmed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let lost = || Embedded::open(&path).unwrap().history_is_lost();
    let write = |key: &str| {
        let store = Embedded::open(&path).unwrap();
        store.confirm();
        store.commit(&[], &[put(key, &1)]).unwrap();
    };
    assert!(lost(), "a new store knows nothing of what may lie there");
    write("a");
    assert!(!lost());
    let early = std::fs::read(&path).unwrap();
    write("b");
    assert!(!lost());
    // Put back by one transaction, and it stays so over restarts and transactions.
    std::fs::write(&path, &early).unwrap();
    assert!(lost());
    Embedded::open(&path).unwrap().commit(&[], &[put("c", &1), put("d", &1)]).unwrap();
    Embedded::open(&path).unwrap().commit(&[], &[put("e", &1)]).unwrap();
    assert!(lost());
    write("f");
    assert!(!lost());
    for damage in [Vec::new(), vec![0; 8]] {
        // Emptied, or another store altogether.
        match damage.is_empty() {
            true => std::fs::write(&path, damage).unwrap(),
            false => std::fs::remove_file(&path).unwrap(),
        }
        assert!(lost());
        write("g");
        assert!(!lost());
    }
    std::fs::remove_file(directory.path().join("store.witness")).unwrap();
    assert!(lost());
}

#[test]
fn a_second_opener_is_told_that_the_store_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Embedded::open(&path).unwrap();
    let error = Embedded::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::InUse(_)), "{error}");
    assert!(error.to_string().contains("stop that one first"));
    drop(store);
    Embedded::open(&path).unwrap();
}

const WRITER: &str = "BULKHEAD_TEST_STORE_WRITER";

/// Not a test by itself: the child of the one below, which writes until it is killed.
#[test]
#[allow(clippy::disallowed_methods, reason = "the parent says by it where to write")]
fn writer() {
    let Some(path) = std::env::var_os(WRITER) else { return };
    let store = Embedded::open(path.as_ref()).unwrap();
    let first = load(&store, "last").unwrap().map_or(0, |last: u64| last + 1);
    for count in first.. {
        let durability = if count % 5 == 0 { Durability::Disk } else { Durability::Process };
        let writes = [put(format!("k/{:03}", count % 100), &count), put("last", &count)];
        store.commit_to(durability, &[], &writes).unwrap();
        println!("\ncommitted {count}");
    }
}

/// Where the writer dies by itself, the fifteenth time it comes there.
const POINTS: [&str; 5] =
    ["store.commit", "store.journal", "store.journaled", "store.sync", "store.committed"];

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let points = POINTS.map(Some);
    for point in points.into_iter().chain([None; 3]) {
        let mut child = Command::new(std::env::current_exe().unwrap());
        if let Some(point) = point {
            child.env(bulkhead_failpoint::VARIABLE, format!("{point}:kill:15"));
        }
        let mut child = child
            .args(["--exact", "writer", "--nocapture"])
            .env(WRITER, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut acknowledged = 0;
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let counts = lines.map_while(Result::ok);
        let counts = counts.filter_map(|line| line.strip_prefix("committed ")?.parse::<u64>().ok());
        for (number, count) in counts.enumerate() {
            acknowledged = count;
            if point.is_none() && number == 40 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let store = Embedded::open(&path).unwrap();
        let last: u64 = load(&store, "last").unwrap().unwrap();
        assert!(
            last == acknowledged || last == acknowledged + 1,
            "{point:?}: {acknowledged} was acknowledged, {last} was found"
        );
        let newest =
            load_all::<u64>(&store, "k/").unwrap().into_iter().map(|(_, count)| count).max();
        assert_eq!(newest, Some(last), "{point:?}: all or nothing");
    }
}
