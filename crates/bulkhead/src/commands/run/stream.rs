//! Bytes between the user's terminal and an attached container or exec.

use std::io::Write;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

use crate::client::{Client, Hijacked, encode};
use crate::failure::Failure;
use crate::terminal::{self, Keys, Typed};

/// What is on the other end, for resizing and signals.
#[derive(Debug, Clone)]
pub enum Target {
    Container(String),
    Exec(String),
}

#[derive(Debug)]
pub struct Mode {
    pub tty: bool,
    pub stdin: bool,
    pub form: Form,
    /// What leaves a terminal.
    pub keys: Keys,
    /// Whether signals are the program's, and not this one's.
    pub signals: bool,
}

/// What is on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Docker's: frames, or a terminal's bytes as they are.
    Docker,
    /// Frames in any case, and behind them how the process ended.
    Session,
}

/// Why the copying ended.
#[derive(Debug, PartialEq)]
pub enum Ended {
    /// The other side has ended its output, with what a session says last.
    Output(Option<Value>),
    /// The user typed the keys to leave; the process goes on.
    Left,
}

/// Copies both ways until the other side has ended its output, or the user leaves.
pub async fn run(
    client: &Client,
    target: &Target,
    connection: Hijacked,
    mode: Mode,
) -> Result<Ended, Failure> {
    let (left, mut leaving) = tokio::sync::oneshot::channel();
    let (mut from, mut to) = tokio::io::split(connection);
    if mode.tty {
        resize(client, target).await;
        tokio::spawn(follow_size(client.clone(), target.clone()));
    } else if mode.signals {
        tokio::spawn(forward_signals(client.clone(), target.clone()));
    }
    if mode.stdin {
        // A thread, not a task: a read of a terminal cannot be taken back, and must not keep the
        // program from ending when the container has.
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<Vec<u8>>(4);
        std::thread::spawn(move || read_stdin(&sender));
        let keys = mode.tty.then_some(mode.keys);
        tokio::spawn(async move {
            let mut keys = keys;
            while let Some(bytes) = receiver.recv().await {
                let typed = match &mut keys {
                    Some(keys) => keys.typed(&bytes),
                    None => Typed::Program(bytes),
                };
                let (Typed::Program(bytes) | Typed::Leave(bytes)) = &typed;
                if to.write_all(bytes).await.is_err() {
                    return;
                }
                if matches!(typed, Typed::Leave(_)) {
                    let _ = left.send(());
                    return;
                }
            }
            let _ = to.shutdown().await;
        });
    } else {
        // Docker's CLI closes its side at once; the server has to keep the other one open.
        let _ = to.shutdown().await;
    }
    let copy = async {
        match mode.form {
            Form::Docker if mode.tty => copy_raw(&mut from).await.map(|()| None),
            Form::Docker | Form::Session => copy_frames(&mut from).await,
        }
    };
    let copied = tokio::select! {
        copied = copy => copied,
        Ok(()) = &mut leaving => return Ok(Ended::Left),
    };
    Ok(Ended::Output(copied.map_err(broke)?))
}

/// What a session says first: what was made, and what is to be told about it.
pub async fn head(connection: &mut Hijacked) -> Result<Value, Failure> {
    match frame(connection, &mut Vec::new()).await.map_err(broke)? {
        Some(Frame::Control(value)) => Ok(value),
        _ => Err(Failure::new("the engine did not say what it has made")),
    }
}

fn broke(cause: std::io::Error) -> Failure {
    Failure::new(format!("the connection to the engine broke: {cause}"))
}

fn read_stdin(sender: &tokio::sync::mpsc::Sender<Vec<u8>>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match rustix::io::read(std::io::stdin(), &mut buffer) {
            Ok(0) => return,
            Ok(count) if sender.blocking_send(buffer[..count].to_vec()).is_err() => return,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

async fn copy_raw(from: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<()> {
    let mut buffer = vec![0; 32 * 1024];
    loop {
        match from.read(&mut buffer).await? {
            0 => return Ok(()),
            count => write(std::io::stdout(), &buffer[..count])?,
        }
    }
}

/// Copies frames to their end, and returns the last one of a session.
async fn copy_frames(from: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<Option<Value>> {
    let (mut payload, mut last) = (Vec::new(), None);
    loop {
        match frame(from, &mut payload).await? {
            None => return Ok(last),
            Some(Frame::Output(1)) => write(std::io::stdout(), &payload)?,
            Some(Frame::Output(_)) => write(std::io::stderr(), &payload)?,
            Some(Frame::Control(value)) => last = Some(value),
        }
    }
}

enum Frame {
    /// The payload is of this stream.
    Output(u8),
    /// Of a session.
    Control(Value),
}

/// Reads a frame of Docker's: stream (1 stdout, 2 stderr, and 4 for what a session says), three
/// zeros, and the length, big-endian. `None` at the end.
async fn frame(
    from: &mut (impl AsyncReadExt + Unpin),
    payload: &mut Vec<u8>,
) -> std::io::Result<Option<Frame>> {
    let mut header = [0; 8];
    match from.read_exact(&mut header).await {
        Err(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    payload.clear();
    from.take(u64::from(length)).read_to_end(payload).await?;
    Ok(Some(match header[0] {
        4 => Frame::Control(serde_json::from_slice(payload)?),
        stream => Frame::Output(stream),
    }))
}

fn write(mut to: impl Write, bytes: &[u8]) -> std::io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

async fn follow_size(client: Client, target: Target) {
    let Ok(mut changed) = signal(SignalKind::window_change()) else { return };
    while changed.recv().await.is_some() {
        resize(&client, &target).await;
    }
}

/// A size that could not be set is no reason to end: the next change of the window tries again.
async fn resize(client: &Client, target: &Target) {
    let Some((rows, columns)) = terminal::size() else { return };
    let (kind, id) = match target {
        Target::Container(id) => ("containers", id),
        Target::Exec(id) => ("exec", id),
    };
    let _ = client.post(&format!("/{kind}/{}/resize?h={rows}&w={columns}", encode(id)), None).await;
}

/// Ctrl-C reaches the container, whose exit then ends this program. A container that does not care
/// lets nobody wait for ever: the third ends this program alone (docker/cli: cmd/docker/docker.go).
async fn forward_signals(client: Client, target: Target) {
    let Target::Container(id) = target else { return };
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
        signal(SignalKind::hangup()),
    ) else {
        return;
    };
    let mut asked = 0;
    loop {
        let name = tokio::select! {
            Some(()) = interrupt.recv() => "INT",
            Some(()) = terminate.recv() => "TERM",
            Some(()) = hangup.recv() => "HUP",
            else => return,
        };
        asked += usize::from(name != "HUP");
        if asked >= MAX_ASKED {
            eprintln!(
                "bulkhead: got {MAX_ASKED} SIGTERM/SIGINTs, forcefully exiting; the container runs on"
            );
            std::process::exit(1);
        }
        // not awaited: an engine that does not answer would hold the third one up
        let client = client.clone();
        let path = format!("/containers/{}/kill?signal={name}", encode(&id));
        tokio::spawn(async move { client.post(&path, None).await });
    }
}

const MAX_ASKED: usize = 3;
