//! Landlock by `--security-opt` and by an annotation of an OCI bundle.

use std::process::Command;

use anyhow::{Result, ensure};
use bulkhead_sys::testing::skip;
use bulkhead_tests::rootfs::copy_program;
use bulkhead_tests::{Daemon, program, run};
use serde_json::json;

fn is_missing() -> bool {
    let abi = bulkhead_sys::landlock::abi();
    if abi < 5 {
        skip(&format!("Landlock has ABI {abi} here, not 5"));
    }
    abi < 5
}

#[test]
fn a_security_option_restricts_a_container_and_what_is_executed_in_it() -> Result<()> {
    if is_missing() {
        return Ok(());
    }
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let write = "echo x >/tmp/x && echo wrote || echo sealed";
    for said in daemon.each_cli(&format!("$CLI run --rm box sh -c '{write}' 2>/dev/null"))? {
        ensure!(said.ok()? == "wrote", "the control can write");
    }
    let opt = "--security-opt landlock=ro:/,rw:/root";
    for said in daemon.each_cli(&format!(
        "set -e; $CLI run --rm {opt} box sh -c '{write}' 2>/dev/null
         $CLI run -d --name held {opt} box sleep 1000 >/dev/null
         $CLI exec held sh -c '{write}' 2>/dev/null
         $CLI exec held sh -c 'echo y >/root/y && cat /root/y'
         $CLI exec --privileged held sh -c '{write}' 2>/dev/null
         $CLI rm -f held >/dev/null"
    ))? {
        ensure!(said.ok()? == "sealed\nsealed\ny\nwrote");
    }
    let wrong = "$CLI create --security-opt landlock=write:/ box true";
    for said in daemon.each_cli(wrong)? {
        ensure!(said.code != 0 && said.stderr.contains("\"write:/\" is no word"), "{said:?}");
    }
    Ok(())
}

#[test]
fn an_annotation_restricts_a_bundle() -> Result<()> {
    if is_missing() {
        return Ok(());
    }
    let here = bulkhead_tests::directory("bulkhead-test-")?;
    std::fs::create_dir_all(here.path().join("rootfs/bin"))?;
    copy_program("/usr/bin/busybox".as_ref(), &here.path().join("rootfs/bin/busybox"))?;
    let root = here.path().join("oci");
    let said = |policy: Option<&str>, no_new_privileges: bool| {
        let config = json!({
            "ociVersion": "1.0.2",
            "root": { "path": "rootfs" },
            "process": {
                "cwd": "/",
                "noNewPrivileges": no_new_privileges,
                "args": ["/bin/busybox", "sh", "-c", "echo x >/new && echo wrote || echo sealed"],
            },
            "annotations": policy.map_or(json!({}), |it| json!({ "io.bulkhead.landlock": it })),
            "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid" }] },
        });
        std::fs::write(here.path().join("config.json"), config.to_string())?;
        let mut command = Command::new(program());
        command.args(["oci", "--cgroup-manager", "disabled", "--root"]).arg(&root);
        let name = format!("landlock-{}", std::process::id());
        run(command.args(["run", "--bundle"]).arg(here.path()).arg(name))
    };
    for no_new_privileges in [false, true] {
        ensure!(said(None, no_new_privileges)?.ok()? == "wrote", "the control can write");
        ensure!(said(Some("ro:/"), no_new_privileges)?.ok()? == "sealed");
    }
    said(Some("ro:relative"), false)?.expect(1, "needs an absolute path of the container")?;
    said(Some("rw:/none"), false)?.expect(1, "the path \"/none\" of the policy")?;
    Ok(())
}
