use std::os::unix::fs::MetadataExt;

use bulkhead_engine::{
    CgroupnsMode, Class, CreateExec, ExecView, HostConfig, IpcMode, LogQuery, NetworkMode, PidMode,
    SecurityOptions, Started, Status, Stopped, Streams, TmpfsOptions, UsernsMode, UtsMode,
    WaitCondition,
};
use bulkhead_failpoint::{Action, arm, reached};
use bulkhead_types::{BuildStep, StepNetwork};

use crate::rig::{Rig, read_output, send};

fn both() -> LogQuery {
    LogQuery { stdout: true, stderr: true, ..LogQuery::default() }
}

pub async fn a_program_runs_and_its_output_is_kept(rig: &mut Rig) {
    let (_, mut events) = rig.engine.events(None);
    let (code, output) =
        rig.run(Rig::script("one", "echo out; echo err >&2; cat /missing; exit 3")).await;
    assert_eq!(code, 3);
    for text in ["out\n", "err\n", "No such file"] {
        assert!(output.contains(text), "{output}");
    }
    let container = rig.engine.container("one").unwrap();
    assert_eq!((container.state.status, container.state.exit_code), (Status::Exited, 3));
    assert!(container.state.started_at < container.state.finished_at);
    assert_eq!(container.state.pid, 0);
    assert_eq!(rig.log("one", LogQuery { stderr: false, ..both() }).await, "out\n");
    assert!(rig.log("one", both()).await.contains("err\n"));
    let mut actions = Vec::new();
    while let Ok(event) = events.try_recv() {
        let name = if event.kind == "network" { "bridge" } else { "one" };
        assert_eq!(event.attributes["name"], name);
        if event.action == "die" {
            assert_eq!(event.attributes["exitCode"], "3");
        }
        actions.push(event.action);
    }
    assert_eq!(actions, ["create", "attach", "connect", "start", "die", "disconnect"]);

    // Again, with what it wrote still there and the log going on.
    assert_eq!(rig.engine.start(rig.id("one")).await.unwrap(), Started::Now);
    rig.engine.wait(rig.id("one"), WaitCondition::NotRunning).unwrap().await.unwrap();
    assert_eq!(rig.log("one", LogQuery { stderr: false, ..both() }).await, "out\nout\n");
    rig.engine.remove(rig.id("one"), false, false).await.unwrap();
    assert_eq!(rig.engine.container("one").unwrap_err().message, "No such container: one");

    // Followed while it runs.
    rig.start(Rig::script("two", "for i in 1 2 3; do echo $i; sleep 0.05; done")).await;
    assert_eq!(rig.log("two", LogQuery { follow: true, ..both() }).await, "1\n2\n3\n");
    rig.done().await;
}

pub async fn a_container_is_isolated(rig: &mut Rig) {
    let mut create = Rig::script(
        "alone",
        "id -u; hostname; echo pid $$; cat /proc/self/uid_map; ip -o link | grep -c .; \
         ls /proc | grep -c '^[0-9]'; touch /proc/sys/kernel/x; head -c0 /proc/kcore; \
         cat /proc/self/status | grep -E 'CapEff|NoNewPrivs|Seccomp:'; echo $HOSTNAME $A; \
         ls /sys/fs/cgroup >/dev/null && stat -c %u /srv/data/seed; mkdir /own; ls -d /own",
    );
    create.config.hostname = "inside".into();
    create.config.env = vec!["A=b".into()];
    create.host.memory = 64 << 20;
    let (code, output) = rig.run(create).await;
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(code, 0, "{output}");
    assert_eq!(lines[..3], ["0", "inside", "pid 1"], "{output}");
    let first = rig.options.first_id.to_string();
    assert!(lines[3].split_whitespace().eq(["0", &first, "262144"]), "{output}");
    assert_eq!(lines[4], "2", "lo and eth0: {output}");
    assert!(output.contains("CapEff:\t00000000"), "{output}");
    assert!(output.contains("Seccomp:\t2"), "{output}");
    assert!(output.contains("inside b"), "{output}");
    assert!(output.contains("\n33\n/own\n"), "owners of the image are kept: {output}");
    // Outside nothing of it belongs to root.
    let id = rig.engine.container("alone").unwrap().id;
    let own = rig.options.data.join(format!("containers/{id}/upper/own"));
    assert_eq!(std::fs::metadata(own).unwrap().uid(), rig.options.first_id);

    let sleeper = rig.start(Rig::sleeper("outside")).await;
    // a program has no command line in the first moment of its execve(2)
    rig.ready("outside").await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", sleeper.state.pid)).unwrap();
    let range = sleeper.id_range.unwrap();
    assert!(status.contains(&format!("Uid:\t{0}\t{0}", range.first)), "{status}");
    assert_eq!(rig.engine.stats(rig.id("outside")).await.unwrap().networks.len(), 1);
    assert!(rig.engine.stats(rig.id("outside")).await.unwrap().pids >= 1);
    let (titles, rows) = rig
        .engine
        .top(rig.id("outside"), bulkhead_engine::Column::parse("").unwrap())
        .await
        .unwrap();
    assert_eq!(titles[7], "CMD");
    assert!(rows.iter().any(|row| row[7].starts_with("sh -c trap")), "{rows:?}");
    rig.engine.namespace(rig.id("outside"), "net").await.unwrap();
    rig.done().await;
}

pub async fn signals_stop_and_kill(rig: &mut Rig) {
    rig.start(Rig::sleeper("signalled")).await;
    rig.ready("signalled").await;
    let ended = rig.engine.wait(rig.id("signalled"), WaitCondition::NextExit).unwrap();
    assert_eq!(rig.engine.stop(rig.id("signalled"), None, None).await.unwrap(), Stopped::Now);
    assert_eq!(ended.await.unwrap(), 3, "the stop signal was handled");
    assert_eq!(rig.engine.stop(rig.id("signalled"), None, None).await.unwrap(), Stopped::Already);

    rig.start(Rig::script("stubborn", "trap '' TERM; echo ready; sleep 1000 & wait; wait")).await;
    rig.ready("stubborn").await;
    rig.engine.stop(rig.id("stubborn"), Some(0), None).await.unwrap();
    assert_eq!(rig.engine.container("stubborn").unwrap().state.exit_code, 137);

    rig.engine.start(rig.id("signalled")).await.unwrap();
    rig.engine.kill(rig.id("signalled"), "9").await.unwrap();
    assert_eq!(rig.engine.container("signalled").unwrap().state.exit_code, 137);
    let error = rig.engine.kill(rig.id("signalled"), "KILL").await.unwrap_err();
    assert_eq!(error.class, Class::Conflict);
    assert!(error.message.contains("is not running"), "{error}");
    assert_eq!(
        rig.engine.kill(rig.id("signalled"), "NOPE").await.unwrap_err().message,
        "invalid signal: NOPE"
    );

    rig.engine.restart(rig.id("signalled"), Some(0)).await.unwrap();
    assert_eq!(rig.engine.container("signalled").unwrap().state.status, Status::Running);
    let error = rig.engine.remove(rig.id("signalled"), false, false).await.unwrap_err();
    assert!(error.message.contains("stop the container before removing"), "{error}");
    rig.engine.rename(rig.id("signalled"), "renamed").await.unwrap();
    assert!(rig.engine.container("signalled").is_err());
    rig.engine.remove(rig.id("renamed"), true, false).await.unwrap();
    rig.done().await;
}

pub async fn pause_freezes(rig: &mut Rig) {
    rig.start(Rig::script("pp", "trap 'exit 4' TERM; while true; do echo x; sleep 0.01; done"))
        .await;
    let mut lines =
        rig.engine.logs(rig.id("pp"), LogQuery { follow: true, ..both() }).await.unwrap();
    lines.recv().await.unwrap().unwrap();
    rig.engine.pause(rig.id("pp")).await.unwrap();
    assert_eq!(rig.engine.container("pp").unwrap().state.status, Status::Paused);
    // What was written before the freeze may still be on its way; then nothing comes.
    let silence = std::time::Duration::from_millis(200);
    let drained = async { while lines.recv().await.is_some() {} };
    assert!(tokio::time::timeout(silence, drained).await.is_err());
    let quiet = tokio::time::timeout(silence, lines.recv()).await;
    assert!(quiet.is_err(), "a frozen container wrote {quiet:?}");
    let error = rig.engine.pause(rig.id("pp")).await.unwrap_err();
    assert!(error.message.contains("already paused"), "{error}");
    assert!(rig.engine.exec_create(rig.id("pp"), exec(&["true"])).await.is_err());
    rig.engine.unpause(rig.id("pp")).await.unwrap();
    lines.recv().await.unwrap().unwrap();
    rig.engine.pause(rig.id("pp")).await.unwrap();
    rig.engine.stop(rig.id("pp"), Some(1), None).await.unwrap();
    assert_eq!(rig.engine.container("pp").unwrap().state.status, Status::Exited);
    rig.done().await;
}

pub fn exec(command: &[&str]) -> CreateExec {
    CreateExec {
        cmd: command.iter().map(|word| (*word).to_owned()).collect(),
        attach_stdout: true,
        attach_stderr: true,
        ..CreateExec::default()
    }
}

/// Waits until an exec has an exit code.
pub async fn exec_end(rig: &Rig, id: &str) -> ExecView {
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let view = rig.engine.exec(id).await.unwrap();
        if view.exit_code.is_some() {
            return view;
        }
        assert!(std::time::Instant::now() < patience, "the exec has not ended: {view:?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

pub async fn commands_run_inside_a_running_container(rig: &mut Rig) {
    let mut create = Rig::sleeper("box");
    create.config.env = vec!["OWN=1".into()];
    rig.start(create).await;
    let mut command = exec(&["sh", "-c", "echo $OWN $MORE; id -un; ls -d /proc/1; exit 7"]);
    command.env = vec!["MORE=2".into()];
    command.user = "www".into();
    let id = rig.engine.exec_create(rig.id("box"), command).await.unwrap().to_string();
    let socket = rig.engine.exec_start(id.parse().unwrap(), false, (0, 0)).await.unwrap().unwrap();
    assert_eq!(read_output(socket, false).await, "1 2\nwww\n/proc/1\n");
    let ended = exec_end(rig, &id).await;
    assert_eq!((ended.exit_code, ended.running), (Some(7), false));
    assert!(rig.engine.exec_start(id.parse().unwrap(), false, (0, 0)).await.is_err(), "only once");

    let missing = rig.engine.exec_create(rig.id("box"), exec(&["nope"])).await.unwrap().to_string();
    let error = rig.engine.exec_start(missing.parse().unwrap(), false, (0, 0)).await.unwrap_err();
    assert!(error.message.contains("executable file not found"), "{error}");
    assert_eq!(rig.engine.exec(&missing).await.unwrap().exit_code, Some(127));

    let mut cat = exec(&["cat"]);
    cat.attach_stdin = true;
    let id = rig.engine.exec_create(rig.id("box"), cat).await.unwrap().to_string();
    let socket = rig.engine.exec_start(id.parse().unwrap(), false, (0, 0)).await.unwrap().unwrap();
    send(&socket, "through\n");
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_output(socket, false).await, "through\n");
    rig.done().await;
}

/// Waits for what another thread of the engine is about to do.
pub async fn one_that_goes_with_its_end_is_restarted(rig: &mut Rig) {
    let mut create = Rig::sleeper("goes");
    create.host.auto_remove = true;
    rig.start(create).await;
    rig.ready("goes").await;
    let id = rig.id("goes");
    let first = rig.engine.container("goes").unwrap().state.pid;
    rig.engine.restart(id, Some(0)).await.unwrap();
    let again = rig.engine.container("goes").unwrap();
    assert_eq!((again.id, again.state.status), (id, Status::Running));
    assert_ne!(again.state.pid, first);
    let removed = rig.engine.wait(id, WaitCondition::Removed).unwrap();
    rig.engine.stop(id, Some(0), None).await.unwrap();
    removed.await.unwrap();
    assert!(rig.engine.container("goes").is_err());
    rig.done().await;
}

pub async fn wait_for(condition: impl Fn() -> bool) {
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !condition() {
        assert!(std::time::Instant::now() < patience, "it did not happen within ten seconds");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

pub async fn a_terminal_and_stdin(rig: &mut Rig) {
    let mut create = Rig::script("term", "read line; tty; stty size; echo got $line $TERM");
    create.config.tty = true;
    create.config.open_stdin = true;
    create.config.stdin_once = true;
    rig.engine.create(create).await.unwrap();
    let streams = Streams { stdin: true, stdout: true, stderr: true, logs: false };
    let socket = rig.engine.attach(rig.id("term"), streams).await.unwrap();
    // Before the start it is kept for the start.
    let _ = rig.engine.resize(rig.id("term"), 31, 97).await;
    rig.engine.start(rig.id("term")).await.unwrap();
    send(&socket, "words\n");
    let output = read_output(socket, true).await;
    assert!(output.contains("/dev/pts/0\r\n") || output.contains("/dev/console\r\n"), "{output}");
    assert!(output.contains("31 97"), "{output}");
    assert!(output.contains("got words xterm"), "{output}");
    rig.done().await;
}

pub async fn files_come_from_binds_volumes_and_tmpfs(rig: &mut Rig) {
    let source = rig.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "bound").unwrap();
    std::os::unix::fs::chown(source.join("file"), Some(1000), Some(1000)).unwrap();
    let made = rig.path().join("made/by/engine");
    let mut create = Rig::script(
        "files",
        "cat /bound/file; stat -c ' %u' /bound/file; touch /bound/x 2>/dev/null || echo readonly; \
         touch /made/new; cat /srv/data/seed; stat -c %u /srv/data/seed; echo more > /srv/data/more; \
         mount | grep ' /scratch '; cat /etc/resolv.conf | grep -c nameserver; cat /anonymous/x; \
         mkdir /anonymous/y",
    );
    create.host.binds = vec![
        format!("{}:/bound:ro", source.display()).parse().unwrap(),
        format!("{}:/made", made.display()).parse().unwrap(),
        "data:/srv/data".parse().unwrap(),
    ];
    create.config.volumes = vec!["/anonymous".into()];
    create.host.tmpfs = [("/scratch".to_owned(), TmpfsOptions::parse("size=1m").unwrap())].into();
    let (code, output) = rig.run(create).await;
    assert_eq!(code, 0, "{output}");
    assert!(output.starts_with("bound 1000\n"), "{output}");
    assert!(output.contains("readonly\nfrom the image\n33\n"), "{output}");
    assert!(output.contains("size=1024k"), "{output}");
    assert_eq!(std::fs::metadata(made.join("new")).unwrap().uid(), 0, "root inside is root of it");
    // The volume outlives the container and is the same for the next.
    rig.engine.remove(rig.id("files"), false, true).await.unwrap();
    let volumes = rig.engine.volumes().list();
    assert_eq!(volumes.len(), 1, "the anonymous one went with its container");
    let mut again = Rig::script("again", "cat /data/more /data/seed");
    again.host.binds = vec!["data:/data:ro".parse().unwrap()];
    assert_eq!(rig.run(again).await, (0, "more\nfrom the image\n".to_owned()));
    let error = rig.engine.remove_volume("data", false).await.unwrap_err();
    assert!(error.message.contains("volume is in use"), "{error}");
    rig.engine.remove(rig.id("again"), false, false).await.unwrap();
    rig.engine.remove_volume("data", false).await.unwrap();
    assert!(!rig.options.data.join("volumes/data").exists());
    rig.done().await;
}

pub async fn namespaces_are_shared_on_request(rig: &mut Rig) {
    let names = "for kind in net pid ipc uts user cgroup; do readlink /proc/self/ns/$kind; done";
    let own: Vec<String> = ["net", "pid", "ipc", "uts", "user", "cgroup"]
        .iter()
        .map(|kind| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap())
        .map(|path| path.display().to_string())
        .collect();
    let (_, private) = rig.run(Rig::script("private", names)).await;
    let private: Vec<&str> = private.lines().collect();
    assert_eq!(private.len(), 6);
    for (inside, outside) in private.iter().zip(&own) {
        assert_ne!(inside, outside);
    }
    let mut host = Rig::script("host", names);
    host.host = HostConfig {
        network_mode: NetworkMode::Host,
        pid_mode: PidMode::Host,
        ipc_mode: IpcMode::Host,
        uts_mode: UtsMode::Host,
        userns_mode: UsernsMode::Host,
        cgroupns_mode: CgroupnsMode::Host,
        ..HostConfig::default()
    };
    let (_, shared) = rig.run(host).await;
    assert_eq!(shared.lines().collect::<Vec<_>>(), own);

    let target = rig.start(Rig::sleeper("target")).await;
    let mut joining =
        Rig::script("joining", &format!("{names}; ip -o addr show eth0; cat /etc/hosts"));
    joining.host.network_mode = NetworkMode::Container("target".into());
    joining.host.pid_mode = PidMode::Container("target".into());
    let (code, output) = rig.run(joining).await;
    assert_eq!(code, 0, "{output}");
    let of_target = |kind: &str| {
        let link = format!("/proc/{}/ns/{kind}", target.state.pid);
        std::fs::read_link(link).unwrap().display().to_string()
    };
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..2], [of_target("net"), of_target("pid")]);
    assert_ne!(lines[2], of_target("ipc"));
    assert_eq!(lines[4], of_target("user"));
    assert!(output.contains(&target.network.address().unwrap().to_string()), "{output}");

    // One that joins a container that has itself joined another is in the first one's network.
    let mut middle = Rig::sleeper("middle");
    middle.host.network_mode = NetworkMode::Container("target".into());
    let middle = rig.start(middle).await;
    assert_eq!(middle.host.network_mode, NetworkMode::Container(target.id.to_string()));
    rig.ready("middle").await;
    let mut last = Rig::script("last", "readlink /proc/self/ns/net; cat /etc/hosts");
    last.host.network_mode = NetworkMode::Container("middle".into());
    let (code, output) = rig.run(last).await;
    assert_eq!(code, 0, "{output}");
    assert!(output.starts_with(&of_target("net")), "{output}");
    assert!(output.contains(&target.network.address().unwrap().to_string()), "{output}");

    rig.done().await;
}

/// `--rm` waits for no flush of the disk, and `rm -f` for one.
pub async fn what_goes_with_its_end_waits_for_no_disk(rig: &mut Rig) {
    const FLUSH: &str = "store.sync";
    arm(FLUSH, Some(Action::Sleep));
    let mut create = Rig::script("gone", "echo hello");
    create.host.auto_remove = true;
    rig.engine.create(create).await.unwrap();
    let removed = rig.engine.wait(rig.id("gone"), WaitCondition::Removed).unwrap();
    rig.engine.start(rig.id("gone")).await.unwrap();
    assert_eq!(removed.await.unwrap(), 0);
    assert_eq!(reached(FLUSH), 0);
    arm(FLUSH, None);
    for (name, auto_remove, flushes) in [("kept", false, 1), ("temporary", true, 0)] {
        let mut create = Rig::sleeper(name);
        create.host.auto_remove = auto_remove;
        rig.start(create).await;
        arm(FLUSH, Some(Action::Sleep));
        rig.engine.remove(rig.id(name), true, false).await.unwrap();
        assert_eq!(reached(FLUSH), flushes, "{name}");
        arm(FLUSH, None);
        assert!(rig.engine.container(name).is_err());
    }
    rig.done().await;
}

pub async fn removed_by_itself(rig: &mut Rig) {
    for number in 0..5 {
        let mut create = Rig::script("gone", "echo $0");
        create.host.auto_remove = true;
        create.config.volumes = vec!["/v".into()];
        rig.engine.create(create).await.unwrap();
        let streams = Streams { stdout: true, stderr: true, ..Streams::default() };
        let socket = rig.engine.attach(rig.id("gone"), streams).await.unwrap();
        let removed = rig.engine.wait(rig.id("gone"), WaitCondition::Removed).unwrap();
        let started = std::time::Instant::now();
        rig.engine.start(rig.id("gone")).await.unwrap();
        assert_eq!(read_output(socket, false).await, "sh\n");
        assert_eq!(removed.await.unwrap(), 0);
        eprintln!("run {number}: {:?}", started.elapsed());
        assert!(rig.engine.containers().is_empty());
        assert!(rig.engine.volumes().list().is_empty());
    }
    rig.done().await;
    let left: Vec<_> = std::fs::read_dir(rig.options.data.join("containers")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

pub async fn build_steps_become_layers(rig: &mut Rig) {
    let image = rig.engine.images().find("busybox").unwrap();
    let layers = image.config.rootfs.diff_ids.clone();
    let step = |command: &str| BuildStep {
        arguments: vec!["sh".into(), "-c".into(), command.into()],
        environment: vec!["PATH=/bin".into(), "V=1".into()],
        working_directory: "/work/dir".into(),
        user: String::new(),
        network: StepNetwork::OfBuild,
        base: layers[0],
        layers: layers.clone(),
    };
    let (code, layer, output) = rig.step(step("echo building; echo $V > made; id -u")).await;
    assert_eq!((code, &*output), (0, "building\n0\n"));
    let layer = layer.expect("it changed something");
    let mut more = step("cat /work/dir/made; stat -c %u /work/dir/made; exit 9");
    more.layers.push(layer.diff_id);
    let (code, none, output) = rig.step(more).await;
    assert_eq!((code, none.is_none(), &*output), (9, true, "1\n0\n"));
    wait_for(|| rig.engine.info().containers == 0).await;
    assert!(rig.engine.containers().is_empty());
    rig.done().await;
}

pub async fn limits_hold(rig: &mut Rig) {
    let mut create = Rig::sleeper("limited");
    create.host.memory = 64 << 20;
    create.host.pids_limit = Some(7);
    rig.start(create).await;
    let stats = rig.engine.stats(rig.id("limited")).await.unwrap();
    assert_eq!((stats.memory_limit, stats.pids_limit), (64 << 20, 7));
    let mut greedy = Rig::script("greedy", "tail /dev/zero");
    greedy.host.memory = 16 << 20;
    greedy.host.memory_swap = 16 << 20;
    let (code, output) = rig.run(greedy).await;
    assert_eq!(code, 137, "{output}");
    assert!(rig.engine.container("greedy").unwrap().state.oom_killed);
    let mut forks = Rig::script("forks", "for i in 1 2 3 4 5 6 7 8 9; do sleep 100 & done; true");
    forks.host.pids_limit = Some(4);
    let (_, output) = rig.run(forks).await;
    assert!(output.contains("can't fork"), "{output}");
    rig.done().await;
}

pub async fn privileges_are_what_was_asked_for(rig: &mut Rig) {
    let show = "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; cat /proc/self/uid_map; \
                ls /dev; id -G; id -u";
    let mut privileged = Rig::script("privileged", show);
    privileged.host.privileged = true;
    let (code, output) = rig.run(privileged).await;
    assert_eq!(code, 0, "{output}");
    assert!(output.contains("Seccomp:\t0"), "{output}");
    assert!(output.contains("4294967295"), "the host's user namespace: {output}");
    assert!(output.contains("kmsg"), "the host's devices: {output}");

    let mut reduced = Rig::script("reduced", show);
    reduced.config.user = "www".into();
    reduced.host.cap_drop = vec!["ALL".into()];
    let options = vec!["no-new-privileges".into(), "seccomp=unconfined".into()];
    reduced.host.security_opt = SecurityOptions::parse(options).unwrap();
    reduced.host.group_add = vec!["77".into()];
    reduced.host.devices = vec![bulkhead_engine::DeviceRequest {
        host: "/dev/kmsg".into(),
        container: "/dev/log-of-kernel".into(),
        permissions: "r".into(),
    }];
    let (code, output) = rig.run(reduced).await;
    assert_eq!(code, 0, "{output}");
    for text in [
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t0",
        "log-of-kernel",
        "33 77\n33\n",
    ] {
        assert!(output.contains(text), "{text} is missing in {output}");
    }

    // Behind the default filter, which answers clone3(2) with ENOSYS: init forks by clone(2).
    let mut init = Rig::script("init", "sleep 0.01 & echo $$; readlink /proc/1/exe; exit 9");
    init.host.init = Some(true);
    init.host.readonly_rootfs = true;
    let (code, output) = rig.run(init).await;
    assert_eq!(code, 9, "{output}");
    assert_ne!(output.lines().next(), Some("1"), "{output}");
    rig.done().await;
}

pub async fn many_at_once(rig: &mut Rig) {
    let started = std::time::Instant::now();
    let runs = (0..20).map(|number| {
        let rig = &*rig;
        async move {
            let mut create = Rig::script(&format!("many{number}"), "ip -o -4 addr show eth0");
            create.host.auto_remove = true;
            let (code, output) = rig.run(create).await;
            assert_eq!(code, 0, "{output}");
            output
        }
    });
    let outputs = futures_util::future::join_all(runs).await;
    let addresses: std::collections::BTreeSet<&str> =
        outputs.iter().filter_map(|it| it.split_whitespace().nth(3)).collect();
    assert_eq!(addresses.len(), 20, "every container has an address of its own: {outputs:?}");
    eprintln!("20 containers at once: {:?}", started.elapsed());
    rig.done().await;
}
