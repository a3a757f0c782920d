//! Groups of OCI containers, on the kernel that is there.

use bulkhead_types::oci::Resources;

use super::*;
use crate::cgroup::resources::tests::parse;

const REUSE: CreateOptions = CreateOptions {
    delegate_to: None,
    reuse_existing: true,
    rootless: false,
    devices_later: false,
};

/// What a file of the group says, in whichever hierarchy has it.
fn read(cgroup: &Cgroup, name: &str) -> Option<String> {
    let text = cgroup.groups.iter().find_map(|it| file::try_read(&it.directory, name).ok());
    text.map(|text| text.trim_end().to_owned())
}

/// The first disk, as MAJOR:MINOR.
fn disk() -> Option<(i64, i64)> {
    let disks = std::fs::read_dir("/sys/block").ok()?;
    let mut numbers =
        disks.filter_map(|it| std::fs::read_to_string(it.ok()?.path().join("dev")).ok());
    let number = numbers.next()?;
    let (major, minor) = number.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[test]
fn resources_reach_the_kernel() {
    if !writable() {
        return skip("cgroups are not writable here");
    }
    for (name, hierarchies) in layouts() {
        let scratch = Scratch::new(hierarchies);
        let has = |controller| scratch.hierarchies.has(controller);
        let v1 = |controller: &str| {
            let mut all = scratch.hierarchies.all.iter();
            all.any(|it| it.version == Version::V1 && it.has(controller))
        };
        let mut resources = Resources::default();
        let mut wants = Vec::new();
        if has("pids") {
            resources.pids = parse(r#"{"pids":{"limit":33}}"#).pids;
            wants.push(("pids.max", "33"));
        }
        if v1("cpu") && v1("cpuset") {
            resources.cpu = parse(
                r#"{"cpu":{"shares":512,"quota":20000,"burst":100,"period":50000,"cpus":"0"}}"#,
            )
            .cpu;
            wants.extend([
                ("cpu.shares", "512"),
                ("cpu.cfs_quota_us", "20000"),
                ("cpu.cfs_period_us", "50000"),
                ("cpuset.cpus", "0"),
                ("cpuset.mems", "0"),
            ]);
        }
        if v1("memory") {
            resources.memory = parse(
                r#"{"memory":{"limit":67108864,"swap":134217728,"reservation":33554432,
                    "swappiness":10,"disableOOMKiller":true}}"#,
            )
            .memory;
            wants.extend([
                ("memory.limit_in_bytes", "67108864"),
                ("memory.memsw.limit_in_bytes", "134217728"),
                ("memory.soft_limit_in_bytes", "33554432"),
                ("memory.swappiness", "10"),
            ]);
        }
        let throttled = disk().map(|(major, minor)| (major, minor, format!("{major}:{minor} 600")));
        if let Some((major, minor, line)) = throttled.as_ref().filter(|_| v1("blkio")) {
            let device = format!(r#"[{{"major":{major},"minor":{minor},"rate":600}}]"#);
            let text = format!(r#"{{"blockIO":{{"throttleReadBpsDevice":{device}}}}}"#);
            resources.block_io = parse(&text).block_io;
            wants.push(("blkio.throttle.read_bps_device", line));
        }
        if has("hugetlb") {
            resources.hugepage_limits =
                parse(r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#).hugepage_limits;
            wants.push(("hugetlb.2MB.max", "4194304"));
        }
        let path = scratch.path();
        let cgroup = Cgroup::create_oci(&scratch.hierarchies, &path, &resources, &REUSE).unwrap();
        for (file, want) in wants {
            assert_eq!(read(&cgroup, file).as_deref(), Some(want), "{name} {file}");
        }
        if v1("memory") {
            assert!(read(&cgroup, "memory.oom_control").unwrap().contains("oom_kill_disable 1"));
        }
        let saved = Cgroup::open_saved(&scratch.hierarchies, &cgroup.paths()).unwrap();
        assert_eq!(saved.paths(), cgroup.paths(), "{name}");
        assert_eq!(saved.join().unwrap().procs.len(), cgroup.join().unwrap().procs.len());
        cgroup.delete().unwrap();
        assert!(!scratch.exists(&path), "{name}");
        let gone = Cgroup::open_saved(&scratch.hierarchies, &saved.paths()).unwrap();
        assert!(matches!(gone.join(), Err(CgroupError::Gone(_))));
    }
}

#[test]
fn limits_are_raised_and_lowered_past_each_other() {
    if !writable() {
        return skip("cgroups are not writable here");
    }
    let scratch = Scratch::new(Hierarchies::detect().unwrap());
    if scratch.hierarchies.mode() == HostMode::V2 || !scratch.hierarchies.has("memory") {
        return skip("the memory controller is not v1's");
    }
    let path = scratch.path();
    let none = Resources::default();
    let cgroup = Cgroup::create_oci(&scratch.hierarchies, &path, &none, &REUSE).unwrap();
    let megabyte = |number: i64| if number < 0 { number } else { number << 20 };
    for (memory, both) in [(64, 64), (128, 256), (300, 300), (32, 32), (-1, -1), (16, 32), (-1, 0)]
    {
        let (memory, both) = (megabyte(memory), megabyte(both));
        let text = format!(r#"{{"memory":{{"limit":{memory},"swap":{both}}}}}"#);
        cgroup.update_oci(&parse(&text)).unwrap();
        let read = |name| read(&cgroup, name).unwrap().parse::<i64>().unwrap();
        let unlimited = i64::MAX / 4096 * 4096;
        let want = |bytes| if bytes <= 0 { unlimited } else { bytes };
        assert_eq!(read("memory.limit_in_bytes"), want(memory), "{text}");
        assert_eq!(read("memory.memsw.limit_in_bytes"), want(both), "{text}");
    }
    for (quota, period) in [(500_000, 1_000_000), (2_000, 1_000), (-1, 100_000)] {
        let text = format!(r#"{{"cpu":{{"quota":{quota},"period":{period}}}}}"#);
        cgroup.update_oci(&parse(&text)).unwrap();
        assert_eq!(read(&cgroup, "cpu.cfs_quota_us").unwrap(), quota.to_string());
        assert_eq!(read(&cgroup, "cpu.cfs_period_us").unwrap(), period.to_string());
    }
    let error = cgroup.update_oci(&parse(r#"{"unified":{"memory.max":"1"}}"#)).unwrap_err();
    assert_eq!(error.to_string(), "invalid configuration: cannot use unified on cgroup v1");
    let error = cgroup.update_oci(&parse(r#"{"network":{"classID":5}}"#));
    if !scratch.hierarchies.has("net_cls") {
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("this host has no cgroup controller `net_cls`"), "{error}");
    }
}

#[test]
fn a_group_that_is_in_use_is_refused_and_an_empty_one_taken() {
    if !writable() {
        return skip("cgroups are not writable here");
    }
    for (name, hierarchies) in layouts() {
        let scratch = Scratch::new(hierarchies);
        let path = scratch.path();
        let none = Resources::default();
        let create = |options: &CreateOptions| {
            Cgroup::create_oci(&scratch.hierarchies, &path, &none, options)
        };
        let first = create(&REUSE).unwrap();
        // somebody has prepared it
        let marked = scratch.hierarchies.has("pids");
        if marked {
            first.update_oci(&parse(r#"{"pids":{"limit":44}}"#)).unwrap();
            assert_eq!(read(&create(&REUSE).unwrap(), "pids.max").unwrap(), "44", "{name}");
            let anew = create(&CreateOptions::default()).unwrap();
            assert_eq!(read(&anew, "pids.max").unwrap(), "max", "{name}");
        }
        let cgroup = create(&REUSE).unwrap();
        cgroup.freeze().unwrap();
        let error = create(&REUSE).unwrap_err().to_string();
        assert_eq!(error, "container's cgroup unexpectedly frozen", "{name}");
        cgroup.thaw().unwrap();

        let mut child = shell();
        join(&child, &cgroup);
        for options in [REUSE, CreateOptions::default()] {
            let error = create(&options).unwrap_err().to_string();
            assert_eq!(error, "container's cgroup is not empty: 1 process(es) found", "{name}");
        }
        assert_eq!(cgroup.pids().unwrap(), [child.id()]);
        cgroup.kill().unwrap();
        child.wait().unwrap();
        cgroup.delete().unwrap();
    }
}

#[test]
fn what_fails_leaves_nothing_but_what_was_there() {
    if !writable() {
        return skip("cgroups are not writable here");
    }
    for (name, hierarchies) in layouts() {
        let scratch = Scratch::new(hierarchies);
        let path = scratch.path();
        let bad = parse(r#"{"devices":[{"allow":true,"type":"x","access":"r"}]}"#);
        let create = |resources: &Resources| {
            Cgroup::create_oci(&scratch.hierarchies, &path, resources, &REUSE)
        };
        create(&bad).unwrap_err();
        assert!(!scratch.exists(&path), "{name}");
        let prepared = create(&Resources::default()).unwrap();
        create(&bad).unwrap_err();
        assert!(scratch.exists(&path), "{name}");
        assert!(prepared.join().is_ok());
    }
}

#[test]
fn device_rules_are_replaced_and_not_added_up() {
    if !writable() || std::fs::File::open("/dev/kmsg").is_err() {
        return skip("cgroups or /dev/kmsg cannot be used here");
    }
    const TRIES: &str = "for i in null kmsg; do (exec 3</dev/$i) && echo -n $i; done; echo";
    for (name, hierarchies) in layouts() {
        let scratch = Scratch::new(hierarchies);
        let path = scratch.path();
        let deny = r#"{"devices":[{"allow":false,"access":"rwm"}]}"#;
        let cgroup = match Cgroup::create_oci(&scratch.hierarchies, &path, &parse(deny), &REUSE) {
            Err(CgroupError::Devices { cause, .. }) => {
                return skip(&format!("no BPF program for devices: {cause}"));
            }
            other => other.unwrap(),
        };
        let mut child = shell();
        join(&child, &cgroup);
        assert_eq!(ask(&mut child, TRIES), "null", "{name}");
        let kmsg = r#"{"devices":[{"allow":false,"access":"rwm"},
            {"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]}"#;
        let all = r#"{"devices":[{"allow":true,"access":"rwm"}]}"#;
        let all_but = r#"{"devices":[{"allow":true,"access":"rwm"},
            {"allow":false,"type":"c","major":1,"minor":11,"access":"rwm"}]}"#;
        for (rules, want) in [
            (kmsg, "nullkmsg"),
            (deny, "null"),
            (kmsg, "nullkmsg"),
            (all, "nullkmsg"),
            (all_but, "null"),
            (r#"{"pids":null}"#, "null"),
            (all, "nullkmsg"),
            (deny, "null"),
        ] {
            cgroup.update_oci(&parse(rules)).unwrap();
            assert_eq!(ask(&mut child, TRIES), want, "{name} {rules}");
        }
        if let Some(group) = cgroup.v2().filter(|_| name == "v2") {
            use std::os::fd::AsFd;
            let programs = bulkhead_sys::bpf::cgroup_device_programs(group.directory.fd.as_fd());
            assert_eq!(programs.unwrap().len(), 1);
        }
        cgroup.kill().unwrap();
        child.wait().unwrap();
        cgroup.delete().unwrap();
    }
}

#[test]
fn unified_files_are_written_on_v2() {
    if !writable() {
        return skip("cgroups are not writable here");
    }
    let Some((_, hierarchies)) = layouts().into_iter().find(|(name, _)| *name == "v2") else {
        return skip("no cgroup2 mount");
    };
    let scratch = Scratch::new(hierarchies);
    let path = scratch.path();
    let create = |text| Cgroup::create_oci(&scratch.hierarchies, &path, &parse(text), &REUSE);
    let cgroup =
        create(r#"{"unified":{"cgroup.max.depth":"5","cgroup.max.descendants":"7\n"}}"#).unwrap();
    assert_eq!(read(&cgroup, "cgroup.max.depth").unwrap(), "5");
    assert_eq!(read(&cgroup, "cgroup.max.descendants").unwrap(), "7");
    for (unified, want) in [
        (
            r#"{"unified":{"../cgroup.procs":"0"}}"#,
            "unified resource \"../cgroup.procs\" must be a file name (no slashes)",
        ),
        (
            r#"{"unified":{"absent":"0"}}"#,
            "unified resource \"absent\" must be in the form CONTROLLER.PARAMETER",
        ),
        (
            r#"{"unified":{"absent.max":"0"}}"#,
            "unified resource \"absent.max\" can't be set: controller \"absent\" not available",
        ),
    ] {
        let error = cgroup.update_oci(&parse(unified)).unwrap_err().to_string();
        assert!(error.starts_with(want), "{error}");
    }
    if !scratch.hierarchies.has("pids") {
        cgroup.update_oci(&parse(r#"{"pids":{"limit":-1}}"#)).unwrap();
        let error = cgroup.update_oci(&parse(r#"{"pids":{"limit":0}}"#)).unwrap_err().to_string();
        assert!(error.starts_with("this host has no cgroup controller `pids`"), "{error}");
    }
    let error = cgroup.update_oci(&parse(r#"{"unified":{"cgroup.max.depth":"x"}}"#)).unwrap_err();
    let error = error.to_string();
    assert!(error.starts_with("unable to set unified resource \"cgroup.max.depth\": "), "{error}");
}

#[test]
fn a_v2_group_is_given_away_with_the_files_that_may_be() {
    use std::os::unix::fs::MetadataExt;
    if !writable() {
        return skip("cgroups are not writable here");
    }
    for (name, hierarchies) in layouts() {
        let scratch = Scratch::new(hierarchies);
        let path = scratch.path();
        let options = CreateOptions { delegate_to: Some((12_345, 54_321)), ..REUSE };
        let none = Resources::default();
        let cgroup = Cgroup::create_oci(&scratch.hierarchies, &path, &none, &options).unwrap();
        for (controller, path) in cgroup.paths() {
            let owner = |file: &str| {
                let metadata = std::fs::metadata(format!("{path}/{file}")).unwrap();
                (metadata.uid(), metadata.gid())
            };
            let given = controller.is_empty() && scratch.hierarchies.mode() == HostMode::V2;
            let want = if given { (12_345, 54_321) } else { (0, 0) };
            assert_eq!(owner("."), want, "{name} {path}");
            assert_eq!(owner("cgroup.procs"), want, "{name} {path}");
            if given {
                assert_eq!(owner("cgroup.threads"), want);
                assert_eq!(owner("cgroup.freeze"), (0, 0));
            }
        }
        cgroup.delete().unwrap();
    }
}

#[test]
fn relative_paths_are_below_the_own_group() {
    if !writable() {
        return skip("cgroups are not writable here");
    }
    for (name, hierarchies) in layouts() {
        let v1 = hierarchies.mode() != HostMode::V2;
        let scratch = Scratch::new(hierarchies);
        let own = format!("{}/own", scratch.parent);
        let lines = scratch.hierarchies.all.iter().map(|it| match it.version {
            Version::V1 => format!("1:{}:{own}\n", it.controllers.join(",")),
            Version::V2 => format!("0::{own}\n"),
        });
        let text: String = lines.collect();
        let again = layouts().into_iter().find(|(it, _)| *it == name).unwrap().1;
        let hierarchies = again.seen_by(&text);
        let relative = format!("{}-relative", &scratch.parent[1..]);
        let path = oci_path(&format!("../../{relative}/x"), "id").unwrap();
        let none = Resources::default();
        let cgroup = Cgroup::create_oci(&hierarchies, &path, &none, &REUSE).unwrap();
        let hybrid_v2 = |controller: &str| controller.is_empty() && v1;
        for (controller, path) in cgroup.paths() {
            let want = match controller.as_str() {
                "" if hybrid_v2("") => format!("/{relative}/x"),
                "" => format!("{}/{relative}/x", scratch.parent),
                _ => format!("{own}/{relative}/x"),
            };
            assert!(path.ends_with(&want), "{name} {path} {want}");
        }
        assert!(Cgroup::open(&hierarchies, &path).unwrap().join().is_ok());
        cgroup.delete().unwrap();
        // the parent that lies at the root of v2
        Cgroup::open(&scratch.hierarchies, &format!("/{relative}")).unwrap().delete().unwrap();
    }
}

#[test]
fn a_process_joins_a_group_below() {
    if !writable() {
        return skip("cgroups are not writable here");
    }
    for (name, hierarchies) in layouts() {
        let scratch = Scratch::new(hierarchies);
        let path = scratch.path();
        let none = Resources::default();
        let create =
            |path: &str| Cgroup::create_oci(&scratch.hierarchies, path, &none, &REUSE).unwrap();
        let outer = create(&path);
        let mut child = shell();
        let pid = child.id().to_string();
        let enter = |join: Join| {
            for procs in &join.procs {
                rustix::io::write(procs, pid.as_bytes()).unwrap();
            }
            if let Some(directory) = &join.v2_dir {
                let procs = openat(directory, "cgroup.procs", OFlags::WRONLY, Mode::empty());
                rustix::io::write(procs.unwrap(), pid.as_bytes()).unwrap();
            }
        };
        enter(outer.sub_join(&["/"]).unwrap());
        // later, as a container that makes it: with one below, controllers are handed down
        let inner = create(&format!("{path}/sub"));
        assert!(inner.pids().unwrap().is_empty(), "{name}");
        enter(outer.sub_join(&["sub"]).unwrap());
        assert_eq!(inner.pids().unwrap(), [child.id()], "{name}");
        let of_process = Cgroup::of_process(&scratch.hierarchies, child.id()).unwrap();
        if scratch.hierarchies.all.iter().any(|it| it.version == Version::V2) {
            assert_eq!(of_process.paths()[""], inner.paths()[""]);
        }
        let error = outer.sub_join(&["absent"]).unwrap_err();
        assert!(matches!(error, CgroupError::Open { .. }), "{error}");
        let error = outer.sub_join(&["absent:/"]).unwrap_err().to_string();
        assert_eq!(error, "unknown controller absent in --cgroup");
        outer.kill().unwrap();
        child.wait().unwrap();
        outer.delete().unwrap();
    }
}

#[test]
fn without_privileges_hierarchies_are_left_out() {
    if !writable() {
        return skip("cgroups are not writable here");
    }
    for (name, hierarchies) in layouts() {
        let scratch = Scratch::new(hierarchies);
        let path = scratch.path();
        let has_pids = scratch.hierarchies.has("pids");
        let v2 = scratch.hierarchies.mode() == HostMode::V2;
        let results = std::thread::scope(|scope| {
            let unprivileged = || {
                // of this thread alone, and with it go the capabilities
                let user = rustix::process::Uid::from_raw(65_534);
                rustix::thread::set_thread_res_uid(user, user, user).unwrap();
                let create = |text: &str, rootless| {
                    let options = CreateOptions { rootless, ..REUSE };
                    Cgroup::create_oci(&scratch.hierarchies, &path, &parse(text), &options)
                };
                let limits = r#"{"pids":{"limit":5}}"#;
                (create("{}", true), create(limits, true), create("{}", false))
            };
            scope.spawn(unprivileged).join().unwrap()
        });
        let (free, limited, strict) = results;
        let free = free.unwrap();
        assert!(!free.exists() && free.join().unwrap().procs.is_empty(), "{name}");
        let error = limited.unwrap_err().to_string();
        if v2 {
            assert!(error.starts_with("rootless needs no limits + no cgrouppath"), "{error}");
        } else if has_pids {
            let want = "cannot set pids limit: container could not join or create cgroup";
            assert_eq!(error, want);
        }
        assert!(matches!(strict, Err(CgroupError::Create { .. })), "{name}");
    }
}

#[test]
fn stats_are_those_of_runc() {
    if !writable() {
        return skip("cgroups are not writable here");
    }
    for (name, hierarchies) in layouts() {
        let scratch = Scratch::new(hierarchies);
        let path = scratch.path();
        let none = Resources::default();
        let cgroup = Cgroup::create_oci(&scratch.hierarchies, &path, &none, &REUSE).unwrap();
        let mut child = shell();
        join(&child, &cgroup);
        assert_eq!(
            ask(&mut child, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo x"),
            "x"
        );
        let stats = cgroup.oci_stats().unwrap();
        assert!(stats["cpu"]["usage"]["total"].as_u64().unwrap() > 0, "{name} {stats}");
        let has = |controller| scratch.hierarchies.has(controller);
        if has("pids") {
            assert_eq!(stats["pids"], serde_json::json!({ "current": 1 }));
        }
        if has("memory") {
            assert!(stats["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{stats}");
        }
        if has("cpuset") && scratch.hierarchies.mode() != HostMode::V2 {
            assert_eq!(stats["cpuset"]["cpus"][0], 0);
        }
        cgroup.kill().unwrap();
        child.wait().unwrap();
        cgroup.delete().unwrap();
    }
}
