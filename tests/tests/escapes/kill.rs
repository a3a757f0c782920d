//! A runtime that is killed midway: what it has begun can be looked at and removed (runc #4534).

use std::io::ErrorKind;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bulkhead_tests::bundle::{Bundle, Container, Runtime};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

#[test]
fn a_run_that_is_killed_leaves_nothing() -> Result<()> {
    let points: Vec<Duration> =
        (0..30).map(|at| Duration::from_micros(1000 + at * 39_000 / 29)).collect();
    for detach in [false, true] {
        none_left(&Runtime::bulkhead(), &points, detach)?;
    }
    Ok(())
}

/// The same, finely over the time that a run takes on this machine now.
#[test]
fn a_run_that_is_killed_at_any_moment_leaves_nothing() -> Result<()> {
    let bundle = Bundle::new(&["sleep", "1000"])?;
    let began = Instant::now();
    drop(Runtime::bulkhead().start(&bundle)?);
    let whole = began.elapsed();
    let points: Vec<Duration> = (0..80).map(|at| whole * at / 80).collect();
    none_left(&Runtime::bulkhead(), &points, true)
}

/// What the other runtime leaves is what shows that the look for it works.
#[test]
fn an_old_runc_leaves_something() -> Result<()> {
    let Some(runc) = Runtime::old_runc() else {
        bulkhead_sys::testing::skip("runc 1.1.5 is not at hand: `cargo xtask test` fetches it");
        return Ok(());
    };
    let mut found = Vec::new();
    for at in 0..30 {
        let point = Duration::from_micros(1000 + at * 39_000 / 29);
        found.extend(killed(&runc, point, false)?);
    }
    println!(
        "kill -9 of runc 1.1.5: {} of 30 left something, such as {:?}",
        found.len(),
        found.first()
    );
    assert!(!found.is_empty());
    Ok(())
}

fn none_left(runtime: &Runtime, points: &[Duration], detach: bool) -> Result<()> {
    let mut left = Vec::new();
    for point in points {
        left.extend(
            killed(runtime, *point, detach)?.map(|what| format!("after {point:?}: {what}")),
        );
    }
    let (count, of) = (left.len(), points.len());
    println!("kill -9 of {} (detach {detach}): {count} of {of} left something", runtime.name);
    assert!(left.is_empty(), "{}", left.join("\n"));
    Ok(())
}

/// Kills one `run` after a time, removes the container, and tells what did not work or was left.
fn killed(runtime: &Runtime, point: Duration, detach: bool) -> Result<Option<String>> {
    let bundle = Bundle::new(&["sleep", "1000"])?;
    let container = Container::new(runtime, &bundle)?;
    let mut run = runtime.command(&bundle.beside("state"));
    run.arg("run");
    if detach {
        run.arg("--detach");
    }
    run.arg("--bundle").arg(bundle.path()).arg(&container.id);
    let mut child = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("run it")?;
    let pid = Pid::from_raw(child.id() as i32).context("a pid")?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let time = Timespec { tv_sec: 0, tv_nsec: point.as_nanos() as i64 };
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&time))?;
    // it may have ended by itself
    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    child.wait()?;

    let mut wrong = Vec::new();
    let state = container.say(&["state", &container.id])?;
    if state.code != 0 && !state.stderr.contains("does not exist") {
        wrong.push(format!("state: {}", state.stderr.trim()));
    }
    let deleted = container.say(&["delete", "--force", &container.id])?;
    if deleted.code != 0 && !deleted.stderr.contains("does not exist") {
        wrong.push(format!("delete: {}", deleted.stderr.trim()));
    }
    wrong.extend(remains(&bundle, &container.id)?);
    clean_up(&container.id)?;
    Ok((!wrong.is_empty()).then(|| wrong.join("; ")))
}

/// The state, cgroups in every hierarchy, processes and mounts.
fn remains(bundle: &Bundle, id: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if bundle.beside("state").join(id).exists() {
        found.push("its state".to_owned());
    }
    for process in processes(id)? {
        // the first process ends by itself when the runtime that it waits for is gone
        if !ends_soon(process)? {
            found.push(format!("process {process}"));
        }
    }
    for cgroup in cgroups(id)? {
        found.push(format!("cgroup {cgroup}"));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let near = bundle.path().to_string_lossy().into_owned();
    found.extend(mounts.lines().filter(|line| line.contains(&near)).map(str::to_owned));
    Ok(found)
}

fn cgroups(id: &str) -> Result<Vec<String>> {
    // as deep as the group of whoever runs the tests may be; the innermost first, to be removed
    let line = format!("find /sys/fs/cgroup -depth -type d -name '{id}*' 2>/dev/null || true");
    let found = bulkhead_tests::run(Command::new("sh").args(["-c", &line]))?.ok()?;
    Ok(found.lines().map(str::to_owned).collect())
}

/// Those in a cgroup of that name, or called with it.
fn processes(id: &str) -> Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<i32>() else { continue };
        let text = |file: &str| {
            let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let zombie = text("stat").rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z"));
        if !zombie && (text("cgroup").contains(id) || text("cmdline").contains(id)) {
            found.push(pid);
        }
    }
    Ok(found)
}

fn ends_soon(pid: i32) -> Result<bool> {
    let pid = Pid::from_raw(pid).context("a pid")?;
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(true) };
    let patience = Timespec { tv_sec: 1, tv_nsec: 0 };
    Ok(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&patience))? > 0)
}

/// What an old runtime has left is not left by the test.
fn clean_up(id: &str) -> Result<()> {
    for pid in processes(id)? {
        let pid = Pid::from_raw(pid).context("a pid")?;
        if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None)?;
        }
    }
    for cgroup in cgroups(id)? {
        let frozen = std::path::Path::new(&cgroup).join("freezer.state");
        if frozen.exists() {
            let _ = std::fs::write(frozen, "THAWED");
        }
        // its process has ended, but may not be off the kernel's books yet
        let deadline = Instant::now() + Duration::from_secs(5);
        while std::fs::remove_dir(&cgroup).is_err_and(|error| error.kind() != ErrorKind::NotFound) {
            ensure!(Instant::now() < deadline, "{cgroup} is not to be removed");
            std::thread::yield_now();
        }
    }
    Ok(())
}
