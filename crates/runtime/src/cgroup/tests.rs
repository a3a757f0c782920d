#![allow(clippy::disallowed_types, reason = "a test calls other programs as users do")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bulkhead_sys::testing::skip;

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

use super::inherit::enable_controllers;
use super::*;

mod oci;

/// A cgroup path of this test alone at the root of the hierarchies; the parent goes at the end.
struct Scratch {
    hierarchies: Hierarchies,
    parent: String,
}

impl Scratch {
    fn new(hierarchies: Hierarchies) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { hierarchies, parent: format!("/bulkhead-test-{}-{number}", std::process::id()) }
    }

    fn path(&self) -> String {
        format!("{}/container", self.parent)
    }

    fn exists(&self, path: &str) -> bool {
        Cgroup::open(&self.hierarchies, path).unwrap().exists()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let parent = Cgroup::open(&self.hierarchies, &self.parent).unwrap();
        // a failed test leaves processes in it
        let cleaned = parent.kill().and_then(|()| parent.delete());
        if !std::thread::panicking() {
            cleaned.unwrap();
        }
    }
}

pub(super) fn directory(path: &std::path::Path) -> Directory {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = openat(CWD, path, flags, Mode::empty()).unwrap();
    Directory { fd, path: path.to_str().unwrap().to_owned() }
}

/// What this machine has, and the same host as if it had only one of the versions.
fn layouts() -> Vec<(&'static str, Hierarchies)> {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let all = Layout::parse(&mountinfo, &cgroup);
    let v1 = Layout { v2: None, ..all.clone() };
    let v2 = Layout { v1: Vec::new(), ..all.clone() };
    [("host", all), ("v1", v1), ("v2", v2)]
        .into_iter()
        .filter_map(|(name, layout)| Some((name, Hierarchies::open(&layout).ok()?)))
        .collect()
}

fn writable() -> bool {
    let root = rustix::process::geteuid().is_root();
    let name = format!("/bulkhead-test-{}-probe", std::process::id());
    root && layouts().iter().all(|(_, hierarchies)| {
        hierarchies.all.iter().all(|it| {
            let name = format!("{}-{:?}", &name[1..], std::thread::current().id());
            let made = mkdirat(&it.root.fd, &name, Mode::from_raw_mode(0o755));
            let gone = rustix::fs::unlinkat(&it.root.fd, &name, rustix::fs::AtFlags::REMOVEDIR);
            made.is_ok() && gone.is_ok()
        })
    })
}

fn join(child: &Child, cgroup: &Cgroup) {
    let join = cgroup.join().unwrap();
    let pid = child.id().to_string();
    for procs in &join.procs {
        rustix::io::write(procs, pid.as_bytes()).unwrap();
    }
    if let Some(directory) = &join.v2_dir {
        let procs = openat(directory, "cgroup.procs", OFlags::WRONLY, Mode::empty()).unwrap();
        rustix::io::write(&procs, pid.as_bytes()).unwrap();
    }
}

/// A shell that runs a line for each line it is sent.
fn shell() -> Child {
    Command::new("sh")
        .args(["-c", "while read line; do eval \"$line\"; done"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn ask(child: &mut Child, line: &str) -> String {
    writeln!(child.stdin.as_mut().unwrap(), "{line}").unwrap();
    let mut answer = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut answer).unwrap();
    answer.trim().to_owned()
}

#[test]
fn limits_reach_the_kernel_and_nothing_is_left() {
    if !writable() {
        return skip("cgroups are not writable here");
    }
    for (name, hierarchies) in layouts() {
        let scratch = Scratch::new(hierarchies);
        let limits = Limits {
            memory: Some(64 << 20),
            memory_swap: Some(128 << 20),
            memory_reservation: Some(32 << 20),
            cpu_shares: Some(512),
            nano_cpus: Some(500_000_000),
            cpuset_cpus: Some("0".into()),
            pids: Some(77),
            ..Limits::default()
        };
        let (limits, warnings) = limits.without_absent(&scratch.hierarchies);
        let cgroup = Cgroup::create(&scratch.hierarchies, &scratch.path(), &limits).unwrap();
        let stats = cgroup.stats().unwrap();
        if limits.memory.is_some() {
            assert_eq!(stats.memory_limit, Some(64 << 20), "{name}");
            let looser =
                Limits { memory: Some(256 << 20), memory_swap: Some(-1), ..Limits::default() };
            cgroup.update(&looser).unwrap();
            assert_eq!(cgroup.stats().unwrap().memory_limit, Some(256 << 20));
            let tighter =
                Limits { memory: Some(32 << 20), memory_swap: Some(32 << 20), ..Limits::default() };
            cgroup.update(&tighter).unwrap();
            assert_eq!(cgroup.stats().unwrap().memory_limit, Some(32 << 20));
        }
        if limits.pids.is_some() {
            assert_eq!(stats.pids_limit, Some(77), "{name}");
            let free = Limits { pids: Some(-1), ..Limits::default() };
            cgroup.update(&free).unwrap();
            assert_eq!(cgroup.stats().unwrap().pids_limit, None);
        }
        assert_eq!((cgroup.pids().unwrap(), cgroup.oom_kill_count().unwrap()), (vec![], 0));
        for warning in warnings {
            assert!(warning.starts_with("Your kernel does not support "), "{warning}");
        }
        cgroup.delete().unwrap();
        cgroup.delete().unwrap();
        assert!(!scratch.exists(&scratch.path()), "{name}");
        let gone = Cgroup::open(&scratch.hierarchies, &scratch.path()).unwrap();
        assert!(matches!(gone.join(), Err(CgroupError::Gone(_))));
        gone.delete().unwrap();
    }
}

#[test]
fn processes_freeze_thaw_and_die_together() {
    if !writable() {
        return skip("cgroups are not writable here");
    }
    for (name, hierarchies) in layouts() {
        let scratch = Scratch::new(hierarchies);
        let limits = Limits::default();
        let made = Cgroup::create(&scratch.hierarchies, &scratch.path(), &limits).unwrap();
        let mut child = shell();
        join(&child, &made);
        assert_eq!(ask(&mut child, "sleep 1000 & echo $$"), child.id().to_string());
        // as after a restart of the engine
        let cgroup = Cgroup::open(&scratch.hierarchies, &scratch.path()).unwrap();
        assert_eq!(cgroup.pids().unwrap().len(), 2, "{name}");
        assert!(!cgroup.wait_empty(Duration::ZERO).unwrap());
        // a second one of the name is refused and does not touch the first
        let again = Cgroup::create(&scratch.hierarchies, &scratch.path(), &limits).unwrap_err();
        assert!(matches!(again, CgroupError::Occupied(_)), "{name}: {again}");
        assert_eq!(cgroup.pids().unwrap().len(), 2);

        assert!(!cgroup.is_frozen().unwrap());
        cgroup.freeze().unwrap();
        assert!(cgroup.is_frozen().unwrap());
        cgroup.thaw().unwrap();
        assert!(!cgroup.is_frozen().unwrap());
        assert_eq!(ask(&mut child, "echo awake"), "awake");

        cgroup.freeze().unwrap();
        cgroup.kill().unwrap();
        assert!(cgroup.wait_empty(Duration::from_secs(10)).unwrap(), "{name}");
        child.wait().unwrap();
        cgroup.delete().unwrap();
        assert!(!scratch.exists(&scratch.path()));
    }
}

#[test]
fn groups_made_inside_are_listed_and_removed() {
    if !writable() {
        return skip("cgroups are not writable here");
    }
    for (name, hierarchies) in layouts() {
        let scratch = Scratch::new(hierarchies);
        let limits = Limits { devices: Devices::All, ..Limits::default() };
        let outer = Cgroup::create(&scratch.hierarchies, &scratch.path(), &limits).unwrap();
        let path = format!("{}/a/b", scratch.path());
        let inner = Cgroup::create(&scratch.hierarchies, &path, &limits).unwrap();
        let mut child = shell();
        join(&child, &inner);
        assert_eq!(outer.pids().unwrap(), [child.id()], "{name}");
        outer.kill().unwrap();
        child.wait().unwrap();
        outer.delete().unwrap();
        assert!(!scratch.exists(&path));
    }
}

#[test]
fn devices_outside_the_list_are_refused() {
    if !writable() || std::fs::File::open("/dev/kmsg").is_err() {
        return skip("cgroups or /dev/kmsg cannot be used here");
    }
    for (name, hierarchies) in layouts() {
        let scratch = Scratch::new(hierarchies);
        let tries = "(exec 3</dev/null) && echo -n null; (exec 3</dev/kmsg) && echo -n kmsg; echo";
        for (devices, want) in [
            (Devices::default(), "null"),
            (Devices::DefaultAnd(vec!["c 1:11 r".parse().unwrap()]), "nullkmsg"),
            (Devices::All, "nullkmsg"),
        ] {
            let limits = Limits { devices, ..Limits::default() };
            let cgroup = match Cgroup::create(&scratch.hierarchies, &scratch.path(), &limits) {
                Err(CgroupError::Devices { cause, .. }) => {
                    return skip(&format!("no BPF program for devices: {cause}"));
                }
                other => other.unwrap(),
            };
            let mut child = shell();
            join(&child, &cgroup);
            assert_eq!(ask(&mut child, tries), want, "{name} {limits:?}");
            cgroup.kill().unwrap();
            child.wait().unwrap();
            cgroup.delete().unwrap();
        }
    }
}

/// The first group of a parent is given them by writing, and the others are made with them.
#[test]
fn a_v1_cpuset_has_its_parents_processors() {
    if !writable() {
        return skip("cgroups are not writable here");
    }
    let scratch = Scratch::new(Hierarchies::detect().unwrap());
    let open = |path: &str| Cgroup::open(&scratch.hierarchies, path).unwrap();
    for name in ["first", "second"] {
        let path = format!("{}/{name}", scratch.parent);
        let cgroup = Cgroup::create(&scratch.hierarchies, &path, &Limits::default()).unwrap();
        let parent = open(&scratch.parent);
        let is_v1 = |group: &&Group| group.version == Version::V1;
        let (Some(parent), Some(own)) = (
            parent.with_controller("cpuset").filter(is_v1),
            cgroup.with_controller("cpuset").filter(is_v1),
        ) else {
            cgroup.delete().unwrap();
            return skip("no cpuset controller of version 1");
        };
        let read = |group: &Group, file: &str| file::read(&group.directory, file).unwrap();
        assert_eq!(read(parent, "cgroup.clone_children").trim(), "1");
        for file in ["cpuset.cpus", "cpuset.mems"] {
            assert_ne!(read(own, file).trim(), "");
            assert_eq!(read(own, file), read(parent, file), "{name}/{file}");
        }
        cgroup.delete().unwrap();
    }
}

#[test]
fn errors_name_file_and_value() {
    if !writable() {
        return skip("cgroups are not writable here");
    }
    let scratch = Scratch::new(Hierarchies::detect().unwrap());
    if !scratch.hierarchies.has("cpuset") {
        return skip("no cpuset controller");
    }
    let limits = Limits { cpuset_cpus: Some("99999".into()), ..Limits::default() };
    let error =
        Cgroup::create(&scratch.hierarchies, &scratch.path(), &limits).unwrap_err().to_string();
    assert!(error.starts_with("write 99999 to /sys/fs/cgroup/"), "{error}");
    assert!(error.contains("/container/cpuset.cpus: "), "{error}");
    assert!(!scratch.exists(&scratch.path()), "what was made is removed");
}

#[test]
fn paths_stay_below_the_root() {
    for path in ["", "/", "a", "/a/", "//a", "/a/../b", "/..", "/.", "/a/./b", "/a\0", "/a\nb"] {
        assert!(matches!(components(path), Err(CgroupError::InvalidPath(_))), "{path:?}");
    }
    assert_eq!(components("/bulkhead/x y").unwrap(), ["bulkhead", "x y"]);
}

/// The files of controllers that are not in this machine's v2 hierarchy, in an ordinary directory.
#[test]
fn v2_files_get_their_values() {
    let directory = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    let get = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
    for name in ["cpu.weight", "cpu.max", "memory.max", "memory.low", "memory.swap.max", "pids.max"]
    {
        put(name, "before\n");
    }
    put("cpuset.cpus", "");
    put("memory.current", "4096\n");
    put("memory.stat", "anon 1\ninactive_file 512\nactive_file 7\n");
    put("memory.events", "low 0\noom 3\noom_kill 2\n");
    put("cpu.stat", "usage_usec 10\nuser_usec 6\nsystem_usec 4\n");
    put("pids.current", "5\n");
    put("cgroup.controllers", "cpu cpuset memory pids rdma\n");
    put("cgroup.subtree_control", "cpu cpuset memory\n");
    let open = || self::directory(directory.path());
    let limits = Limits {
        memory: Some(1000),
        memory_swap: Some(1500),
        memory_reservation: Some(10),
        cpu_shares: Some(1024),
        cpu_quota: Some(50_000),
        cpuset_cpus: Some("0-3".into()),
        pids: Some(9),
        ..Limits::default()
    };

    enable_controllers(&open(), &limits.to_oci()).unwrap();
    assert_eq!(get("cgroup.subtree_control"), "+pids +rdma", "what is missing and there");

    let controllers = words("cpu cpuset memory pids");
    let group = Group { directory: open(), version: Version::V2, controllers, fresh: false };
    let cgroup = Cgroup {
        path: "/x".into(),
        mode: HostMode::V2,
        groups: vec![group],
        complete: true,
        refused: Vec::new(),
    };
    cgroup.update(&limits).unwrap();
    for (name, want) in [
        ("memory.max", "1000"),
        ("memory.swap.max", "500"),
        ("memory.low", "10"),
        ("cpu.weight", "100"),
        ("cpu.max", "50000 100000"),
        ("cpuset.cpus", "0-3"),
        ("pids.max", "9"),
    ] {
        assert_eq!(get(name), want, "{name}");
    }
    let stats = cgroup.stats().unwrap();
    assert_eq!((stats.memory_usage, stats.memory_limit), (4096, Some(1000)));
    assert_eq!((stats.memory_inactive_file, stats.pids, stats.pids_limit), (512, 5, Some(9)));
    assert_eq!((stats.cpu_total, stats.cpu_user, stats.cpu_system), (10_000, 6_000, 4_000));
    assert_eq!(cgroup.oom_kill_count().unwrap(), 2);

    let unlimited = Limits { memory_swap: Some(-1), pids: Some(-1), ..Limits::default() };
    cgroup.update(&unlimited).unwrap();
    assert_eq!((get("memory.swap.max"), get("pids.max")), ("max".into(), "max".into()));
    assert_eq!(cgroup.stats().unwrap().pids_limit, None);
    let swap_alone = Limits { memory_swap: Some(5), ..Limits::default() };
    assert!(matches!(cgroup.update(&swap_alone), Err(CgroupError::SwapWithoutMemory)));
    put("memory.max", "lots");
    assert!(matches!(cgroup.stats(), Err(CgroupError::Unexpected { .. })));
}
