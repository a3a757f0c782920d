use std::collections::BTreeMap;

use super::super::picture::{Found, Process, Source, compare, mappings};
use super::*;

const HOST: [u64; 8] = [10, 11, 12, 13, 14, 15, 16, 17];

fn found(name: &str, source: Source, pid: u32, inodes: [u64; 8]) -> Found {
    Found { name: name.to_owned(), source, pid, inodes }
}

fn pid(
    inode: u64,
    parent: Option<u64>,
    user: u64,
    processes: usize,
    first: &[u32],
) -> PidNamespace {
    let first_process = Some(Process { command: "sh".to_owned(), pids: first.to_vec() })
        .filter(|process| !process.pids.is_empty());
    let host = inode == HOST[1];
    PidNamespace { inode, parent, host, user_namespace: Some(user), processes, first_process }
}

fn user(inode: u64, parent: Option<u64>, maps: &str, gids: &str) -> UserNamespace {
    UserNamespace {
        inode,
        parent,
        host: inode == HOST[0],
        owner: Some(0),
        processes: 2,
        uid_mappings: mappings(maps),
        gid_mappings: mappings(gids),
    }
}

fn picture() -> Picture {
    let own = |first: u64| std::array::from_fn(|at| first + at as u64);
    let mut side = own(40);
    side[2..4].copy_from_slice(&[22, 23]); // net and ipc of web
    let mut third = own(50);
    third[2] = 22;
    let mut plain = HOST;
    plain[4] = 64;
    let containers = [
        found("web", Source::Engine, 2411, own(20)),
        found("sidecar-with-a-long-name", Source::Engine, 2500, side),
        found("third", Source::Oci, 2600, third),
        found("plain", Source::Oci, 2700, plain),
        found("lonely", Source::Oci, 2800, own(70)),
        found("closed", Source::Oci, 2900, [0; 8]),
    ];
    let named = BTreeMap::from([(72, "blue".to_owned())]);
    Picture {
        pid_namespaces: vec![
            pid(11, None, 10, 120, &[1]),
            pid(21, Some(11), 20, 3, &[2411, 1]),
            pid(31, Some(21), 30, 1, &[2420, 7, 1]),
            pid(41, Some(11), 40, 1, &[2500, 1]),
            pid(90, Some(11), 10, 0, &[]),
        ],
        user_namespaces: vec![
            user(10, None, "0 0 4294967295", "0 0 4294967295"),
            user(20, Some(10), "0 1000000 65536", "0 1000000 65536"),
            user(30, Some(20), "0 1001000 1", "0 1001001 1"),
            user(40, Some(10), "0 1 1\n1 5 2\n9 9 9", "0 1 1\n1 5 2\n9 9 9"),
        ],
        containers: compare(&containers, &HOST, &named),
        notes: vec![
            "3 processes are not shown, closed to this user: run as root to see all, wrapped here"
                .to_owned(),
        ],
    }
}

#[test]
fn trees_and_table_are_drawn() {
    insta::assert_snapshot!(text(&picture()), @r"
    CONTAINER         FROM    PID   USER  PID   NET        IPC        MNT  UTS   CGROUP  TIME
    web               engine  2411  own   own   =sidec…+1  =sidecar…  own  own   own     own
    sidecar-with-a-…  engine  2500  own   own   =web+1     =web       own  own   own     own
    third             oci     2600  own   own   =web+1     own        own  own   own     own
    plain             oci     2700  host  host  host       host       own  host  host    host
    lonely            oci     2800  own   own   =blue      own        own  own   own     own
    closed            oci     2900  ?     ?     ?          ?          ?    ?     ?       ?

    PID NAMESPACES
    11  the host's, 120 processes
    │   sh is 1
    ├── 21  web, 3 processes
    │   │   sh is 2411 → 1, owned by user namespace 20
    │   └── 31  inside web, 1 process
    │           sh is 2420 → 7 → 1, owned by user namespace 30
    ├── 41  sidecar-with-a-long-name, 1 process
    │       sh is 2500 → 1, owned by user namespace 40
    └── 90  no container's, no process seen
            owned by user namespace 10

    USER NAMESPACES
    10  the host's, 2 processes
    ├── 20  web, 2 processes, made by uid 0
    │   │   ids 0-65535 → 1000000-1065535
    │   └── 30  inside web, 2 processes, made by uid 0
    │           uids 0 → 1001000
    │           gids 0 → 1001001
    └── 40  sidecar-with-a-long-name, 2 processes, made by uid 0
            ids 0 → 1, 1-2 → 5-6 and 1 more

    Note: 3 processes are not shown, closed to this user: run as root to see all,
      wrapped here
    ");
}

#[test]
fn without_all_only_containers_are_shown() {
    let shown = picture().of_containers();
    let inodes: Vec<u64> = shown.pid_namespaces.iter().map(|it| it.inode).collect();
    assert_eq!(inodes, [11, 21, 31, 41]);
    assert_eq!(shown.user_namespaces.len(), 4);
    let note = "1 namespace of another program is not shown: --all shows it";
    assert_eq!(shown.notes.last().map(String::as_str), Some(note));
    assert_eq!(shown.of_containers().notes.len(), 2);
}

#[test]
fn a_parent_that_is_not_seen_makes_a_root() {
    let pid_namespaces =
        vec![pid(21, Some(11), 20, 1, &[5, 1]), pid(31, Some(21), 20, 1, &[6, 2, 1])];
    let picture = Picture { pid_namespaces, ..Picture::default() };
    insta::assert_snapshot!(text(&picture), @r"
    PID NAMESPACES
    21  no container's, 1 process
    │   sh is 5 → 1, owned by user namespace 20
    └── 31  no container's, 1 process
            sh is 6 → 2 → 1, owned by user namespace 20

    USER NAMESPACES
    ");
}

#[test]
fn no_line_is_wider_than_a_terminal_and_none_steers_it() {
    let mut picture = picture();
    if let Some(first) = &mut picture.pid_namespaces[1].first_process {
        first.command = "\u{1b}]0;x\u{7}".to_owned();
    }
    let text = text(&picture);
    for line in text.lines() {
        assert!(line.chars().count() <= 120, "{line}");
    }
    assert!(text.contains("?]0;x? is 2411 → 1"), "{text}");
}

#[test]
fn json_names_who_shares() {
    let json = serde_json::to_value(picture()).unwrap();
    assert_eq!(json["pidNamespaces"][2]["parent"], 21);
    assert_eq!(json["pidNamespaces"][2]["firstProcess"]["pids"], serde_json::json!([2420, 7, 1]));
    let web = &json["containers"][0]["namespaces"];
    assert_eq!(
        web["net"],
        serde_json::json!({
            "inode": 22, "host": false, "sharedWith": ["sidecar-with-a-long-name", "third"]
        })
    );
    assert_eq!(web["uts"]["sharedWith"], serde_json::json!([]));
    assert_eq!(json["containers"][3]["namespaces"]["net"]["host"], true);
}
