use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use bulkhead_engine::{
    CreateNetwork, EndpointConfig, Engine, LogQuery, PortRequest, RestartPolicy, Status, Streams,
    WaitCondition,
};
use bulkhead_network::Protocol;

use bulkhead_failpoint::{Action, arm};

use crate::containers::wait_for;
use crate::rig::{Rig, options, read_output};

pub async fn a_running_container_survives_its_engine(rig: &mut Rig) {
    let mut create = Rig::script(
        "lives",
        "trap 'exit 6' TERM; echo before; while [ ! -e /go ]; do sleep 0.01; done; echo after; \
         sleep 1000 & wait",
    );
    create.host.port_bindings = vec![PortRequest {
        container_port: 80,
        protocol: Protocol::Tcp,
        host_address: Some(Ipv4Addr::LOCALHOST.into()),
        host_port: 0,
        last_host_port: None,
    }];
    let before = rig.start(create).await;
    let mut paused = Rig::sleeper("paused");
    paused.host.restart_policy = RestartPolicy::Always;
    rig.start(paused).await;
    rig.engine.pause(rig.id("paused")).await.unwrap();
    // A client's shell in it must not keep the next engine from opening.
    let command = |words: &[&str]| bulkhead_engine::CreateExec {
        cmd: words.iter().map(|word| (*word).to_owned()).collect(),
        ..bulkhead_engine::CreateExec::default()
    };
    let shell = command(&["sh", "-c", "sleep 1000"]);
    let shell = rig.engine.exec_create(rig.id("lives"), shell).await.unwrap().to_string();
    rig.engine.exec_start(shell.parse().unwrap(), true, (0, 0)).await.unwrap();
    rig.close().await;
    rig.open().await;
    let after = rig.engine.container("lives").unwrap();
    assert_eq!(after.state, before.state);
    assert_eq!(after.network, before.network);
    assert_eq!(rig.engine.container("paused").unwrap().state.status, Status::Paused);
    rig.engine.unpause(rig.id("paused")).await.unwrap();
    // Its port is still its own, its log goes on, and it can be stopped.
    let port = after.network.ports[0].host_port;
    assert!(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err());
    let query = LogQuery { stdout: true, stderr: true, follow: true, ..LogQuery::default() };
    let mut lines = rig.engine.logs(rig.id("lives"), query).await.unwrap();
    assert_eq!(lines.recv().await.unwrap().unwrap().text, b"before\n");
    let (_, rows) =
        rig.engine.top(rig.id("lives"), bulkhead_engine::Column::parse("").unwrap()).await.unwrap();
    assert!(rows.iter().any(|row| row[7] == "sleep 1000"), "the shell goes on: {rows:?}");
    let exec = rig
        .engine
        .exec_create(rig.id("lives"), command(&["touch", "/go"]))
        .await
        .unwrap()
        .to_string();
    rig.engine.exec_start(exec.parse().unwrap(), true, (0, 0)).await.unwrap();
    assert_eq!(lines.recv().await.unwrap().unwrap().text, b"after\n");
    rig.engine.stop(rig.id("lives"), None, None).await.unwrap();
    assert_eq!(rig.engine.container("lives").unwrap().state.exit_code, 6);
    rig.done().await;
}

pub async fn ends_that_nobody_saw_are_recorded(rig: &mut Rig) {
    let go = rig.path().join("go");
    std::fs::create_dir(&go).unwrap();
    let script = "while [ ! -e /signal/go ]; do sleep 0.01; done; exit 42";
    let mut pids = Vec::new();
    for (name, policy, auto_remove) in [
        ("plain", RestartPolicy::No, false),
        ("again", RestartPolicy::Always, false),
        ("removed", RestartPolicy::No, true),
    ] {
        let mut create = Rig::script(name, script);
        create.host.binds = vec![format!("{}:/signal", go.display()).parse().unwrap()];
        create.host.restart_policy = policy;
        create.host.auto_remove = auto_remove;
        pids.push(rig.start(create).await.state.pid);
    }
    rig.close().await;
    std::fs::write(go.join("go"), "").unwrap();
    let gone = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).is_err();
    wait_for(|| pids.iter().all(gone)).await;
    std::fs::remove_file(go.join("go")).unwrap();
    rig.open().await;
    let plain = rig.engine.container("plain").unwrap();
    assert_eq!((plain.state.status, plain.state.exit_code), (Status::Exited, 42));
    assert!(plain.network.address().is_none());
    wait_for(|| rig.engine.container("again").unwrap().state.status == Status::Running).await;
    assert!(rig.engine.container("removed").is_err());

    // The warden is gone, as after a reboot: nothing runs, and the policy starts again.
    let again = rig.engine.container("again").unwrap();
    rig.close().await;
    end_wardens(&rig.options.run);
    rig.open().await;
    wait_for(|| {
        let now = rig.engine.container("again").unwrap().state;
        now.status == Status::Running && now.pid != again.state.pid
    })
    .await;
    wait_for(|| gone(&again.state.pid)).await;
    rig.engine.remove(rig.id("again"), true, false).await.unwrap();
    rig.done().await;
}

pub async fn a_killed_warden_is_replaced(rig: &mut Rig) {
    let script = "trap 'echo last; exit 6' TERM; echo ready; while :; do sleep 1000 & wait; done";
    let before = rig.start(Rig::script("lives", script)).await;
    rig.ready("lives").await;
    let exec = bulkhead_engine::CreateExec {
        cmd: vec!["sleep".to_owned(), "1000".to_owned()],
        attach_stdout: true,
        ..bulkhead_engine::CreateExec::default()
    };
    let exec = rig.engine.exec_create(rig.id("lives"), exec).await.unwrap().to_string();
    let output =
        rig.engine.exec_start(exec.parse().unwrap(), false, (0, 0)).await.unwrap().unwrap();
    for time in ["once", "twice"] {
        let streams = Streams { logs: true, stdout: true, stderr: true, stdin: false };
        let attached = rig.engine.attach(rig.id("lives"), streams).await.unwrap();
        let warned = rig.engine.info().warnings;
        end_wardens(&rig.options.run);
        // whoever was attached sees an end; what was logged before came first
        assert_eq!(read_output(attached, false).await, "ready\n", "{time}");
        wait_for(|| {
            let warnings = rig.engine.info().warnings;
            warnings != warned && warnings.iter().any(|it| it.contains("took over 1 containers"))
        })
        .await;
        let after = rig.engine.container("lives").unwrap();
        assert_eq!((after.state.status, after.state.pid), (Status::Running, before.state.pid));
        let other = rig.run(Rig::script(time, "echo new; exit 4")).await;
        assert_eq!(other, (4, "new\n".to_owned()));
    }
    // An exec is not handed over: its client must not take the end of the output for a success.
    assert_eq!(read_output(output, false).await, "");
    assert_eq!(rig.engine.exec(&exec).await.unwrap().exit_code, Some(137));
    rig.engine.stop(rig.id("lives"), None, None).await.unwrap();
    let ended = rig.engine.container("lives").unwrap().state;
    assert_eq!((ended.status, ended.exit_code, &*ended.error), (Status::Exited, 6, ""));
    let query = LogQuery { stdout: true, ..LogQuery::default() };
    assert_eq!(rig.log("lives", query).await, "ready\nlast\n");
    rig.done().await;
}

pub async fn warden_and_engine_die_at_once(rig: &mut Rig) {
    let before = rig.start(Rig::sleeper("lost")).await;
    rig.close().await;
    end_wardens(&rig.options.run);
    rig.open().await;
    let after = rig.engine.container("lost").unwrap().state;
    assert_eq!((after.status, after.exit_code), (Status::Exited, 255));
    assert!(after.error.contains("warden"), "{}", after.error);
    wait_for(|| !std::fs::exists(format!("/proc/{}/cwd", before.state.pid)).unwrap()).await;
    assert_eq!(rig.run(Rig::script("new", "exit 4")).await.0, 4);
    rig.engine.start(rig.id("lost")).await.unwrap();
    assert_eq!(rig.engine.container("lost").unwrap().state.error, "");
    rig.done().await;
}

/// Ends the warden of this run directory, found by its command line; it is this test's own.
pub fn end_wardens(run: &Path) {
    end_processes(run, "warden");
}

/// Ends the processes of this kind that serve this run directory.
pub fn end_processes(run: &Path, kind: &str) {
    let wanted = run.display().to_string();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line);
        if !line.contains(&format!("\0{kind}\0")) || !line.contains(&wanted) {
            continue;
        }
        let pid: i32 = entry.file_name().to_string_lossy().parse().unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        rustix::process::pidfd_send_signal(&fd, rustix::process::Signal::KILL).unwrap();
        let mut ended = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut ended, None).unwrap();
    }
}

pub async fn orphans_are_removed(rig: &mut Rig) {
    rig.start(Rig::sleeper("kept")).await;
    let orphan = "f".repeat(64);
    let data = rig.options.data.clone();
    std::fs::create_dir_all(data.join(format!("containers/{orphan}/upper/deep"))).unwrap();
    std::fs::create_dir_all(data.join("volumes/orphan/_data")).unwrap();
    // One with `--rm`, of whose record a power cut has left nothing.
    let lost = data.join("containers").join("e".repeat(64));
    std::fs::create_dir_all(lost.join("upper")).unwrap();
    std::fs::set_permissions(&lost, std::fs::Permissions::from_mode(0o1700)).unwrap();
    let cgroups = || -> Vec<std::path::PathBuf> {
        let engine = &rig.engine.info().id[..12];
        let own = format!("{}/{engine}/{orphan}", rig.options.cgroup_parent);
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
        hierarchies
            .map(|it| it.path().join(&own))
            .filter(|it| it.parent().unwrap().exists())
            .collect()
    };
    let made = cgroups();
    assert!(!made.is_empty());
    made.iter().for_each(|path| std::fs::create_dir(path).unwrap());
    rig.close().await;
    rig.open().await;
    // No record and no removal names them, so nobody knows that they may go.
    assert!(!data.join("containers").join(&orphan).exists());
    assert!(data.join(format!("lost+found/container-{orphan}/upper/deep")).exists());
    assert!(!lost.exists());
    assert!(!data.join("volumes/orphan").exists());
    assert!(data.join("lost+found/volume-orphan/_data").exists());
    let warnings = rig.engine.info().warnings;
    assert!(
        warnings[0].contains("2 directories that no record knew were moved to"),
        "{warnings:?}"
    );
    assert!(made.iter().all(|path| !path.exists()));
    assert_eq!(rig.engine.container("kept").unwrap().state.status, Status::Running);
    let error = Engine::open(rig.options.clone()).await.unwrap_err();
    assert!(error.message.starts_with("another Bulkhead engine uses"), "{error}");
    rig.done().await;
}

/// The engine as a process that is killed at random moments while it creates, starts, stops and
/// removes: the next one always opens, and in the end nothing is left.
pub async fn a_killed_engine_is_repaired(rig: &mut Rig) {
    rig.close().await;
    for round in 0..12_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("--engine")
            .arg(rig.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "open", "round {round}");
        #[expect(
            clippy::disallowed_methods,
            reason = "the random moment, not a wait for an event"
        )]
        std::thread::sleep(std::time::Duration::from_millis(round * 23 % 150));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "it ended by itself: {status}");
    }
    rig.open().await;
    for container in rig.engine.containers() {
        let name = container.name.to_string();
        rig.engine.remove(rig.id(&name), true, true).await.unwrap();
    }
    // What it made works, on a machine that it has not worn out.
    let (code, output) = rig.run(Rig::script("after", "echo fine")).await;
    assert_eq!((code, output.as_str()), (0, "fine\n"));
    rig.engine.remove(rig.id("after"), false, false).await.unwrap();
    rig.done().await;
    let left: Vec<_> = std::fs::read_dir(rig.options.data.join("containers")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Where the engine passes on its way through a container's life.
const STEPS: &[&str] = &[
    "store.commit",
    "store.committed",
    "store.journal",
    "store.journaled",
    "directory.make",
    "start.files",
    "start.mounted",
    "start.cgroup",
    "start.created",
    "start.plugged",
    "start.started",
    "exit.unpublished",
    "exit.recorded",
    "exit.forget",
    "container.removal-recorded",
    "directory.remove",
    "network.recorded",
    "connect.plugged",
    "disconnect.recorded",
    "network.bridge-removed",
];

/// The engine as a process that dies at each of them: nothing is lost, left or moved aside.
pub async fn an_engine_killed_at_any_step_is_repaired(rig: &mut Rig) {
    rig.close().await;
    for step in STEPS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("--engine")
            .arg(rig.path())
            .env(bulkhead_failpoint::VARIABLE, format!("{step}:kill:3"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "{step}: it ended by itself: {status}");
        rig.open().await;
        // A network has its bridge, whatever its engine died at, and those that went have none.
        let own = || rig.engine.networks().into_iter().filter(|network| !network.is_predefined());
        let links = || std::fs::read_to_string("/proc/net/dev").unwrap();
        let names = own().map(|view| view.network.unwrap().link_name());
        let names: Vec<String> = names.collect();
        assert_eq!(links().matches("br-").count(), names.len(), "{step}: {names:?}");
        assert!(names.iter().all(|name| links().contains(name)), "{step}: {names:?}");
        assert!(!links().contains("bh-gone"), "{step}: {}", links());
        let left: Vec<_> = rig.engine.containers();
        let data = rig.options.data.clone();
        let listed = |name: &str| std::fs::read_dir(data.join(name)).unwrap().count();
        for container in left {
            let name = container.name.to_string();
            let state = rig.engine.container(&name).unwrap().state;
            if state.status == Status::Exited {
                assert!([137, 255].contains(&state.exit_code), "{step}: {state:?}");
                // Nothing of its last life is in the way of the next.
                rig.engine
                    .start(rig.id(&name))
                    .await
                    .unwrap_or_else(|error| panic!("{step}: {error}"));
            }
            rig.engine.remove(rig.id(&name), true, true).await.unwrap();
        }
        wait_for(|| listed("containers") == 0 && listed("volumes") == 0).await;
        assert!(!data.join("lost+found").exists(), "{step}");
        for network in own() {
            rig.engine.remove_network(&network).await.unwrap();
        }
        assert!(!links().contains("br-"), "{step}: {}", links());
        rig.close().await;
    }
    rig.open().await;
    rig.done().await;
}

pub async fn ends_that_the_store_refuses_are_recorded_later(rig: &mut Rig) {
    let before =
        rig.start(Rig::script("ends", "trap 'exit 44' TERM; echo ready; sleep 1000 & wait")).await;
    rig.ready("ends").await;
    arm("store.commit", Some(Action::Full));
    rig.engine.kill(rig.id("ends"), "TERM").await.unwrap();
    let ended = |rig: &Rig| rig.engine.container("ends").unwrap().state;
    wait_for(|| ended(rig).status == Status::Exited).await;
    let first = ended(rig);
    assert_eq!(first.exit_code, 44);
    // The next engine learns it from the warden.
    rig.close().await;
    arm("store.commit", None);
    // On a full disk too, or nobody could make room.
    arm("probe", Some(Action::Full));
    rig.open().await;
    arm("probe", None);
    assert_eq!((ended(rig).exit_code, ended(rig).finished_at), (44, first.finished_at));
    assert_eq!(ended(rig).started_at, before.state.started_at);

    // The same engine records it as soon as the store takes anything: a removal of itself, even.
    let mut create = Rig::script("gone", "trap 'exit 55' TERM; echo ready; sleep 1000 & wait");
    create.host.auto_remove = true;
    rig.start(create).await;
    rig.start(Rig::sleeper("kept")).await;
    rig.ready("gone").await;
    rig.ready("kept").await;
    arm("store.commit", Some(Action::Full));
    for name in ["gone", "kept"] {
        let end = rig.engine.wait(rig.id(name), WaitCondition::NextExit).unwrap();
        rig.engine.kill(rig.id(name), "TERM").await.unwrap();
        assert_eq!(end.await.unwrap(), if name == "gone" { 55 } else { 3 });
    }
    let error = rig.engine.start(rig.id("kept")).await.unwrap_err();
    assert!(error.message.contains("is full"), "{error}");
    assert_eq!(rig.engine.container("kept").unwrap().state.exit_code, 3);
    arm("store.commit", None);
    wait_for(|| rig.engine.container("gone").is_err()).await;
    rig.engine.start(rig.id("kept")).await.unwrap();
    rig.engine.remove(rig.id("kept"), true, false).await.unwrap();
    rig.done().await;
}

pub async fn a_restart_in_the_full_moment_happens_later(rig: &mut Rig) {
    let mut create = Rig::script("again", "echo once; exit 4");
    create.host.restart_policy = RestartPolicy::Always;
    let id = rig.engine.create(create).await.unwrap().id.to_string();
    // A user is told, and may try again.
    arm("start.files", Some(Action::Full));
    let refused = rig.engine.start(rig.id(&id)).await.unwrap_err();
    assert!(refused.message.contains("No space left on device"), "{refused}");
    arm("start.files", None);
    rig.engine.start(rig.id(&id)).await.unwrap();
    let restarts = || rig.engine.container("again").unwrap().restart_count;
    for step in ["start.files", "store.commit"] {
        arm(step, Some(Action::Full));
        wait_for(|| bulkhead_failpoint::reached(step) >= 3).await;
        let before = restarts();
        arm(step, None);
        wait_for(|| restarts() > before).await;
        assert_eq!(rig.engine.container("again").unwrap().state.error, "");
    }
    rig.engine.remove(rig.id("again"), true, false).await.unwrap();
    rig.done().await;
}

pub async fn what_ended_with_the_engine_starts_with_the_next(rig: &mut Rig) {
    for (name, policy) in [
        ("unless", RestartPolicy::UnlessStopped),
        ("always", RestartPolicy::Always),
        ("stopped", RestartPolicy::UnlessStopped),
        ("never", RestartPolicy::No),
    ] {
        let mut create = Rig::sleeper(name);
        create.host.restart_policy = policy;
        rig.start(create).await;
        rig.ready(name).await;
    }
    rig.engine.stop(rig.id("stopped"), None, None).await.unwrap();
    rig.engine.tear_down().await.unwrap();
    let error = rig.engine.start(rig.id("never")).await.unwrap_err();
    assert!(error.message.contains("the engine is being taken down"), "{error}");
    rig.close().await;
    // Taking down what is down starts nothing, and leaves no warden.
    let idle = Engine::open_to_tear_down(rig.options.clone()).await.unwrap();
    assert!(idle.containers().iter().all(|it| it.state.status == Status::Exited));
    idle.tear_down().await.unwrap();
    drop(idle);
    rig.until_free().await;
    rig.open().await;
    let status = |name: &str| rig.engine.container(name).unwrap().state.status;
    wait_for(|| status("unless") == Status::Running && status("always") == Status::Running).await;
    assert_eq!((status("stopped"), status("never")), (Status::Exited, Status::Exited));
    rig.done().await;
}

pub async fn volumes_outlive_a_lost_store(rig: &mut Rig) {
    rig.engine
        .volumes()
        .create(Some("kept"), Default::default(), Default::default())
        .await
        .unwrap();
    let file = rig.path().join("data/volumes/kept/_data/file");
    std::fs::write(&file, "text").unwrap();
    rig.close().await;
    std::fs::remove_file(rig.path().join("data/engine.redb")).unwrap();
    rig.open().await;
    let aside = rig.path().join("data/lost+found/volume-kept/_data/file");
    assert_eq!(std::fs::read_to_string(&aside).unwrap(), "text");
    // The image's too.
    let names: Vec<String> = std::fs::read_dir(rig.path().join("data/lost+found"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for kind in ["content-layer-", "content-blob-", "content-image-"] {
        assert!(names.iter().any(|name| name.starts_with(kind)), "{names:?}");
    }
    // One of the same name is another one.
    rig.engine
        .volumes()
        .create(Some("kept"), Default::default(), Default::default())
        .await
        .unwrap();
    assert!(!file.exists());
    // A removal that is recorded is finished by whoever opens next, and nothing is moved aside.
    rig.engine.remove_volume("kept", false).await.unwrap();
    rig.close().await;
    std::fs::create_dir_all(rig.path().join("data/volumes/kept/_data")).unwrap();
    rig.open().await;
    assert!(!rig.path().join("data/volumes/kept").exists());
    assert!(!rig.path().join("data/lost+found/volume-kept.1").exists());
    rig.done().await;
}

/// The process that is killed.
pub fn engine_to_be_killed(directory: &Path) -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let engine = Engine::open(options(directory)).await.unwrap();
        println!("open");
        let work = |number: u32| {
            let engine = std::sync::Arc::clone(&engine);
            async move {
                for round in 0.. {
                    let name = format!("n{number}-{round}-{}", std::process::id());
                    let mut create = Rig::sleeper(&name);
                    create.host.auto_remove = round % 2 == 0;
                    if round % 4 < 2 {
                        create.config.volumes = vec!["/v".into()];
                    }
                    let id = engine.create(create).await.unwrap().id;
                    engine.start(id).await.unwrap();
                    let request = CreateNetwork { name: name.clone(), ..CreateNetwork::default() };
                    engine.create_network(request).await.unwrap();
                    let network = engine.network(&name).unwrap();
                    let plain = EndpointConfig::default();
                    engine.connect(id, &network, plain).await.unwrap();
                    engine.disconnect(id, &network).await.unwrap();
                    engine.remove_network(&network).await.unwrap();
                    let removed = engine.wait(id, WaitCondition::NextExit).unwrap();
                    engine.kill(id, "KILL").await.unwrap();
                    removed.await.unwrap();
                    if round % 2 == 1 {
                        engine.remove(id, true, true).await.unwrap();
                    }
                }
            }
        };
        tokio::join!(work(0), work(1));
    });
    ExitCode::SUCCESS
}
