//! A Bulkhead with an image that holds the probe, and what the host looks like around it.

use std::collections::BTreeMap;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use bulkhead_tests::{Daemon, Said, rootfs, run};

pub const IMAGE: &str = "probe";
/// A System V key that nobody else is likely to use.
const KEY: u32 = 0x6275_6c6b;

pub struct Rig {
    pub daemon: Daemon,
    /// What only the host can see, in each place where a container may come to see it.
    _abstract: UnixListener,
    _memory: SharedMemory,
}

/// What the probe has found, by name.
#[derive(Debug, Default, Clone)]
pub struct Facts(BTreeMap<String, String>);

impl Facts {
    pub fn parse(text: &str) -> Self {
        let mut facts = BTreeMap::new();
        for line in text.lines() {
            let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            if let (Some(check), Some(result)) = (value["check"].as_str(), value["result"].as_str())
            {
                facts.insert(check.to_owned(), result.to_owned());
            }
        }
        Self(facts)
    }

    pub fn of(&self, name: &str) -> &str {
        self.0.get(name).map_or("not tried", String::as_str)
    }

    pub fn number(&self, name: &str) -> u64 {
        self.of(name).parse().unwrap_or(u64::MAX)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, result)| (name.as_str(), result.as_str()))
    }
}

impl Rig {
    pub fn start() -> Result<Self> {
        let daemon = Daemon::start()?;
        let root = daemon.directory().join("probe-image");
        rootfs::make(&root)?;
        rootfs::add_probe(&root, Path::new(env!("CARGO_BIN_EXE_bulkhead-probe")))?;
        // the kernel's log: opened only, and never allowed to a container
        node(&root.join("image-device"), 1, 11)?;
        let archive = daemon.directory().join("probe.tar");
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&root).arg("-cf").arg(&archive).args(["--owner=0", "--group=0", "."]);
        run(&mut tar)?.ok()?;
        let path = archive.to_string_lossy();
        daemon.docker(&["import", "-c", "ENV PATH=/bin", &path, IMAGE])?.ok()?;
        let name = format!("canary-{}", std::process::id());
        let listener = daemon.within(|| {
            use std::os::linux::net::SocketAddrExt;
            Ok(UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?)
        })?;
        let memory = SharedMemory::make()?;
        Ok(Self { daemon, _abstract: listener, _memory: memory })
    }

    /// `docker run --rm` with these flags, of the probe or another program.
    pub fn run(&self, flags: &[&str], words: &[&str]) -> Result<Said> {
        self.daemon.docker(&[&["run", "--rm"], flags, &[IMAGE], words].concat())
    }

    /// What the probe says with these words.
    pub fn probe(&self, flags: &[&str], words: &[&str]) -> Result<Facts> {
        let said = self.run(flags, &[&["/probe"], words].concat())?;
        ensure!(said.code == 0, "probe {words:?}: {}{}", said.stdout, said.stderr);
        Ok(Facts::parse(&said.stdout))
    }

    /// Everything that one look from inside can show, and the host's namespaces beside it.
    pub fn facts(&self, flags: &[&str]) -> Result<Facts> {
        let engine = self.engine()?;
        let settings = [
            format!("PROBE_HOST_PID={engine}"),
            format!("PROBE_SHM={KEY}"),
            format!("PROBE_SECRET={}", self.daemon.data().display()),
        ];
        let variables: Vec<&str> = settings.iter().flat_map(|it| ["-e", it.as_str()]).collect();
        let mut facts = self.probe(&[flags, &variables].concat(), &["facts"])?;
        for kind in ["pid", "net", "ipc", "mnt", "uts", "cgroup", "time", "user"] {
            let link = std::fs::read_link(format!("/proc/{engine}/ns/{kind}"))?;
            facts.0.insert(format!("host ns {kind}"), link.display().to_string());
        }
        Ok(facts)
    }

    /// A container that stays, until it is dropped.
    pub fn stay(&self, flags: &[&str], words: &[&str]) -> Result<Staying<'_>> {
        let words = if words.is_empty() { &["sleep", "1000"] } else { words };
        let id = self.daemon.docker(&[&["run", "-d"], flags, &[IMAGE], words].concat())?.ok()?;
        Ok(Staying { rig: self, id })
    }

    pub fn engine(&self) -> Result<u32> {
        let text = std::fs::read_to_string(self.daemon.run_directory().join("bulkhead.pid"))?;
        Ok(text.trim().parse()?)
    }

    /// What nothing in a container may change. Other people work on this machine: links, mounts and
    /// cgroups are looked at as far as they are this daemon's (by its own clean-up).
    pub fn fingerprint(&self) -> Result<Fingerprint> {
        let mut entries = BTreeMap::new();
        let program = bulkhead_tests::program();
        entries.insert(program.clone(), run(Command::new("sha256sum").arg(&program))?.ok()?);
        for directory in ["/proc/sys/kernel", "/proc/sys/fs", "/proc/sys/vm", "/proc/sys/dev"] {
            settings(Path::new(directory), &mut entries)?;
        }
        for directory in ["/dev", "/", "/etc"] {
            let mut names: Vec<_> = std::fs::read_dir(directory)?
                .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
                .collect();
            names.sort();
            entries.insert(directory.into(), names.join(" "));
        }
        Ok(Fingerprint(entries))
    }
}

pub struct Staying<'a> {
    rig: &'a Rig,
    pub id: String,
}

impl Staying<'_> {
    pub fn exec(&self, flags: &[&str], words: &[&str]) -> Result<Said> {
        self.rig.daemon.docker(&[&["exec"], flags, &[self.id.as_str()], words].concat())
    }

    pub fn probe(&self, flags: &[&str], words: &[&str]) -> Result<Facts> {
        let said = self.exec(flags, &[&["/probe"], words].concat())?;
        ensure!(said.code == 0, "probe {words:?}: {}{}", said.stdout, said.stderr);
        Ok(Facts::parse(&said.stdout))
    }

    pub fn pid(&self) -> Result<u32> {
        let format = ["inspect", "--format", "{{.State.Pid}}", &self.id];
        Ok(self.rig.daemon.docker(&format)?.ok()?.parse()?)
    }
}

impl Drop for Staying<'_> {
    fn drop(&mut self) {
        let _ = self.rig.daemon.docker(&["rm", "-f", "-v", &self.id]);
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Fingerprint(BTreeMap<PathBuf, String>);

impl Fingerprint {
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let changed = self.0.iter().filter(|(path, text)| other.0.get(*path) != Some(text));
        changed.map(|(path, _)| path.display().to_string()).collect()
    }
}

/// The settings below a directory, without those that count what happens on the machine.
fn settings(directory: &Path, into: &mut BTreeMap<PathBuf, String>) -> Result<()> {
    const COUNTERS: [&str; 10] = [
        "dentry-state",
        "file-nr",
        "inode-nr",
        "inode-state",
        "aio-nr",
        "ns_last_pid",
        "random",
        "pty",
        "numa_stat",
        "quota",
    ];
    for entry in std::fs::read_dir(directory).with_context(|| format!("{directory:?}"))? {
        let entry = entry?;
        if COUNTERS.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            settings(&entry.path(), into)?;
        } else if let Ok(text) = std::fs::read_to_string(entry.path()) {
            into.insert(entry.path(), text);
        }
    }
    Ok(())
}

/// A segment in the host's IPC namespace, removed when this is dropped.
struct SharedMemory;

impl SharedMemory {
    fn make() -> Result<Self> {
        use bulkhead_sys::testing::{Abi, Called, call};
        const SHMGET: u32 = 29;
        const CREATE_EXCLUSIVELY: u64 = 0o3600;
        let made = call(Abi::Native, SHMGET, [KEY.into(), 4096, CREATE_EXCLUSIVELY, 0, 0, 0])?;
        ensure!(made == Called::Done, "make a System V segment: {made}");
        Ok(Self)
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        let _ = run(Command::new("ipcrm").args(["-M", &format!("{KEY:#x}")]));
    }
}

fn node(path: &Path, major: u32, minor: u32) -> Result<()> {
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    let kind = rustix::fs::FileType::CharacterDevice;
    let number = rustix::fs::makedev(major, minor);
    Ok(rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, number)?)
}
