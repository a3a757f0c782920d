//! A: what a container sees of others' processes, names, clocks and links.

use anyhow::Result;

use crate::judge::{Case, Control, Mode, Outcome, all, each, ensure, facts, scene};
use crate::rig::{Facts, Rig};

pub const CASES: &[Case] = &[
    facts("A1", own_namespaces),
    facts("A2", |facts, _| {
        // the probe, and whatever starts it
        let alone = ensure(facts.number("processes") <= 2, || {
            format!("{} processes are seen", facts.of("processes"))
        });
        all([alone, each(facts, &["kill host"], &["ESRCH"])])
    }),
    facts("A3", |facts, _| each(facts, &["sethostname", "setdomainname"], &["EPERM"])),
    facts("A4", |facts, _| {
        all([
            each(facts, &["unshare user", "unshare user i386"], &["EPERM"]),
            // without a filter the kernel has no such calls
            each(facts, &["unshare user x32"], &["EPERM", "ENOSYS"]),
        ])
    }),
    facts("A5", |facts, _| {
        all([each(facts, &["clone user"], &["EPERM"]), each(facts, &["clone3"], &["ENOSYS"])])
    }),
    facts("A6", |facts, _| each(facts, &["setns own", "setns init"], &["EPERM", "EACCES"])),
    scene(
        "A7",
        &[Mode::Default],
        nested_users,
        Control::Flags(&["--privileged", "--cgroupns=host"]),
    ),
    facts("A8", |facts, _| {
        let seen = (facts.of("abstract canary"), facts.of("abstract bulkhead"));
        ensure(seen == ("0", "0"), || format!("abstract sockets of the host: {seen:?}"))
    }),
    scene("A8", &[Mode::Host], no_sockets_of_ours, Control::None("the engine makes none at all")),
    facts("A9", |facts, _| {
        let queues = facts.of("queues");
        all([
            // what is looked for without IPC_CREAT and is not there
            ensure(facts.of("shm of the host") == "ENOENT", || {
                format!("the host's segment: {}", facts.of("shm of the host"))
            }),
            ensure(queues.is_empty(), || format!("the host's queues: {queues}")),
        ])
    }),
    scene("A10", &[Mode::Default, Mode::Host, Mode::User], only_loopback, {
        Control::Other("--network bridge", |rig| links(rig, &[]))
    }),
    facts("A11", |facts, _| {
        all([
            ensure(facts.of("ns time") != facts.of("host ns time"), || {
                "the clocks are the host's".to_owned()
            }),
            each(facts, &["settimeofday"], &["EPERM"]),
        ])
    }),
    scene("A12", &[Mode::Default], tracing_a_neighbour, {
        Control::Other("exec in the same container", |rig| {
            let box_ = rig.stay(&[], &[])?;
            let shell = box_.exec(&["-d"], &["sleep", "1000"]);
            shell?.ok()?;
            judged(&box_.probe(&[], &["trace", &youngest_sleep(&box_.exec(&[], &["ps"])?.ok()?)])?)
        })
    }),
];

fn own_namespaces(facts: &Facts, mode: Mode) -> Outcome {
    let shared: Vec<&str> = ["pid", "net", "ipc", "mnt", "uts", "cgroup", "time", "user"]
        .into_iter()
        .filter(|kind| {
            facts.of(&format!("ns {kind}")) == facts.of(&format!("host ns {kind}"))
                && !(*kind == "user" && mode == Mode::Host)
        })
        .collect();
    ensure(shared.is_empty(), || format!("shared with the host: {}", shared.join(" ")))
}

/// CVE-2022-0492: with SYS_ADMIN of its own user namespace a container mounts cgroup v1, where a
/// program to be run by the host is named.
fn nested_users(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    let facts = rig.facts(&[flags, &["--cap-add", "SYS_ADMIN"]].concat())?;
    Ok(all([
        // the kernel lets it mount what it is the root of; there is no such file in it
        ensure(!matches!(facts.of("release_agent of a mount"), "ok"), || {
            "a release_agent can be written to".to_owned()
        }),
        ensure(facts.number("release agents") == 0, || "a release_agent is there".to_owned()),
    ]))
}

/// CVE-2020-15257: with the host's network, the engine's own abstract sockets would be there.
fn no_sockets_of_ours(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    let facts = rig.facts(&[flags, &["--net=host"]].concat())?;
    // that others' are seen shows that the look itself works
    let seen = (facts.of("abstract canary"), facts.of("abstract bulkhead"));
    Ok(ensure(seen == ("1", "0"), || format!("canaries and sockets of the engine: {seen:?}")))
}

fn only_loopback(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    links(rig, &[flags, &["--network", "none"]].concat())
}

fn links(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    let links = rig.run(flags, &["ls", "/sys/class/net"])?.ok()?;
    Ok(ensure(links == "lo", || format!("links: {}", links.replace('\n', " "))))
}

fn tracing_a_neighbour(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    let neighbour = rig.stay(flags, &[])?;
    let share = format!("--pid=container:{}", neighbour.id);
    let flags = [flags, &[share.as_str()]].concat();
    let own = rig.run(&flags, &["readlink", "/proc/self/ns/user"])?.ok()?;
    if own == neighbour.exec(&[], &["readlink", "/proc/self/ns/user"])?.ok()? {
        let reason = "who asks for another's pid namespace is in its user namespace too";
        return Ok(Outcome::Skipped(reason.to_owned()));
    }
    judged(&rig.probe(&flags, &["trace", "1"])?)
}

fn judged(facts: &Facts) -> Result<Outcome> {
    Ok(each(facts, &["attach", "memory"], &["EPERM", "EACCES"]))
}

/// The pid of the last `sleep` in a list of `ps`.
fn youngest_sleep(list: &str) -> String {
    let found = list.lines().rev().find(|line| line.contains("sleep"));
    found.and_then(|line| line.split_whitespace().next()).unwrap_or("0").to_owned()
}
