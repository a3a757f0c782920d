//! Named network namespaces, against iproute2 where it is installed.
//!
//! Each test has a mount namespace with an empty /run of its own, so that the machine's
//! /run/netns is not touched.
#![allow(clippy::disallowed_types, reason = "a test calls other programs as users do")]
#![allow(clippy::unwrap_used)] // a helper that fails is a test that fails

use std::os::fd::AsFd;
use std::process::Command;

use bulkhead_network::{Host, NetworkError, named};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::UnshareFlags;

/// Moves the test's thread into a mount namespace with an empty /run.
fn own_run() {
    bulkhead_sys::unshare(UnshareFlags::NEWNS).unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None).unwrap();
}

fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn has_ip() -> bool {
    Command::new("ip").arg("-V").output().is_ok()
}

fn names() -> Vec<String> {
    named::list().unwrap().into_iter().map(|(name, _)| name).collect()
}

/// The inode that identifies the network namespace of the calling thread.
fn current() -> std::path::PathBuf {
    std::fs::read_link("/proc/thread-self/ns/net").unwrap()
}

#[test]
fn names_come_and_go() {
    own_run();
    assert_eq!(names(), [""; 0]);
    named::add("netns2").unwrap();
    named::add("netns1").unwrap();
    assert_eq!(names(), ["netns1", "netns2"]);
    let error = named::add("netns1").unwrap_err();
    assert!(matches!(error, NetworkError::NamespaceExists(_)), "{error}");
    named::delete("netns1").unwrap();
    named::delete("netns2").unwrap();
    assert_eq!(names(), [""; 0]);
    // What one that was killed half-way leaves is in nobody's way.
    std::fs::write("/run/netns/half", "").unwrap();
    named::add("half").unwrap();
    named::open("half").unwrap();
    let error = named::add("half").unwrap_err();
    assert!(matches!(error, NetworkError::NamespaceExists(_)), "{error}");
    named::delete("half").unwrap();
    assert_eq!(names(), [""; 0]);
    for error in [named::delete("netns1").unwrap_err(), named::open("netns1").unwrap_err()] {
        assert_eq!(
            error.to_string(),
            "network namespace \"netns1\" does not exist; `bulkhead netns ls` lists the names"
        );
    }
}

#[test]
fn bad_names_are_refused() {
    own_run();
    for name in ["", ".", "..", "a/b", "/etc", "a\0b", &"x".repeat(256)] {
        for error in [
            named::add(name).unwrap_err(),
            named::delete(name).unwrap_err(),
            named::enter(name).unwrap_err(),
        ] {
            assert!(matches!(error, NetworkError::InvalidNamespaceName(_)), "{name:?}: {error}");
        }
    }
}

#[test]
fn a_link_in_the_directory_is_not_followed() {
    own_run();
    named::add("netns1").unwrap();
    std::os::unix::fs::symlink("/proc/self/ns/net", "/run/netns/trap").unwrap();
    named::open("trap").unwrap_err();
    named::delete("netns1").unwrap();
}

#[test]
fn entering_shows_the_namespaces_own_links() {
    own_run();
    named::add("netns1").unwrap();
    // a container's namespace under a second name is the same one
    let netns = named::open("netns1").unwrap();
    named::attach("attached", netns.as_fd()).unwrap();
    Host::open().unwrap().loopback_up(netns.as_fd()).unwrap();
    let outside = current();
    let entered = |name: &'static str| {
        std::thread::spawn(move || {
            named::enter(name).unwrap();
            let links: Vec<_> = std::fs::read_dir("/sys/class/net")
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| std::path::Path::new("/sys/class/net").join(name).is_dir())
                .collect();
            std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            (current(), links)
        })
        .join()
        .unwrap()
    };
    let (inside, links) = entered("netns1");
    assert_eq!(links, ["lo"]);
    assert_ne!(inside, outside);
    assert_eq!(entered("attached").0, inside);
    assert_eq!(current(), outside);
    named::delete("attached").unwrap();
    named::delete("netns1").unwrap();
}

#[test]
fn iproute2_sees_ours() {
    if !has_ip() {
        return bulkhead_sys::testing::skip("no iproute2");
    }
    own_run();
    named::add("ours").unwrap();
    assert_eq!(ip(&["netns", "list"]).trim(), "ours");
    assert!(ip(&["-n", "ours", "link", "show"]).contains("lo:"));
    // `ip netns set` gives a number that our list shows
    ip(&["netns", "set", "ours", "7"]);
    assert_eq!(named::list().unwrap(), [("ours".to_owned(), Some(7))]);
    assert_eq!(ip(&["netns", "list"]).trim(), "ours (id: 7)");
    let seen = ip(&["netns", "exec", "ours", "readlink", "/proc/self/ns/net"]);
    let entered = std::thread::spawn(|| {
        named::enter("ours").unwrap();
        current()
    });
    assert_eq!(entered.join().unwrap().to_str().unwrap(), seen.trim());
    ip(&["netns", "delete", "ours"]);
    assert_eq!(names(), [""; 0]);
}

#[test]
fn we_see_those_of_iproute2() {
    if !has_ip() {
        return bulkhead_sys::testing::skip("no iproute2");
    }
    own_run();
    ip(&["netns", "add", "theirs"]);
    named::add("ours").unwrap();
    assert_eq!(names(), ["ours", "theirs"]);
    let seen = ip(&["netns", "exec", "theirs", "readlink", "/proc/self/ns/net"]);
    let entered = std::thread::spawn(|| {
        named::enter("theirs").unwrap();
        current()
    });
    assert_eq!(entered.join().unwrap().to_str().unwrap(), seen.trim());
    named::delete("theirs").unwrap();
    named::delete("ours").unwrap();
    assert_eq!(ip(&["netns", "list"]), "");
}

/// What iproute2 shares the directory for: a name goes everywhere, also where a mount namespace
/// was copied in between.
#[test]
fn deleting_reaches_copied_mount_namespaces() {
    own_run();
    named::add("netns1").unwrap();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (deleted, is_deleted) = std::sync::mpsc::channel();
    let copy = std::thread::spawn(move || {
        bulkhead_sys::unshare(UnshareFlags::NEWNS).unwrap();
        let mounted = || {
            let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
            mounts.contains("/run/netns/netns1 ")
        };
        let before = mounted();
        ready.send(()).unwrap();
        is_deleted.recv().unwrap();
        (before, mounted())
    });
    is_ready.recv().unwrap();
    named::delete("netns1").unwrap();
    deleted.send(()).unwrap();
    assert_eq!(copy.join().unwrap(), (true, false));
}
