//! What callers count on that know crun and podman: annotations, `delete --regex`, the owners of
//! streams, what is said of mistakes.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use bulkhead_tests::bundle::{Bundle, Container, Runtime};
use bulkhead_tests::{Said, run};
use serde_json::json;

/// One call by somebody who is in the groups 7 and 8.
fn as_member(bundle: &Bundle, words: &[&str]) -> Result<Said> {
    let runtime = Runtime::bulkhead().command(&bundle.beside("state"));
    let mut command = Command::new("setpriv");
    command.args(["--groups", "7,8", "--"]).arg(runtime.get_program()).args(runtime.get_args());
    run(command.args(words))
}

#[test]
fn groups_of_the_caller_are_kept_where_that_is_asked_for() -> Result<()> {
    let show = ["grep", "Groups", "/proc/self/status"];
    let groups = |annotation: Option<&str>, mapped: bool| -> Result<String> {
        let mut bundle = Bundle::new(&show)?;
        bundle.config["process"]["user"]["additionalGids"] = json!([9]);
        if let Some(value) = annotation {
            bundle.config["annotations"] = json!({ "run.oci.keep_original_groups": value });
        }
        if mapped {
            bundle.map_users(2_000_000_000);
        }
        let container = Container::new(&Runtime::bulkhead(), &bundle)?;
        let path = bundle.path().to_string_lossy().into_owned();
        let said = as_member(&bundle, &["run", "--bundle", &path, &container.id])?.ok()?;
        Ok(said.trim_start_matches("Groups:").trim().to_owned())
    };
    assert_eq!(groups(None, false)?, "9");
    assert_eq!(groups(Some("0"), false)?, "9");
    assert_eq!(groups(Some("1"), false)?, "7 8");
    // they are in force, but have no name in the namespace
    assert_eq!(groups(Some("1"), true)?, "65534 65534");

    let mut bundle = Bundle::new(&["sleep", "1000"])?;
    bundle.config["annotations"] = json!({ "run.oci.keep_original_groups": "1" });
    let container = Runtime::bulkhead().start(&bundle)?;
    let said = as_member(&bundle, &[&["exec", &container.id], &show[..]].concat())?.ok()?;
    assert_eq!(said, "Groups:\t7 8");
    Ok(())
}

#[test]
fn what_hooks_say_goes_into_the_files_that_are_named() -> Result<()> {
    let hook = |name: &str| {
        let script = format!("echo {name} out; echo {name} err >&2");
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
    };
    // no descriptor of a file of the host is left to the container
    let mut bundle = Bundle::new(&["sh", "-c", "readlink /proc/self/fd/* | grep hooks; true"])?;
    let names = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
    let mut hooks: serde_json::Map<_, _> =
        names.iter().map(|name| ((*name).to_owned(), hook(name))).collect();
    // one of the image's own programs is not let into the host's file
    hooks.insert("startContainer".to_owned(), hook("startContainer"));
    bundle.config["hooks"] = hooks.into();
    let stderr = bundle.beside("hooks-err");
    bundle.config["annotations"] =
        json!({ "run.oci.hooks.stdout": "hooks-out", "run.oci.hooks.stderr": stderr });
    assert_eq!(Runtime::bulkhead().run(&bundle)?.ok()?, "");
    for (file, end) in [("hooks-out", "out"), ("hooks-err", "err")] {
        let text = std::fs::read_to_string(bundle.beside(file))?;
        let want: String = names.iter().map(|name| format!("{name} {end}\n")).collect();
        assert_eq!(text, want, "{file}");
    }

    // a container that waits for its start holds neither
    let container = Runtime::bulkhead().create(&bundle)?;
    let pid = &container.state()?["pid"];
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let target = std::fs::read_link(entry?.path())?;
        ensure!(!target.to_string_lossy().contains("hooks-"), "{}", target.display());
    }
    drop(container);

    bundle.config["annotations"] = json!({ "run.oci.hooks.stdout": "/nowhere/file" });
    let want = "open \"/nowhere/file\", which the annotation run.oci.hooks.stdout names";
    Runtime::bulkhead().run(&bundle)?.expect(1, want)?;
    Ok(())
}

#[test]
fn a_poststop_hook_that_fails_is_a_warning() -> Result<()> {
    let mut bundle = Bundle::new(&["true"])?;
    bundle.config["hooks"] = json!({ "poststop": [{ "path": "/bin/false" }, { "path": "/none" }] });
    let said = Runtime::bulkhead().run(&bundle)?;
    said.expect(0, "poststop hook failed with exit code 1, the container is removed even so")?
        .expect(0, "poststop hook failed, the container is removed even so")?;
    let left = std::fs::read_dir(bundle.beside("state"))?.count();
    assert_eq!(left, 0);
    Ok(())
}

#[test]
fn an_unknown_system_call_is_an_error_where_that_is_asked_for() -> Result<()> {
    let mut bundle = Bundle::new(&["echo", "runs"])?;
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        // the second is one of another architecture
        "syscalls": [{ "names": ["no_such_call", "s390_sthyi"], "action": "SCMP_ACT_ERRNO" }],
    });
    for (value, want) in [(None, "runs"), (Some("0"), "runs"), (Some("1"), "\"no_such_call\"")] {
        if let Some(value) = value {
            bundle.config["annotations"] = json!({ "run.oci.seccomp_fail_unknown_syscall": value });
        }
        let code = i32::from(value == Some("1"));
        Runtime::bulkhead().run(&bundle)?.expect(code, want)?;
    }
    bundle.config["linux"]["seccomp"]["syscalls"][0]["names"] = json!(["read", "s390_sthyi"]);
    bundle.config["linux"]["seccomp"]["syscalls"][0]["action"] = json!("SCMP_ACT_ALLOW");
    Runtime::bulkhead().run(&bundle)?.expect(0, "runs")?;
    Ok(())
}

#[test]
fn containers_are_deleted_by_a_regular_expression() -> Result<()> {
    let bundle = Bundle::new(&["sleep", "1000"])?;
    let other = Runtime::bulkhead().start(&bundle)?;
    let path = bundle.path().to_string_lossy().into_owned();
    for name in ["pod-1", "pod-2"] {
        other.say_to_nobody(&["run", "--detach", "--bundle", &path, name])?;
    }
    let ids = || -> Result<Vec<String>> {
        let listed = other.say(&["list", "--quiet"])?.ok()?;
        Ok(listed.lines().filter(|id| *id != other.id).map(str::to_owned).collect())
    };
    other.say(&["delete", "--regex", ""])?.expect(1, "an empty regular expression")?;
    other.say(&["delete", "--regex", "("])?.expect(1, "is not a regular expression")?;
    // of several that cannot be deleted each is named
    let said = other.say(&["delete", "--regex", "^pod-"])?;
    let said = said.expect(1, "cannot delete container pod-1 that is not stopped: running")?;
    said.expect(1, "cannot delete container pod-2 that is not stopped: running")?;
    assert_eq!(ids()?, ["pod-1", "pod-2"]);
    other.say(&["delete", "--force", "--regex", "^pod-[2-9]$"])?.ok()?;
    assert_eq!(ids()?, ["pod-1"]);
    other.say(&["delete", "--regex", "nothing"])?.ok()?;
    other.say(&["delete", "--force", "--regex", "pod"])?.ok()?;
    assert_eq!(ids()?, Vec::<String>::new());
    assert_eq!(other.state()?["status"], "running");
    Ok(())
}

/// Who asks for the state until there is one can call `start` then.
#[test]
fn a_container_that_is_being_made_has_no_state_yet() -> Result<()> {
    for _ in 0..10 {
        let bundle = Bundle::new(&["true"])?;
        let container = Container::new(&Runtime::bulkhead(), &bundle)?;
        let mut create = Runtime::bulkhead().command(&bundle.beside("state"));
        let path = bundle.path().to_string_lossy().into_owned();
        create.args(["create", "--bundle", &path, &container.id]);
        let mut create = create.stdout(Stdio::null()).spawn()?;
        let state = loop {
            let said = container.say(&["state", &container.id])?;
            if said.code == 0 {
                break serde_json::from_str::<serde_json::Value>(&said.stdout)?;
            }
            let said = said.expect(1, "container does not exist")?;
            ensure!(create.try_wait()?.is_none_or(|it| it.success()), "{said:?}");
        };
        assert_eq!(state["status"], "created", "{state}");
        container.say(&["start", &container.id])?.ok()?;
        ensure!(create.wait()?.success(), "create failed");
    }
    Ok(())
}

#[test]
fn streams_are_given_to_the_user() -> Result<()> {
    let mut bundle = Bundle::new(&["stat", "-L", "-c", "%u:%g", "/proc/self/fd/1"])?;
    bundle.config["process"]["user"] = json!({ "uid": 33, "gid": 44 });
    assert_eq!(Runtime::bulkhead().run(&bundle)?.ok()?, "33:44", "a pipe");

    let path = bundle.path().to_string_lossy().into_owned();
    let file = bundle.beside("file");
    std::fs::write(&file, "")?;
    let run = |stdin: Stdio, stdout: Stdio| -> Result<(u32, u32)> {
        let container = Container::new(&Runtime::bulkhead(), &bundle)?;
        let mut command = Runtime::bulkhead().command(&bundle.beside("state"));
        command.args(["run", "--bundle", &path, &container.id]);
        ensure!(command.stdin(stdin).stdout(stdout).status()?.success(), "run failed");
        let stat = std::fs::metadata(&file)?;
        Ok((stat.uid(), stat.gid()))
    };
    let null = std::fs::metadata("/dev/null")?.uid();
    assert_eq!(run(File::open(&file)?.into(), Stdio::null())?, (0, 0), "one that is only read");
    assert_eq!(run(Stdio::null(), File::create(&file)?.into())?, (33, 0), "one that is written");
    assert_eq!(std::fs::metadata("/dev/null")?.uid(), null);
    Ok(())
}

#[test]
fn an_option_that_cgroup2_does_not_know_is_an_error() -> Result<()> {
    let mut bundle = Bundle::new(&["echo", "runs"])?;
    let run = |bundle: &Bundle| {
        let container = Container::new(&Runtime::bulkhead(), bundle)?;
        let runtime = Runtime::bulkhead().command(&bundle.beside("state"));
        let mut command = Command::new("unshare");
        // with the flags of the host's mount, which one without would take from the whole host
        let view =
            "flags=$(sed -n 's/.* - cgroup2 [^ ]* r[ow],*//p' /proc/self/mountinfo | head -n 1)
            mount -t cgroup2 ${flags:+-o \"$flags\"} none /sys/fs/cgroup && exec \"$@\"";
        command.args(["--mount", "sh", "-c", view, "sh"]);
        command.arg(runtime.get_program()).args(runtime.get_args());
        command.args(["run", "--bundle", &bundle.path().to_string_lossy(), &container.id]);
        run(&mut command)
    };
    let mount = |option: &str| {
        json!({ "destination": "/sys/fs/cgroup", "type": "cgroup",
                "options": ["ro", "nosuid", option] })
    };
    bundle.mount(mount("nsdelegate"));
    run(&bundle)?.expect(0, "runs")?;
    bundle.without_mount("/sys/fs/cgroup").mount(mount("no_such_option"));
    run(&bundle)?.expect(1, "error mounting \"cgroup2\" to rootfs at \"/sys/fs/cgroup\"")?;
    Ok(())
}

#[test]
fn slips_on_the_command_line_of_exec_are_told() -> Result<()> {
    let bundle = Bundle::new(&["sleep", "1000"])?;
    let container = Runtime::bulkhead().start(&bundle)?;
    let said = container.say(&["exec", "--cap", "CAP_KIL", &container.id, "echo", "runs"])?;
    said.expect(0, "runs")?.expect(0, "capability CAP_KIL is not known here and is left out")?;
    let said = container.say(&["exec", "--cgroup", "a/../../b", &container.id, "true"])?;
    said.expect(1, "bad sub cgroup path: a/../../b: `.` and `..` components are not allowed")?;
    Ok(())
}
