//! Starts, ends, failures, crashes.

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use bulkhead_runtime::*;
use bulkhead_types::Id;
use bulkhead_warden::*;
use rustix::process::{Signal, pidfd_send_signal};

use crate::fixture::*;

crate::cases::cases![
    a_killed_client_loses_nothing,
    large_requests_travel_in_memory,
    many_at_once,
    signals_do_not_end_the_warden,
    one_warden_at_a_socket,
    a_warden_of_another_version_is_named,
    a_program_runs_and_its_output_is_logged,
    programs_that_cannot_be_executed,
    the_engine_may_crash,
    an_own_init_reaps_and_forwards,
    created_ones_are_forgotten,
    bad_requests_are_refused,
    short_containers_leave_no_zombies,
    a_new_warden_goes_on_with_what_runs,
    many_descriptors_are_for_the_engine_alone,
    a_new_warden_tells_how_it_ended_meanwhile,
];

fn a_program_runs_and_its_output_is_logged() {
    let ship = Ship::launch();
    assert_eq!(
        ship.sh("echo hello; echo no newline at its end | head -c 5; exit 3"),
        (3, "hello\nno ne".into())
    );
    assert_eq!(ship.sh("kill -9 $$"), (0, String::new()), "process 1 does not hear itself");
    let mut names: Vec<_> = fs::read_dir(ship.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("warden."))
        .collect();
    names.sort();
    // What is kept of an end is in memory until it is forgotten: a tmpfs must not fill up.
    assert_eq!(names, ["warden.lock", "warden.log", "warden.sock", "warden.starting"]);
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
        spec.id_range = Some(bulkhead_types::IdMap::new(u32::MAX - 10, 20));
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
    assert!(refused(&|spec| spec.mounts.push(at_passwd.clone())).contains("mounting \"tmpfs\""));
    assert!(ship.client.list().unwrap().is_empty(), "nothing is left of them");
    // a link of the image cannot lead a mount out, nor redirect /proc
    let root = ship.directory.path().join("root");
    fs::remove_dir(root.join("proc")).ok();
    std::os::unix::fs::symlink("/etc", root.join("proc")).unwrap();
    assert!(refused(&|_| {}).contains("\"proc\" must be mounted on ordinary directory"));
    fs::remove_file(root.join("proc")).unwrap();
    assert_eq!(ship.sh("true").0, 0);
    let (container, _created) = sleeper(&ship);
    assert!(matches!(ship.client.forget(container), Err(WardenError::Refused(_))));
    assert!(matches!(ship.client.shut_down(), Err(WardenError::Refused(_))));
    // as containerd's shim: clients ask without having looked
    ship.client.resize(container, 1, 1).unwrap();
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
        let start = || Client::connect_or_start(&socket, &program, |_| {}, || {});
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

fn a_warden_of_another_version_is_named() {
    use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType};
    let directory = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    // one from before there was a hello lets go of whoever says one
    for (name, hello) in [("old", None), ("new", Some("bulkhead-warden 999"))] {
        let path = directory.path().join(name);
        let listener = net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        net::listen(&listener, 1).unwrap();
        let error = std::thread::scope(|scope| {
            scope.spawn(|| {
                let client = net::accept(&listener).unwrap();
                net::recv(&client, &mut [0; 64][..], RecvFlags::empty()).unwrap();
                if let Some(hello) = hello {
                    net::send(&client, hello.as_bytes(), SendFlags::empty()).unwrap();
                }
            });
            Client::connect_or_start(&path, &program, |_| {}, || {}).unwrap_err()
        });
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let WardenError::OtherVersion { pid, protocol } = error else { panic!("{error}") };
        assert_eq!((pid, protocol), (own, hello.map(|_| 999)));
        assert!(error.to_string().contains("`bulkhead down` with that version"), "{error}");
    }
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
                    let request = CreateContainer {
                        id,
                        spec,
                        log,
                        stdin_open,
                        stdin_once,
                        attachments,
                        answer_early: true,
                    };
                    client.create(request, fds).unwrap();
                    client.start(id).unwrap();
                }
            });
        }
    });
    let mut ended: HashMap<Id, u8> = HashMap::new();
    while ended.len() < ids.len() {
        let Event::Exited { id, exit, .. } = ship.events.recv_timeout(TIMEOUT).unwrap();
        assert_eq!(ended.insert(id, exit.code), None, "told once");
    }
    assert!(ids.iter().all(|id| ended[id] == 4));
    assert_eq!(ship.client.list().unwrap().len(), ids.len());
    ids.iter().for_each(|id| ship.client.forget(*id).unwrap());
    assert!(ship.client.list().unwrap().is_empty());
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

fn short_containers_leave_no_zombies() {
    let ship = Ship::launch();
    let (_, created) = sleeper(&ship);
    for _ in 0..100 {
        assert_eq!(ship.sh("exit 3").0, 3);
    }
    let warden = parent(created.pid);
    let zombies = || children(warden).into_iter().filter(|pid| is_zombie(*pid)).count();
    // One may be a moment old.
    let deadline = std::time::Instant::now() + TIMEOUT;
    while zombies() != 0 {
        assert!(std::time::Instant::now() < deadline, "{} zombies", zombies());
        ship.client.compartments(None).unwrap();
    }
}

fn is_zombie(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:\tZ"))
}

/// Kills the warden that made this container, and starts another.
pub fn kill_warden(ship: &Ship, of: u32) {
    let pid = rustix::process::Pid::from_raw(parent(of) as i32).unwrap();
    let warden = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    pidfd_send_signal(&warden, Signal::KILL).unwrap();
    await_end(&warden);
    assert!(matches!(ship.client.list(), Err(WardenError::Gone(_))));
    assert!(!ship.client.answers());
    ship.client.reconnect().unwrap();
    ship.client.reconnect().unwrap();
    assert!(ship.client.list().unwrap().is_empty());
}

fn a_new_warden_goes_on_with_what_runs() {
    for terminal in [false, true] {
        let ship = Ship::launch();
        let script = "echo before; read x; echo read $x; read x; echo after; exit 6";
        let (mut wish, mut socket) = ship.wish(&["sh", "-c", script]).attach();
        (wish.spec.process.terminal, wish.stdin_open) = (terminal, true);
        let id = wish.id;
        let created = ship.create(wish).unwrap();
        let handover = ship.client.start(id).unwrap().expect("descriptors are not short");
        let mut first = vec![0; if terminal { 8 } else { 15 }];
        socket.read_exact(&mut first).unwrap();
        kill_warden(&ship, created.pid);
        socket.read_to_end(&mut first).unwrap();
        ship.client.adopt(&handover).unwrap();
        ship.client.adopt(&handover).unwrap();
        let known = ship.client.list().unwrap();
        let [(known, Some(_))] = known.as_slice() else { panic!("{known:?}") };
        assert_eq!((known.id, known.pid, known.state), (id, created.pid, State::Running));
        let (exec, output) =
            super::exec::exec(&ship, id, process(&["sh", "-c", "hostname; exit 4"])).unwrap();
        assert_eq!(payload(output, false), "box\n");
        assert_eq!(ship.exit(exec).code, 4);
        assert_eq!(ship.client.namespaces(id).unwrap().len(), 8);
        // again, and from what the second one hands over
        let handover = ship.client.handover(id).unwrap();
        let (other, second) = sleeper(&ship);
        kill_warden(&ship, second.pid);
        pidfd_send_signal(&second.pidfd, Signal::KILL).unwrap();
        await_end(&second.pidfd);
        assert!(matches!(ship.client.handover(other), Err(WardenError::Unknown(_))));
        ship.client.adopt(&handover).unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(TIMEOUT)).unwrap();
        ship.client.attach(id, theirs.into(), true, true, true).unwrap();
        ours.write_all(b"this\n\n").unwrap();
        let text = payload(ours, terminal);
        let want = if terminal { "after\r\n" } else { "read this\nafter\n" };
        assert!(text.ends_with(want), "{text:?}");
        assert_eq!(ship.exit(id).code, 6);
        let log = ship.log(id);
        assert!(log.starts_with("before") && log.ends_with(want), "{log:?}");
        ship.client.forget(id).unwrap();
        assert_eq!(ship.sh("echo well"), (0, "well\n".into()));
    }
}

fn many_descriptors_are_for_the_engine_alone() {
    let ship = Ship::launch();
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    assert_eq!(own.current, own.maximum);
    assert_eq!(ship.sh("ulimit -Sn").1, format!("{USUAL_DESCRIPTORS}\n"));
}

fn a_new_warden_tells_how_it_ended_meanwhile() {
    let ship = Ship::launch();
    let run = |script: &str| {
        let wish = ship.wish(&["sh", "-c", script]);
        let id = wish.id;
        let created = ship.create(wish).unwrap();
        (id, ship.client.start(id).unwrap().unwrap(), created)
    };
    let script = "trap 'echo last; exit 3' TERM; echo up; while :; do sleep 1000 & wait; done";
    let (told, told_handover, created) = run(script);
    let (killed, killed_handover, killed_created) = run("sleep 1000");
    let up = || fs::read_to_string(ship.directory.path().join("logs").join(Ship::log_name(told)));
    let deadline = std::time::Instant::now() + TIMEOUT;
    while !up().unwrap().contains("up") {
        assert!(std::time::Instant::now() < deadline);
        ship.client.list().unwrap();
    }
    kill_warden(&ship, created.pid);
    pidfd_send_signal(&created.pidfd, Signal::TERM).unwrap();
    pidfd_send_signal(&killed_created.pidfd, Signal::KILL).unwrap();
    await_end(&created.pidfd);
    await_end(&killed_created.pidfd);
    ship.client.adopt(&told_handover).unwrap();
    assert_eq!(ship.exit(told).code, 3);
    assert_eq!(ship.log(told), "up\nlast\n", "what was written without a warden is logged");
    ship.client.adopt(&killed_handover).unwrap();
    assert_eq!(ship.exit(killed).code, 137);
}
