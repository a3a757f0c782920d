//! A warden of the test's own, and containers made from busybox.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bulkhead_runtime::*;
use bulkhead_sys::mount::{Depth, set_id_mapping};
use bulkhead_types::{Id, IdMap};
use bulkhead_warden::*;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{OpenTreeFlags, open_tree};

/// The limit of open descriptors that the test program is started with.
pub const USUAL_DESCRIPTORS: u64 = 2000;

pub const RANGE: IdMap = IdMap::new(1_000_000, 65_536);

/// A warden, and the tree that its containers have as their root.
pub struct Ship {
    pub directory: Directory,
    pub client: Client,
    pub events: Receiver<Event>,
}

/// Where the warden of a test has its files; removed with it if it is its own.
pub struct Directory(PathBuf, bool);

impl Directory {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.1 {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// What a test asks for; [`Ship::create`] turns it into a request.
pub struct Wish {
    pub id: Id,
    pub spec: ContainerSpec,
    pub fds: Vec<OwnedFd>,
    pub stdin_open: bool,
    pub stdin_once: bool,
    pub attachments: Vec<Attachment>,
}

impl Ship {
    pub fn launch() -> Self {
        let directory = Directory(tempfile::tempdir().unwrap().keep(), true);
        let root = directory.path().join("root");
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir_all(root.join("usr/none")).unwrap();
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for name in [
            "sh", "ls", "cat", "id", "echo", "sleep", "true", "hostname", "readlink", "stat",
            "mount", "tty", "stty", "touch", "grep", "kill", "wc", "head", "pwd", "env", "ulimit",
            "dd", "ps", "yes",
        ] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n",
        )
        .unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\nweb:x:34:\nextra:x:50:web\n").unwrap();
        fs::write(root.join("etc/data"), "no program\n").unwrap();
        fs::create_dir(directory.path().join("logs")).unwrap();
        let (client, events) = connect(directory.path());
        // so that the first two containers of a test always have one
        client.compartments(None).unwrap();
        Self { directory, client, events }
    }

    /// A client of the warden that serves at `directory` already.
    pub fn at(directory: &Path) -> Self {
        let (client, events) = connect(directory);
        Self { directory: Directory(directory.to_owned(), false), client, events }
    }

    /// A second client, as an engine that was started again.
    pub fn another(&self) -> (Client, Receiver<Event>) {
        connect(self.directory.path())
    }

    pub fn wish(&self, arguments: &[&str]) -> Wish {
        let tree = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let root = open_tree(CWD, self.directory.path().join("root"), tree).unwrap();
        let userns = self.client.user_namespace(RANGE).unwrap();
        set_id_mapping(root.as_fd(), Depth::One, userns.as_fd()).unwrap();
        let mut fds = vec![root];
        let devices = defaults::DEVICES.iter().map(|device| {
            let node = rustix::fs::open(device.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
            fds.push(node.unwrap());
            Device { path: device.path.to_owned(), fd: FdIndex(fds.len() as u16 - 1) }
        });
        let devices = devices.collect();
        let logs = File::open(self.directory.path().join("logs")).unwrap();
        fds.push(logs.into());
        let spec = ContainerSpec {
            hostname: "box".into(),
            domainname: String::new(),
            namespaces: Namespaces::PRIVATE,
            id_range: Some(RANGE),
            rootfs: FdIndex(0),
            rootfs_readonly: false,
            mounts: defaults::mounts(false, 1 << 20),
            devices,
            masked_paths: defaults::masked_paths(false),
            readonly_paths: defaults::readonly_paths(false),
            sysctls: defaults::network_sysctls(RANGE.size),
            cgroup_v1_procs: vec![],
            cgroup_v2: None,
            cgroup_v1_groups: vec![],
            process: process(arguments),
        };
        let id = Id::random();
        Wish { id, spec, fds, stdin_open: false, stdin_once: false, attachments: vec![] }
    }

    /// The root without an id mapping, for a container in the host's user namespace.
    pub fn unmapped(&self, mut wish: Wish) -> Wish {
        let tree = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        wish.fds[0] = open_tree(CWD, self.directory.path().join("root"), tree).unwrap();
        wish
    }

    pub fn log_name(id: Id) -> String {
        format!("{id}-json.log")
    }

    pub fn create(&self, wish: Wish) -> Result<Created, WardenError> {
        self.ask(wish, false)
    }

    /// As the engine does: without waiting for the mounts.
    pub fn create_early(&self, wish: Wish) -> Result<Created, WardenError> {
        self.ask(wish, true)
    }

    fn ask(&self, wish: Wish, answer_early: bool) -> Result<Created, WardenError> {
        let Wish { id, spec, fds, stdin_open, stdin_once, attachments } = wish;
        let directory = FdIndex(1 + defaults::DEVICES.len() as u16);
        let name = Self::log_name(id);
        let log = Log::JsonFile { directory, name, max_size: 10 << 20, max_files: 5 };
        let request =
            CreateContainer { id, spec, log, stdin_open, stdin_once, attachments, answer_early };
        self.client.create(request, fds)
    }

    /// Runs a container to its end: its exit code and its log.
    pub fn run(&self, wish: Wish) -> (u8, String) {
        let id = wish.id;
        self.create(wish).unwrap();
        self.client.start(id).unwrap();
        let code = self.exit(id).code;
        let text = self.log(id);
        self.client.forget(id).unwrap();
        (code, text)
    }

    pub fn sh(&self, script: &str) -> (u8, String) {
        self.run(self.wish(&["sh", "-c", script]))
    }

    pub fn exit(&self, wanted: Id) -> Exit {
        exit_of(&self.events, wanted)
    }

    /// What was logged, without the time.
    pub fn log(&self, id: Id) -> String {
        let path = self.directory.path().join("logs").join(Self::log_name(id));
        logged(&fs::read_to_string(path).unwrap())
    }
}

impl Drop for Ship {
    fn drop(&mut self) {
        let Ok(known) = self.client.list() else { return };
        for (known, pidfd) in known {
            if let (State::Running, Some(pidfd)) = (known.state, pidfd) {
                let kill = rustix::process::Signal::KILL;
                let _ = rustix::process::pidfd_send_signal(pidfd, kill);
                let _ = self.events.iter().find(|event| {
                    let Event::Exited { id, .. } = event;
                    *id == known.id
                });
            } else {
                let _ = self.client.forget(known.id);
            }
        }
        let ended = self.client.shut_down();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

impl Wish {
    pub fn change(mut self, change: impl FnOnce(&mut ContainerSpec)) -> Self {
        change(&mut self.spec);
        self
    }

    /// Adds an attached client with everything.
    pub fn attach(mut self) -> (Self, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(TIMEOUT)).unwrap();
        self.fds.push(theirs.into());
        let socket = FdIndex(self.fds.len() as u16 - 1);
        self.attachments.push(Attachment { socket, stdin: true, stdout: true, stderr: true });
        (self, ours)
    }
}

/// How long a test waits for what must happen; only a failure takes so long.
pub const TIMEOUT: Duration = Duration::from_secs(20);

pub fn exit_of(events: &Receiver<Event>, wanted: Id) -> Exit {
    loop {
        let Event::Exited { id, exit, .. } = events.recv_timeout(TIMEOUT).unwrap();
        if id == wanted {
            return exit;
        }
    }
}

pub fn process(arguments: &[&str]) -> ProcessSpec {
    ProcessSpec {
        arguments: arguments.iter().map(|it| (*it).to_owned()).collect(),
        environment: vec!["PATH=/usr/none:/bin".into()],
        working_directory: "/".into(),
        user: User { name: String::new(), additional_groups: vec![] },
        terminal: false,
        terminal_size: (0, 0),
        capabilities: Capabilities::DEFAULT,
        no_new_privileges: false,
        seccomp: Seccomp::Unconfined,
        rlimits: vec![],
        oom_score_adj: None,
        landlock: None,
        init: false,
    }
}

/// Cuts Docker's frames: (stream, payload).
pub fn frames(mut socket: UnixStream) -> Vec<(u8, String)> {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    let (mut rest, mut all) = (bytes.as_slice(), Vec::<(u8, String)>::new());
    while let [stream, 0, 0, 0, a, b, c, d, tail @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        all.push((*stream, String::from_utf8(tail[..length].to_vec()).unwrap()));
        rest = &tail[length..];
    }
    assert!(rest.is_empty(), "{rest:?}");
    all
}

/// What the lines of a log file say, without the time.
pub fn logged(text: &str) -> String {
    let line = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        value["log"].as_str().unwrap().to_owned()
    };
    text.lines().map(line).collect()
}

/// All that comes, without the frames that it has if there is no terminal.
pub fn payload(mut socket: UnixStream, terminal: bool) -> String {
    if !terminal {
        return frames(socket).into_iter().map(|(_, text)| text).collect();
    }
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    text
}

pub fn parent(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap().parse().unwrap()
}

/// The children of a process, among them the zygote.
pub fn children(pid: u32) -> Vec<u32> {
    let numbers = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        entry.unwrap().file_name().to_str().and_then(|name| name.parse::<u32>().ok())
    });
    let is_child = |child: &u32| {
        let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
        status.lines().any(|line| line == format!("PPid:\t{pid}"))
    };
    numbers.filter(is_child).collect()
}

pub fn await_end(pidfd: &OwnedFd) {
    let patience = rustix::time::Timespec { tv_sec: 20, tv_nsec: 0 };
    let ended = rustix::event::poll(
        &mut [rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN)],
        Some(&patience),
    )
    .unwrap();
    assert_eq!(ended, 1, "it has not ended");
}

fn connect(directory: &Path) -> (Client, Receiver<Event>) {
    let (sender, events) = channel();
    let program = std::env::current_exe().unwrap();
    let on_event = move |event| drop(sender.send(event));
    let client =
        Client::connect_or_start(&directory.join("warden.sock"), &program, on_event, || {});
    (client.unwrap(), events)
}

/// Starts a container that does nothing.
pub fn sleeper(ship: &Ship) -> (Id, Created) {
    let wish = ship.wish(&["sleep", "1000"]);
    let id = wish.id;
    let created = ship.create(wish).unwrap();
    ship.client.start(id).unwrap();
    (id, created)
}
