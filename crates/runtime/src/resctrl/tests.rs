use std::fs;

use bulkhead_sys::testing::skip;

use super::*;

/// A directory that looks like resctrl's, with groups that the kernel would have filled.
fn root(groups: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for group in [&["."], groups].concat() {
        let group = root.path().join(group);
        fs::create_dir_all(group.join("mon_groups")).unwrap();
        for file in ["tasks", "schemata"] {
            fs::write(group.join(file), "").unwrap();
        }
    }
    fs::create_dir(root.path().join("info")).unwrap();
    fs::write(root.path().join("info/last_cmd_status"), "ok\n").unwrap();
    root
}

fn rdt(clos_id: &str) -> IntelRdt {
    IntelRdt { clos_id: clos_id.to_owned(), ..IntelRdt::default() }
}

fn read(root: &tempfile::TempDir, path: &str) -> String {
    fs::read_to_string(root.path().join(path)).unwrap()
}

#[test]
fn resctrl_is_found_among_the_mounts() {
    let mounts = "24 1 0:22 / /proc rw - proc proc rw\n\
                  33 24 0:29 / /sys/fs/resctrl rw,relatime shared:1 - resctrl resctrl rw\n";
    assert_eq!(mounted(mounts), Some("/sys/fs/resctrl".into()));
    assert_eq!(mounted("24 1 0:22 / /resctrl rw - proc resctrl rw\n"), None);
}

#[test]
fn a_named_class_must_be_there_or_have_schemata() {
    let root = root(&["gold"]);
    let group = Group::create(root.path(), "box", &rdt("gold")).unwrap();
    group.add(4711).unwrap();
    assert_eq!(read(&root, "gold/tasks"), "4711\n");
    assert!(group.remains().is_empty(), "it is others' as well");
    assert_eq!(read(&root, "gold/schemata"), "", "nothing was asked for");
    let error = Group::create(root.path(), "box", &rdt("tin")).unwrap_err();
    assert!(matches!(error, ResctrlError::NoGroup(name) if name == "tin"));
    assert!(!root.path().join("tin").exists());
    add(root.path(), "box", &rdt("gold"), 12).unwrap();
    assert_eq!(read(&root, "gold/tasks"), "12\n");
}

#[test]
fn the_root_is_the_default_class() {
    let root = root(&[]);
    let group = Group::create(root.path(), "box", &rdt("/")).unwrap();
    group.add(5).unwrap();
    assert_eq!(read(&root, "tasks"), "5\n");
    assert!(group.remains().is_empty());
}

#[test]
fn schemata_are_compared_with_those_of_a_class() {
    let root = root(&["gold"]);
    fs::write(root.path().join("gold/schemata"), "    MB:0= 50;1=070\n    L3:0=00ff;1=0f0\n")
        .unwrap();
    let same = IntelRdt { l3_cache_schema: "L3:1=F0".to_owned(), ..rdt("gold") };
    Group::create(root.path(), "box", &same).unwrap();
    assert_eq!(read(&root, "gold/schemata"), "L3:1=F0\n");
    fs::write(root.path().join("gold/schemata"), "MB:0=50;1=70\n").unwrap();
    let other = IntelRdt { mem_bw_schema: "MB:0=60".to_owned(), ..rdt("gold") };
    let error = Group::create(root.path(), "box", &other).unwrap_err().to_string();
    assert!(error.contains("another schema than \"MB:0=60\": it has \"MB:0=50;1=70\""), "{error}");
}

#[test]
fn what_names_no_class_is_refused() {
    let root = root(&[]);
    for bad in [".", "..", "a/b", "/a", "a\n"] {
        let error = Group::create(root.path(), "box", &rdt(bad)).unwrap_err();
        assert!(matches!(error, ResctrlError::ClosId(_)), "{bad}: {error}");
    }
    let two = IntelRdt { schemata: vec!["L3:0=f\nMB:0=1".to_owned()], ..rdt("") };
    assert!(matches!(Group::create(root.path(), "box", &two), Err(ResctrlError::Schema(_))));
    assert!(!root.path().join("box").exists());
}

#[test]
fn what_was_made_is_removed() {
    let root = root(&["gold"]);
    let watched = IntelRdt { enable_monitoring: true, ..rdt("gold") };
    let group = Group::create(root.path(), "box", &watched).unwrap();
    assert_eq!(group.remains(), [PathBuf::from("gold/mon_groups/box")]);
    assert!(root.path().join("gold/mon_groups/box").exists());
    remove(root.path(), group.remains().iter().rev().map(PathBuf::as_path)).unwrap();
    remove(root.path(), group.remains().iter().rev().map(PathBuf::as_path)).unwrap();
    assert!(!root.path().join("gold/mon_groups/box").exists());

    // a plain directory has no files that appear, so that the write fails as the kernel's might
    fs::write(root.path().join("info/last_cmd_status"), "Mask out of range\n").unwrap();
    let own = IntelRdt { schemata: vec!["L3:0=fffff".to_owned()], ..rdt("") };
    let error = Group::create(root.path(), "box", &own).unwrap_err().to_string();
    assert!(
        error.contains("unable to write \"L3:0=fffff\"") && error.contains("(Mask out of range)")
    );
    assert!(!root.path().join("box").exists(), "the group that was made is gone");
    let group = Group::create(root.path(), "box", &rdt("")).unwrap();
    assert_eq!(group.remains(), [PathBuf::from("box")]);
}

#[test]
fn the_kernel_takes_it() {
    let Some(root) = mounted(&fs::read_to_string("/proc/self/mountinfo").unwrap()) else {
        return skip("no resctrl is mounted");
    };
    let id = format!("bulkhead-test-{}", std::process::id());
    let group = Group::create(&root, &id, &rdt("")).unwrap();
    group.add(std::process::id()).unwrap();
    let tasks = fs::read_to_string(root.join(&id).join("tasks")).unwrap();
    let removed = remove(&root, group.remains().iter().map(PathBuf::as_path));
    assert!(tasks.lines().any(|pid| pid == std::process::id().to_string()), "{tasks}");
    removed.unwrap();
}
