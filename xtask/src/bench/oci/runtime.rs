//! The runtimes' commands, one process each, timed from outside.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bulkhead_sys::process::{Arguments, clone3, execve};
use bulkhead_sys::usage::{self, Ended};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use super::bundle::Variant;
use super::views::{PLACE, PROGRAM};

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Run(Variant),
    Exec(Variant),
    /// create, start and delete; the wait for the program's end between the last two is not counted.
    Cycle(Variant),
    /// A run with an empty `--root`, where no filter is cached yet.
    Cold,
}

/// How long a command took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Took {
    /// From before its fork to its reaping.
    pub wall: Duration,
    /// What it and those of its children that it waited for had of the processors.
    pub processor: Duration,
}

impl std::ops::Add for Took {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { wall: self.wall + other.wall, processor: self.processor + other.processor }
    }
}

/// A runtime in one of the views, and what was measured of it.
#[derive(Debug)]
pub struct Runtime {
    pub name: String,
    /// Its place in the list of views.
    pub view: usize,
    words: Vec<PathBuf>,
    root: PathBuf,
    log: PathBuf,
    calls: u32,
    pub times: BTreeMap<Operation, Vec<Took>>,
    /// Why an operation is not measured.
    pub faults: BTreeMap<Operation, String>,
    /// What failed though it had worked before, and how often; [`Self::times`] does not have it.
    pub failed: BTreeMap<Operation, (usize, String)>,
    pub syscalls: BTreeMap<Variant, u64>,
    /// kB.
    pub peak: BTreeMap<Variant, u64>,
    /// The smallest memory cgroup, in kB, that the runtime and its container together work in.
    pub smallest: Option<u64>,
    /// The same for the container's own `memory.limit`.
    pub smallest_limit: Option<u64>,
}

pub const BULKHEAD: &str = "bulkhead";

impl Runtime {
    /// `name` is what is executed, in the view that is current.
    pub fn new(name: &str, view: usize, view_name: &str) -> Result<Self> {
        let words = match name {
            BULKHEAD => vec![PathBuf::from(PROGRAM), "oci".into()],
            other => vec![Path::new("/usr/bin").join(other)],
        };
        let output = Command::new(&words[0]).arg("--version").output();
        let output = output.with_context(|| format!("run {name}"))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.split_whitespace().find(|word| {
            word.starts_with(|first: char| first.is_ascii_digit()) && word.contains('.')
        });
        let root = Path::new(PLACE).join("state").join(format!("{name}-{view_name}"));
        std::fs::create_dir_all(&root)?;
        Ok(Self {
            name: format!("{name} {}", version.unwrap_or("of unknown version")),
            view,
            words,
            log: root.with_extension("log"),
            root,
            calls: 0,
            times: BTreeMap::new(),
            faults: BTreeMap::new(),
            failed: BTreeMap::new(),
            syscalls: BTreeMap::new(),
            peak: BTreeMap::new(),
            smallest: None,
            smallest_limit: None,
        })
    }

    pub fn is(&self, name: &str) -> bool {
        self.name.split(' ').next() == Some(name)
    }

    /// A fresh container id.
    pub fn id(&mut self) -> String {
        self.calls += 1;
        format!("bench-{}", self.calls)
    }

    pub fn arguments(&self, rest: &[&str]) -> Vec<PathBuf> {
        let root = ["--root".into(), self.root.clone()];
        self.words.iter().cloned().chain(root).chain(rest.iter().map(PathBuf::from)).collect()
    }

    /// Runs one command to its end; how long it took.
    pub fn timed(&self, rest: &[&str]) -> Result<Took> {
        timed(&self.arguments(rest), &self.log)
    }

    /// One measurement.
    pub fn measure(&mut self, operation: Operation, bundle: &str) -> Result<Took> {
        let id = self.id();
        match operation {
            Operation::Run(_) => self.timed(&["run", "--bundle", bundle, &id]),
            Operation::Exec(variant) => self.timed(&["exec", sleeper(variant), "/noop"]),
            Operation::Cycle(_) => {
                let (pid, created) = self.create(bundle, &id)?;
                let started = self.timed(&["start", &id])?;
                usage::reap(pid).context("wait for the container")?;
                Ok(created + started + self.timed(&["delete", &id])?)
            }
            Operation::Cold => {
                let cold = self.root.with_extension(format!("cold-{}", self.calls));
                let usual = std::mem::replace(&mut self.root, cold);
                std::fs::create_dir_all(&self.root)?;
                let took = self.timed(&["run", "--bundle", bundle, &id]);
                self.root = usual;
                took
            }
        }
    }

    /// Creates a container; the process's pid, whose parent is this process from now on.
    fn create(&self, bundle: &str, id: &str) -> Result<(u32, Took)> {
        let file = self.root.with_extension("pid");
        let file_name = file.to_string_lossy();
        let took = self.timed(&["create", "--bundle", bundle, "--pid-file", &file_name, id])?;
        let pid = std::fs::read_to_string(&file)?;
        Ok((pid.trim().parse().with_context(|| format!("{pid:?} is no pid"))?, took))
    }

    /// Starts the container that [`Operation::Exec`] is for.
    pub fn start_sleeper(&self, variant: Variant, bundle: &str) -> Result<()> {
        self.create(bundle, sleeper(variant))?;
        self.timed(&["start", sleeper(variant)]).map(drop)
    }

    pub fn end_sleeper(&self, variant: Variant) {
        self.delete(sleeper(variant));
    }

    pub fn delete(&self, id: &str) {
        let _ = self.timed(&["delete", "--force", id]);
    }

    /// Counts the system calls of one `run`, all its processes together.
    pub fn count_syscalls(&mut self, bundle: &str) -> Result<u64> {
        let id = self.id();
        let counts = self.root.with_extension("strace");
        let mut words = vec!["/usr/bin/strace".into(), "-f".into(), "-c".into(), "-o".into()];
        words.push(counts.clone());
        words.extend(self.arguments(&["run", "--bundle", bundle, &id]));
        timed(&words, &self.log)?;
        let text = std::fs::read_to_string(&counts)?;
        let total = text.lines().rev().find(|line| line.trim_end().ends_with(" total"));
        // "% time, seconds, usecs/call, calls", with errors only where there were some
        let calls = total.and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
        calls.with_context(|| format!("strace has counted nothing:\n{text}"))
    }

    /// The peak memory of one `run` in kB, as [`launch`] sees it.
    pub fn measure_peak(&mut self, bundle: &str) -> Result<u64> {
        let id = self.id();
        let words = self.arguments(&["run", "--bundle", bundle, &id]);
        let ended = launch(&words, None)?.context("it did not end")?;
        ensure!(ended.status == 0, "run ended with {}", ended.status);
        Ok(ended.peak_resident)
    }
}

fn sleeper(variant: Variant) -> &'static str {
    match variant {
        Variant::Plain => "sleeper",
        Variant::Seccomp => "sleeper-seccomp",
        Variant::Userns => "sleeper-userns",
    }
}

/// Runs a command (posix_spawn(3), so that this process's size does not count).
pub fn timed(words: &[PathBuf], log: &Path) -> Result<Took> {
    let output = File::create(log).with_context(|| format!("create {}", log.display()))?;
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    let before = Instant::now();
    let child = command.spawn().with_context(|| format!("execute {}", words[0].display()))?;
    let ended = usage::reap(child.id())?;
    let took = Took { wall: before.elapsed(), processor: ended.processor };
    if ended.status != 0 {
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        let said = std::fs::read_to_string(log).unwrap_or_default();
        bail!("`{}` ended with {}: {}", words.join(" "), ended.status, said.trim());
    }
    Ok(took)
}

/// Runs a command from a fork of this process, in a cgroup of v1 if its `cgroup.procs` is given.
///
/// Not from a vfork, as [`timed`]: until its execve such a child has its parent's memory, and that
/// would be its peak. `None` if it had to be killed after ten seconds.
pub fn launch(words: &[PathBuf], cgroup: Option<&OwnedFd>) -> Result<Option<Ended>> {
    let strings = words.iter().map(|word| CString::new(word.as_os_str().as_bytes()));
    let arguments = Arguments::new(strings.collect::<Result<_, _>>()?);
    let environment = Arguments::new(vec![c"PATH=/usr/sbin:/usr/bin:/sbin:/bin".into()]);
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let child = clone3(0, None, || {
        let prepared = cgroup.map_or(Ok(0), |procs| rustix::io::write(procs, b"0\n"));
        let streams = prepared
            .and_then(|_| rustix::stdio::dup2_stdin(&null))
            .and_then(|()| rustix::stdio::dup2_stdout(&null))
            .and_then(|()| rustix::stdio::dup2_stderr(&null));
        match streams {
            Ok(()) => execve(&arguments.strings()[0], &arguments, &environment).raw_os_error(),
            Err(errno) => errno.raw_os_error(),
        }
    })?;
    let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
    let ended = poll(&mut [PollFd::new(&child.pidfd, PollFlags::IN)], Some(&patience))?;
    if ended == 0 {
        let _ = rustix::process::pidfd_send_signal(child.pidfd.as_fd(), Signal::KILL);
    }
    let reaped = usage::reap(child.pid)?;
    Ok((ended > 0).then_some(reaped))
}
