//! `bulkhead ns`: nested pid namespaces, and OCI containers that share.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use bulkhead_sys::process::{CLONE_NEWPID, CLONE_NEWUSER, Child, clone3};
use bulkhead_tests::rootfs::copy_program;
use bulkhead_tests::{Daemon, program, run};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use serde_json::{Value, json};

/// A process that ends with the test; ending process 1 of a namespace ends all in it.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.0.pidfd, Signal::KILL);
        let _ = waitid(WaitId::PidFd(self.0.pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}

/// Two pid namespaces, one in the other, each with a process that waits for its end.
fn nested() -> Result<Ended> {
    let (mut read, write) = std::io::pipe()?;
    // system calls only: other threads of the test may hold locks
    let outer = clone3(CLONE_NEWUSER | CLONE_NEWPID, None, || {
        let inner = clone3(CLONE_NEWPID, None, || {
            let _ = rustix::io::write(&write, b"x");
            wait_for_ever()
        });
        match inner {
            Ok(_) => wait_for_ever(),
            Err(errno) => errno.raw_os_error(),
        }
    })?;
    let outer = Ended(outer);
    drop(write);
    read.read_exact(&mut [0]).context("the inner process has not begun")?;
    Ok(outer)
}

fn wait_for_ever() -> i32 {
    loop {
        let _ = rustix::event::poll(&mut [], None);
    }
}

fn inode(pid: u32, kind: &str) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(std::fs::metadata(format!("/proc/{pid}/ns/{kind}"))?.ino())
}

fn picture(root: &Path) -> Result<(Value, String)> {
    let said = |format: &str| {
        let mut command = Command::new(program());
        command.args(["ns", "--all", "--host", "/nonexistent/socket", "--format", format]);
        run(command.arg("--oci-root").arg(root))?.ok()
    };
    Ok((serde_json::from_str(&said("json")?)?, said("text")?))
}

fn with_inode(list: &Value, inode: u64) -> Result<&Value> {
    let mut list = list.as_array().into_iter().flatten();
    list.find(|it| it["inode"] == inode).with_context(|| format!("{inode} is not shown"))
}

#[test]
fn nested_pid_namespaces_are_a_tree() -> Result<()> {
    let empty = tempfile::tempdir()?;
    let outer = nested()?;
    let pid = outer.0.pid;
    let (json, text) = picture(empty.path())?;
    let own = inode(std::process::id(), "pid")?;
    let shown = with_inode(&json["pidNamespaces"], inode(pid, "pid")?)?;
    ensure!(shown["parent"] == own && shown["processes"] == 1, "{shown}");
    ensure!(shown["userNamespace"] == inode(pid, "user")?, "{shown}");
    ensure!(shown["firstProcess"]["pids"] == json!([pid, 1]), "{shown}");
    let inner = json["pidNamespaces"].as_array().into_iter().flatten();
    let inner: Vec<_> = inner.filter(|it| it["parent"] == shown["inode"]).collect();
    ensure!(inner.len() == 1, "{json}");
    let pids = &inner[0]["firstProcess"]["pids"];
    ensure!(pids[1] == 2 && pids[2] == 1 && pids[0].as_u64().is_some(), "{pids}");
    let user = with_inode(&json["userNamespaces"], inode(pid, "user")?)?;
    ensure!(user["parent"] == inode(std::process::id(), "user")? && user["processes"] == 2);
    ensure!(user["uidMappings"] == json!([]), "nobody has written any: {user}");
    ensure!(text.contains(&format!(" is {pid} → 1, owned by user namespace ")), "{text}");
    ensure!(text.contains(&format!(" is {} → 2 → 1, owned by", pids[0])), "{text}");
    ensure!(text.contains("Note: containers of the engine have no names here"), "{text}");
    Ok(())
}

#[test]
fn containers_that_share_are_named() -> Result<()> {
    let here = bulkhead_tests::directory("bulkhead-test-")?;
    let root = here.path().join("oci");
    let oci = |arguments: &[&str]| {
        let mut command = Command::new(program());
        command.args(["oci", "--cgroup-manager", "disabled", "--root"]).arg(&root);
        run(command.args(arguments))
    };
    // the container keeps its streams, so that pipes would not end
    let create = |bundle: &str, name: &str| -> Result<()> {
        let log = here.path().join("log");
        let mut command = Command::new(program());
        command.args(["oci", "--cgroup-manager", "disabled", "--log"]).arg(&log);
        command.arg("--root").arg(&root).args(["create", "--bundle", bundle, name]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.status()?;
        ensure!(status.success(), "{}", std::fs::read_to_string(&log)?);
        Ok(())
    };
    let bundle = |name: &str, namespaces: Value| -> Result<String> {
        let bundle = here.path().join(name);
        std::fs::create_dir_all(bundle.join("rootfs/bin"))?;
        copy_program("/usr/bin/busybox".as_ref(), &bundle.join("rootfs/bin/busybox"))?;
        let config = json!({
            "ociVersion": "1.0.2",
            "root": { "path": "rootfs" },
            "process": { "args": ["/bin/busybox", "sleep", "1000"], "cwd": "/" },
            "linux": { "namespaces": namespaces },
        });
        std::fs::write(bundle.join("config.json"), config.to_string())?;
        Ok(bundle.display().to_string())
    };
    let (one, two) = (format!("one-{}", std::process::id()), format!("two-{}", std::process::id()));
    let end = |name: &str| oci(&["delete", "--force", name]).and_then(|said| said.ok());
    let tested = (|| {
        let kinds = ["mount", "pid", "network", "ipc", "uts", "cgroup"];
        let first = bundle("one", kinds.map(|kind| json!({ "type": kind })).into_iter().collect())?;
        create(&first, &one)?;
        let state: Value = serde_json::from_str(&oci(&["state", &one])?.ok()?)?;
        let pid = state["pid"].as_u64().context("no pid")? as u32;
        let of = |file: &str| format!("/proc/{pid}/ns/{file}");
        let second = bundle(
            "two",
            json!([
                { "type": "mount" }, { "type": "pid", "path": of("pid") },
                { "type": "network", "path": of("net") }, { "type": "uts" },
            ]),
        )?;
        create(&second, &two)?;
        let (json, text) = picture(&root)?;
        let containers = json["containers"].as_array().context("no list")?;
        ensure!(containers.len() == 2, "{json}");
        let [first, second] = [0, 1].map(|at| &containers[at]["namespaces"]);
        for kind in ["pid", "net"] {
            ensure!(first[kind]["sharedWith"] == json!([two]), "{kind}: {first}");
            ensure!(second[kind]["sharedWith"] == json!([one]), "{kind}: {second}");
        }
        for kind in ["mnt", "uts"] {
            let own = |it: &Value| it[kind]["host"] == false && it[kind]["sharedWith"] == json!([]);
            ensure!(own(first) && own(second), "{kind}: {first} {second}");
        }
        for kind in ["user", "time"] {
            ensure!(first[kind]["host"] == true && second[kind]["host"] == true, "{kind}");
        }
        ensure!(first["ipc"]["host"] == false && second["ipc"]["host"] == true, "{second}");
        ensure!(containers[0]["source"] == "oci" && containers[0]["pid"] == pid, "{json}");
        let shown = with_inode(&json["pidNamespaces"], inode(pid, "pid")?)?;
        ensure!(shown["processes"] == 2, "both live in it: {shown}");
        ensure!(text.contains(&format!("  {one}, {two}, 2 processes")), "{text}");
        Ok(())
    })();
    // what shares goes before what it shares
    let ended = [end(&two), end(&one)];
    tested?;
    for result in ended {
        result?;
    }
    Ok(())
}

#[test]
fn the_engines_containers_have_their_names() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let said = daemon.shell(
        "set -e; $BULKHEAD run -d --name web box sleep 1000 >/dev/null
         $BULKHEAD run -d --name side --net container:web --pid container:web box sleep 1000 >/dev/null
         $BULKHEAD ns --format json --oci-root \"$HERE/none\"",
    )?;
    let json: Value = serde_json::from_str(&said.ok()?)?;
    let containers = json["containers"].as_array().context("no list")?;
    let named = |name: &str| {
        let found = containers.iter().find(|it| it["name"] == name && it["source"] == "engine");
        found.map(|it| &it["namespaces"]).with_context(|| format!("{name} is not shown: {json}"))
    };
    let (web, side) = (named("web")?, named("side")?);
    for kind in ["net", "pid", "user"] {
        ensure!(web[kind]["sharedWith"] == json!(["side"]), "{kind}: {web}");
        ensure!(side[kind]["inode"] == web[kind]["inode"], "{kind}: {side}");
    }
    for kind in ["mnt", "uts", "ipc"] {
        ensure!(web[kind]["sharedWith"] == json!([]) && web[kind]["host"] == false, "{web}");
    }
    let inode = web["user"]["inode"].as_u64().context("no inode")?;
    let users = with_inode(&json["userNamespaces"], inode)?;
    ensure!(users["uidMappings"][0]["size"] == 262_144, "{users}");
    daemon.bulkhead(&["rm", "-f", "side", "web"])?.ok()?;
    Ok(())
}

#[test]
fn without_root_it_says_what_is_not_seen() -> Result<()> {
    let here = tempfile::tempdir()?;
    let copy = here.path().join("bulkhead");
    copy_program(&program(), &copy)?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(here.path(), open)?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]);
    let said = run(command.arg(&copy).args(["ns", "--host", "/nonexistent/socket"]))?.ok()?;
    ensure!(said.contains("run as root to see all"), "{said}");
    ensure!(said.starts_with("PID NAMESPACES\n") && said.contains("  the host's, "), "{said}");
    let root = run(Command::new(&copy).args(["ns", "--host", "/nonexistent/socket"]))?.ok()?;
    ensure!(!root.contains("run as root"), "the control sees all: {root}");
    Ok(())
}

#[test]
fn links_are_shown_with_both_ends() -> Result<()> {
    let daemon = Daemon::start()?;
    daemon.busybox("box")?;
    let line = "set -e; A=bh-n-$$; trap 'ip netns delete $A' EXIT; ip netns add $A
        $BULKHEAD run -d --name web -p 8080:80 box sleep 1000 >/dev/null
        $BULKHEAD netns veth v0 v1 --to $A --addr 10.79.0.1/24
        $BULKHEAD ns --net --oci-root \"$HERE/none\"; $BULKHEAD ns --net --format json --oci-root \"$HERE/none\"
        $BULKHEAD rm -f web >/dev/null";
    let said = daemon.shell(line)?.ok()?;
    let (text, json) = said.split_once("\n{\n").context("text, then JSON")?;
    let json: Value = serde_json::from_str(&format!("{{\n{json}"))?;
    let namespaces = json["namespaces"].as_array().context("no list")?;
    let with = |field: &str, what: Value| {
        let found = namespaces.iter().find(|it| match &it[field] {
            Value::Array(all) => all.contains(&what),
            one => *one == what,
        });
        found.with_context(|| format!("{field} {what} is not in {json}"))
    };
    let (host, web) = (with("host", json!(true))?, with("containers", json!("web"))?);
    let link = |namespace: &Value, name: &str| {
        let links = namespace["links"].as_array().into_iter().flatten();
        links.into_iter().find(|it| it["name"] == name).cloned().with_context(|| name.to_owned())
    };
    let eth0 = link(web, "eth0")?;
    ensure!(eth0["peer"]["inode"] == host["inode"], "{eth0}");
    let other = link(host, eth0["peer"]["link"].as_str().context("no name")?)?;
    ensure!(other["bridge"] == "bhtest0" && other["peer"]["inode"] == web["inode"], "{other}");
    ensure!(
        web["ports"] == json!(["0.0.0.0:8080 → 80/tcp"])
            || web["ports"].as_array().is_some_and(|all| !all.is_empty()),
        "{web}"
    );
    let v0 = link(host, "v0")?;
    ensure!(
        v0["addresses"].as_array().is_some_and(|all| all.contains(&json!("10.79.0.1/24"))),
        "{v0}"
    );
    ensure!(v0["peer"]["link"] == "v1", "{v0}");
    for part in [
        "  bhtest0  bridge",
        "── eth0 in web",
        "port 0.0.0.0:8080 → 80/tcp",
        "── v1 in netns bh-n-",
    ] {
        ensure!(text.contains(part), "{part:?} is not in\n{text}");
    }
    Ok(())
}

#[test]
fn other_programs_are_shown_when_all_is_asked() -> Result<()> {
    let empty = tempfile::tempdir()?;
    let outer = nested()?;
    let wanted = inode(outer.0.pid, "pid")?.to_string();
    let shown = |more: &[&str]| {
        let mut command = Command::new(program());
        command.args(["ns", "--host", "/nonexistent/socket", "--oci-root"]).arg(empty.path());
        run(command.args(more))?.ok()
    };
    let (some, all) = (shown(&[])?, shown(&["--all"])?);
    ensure!(!some.contains(&wanted) && some.contains("of other programs are not shown"), "{some}");
    ensure!(all.contains(&wanted) && !all.contains("not shown: --all"), "{all}");
    Ok(())
}
