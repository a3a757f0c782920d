//! Landlock: each restriction beside a control without it.

use std::fs;
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use bulkhead_runtime::*;
use bulkhead_sys::landlock::abi;
use bulkhead_sys::testing::skip;

use super::exec::exec;
use crate::fixture::*;

crate::cases::cases![
    what_is_read_only_cannot_be_written,
    only_named_programs_are_executed,
    tcp_is_limited_to_ports,
    what_lies_outside_is_out_of_reach,
    a_policy_that_cannot_be_kept_is_an_error,
];

/// Whether this kernel has what the cases need; counted as skipped if not.
fn is_missing(needed: u32) -> bool {
    let abi = abi();
    if abi < needed {
        skip(&format!("Landlock has ABI {abi} here, not {needed}"));
    }
    abi < needed
}

fn run(ship: &Ship, policy: Option<&str>, script: &str) -> (u8, String) {
    let wish = ship.wish(&["sh", "-c", script]);
    ship.run(wish.change(|spec| spec.process.landlock = policy.map(parse)))
}

fn parse(policy: &str) -> Landlock {
    Landlock::parse(policy).unwrap()
}

fn what_is_read_only_cannot_be_written() {
    if is_missing(5) {
        return;
    }
    let ship = Ship::launch();
    let script = "exec 2>&1; cat /etc/data; (echo x >/etc/new) || echo sealed; rm -f /etc/new;
        (echo y >/dev/shm/a && cat /dev/shm/a) || echo sealed";
    let sealed = "sh: can't create /etc/new: Permission denied\nsealed\n";
    for (no_new_privileges, seccomp) in
        [(false, Seccomp::Unconfined), (false, Seccomp::Default), (true, Seccomp::Default)]
    {
        let with = |policy: Option<&str>| {
            let wish = ship.wish(&["sh", "-c", script]).change(|spec| {
                spec.process.landlock = policy.map(parse);
                spec.process.no_new_privileges = no_new_privileges;
                spec.process.seccomp = seccomp.clone();
            });
            ship.run(wish).1
        };
        assert_eq!(with(None), "no program\ny\n");
        assert_eq!(with(Some("ro:/,rw:/dev/shm")), format!("no program\n{sealed}y\n"));
        let shm = "sh: can't create /dev/shm/a: Permission denied\nsealed\n";
        assert_eq!(with(Some("ro:/")), format!("no program\n{sealed}{shm}"));
    }
    // and for one that comes later
    let (container, _) = sleeper(&ship);
    for (policy, want) in [(None, ""), (Some("ro:/"), sealed)] {
        let mut process =
            process(&["sh", "-c", "exec 2>&1; (echo x >/etc/new) || echo sealed; rm -f /etc/new"]);
        process.landlock = policy.map(parse);
        let (id, socket) = exec(&ship, container, process).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let text: String = frames(socket).into_iter().map(|(_, text)| text).collect();
        assert_eq!(text, want);
        ship.exit(id);
        ship.client.forget(id).unwrap();
    }
}

fn only_named_programs_are_executed() {
    if is_missing(1) {
        return;
    }
    let ship = Ship::launch();
    let root = ship.directory.path().join("root");
    fs::copy("/bin/busybox", root.join("usr/none/busybox")).unwrap();
    let script = "exec 2>&1; /usr/none/busybox true && echo ran; echo x >/etc/new && mv /etc/new /usr/new \
                  && rm /usr/new && echo moved";
    assert_eq!(run(&ship, None, script), (0, "ran\nmoved\n".to_owned()));
    let (code, text) = run(&ship, Some("exec:/bin"), script);
    assert_eq!(text, "sh: /usr/none/busybox: Permission denied\nmoved\n");
    assert_eq!(code, 0, "files are as free as before");
}

fn tcp_is_limited_to_ports() {
    if is_missing(4) {
        return;
    }
    let ship = Ship::launch();
    let run = |policy: Option<&str>| {
        let script = "exec 2>&1; busybox ifconfig lo up
            for port in 80 81; do busybox nc 127.0.0.1 $port </dev/null 2>&1; done
            busybox nc -l -p 90 -e true & until busybox nc 127.0.0.1 90 </dev/null 2>/dev/null
            do test -d /proc/$! || break; done; wait $! && echo served
            busybox nc -l -p 91 -e true 2>&1 & until busybox nc 127.0.0.1 91 </dev/null 2>/dev/null
            do test -d /proc/$! || break; done; wait $! && echo served";
        let wish = ship.wish(&["sh", "-c", script]).change(|spec| {
            spec.process.landlock = policy.map(parse);
            let admin = ["NET_ADMIN".to_owned()];
            spec.process.capabilities =
                capabilities::resolve(Capabilities::DEFAULT, &admin, &[], false).unwrap();
        });
        ship.run(wish).1
    };
    let refused = "nc: can't connect to remote host (127.0.0.1): Connection refused\n";
    let denied = "nc: can't connect to remote host (127.0.0.1): Permission denied\n";
    let served = "served\n";
    assert_eq!(run(None), [refused, refused, served, served].concat());
    let connect = run(Some("connect:81,connect:90,connect:91"));
    assert_eq!(connect, [denied, refused, served, served].concat());
    let unbound = "nc: bind: Permission denied\n";
    assert_eq!(run(Some("bind:90")), [refused, refused, served, unbound].concat());
    let none = run(Some("connect:80,connect:90,bind:none"));
    assert!(none.starts_with(&[refused, denied].concat()), "{none}");
    assert!(!none.contains(served), "{none}");
}

fn what_lies_outside_is_out_of_reach() {
    if is_missing(6) {
        return;
    }
    let ship = Ship::launch();
    let root = ship.directory.path().join("root");
    fs::copy(std::env::current_exe().unwrap(), root.join("bin/test")).unwrap();
    let (container, created) = sleeper(&ship);
    // made by a process outside, in the container's own network namespace
    let net = fs::File::open(format!("/proc/{}/ns/net", created.pid)).unwrap();
    let listener = std::thread::spawn(move || {
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&net), kind).unwrap();
        UnixListener::bind_addr(&SocketAddr::from_abstract_name("outside").unwrap()).unwrap()
    });
    let _listener = listener.join().unwrap();
    for (policy, want) in [
        (None, "connected\nsignalled\n"),
        (Some("scope"), "Operation not permitted\nsh: can't kill pid 1: Operation not permitted\n"),
        (Some("ro:/"), "connected\nsignalled\n"),
    ] {
        let script = "exec 2>&1; /bin/test abstract outside; kill -0 1 && echo signalled";
        let mut process = process(&["sh", "-c", script]);
        process.landlock = policy.map(parse);
        let (id, socket) = exec(&ship, container, process).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let text: String = frames(socket).into_iter().map(|(_, text)| text).collect();
        assert_eq!(text, want, "{policy:?}");
        ship.exit(id);
        ship.client.forget(id).unwrap();
    }
}

/// In the container: says whether an abstract socket can be connected to.
pub fn connect_to_abstract(name: &str) -> std::process::ExitCode {
    let address = SocketAddr::from_abstract_name(name).unwrap();
    match UnixStream::connect_addr(&address) {
        Ok(_) => println!("connected"),
        Err(error) => {
            let text = error.to_string();
            println!("{}", text.split(" (").next().unwrap_or_default());
        }
    }
    std::process::ExitCode::SUCCESS
}

fn a_policy_that_cannot_be_kept_is_an_error() {
    if is_missing(5) {
        return;
    }
    let ship = Ship::launch();
    for (policy, want) in [
        (
            "ro:/,rw:/none/such",
            "landlock: the path \"/none/such\" of the policy: no such file or directory",
        ),
        ("exec:/etc", "exec: \"true\": permission denied"),
    ] {
        let wish = ship.wish(&["true"]).change(|spec| spec.process.landlock = Some(parse(policy)));
        let id = wish.id;
        let error = ship.create(wish).and_then(|_| ship.client.start(id)).unwrap_err();
        assert_eq!(error.to_string(), want);
        let _ = ship.client.forget(id);
    }
    // a link of the image leads to a place of the container
    let root = ship.directory.path().join("root");
    std::os::unix::fs::symlink("/../../../../../../../etc", root.join("link")).unwrap();
    let script = "exec 2>&1; (echo x >/etc/new) && echo wrote; (echo x >/bin/new) || echo sealed";
    let (_, text) = run(&ship, Some("ro:/,rw:/link"), script);
    assert_eq!(text, "wrote\nsh: can't create /bin/new: Permission denied\nsealed\n");
}
