//! One engine in namespaces of its own, with a busybox image.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use bulkhead_engine::{
    Container, ContainerConfig, CreateContainer, Engine, HostConfig, LogQuery, Options, Streams,
    WaitCondition,
};
use bulkhead_image::Layer;
use bulkhead_types::{BuildStep, Id, image};
use rustix::thread::UnshareFlags;

pub type Running = Pin<Box<dyn Future<Output = bool>>>;

pub struct Rig {
    pub engine: Held,
    pub options: Options,
    directory: tempfile::TempDir,
}

/// The engine, which only [`Rig::close`] takes away.
pub struct Held(Option<Arc<Engine>>);

impl std::ops::Deref for Held {
    type Target = Arc<Engine>;

    fn deref(&self) -> &Arc<Engine> {
        self.0.as_ref().expect("opened again after every close")
    }
}

/// New network and mount namespaces for the whole process, with `lo` up and nothing shared.
pub fn enter_own_namespaces() {
    bulkhead_sys::unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS).expect("tests run as root");
    let recursive =
        rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", recursive).expect("mounts can be made private");
    let own = std::fs::File::open("/proc/self/ns/net").expect("/proc is mounted");
    let host = bulkhead_network::Host::open().expect("netlink");
    host.loopback_up(std::os::fd::AsFd::as_fd(&own)).expect("lo can be brought up");
}

pub fn options(directory: &Path) -> Options {
    // its whole path: the runner of tests looks for what has the name of the test's directory in it
    let name = directory.to_string_lossy().replace(['/', '.'], "-");
    Options {
        data: directory.join("data"),
        run: directory.join("run"),
        bridge: "bulkhead0".to_owned(),
        bridge_address: Some(("172.29.0.1".parse().expect("an address"), 24)),
        cgroup_parent: format!("bulkhead-test{name}"),
        ..Options::new(std::env::current_exe().expect("/proc is mounted"))
    }
}

impl Rig {
    pub async fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("engine").tempdir().expect("a directory");
        let options = options(directory.path());
        let engine = Engine::open(options.clone()).await.expect("the engine opens");
        Self { engine: Held(Some(engine)), options, directory }
    }

    /// Lets go of the engine as a crash would: it has no clean end.
    pub async fn close(&mut self) {
        let weak = self.engine.0.take().map(|engine| Arc::downgrade(&engine));
        // What it was just doing on other threads holds it a moment longer.
        crate::containers::wait_for(|| weak.as_ref().is_none_or(|it| it.strong_count() == 0)).await;
        self.until_free().await;
    }

    /// Waits until no engine of this process has the data directory.
    pub async fn until_free(&self) {
        let lock = std::fs::File::open(self.options.data.join("lock")).expect("made by the engine");
        crate::containers::wait_for(|| lock.try_lock().is_ok()).await;
    }

    pub async fn open(&mut self) {
        self.engine.0 = Some(Engine::open(self.options.clone()).await.expect("it opens again"));
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub async fn import_busybox(&self) {
        let tar = tempfile::NamedTempFile::new_in(self.path()).expect("a file");
        let mut archive = tar::Builder::new(tar.reopen().expect("a file"));
        let new = || {
            let mut header = tar::Header::new_gnu();
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_mode(0o777);
            header
        };
        for directory in ["bin", "etc", "tmp", "srv/data"] {
            let mut header = new();
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(if directory == "tmp" { 0o1777 } else { 0o755 });
            header.set_size(0);
            archive.append_data(&mut header, directory, std::io::empty()).expect("tar");
        }
        archive.append_path_with_name("/bin/busybox", "bin/busybox").expect("tar");
        for name in [
            "sh", "cat", "echo", "ls", "id", "sleep", "wget", "nc", "ip", "stat", "touch", "mkdir",
            "hostname", "tail", "true", "false", "ps", "kill", "grep", "readlink", "tty", "stty",
            "head", "httpd", "env", "mount", "chmod",
        ] {
            let mut header = new();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            archive.append_link(&mut header, format!("bin/{name}"), "busybox").expect("tar");
        }
        let mut file = |name: &str, text: &str| {
            let mut header = new();
            header.set_mode(0o644);
            header.set_size(text.len() as u64);
            header.set_uid(if name.starts_with("srv") { 33 } else { 0 });
            archive.append_data(&mut header, name, text.as_bytes()).expect("tar");
        };
        file(
            "etc/passwd",
            "root:x:0:0::/:/bin/sh\nwww:x:33:33::/:/bin/sh\nfar:x:1100000000:33::/:/bin/sh\n",
        );
        file("etc/group", "root:x:0:\nwww:x:33:\nafar:x:1200000000:far\n");
        file("srv/data/seed", "from the image\n");
        archive.finish().expect("tar");
        let config = image::Config {
            cmd: Some(vec!["/bin/sh".to_owned()]),
            env: Some(vec!["PATH=/bin".to_owned()]),
            ..image::Config::default()
        };
        let source = std::fs::File::open(tar.path()).expect("a file").into();
        let names = ["busybox".parse().expect("a reference")];
        self.engine
            .images()
            .import(source, &names, config, "")
            .await
            .expect("the image is imported");
    }

    /// A request to run a shell script.
    pub fn script(name: &str, script: &str) -> CreateContainer {
        CreateContainer {
            name: Some(name.parse().expect("a name")),
            image: "busybox".to_owned(),
            config: ContainerConfig {
                cmd: Some(vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()]),
                attach_stdout: true,
                attach_stderr: true,
                ..ContainerConfig::default()
            },
            host: HostConfig::default(),
            endpoints: Vec::new(),
        }
    }

    /// A container that runs until it is stopped, and stops at once when it is told.
    pub fn sleeper(name: &str) -> CreateContainer {
        Self::script(name, "trap 'exit 3' TERM; echo ready; sleep 1000 & wait")
    }

    /// Waits until a [`Self::sleeper`] handles signals: process 1 ignores what it does not handle.
    pub async fn ready(&self, name: &str) {
        let query = LogQuery { stdout: true, follow: true, ..LogQuery::default() };
        let mut lines = self.engine.logs(self.id(name), query).await.expect("a log");
        let line = lines.recv().await.expect("it says that it is ready");
        assert_eq!(line.expect("a readable log").text, b"ready\n");
    }

    /// The id of the container with this name or id.
    pub fn id(&self, text: &str) -> Id {
        self.engine.container_id(text).expect("a container has this name")
    }

    pub async fn start(&self, create: CreateContainer) -> Container {
        let container = self.engine.create(create).await.expect("created");
        let id = container.id.to_string();
        self.engine.start(self.id(&id)).await.expect("started");
        self.engine.container(&id).expect("known")
    }

    /// Runs to the end: (exit code, what came out).
    pub async fn run(&self, create: CreateContainer) -> (u8, String) {
        let container = self.engine.create(create).await.expect("created");
        let id = container.id.to_string();
        let streams = Streams { stdout: true, stderr: true, ..Streams::default() };
        let socket = self.engine.attach(self.id(&id), streams).await.expect("attached");
        let ended = self.engine.wait(self.id(&id), WaitCondition::NextExit).expect("waited for");
        self.engine.start(self.id(&id)).await.expect("started");
        let output = read_output(socket, container.config.tty).await;
        let code = ended.await.expect("ended");
        (code, output)
    }

    /// Runs a step of a build to its end: (exit code, what it changed, what came out).
    pub async fn step(&self, step: BuildStep) -> (u8, Option<Layer>, String) {
        let (sender, mut receiver) =
            tokio::sync::mpsc::channel::<(bulkhead_engine::Stream, String)>(1);
        let collect = async {
            let mut output = String::new();
            while let Some((_, text)) = receiver.recv().await {
                output += &text;
            }
            output
        };
        let run = self.engine.run_step(step, HostConfig::default(), sender);
        let (ran, output) = tokio::join!(run, collect);
        let (code, layer) = ran.expect("ran");
        (code, layer, output)
    }

    pub async fn log(&self, name: &str, query: LogQuery) -> String {
        let mut lines = self.engine.logs(self.id(name), query).await.expect("a log");
        let mut text = Vec::new();
        while let Some(line) = lines.recv().await {
            let line = line.expect("a readable log");
            text.extend(line.text);
        }
        String::from_utf8(text).expect("text")
    }

    /// Ends what a failed test left running; what fails here is only told.
    pub async fn clear_after_failure(&mut self) {
        if self.engine.0.is_none() {
            match Engine::open(self.options.clone()).await {
                Ok(engine) => self.engine.0 = Some(engine),
                Err(error) => return eprintln!("open after the failure: {error}"),
            }
        }
        if let Err(error) = self.engine.tear_down().await {
            eprintln!("tear down after the failure: {error}");
        }
    }

    /// Ends everything and checks that nothing is left.
    pub async fn done(&mut self) {
        self.engine.tear_down().await.expect("torn down");
        let links = std::fs::read_to_string("/proc/net/dev").expect("/proc is mounted");
        assert!(!links.contains("bh") && !links.contains("bulkhead0"), "{links}");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
        let own = self.path().display().to_string();
        assert!(!mounts.contains(&own), "{mounts}");
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten() {
            let path: PathBuf = hierarchy.path().join(&self.options.cgroup_parent);
            assert!(!path.exists(), "{} is left", path.display());
        }
        // It answers before it ends.
        crate::containers::wait_for(|| wardens(&self.options.run) == 0).await;
        crate::containers::wait_for(|| processes(&self.options.run, "resolver") == 0).await;
    }
}

/// How many wardens serve this run directory.
fn wardens(run: &Path) -> usize {
    processes(run, "warden")
}

/// How many processes of this kind serve this run directory.
pub fn processes(run: &Path, kind: &str) -> usize {
    let wanted = run.display().to_string();
    std::fs::read_dir("/proc")
        .expect("/proc is mounted")
        .flatten()
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .filter(|line| {
            let line = String::from_utf8_lossy(line);
            line.contains(&format!("\0{kind}\0")) && line.contains(&wanted)
        })
        .count()
}

/// All output of an attached socket, frames taken off.
pub async fn read_output(mut socket: UnixStream, raw: bool) -> String {
    let read = move || {
        let mut bytes = Vec::new();
        // A peer that closes with unread data resets the connection; what came before counts.
        let _ = socket.read_to_end(&mut bytes);
        bytes
    };
    let bytes = tokio::task::spawn_blocking(read).await.expect("read");
    if raw {
        return String::from_utf8(bytes).expect("text");
    }
    let mut text = Vec::new();
    let mut rest = bytes.as_slice();
    while rest.len() >= 8 {
        let length = u32::from_be_bytes([rest[4], rest[5], rest[6], rest[7]]) as usize;
        text.extend_from_slice(&rest[8..8 + length]);
        rest = &rest[8 + length..];
    }
    String::from_utf8(text).expect("text")
}

/// Sends text to an attached socket.
pub fn send(socket: &UnixStream, text: &str) {
    let mut socket = socket;
    socket.write_all(text.as_bytes()).expect("sent");
}
