#![allow(
    clippy::disallowed_types,
    reason = "the resolver is a program of its own, and is started once"
)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Waits until no one else is starting a resolver at `socket`; the turn ends with the file.
pub(super) fn turn(socket: &Path) -> io::Result<File> {
    let path = socket.with_extension("starting");
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    file.lock()?;
    Ok(file)
}

/// Starts a resolver and waits until it listens: it closes its standard output then.
pub(super) fn launch(socket: &Path, program: &Path) -> io::Result<()> {
    let log_path = socket.with_extension("log");
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&log_path)?;
    let mut child = Command::new(program)
        .arg("resolver")
        .arg("--socket")
        .arg(socket)
        .current_dir("/")
        .env_clear()
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
        std::thread::Builder::new().name("resolver's exit".into()).spawn(move || child.wait())?;
        return Ok(());
    }
    let status = child.wait()?;
    Err(io::Error::other(format!("it did not start ({status}); see {}", log_path.display())))
}

/// What a resolver that listens says on its standard output before it closes it.
pub(crate) const READY: &str = "ready";
