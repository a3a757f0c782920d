//! Bundles of the runtime specification, and the runtimes that run them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{Said, rootfs, run};

/// A directory with a root file system; `config.json` is written when it is run.
#[derive(Debug)]
pub struct Bundle {
    directory: tempfile::TempDir,
    pub config: Value,
}

impl Bundle {
    /// busybox with these words, in namespaces of its own but without a user namespace.
    pub fn new(words: &[&str]) -> Result<Self> {
        let directory = crate::directory("bulkhead-bundle-")?;
        rootfs::make(&directory.path().join("rootfs"))?;
        Ok(Self { directory, config: config(words) })
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn rootfs(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    /// A file or directory beside the root, which nothing in a container may reach.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Adds a mount at the end.
    pub fn mount(&mut self, mount: Value) -> &mut Self {
        if let Some(mounts) = self.config["mounts"].as_array_mut() {
            mounts.push(mount);
        }
        self
    }

    /// Takes the mounts on a path out.
    pub fn without_mount(&mut self, destination: &str) -> &mut Self {
        if let Some(mounts) = self.config["mounts"].as_array_mut() {
            mounts.retain(|mount| {
                let at = mount["destination"].as_str().unwrap_or_default();
                at != destination && !at.starts_with(&format!("{destination}/"))
            });
        }
        self
    }

    /// Gives it a user namespace, whose root is `host_id` on the host.
    pub fn map_users(&mut self, host_id: u32) -> &mut Self {
        let map = json!([{ "containerID": 0, "hostID": host_id, "size": 65536 }]);
        self.config["linux"]["uidMappings"] = map.clone();
        self.config["linux"]["gidMappings"] = map;
        if let Some(namespaces) = self.config["linux"]["namespaces"].as_array_mut() {
            namespaces.push(json!({ "type": "user" }));
        }
        self
    }

    pub fn write(&self) -> Result<()> {
        Ok(std::fs::write(self.path().join("config.json"), self.config.to_string())?)
    }
}

/// A program with the command line of an OCI runtime.
#[derive(Debug, Clone)]
pub struct Runtime {
    pub name: &'static str,
    program: PathBuf,
    first: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Runtime {
    pub fn bulkhead() -> Self {
        Self::of("bulkhead", crate::program(), &["oci"])
    }

    /// Bulkhead without one of its walls; `None` if `cargo xtask test` has not built it.
    pub fn weakened(wall: &str) -> Option<Self> {
        let program = PathBuf::from(std::env::var_os("BULKHEAD_WEAKENED")?);
        let mut runtime = Self::of("weakened bulkhead", program, &[]);
        runtime.environment.push(("BULKHEAD_WEAK".to_owned(), wall.to_owned()));
        Some(runtime)
    }

    /// Debian 12's runc 1.1.5; `None` if it is not at hand.
    pub fn old_runc() -> Option<Self> {
        let program = old("usr/sbin/runc")?;
        Some(Self::of("runc 1.1.5", program, &[]))
    }

    fn of(name: &'static str, program: PathBuf, first: &[&str]) -> Self {
        let first = first.iter().map(|word| (*word).to_owned()).collect();
        Self { name, program, first, environment: Vec::new() }
    }

    /// With the state of its containers in `root`.
    pub fn command(&self, root: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.first).arg("--root").arg(root);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// The same, by a copy of its program.
    pub fn copied_to(&self, program: &Path) -> Result<Self> {
        rootfs::copy_program(&self.program, program)?;
        Ok(Self { program: program.to_owned(), ..self.clone() })
    }

    /// What stands before the arguments of an OCI runtime.
    pub fn first_words(&self) -> &[String] {
        &self.first
    }

    /// Makes a container that waits for its start.
    pub fn create(&self, bundle: &Bundle) -> Result<Container> {
        let container = Container::new(self, bundle)?;
        let path = bundle.path().to_string_lossy().into_owned();
        container.say_to_nobody(&["create", "--bundle", &path, &container.id])?;
        Ok(container)
    }

    /// Runs a bundle to its end, and removes whatever is left of it.
    pub fn run(&self, bundle: &Bundle) -> Result<Said> {
        let container = Container::new(self, bundle)?;
        container.say(&["run", "--bundle", &bundle.path().to_string_lossy(), &container.id])
    }

    /// Creates and starts it; the value that is returned deletes it again.
    pub fn start(&self, bundle: &Bundle) -> Result<Container> {
        let container = Container::new(self, bundle)?;
        let path = bundle.path().to_string_lossy().into_owned();
        container.say_to_nobody(&["run", "--detach", "--bundle", &path, &container.id])?;
        Ok(container)
    }
}

/// A container of a runtime, deleted by force when this is dropped.
#[derive(Debug)]
pub struct Container {
    runtime: Runtime,
    root: PathBuf,
    pub id: String,
}

impl Container {
    /// Nothing is run yet; the bundle's `config.json` is written.
    pub fn new(runtime: &Runtime, bundle: &Bundle) -> Result<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        bundle.write()?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // none is the beginning of another: some tests look for what has an id in it, and end that
        let id = format!("bhtest-{}-{number:05}", std::process::id());
        Ok(Self { runtime: runtime.clone(), root: bundle.beside("state"), id })
    }

    /// One call of the runtime, ended after a minute.
    pub fn say(&self, words: &[&str]) -> Result<Said> {
        let runtime = self.runtime.command(&self.root);
        let mut command = Command::new("timeout");
        command.args(["--foreground", "-s", "KILL", "60"]).arg(runtime.get_program());
        command.args(runtime.get_args()).args(words);
        let set = runtime.get_envs().filter_map(|(name, value)| Some((name, value?)));
        command.envs(set);
        run(&mut command)
    }

    /// One call whose output a process of the container may keep open.
    pub fn say_to_nobody(&self, words: &[&str]) -> Result<()> {
        let file = self.root.with_file_name("output");
        let output = std::fs::File::create(&file)?;
        let mut command = self.runtime.command(&self.root);
        command.args(words).stdout(output.try_clone()?).stderr(output);
        let status = command.status().with_context(|| format!("run {command:?}"))?;
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        anyhow::ensure!(status.success(), "{} {words:?}: {text}", self.runtime.name);
        Ok(())
    }

    pub fn exec(&self, words: &[&str]) -> Result<Said> {
        self.say(&[&["exec", self.id.as_str()], words].concat())
    }

    pub fn state(&self) -> Result<Value> {
        let text = self.say(&["state", &self.id])?.ok()?;
        serde_json::from_str(&text).context("the state is JSON")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // one without its walls may not get far
        if self.runtime.name == "weakened bulkhead" {
            self.runtime = Runtime::bulkhead();
        }
        let _ = self.say(&["delete", "--force", &self.id]);
    }
}

fn old(path: &str) -> Option<PathBuf> {
    let base = PathBuf::from(std::env::var_os("BULKHEAD_OLD_RUNTIMES")?);
    Some(base.join(path)).filter(|path| path.exists())
}

fn config(words: &[&str]) -> Value {
    let held = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_KILL",
        "CAP_SETUID",
        "CAP_SETGID",
        "CAP_SYS_CHROOT",
        "CAP_FOWNER",
    ];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": words,
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": { "bounding": held, "effective": held, "permitted": held },
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs" },
        "hostname": "bundle",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "mode=755", "size=1m"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
        ],
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" },
                { "type": "mount" }, { "type": "cgroup" },
            ],
            "maskedPaths": ["/proc/keys", "/proc/timer_list", "/proc/acpi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
        },
    })
}
