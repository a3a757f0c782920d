use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};

/// Waits until no one else is starting a warden at `socket`; the turn ends with the file.
pub(super) fn turn(socket: &Path) -> io::Result<File> {
    let path = socket.with_extension("starting");
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    file.lock()?;
    Ok(file)
}

/// Starts a warden and waits until it listens: it closes its standard output then.
pub(super) fn launch(socket: &Path, program: &Path) -> io::Result<()> {
    let log_path = socket.with_extension("log");
    let log = OpenOptions::new().create(true).append(true).open(&log_path)?;
    let mut child = Command::new(program)
        .arg("warden")
        .arg("--socket")
        .arg(socket)
        .current_dir("/")
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

/// What a warden that listens says on its standard output before it closes it.
pub(crate) const READY: &str = "ready";
