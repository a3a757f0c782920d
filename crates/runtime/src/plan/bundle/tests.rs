use serde_json::json;

use super::*;
use crate::plan::CgroupHierarchy;

fn options() -> BundleOptions {
    BundleOptions {
        id: "box".into(),
        bundle: "/bundle".into(),
        no_pivot: false,
        new_keyring: true,
        preserve_fds: 0,
        filter: None,
    }
}

fn sources() -> BundleSources {
    BundleSources {
        rootfs_path: "/bundle/rootfs".into(),
        rootfs: Some(FdIndex(0)),
        ..BundleSources::default()
    }
}

fn config(more: serde_json::Value) -> oci::Config {
    let mut config = json!({
        "ociVersion": "1.3.0",
        "process": { "args": ["sh", "-c", "true"], "cwd": "/", "env": ["PATH=/bin:/usr/bin"],
                     "user": { "uid": 0, "gid": 0 } },
        "root": { "path": "rootfs" },
        "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid" }] },
    });
    merge(&mut config, more);
    serde_json::from_value(config).unwrap()
}

fn merge(into: &mut serde_json::Value, from: serde_json::Value) {
    match (into, from) {
        (serde_json::Value::Object(into), serde_json::Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(serde_json::Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn plan(more: serde_json::Value) -> Plan {
    Plan::bundle(&config(more), &sources(), &options()).unwrap()
}

fn refused(more: serde_json::Value) -> String {
    Plan::bundle(&config(more), &sources(), &options()).unwrap_err().to_string()
}

#[test]
fn a_bundle_with_nearly_everything() {
    let private: Vec<_> =
        NamespaceKind::ALL.iter().map(|it| json!({ "type": it.name() })).collect();
    let sources = BundleSources {
        binds: [(3, FdIndex(1))].into(),
        cgroup_v1_procs: vec![FdIndex(2)],
        listener: Some(FdIndex(3)),
        cgroup: CgroupMount::Hierarchies(Host {
            cgroups: vec![CgroupHierarchy::V1("cpu,cpuacct".into()), CgroupHierarchy::V2],
            cgroup2_flags: vec!["nsdelegate".into()],
        }),
        ..sources()
    };
    let config = config(json!({
        "hostname": "host",
        "domainname": "domain",
        "process": {
            "terminal": true, "consoleSize": { "height": 24, "width": 80 }, "cwd": "/srv",
            "user": { "uid": 7, "gid": 8, "additionalGids": [9], "umask": 63 },
            "capabilities": { "bounding": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_KILL"],
                "permitted": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"] },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 10, "hard": 20 }],
            "noNewPrivileges": true, "apparmorProfile": "tight", "oomScoreAdj": -5,
            "scheduler": { "policy": "SCHED_FIFO", "priority": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"] },
            "ioPriority": { "class": "IOPRIO_CLASS_BE", "priority": 4 },
        },
        "root": { "path": "rootfs", "readonly": true },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["ro", "nosuid"] },
            { "destination": "/data", "type": "bind", "source": "/data", "options": ["rbind", "rslave"] },
            { "destination": "/var", "type": "tmpfs", "options": ["tmpcopyup", "private"] },
        ],
        "hooks": { "createRuntime": [{ "path": "/a" }], "createContainer": [{ "path": "/b" }],
                   "startContainer": [{ "path": "/c" }] },
        "linux": {
            "namespaces": private,
            "uidMappings": [{ "containerID": 0, "hostID": 1000, "size": 10 }],
            "gidMappings": [{ "containerID": 0, "hostID": 1000, "size": 10 }],
            "timeOffsets": { "boottime": { "secs": 100 }, "monotonic": { "secs": -1, "nanosecs": 5 } },
            "sysctl": { "net.ipv4.ip_forward": "1" },
            "devices": [{ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 432 }],
            "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"],
            "rootfsPropagation": "slave",
            "personality": { "domain": "LINUX32" },
            "memoryPolicy": { "mode": "MPOL_BIND", "nodes": "0,65", "flags": ["MPOL_F_STATIC_NODES"] },
        },
    }));
    let options = BundleOptions { preserve_fds: 2, ..options() };
    insta::assert_snapshot!(Plan::bundle(&config, &sources, &options).unwrap());
}

#[test]
fn a_bundle_with_nearly_nothing() {
    insta::assert_snapshot!(plan(json!({})));
}

#[test]
fn one_more_process() {
    let config = config(json!({}));
    let process = oci::Process {
        args: vec!["/bin/ps".into()],
        cwd: "/".into(),
        exec_cpu_affinity: Some(oci::CpuAffinity { initial: "0-1".into(), final_: "1".into() }),
        ..oci::Process::default()
    };
    let options = options();
    let plan = Plan::bundle_exec(&config, &process, &[FdIndex(0)], CLONE_NEWUSER, &options);
    insta::assert_snapshot!(plan.unwrap());
}

#[test]
fn what_cannot_be_is_refused_with_a_reason() {
    for (more, want) in [
        (
            json!({ "linux": { "namespaces": [{ "type": "pid" }, { "type": "pid", "path": "/x" }] } }),
            "malformed spec file: duplicated ns \"pid\"",
        ),
        (
            json!({ "linux": { "namespaces": [{ "type": "mount" }, { "type": "user" }] } }),
            "a user namespace needs ids",
        ),
        (
            json!({ "linux": { "uidMappings": [{ "containerID": 0, "hostID": 1, "size": 1 }] } }),
            "user namespace mappings specified, but user namespace isn't enabled",
        ),
        (json!({ "hostname": "h" }), "unable to set hostname without a private UTS namespace"),
        (json!({ "domainname": "h" }), "unable to set domainname without"),
        (
            json!({ "linux": { "sysctl": { "kernel.core_pattern": "x" } } }),
            "sysctl \"kernel.core_pattern\" is not in a separate kernel namespace",
        ),
        (
            json!({ "linux": { "sysctl": { "net.ipv4.ip_forward": "1" } } }),
            "sysctl \"net.ipv4.ip_forward\" is not in a separate kernel namespace",
        ),
        (
            json!({ "linux": { "namespaces": [{ "type": "network" }],
                               "sysctl": { "net/../kernel/x": "1" } } }),
            "invalid sysctl name",
        ),
        (json!({ "linux": { "timeOffsets": { "boottime": { "secs": 1 } } } }), "linux.timeOffsets"),
        (json!({ "linux": { "rootfsPropagation": "frob" } }), "rootfsPropagation=frob"),
        (
            json!({ "linux": { "namespaces": [] }, "mounts": [{ "destination": "/x", "type": "tmpfs" }] }),
            "config.json has mounts but no mount namespace of its own",
        ),
        (json!({ "process": { "cwd": "relative" } }), "\"relative\" is not an absolute path"),
        (
            json!({ "process": { "rlimits": [{ "type": "RLIMIT_FROB", "soft": 1, "hard": 1 }] } }),
            "invalid rlimit type \"RLIMIT_FROB\"",
        ),
        (
            json!({ "process": { "rlimits": [{ "type": "RLIMIT_CPU", "soft": 1, "hard": 1 },
                                             { "type": "RLIMIT_CPU", "soft": 1, "hard": 1 }] } }),
            "given twice",
        ),
        (
            json!({ "process": { "scheduler": { "policy": "SCHED_X" } } }),
            "invalid scheduler policy",
        ),
        (
            json!({ "process": { "scheduler": { "policy": "SCHED_OTHER", "priority": 1 } } }),
            "scheduler.priority can only be specified for SCHED_FIFO or SCHED_RR",
        ),
        (
            json!({ "process": { "scheduler": { "policy": "SCHED_DEADLINE", "runtime": 9000,
                                                "deadline": 8000 } } }),
            "sched_setattr: `SCHED_DEADLINE` runtime 9000 must be <= deadline 8000",
        ),
        (
            json!({ "process": { "scheduler": { "policy": "SCHED_DEADLINE", "deadline": 8000 } } }),
            "sched_setattr: `SCHED_DEADLINE` requires `runtime`",
        ),
        (
            json!({ "process": { "scheduler": { "policy": "SCHED_DEADLINE", "runtime": 0,
                                                "deadline": 8000 } } }),
            "sched_setattr: `SCHED_DEADLINE` runtime must be greater than 0",
        ),
        (
            json!({ "process": { "ioPriority": { "class": "IOPRIO_CLASS_RT", "priority": 8 } } }),
            "invalid ioPriority.priority 8",
        ),
        (json!({ "process": { "oomScoreAdj": 1001 } }), "process.oomScoreAdj 1001"),
        (json!({ "linux": { "personality": { "domain": "BSD" } } }), "invalid personality domain"),
        (json!({ "linux": { "memoryPolicy": {} } }), "invalid memory policy mode \"\""),
        (
            json!({ "linux": { "memoryPolicy": { "mode": "MPOL_BIND", "nodes": "3-1" } } }),
            "invalid memory policy nodes \"3-1\"",
        ),
        (
            json!({ "linux": { "devices": [{ "path": "/dev/x", "type": "z" }] } }),
            "invalid type \"z\" of device \"/dev/x\"",
        ),
        (
            json!({ "linux": { "devices": [{ "path": "/dev/x", "type": "c", "major": -1 }] } }),
            "device \"/dev/x\" has the number -1",
        ),
        (
            json!({ "mounts": [{ "destination": "/x", "type": "tmpfs", "options": ["idmap=1"] }] }),
            "invalid mount option \"idmap=1\"",
        ),
    ] {
        let error = refused(more.clone());
        assert!(error.contains(want), "{more}: {error}");
    }
}

#[test]
fn processors_and_nodes_are_lists() {
    assert_eq!(kernel::list("0-3,7", "x").unwrap(), [0, 1, 2, 3, 7]);
    assert_eq!(kernel::list("", "x").unwrap(), [] as [u32; 0]);
    for text in ["a", "1-", "-1", "3-1", "0-99999999", "8192"] {
        assert!(kernel::list(text, "x").is_err(), "{text}");
    }
}

#[test]
fn groups_are_kept_for_one_value_of_the_annotation() {
    for (value, kept) in [("1", true), ("0", false), ("", false), ("true", false)] {
        let config = config(json!({ "annotations": { "run.oci.keep_original_groups": value } }));
        let plan = Plan::bundle(&config, &sources(), &options()).unwrap().to_string();
        assert_eq!(plan.contains("set uid and gid, keep groups"), kept, "{value:?}");
        let process = config.process.clone().unwrap();
        let plan = Plan::bundle_exec(&config, &process, &[], 0, &options()).unwrap().to_string();
        assert_eq!(plan.contains("set uid and gid, keep groups"), kept, "{value:?}");
    }
}

#[test]
fn a_cgroup_mount_of_v2_has_its_options() {
    let cgroups = vec![CgroupHierarchy::V2];
    let sources = BundleSources {
        cgroup: CgroupMount::Hierarchies(Host { cgroups, ..Host::default() }),
        ..sources()
    };
    let config = config(json!({ "mounts": [{ "destination": "/sys/fs/cgroup", "type": "cgroup",
                                             "options": ["ro", "nsdelegate"] }] }));
    let plan = Plan::bundle(&config, &sources, &options()).unwrap().to_string();
    assert!(plan.contains("nsdelegate"), "{plan}");
}
