//! H: exec, terminals, descriptors, and the engine's own program.

use std::process::Command;

use anyhow::{Context, Result, ensure as require};
use bulkhead_tests::bundle::{Bundle, Container, Runtime};
use bulkhead_tests::run;

use crate::judge::{Case, Control, How, MODES, Mode, Outcome, all, each, ensure, scene};
use crate::rig::{Facts, Rig};

const ROOT: &[Mode] = &[Mode::Default, Mode::Host];

pub const CASES: &[Case] = &[
    scene("H1", MODES, descriptors, Control::Other("--preserve-fds 1", |_| created(1))),
    scene("H2", &[Mode::Default], |_, _| created(0), {
        Control::Other("--preserve-fds 1", |_| created(1))
    }),
    scene(
        "H3",
        ROOT,
        own_program,
        Control::Other("a program of the container's own", |rig| {
            let found = reopened(rig, &[], "/tmp/fifo-probe race")?;
            Ok(ensure(found != "ok", || "it can be opened for writing".to_owned()))
        }),
    ),
    scene("H4", &[Mode::Default], |_, _| needs_no_library(&bulkhead_tests::program()), {
        Control::Other("a dynamic program", |_| needs_no_library("/usr/bin/env".as_ref()))
    }),
    scene(
        "H5",
        ROOT,
        own_terminal,
        Control::Other("no terminal", |rig| {
            Ok(each(&rig.probe(&[], &["terminal"])?, &["terminal is the container's"], &["true"]))
        }),
    ),
    scene("H6", ROOT, |rig, flags| Ok(watched(rig, flags)?.0), {
        Control::Other("programs after their exec", |rig| Ok(watched(rig, &[])?.1))
    }),
    Case { id: "H7", how: How::Lacking("20,000 calls take more than the suite's four minutes") },
    scene(
        "H8",
        ROOT,
        no_exec,
        Control::Other("a running container", |rig| {
            let box_ = rig.stay(&[], &[])?;
            let said = box_.exec(&[], &["true"])?;
            Ok(ensure(said.code != 0, || "exec works".to_owned()))
        }),
    ),
    scene(
        "H9",
        &[Mode::Default],
        no_escapes,
        Control::Other("`logs`, which is raw", |rig| {
            let box_ = rig.stay(&[], &["printf", "\x1b]52;c;Y2FuYXJ5\x07"])?;
            rig.daemon.docker(&["wait", &box_.id])?.ok()?;
            Ok(no_control(&rig.daemon.bulkhead(&["logs", &box_.id])?.stdout))
        }),
    ),
];

fn descriptors(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    let box_ = rig.stay(flags, &[])?;
    let context = rig.daemon.directory().join("context-h1");
    std::fs::create_dir_all(&context)?;
    std::fs::write(context.join("Dockerfile"), "FROM probe\nRUN [\"/probe\", \"listen\"]\n")?;
    let path = context.to_string_lossy();
    let built = rig.daemon.docker(&["build", "--no-cache", "-t", "described", &path])?.ok()?;
    let found = [
        ("run", rig.probe(flags, &["listen"])?),
        ("exec", box_.probe(&[], &["listen"])?),
        ("build", Facts::parse(&built)),
    ];
    // the directory itself is 3
    Ok(all(found.map(|(path, facts)| {
        let open = facts.of("descriptors").to_owned();
        ensure(open == "0 1 2 3", || format!("{path} has {open}"))
    })))
}

/// What the first process holds between `create` and `start`, as the host sees it.
fn created(preserved: usize) -> Result<Outcome> {
    let bundle = Bundle::new(&["true"])?;
    let container = Container::new(&Runtime::bulkhead(), &bundle)?;
    let path = bundle.path().to_string_lossy().into_owned();
    let (root, count) = (bundle.beside("state"), preserved.to_string());
    // 3 is the shell's, so that there is something to preserve
    let line = "exec 3</etc; exec \"$@\" >/dev/null 2>&1";
    let program = Runtime::bulkhead().command(&root);
    let mut create = Command::new("sh");
    create.args(["-c", line, "sh"]).arg(program.get_program()).args(program.get_args());
    create.args(["create", "--preserve-fds", &count, "--bundle", &path, &container.id]);
    run(&mut create)?.ok()?;
    let pid = container.state()?["pid"].as_u64().context("a pid")?;
    let mut open = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let target = std::fs::read_link(entry.path())?.display().to_string();
        open.push((entry.file_name().to_string_lossy().into_owned(), target));
    }
    open.sort();
    // its own sockets and mounts close at its exec; a directory of the host would be a way out
    let wrong: Vec<&(String, String)> = open
        .iter()
        .filter(|(fd, target)| {
            !matches!(fd.as_str(), "0" | "1" | "2")
                && !["socket:", "pipe:", "/proc", "/dev/null", "anon_inode:"]
                    .iter()
                    .any(|known| target.starts_with(known))
                // a detached mount's root, and its /dev/null
                && !matches!(target.as_str(), "/" | "/null")
        })
        .collect();
    Ok(ensure(wrong.is_empty(), || format!("holds {wrong:?}")))
}

/// CVE-2019-5736: the program of a container is the program that starts it. It may run, but what is
/// then seen of its file must not be open for writing.
fn own_program(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    let sum = || run(Command::new("sha256sum").arg(bulkhead_tests::program()))?.ok();
    let before = sum()?;
    let found = reopened(rig, flags, "/proc/self/exe oci --log /tmp/fifo list")?;
    Ok(all([
        watched(rig, flags)?.0,
        ensure(before == sum()?, || "the engine's program has changed".to_owned()),
        ensure(found != "ok", || "the engine's program could be opened for writing".to_owned()),
    ]))
}

/// Whether the file of a program that waits for `/tmp/fifo` can be opened for writing, once it has
/// ended. Nothing is written.
fn reopened(rig: &Rig, flags: &[&str], program: &str) -> Result<String> {
    let box_ = rig.stay(flags, &[])?;
    // a copy, since the shell itself is busybox
    box_.exec(&[], &["sh", "-c", "mkfifo /tmp/fifo; cp /probe /tmp/fifo-probe"])?.ok()?;
    let words: Vec<&str> = program.split(' ').collect();
    box_.exec(&["-d"], &words)?.ok()?;
    // the second process of the container, or the third where there is an init
    let line = "for p in /proc/[0-9]*; do p=${p#/proc/}; case $(cat /proc/$p/cmdline 2>/dev/null) in \
                *fifo*) [ $p != $$ ] && q=$p ;; esac; done; [ -n \"$q\" ] || exit 3; \
                exec 3</proc/$q/exe || exit 4; kill -9 $q; while [ -e /proc/$q/exe ]; do :; done; \
                (: >> /proc/self/fd/3) && echo ok";
    let said = box_.exec(&[], &["sh", "-c", line])?;
    require!(!matches!(said.code, 3 | 4), "{program} did not run: {}", said.stderr);
    Ok(format!("{}{}", said.stdout.trim(), said.stderr.trim()))
}

/// Lies in wait during many execs. The first outcome is about the engine's own processes, the second
/// about the container's (where it has to fail: those are open to each other).
fn watched(rig: &Rig, flags: &[&str]) -> Result<(Outcome, Outcome)> {
    let box_ = rig.stay(flags, &["/probe", "race"])?;
    rig.daemon.until_logged(&box_.id, "watching")?;
    // the end of the first process may come before that of the last
    let line = format!(
        "i=0; while [ $i -lt 40 ]; do $BULKHEAD exec {0} sleep 0.01 || exit 1; i=$((i+1)); done; \
         $BULKHEAD exec {0} touch /tmp/stop || [ $? = 137 ]",
        box_.id
    );
    rig.daemon.shell(&line)?.ok()?;
    rig.daemon.docker(&["wait", &box_.id])?.ok()?;
    let seen = rig.daemon.docker(&["logs", &box_.id])?.ok()?;
    let (mut theirs, mut others) = (Vec::new(), Vec::new());
    for line in seen.lines() {
        let facts = Facts::parse(line);
        let fields: Vec<&str> = facts.of("seen").split(" | ").collect();
        let [link, write, memory, _] = fields.as_slice() else { continue };
        let own = link.starts_with("/bin/") || link.starts_with("/probe");
        if own && *memory == "busybox" {
            others.push(line.to_owned());
        }
        if !own && (*write == "ok" || *memory == "ok") {
            theirs.push(line.to_owned());
        }
    }
    Ok((
        ensure(theirs.is_empty(), || theirs.join("; ")),
        ensure(others.is_empty(), || others.join("; ")),
    ))
}

/// A program without a loader opens no library, of the host or of an image (CVE-2019-14271).
fn needs_no_library(program: &std::path::Path) -> Result<Outcome> {
    const PT_INTERP: u64 = 3;
    let elf = std::fs::read(program)?;
    let number = |at: usize, size: usize| {
        let bytes = elf.get(at..at + size)?;
        Some(bytes.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte)))
    };
    let headers = (number(32, 8), number(54, 2), number(56, 2));
    let (Some(first), Some(size), Some(count)) = headers else {
        return Ok(Outcome::Failed("it is no 64-bit ELF file".to_owned()));
    };
    let loader = (0..count).any(|at| number((first + at * size) as usize, 4) == Some(PT_INTERP));
    Ok(ensure(!loader, || format!("{} asks for a loader", program.display())))
}

fn own_terminal(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    let box_ = rig.stay(&[flags, &["-t"]].concat(), &["/probe", "terminal"])?;
    rig.daemon.docker(&["wait", &box_.id])?.ok()?;
    let facts = Facts::parse(&rig.daemon.docker(&["logs", &box_.id])?.ok()?);
    Ok(each(&facts, &["terminal is the container's", "leads its session"], &["true"]))
}

fn no_exec(rig: &Rig, flags: &[&str]) -> Result<Outcome> {
    let box_ = rig.stay(flags, &[])?;
    rig.daemon.docker(&["pause", &box_.id])?.ok()?;
    let paused = box_.exec(&[], &["true"])?;
    rig.daemon.docker(&["unpause", &box_.id])?.ok()?;
    rig.daemon.docker(&["kill", &box_.id])?.ok()?;
    rig.daemon.docker(&["wait", &box_.id])?.ok()?;
    let stopped = box_.exec(&[], &["true"])?;
    Ok(all([
        ensure(paused.code != 0 && paused.stderr.contains("paused"), || paused.stderr.clone()),
        ensure(stopped.code != 0 && stopped.stderr.contains("not running"), || {
            stopped.stderr.clone()
        }),
    ]))
}

/// What a container is called, or says of itself, must not write to the reader's terminal.
fn no_escapes(rig: &Rig, _: &[&str]) -> Result<Outcome> {
    let evil = "\x1b]52;c;Y2FuYXJ5\x07";
    let name = format!("a{evil}");
    let named = rig.run(&["--name", &name], &["true"])?;
    let label = format!("evil={evil}");
    let box_ = rig.stay(&["--label", &label], &["sh", "-c", &format!(": {evil}; sleep 1000")])?;
    let mut texts = vec![named.stderr];
    for words in [&["ps", "--no-trunc"][..], &["inspect", &box_.id], &["ps"]] {
        texts.push(rig.daemon.bulkhead(words)?.stdout);
    }
    Ok(all(texts.iter().map(|text| no_control(text))))
}

fn no_control(text: &str) -> Outcome {
    let found = text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t' | '\r'));
    ensure(found.is_none(), || format!("a control character {found:?} in {text:?}"))
}
