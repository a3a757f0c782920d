//! One test in a process of its own, with a time limit and a list of what it has left behind.
//!
//! Between the runner and the test stands `xtask one-test`, a process that takes the test's orphans
//! (PR_SET_CHILD_SUBREAPER, prctl(2)) and reaps them as an init does. So what still runs when the
//! test has ended is known to be that test's, whatever else happens on the machine.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus};

use super::traces;

/// What may still be on its way to its end when a test has ended.
const GRACE: Duration = Duration::from_secs(10);

/// What came of it.
#[derive(Debug)]
pub struct Ended {
    pub success: bool,
    /// What it wrote, on both streams.
    pub output: String,
    /// Why it could not be done here, if it said so (`bulkhead_sys::testing::skip`).
    pub skipped: String,
    /// That it ran too long, and what it has left behind.
    pub faults: Vec<String>,
    pub took: Duration,
}

/// Runs a command by way of [`one_test`]; `place` is a directory of the run's, `number` the test's own.
pub fn run(command: &Command, limit: Duration, place: &Path, number: usize) -> Result<Ended> {
    let file = |what: &str| place.join(format!("{number}.{what}"));
    let started = Instant::now();
    // not by its path: cargo may have built another in the meantime
    let mut between = Command::new("/proc/self/exe");
    between.arg("one-test").arg(file("faults")).arg(limit.as_secs().to_string());
    between.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => between.env(name, value),
            None => between.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        between.current_dir(directory);
    }
    // a file and not a pipe: what a test leaves behind may hold it open
    let output = File::create(file("output"))?;
    let success = between
        .env("BULKHEAD_SKIPPED", file("skipped"))
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .status()
        .context("run a test")?
        .success();
    let take = |what: &str| {
        let path = file(what);
        let text = std::fs::read(&path).unwrap_or_default();
        let _ = std::fs::remove_file(path);
        String::from_utf8_lossy(&text).into_owned()
    };
    let faults = take("faults").lines().map(str::to_owned).collect();
    let (output, skipped) = (take("output"), take("skipped"));
    Ok(Ended { success, output, skipped, faults, took: started.elapsed() })
}

/// `xtask one-test FAULTS SECONDS PROGRAM ARGUMENT…`: runs the program to its end, or ends it, and
/// writes what was wrong about it, one in a line.
pub fn one_test(words: &[&str]) -> Result<ExitCode> {
    let [faults, limit, program, arguments @ ..] = words else {
        anyhow::bail!("usage: xtask one-test FAULTS SECONDS PROGRAM [ARGUMENT …]");
    };
    let limit = Duration::from_secs(limit.parse().context("a time limit in seconds")?);
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).context("take orphans")?;
    let directory = Directory::make(own)?;
    let child = Command::new(program)
        .args(arguments)
        .env("TMPDIR", &directory.0)
        .spawn()
        .with_context(|| format!("run {program}"))?;
    let child = Pid::from_child(&child);
    let handle = rustix::process::pidfd_open(child, PidfdFlags::empty()).context("pidfd_open")?;
    let reaped = reap();
    let mut found = Vec::new();
    let status = match until_ended(&reaped, child, Instant::now() + limit) {
        Some(status) => status,
        None => {
            found.push(format!("it took longer than {} s", limit.as_secs()));
            rustix::process::pidfd_send_signal(&handle, Signal::KILL)?;
            until_ended(&reaped, child, Instant::now() + GRACE).context("it cannot be ended")?
        }
    };
    found.extend(end_children(own));
    let names = [own, child].map(|pid| pid.as_raw_nonzero().to_string());
    found.extend(traces::of(&names, &directory.0));
    found.extend(directory.remove());
    let lines: String = found.iter().map(|fault| format!("{fault}\n")).collect();
    std::fs::write(faults, lines)?;
    let success = status.exit_status() == Some(0);
    Ok(if success { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where the test's temporary directories are: what is in it at the end was left.
struct Directory(PathBuf);

impl Directory {
    fn make(own: Pid) -> Result<Self> {
        // not below /tmp, which may be in memory, and of a kind that holds no layers; and short, for
        // a socket's address has 108 bytes
        let path = PathBuf::from(format!("/var/tmp/bhtest-{}", own.as_raw_nonzero()));
        std::fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o1777))?;
        Ok(Self(path))
    }

    fn remove(self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(&self.0) else {
            return vec![format!("{} is gone", self.0.display())];
        };
        let left = entries.flatten().map(|entry| format!("left file {}", entry.path().display()));
        let left: Vec<String> = left.collect();
        // a mount there is not to be emptied
        if left.is_empty() {
            let _ = std::fs::remove_dir(&self.0);
        }
        left
    }
}

/// Reaps every child, now and later, and tells of each.
fn reap() -> mpsc::Receiver<(Pid, WaitStatus)> {
    let (sender, reaped) = mpsc::channel();
    std::thread::spawn(move || {
        loop {
            match rustix::process::wait(WaitOptions::empty()) {
                Ok(Some(ended)) if sender.send(ended).is_ok() => {}
                Err(rustix::io::Errno::INTR) => {}
                // there is none (ECHILD), or nobody listens
                _ => break,
            }
        }
    });
    reaped
}

fn until_ended(
    reaped: &mpsc::Receiver<(Pid, WaitStatus)>,
    child: Pid,
    end: Instant,
) -> Option<WaitStatus> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match reaped.recv_timeout(left) {
            Ok((pid, status)) if pid == child => return Some(status),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

/// Waits for what the test has left running, ends what does not end, and says what that was.
fn end_children(own: Pid) -> Vec<String> {
    let mut faults = Vec::new();
    let end = Instant::now() + GRACE;
    loop {
        let children = children(own);
        if children.is_empty() {
            return faults;
        }
        let late = Instant::now() >= end;
        for (pid, line) in children {
            // by a handle: this process reaps its children, whose numbers may be used again
            let Ok(handle) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else {
                continue;
            };
            if late {
                faults.push(format!("left process {} {line}", pid.as_raw_nonzero()));
                let _ = rustix::process::pidfd_send_signal(&handle, Signal::KILL);
            }
            // whoever is killed is gone at once, but for one that the kernel holds
            let left = end.saturating_duration_since(Instant::now());
            wait(&handle, if late { Duration::from_secs(1) } else { left });
        }
        if faults.len() > MAX_LEFT {
            faults.push("and more".to_owned());
            return faults;
        }
    }
}

/// More processes than that are not worth telling, and may be one that nothing ends.
const MAX_LEFT: usize = 50;

fn wait(handle: &OwnedFd, limit: Duration) {
    let flags = rustix::event::PollFlags::IN;
    let mut polled = [rustix::event::PollFd::from_borrowed_fd(handle.as_fd(), flags)];
    let limit = rustix::event::Timespec {
        tv_sec: limit.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    };
    let _ = rustix::event::poll(&mut polled, Some(&limit));
}

/// The processes whose parent this is and that still run, with their command lines.
fn children(own: Pid) -> Vec<(Pid, String)> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let child = |entry: std::fs::DirEntry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // PID (NAME) STATE PARENT …, where a name may hold anything
        let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
        let (state, parent) = (rest.next()?, rest.next()?.parse().ok()?);
        if state == "Z" || Pid::from_raw(parent) != Some(own) {
            return None;
        }
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        Some((pid, line.chars().take(200).collect()))
    };
    processes.flatten().filter_map(child).collect()
}
