//! `run`, `create`, `start`, `exec` and `attach`: the commands that carry a terminal.

mod body;
pub mod endpoint;
mod flags;
mod health;
pub mod policy;
mod stream;

use bulkhead_docker_types::{ExecCreate, ExecStart, Words};
use hyper::Method;
use serde_json::{Value, json};

use super::images::progress::Show;
use super::images::registry::{self, Wanted};
use super::several;
use crate::client::{Client, Hijacked, encode};
use crate::failure::Failure;
use crate::terminal::{self, Keys};

pub use flags::{AttachArguments, ExecArguments, RunArguments, StartArguments};

pub async fn run(client: &Client, arguments: RunArguments) -> Result<(), Failure> {
    if arguments.detach && !arguments.attach.is_empty() {
        return Err(Failure::new("conflicting options: cannot specify both --attach and --detach"));
    }
    if arguments.detach
        && arguments.rm
        && arguments.restart.as_deref().is_some_and(|policy| policy != "no")
    {
        return Err(Failure::new("conflicting options: cannot specify both --restart and --rm")
            .with_code(125));
    }
    if arguments.tty && arguments.interactive && !arguments.detach && !terminal::is_interactive() {
        return Err(Failure::new(
            "the input device is not a terminal: leave out -t, or run it in one",
        ));
    }
    let body = json!(body::container(&arguments)?);
    let keys = keys(arguments.attached.detach_keys.as_deref())?;
    if arguments.pull == "always" {
        pull(client, &arguments).await.map_err(Failure::of_start)?;
    }
    // The id has to be in the file before the start, and a session knows the usual keys alone.
    let plain = arguments.cidfile.is_none() && arguments.attached.detach_keys.is_none();
    if !arguments.detach && plain {
        let path = format!("/bulkhead/containers/run{}", query(&arguments));
        let asked = async || client.hijack(&path, Some(&body)).await;
        match with_image(client, &arguments, asked).await {
            Ok(connection) => return run_session(client, &arguments, keys, connection).await,
            Err(failure) if failure.is_unknown_request() => {}
            Err(failure) => return Err(failure.of_start()),
        }
    }
    run_in_steps(client, &arguments, keys, &body).await
}

/// The keys to leave with.
fn keys(flag: Option<&str>) -> Result<Keys, Failure> {
    flag.map_or(Ok(Keys::default()), |flag| {
        Keys::read(flag).ok_or_else(|| {
            Failure::new(format!(
                "invalid detach keys {flag:?}: write them as letters and ctrl-LETTER with commas between, such as ctrl-x,d"
            ))
        })
    })
}

/// Says it to the engine too, which would else take the usual ones out of what is typed.
fn keys_query(flag: Option<&str>) -> String {
    flag.map(|flag| format!("&detachKeys={}", encode(flag))).unwrap_or_default()
}

/// Creation, attaching, start and end on one connection.
async fn run_session(
    client: &Client,
    arguments: &RunArguments,
    keys: Keys,
    mut connection: Hijacked,
) -> Result<(), Failure> {
    let made = stream::head(&mut connection).await?;
    several::warn(&made);
    let stdin = body::attached(arguments)?.stdin;
    let raw = (arguments.tty && stdin).then(terminal::Raw::enter).flatten();
    let target = stream::Target::Container(made["Id"].as_str().unwrap_or_default().to_owned());
    let signals = arguments.attached.sig_proxy.unwrap_or(true);
    let tty = arguments.tty;
    let mode = stream::Mode { tty, stdin, form: stream::Form::Session, keys, signals };
    let copied = stream::run(client, &target, connection, mode).await?;
    drop(raw);
    session_end(&copied)
}

/// Ends with what a session said last.
fn session_end(copied: &stream::Ended) -> Result<(), Failure> {
    let said = match copied {
        stream::Ended::Left => return Ok(()),
        stream::Ended::Output(Some(said)) => said,
        stream::Ended::Output(None) => {
            let gone = "the engine went away before the process ended, which may go on: look for it \
                        with `bulkhead ps -a` when the engine runs again";
            return Err(Failure::new(gone).of_start());
        }
    };
    match said.get("Failure") {
        None => exit(&said["StatusCode"]),
        Some(failure) => {
            let start_status = failure["StartStatus"].as_u64();
            let start_status = start_status.and_then(|status| status.try_into().ok());
            let message = failure["Message"].as_str().unwrap_or_default();
            Err(Failure { start_status, ..Failure::new(message) }.of_start())
        }
    }
}

/// With the requests of Docker's API alone: for engines that know no others, and for what has to
/// happen between creation and start.
async fn run_in_steps(
    client: &Client,
    arguments: &RunArguments,
    keys: Keys,
    body: &Value,
) -> Result<(), Failure> {
    let id = make(client, arguments, body).await.map_err(Failure::of_start)?;
    if arguments.detach {
        client.post(&format!("/containers/{id}/start"), None).await.map_err(Failure::of_start)?;
        println!("{id}");
        return Ok(());
    }
    let attached = body::attached(arguments)?;
    let streams = format!(
        "stream=1&stdout={}&stderr={}&stdin={}{}",
        u8::from(attached.stdout),
        u8::from(attached.stderr),
        u8::from(attached.stdin),
        keys_query(arguments.attached.detach_keys.as_deref()),
    );
    // Both before the start, so that neither the first output nor a quick exit is missed.
    let attach = format!("/containers/{id}/attach?{streams}");
    let condition = if arguments.rm { "removed" } else { "next-exit" };
    let wait = format!("/containers/{id}/wait?condition={condition}");
    let (connection, waiting) = tokio::try_join!(
        client.hijack(&attach, None),
        client.call(Method::POST, &wait, None, None)
    )
    .map_err(|failure| failure.with_code(125))?;
    let raw = (arguments.tty && attached.stdin).then(terminal::Raw::enter).flatten();
    if let Err(failure) = client.post(&format!("/containers/{id}/start"), None).await {
        drop(raw);
        return Err(failure.of_start());
    }
    let target = stream::Target::Container(id.clone());
    let mode = stream::Mode {
        tty: arguments.tty,
        stdin: attached.stdin,
        form: stream::Form::Docker,
        keys,
        signals: arguments.attached.sig_proxy.unwrap_or(true),
    };
    let copied = stream::run(client, &target, connection, mode).await?;
    drop(raw);
    if copied == stream::Ended::Left {
        return Ok(());
    }
    ended(waiting).await
}

pub async fn create(client: &Client, arguments: RunArguments) -> Result<(), Failure> {
    let body = json!(body::container(&arguments)?);
    if arguments.pull == "always" {
        pull(client, &arguments).await.map_err(Failure::of_start)?;
    }
    let id = make(client, &arguments, &body).await.map_err(Failure::of_start)?;
    println!("{id}");
    Ok(())
}

/// Creates the container, pulling the image first if it is not here.
async fn make(client: &Client, arguments: &RunArguments, body: &Value) -> Result<String, Failure> {
    let path = format!("/containers/create{}", query(arguments));
    let asked = async || client.post(&path, Some(body)).await;
    let created = with_image(client, arguments, asked).await?;
    several::warn(&created);
    let id = created["Id"].as_str().unwrap_or_default().to_owned();
    if let Some(path) = &arguments.cidfile {
        std::fs::write(path, &id)
            .map_err(|cause| Failure::new(format!("cannot write {}: {cause}", path.display())))?;
    }
    Ok(id)
}

/// The name and the platform.
fn query(arguments: &RunArguments) -> String {
    let words = [("name", &arguments.name), ("platform", &arguments.platform)];
    let words = words.into_iter().filter_map(|(word, value)| {
        value.as_deref().map(|value| format!("{word}={}", encode(value)))
    });
    match words.collect::<Vec<_>>().join("&") {
        words if words.is_empty() => words,
        words => format!("?{words}"),
    }
}

async fn pull(client: &Client, arguments: &RunArguments) -> Result<(), Failure> {
    let platform = arguments.platform.as_deref();
    let wanted = Wanted { image: arguments.image(), platform, all_tags: false };
    let show = if arguments.quiet { Show::Nothing } else { Show::OnStderr };
    registry::pull_to(client, wanted, show).await
}

/// Makes a request for a container; if the image is missing, once more after it was pulled.
async fn with_image<T>(
    client: &Client,
    arguments: &RunArguments,
    asked: impl AsyncFn() -> Result<T, Failure>,
) -> Result<T, Failure> {
    match asked().await {
        Err(failure) if failure.lacks("image", "No such image") && arguments.pull == "missing" => {
            if !arguments.quiet {
                eprintln!("Unable to find image '{}' locally", arguments.image());
            }
            pull(client, arguments).await?;
            asked().await
        }
        answer => answer,
    }
}

pub async fn start(client: &Client, arguments: StartArguments) -> Result<(), Failure> {
    let StartArguments { attach, detach_keys, interactive, containers } = arguments;
    if !attach && !interactive {
        return several::each(client, &containers, "start", "").await;
    }
    let [container] = containers.as_slice() else {
        return Err(Failure::new("you cannot start and attach multiple containers at once"));
    };
    let keys = keys(detach_keys.as_deref())?;
    let name = encode(container);
    let seen = client.get(&format!("/containers/{name}/json")).await?;
    let tty = seen["Config"]["Tty"].as_bool().unwrap_or(false);
    let stdin = interactive && seen["Config"]["OpenStdin"].as_bool().unwrap_or(false);
    let attach = format!(
        "/containers/{name}/attach?stream=1&stdout=1&stderr=1&stdin={}{}",
        u8::from(stdin),
        keys_query(detach_keys.as_deref()),
    );
    let condition = match seen["HostConfig"]["AutoRemove"].as_bool() {
        Some(true) => "removed",
        _ => "next-exit",
    };
    let wait = format!("/containers/{name}/wait?condition={condition}");
    let (connection, waiting) = tokio::try_join!(
        client.hijack(&attach, None),
        client.call(Method::POST, &wait, None, None)
    )?;
    client.post(&format!("/containers/{name}/start"), None).await.map_err(Failure::of_start)?;
    let raw = (tty && stdin).then(terminal::Raw::enter).flatten();
    let mode = stream::Mode { tty, stdin, form: stream::Form::Docker, keys, signals: true };
    let target = stream::Target::Container(container.clone());
    let copied = stream::run(client, &target, connection, mode).await?;
    drop(raw);
    if copied == stream::Ended::Left {
        return Ok(());
    }
    ended(waiting).await
}

pub async fn attach(client: &Client, arguments: AttachArguments) -> Result<(), Failure> {
    let AttachArguments { attached, no_stdin, container } = arguments;
    let keys = keys(attached.detach_keys.as_deref())?;
    let name = encode(&container);
    let seen = client.get(&format!("/containers/{name}/json")).await?;
    let state = &seen["State"];
    if !state["Running"].as_bool().unwrap_or(false) {
        return Err(Failure::new(format!(
            "cannot attach to {container}: it is not running; start it first"
        )));
    }
    if state["Paused"].as_bool().unwrap_or(false) {
        return Err(Failure::new(format!(
            "cannot attach to {container}: it is paused; unpause it first"
        )));
    }
    let tty = seen["Config"]["Tty"].as_bool().unwrap_or(false);
    let stdin = !no_stdin && seen["Config"]["OpenStdin"].as_bool().unwrap_or(false);
    let wait = format!("/containers/{name}/wait?condition=not-running");
    let attach = format!(
        "/containers/{name}/attach?stream=1&stdout=1&stderr=1&stdin={}{}",
        u8::from(stdin),
        keys_query(attached.detach_keys.as_deref()),
    );
    let (connection, waiting) = tokio::try_join!(
        client.hijack(&attach, None),
        client.call(Method::POST, &wait, None, None)
    )?;
    let raw = (tty && stdin).then(terminal::Raw::enter).flatten();
    let signals = attached.sig_proxy.unwrap_or(true);
    let mode = stream::Mode { tty, stdin, form: stream::Form::Docker, keys, signals };
    let target = stream::Target::Container(container);
    let copied = stream::run(client, &target, connection, mode).await?;
    drop(raw);
    if copied == stream::Ended::Left {
        return Ok(());
    }
    ended(waiting).await
}

/// Ends with what the engine says that a container ended with.
async fn ended(waiting: hyper::Response<hyper::body::Incoming>) -> Result<(), Failure> {
    let ended: Value = serde_json::from_slice(&crate::client::collect(waiting).await?)
        .map_err(|cause| Failure::new(cause.to_string()))?;
    exit(&ended["StatusCode"])
}

pub async fn exec(client: &Client, arguments: ExecArguments) -> Result<(), Failure> {
    if arguments.tty && arguments.interactive && !arguments.detach && !terminal::is_interactive() {
        return Err(Failure::new(
            "the input device is not a terminal: leave out -t, or run it in one",
        ));
    }
    let keys = keys(arguments.detach_keys.as_deref())?;
    let body = json!(ExecCreate {
        detach_keys: arguments.detach_keys.clone().unwrap_or_default(),
        attach_stdin: arguments.interactive && !arguments.detach,
        attach_stdout: !arguments.detach,
        attach_stderr: !arguments.detach,
        tty: arguments.tty,
        cmd: Some(Words(arguments.command.clone())),
        env: body::environment(&arguments.env, &arguments.env_file)?,
        user: arguments.user.clone().unwrap_or_default(),
        working_dir: arguments.workdir.clone().unwrap_or_default(),
        privileged: arguments.privileged,
        console_size: terminal::size().filter(|_| arguments.tty && !arguments.detach),
    });
    let container = encode(&arguments.container);
    if !arguments.detach {
        let path = format!("/bulkhead/containers/{container}/exec");
        match client.hijack(&path, Some(&body)).await {
            Ok(connection) => return exec_session(client, &arguments, keys, connection).await,
            Err(failure) if failure.is_unknown_request() => {}
            Err(failure) => return Err(failure),
        }
    }
    exec_in_steps(client, &arguments, keys, &body).await
}

/// Creation, start and end on one connection.
async fn exec_session(
    client: &Client,
    arguments: &ExecArguments,
    keys: Keys,
    mut connection: Hijacked,
) -> Result<(), Failure> {
    let made = stream::head(&mut connection).await?;
    let raw = (arguments.tty && arguments.interactive).then(terminal::Raw::enter).flatten();
    let target = stream::Target::Exec(made["Id"].as_str().unwrap_or_default().to_owned());
    let (tty, stdin) = (arguments.tty, arguments.interactive);
    let mode = stream::Mode { tty, stdin, form: stream::Form::Session, keys, signals: true };
    let copied = stream::run(client, &target, connection, mode).await?;
    drop(raw);
    session_end(&copied)
}

/// With the requests of Docker's API alone.
async fn exec_in_steps(
    client: &Client,
    arguments: &ExecArguments,
    keys: Keys,
    body: &Value,
) -> Result<(), Failure> {
    let path = format!("/containers/{}/exec", encode(&arguments.container));
    let made = client.post(&path, Some(body)).await?;
    let id = made["Id"].as_str().unwrap_or_default().to_owned();
    let console_size = terminal::size().filter(|_| arguments.tty && !arguments.detach);
    let start = json!(ExecStart { detach: arguments.detach, tty: arguments.tty, console_size });
    if arguments.detach {
        return client
            .post(&format!("/exec/{id}/start"), Some(&start))
            .await
            .map(drop)
            .map_err(Failure::of_start);
    }
    let connection = client
        .hijack(&format!("/exec/{id}/start"), Some(&start))
        .await
        .map_err(Failure::of_start)?;
    let raw = (arguments.tty && arguments.interactive).then(terminal::Raw::enter).flatten();
    let mode = stream::Mode {
        tty: arguments.tty,
        stdin: arguments.interactive,
        form: stream::Form::Docker,
        keys,
        signals: true,
    };
    let target = stream::Target::Exec(id.clone());
    let copied = stream::run(client, &target, connection, mode).await?;
    drop(raw);
    if copied == stream::Ended::Left {
        return Ok(());
    }
    exit(&client.get(&format!("/exec/{id}/json")).await?["ExitCode"])
}

/// Ends with the container's own exit code.
fn exit(code: &Value) -> Result<(), Failure> {
    match code.as_i64() {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::silent(u8::try_from(code).unwrap_or(255))),
        None => Err(Failure::new("the engine did not say how the process ended")),
    }
}
