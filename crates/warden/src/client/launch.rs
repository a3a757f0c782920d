#![allow(
    clippy::disallowed_types,
    reason = "the warden is a program of its own, and is started once"
)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use bulkhead_sys::mount::{Attributes, Depth, set_attributes};
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Waits until no one else is starting a warden at `socket`; the turn ends with the file.
pub(super) fn turn(socket: &Path) -> io::Result<File> {
    let path = socket.with_extension("starting");
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    file.lock()?;
    Ok(file)
}

/// The soft limit of open descriptors that containers get, for a warden whose starter has raised
/// its own.
pub(crate) const USUAL_DESCRIPTORS: &str = "BULKHEAD_USUAL_DESCRIPTORS";

static USUAL: OnceLock<Option<u64>> = OnceLock::new();

/// Raises this process's limit of open descriptors as far as it may: it holds half a dozen for each
/// container, and one that cannot take what the warden sends it loses the connection.
pub(super) fn raise_descriptors() {
    USUAL.get_or_init(|| {
        let limit = getrlimit(Resource::Nofile);
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
        limit.current
    });
}

/// How many wardens of one client have the failpoints of its environment: the first, which makes
/// containers, and the one after its death, which takes them over. A later one must live, or nothing
/// would be seen of what a recovery comes to.
const ARMED: u32 = 2;

/// Starts a warden and waits until it listens: it closes its standard output then. `before` is how
/// many this client has started already.
pub(super) fn launch(socket: &Path, program: &Path, before: u32) -> io::Result<()> {
    let log_path = socket.with_extension("log");
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&log_path)?;
    let image = read_only(program)?;
    let mut command = Command::new(format!("/proc/self/fd/{}", image.as_raw_fd()));
    if before >= ARMED {
        command.env_remove(bulkhead_failpoint::VARIABLE);
    }
    let mut child = command
        .arg0(program)
        .arg("warden")
        .arg("--socket")
        .arg(socket)
        .current_dir("/")
        .envs(USUAL.get().copied().flatten().map(|usual| (USUAL_DESCRIPTORS, usual.to_string())))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()?;
    let mut said = String::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_string(&mut said)?;
    }
    if said.trim_end() == READY {
        // so that it is not left a zombie should it end before this process
        std::thread::Builder::new().name("warden's end".into()).spawn(move || child.wait())?;
        return Ok(());
    }
    let status = child.wait()?;
    Err(io::Error::other(format!("it did not start ({status}); see {}", log_path.display())))
}

/// Opens the program through a read-only mount of its own that no namespace holds.
///
/// A container's program can be `/proc/self/exe`, which is the warden's own: run as root of the
/// host, it could keep a way to that file and overwrite it once nobody runs it (CVE-2019-5736).
/// Through this mount nobody can write, whoever they are.
fn read_only(program: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let image = open_tree(CWD, program, flags)?;
    set_attributes(image.as_fd(), Depth::One, Attributes::RDONLY)?;
    Ok(image)
}

/// What a warden that listens says on its standard output before it closes it.
pub(crate) const READY: &str = "ready";
