use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use bulkhead_runtime::*;
use bulkhead_spec::Id;
use bulkhead_sys::mount::{Depth, set_id_mapping};
use bulkhead_warden::*;
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{Signal, pidfd_send_signal};

use crate::fixture::*;

macro_rules! cases {
    ($($name:ident),* $(,)?) => { pub const ALL: &[(&str, fn())] = &[$((stringify!($name), $name)),*]; };
}

cases![
    bind_mounts_keep_owners_and_flags,
    mounts_are_not_shared_with_the_host,
    a_killed_client_loses_nothing,
    a_client_that_does_not_read_is_dropped,
    large_requests_travel_in_memory,
    many_at_once,
    a_waiting_process_shows_nothing_of_the_warden,
    cgroups_are_joined_at_birth,
    signals_do_not_end_the_warden,
    one_warden_at_a_socket,
    a_program_runs_and_its_output_is_logged,
    a_container_is_sealed_off,
    what_is_in_the_file_systems,
    programs_that_cannot_be_executed,
    users_are_those_of_the_container,
    capabilities_and_filters,
    a_terminal,
    attached_clients_get_frames,
    standard_input_reaches_the_process,
    exec_joins_the_container,
    exec_with_a_terminal,
    the_engine_may_crash,
    an_own_init_reaps_and_forwards,
    limits_and_sysctls,
    namespaces_of_the_host_and_of_others,
    created_ones_are_forgotten,
    much_output_is_complete,
    bad_requests_are_refused,
    nothing_of_the_host_is_open,
];

fn a_program_runs_and_its_output_is_logged() {
    let ship = Ship::launch();
    assert_eq!(
        ship.sh("echo hello; echo no newline at its end | head -c 5; exit 3"),
        (3, "hello\nno ne".into())
    );
    assert_eq!(ship.sh("kill -9 $$"), (0, String::new()), "process 1 does not hear itself");
    let record = fs::read_to_string(ship.directory.path().join("warden.exits")).unwrap();
    assert_eq!(record.lines().count(), 2);
    assert!(record.starts_with(r#"{"container":""#) && record.contains(r#""code":3,"#), "{record}");
}

fn a_container_is_sealed_off() {
    let ship = Ship::launch();
    let wish = ship.wish(&["sh", "-c", "id -u; echo $$; hostname; ls /sys/class/net; sleep 1000"]);
    let (id, (wish, mut socket)) = (wish.id, wish.attach());
    let created = ship.create(wish).unwrap();
    ship.client.start(id).unwrap();
    let want = "0\n1\nbox\nlo\n";
    let mut got = String::new();
    while got.len() < want.len() {
        let mut head = [0; 8];
        socket.read_exact(&mut head).unwrap();
        let mut bytes = vec![0; u32::from_be_bytes(head[4..].try_into().unwrap()) as usize];
        socket.read_exact(&mut bytes).unwrap();
        got.push_str(std::str::from_utf8(&bytes).unwrap());
    }
    assert_eq!(got, want);
    for name in ["pid", "net", "ipc", "mnt", "uts", "user", "cgroup", "time"] {
        let link = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_ne!(link("self"), link(&created.pid.to_string()), "{name}");
    }
    let status = fs::read_to_string(format!("/proc/{}/status", created.pid)).unwrap();
    let uid = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    assert!(uid.contains(&RANGE.first.to_string()), "{uid}");
    let names = ship.client.namespaces(id).unwrap();
    assert_eq!(names.len(), 8);
    let inode = |fd: &std::os::fd::OwnedFd| rustix::fs::fstat(fd).unwrap().st_ino;
    assert_eq!(inode(&created.netns), inode(&names[1].1));
    pidfd_send_signal(&created.pidfd, Signal::KILL).unwrap();
    assert_eq!(ship.exit(id).code, 137);
}

fn what_is_in_the_file_systems() {
    let ship = Ship::launch();
    let (code, text) = ship.sh("ls /dev; cat /proc/kcore | wc -c; ls /sys/firmware | wc -l; \
         echo x > /proc/sys/kernel/hostname || echo ro; touch /sys/x || echo ro; \
         touch /new && stat -c %u:%g /new; echo x > /dev/null; readlink /dev/fd; \
         mount | grep -c ' / '; echo /proc/[0-9]*; touch /dev/shm/x && echo shm; \
         ls /sys/fs/cgroup | wc -l; cat /proc/self/cgroup | head -1; head -c 3 /dev/zero | wc -c");
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains(": ")).collect();
    assert_eq!(code, 0, "{text}");
    for name in
        ["fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stdin", "tty", "zero"]
    {
        assert!(lines.contains(&name), "{name} in {text}");
    }
    let rest = &lines[lines.iter().position(|line| *line == "zero").unwrap() + 1..];
    let cgroups = rest[9].parse::<u32>().unwrap();
    assert!(cgroups > 0, "{text}");
    assert_eq!(
        rest[..9],
        ["0", "0", "ro", "ro", "0:0", "/proc/self/fd", "1", "/proc/1", "shm"],
        "{text}"
    );
    assert!(rest[10].ends_with(":/"), "{text}");
    assert_eq!(rest[11], "3");
    let made = rustix::fs::stat(ship.directory.path().join("root/new")).unwrap();
    assert_eq!(made.st_uid, 0, "the id-mapped root keeps owners");
    let wish = ship.wish(&["touch", "/x"]).change(|spec| spec.rootfs_readonly = true);
    let (code, text) = ship.run(wish);
    assert_eq!(code, 1);
    assert!(text.contains("Read-only file system"), "{text}");
}

fn programs_that_cannot_be_executed() {
    let ship = Ship::launch();
    let fail = |change: &dyn Fn(&mut ProcessSpec)| {
        let mut wish = ship.wish(&["x"]);
        let id = wish.id;
        change(&mut wish.spec.process);
        ship.create(wish).unwrap();
        let error = ship.client.start(id).unwrap_err().to_string();
        ship.client.forget(id).unwrap();
        error
    };
    for (argument, want) in [
        ("missing", "exec: \"missing\": executable file not found in $PATH"),
        ("/missing", "exec: \"/missing\": no such file or directory"),
        ("/etc/data", "exec: \"/etc/data\": permission denied"),
        ("/etc", "exec: \"/etc\": permission denied"),
    ] {
        assert_eq!(fail(&|process| process.arguments = vec![argument.into()]), want);
        let with_init = |process: &mut ProcessSpec| {
            process.arguments = vec![argument.into()];
            process.init = true;
        };
        assert_eq!(fail(&with_init), want);
    }
    let nobody = "unable to find user nobody: no matching entries in passwd file";
    assert_eq!(fail(&|process| process.user.name = "nobody".into()), nobody);
    assert!(ship.client.list().unwrap().is_empty());
    assert!(ship.events.try_recv().is_err(), "what never ran does not end");
}

fn users_are_those_of_the_container() {
    let ship = Ship::launch();
    let run = |name: &str| {
        let mut wish = ship.wish(&["sh", "-c", "id; echo $HOME; pwd; echo > /dev/stdout"]);
        wish.spec.process.user.name = name.into();
        wish.spec.process.working_directory = "/made/here".into();
        ship.run(wish)
    };
    let web = "uid=33(web) gid=34(web) groups=34(web),50(extra)\n/srv\n/made/here\n\n";
    assert_eq!(run("web"), (0, web.into()));
    let numbers = "uid=33(web) gid=50(extra) groups=50(extra)\n/srv\n/made/here\n\n";
    assert_eq!(run("33:50"), (0, numbers.into()));
    let (_, root) = run("");
    assert_eq!(root, "uid=0(root) gid=0(root) groups=0(root)\n/root\n/made/here\n\n");
}

fn capabilities_and_filters() {
    let ship = Ship::launch();
    let status = |change: &dyn Fn(&mut ProcessSpec)| {
        let mut wish = ship.wish(&["cat", "/proc/self/status"]);
        change(&mut wish.spec.process);
        let (code, text) = ship.run(wish);
        assert_eq!(code, 0);
        let fields = text.lines().filter_map(|line| line.split_once(":\t"));
        fields.map(|(key, value)| (key.to_owned(), value.to_owned())).collect::<HashMap<_, _>>()
    };
    let set = |fields: &HashMap<String, String>, name: &str| {
        u64::from_str_radix(&fields[name], 16).unwrap()
    };
    let wanted = capabilities::resolve(&[], &[], false).unwrap().0;
    let plain = status(&|_| {});
    assert_eq!(set(&plain, "CapBnd") & !wanted, 0);
    assert_ne!(set(&plain, "CapEff"), 0);
    assert_eq!((set(&plain, "CapInh"), set(&plain, "CapAmb")), (0, 0));
    assert_eq!((plain["Seccomp"].as_str(), plain["NoNewPrivs"].as_str()), ("0", "0"));
    assert_eq!(set(&plain, "SigBlk") | set(&plain, "SigIgn"), 0);
    for no_new_privileges in [false, true] {
        let strict = status(&|process| {
            process.seccomp = Seccomp::Default;
            process.no_new_privileges = no_new_privileges;
            process.user.name = "web".into();
        });
        assert_eq!(strict["Seccomp"], "2");
        assert_eq!(strict["NoNewPrivs"], u8::from(no_new_privileges).to_string());
        assert_eq!(set(&strict, "CapEff") | set(&strict, "CapPrm"), 0, "not root");
    }
    let all = status(&|process| process.capabilities = Capabilities(u64::MAX));
    assert_ne!(set(&all, "CapEff") & 1 << 21, 0, "SYS_ADMIN");
}

fn a_terminal() {
    let ship = Ship::launch();
    let script = "tty; stty size; test -c /dev/console && echo console; read line; stty size; echo got $line >&2";
    let mut wish = ship.wish(&["sh", "-c", script]);
    wish.spec.process.terminal = true;
    wish.spec.process.terminal_size = (24, 80);
    wish.stdin_open = true;
    let (id, (wish, mut socket)) = (wish.id, wish.attach());
    ship.create(wish).unwrap();
    ship.client.start(id).unwrap();
    let want = "/dev/pts/0\r\n24 80\r\nconsole\r\n";
    let mut bytes = vec![0; want.len()];
    socket.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8(bytes).unwrap(), want);
    ship.client.resize(id, 50, 132).unwrap();
    socket.write_all(b"typed\n").unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    assert_eq!(text, "typed\r\n50 132\r\ngot typed\r\n");
    assert_eq!(ship.exit(id).code, 0);
    assert!(ship.log(id).ends_with("got typed\r\n"));
}

fn attached_clients_get_frames() {
    let ship = Ship::launch();
    let (wish, socket) = ship.wish(&["sh", "-c", "echo out; echo err >&2"]).attach();
    let (wish, other) = wish.attach();
    let id = wish.id;
    ship.create(wish).unwrap();
    ship.client.start(id).unwrap();
    for socket in [socket, other] {
        let mut frames = frames(socket);
        frames.sort();
        assert_eq!(frames, [(1, "out\n".into()), (2, "err\n".into())]);
    }
    assert_eq!(ship.exit(id).code, 0);
    let (ours, theirs) = UnixStream::pair().unwrap();
    ship.client.attach(id, theirs.into(), false, true, true).unwrap();
    assert_eq!(frames(ours), [], "nothing comes after the end");
}

fn standard_input_reaches_the_process() {
    let ship = Ship::launch();
    let mut wish = ship.wish(&["wc", "-c"]);
    (wish.stdin_open, wish.stdin_once) = (true, true);
    let (id, (wish, mut socket)) = (wish.id, wish.attach());
    ship.create(wish).unwrap();
    ship.client.start(id).unwrap();
    // more than the pipe, the socket and the warden hold together
    let megabytes = vec![b'x'; 3 << 20];
    socket.write_all(&megabytes).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(frames(socket), [(1, format!("{}\n", megabytes.len()))]);
    assert_eq!(ship.exit(id).code, 0);
    let closed = ship.wish(&["cat"]);
    assert_eq!(ship.run(closed), (0, String::new()), "without -i it is /dev/null");
}

fn exec(ship: &Ship, container: Id, process: ProcessSpec) -> Result<(Id, UnixStream), WardenError> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    let id = Id::random();
    let attachments =
        vec![Attachment { socket: FdIndex(0), stdin: true, stdout: true, stderr: true }];
    let request = Exec {
        container,
        id,
        process,
        cgroup_v1_procs: vec![],
        cgroup_v2: None,
        stdin_open: true,
        attachments,
    };
    let (pid, pidfd) = ship.client.exec(request, vec![theirs.into()])?;
    assert!(pid > 1);
    drop(pidfd);
    Ok((id, ours))
}

fn sleeper(ship: &Ship) -> (Id, Created) {
    let wish = ship.wish(&["sleep", "1000"]);
    let id = wish.id;
    let created = ship.create(wish).unwrap();
    ship.client.start(id).unwrap();
    (id, created)
}

fn exec_joins_the_container() {
    let ship = Ship::launch();
    let (container, created) = sleeper(&ship);
    let mut second = process(&[
        "sh",
        "-c",
        "id -u; hostname; readlink /proc/self/ns/pid; ls /proc/self/fd | wc -l; cat; exit 5",
    ]);
    second.seccomp = Seccomp::Default;
    let (id, mut socket) = exec(&ship, container, second).unwrap();
    socket.write_all(b"input").unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let text: String = frames(socket).into_iter().map(|(_, text)| text).collect();
    let pid = fs::read_link(format!("/proc/{}/ns/pid", created.pid)).unwrap();
    assert_eq!(text, format!("0\nbox\n{}\n4\ninput", pid.display()));
    assert_eq!(ship.exit(id).code, 5);
    ship.client.forget(id).unwrap();
    for (argument, want) in [
        ("missing", "exec: \"missing\": executable file not found in $PATH"),
        ("/etc/data", "exec: \"/etc/data\": permission denied"),
    ] {
        let error = exec(&ship, container, process(&[argument])).unwrap_err();
        assert_eq!(error.to_string(), want);
    }
    let mut astray = process(&["true"]);
    astray.working_directory = "/proc/self/fd/3/x".into();
    assert!(exec(&ship, container, astray).unwrap_err().to_string().starts_with("chdir to cwd"));
    assert!(matches!(exec(&ship, Id::random(), process(&["true"])), Err(WardenError::Unknown(_))));
    // what an exec leaves behind goes on, and does not keep the exec open
    let (id, socket) =
        exec(&ship, container, process(&["sh", "-c", "sleep 500 & echo x"])).unwrap();
    assert_eq!(frames(socket), [(1, "x\n".into())]);
    assert_eq!(ship.exit(id).code, 0);
    pidfd_send_signal(&created.pidfd, Signal::TERM).unwrap();
    pidfd_send_signal(&created.pidfd, Signal::KILL).unwrap();
    assert_eq!(ship.exit(container).code, 137);
    assert!(exec(&ship, container, process(&["true"])).is_err());
}

fn exec_with_a_terminal() {
    let ship = Ship::launch();
    let (container, _created) = sleeper(&ship);
    let mut second = process(&["sh", "-c", "tty; stty size"]);
    second.terminal = true;
    second.terminal_size = (10, 20);
    let (id, mut socket) = exec(&ship, container, second).unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    assert_eq!(text, "/dev/pts/0\r\n10 20\r\n");
    assert_eq!(ship.exit(id).code, 0);
}

fn the_engine_may_crash() {
    let mut ship = Ship::launch();
    let wish = ship.wish(&["sh", "-c", "read x; echo $x; exit 9"]);
    let (id, mut wish) = (wish.id, wish);
    wish.stdin_open = true;
    let (wish, mut socket) = wish.attach();
    let created = ship.create(wish).unwrap();
    ship.client.start(id).unwrap();
    let waiting = ship.wish(&["true"]);
    let waiting_id = waiting.id;
    ship.create(waiting).unwrap();
    // The connection ends as that of a killed engine does. The container ends with nobody there.
    let (client, events) = ship.another();
    let old = std::mem::replace(&mut ship.client, client);
    drop(old);
    drop(std::mem::replace(&mut ship.events, events));
    socket.write_all(b"gone\n").unwrap();
    rustix::event::poll(
        &mut [rustix::event::PollFd::new(&created.pidfd, rustix::event::PollFlags::IN)],
        None,
    )
    .unwrap();
    assert_eq!(frames(socket), [(1, "gone\n".into())]);
    let known: HashMap<_, _> = ship
        .client
        .list()
        .unwrap()
        .into_iter()
        .map(|(known, fd)| (known.id, (known, fd)))
        .collect();
    let State::Exited(exit) = known[&id].0.state else { panic!("{:?}", known[&id]) };
    assert_eq!((exit.code, known[&id].1.is_none()), (9, true));
    assert_eq!(ship.log(id), "gone\n");
    assert_eq!(known[&waiting_id].0.state, State::Created);
    assert!(known[&waiting_id].1.is_some());
    ship.client.start(waiting_id).unwrap();
    assert_eq!(ship.exit(waiting_id).code, 0);
}

fn an_own_init_reaps_and_forwards() {
    let ship = Ship::launch();
    let script = "trap 'echo term; exit 7' TERM; echo $$; (sleep 0.1 &) ; while :; do read x; done";
    let mut wish = ship.wish(&["sh", "-c", script]);
    wish.spec.process.init = true;
    wish.stdin_open = true;
    let (id, (wish, mut socket)) = (wish.id, wish.attach());
    let created = ship.create(wish).unwrap();
    ship.client.start(id).unwrap();
    let mut bytes = [0; 10];
    socket.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes[8..], b"2\n");
    pidfd_send_signal(&created.pidfd, Signal::TERM).unwrap();
    socket.write_all(b"\n").unwrap();
    assert_eq!(ship.exit(id).code, 7);
    assert_eq!(ship.log(id), "2\nterm\n");
}

fn limits_and_sysctls() {
    let ship = Ship::launch();
    let mut wish = ship.wish(&["sh", "-c", "ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax"]);
    wish.spec.process.rlimits = vec![("nofile".into(), 100, 200)];
    wish.spec.process.oom_score_adj = Some(500);
    wish.spec.sysctls.push(("kernel.msgmax".into(), "12345".into()));
    assert_eq!(ship.run(wish), (0, "100\n200\n500\n0\n12345\n".into()));
}

fn namespaces_of_the_host_and_of_others() {
    let ship = Ship::launch();
    let (container, _created) = sleeper(&ship);
    let names = ship.client.namespaces(container).unwrap();
    let mut wish = ship.wish(&["sh", "-c", "readlink /proc/self/ns/net; readlink /proc/self/ns/user; hostname; echo /proc/[0-9]*; echo $$"]);
    let (mut want, mut fds) = (String::new(), HashMap::new());
    for (name, fd) in names {
        let inode = rustix::fs::fstat(&fd).unwrap().st_ino;
        if name == "net" || name == "user" {
            wish.fds.push(fd);
            fds.insert(name.clone(), FdIndex(wish.fds.len() as u16 - 1));
            want.push_str(&format!("{name}:[{inode}]\n"));
        }
    }
    wish.spec.namespaces.net = Source::Join(fds["net"]);
    wish.spec.namespaces.user = Source::Join(fds["user"]);
    wish.spec.sysctls.clear();
    let (code, text) = ship.run(wish);
    assert_eq!((code, text), (0, format!("{want}box\n/proc/1\n1\n")));
    // as --privileged and --net=host: everything that may be is the host's
    let wish =
        ship.wish(&["sh", "-c", "id -u; hostname; readlink /proc/self/ns/pid"]).change(|spec| {
            let host = Source::Host;
            let mnt = Source::Private;
            spec.namespaces = Namespaces {
                pid: host,
                net: host,
                ipc: host,
                mnt,
                uts: host,
                user: host,
                cgroup: host,
                time: host,
            };
            spec.sysctls.clear();
            spec.id_range = None;
        });
    let (code, text) = ship.run(wish);
    let pid = fs::read_link("/proc/self/ns/pid").unwrap();
    let host = rustix::system::uname();
    let host = host.nodename().to_str().unwrap();
    assert_eq!((code, text), (0, format!("0\n{host}\n{}\n", pid.display())));
    // its own user namespace, but the host's network
    let wish = ship.wish(&["ls", "/sys/class/net/lo"]).change(|spec| {
        spec.namespaces.net = Source::Host;
        spec.sysctls.clear();
    });
    assert_eq!(ship.run(wish).0, 0);
}

fn created_ones_are_forgotten() {
    let ship = Ship::launch();
    let wish = ship.wish(&["true"]);
    let id = wish.id;
    let created = ship.create(wish).unwrap();
    ship.client.forget(id).unwrap();
    assert!(ship.client.list().unwrap().is_empty());
    assert!(pidfd_send_signal(created.pidfd, Signal::KILL).is_err(), "it is reaped");
    assert!(matches!(ship.client.start(id), Err(WardenError::Unknown(_))));
    assert!(matches!(ship.client.forget(id), Err(WardenError::Unknown(_))));
}

fn much_output_is_complete() {
    let ship = Ship::launch();
    let (code, text) =
        ship.sh("dd if=/dev/zero bs=1024 count=2000 2>/dev/null | busybox tr '\\0' x; echo end");
    assert_eq!((code, text.len()), (0, 2000 * 1024 + 4));
    let mut wish = ship.wish(&[
        "sh",
        "-c",
        "dd if=/dev/zero bs=1024 count=500 2>/dev/null | busybox tr '\\0' x; echo end",
    ]);
    wish.spec.process.terminal = true;
    let (code, text) = ship.run(wish);
    assert_eq!((code, text.len()), (0, 500 * 1024 + 5), "through a terminal");
}

fn bad_requests_are_refused() {
    let ship = Ship::launch();
    let refused = |change: &dyn Fn(&mut ContainerSpec)| {
        let wish = ship.wish(&["true"]).change(|spec| change(spec));
        ship.create(wish).unwrap_err().to_string()
    };
    assert_eq!(refused(&|spec| spec.process.arguments.clear()), "no command specified");
    assert_eq!(refused(&|spec| spec.rootfs = FdIndex(99)), "attach root #99: bad file descriptor");
    assert!(refused(&|spec| spec.id_range = None).contains("range of ids"));
    assert!(refused(&|spec| spec.namespaces.mnt = Source::Host).contains("mount namespace"));
    assert!(refused(&|spec| spec.masked_paths.push("relative".into())).contains("absolute"));
    let limit = |spec: &mut ContainerSpec| {
        spec.process.rlimits = vec![("nofile".into(), 200, 100)];
    };
    assert_eq!(refused(&limit), "error setting rlimit Nofile: invalid argument");
    let range = |spec: &mut ContainerSpec| {
        spec.id_range = Some(bulkhead_spec::IdRange { first: u32::MAX - 10, size: 20 });
    };
    assert!(refused(&range).starts_with("map 20 ids from 4294967285"), "{}", refused(&range));
    let escape = |spec: &mut ContainerSpec| {
        spec.sysctls.push(("net/../../kernel/core_pattern".into(), "x".into()));
    };
    assert!(refused(&escape).contains("sysctl"));
    let tmpfs = MountKind::Tmpfs { options: vec!["size=64k".into()] };
    let at_passwd = Mount {
        target: "/etc/passwd".into(),
        kind: tmpfs,
        readonly: false,
        nosuid: true,
        nodev: true,
        noexec: true,
    };
    assert!(refused(&|spec| spec.mounts.push(at_passwd.clone())).contains("mount tmpfs"));
    assert!(ship.client.list().unwrap().is_empty(), "nothing is left of them");
    // a link of the image cannot lead a mount out, nor redirect /proc
    let root = ship.directory.path().join("root");
    fs::remove_dir(root.join("proc")).ok();
    std::os::unix::fs::symlink("/etc", root.join("proc")).unwrap();
    assert!(refused(&|_| {}).contains("mount proc on /proc"));
    fs::remove_file(root.join("proc")).unwrap();
    assert_eq!(ship.sh("true").0, 0);
    let (container, _created) = sleeper(&ship);
    assert!(matches!(ship.client.forget(container), Err(WardenError::Refused(_))));
    assert!(matches!(ship.client.shut_down(), Err(WardenError::Refused(_))));
    assert!(matches!(ship.client.resize(container, 1, 1), Err(WardenError::Refused(_))));
}

fn nothing_of_the_host_is_open() {
    let ship = Ship::launch();
    let others = sleeper(&ship);
    let (code, text) = ship.sh("ls /proc/self/fd; cat /proc/self/mountinfo");
    assert_eq!(code, 0);
    // 3 is the listing's own
    assert!(text.starts_with("0\n1\n2\n3\n"), "{text}");
    let host = others.1.pid;
    let mounts = fs::read_to_string(format!("/proc/{host}/mountinfo")).unwrap();
    assert!(!mounts.contains("/dev/vda") || !mounts.contains(" /home "), "{mounts}");
    let descriptors = fs::read_dir(format!("/proc/{host}/fd")).unwrap().count();
    assert_eq!(descriptors, 3);
    let _ = others.1.netns.as_fd();
}

/// A cgroup of the test's own in one hierarchy; removed with the test.
struct Cgroup(std::path::PathBuf);

impl Cgroup {
    fn new(hierarchy: &str) -> Option<Self> {
        let name = format!("bulkhead-warden-{}", Id::random().short());
        let path = std::path::Path::new(hierarchy).join(name);
        fs::create_dir(&path).ok().map(|()| Self(path))
    }

    fn procs(&self) -> String {
        fs::read_to_string(self.0.join("cgroup.procs")).unwrap()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

fn cgroups_are_joined_at_birth() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let find = |kind: &str| {
        let of_kind = mounts.lines().filter(|line| line.split(' ').nth(2) == Some(kind));
        of_kind.filter_map(|line| line.split(' ').nth(1)).map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let v1 = find("cgroup").into_iter().find(|path| path.ends_with("/pids"));
    let v1 = v1.and_then(|path| Cgroup::new(&path));
    let v2 = find("cgroup2").first().and_then(|path| Cgroup::new(path));
    if v1.is_none() && v2.is_none() {
        return bulkhead_sys::testing::skip("no cgroup hierarchy is mounted");
    }
    let ship = Ship::launch();
    let mut wish = ship.wish(&["sleep", "1000"]);
    let open = |v1: &Option<Cgroup>, v2: &Option<Cgroup>, fds: &mut Vec<std::os::fd::OwnedFd>| {
        let mut add = |fd: fs::File| {
            fds.push(fd.into());
            FdIndex(fds.len() as u16 - 1)
        };
        let write = |path: std::path::PathBuf| fs::File::options().write(true).open(path).unwrap();
        let v1 = v1.iter().map(|it| add(write(it.0.join("cgroup.procs")))).collect::<Vec<_>>();
        (v1, v2.as_ref().map(|it| add(fs::File::open(&it.0).unwrap())))
    };
    (wish.spec.cgroup_v1_procs, wish.spec.cgroup_v2) = open(&v1, &v2, &mut wish.fds);
    let id = wish.id;
    let created = ship.create(wish).unwrap();
    ship.client.start(id).unwrap();
    for cgroup in v1.iter().chain(&v2) {
        assert_eq!(cgroup.procs(), format!("{}\n", created.pid));
    }
    let (ours, theirs) = UnixStream::pair().unwrap();
    let exec = Id::random();
    let mut fds = vec![theirs.into()];
    let (cgroup_v1_procs, cgroup_v2) = open(&v1, &v2, &mut fds);
    let attachments =
        vec![Attachment { socket: FdIndex(0), stdin: true, stdout: true, stderr: true }];
    let process = process(&["sh", "-c", "cat /proc/self/cgroup; read x"]);
    let stdin_open = true;
    let request = Exec {
        container: id,
        id: exec,
        process,
        cgroup_v1_procs,
        cgroup_v2,
        stdin_open,
        attachments,
    };
    let (pid, _pidfd) = ship.client.exec(request, fds).unwrap();
    for cgroup in v1.iter().chain(&v2) {
        assert_eq!(
            cgroup.procs().lines().take(2).collect::<Vec<_>>(), // `cat` may be the third
            [created.pid.to_string(), pid.to_string()]
        );
    }
    ours.shutdown(Shutdown::Write).unwrap();
    let text: String = frames(ours).into_iter().map(|(_, text)| text).collect();
    for line in text.lines().filter(|line| line.contains(":pids:") || line.starts_with("0::")) {
        assert!(line.ends_with(":/"), "the namespace starts at the container's cgroup: {text}");
    }
    pidfd_send_signal(&created.pidfd, Signal::KILL).unwrap();
    ship.exit(id);
}

fn signals_do_not_end_the_warden() {
    let ship = Ship::launch();
    let (_, created) = sleeper(&ship);
    let status = fs::read_to_string(format!("/proc/{}/status", created.pid)).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap();
    let pid = rustix::process::Pid::from_raw(parent.parse().unwrap()).unwrap();
    let warden = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let command = fs::read_to_string(format!("/proc/{parent}/cmdline")).unwrap();
    assert!(command.contains("warden"), "{command}");
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::PIPE, Signal::QUIT] {
        pidfd_send_signal(&warden, signal).unwrap();
    }
    assert_eq!(ship.client.list().unwrap().len(), 1);
    let mounts = fs::read_to_string(format!("/proc/{parent}/mountinfo")).unwrap();
    assert_eq!(mounts.lines().count(), 4, "{mounts}");
}

fn one_warden_at_a_socket() {
    let directory = tempfile::tempdir().unwrap();
    let (socket, program) = (directory.path().join("w.sock"), std::env::current_exe().unwrap());
    // one that was killed has left its socket
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let clients: Vec<_> = std::thread::scope(|scope| {
        let start = || Client::connect_or_start(&socket, &program, |_| {});
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for client in &clients {
        assert!(client.as_ref().unwrap().list().unwrap().is_empty());
    }
    clients[0].as_ref().unwrap().shut_down().unwrap();
    let error = clients[1].as_ref().unwrap().list().unwrap_err();
    assert!(matches!(error, WardenError::Gone(_)), "{error}");
}

fn a_client_that_does_not_read_is_dropped() {
    let ship = Ship::launch();
    let script = "dd if=/dev/zero bs=1024 count=12000 2>/dev/null | busybox tr '\\0' x; echo end";
    let (wish, mut socket) = ship.wish(&["sh", "-c", script]).attach();
    let id = wish.id;
    ship.create(wish).unwrap();
    ship.client.start(id).unwrap();
    assert_eq!(ship.exit(id).code, 0, "the container did not wait for the client");
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    assert!(bytes.len() < 12_000 * 1024, "{}", bytes.len());
    let directory = ship.directory.path().join("logs");
    let logged: u64 =
        fs::read_dir(directory).unwrap().map(|it| it.unwrap().metadata().unwrap().len()).sum();
    assert!(logged > 12_000 * 1024, "the log has everything: {logged}");
}

fn large_requests_travel_in_memory() {
    let ship = Ship::launch();
    let mut wish = ship.wish(&["sh", "-c", "echo ${#A} ${#B} ${#C}"]);
    for name in ["A", "B", "C"] {
        wish.spec.process.environment.push(format!("{name}={}", "x".repeat(100_000)));
    }
    assert_eq!(ship.run(wish), (0, "100000 100000 100000\n".into()));
}

fn many_at_once() {
    let ship = Ship::launch();
    let wishes: Vec<_> =
        (0..24).map(|_| ship.wish(&["sh", "-c", "echo $HOSTNAME; exit 4"])).collect();
    let ids: Vec<_> = wishes.iter().map(|wish| wish.id).collect();
    // `Receiver` is not shared between threads, so the threads get the client alone
    let (client, queue) = (&ship.client, std::sync::Mutex::new(wishes));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(wish) = queue.lock().unwrap().pop() else { break };
                    let Wish { id, spec, fds, .. } = wish;
                    let (log, attachments) = (Log::None, vec![]);
                    let (stdin_open, stdin_once) = (false, false);
                    let request =
                        CreateContainer { id, spec, log, stdin_open, stdin_once, attachments };
                    client.create(request, fds).unwrap();
                    client.start(id).unwrap();
                }
            });
        }
    });
    let mut ended: HashMap<Id, u8> = HashMap::new();
    while ended.len() < ids.len() {
        let Event::Exited { id, exit, .. } = ship.events.recv_timeout(PATIENCE).unwrap();
        assert_eq!(ended.insert(id, exit.code), None, "told once");
    }
    assert!(ids.iter().all(|id| ended[id] == 4));
    assert_eq!(ship.client.list().unwrap().len(), ids.len());
    ids.iter().for_each(|id| ship.client.forget(*id).unwrap());
    assert!(ship.client.list().unwrap().is_empty());
}

fn a_waiting_process_shows_nothing_of_the_warden() {
    let ship = Ship::launch();
    let wish = ship.wish(&["true"]);
    let id = wish.id;
    let created = ship.create(wish).unwrap();
    // `/proc/PID` of a process that is not dumpable belongs to the host's root, whatever its uid
    let status = fs::read_to_string(format!("/proc/{}/status", created.pid)).unwrap();
    let uid = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    assert!(uid.contains(&RANGE.first.to_string()), "{uid}");
    let owner = rustix::fs::stat(format!("/proc/{}/environ", created.pid)).unwrap().st_uid;
    assert_eq!(owner, 0);
    ship.client.forget(id).unwrap();
}

/// A detached, id-mapped clone of something of the host, as the engine makes for `-v`.
fn bind(ship: &Ship, wish: &mut Wish, source: &std::path::Path, target: &str, readonly: bool) {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, source, flags).unwrap();
    let userns = ship.client.user_namespace(RANGE).unwrap();
    set_id_mapping(tree.as_fd(), Depth::One, userns.as_fd()).unwrap();
    wish.fds.push(tree);
    let fd = FdIndex(wish.fds.len() as u16 - 1);
    let kind = MountKind::Detached { fd, is_directory: source.is_dir() };
    let target = target.to_owned();
    let (nosuid, nodev, noexec) = (false, false, false);
    wish.spec.mounts.push(Mount { target, kind, readonly, nosuid, nodev, noexec });
}

fn bind_mounts_keep_owners_and_flags() {
    let ship = Ship::launch();
    let volume = ship.directory.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("of-33"), "content\n").unwrap();
    std::os::unix::fs::chown(volume.join("of-33"), Some(33), Some(33)).unwrap();
    let mut wish = ship.wish(&[
        "sh",
        "-c",
        "stat -c %u /data/of-33; cat /made/deep/file; touch /data/new && echo rw; \
         touch /closed/new || echo ro; echo x > /made/deep/file || echo ro",
    ]);
    bind(&ship, &mut wish, &volume, "/data", false);
    bind(&ship, &mut wish, &volume, "/closed", true);
    bind(&ship, &mut wish, &volume.join("of-33"), "/made/deep/file", true);
    let (_, text) = ship.run(wish);
    let lines: Vec<_> = text.lines().filter(|line| !line.contains(": ")).collect();
    assert_eq!(lines, ["33", "content", "rw", "ro", "ro"], "{text}");
    let new = rustix::fs::stat(volume.join("new")).unwrap();
    assert_eq!((new.st_uid, new.st_gid), (0, 0));
}

fn mounts_are_not_shared_with_the_host() {
    // in this thread's own copy of the mounts, which is made as systemd makes the host's
    bulkhead_sys::unshare(rustix::thread::UnshareFlags::NEWNS).unwrap();
    use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
    let (private, shared) = (MountPropagationFlags::PRIVATE, MountPropagationFlags::SHARED);
    mount_change("/", private | MountPropagationFlags::REC).unwrap();
    mount_change("/", shared | MountPropagationFlags::REC).unwrap();
    let ship = Ship::launch();
    let volume = ship.directory.path().join("volume");
    fs::create_dir(&volume).unwrap();
    mount_bind(&volume, &volume).unwrap();
    let mut wish =
        ship.wish(&["sh", "-c", "grep -c shared: /proc/self/mountinfo; mount -t tmpfs x /data"]);
    wish.spec.process.capabilities = Capabilities(u64::MAX);
    bind(&ship, &mut wish, &volume, "/data", false);
    assert_eq!(ship.run(wish), (0, "0\n".into()));
    rustix::mount::unmount(&volume, rustix::mount::UnmountFlags::DETACH).unwrap();
}

/// What the program does when it is run as `client DIRECTORY`: starts a container and waits.
pub fn client(directory: &std::path::Path) {
    let ship = std::mem::ManuallyDrop::new(Ship::at(directory));
    let mut wish = ship.wish(&["sh", "-c", "echo before; read x; echo after; exit 6"]);
    wish.stdin_open = true;
    let id = wish.id;
    ship.create(wish).unwrap();
    ship.client.start(id).unwrap();
    println!("{id}");
    std::thread::park();
}

fn a_killed_client_loses_nothing() {
    let mut ship = Ship::launch();
    let mut program = std::process::Command::new(std::env::current_exe().unwrap());
    let mut child = program
        .arg("client")
        .arg(ship.directory.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    let id: Id = line.trim().parse().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let (client, events) = ship.another();
    drop(std::mem::replace(&mut ship.client, client));
    ship.events = events;
    let known = ship.client.list().unwrap();
    let [(known, Some(_pidfd))] = known.as_slice() else { panic!("{known:?}") };
    assert_eq!((known.id, known.state), (id, State::Running));
    let (ours, theirs) = UnixStream::pair().unwrap();
    ship.client.attach(id, theirs.into(), true, true, true).unwrap();
    (&ours).write_all(b"\n").unwrap();
    let text: String = frames(ours).into_iter().map(|(_, text)| text).collect();
    assert!(text.ends_with("after\n"), "{text:?}");
    assert_eq!(ship.exit(id).code, 6);
    assert_eq!(ship.log(id), "before\nafter\n");
}
