//! G: cgroups, and what uses up a resource.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use bulkhead_tests::run;

use crate::judge::{Case, Control, How, MODES, Mode, Outcome, all, each, ensure, facts, scene};
use crate::proc::each_word;
use crate::rig::Rig;

const ROOT: &[Mode] = &[Mode::Default, Mode::Host];

pub const CASES: &[Case] = &[
    facts("G1", |facts, _| {
        all([
            each_word(facts.of("cgroup writes"), &["EROFS", "EACCES"]),
            ensure(facts.number("release agents") == 0, || "a release_agent is there".to_owned()),
        ])
    }),
    facts("G2", |facts, _| each_word(facts.of("cgroup mkdir"), &["EROFS", "EACCES"])),
    facts("G3", |facts, _| each(facts, &["mount cgroup"], &["EPERM"])),
    scene(
        "G4",
        MODES,
        no_strays,
        Control::Other("a process of the host", |_| {
            stray(std::process::id(), "no-container-of-this-name")
        }),
    ),
    scene("G5", &[Mode::Default], fork_bomb, Control::Flags(&["--pids-limit", "6000"])),
    scene("G6", ROOT, |rig, flags| memory_bomb(rig, flags, "64m"), {
        Control::Other("-m 256m", |rig| memory_bomb(rig, &[], "256m"))
    }),
    scene("G7", &[Mode::Default], dies_last, Control::None("the score cannot be lowered here")),
    scene("G8", MODES, |rig, flags| fill(rig, flags, "/dev/shm/x"), {
        Control::Flags(&["--shm-size", "200m"])
    }),
    scene("G9", &[Mode::Default], log_bomb, Control::Flags(&["--log-opt", "max-size=100m"])),
    Case { id: "G10", how: How::Lacking("the file system of this machine has no project quotas") },
    scene("G11", &[Mode::Default], inotify_bomb, {
        // there all containers are one user of the kernel's, as in Docker
        Control::Flags(&["--userns=host"])
    }),
    scene(
        "G11",
        MODES,
        |rig, flags| {
            let facts = rig.probe(flags, &["descriptors", "600000"])?;
            Ok(each(&facts, &["refused"], &["EMFILE"]))
        },
        Control::Other("fewer than the limit", |rig| {
            let facts = rig.probe(&[], &["descriptors", "100"])?;
            Ok(each(&facts, &["refused"], &["EMFILE"]))
        }),
    ),
    Case { id: "G12", how: How::Lacking("300,000 connections are not made on a shared machine") },
    scene(
        "G13",
        ROOT,
        processor_hog,
        Control::Other("all in one container", |rig| {
            let box_ = rig.stay(&[], &[])?;
            let (many, one) = std::thread::scope(|scope| {
                let many = scope.spawn(|| box_.probe(&[], &["spin", "4", "2000"]));
                let one = box_.probe(&[], &["spin", "1", "2000"]);
                (many.join().expect("it does not panic"), one)
            });
            shares(many?.number("milliseconds"), one?.number("milliseconds"))
        }),
    ),
    scene("G14", ROOT, |rig, flags| exec_bomb(rig, flags, "20"), {
        Control::Other("--pids-limit 200", |rig| exec_bomb(rig, &[], "200"))
    }),
];

fn no_strays(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    let box_ = rig.stay(flags, &[])?;
    box_.exec(&["-d"], &["sleep", "999"])?.ok()?;
    rig.daemon.crash()?;
    rig.daemon.up()?;
    box_.exec(&["-d"], &["sleep", "998"])?.ok()?;
    let listed = rig.daemon.docker(&["top", &box_.id])?.ok()?;
    let title = listed.lines().next().unwrap_or_default();
    let column = title.split_whitespace().position(|word| word == "PID").unwrap_or(0);
    let pids: Vec<u32> = listed
        .lines()
        .filter_map(|line| line.split_whitespace().nth(column)?.parse().ok())
        .collect();
    let mut outcomes =
        vec![ensure(pids.len() == 3, || format!("{} processes are listed: {listed}", pids.len()))];
    for pid in pids {
        outcomes.push(stray(pid, &box_.id)?);
    }
    Ok(all(outcomes))
}

/// A process has to be in its container's cgroup in each hierarchy that the engine uses.
fn stray(pid: u32, id: &str) -> Result<Outcome> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let strays: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains(id))
        // where the engine has no business: named hierarchies
        .filter(|line| !line.contains(":name="))
        .collect();
    Ok(ensure(strays.is_empty(), || format!("process {pid} is in {}", strays.join(", "))))
}

fn fork_bomb(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    let ps = std::thread::scope(|scope| {
        let bomb = scope.spawn(|| rig.probe(flags, &["forks", "4500"]));
        let began = Instant::now();
        let listed = rig.daemon.docker(&["ps"]);
        let answered = began.elapsed();
        let forked = run(&mut Command::new("true"));
        (bomb.join().expect("it does not panic"), listed, answered, forked)
    });
    let (facts, listed, answered, forked) = ps;
    let (facts, _, _) = (facts?, listed?.ok()?, forked?.ok()?);
    Ok(all([
        ensure(facts.number("forks") <= 4096, || format!("{} processes", facts.of("forks"))),
        each(&facts, &["refused"], &["EAGAIN"]),
        ensure(answered.as_secs() < 20, || format!("ps took {answered:?}")),
    ]))
}

fn memory_bomb(rig: &Rig, flags: &[&str], limit: &str) -> Result<Outcome> {
    let bomb = [&["-m", limit, "--memory-swap", limit], flags].concat();
    let box_ = rig.stay(&bomb, &["/probe", "memory", "134217728"])?;
    let code = rig.daemon.docker(&["wait", &box_.id])?.ok()?;
    let format = "{{.State.OOMKilled}}";
    let killed = rig.daemon.docker(&["inspect", "--format", format, &box_.id])?.ok()?;
    rig.daemon.docker(&["version"])?.ok()?;
    Ok(ensure((code.as_str(), killed.as_str()) == ("137", "true"), || {
        format!("exit status {code}, OOMKilled {killed}")
    }))
}

fn dies_last(rig: &Rig, _: &[&str]) -> Result<Outcome> {
    let own = rustix::thread::capabilities(None)?;
    if !own.effective.contains(rustix::thread::CapabilitySet::SYS_RESOURCE) {
        return Ok(Outcome::Skipped("root of this machine has no CAP_SYS_RESOURCE".to_owned()));
    }
    let score = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", rig.engine()?))?;
    let score: i32 = score.trim().parse()?;
    Ok(ensure(score <= -500, || format!("the engine's oom_score_adj is {score}")))
}

fn fill(rig: &Rig, flags: &[&str], path: &str) -> Result<Outcome> {
    Ok(each(&rig.probe(flags, &["fill", path, "100000000"])?, &["fill"], &["ENOSPC"]))
}

/// 70 MB of lines, where 5 files of 10 MB are kept.
fn log_bomb(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    let line = "yes 0123456789012345678901234567890123456789012345678901234567890123456789 | head -n 900000";
    let box_ = rig.stay(flags, &["sh", "-c", line])?;
    rig.daemon.docker(&["wait", &box_.id])?.ok()?;
    let directory = rig.daemon.data().join("containers").join(&box_.id);
    let mut bytes = 0;
    for entry in std::fs::read_dir(&directory)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(all([
        ensure(bytes <= 52 << 20, || format!("{bytes} bytes of logs")),
        ensure(bytes > 1 << 20, || format!("only {bytes} bytes of logs: nothing was tried")),
    ]))
}

fn inotify_bomb(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    let bomb = rig.stay(flags, &[])?;
    let program = bulkhead_tests::program();
    let mut client = rig.daemon.inside(&program);
    let words = ["exec", &bomb.id, "/probe", "inotify", "100000"];
    let mut client = client.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let output = client.stdout.take().context("it was piped")?;
    // it keeps what it has got until its container is removed
    let is_held = BufReader::new(output).lines().any(|line| line.is_ok_and(|it| it == "held"));
    let other = rig.probe(flags, &["inotify", "1"]);
    drop(bomb);
    client.wait()?;
    let other = other?;
    Ok(all([
        ensure(is_held, || "the bomb did not go off".to_owned()),
        each(&other, &["refused"], &["none"]),
    ]))
}

fn processor_hog(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    let (hog, other) = (rig.stay(flags, &[])?, rig.stay(flags, &[])?);
    let (many, one) = std::thread::scope(|scope| {
        let many = scope.spawn(|| hog.probe(&[], &["spin", "4", "2000"]));
        let one = other.probe(&[], &["spin", "1", "2000"]);
        (many.join().expect("it does not panic"), one)
    });
    shares(many?.number("milliseconds"), one?.number("milliseconds"))
}

/// Of two processors each container gets one; in one cgroup it would be four threads to one.
fn shares(many: u64, one: u64) -> Result<Outcome> {
    Ok(ensure(one * 10 >= many * 5, || format!("{one} ms beside {many} ms of the hog")))
}

fn exec_bomb(rig: &Rig, flags: &[&str], limit: &str) -> Result<Outcome> {
    let box_ = rig.stay(&[flags, &["--pids-limit", limit]].concat(), &[])?;
    let facts = box_.probe(&[], &["forks", "100"])?;
    Ok(each(&facts, &["refused"], &["EAGAIN"]))
}
