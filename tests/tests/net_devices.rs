//! `linux.netDevices` of an OCI bundle, and `linux.intelRdt` where there is no resctrl.

use std::process::Command;

use anyhow::{Result, ensure};
use bulkhead_sys::testing::skip;
use bulkhead_tests::rootfs::copy_program;
use bulkhead_tests::{Said, program, run};
use serde_json::{Value, json};

struct Bundle(tempfile::TempDir);

impl Bundle {
    fn new() -> Result<Self> {
        let here = bulkhead_tests::directory("bulkhead-test-")?;
        std::fs::create_dir_all(here.path().join("rootfs/bin"))?;
        std::fs::create_dir_all(here.path().join("rootfs/proc"))?;
        copy_program("/usr/bin/busybox".as_ref(), &here.path().join("rootfs/bin/busybox"))?;
        Ok(Self(here))
    }

    /// Runs a bundle in a network namespace that has a pair of links, `one` with an address, and says
    /// whether that one is outside afterwards.
    fn run(&self, shell: &str, namespaces: &[&str], linux: Value) -> Result<Said> {
        let kinds: Vec<_> = namespaces.iter().map(|kind| json!({ "type": kind })).collect();
        let mut config = json!({
            "ociVersion": "1.3.0",
            "root": { "path": "rootfs" },
            "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
            "process": { "cwd": "/", "args": ["/bin/busybox", "sh", "-c", shell] },
            "linux": linux,
        });
        config["linux"]["namespaces"] = json!(kinds);
        let user = namespaces.contains(&"user");
        if user {
            let ids = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
            config["linux"]["uidMappings"] = ids.clone();
            config["linux"]["gidMappings"] = ids;
        }
        std::fs::write(self.0.path().join("config.json"), config.to_string())?;
        let script = "set -e
            ip link add one type veth peer name other
            ip link set one up; ip link set other up; ip address add 192.0.2.1/24 dev one
            status=0; \"$BULKHEAD\" oci --cgroup-manager disabled --root oci run \"$NAME\" || status=$?
            ip -o link show | grep -c ' one@' | sed 's/^/outside: one /'
            exit $status";
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", script]).current_dir(self.0.path());
        command.env("BULKHEAD", program()).env("NAME", format!("net-{}", std::process::id()));
        run(&mut command)
    }
}

const SHOW: &str = "/bin/busybox ip -o address show | /bin/busybox grep -v fe80; \
                    /bin/busybox ip -o link show | /bin/busybox grep -c UP,";

#[test]
fn a_link_of_the_host_is_the_containers() -> Result<()> {
    let bundle = Bundle::new()?;
    let devices = |new: Value| json!({ "netDevices": { "one": new } });
    for (namespaces, new, name) in [
        (&["mount", "pid", "network"][..], json!({ "name": "eth7" }), "eth7"),
        (&["mount", "pid", "network"][..], json!({}), "one"),
        (&["mount", "pid", "network", "user"][..], json!({ "name": "lan%d" }), "lan0"),
    ] {
        let said = bundle.run(SHOW, namespaces, devices(new))?.ok()?;
        ensure!(said.contains(&format!(" {name}    inet 192.0.2.1/24 ")), "{said}");
        ensure!(said.contains("outside: one 0"), "{said}");
    }
    let without = bundle.run(SHOW, &["mount", "pid", "network"], json!({}))?;
    ensure!(!without.stdout.contains("192.0.2.1"), "the control has no link: {without:?}");
    Ok(())
}

#[test]
fn what_cannot_be_moved_is_an_error_of_one_line() -> Result<()> {
    let bundle = Bundle::new()?;
    let all = ["mount", "pid", "network"];
    for (namespaces, devices, want) in [
        (&all[..2], json!({ "one": {} }), "unable to move network devices without a NET namespace"),
        (&all[..], json!({ "none": {} }), "move netDevice none to namespace /proc/"),
        (&all[..], json!({ "none": {} }), "interface none does not exist"),
        (&all[..], json!({ "one": { "name": "lo" } }), "interface lo exists in the container's"),
        (&all[..], json!({ "one": { "name": "a b" } }), "invalid interface name \"a b\""),
    ] {
        let linux = json!({ "netDevices": devices });
        let said = bundle.run("true", namespaces, linux)?.expect(1, want)?;
        ensure!(said.stdout.contains("outside: one 1"), "it is where it was: {said:?}");
    }
    let left = std::fs::read_dir(bundle.0.path().join("oci"))?.count();
    ensure!(left == 0, "{left} containers are left");
    Ok(())
}

#[test]
fn without_resctrl_a_class_of_service_is_an_error() -> Result<()> {
    if std::fs::read_to_string("/proc/self/mountinfo")?.contains(" - resctrl ") {
        skip("resctrl is mounted");
        return Ok(());
    }
    let linux = json!({ "intelRdt": { "closID": "gold" } });
    let said = Bundle::new()?.run("true", &["mount", "pid", "network"], linux)?;
    said.expect(1, "intelRdt is specified in config, but Intel RDT is not enabled")?;
    Ok(())
}
