//! A whole Bulkhead for one test: its own network namespace, directories, cgroups and ports.
//!
//! Everything a test sees goes through a real client: the docker CLI, the AWS CLI, a browser, or
//! Bulkhead's own command line.
#![forbid(unsafe_code)]

pub mod bundle;
pub mod console;
pub mod gate;
pub mod http;
pub mod rootfs;
pub mod tasks;
pub mod terminal;
pub mod webdriver;

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// `bulkhead up` in a network namespace that has nothing but `lo`.
#[derive(Debug)]
pub struct Daemon {
    netns: String,
    directory: tempfile::TempDir,
    cgroup: String,
    /// Lines for the shell that mount what the daemon is to see as `/sys/fs/cgroup`.
    cgroup_mounts: Option<&'static str>,
}

/// What a client said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// Standard output without its last newline; an error if the client failed.
    pub fn ok(self) -> Result<String> {
        ensure!(self.code == 0, "exit status {}: {}{}", self.code, self.stdout, self.stderr);
        Ok(self.stdout.trim_end().to_owned())
    }

    /// An error unless the client ended with this status and said this (on either stream).
    pub fn expect(self, code: i32, text: &str) -> Result<Self> {
        ensure!(
            self.code == code && (self.stdout.contains(text) || self.stderr.contains(text)),
            "expected status {code} and {text:?}, but got {}: {}{}",
            self.code,
            self.stdout,
            self.stderr
        );
        Ok(self)
    }
}

/// Each part of the machine that a container occupies, listed one per line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    pub mounts: Vec<String>,
    pub links: Vec<String>,
    pub cgroups: Vec<String>,
    pub processes: Vec<String>,
    pub firewall: Vec<String>,
}

fn kill(pid: rustix::process::Pid) -> Result<()> {
    let handle = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    rustix::process::pidfd_send_signal(&handle, rustix::process::Signal::KILL)?;
    let mut polled = [rustix::event::PollFd::new(&handle, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut polled, None)?;
    Ok(())
}

impl Daemon {
    pub fn start() -> Result<Self> {
        Self::start_with_cgroups(None)
    }

    /// As [`Self::start`], in a mount namespace where these lines for the shell have mounted other
    /// cgroups than this machine's usual ones.
    pub fn start_with_cgroups(cgroup_mounts: Option<&'static str>) -> Result<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let netns = format!("bhtest-{}-{number}", std::process::id());
        let directory = directory("bulkhead-test-")?;
        let cgroup = format!("bulkhead-test-{}-{number}", std::process::id());
        // Made first, so that whatever fails later is cleaned up by its drop.
        let daemon = Self { netns, directory, cgroup, cgroup_mounts };
        run(Command::new("ip").args(["netns", "add", &daemon.netns]))?.ok()?;
        run(Command::new("ip").args(["-n", &daemon.netns, "link", "set", "lo", "up"]))?.ok()?;
        // the machine's own address, beside the one by which it is reached from outside
        let link = ["link", "add", "host0", "type", "veth", "peer", "name", "host1"];
        run(Command::new("ip").args(["-n", &daemon.netns]).args(link))?.ok()?;
        let address = ["address", "add", "10.98.0.2/24", "dev", "host0"];
        run(Command::new("ip").args(["-n", &daemon.netns]).args(address))?.ok()?;
        for link in ["host0", "host1"] {
            run(Command::new("ip").args(["-n", &daemon.netns, "link", "set", link, "up"]))?.ok()?;
        }
        daemon.up()?;
        Ok(daemon)
    }

    /// Starts (or starts again) the engine and everything with it.
    pub fn up(&self) -> Result<()> {
        self.up_with(&[])
    }

    /// The same with more flags.
    pub fn up_with(&self, more: &[&str]) -> Result<()> {
        let flags = [
            "up",
            "--detach",
            "--bridge",
            "bhtest0",
            "--bridge-address",
            "10.99.0.1/24",
            "--public-ip",
            "10.99.0.1",
        ];
        let mut command = self.inside(&program());
        command
            .args(flags)
            .args(more)
            .arg("--data")
            .arg(self.data())
            .arg("--run")
            .arg(self.run_directory());
        command.args(["--cgroup-parent", &self.cgroup]);
        run(&mut command)?.ok().context("bulkhead up")?;
        Ok(())
    }

    /// `kill -9` of the engine; returns when it is gone. The warden and its containers stay.
    pub fn crash(&self) -> Result<()> {
        let pid = std::fs::read_to_string(self.run_directory().join("bulkhead.pid"))?;
        kill(rustix::process::Pid::from_raw(pid.trim().parse()?).context("a pid")?)
    }

    /// `kill -9` of the warden; returns when it is gone. The engine and the containers stay.
    pub fn crash_warden(&self) -> Result<()> {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket, sockopt};
        let client = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None)?;
        connect(&client, &SocketAddrUnix::new(self.run_directory().join("warden.sock"))?)?;
        // who has listened
        kill(sockopt::socket_peercred(&client)?.pid)
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub fn run_directory(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// The cgroup that holds the containers', from the root of each hierarchy.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// A directory of this test's own.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn socket(&self) -> String {
        format!("unix://{}", self.run_directory().join("docker.sock").display())
    }

    /// The real docker CLI.
    pub fn docker(&self, arguments: &[&str]) -> Result<Said> {
        run(self.inside(&docker()).args(arguments))
    }

    /// Returns when a container has written a line, now or later.
    pub fn until_logged(&self, container: &str, line: &str) -> Result<()> {
        let docker = std::env::var_os("BULKHEAD_DOCKER").unwrap_or_else(|| "docker".into());
        let mut child = self
            .inside(Path::new(&docker))
            .args(["logs", "--follow", container])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().context("it was piped")?;
        let found =
            BufReader::new(output).lines().any(|found| found.is_ok_and(|found| found == line));
        child.kill()?;
        child.wait()?;
        ensure!(found, "{container} ended without writing {line:?}");
        Ok(())
    }

    pub fn bulkhead(&self, arguments: &[&str]) -> Result<Said> {
        run(self.inside(&program()).args(arguments))
    }

    /// The real AWS CLI, with the daemon's access key.
    pub fn aws(&self, arguments: &[&str]) -> Result<Said> {
        run(self.inside(Path::new("aws")).args(["--output", "json"]).args(arguments))
    }

    /// User, password and access key, as `bulkhead credentials` shows them.
    pub fn credentials(&self) -> Result<serde_json::Value> {
        let text = std::fs::read(self.data().join("credentials.json"))?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Runs `work` on a thread of its own in the daemon's network namespace: sockets that it makes
    /// belong there, wherever they are used later.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let namespace = std::fs::File::open(Path::new("/var/run/netns").join(&self.netns))?;
        let enter = move || {
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind)?;
            work()
        };
        std::thread::scope(|scope| scope.spawn(enter).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Connects to a port of the daemon's loopback.
    pub fn connect(&self, port: u16) -> Result<TcpStream> {
        let stream = self.within(|| Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port))?));
        let stream = stream.with_context(|| format!("connect to port {port}"))?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        Ok(stream)
    }

    /// The same line for the shell with `$CLI` being the docker CLI, then Bulkhead's own.
    pub fn each_cli(&self, line: &str) -> Result<[Said; 2]> {
        let docker = self.shell(&format!("CLI=$DOCKER; {line}"))?;
        Ok([docker, self.shell(&format!("CLI=$BULKHEAD; {line}"))?])
    }

    /// What is left on the machine of this daemon's containers, once the links of those that have
    /// ended are gone: these are taken down a moment later, which the kernel reports.
    pub fn traces(&self, expected_links: usize) -> Result<Traces> {
        self.until(&["ip", "monitor", "link"], || {
            Ok(self.lines("ip -o link show type veth | grep -v 'host[01]@' || true")?.len()
                <= expected_links)
        })?;
        self.until(&["nft", "monitor"], || {
            let pinned =
                self.lines("nft list set bridge bulkhead endpoints | grep ' . ' || true")?;
            // Its type has two dots as well.
            Ok(pinned.len() <= expected_links + 1)
        })?;
        let links = self.lines("ip -o link show type veth | grep -v 'host[01]@' | cut -d: -f2")?;
        let directory = self.directory.path().display();
        let cgroup = &self.cgroup;
        Ok(Traces {
            links,
            mounts: self.lines(&format!("grep -F '{directory}' /proc/self/mountinfo || true"))?,
            cgroups: self.lines(&format!(
                "find /sys/fs/cgroup -mindepth 1 -type d -path '*/{cgroup}*/*' 2>/dev/null || true"
            ))?,
            processes: self.lines(&format!(
                "cat /sys/fs/cgroup/*/{cgroup}*/*/cgroup.procs /sys/fs/cgroup/{cgroup}*/*/cgroup.procs 2>/dev/null | sort -u"
            ))?,
            firewall: self.lines("nft -s list ruleset")?,
        })
    }

    /// Looks again whenever the monitor says something (or may not have listened yet), until it is
    /// so or half a minute is over; what is wrong then is for the caller to find.
    fn until(&self, monitor: &[&str], is_so: impl Fn() -> Result<bool>) -> Result<()> {
        let mut command = self.inside(Path::new(monitor[0]));
        command.args(&monitor[1..]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("run {}", monitor[0]))?;
        let mut output = child.stdout.take().context("it was piped")?;
        let end = Instant::now() + Duration::from_secs(30);
        let finished = loop {
            match is_so() {
                Ok(false) if Instant::now() < end => {}
                finished => break finished.map(drop),
            }
            let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
            let mut polled = [rustix::event::PollFd::new(&output, rustix::event::PollFlags::IN)];
            if rustix::event::poll(&mut polled, Some(&timeout))? > 0
                && output.read(&mut [0; 4096])? == 0
            {
                break Ok(());
            }
        };
        child.kill()?;
        child.wait()?;
        finished
    }

    fn lines(&self, line: &str) -> Result<Vec<String>> {
        Ok(self.shell(line)?.ok()?.lines().map(|line| line.trim().to_owned()).collect())
    }

    /// A line for the shell, in the daemon's network namespace, with `$BULKHEAD`, `$DOCKER`, `$HERE`
    /// (the test's directory) and `DOCKER_HOST`.
    pub fn shell(&self, line: &str) -> Result<Said> {
        // `COMMAND | head -n1` would wait for a COMMAND that has nothing more to say.
        let first_line = r#"first_line() {
            rm -f "$HERE/fifo"; mkfifo "$HERE/fifo"
            "$@" >"$HERE/fifo" & follower=$!
            head -n"${LINES_WANTED:-1}" <"$HERE/fifo"
            kill $follower 2>/dev/null || true; wait $follower 2>/dev/null || true
        }"#;
        // A client that hangs is a failed test, not one that never ends.
        let mut command = self.inside(Path::new("timeout"));
        run(command.args(["--foreground", "120", "sh", "-c", &format!("{first_line}\n{line}")]))
    }

    /// A command in the daemon's network namespace, where its ports listen on loopback.
    pub fn inside(&self, program_to_run: &Path) -> Command {
        // Not `ip netns exec`: that mounts a fresh /sys, in which there are no cgroups.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns)).arg("--");
        if let Some(mounts) = self.cgroup_mounts {
            let line = format!("{mounts}\nexec \"$@\"");
            command.args(["unshare", "--mount", "--propagation", "private"]);
            command.args(["sh", "-ec", &line, "sh"]);
        }
        command.arg(program_to_run);
        command
            .env("DOCKER_HOST", self.socket())
            // The classic builder: every docker CLI has it.
            .env("DOCKER_BUILDKIT", "0")
            .env("DOCKER", docker())
            .env("DATA", self.data())
            .env("RUN_DIRECTORY", self.run_directory())
            .env("HERE", self.directory.path())
            .env("BULKHEAD_HOST", self.socket())
            .env("BULKHEAD", program())
            .env("HOME", self.directory.path())
            .env("DOCKER_CONFIG", self.directory.path().join("docker"))
            .env("AWS_ENDPOINT_URL", "http://127.0.0.1:7400")
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_PAGER", "");
        if let Ok(text) = std::fs::read(self.data().join("credentials.json"))
            && let Ok(keys) = serde_json::from_slice::<serde_json::Value>(&text)
        {
            for (variable, name) in [
                ("AWS_ACCESS_KEY_ID", "access_key_id"),
                ("AWS_SECRET_ACCESS_KEY", "secret_access_key"),
                ("PASSWORD", "password"),
            ] {
                command.env(variable, keys[name].as_str().unwrap_or_default());
            }
        }
        command
    }

    /// Imports a busybox image under a name.
    pub fn busybox(&self, name: &str) -> Result<()> {
        let archive = busybox_archive(self.directory.path())?;
        let path = archive.to_string_lossy();
        self.docker(&["import", "-c", "CMD [\"sh\"]", "-c", "ENV PATH=/bin", &path, name])?.ok()?;
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let (data, run_directory) = (self.data(), self.run_directory());
        let mut command = self.inside(&program());
        command
            .args(["down", "--purge", "--yes"])
            .arg("--data")
            .arg(data)
            .arg("--run")
            .arg(run_directory);
        let down = run(&mut command).and_then(Said::ok);
        let deleted =
            run(Command::new("ip").args(["netns", "delete", &self.netns])).and_then(Said::ok);
        // A test that leaks is a bug, also one that has failed for another reason.
        for result in [down, deleted] {
            if let Err(cause) = result {
                eprintln!("cleaning up after a test: {cause:#}");
                if !std::thread::panicking() {
                    panic!("cleaning up after a test: {cause:#}");
                }
            }
        }
    }
}

/// A directory on a disk, where layers can be: /tmp may be in memory. The runner of tests gives each
/// its own, and looks for what is left in it.
pub fn directory(prefix: &str) -> Result<tempfile::TempDir> {
    let parent = std::env::var_os("TMPDIR").unwrap_or_else(|| "/var/tmp".into());
    Ok(tempfile::Builder::new().prefix(prefix).tempdir_in(parent)?)
}

fn docker() -> PathBuf {
    std::env::var_os("BULKHEAD_DOCKER").unwrap_or_else(|| "docker".into()).into()
}

/// The program under test: `cargo xtask test` names it; else the one that cargo built last.
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("BULKHEAD_PROGRAM") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a running test has a path");
    let built =
        test.ancestors().nth(2).expect("tests lie in target/TARGET/PROFILE/deps").join("bulkhead");
    assert!(built.exists(), "{} is not built: run `cargo build` first", built.display());
    built
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Result<Said> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("run {command:?}"))?;
    Ok(said(&output))
}

pub fn said(output: &Output) -> Said {
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A tree with busybox and its applets, as a tar file.
fn busybox_archive(directory: &Path) -> Result<PathBuf> {
    let root = directory.join("busybox");
    let archive = directory.join("busybox.tar");
    if archive.exists() {
        return Ok(archive);
    }
    let busybox =
        ["/bin/busybox", "/usr/bin/busybox"].into_iter().map(Path::new).find(|path| path.exists());
    let Some(busybox) = busybox else { bail!("busybox is not installed (Debian: busybox-static)") };
    for name in ["bin", "etc", "tmp", "proc", "sys", "dev", "root"] {
        std::fs::create_dir_all(root.join(name))?;
    }
    std::fs::copy(busybox, root.join("bin/busybox"))?;
    let applets = run(Command::new(busybox).arg("--list"))?.ok()?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
    }
    std::fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/:/bin/sh\n",
    )?;
    std::fs::write(root.join("etc/group"), "root:x:0:\nweb:x:33:\n")?;
    run(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).args([
        "--owner=0",
        "--group=0",
        ".",
    ]))?
    .ok()?;
    Ok(archive)
}
