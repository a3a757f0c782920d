//! A server as a process of its own: in the foreground for a service manager, or in the background.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use crate::configuration::Daemon;
use crate::failure::Failure;
use crate::log_file::LogFile;

#[derive(Debug, Clone, Args)]
pub struct BackgroundArguments {
    /// Return when everything is ready, and go on in the background
    #[arg(short, long)]
    pub detach: bool,
    /// Set by --detach: this is the process in the background
    #[arg(long, hide = true)]
    pub in_background: bool,
}

/// What the log has, and how it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// As `tracing` has it, unless `BULKHEAD_LOG` says another.
    level: &'static str,
    format: Format,
    colours: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

impl Log {
    /// # Errors
    /// A sentence that names the key.
    pub fn of(daemon: &Daemon) -> Result<Self, Failure> {
        let level = match daemon.log_level.as_deref().unwrap_or_default().to_lowercase().as_str() {
            "" | "info" => "info",
            "trace" => "trace",
            "debug" => "debug",
            "warn" => "warn",
            // the two that a program does not outlive, which here are errors like the others
            "error" | "fatal" | "panic" => "error",
            other => {
                return Err(Failure::new(format!("log-level: invalid logging level: {other}")));
            }
        };
        let format = match daemon.log_format.as_deref() {
            None | Some("" | "text") => Format::Text,
            Some("json") => Format::Json,
            Some(other) => {
                return Err(Failure::new(format!("log-format: invalid log format: {other}")));
            }
        };
        // as in Docker, where trace is more than debug
        let level = if daemon.debug && level != "trace" { "debug" } else { level };
        Ok(Self { level, format, colours: !daemon.raw_logs })
    }

    /// Which records are written. Of other people's crates the level says nothing below `info`: theirs are
    /// of no use to whoever looks for a fault here.
    fn filter(&self) -> EnvFilter {
        let quiet =
            ["h2", "hyper", "hyper_util", "rustls", "tokio_rustls", "tower", "netlink_proto"];
        let quiet = quiet.map(|name| format!(",{name}=info")).concat();
        let level = self.level;
        let own = match level {
            "trace" | "debug" => format!("{level}{quiet}"),
            _ => level.to_owned(),
        };
        EnvFilter::try_from_env("BULKHEAD_LOG").unwrap_or_else(|_| own.into())
    }
}

/// The level of the log, which may be another later.
pub struct Level(Box<dyn Fn(EnvFilter) + Send + Sync>);

impl Level {
    pub fn set(&self, log: &Log) {
        (self.0)(log.filter());
    }
}

impl std::fmt::Debug for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Level").finish_non_exhaustive()
    }
}

/// Makes the process's log.
fn start_log<W>(log: &Log, writer: W, colours: bool) -> Level
where
    W: for<'w> tracing_subscriber::fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    macro_rules! start {
        ($builder:expr) => {{
            let builder = $builder.with_env_filter(log.filter()).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            // It fails only where the log is gone, with the process.
            Level(Box::new(move |filter| drop(handle.reload(filter))))
        }};
    }
    let builder = tracing_subscriber::fmt().with_writer(writer).with_ansi(colours && log.colours);
    match log.format {
        Format::Text => start!(builder),
        Format::Json => start!(builder.json()),
    }
}

/// Runs `serve` here, or has this command start again in the background, with its log in `run`.
pub fn run(
    arguments: &BackgroundArguments,
    run: &Path,
    log: &Log,
    serve: impl AsyncFnOnce(&Level) -> Result<(), Failure>,
) -> Result<(), Failure> {
    crate::host::check()?;
    if arguments.detach {
        return detach(run);
    }
    if arguments.in_background {
        // Not a group leader, being a fresh child: this cannot fail, and nothing depends on it.
        let _ = rustix::process::setsid();
    }
    let level = if arguments.in_background {
        let path = log_path(run);
        let file = LogFile::of_process(path.clone());
        let file = file.map_err(|cause| unwritable(&path, &cause))?;
        start_log(log, Arc::new(file), false)
    } else {
        start_log(log, std::io::stderr, std::io::IsTerminal::is_terminal(&std::io::stderr()))
    };
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(&level))
}

/// Starts this command again in a session of its own, and waits for the line that says it is ready.
fn detach(run: &Path) -> Result<(), Failure> {
    let is_new = !run.exists();
    std::fs::create_dir_all(run)
        .map_err(|cause| Failure::new(format!("cannot make {}: {cause}", run.display())))?;
    let path = log_path(run);
    let log = crate::log_file::open(&path).map_err(|cause| unwritable(&path, &cause))?;
    let begin = log.metadata()?.len();
    let rest =
        std::env::args_os().skip(1).filter(|argument| argument != "-d" && argument != "--detach");
    let program = std::env::current_exe()?;
    let mut child = std::process::Command::new(program)
        .args(rest)
        .arg("--in-background")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(log)
        .spawn()?;
    let output = child.stdout.take().expect("it was piped just above");
    for line in BufReader::new(output).lines() {
        let line = line?;
        match line.as_str() {
            READY => return Ok(()),
            line => println!("{line}"),
        }
    }
    let status = child.wait()?;
    let mut said = std::fs::read(&path).unwrap_or_default();
    // What earlier ones have said is no reason of this one's.
    said.drain(..said.len().min(usize::try_from(begin).unwrap_or(usize::MAX)));
    let said = String::from_utf8_lossy(&said);
    let last = said.lines().rfind(|line| line.starts_with("bulkhead: ")).unwrap_or_default();
    let reason = match last.strip_prefix("bulkhead: ") {
        Some(reason) => {
            // Said in full here, and nothing else was made: then nothing of it stays.
            let only_log = said.lines().count() == 1 && begin == 0;
            if is_new && only_log && std::fs::remove_file(&path).is_ok() {
                let _ = std::fs::remove_dir(run);
            }
            reason.to_owned()
        }
        None => format!("it did not start ({status}); see {}", path.display()),
    };
    Err(Failure::new(reason))
}

fn log_path(run: &Path) -> PathBuf {
    run.join("bulkhead.log")
}

fn unwritable(path: &Path, cause: &std::io::Error) -> Failure {
    Failure::new(format!("cannot write {}: {cause}", path.display()))
}

/// What the process in the background says when every socket listens.
pub const READY: &str = "bulkhead is up";

/// Returns when a signal or a client asks the program to end; until then, SIGHUP calls `reload`.
pub async fn wait_for_end(
    mut stopped: watch::Receiver<bool>,
    mut reload: impl FnMut(),
) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = stopped.wait_for(|stop| *stop) => break,
            _ = hang_up.recv() => reload(),
        }
    }
    Ok(())
}

/// A process that serves a socket, to be waited for.
#[derive(Debug)]
pub struct Server(rustix::fd::OwnedFd);

impl Server {
    /// The process that listens on `socket`, if one does.
    pub fn find(socket: &Path) -> Option<Self> {
        let stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
        let peer = rustix::net::sockopt::socket_peercred(&stream).ok()?;
        rustix::process::pidfd_open(peer.pid, rustix::process::PidfdFlags::empty()).ok().map(Self)
    }

    /// Returns when it has ended, or says that it has not within half a minute.
    pub fn wait(&self) -> Result<(), Failure> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let timeout = Timespec { tv_sec: 30, tv_nsec: 0 };
        let mut polled = [PollFd::new(&self.0, PollFlags::IN)];
        match poll(&mut polled, Some(&timeout)) {
            Ok(0) => Err(Failure::new("the engine did not end within 30 seconds: see its log")),
            Ok(_) => Ok(()),
            Err(cause) => Err(std::io::Error::from(cause).into()),
        }
    }
}
