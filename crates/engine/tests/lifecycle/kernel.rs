//! What a container is at the kernel: its capabilities, devices, mounts, signals and limits.

use std::collections::BTreeMap;

use bulkhead_engine::{
    BlockIo, DeviceRequest, NetworkMode, RestartPolicy, TmpfsOptions, Update, UsernsMode,
    WaitCondition,
};
use rustix::fs::{CWD, FileType, Mode, makedev};

use crate::containers::{exec, wait_for};
use crate::rig::Rig;

pub async fn ping_needs_no_privilege(rig: &mut Rig) {
    let ping = "busybox ping -c1 127.0.0.1 >/dev/null && echo pong; \
                busybox arping -c1 -w1 -I lo 127.0.0.1 2>&1 | grep -c 'not permitted'; \
                grep CapBnd /proc/self/status";
    let of = |name: &str, add: &[&str], drop: &[&str]| {
        let mut create = Rig::script(name, ping);
        create.host.cap_add = add.iter().map(|name| (*name).to_owned()).collect();
        create.host.cap_drop = drop.iter().map(|name| (*name).to_owned()).collect();
        create
    };
    // NET_RAW is bit 13; packet sockets are closed all the same, unless it is asked for
    let (_, said) = rig.run(of("usual", &[], &[])).await;
    assert_eq!(said, "pong\n1\nCapBnd:\t00000000800425fb\n");
    let (_, said) = rig.run(of("asked", &["NET_RAW"], &[])).await;
    assert_eq!(said, "pong\n0\nCapBnd:\t00000000800425fb\n");
    let (_, said) = rig.run(of("dropped", &[], &["NET_RAW"])).await;
    assert!(said.ends_with("CapBnd:\t00000000800405fb\n"), "{said}");
    // never in a network or with ids of the host
    for (name, networks, users) in [
        ("network", NetworkMode::Host, UsernsMode::default()),
        ("users", NetworkMode::default(), UsernsMode::Host),
    ] {
        let mut create = of(name, &[], &[]);
        create.host.network_mode = networks;
        create.host.userns_mode = users;
        let (_, said) = rig.run(create).await;
        assert!(said.ends_with("CapBnd:\t00000000800405fb\n"), "{name}: {said}");
    }
    rig.done().await;
}

pub async fn devices_have_the_owners_of_the_host(rig: &mut Rig) {
    let directory = rig.path().join("nodes");
    std::fs::create_dir(&directory).unwrap();
    for (name, mode, group) in [("secret", 0o600, 0), ("shared", 0o660, 4242)] {
        let path = directory.join(name);
        let null = makedev(1, 3);
        rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, Mode::from_raw_mode(mode), null)
            .unwrap();
        std::os::unix::fs::chown(&path, Some(0), Some(group)).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode))
            .unwrap();
    }
    let device = |host: String, container: &str| DeviceRequest {
        host,
        container: container.to_owned(),
        permissions: String::new(),
    };
    let script = "stat -c '%a %u:%g' /dev/secret /dev/shared; \
                  echo x >/dev/secret && echo one; echo x >/dev/shared && echo two; echo x >/dev/nn";
    for (name, user, want) in [
        ("root", "", "600 0:0\n660 0:4242\none\ntwo\n"),
        ("member", "1000", "600 0:0\n660 0:4242\ntwo\n"),
    ] {
        let mut create = Rig::script(name, script);
        create.config.user = user.to_owned();
        create.config.attach_stderr = false;
        create.host.group_add = vec!["4242".into()];
        create.host.binds = vec!["/dev/null:/dev/nn".parse().unwrap()];
        create.host.devices = ["secret", "shared"]
            .map(|node| device(directory.join(node).display().to_string(), &format!("/dev/{node}")))
            .into();
        let (_, said) = rig.run(create).await;
        let said: String = said
            .lines()
            .filter(|line| !line.contains("ermission denied"))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(said, want, "{name}");
    }
    // a directory stands for all that is in it
    let mut create = Rig::script("all", "echo x >/dev/of/secret && ls /dev/of");
    create.host.devices = vec![device(directory.display().to_string(), "/dev/of")];
    assert_eq!(rig.run(create).await, (0, "secret\nshared\n".to_owned()));
    let mut create = Rig::script("none", "true");
    create.host.devices = vec![device("/etc/passwd".into(), "/dev/x")];
    rig.engine.create(create).await.unwrap();
    let error = rig.engine.start(rig.id("none")).await.unwrap_err();
    assert!(error.message.contains("not a device node"), "{error}");
    rig.done().await;
}

pub async fn mounts_and_files_are_as_dockers(rig: &mut Rig) {
    let mut create = Rig::script(
        "tmpfs",
        "stat -c %a /new /tmp /srv; grep ' /dev/shm ' /proc/mounts; ls -A /.dockerenv; \
         readlink /etc/mtab; echo $PATH",
    );
    create.host.tmpfs = ["/new", "/tmp", "/srv"]
        .map(|path| (path.to_owned(), TmpfsOptions::default()))
        .into_iter()
        .collect();
    let (code, said) = rig.run(create).await;
    assert_eq!(code, 0, "{said}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..3], ["1777", "1777", "755"], "{said}");
    assert!(lines[3].starts_with("shm /dev/shm tmpfs "), "{said}");
    assert_eq!(lines[4..], ["/.dockerenv", "/proc/mounts", "/bin"], "{said}");
    assert!(rig.engine.changes(rig.id("tmpfs")).await.unwrap().iter().all(|change| {
        !["/.dockerenv", "/etc", "/etc/mtab"].contains(&change.path.to_str().unwrap())
    }));

    let mut create = Rig::script(
        "sealed",
        "for file in hosts hostname resolv.conf; do echo x >>/etc/$file && echo $file; done; \
         echo x >/tmp/x && echo tmp",
    );
    create.host.readonly_rootfs = true;
    create.host.tmpfs = BTreeMap::from([("/tmp".to_owned(), TmpfsOptions::default())]);
    let (_, said) = rig.run(create).await;
    let written: Vec<&str> = said.lines().filter(|line| !line.contains("ead-only")).collect();
    assert_eq!(written, ["tmp"], "{said}");

    let mut create = Rig::script("init", "busybox tr '\\0' ' ' </proc/1/cmdline");
    create.host.init = Some(true);
    create.config.hostname = "web.ex.com".to_owned();
    let (code, said) = rig.run(create).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with("/sbin/docker-init -- sh -c busybox tr"), "{said}");
    assert!(!said.contains("warden"), "{said}");
    rig.done().await;
}

pub async fn real_time_signals_stop_and_kill(rig: &mut Rig) {
    // a shell names signals by number: SIGRTMIN+3 is 37
    let script = "trap 'exit 7' 37; echo ready; sleep 1000 & wait";
    for (name, signal) in [("named", "SIGRTMIN+3"), ("numbered", "37")] {
        let mut create = Rig::script(name, script);
        create.config.stop_signal = Some(signal.to_owned());
        rig.start(create).await;
        rig.ready(name).await;
        let ended = rig.engine.wait(rig.id(name), WaitCondition::NextExit).unwrap();
        if name == "named" {
            rig.engine.stop(rig.id(name), Some(60), None).await.unwrap();
        } else {
            rig.engine.kill(rig.id(name), "RTMIN+3").await.unwrap();
        }
        assert_eq!(ended.await.unwrap(), 7, "{name}");
    }
    let mut create = Rig::script("bogus", script);
    create.config.stop_signal = Some("SIGRTMIN+31".to_owned());
    assert!(rig.engine.create(create).await.is_err());
    rig.done().await;
}

pub async fn an_environment_of_many_lines(rig: &mut Rig) {
    let mut create = Rig::script("many", "env | grep -c ^VARIABLE");
    create.config.env = (0..100_000).map(|n| format!("VARIABLE_{n}=value {n}")).collect();
    let container = rig.engine.create(create).await.unwrap();
    // the kernel's own limit of 6 MiB or a quarter of the stack (execve(2)) decides, and is told
    match rig.engine.start(rig.id("many")).await {
        Ok(_) => {
            let mut ended =
                Box::pin(rig.engine.wait(rig.id("many"), WaitCondition::NotRunning).unwrap());
            assert_eq!((&mut ended).await.unwrap(), 0);
        }
        Err(error) => assert!(error.message.contains("argument list too long"), "{error}"),
    }
    rig.engine.remove(container.id, true, false).await.unwrap();

    let mut create = Rig::script("long", "true");
    create.config.env = vec![format!("LONG={}", "x".repeat(200_000))];
    rig.engine.create(create).await.unwrap();
    let error = rig.engine.start(rig.id("long")).await.unwrap_err();
    assert!(error.message.contains("argument list too long"), "{error}");
    rig.done().await;
}

pub async fn a_kill_for_want_of_memory_is_told_at_once(rig: &mut Rig) {
    let starved = |name: &str| {
        let mut create = Rig::sleeper(name);
        create.host.memory = 20 << 20;
        create.host.memory_swap = 20 << 20;
        create
    };
    let greedy = || exec(&["tail", "/dev/zero"]);
    let mut events = rig.engine.events(None).1;
    rig.start(starved("greedy")).await;
    let id = rig.engine.exec_create(rig.id("greedy"), greedy()).await.unwrap();
    rig.engine.exec_start(id, true, (0, 0)).await.unwrap();
    let told = async {
        loop {
            let event = events.recv().await.unwrap();
            if event.action == "oom" {
                return event.actor.clone();
            }
        }
    };
    let told = tokio::time::timeout(std::time::Duration::from_secs(20), told).await.unwrap();
    let container = rig.engine.container("greedy").unwrap();
    assert_eq!(told, container.id.to_string());
    wait_for(|| rig.engine.container("greedy").unwrap().state.oom_killed).await;
    assert!(rig.engine.container("greedy").unwrap().state.pid != 0, "it runs all the same");

    // also by an engine that did not start it, and of what happened while there was none
    rig.close().await;
    rig.open().await;
    assert!(rig.engine.container("greedy").unwrap().state.oom_killed);
    rig.start(starved("later")).await;
    rig.close().await;
    rig.open().await;
    let mut events = rig.engine.events(None).1;
    let id = rig.engine.exec_create(rig.id("later"), greedy()).await.unwrap();
    rig.engine.exec_start(id, true, (0, 0)).await.unwrap();
    let told = async { while events.recv().await.unwrap().action != "oom" {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), told).await.unwrap();
    wait_for(|| rig.engine.container("later").unwrap().state.oom_killed).await;
    rig.done().await;
}

pub async fn limits_are_changed_while_it_runs(rig: &mut Rig) {
    let mut create = Rig::sleeper("tuned");
    create.host.memory = 64 << 20;
    rig.start(create).await;
    let update = Update {
        memory: Some(32 << 20),
        memory_swap: Some(64 << 20),
        pids_limit: Some(9),
        restart_policy: Some(RestartPolicy::Always),
        ..Update::default()
    };
    rig.engine.update(rig.id("tuned"), update).await.unwrap();
    let stats = rig.engine.stats(rig.id("tuned")).await.unwrap();
    assert_eq!((stats.memory_limit, stats.pids_limit), (32 << 20, 9));
    let host = rig.engine.container("tuned").unwrap().host;
    assert_eq!((host.memory, host.restart_policy), (32 << 20, RestartPolicy::Always));
    let update = Update { memory: Some(1 << 20), ..Update::default() };
    let error = rig.engine.update(rig.id("tuned"), update).await.unwrap_err();
    assert!(error.message.contains("Minimum memory limit"), "{error}");
    assert_eq!(rig.engine.stats(rig.id("tuned")).await.unwrap().memory_limit, 32 << 20);
    rig.engine.remove(rig.id("tuned"), true, false).await.unwrap();

    let mut create = Rig::script("heavy", "true");
    create.host.block_io = BlockIo { weight: 9, ..BlockIo::default() };
    assert!(rig.engine.warnings(&create.host).is_err());
    rig.done().await;
}

pub async fn paths_and_addresses_are_those_of_the_request(rig: &mut Rig) {
    let mut create = Rig::script(
        "open",
        "grep -c ' /proc/' /proc/self/mountinfo; busybox wc -c </etc/passwd; \
         cat /sys/class/net/eth0/address; touch /srv/x 2>/dev/null || echo sealed",
    );
    create.host.masked_paths = Some(vec!["/etc/passwd".into()]);
    create.host.readonly_paths = Some(vec!["/srv".into()]);
    create.config.mac_address = Some([0x02, 0x42, 1, 2, 3, 4]);
    let (_, said) = rig.run(create).await;
    assert_eq!(said, "0\n0\n02:42:01:02:03:04\nsealed\n");
    rig.done().await;
}
