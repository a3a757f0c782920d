//! Where the engine runs: directories, its start and its end, and the size of its disk.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt,
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Where network namespaces have names.
pub const NAMES: &str = "/run/netns";

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    Engine,
    Warden,
    Both,
}

/// The engine's program and directories.
#[derive(Debug)]
pub struct Stage {
    program: PathBuf,
    directory: PathBuf,
    pub cgroup: String,
}

impl Stage {
    pub fn new(bin: &Path) -> Result<Self> {
        // The number of a process of this pid namespace says nothing outside.
        let outside = std::fs::read_link("/proc/self/ns/pid")?;
        let digits: String = outside.to_string_lossy().matches(char::is_numeric).collect();
        let directory = crate::setup::target().join(format!("chaos-{digits}"));
        let stage = Self {
            program: bin.join("bulkhead"),
            directory,
            cgroup: format!("bulkhead-chaos-{digits}"),
        };
        std::fs::create_dir_all(&stage.directory)?;
        let place = stage.directory.display().to_string();
        // A tmpfs for both: they go with the namespace.
        run("mount", &["-t", "tmpfs", "-o", "size=8m", "none", &place])?;
        for (name, size) in [("data", "size=160m"), ("run", "size=32m")] {
            std::fs::create_dir(stage.directory.join(name))?;
            let path = stage.directory.join(name).display().to_string();
            run("mount", &["-t", "tmpfs", "-o", size, "none", &path])?;
        }
        // The machine's names are none of ours.
        std::fs::create_dir_all(NAMES)?;
        run("mount", &["-t", "tmpfs", "-o", "size=1m", "none", NAMES])?;
        run("ip", &["link", "set", "lo", "up"])?;
        // the machine's own address
        run("ip", &["link", "add", "host0", "type", "veth", "peer", "name", "host1"])?;
        run("ip", &["address", "add", "10.98.0.2/24", "dev", "host0"])?;
        for link in ["host0", "host1"] {
            run("ip", &["link", "set", link, "up"])?;
        }
        Ok(stage)
    }

    pub fn data(&self) -> PathBuf {
        self.directory.join("data/d")
    }

    fn run_directory(&self) -> PathBuf {
        self.directory.join("run/r")
    }

    fn socket(&self) -> PathBuf {
        self.run_directory().join("docker.sock")
    }

    /// Starts the engine with a failpoint; an error says that it did not come up.
    pub fn up(&self, failpoint: Option<&str>) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.args(["up", "--detach", "--bridge", "chaos0", "--bridge-address", "10.97.0.1/24"]);
        command.arg("--data").arg(self.data()).arg("--run").arg(self.run_directory());
        command.args(["--cgroup-parent", &self.cgroup]);
        if let Some(failpoint) = failpoint {
            command.env("BULKHEAD_FAILPOINT", failpoint);
        }
        succeeded(command.stdin(Stdio::null()).output()?)?;
        Ok(())
    }

    /// Ends them as a crash does, both at once if both; one that has ended already is fine.
    pub fn kill(&self, victim: Victim) -> Result<()> {
        let engine = if victim == Victim::Warden { None } else { self.engine()? };
        let warden = if victim == Victim::Engine { None } else { self.warden()? };
        let both: Vec<_> = engine.iter().chain(warden.iter().map(|(_, warden)| warden)).collect();
        for process in &both {
            match pidfd_send_signal(process, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        for process in both {
            wait(process, Duration::from_secs(20))?;
        }
        Ok(())
    }

    /// Whether the engine, or the warden, ends by itself in this time.
    pub fn dies_within(&self, victim: Victim, time: Duration) -> Result<bool> {
        let process = match victim {
            Victim::Warden => self.warden()?.map(|(_, warden)| warden),
            _ => self.engine()?,
        };
        match process {
            Some(process) => wait(&process, time),
            None => Ok(true),
        }
    }

    pub fn engine_is_up(&self) -> Result<bool> {
        Ok(self.engine()?.is_some())
    }

    /// Who listens on the warden's socket: its number and a pidfd.
    pub fn warden(&self) -> Result<Option<(i32, OwnedFd)>> {
        let path = self.run_directory().join("warden.sock");
        let address = SocketAddrUnix::new(&path)?;
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        match connect(&socket, &address) {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::CONNREFUSED) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        let pid = sockopt::socket_peercred(&socket)?.pid;
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => Ok(Some((pid.as_raw_nonzero().get(), pidfd))),
            Err(Errno::SRCH) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn engine(&self) -> Result<Option<OwnedFd>> {
        let text = std::fs::read_to_string(self.run_directory().join("bulkhead.pid"));
        let Ok(Ok(number)) = text.map(|text| text.trim().parse::<i32>()) else { return Ok(None) };
        let command = std::fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
        if !String::from_utf8_lossy(&command).contains("--in-background") {
            return Ok(None);
        }
        let pid = Pid::from_raw(number).context("a pid")?;
        Ok(pidfd_open(pid, PidfdFlags::empty()).ok())
    }

    /// `down --purge`.
    pub fn down(&self) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.args(["down", "--purge", "--yes"]).arg("--data").arg(self.data());
        command.arg("--run").arg(self.run_directory());
        succeeded(command.output()?)?;
        Ok(())
    }

    /// A command of Bulkhead's CLI: what it printed, or why it failed.
    pub fn bulkhead(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.arg("-H").arg(format!("unix://{}", self.socket().display())).args(arguments);
        succeeded(command.stdin(Stdio::null()).output()?)
    }

    /// A request of the API without a body: the answer's body.
    pub fn request(&self, method: &str, path: &str) -> Result<String> {
        let socket = self.socket().display().to_string();
        let url = format!("http://docker{path}");
        run("curl", &["-sS", "--fail", "--unix-socket", &socket, "-X", method, &url])
    }

    /// Makes the image `box`.
    pub fn import(&self) -> Result<()> {
        let line = format!(
            "set -e; cd {}; mkdir -p tree/bin tree/tmp; cp $(command -v busybox) tree/bin/busybox
            for name in sh echo cat sleep true; do ln -sf busybox tree/bin/$name; done
            tar -C tree -cf - . | curl -sS --fail --unix-socket {} -X POST --data-binary @- \
                -H 'Content-Type: application/x-tar' 'http://docker/images/create?fromSrc=-&repo=box&changes=ENV%20PATH=/bin'",
            self.directory.display(),
            self.socket().display()
        );
        run("sh", &["-c", &line])?;
        Ok(())
    }

    /// Takes every byte of the data directory's file system.
    pub fn fill(&self) -> Result<()> {
        let path = self.directory.join("data/ballast");
        let file = std::fs::File::options().create(true).append(true).open(path)?;
        for size in [1 << 20, 1 << 12] {
            let mut length = file.metadata()?.len();
            while rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), length, size)
                .is_ok()
            {
                length += size;
            }
        }
        Ok(())
    }

    pub fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.directory.join("data/ballast"))?)
    }

    /// The end of the engine's log.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.run_directory().join("bulkhead.log"));
        let text = text.unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// After everything: the mounts go with the namespace, and so do the processes; the cgroups, which
    /// are the host's, only where the run was broken off.
    pub fn remove(&self) -> Result<()> {
        for cgroup in run("find", &["/sys/fs/cgroup", "-depth", "-type", "d"])?.lines() {
            if cgroup.contains(&format!("/{}", self.cgroup)) {
                // One whose processes live still goes with the next run of this name.
                let _ = std::fs::remove_dir(cgroup);
            }
        }
        for name in ["data", "run", "."] {
            let path = self.directory.join(name);
            let _ = rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH);
        }
        Ok(std::fs::remove_dir(&self.directory)?)
    }
}

fn wait(process: &OwnedFd, time: Duration) -> Result<bool> {
    let time = Timespec::try_from(time)?;
    Ok(poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&time))? > 0)
}

pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    succeeded(command.args(arguments).stdin(Stdio::null()).output().context(program.to_owned())?)
}

fn succeeded(output: Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    ensure!(!text.contains('\0'), "binary output");
    Ok(text)
}
