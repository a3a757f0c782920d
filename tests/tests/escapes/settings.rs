//! What a runtime writes to `/proc` for a container, and filters.

use anyhow::Result;
use bulkhead_tests::bundle::{Bundle, Runtime};
use serde_json::json;

use crate::{Attempt, stopped_here};

/// A volume lies in the place of `/proc`: what is written there for the container goes to its files,
/// or to whatever they are links to.
#[test]
fn cve_2019_16884_cve_2025_52881_writes_to_a_false_proc() -> Result<()> {
    stopped_here("CVE-2019-16884, CVE-2025-52881", Runtime::weakened("procfs"), |runtime| {
        let mut bundle = Bundle::new(&["true"])?;
        let (volume, canary) = (bundle.beside("volume"), bundle.beside("canary"));
        std::fs::create_dir_all(volume.join("sys/net/ipv4"))?;
        std::fs::write(&canary, "untouched")?;
        // within the container's root, so that it is found after the change of root
        let inside = bundle.rootfs().join("canary");
        std::fs::write(&inside, "untouched")?;
        std::os::unix::fs::symlink("/canary", volume.join("sys/net/ipv4/ip_forward"))?;
        bundle.without_mount("/proc");
        bundle.config["linux"]["maskedPaths"] = json!([]);
        bundle.config["linux"]["readonlyPaths"] = json!([]);
        bundle.mount(json!({ "destination": "/proc", "type": "bind", "source": volume,
            "options": ["rbind"] }));
        bundle.config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
        let said = runtime.run(&bundle)?;
        let found = std::fs::read_to_string(&inside)?;
        Ok(if found == "untouched" && std::fs::read_to_string(&canary)? == "untouched" {
            Attempt::Stopped(format!("status {}: {}", said.code, said.stderr.trim()))
        } else {
            Attempt::Escaped(format!("the canary holds {found:?}"))
        })
    })
}

/// crun 4f1f3d4c: two profiles that differ in one field only were one in its cache.
#[test]
fn filters_are_told_apart_by_every_field() -> Result<()> {
    let errors = [1, 95, 38].map(|errno| -> Result<String> {
        let mut bundle = Bundle::new(&["mkdir", "/tmp/refused"])?;
        bundle.config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO",
                "errnoRet": errno }],
        });
        Ok(Runtime::bulkhead().run(&bundle)?.stderr)
    });
    for (error, wanted) in errors.into_iter().zip(["not permitted", "not supported", "not impl"]) {
        let error = error?;
        assert!(error.contains(wanted), "{error}");
    }
    Ok(())
}

/// crun 1.29: the mode of a mount point was put on the root of what is mounted there.
#[test]
fn the_modes_of_mounted_roots_are_their_own() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let bundle = Bundle::new(&["stat", "-c", "%a", "/proc", "/sys"])?;
    for name in ["proc", "sys"] {
        let mode = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(bundle.rootfs().join(name), mode)?;
    }
    assert_eq!(Runtime::bulkhead().run(&bundle)?.ok()?, "555\n555");
    Ok(())
}

/// runc #5208: an exec of what ends at once did not return.
#[test]
fn an_exec_that_ends_at_once_returns() -> Result<()> {
    let bundle = Bundle::new(&["sleep", "1000"])?;
    let container = Runtime::bulkhead().start(&bundle)?;
    for _ in 0..30 {
        assert_eq!(container.exec(&["true"])?.code, 0);
        assert_eq!(container.exec(&["false"])?.code, 1);
    }
    Ok(())
}

/// crun 1.29.1: what was paused stayed frozen when a kill of it failed; on cgroup v1 what is frozen
/// does not die.
#[test]
fn a_paused_container_is_removed() -> Result<()> {
    let bundle = Bundle::new(&["sleep", "1000"])?;
    let container = Runtime::bulkhead().start(&bundle)?;
    let pid = container.state()?["pid"].as_u64().unwrap_or_default();
    container.say(&["pause", &container.id])?.ok()?;
    assert_eq!(container.state()?["status"], "paused");
    container.say(&["delete", "--force", &container.id])?.ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    assert!(status.is_empty() || status.contains("Z (zombie)"), "{status}");
    Ok(())
}

/// The order of joining: what belongs to a user namespace opens only from within.
#[test]
fn exec_joins_a_user_namespace_in_order() -> Result<()> {
    let mut bundle = Bundle::new(&["sleep", "1000"])?;
    bundle.map_users(2_000_000_000);
    let line = format!("chown -R 2000000000:2000000000 {}", bundle.rootfs().display());
    bulkhead_tests::run(std::process::Command::new("sh").args(["-c", &line]))?.ok()?;
    let container = Runtime::bulkhead().start(&bundle)?;
    let ids = "id -u; for n in user pid mnt net ipc uts; do \
               [ $(readlink /proc/self/ns/$n) = $(readlink /proc/1/ns/$n) ] || echo $n; done";
    assert_eq!(container.exec(&["sh", "-c", ids])?.ok()?, "0");
    Ok(())
}
