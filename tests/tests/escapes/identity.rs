//! Who a process is, and what it may do.

use anyhow::Result;
use bulkhead_tests::bundle::{Bundle, Runtime};
use serde_json::json;

use crate::{Attempt, stopped_here};

/// `exec --cap` made capabilities inheritable: a file of the image could take them up.
#[test]
fn cve_2022_29162_inheritable_capabilities() -> Result<()> {
    stopped_here("CVE-2022-29162, CVE-2025-27612", Runtime::weakened("inheritable"), |runtime| {
        let bundle = Bundle::new(&["sleep", "1000"])?;
        let container = runtime.start(&bundle)?;
        let words = [
            "exec",
            "--cap",
            "CAP_NET_ADMIN",
            &container.id,
            "grep",
            "CapInh",
            "/proc/self/status",
        ];
        let found = container.say(&words)?.ok()?;
        let first = container.exec(&["grep", "CapInh", "/proc/1/status"])?.ok()?;
        Ok(if found.ends_with("0000000000000000") && first.ends_with("0000000000000000") {
            Attempt::Stopped(found)
        } else {
            Attempt::Escaped(found)
        })
    })
}

/// `exec -u 1` became root.
#[test]
fn cve_2026_30892_user_by_slip() -> Result<()> {
    stopped_here("CVE-2026-30892", Runtime::weakened("user"), |runtime| {
        let bundle = Bundle::new(&["sleep", "1000"])?;
        let container = runtime.start(&bundle)?;
        let mut refused = 0;
        for user in ["1", "", ":", "1:", ":1", "1:2", "-1", "4294967296", "4294967295", "+0", "0x0"]
        {
            let said = container.say(&["exec", "-u", user, &container.id, "id", "-u"])?;
            if said.code == 0 && said.stdout.trim() == "0" {
                return Ok(Attempt::Escaped(format!("{user:?} is root")));
            }
            refused += usize::from(said.code != 0);
        }
        Ok(Attempt::Stopped(format!("none of 11 is root, {refused} are refused")))
    })
}

/// With the host's cgroup namespace a container sees, and must not move within, the host's cgroups.
#[test]
fn cve_2023_25809_cgroups_of_the_host() -> Result<()> {
    let attack = |mapped: bool| -> Result<String> {
        let line = "for f in /sys/fs/cgroup/*/notify_on_release /sys/fs/cgroup/*/cgroup.procs; do \
                    (: >> $f) 2>/dev/null && echo open; done; echo end";
        let mut bundle = Bundle::new(&["sh", "-c", line])?;
        bundle.mount(json!({ "destination": "/sys/fs/cgroup", "type": "cgroup",
            "source": "cgroup", "options": ["nosuid", "noexec", "nodev"] }));
        if let Some(namespaces) = bundle.config["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|it| it["type"] != "cgroup");
        }
        if mapped {
            bundle.map_users(2_000_000_000);
        }
        Runtime::bulkhead().run(&bundle)?.ok()
    };
    assert_eq!(attack(true)?, "end", "a user namespace without a cgroup namespace");
    // the host's own root is asked for here, and may
    assert!(attack(false)?.contains("open"));
    Ok(())
}

/// Lists so long that another codec lost count of them.
#[test]
fn cve_2021_43784_many_mappings() -> Result<()> {
    let run = |count: u32| {
        let mut bundle = Bundle::new(&["cat", "/proc/self/uid_map"])?;
        bundle.map_users(0);
        let maps: Vec<_> = (0..count)
            .map(|at| json!({ "containerID": at, "hostID": 2_000_000_000 + at, "size": 1 }))
            .collect();
        bundle.config["linux"]["uidMappings"] = json!(maps);
        bundle.config["linux"]["gidMappings"] = json!(maps);
        Runtime::bulkhead().run(&bundle)
    };
    let few = run(100)?;
    assert_eq!(few.stdout.lines().count(), 100, "{}", few.stderr);
    let many = run(5000)?;
    assert!(many.code != 0 && many.stdout.is_empty(), "{}", many.stdout);
    assert!(many.stderr.contains("map"), "{}", many.stderr);
    Ok(())
}

/// runc #4041: processors that the caller keeps to are not the container's.
#[test]
fn the_callers_processors_are_not_inherited() -> Result<()> {
    let all = std::fs::read_to_string("/sys/devices/system/cpu/online")?;
    if all.trim() == "0" {
        bulkhead_sys::testing::skip("one processor only");
        return Ok(());
    }
    let bundle = Bundle::new(&["grep", "Cpus_allowed_list", "/proc/self/status"])?;
    let container = bulkhead_tests::bundle::Container::new(&Runtime::bulkhead(), &bundle)?;
    let mut command = std::process::Command::new("taskset");
    let runtime = Runtime::bulkhead().command(&bundle.beside("state"));
    command.args(["-c", "0"]).arg(runtime.get_program()).args(runtime.get_args());
    command.args(["run", "--bundle", &bundle.path().to_string_lossy(), &container.id]);
    let said = bulkhead_tests::run(&mut command)?.ok()?;
    assert_eq!(said.rsplit('\t').next(), Some(all.trim()), "{said}");
    Ok(())
}
