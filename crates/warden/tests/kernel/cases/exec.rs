//! More processes in a running container.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use bulkhead_runtime::*;
use bulkhead_types::Id;
use bulkhead_warden::*;
use rustix::process::{Signal, pidfd_send_signal};

use crate::fixture::*;

crate::cases::cases![
    exec_joins_the_container,
    exec_with_a_terminal,
    exec_beside_host_namespaces,
    one_beside_an_end_is_answered,
    execs_end_with_the_warden,
    a_bound_one_ends_with_what_it_started,
    a_bound_one_ends_with_its_client,
];

pub fn exec(
    ship: &Ship,
    container: Id,
    process: ProcessSpec,
) -> Result<(Id, UnixStream), WardenError> {
    exec_with_pidfd(ship, container, process).map(|(id, _, socket)| (id, socket))
}

fn exec_with_pidfd(
    ship: &Ship,
    container: Id,
    process: ProcessSpec,
) -> Result<(Id, OwnedFd, UnixStream), WardenError> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(TIMEOUT)).unwrap();
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
        lifetime: Lifetime::Free,
    };
    let (pid, pidfd) = ship.client.exec(request, vec![theirs.into()])?;
    assert!(pid > 1);
    Ok((id, pidfd, ours))
}

/// Also those of which nobody has heard yet: nobody else would ever end them.
fn execs_end_with_the_warden() {
    let ship = Ship::launch();
    let (_, created) = sleeper(&ship);
    let others = |ship: &Ship| -> Vec<OwnedFd> {
        let mut pidfds = Vec::new();
        for user in ["", "web"] {
            for no_new_privileges in [false, true] {
                let mut process = process(&["sh", "-c", "echo up; exec sleep 1000"]);
                process.user.name = user.to_owned();
                process.seccomp = Seccomp::Default;
                process.no_new_privileges = no_new_privileges;
                let container = ship.client.list().unwrap()[0].0.id;
                let (_, pidfd, mut socket) = exec_with_pidfd(ship, container, process).unwrap();
                socket.read_exact(&mut [0; 11]).unwrap();
                pidfds.push(pidfd);
            }
        }
        pidfds
    };
    let execs = others(&ship);
    super::lifecycle::kill_warden(&ship, created.pid);
    execs.iter().for_each(await_end);
    // The container has a life of its own.
    assert!(fs::exists(format!("/proc/{}/root/bin/sh", created.pid)).unwrap());
    pidfd_send_signal(&created.pidfd, Signal::KILL).unwrap();
    await_end(&created.pidfd);
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

fn exec_beside_host_namespaces() {
    let ship = Ship::launch();
    let private = |_: &mut Namespaces| {};
    let all = |namespaces: &mut Namespaces| {
        let (host, mnt) = (Source::Host, Source::Private);
        *namespaces = Namespaces {
            pid: host,
            net: host,
            ipc: host,
            mnt,
            uts: host,
            user: host,
            cgroup: host,
            time: host,
        };
    };
    for (change, name) in [
        (&private as &dyn Fn(&mut Namespaces), "box".to_owned()),
        (&all, rustix::system::uname().nodename().to_str().unwrap().to_owned()),
    ] {
        let wish = ship.unmapped(ship.wish(&["sleep", "1000"])).change(|spec| {
            change(&mut spec.namespaces);
            spec.namespaces.user = Source::Host;
            spec.id_range = None;
            spec.sysctls.clear();
        });
        let container = wish.id;
        let created = ship.create(wish).unwrap();
        ship.client.start(container).unwrap();
        let script = "id -u; hostname; echo > /dev/stdout; cat /proc/1/comm";
        let (id, socket) = exec(&ship, container, process(&["sh", "-c", script])).unwrap();
        let text: String = frames(socket).into_iter().map(|(_, text)| text).collect();
        assert!(text.starts_with(&format!("0\n{name}\n\n")), "{text}");
        assert_eq!(ship.exit(id).code, 0);
        pidfd_send_signal(&created.pidfd, Signal::KILL).unwrap();
        assert_eq!(ship.exit(container).code, 137);
    }
}

fn one_beside_an_end_is_answered() {
    let ship = Ship::launch();
    for _ in 0..80 {
        let (container, created) = sleeper(&ship);
        let (sender, answers) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let (ship, sender) = (&ship.client, sender.clone());
                scope.spawn(move || {
                    let request = Exec {
                        container,
                        id: Id::random(),
                        process: process(&["true"]),
                        cgroup_v1_procs: vec![],
                        cgroup_v2: None,
                        stdin_open: true,
                        attachments: vec![],
                        lifetime: Lifetime::Free,
                    };
                    sender.send(ship.exec(request, vec![]).is_ok()).unwrap();
                });
            }
            pidfd_send_signal(&created.pidfd, Signal::KILL).unwrap();
            assert_eq!(ship.exit(container).code, 137);
            ship.client.forget(container).unwrap();
            for _ in 0..3 {
                answers.recv_timeout(TIMEOUT).expect("every request has an answer");
            }
        });
    }
    let warden_has_nothing = || {
        let execs = ship.events.try_iter().map(|Event::Exited { id, .. }| id);
        execs.for_each(|id| drop(ship.client.forget(id)));
        ship.client.list().unwrap().is_empty()
    };
    assert!(warden_has_nothing());
}

/// A probe in a container: its pidfd, and a socket that ends when nothing of it is left.
fn bound(client: &Client, container: Id, script: &str) -> (Id, OwnedFd, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(TIMEOUT)).unwrap();
    let id = Id::random();
    let request = Exec {
        container,
        id,
        process: process(&["sh", "-c", script]),
        cgroup_v1_procs: vec![],
        cgroup_v2: None,
        stdin_open: false,
        attachments: vec![Attachment {
            socket: FdIndex(0),
            stdin: false,
            stdout: true,
            stderr: true,
        }],
        lifetime: Lifetime::Bound,
    };
    let (_, pidfd) = client.exec(request, vec![theirs.into()]).unwrap();
    (id, pidfd, ours)
}

/// Waits until so many processes are in the pid namespace of a container.
fn await_processes(created: &Created, wanted: usize) {
    let deadline = std::time::Instant::now() + TIMEOUT;
    while processes(created) != wanted {
        assert!(std::time::Instant::now() < deadline, "{} are there", processes(created));
        std::thread::yield_now();
    }
}

fn processes(created: &Created) -> usize {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(&created.pid.to_string()).unwrap();
    // What process 1 of these containers does not reap has ended all the same.
    let is_alive = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    };
    let all = fs::read_dir("/proc").unwrap().flatten();
    let pids = all.map(|entry| entry.file_name().to_string_lossy().into_owned());
    pids.filter(|pid| namespace(pid).as_ref() == Some(&own) && is_alive(pid)).count()
}

fn a_bound_one_ends_with_what_it_started() {
    let ship = Ship::launch();
    let (container, created) = sleeper(&ship);
    // By itself: what it leaves goes too, and nothing is kept of it.
    let (id, _, socket) = bound(&ship.client, container, "sleep 500 & echo x; exit 3");
    assert_eq!(frames(socket), [(1, "x\n".into())]);
    assert_eq!(ship.exit(id).code, 3);
    await_processes(&created, 1);
    assert!(matches!(ship.client.forget(id), Err(WardenError::Unknown(_))));
    // When it is told to.
    let (id, pidfd, mut socket) = bound(&ship.client, container, "sleep 500 & echo x; sleep 500");
    let mut first = [0; 10];
    socket.read_exact(&mut first).unwrap();
    assert_eq!(first, *b"\x01\0\0\0\0\0\0\x02x\n");
    ship.client.end(id).unwrap();
    assert_eq!(ship.exit(id).code, 137);
    await_end(&pidfd);
    await_processes(&created, 1);
    assert!(matches!(ship.client.end(id), Err(WardenError::Unknown(_))));
    // One that is not bound is the user's.
    let (id, _socket) = exec(&ship, container, process(&["sleep", "500"])).unwrap();
    assert!(matches!(ship.client.end(id), Err(WardenError::Refused(_))));
}

fn a_bound_one_ends_with_its_client() {
    let ship = Ship::launch();
    let (container, created) = sleeper(&ship);
    let (free, _socket) = exec(&ship, container, process(&["sleep", "500"])).unwrap();
    let (other, _events) = ship.another();
    let (id, pidfd, socket) = bound(&other, container, "sleep 500 & sleep 500");
    drop(other);
    await_end(&pidfd);
    assert!(frames(socket).is_empty());
    assert_eq!(ship.exit(id).code, 137, "its end is told to who is there");
    // the container's own, and the exec that nobody bound
    await_processes(&created, 2);
    assert!(matches!(ship.client.forget(id), Err(WardenError::Unknown(_))));
    assert!(ship.client.forget(free).is_err(), "it runs");
}
