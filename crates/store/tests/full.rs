//! A disk that is full: removals and ends are recorded, and nothing is added.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use bulkhead_store::{Durability, Embedded, Store, StoreError, Write};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

/// A file system of so many bytes that is in no namespace and goes with its descriptor; `None` for
/// a user who may not mount.
fn small_disk(size: &str) -> Option<(OwnedFd, PathBuf)> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).ok()?;
    fsconfig_set_string(&context, "size", size).unwrap();
    fsconfig_create(&context).unwrap();
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let mount = fsmount(&context, flags, MountAttrFlags::empty()).unwrap();
    let path = format!("/proc/self/fd/{}", mount.as_raw_fd()).into();
    Some((mount, path))
}

/// Takes every byte that is left.
fn fill(directory: &std::path::Path) {
    let file = std::fs::File::create(directory.join("ballast")).unwrap();
    for size in [1 << 20, 1 << 12] {
        let mut length = file.metadata().unwrap().len();
        let none = rustix::fs::FallocateFlags::empty();
        while rustix::fs::fallocate(&file, none, length, size).is_ok() {
            length += size;
        }
    }
}

fn record(key: &str, size: usize) -> Write {
    Write::Put(key.to_owned(), vec![7; size])
}

#[test]
fn on_a_full_disk_removals_and_ends_are_recorded_and_nothing_is_added() {
    let Some((_mount, directory)) = small_disk("24m") else {
        return bulkhead_sys::testing::skip("no right to mount");
    };
    let path = directory.join("store");
    let store = Embedded::open(&path).unwrap();
    for number in 0..300 {
        store.commit(&[], &[record(&format!("container/{number}"), 3000)]).unwrap();
    }
    fill(&directory);
    // Grows until the file would have to.
    let full = (0..100_000)
        .find_map(|number| store.commit(&[], &[record(&format!("more/{number}"), 45_000)]).err())
        .unwrap();
    assert!(matches!(&full, StoreError::Full { .. }), "{full}");
    assert!(full.to_string().contains("nothing was recorded; free some space"), "{full}");
    // The next engine's store opens on the disk as it is.
    drop(store);
    let store = Embedded::open(&path).unwrap();
    for number in 0..300 {
        let key = format!("container/{number}");
        let durability = [Durability::Disk, Durability::Process][number / 3 % 2];
        let commit = |writes: &[Write]| store.commit_to(durability, &[], writes);
        commit(&[record(&key, 3100)]).unwrap_or_else(|error| panic!("{key}: {error}"));
        let intent = record(&format!("removing/{key}"), 2);
        commit(&[Write::Delete(key.clone()), intent]).unwrap();
    }
    std::fs::remove_file(directory.join("ballast")).unwrap();
    store.commit(&[], &[record("after", 45_000)]).unwrap();
    drop(store);
    let store = Embedded::open(&path).unwrap();
    assert!(store.range("container/").unwrap().is_empty());
    assert_eq!(store.range("removing/").unwrap().len(), 300);
    assert_eq!(store.read("after").unwrap().unwrap().value.len(), 45_000);
}
