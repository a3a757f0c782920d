//! `run`, `create`, `start`, `exec` and `attach`: the commands that carry a terminal.

mod body;
pub mod endpoint;
mod health;
mod stream;

use bulkhead_docker_types::{ExecCreate, ExecStart, Words};
use clap::Args;
use hyper::Method;
use serde_json::{Value, json};

use crate::client::{Client, Hijacked, encode};
use crate::failure::Failure;
use crate::terminal;

/// Docker's flags for `run` and `create`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct RunArguments {
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Run in the background and print the container's id
    #[arg(short, long)]
    pub detach: bool,
    /// Keep stdin open
    #[arg(short, long)]
    pub interactive: bool,
    /// Allocate a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Remove the container when it exits
    #[arg(long)]
    pub rm: bool,
    #[arg(long)]
    pub name: Option<String>,
    #[arg(short, long)]
    pub env: Vec<String>,
    #[arg(long)]
    pub env_file: Vec<String>,
    #[arg(short, long)]
    pub label: Vec<String>,
    /// [address:]host port:container port[/protocol]
    #[arg(short, long)]
    pub publish: Vec<String>,
    #[arg(short = 'P', long)]
    pub publish_all: bool,
    #[arg(long)]
    pub expose: Vec<String>,
    #[arg(short, long)]
    pub volume: Vec<String>,
    /// type=bind|volume|tmpfs,source=…,target=…[,readonly]
    #[arg(long)]
    pub mount: Vec<String>,
    #[arg(long)]
    pub tmpfs: Vec<String>,
    #[arg(short, long)]
    pub workdir: Option<String>,
    #[arg(short, long)]
    pub user: Option<String>,
    #[arg(long)]
    pub entrypoint: Option<String>,
    #[arg(short, long)]
    pub hostname: Option<String>,
    #[arg(long)]
    pub domainname: Option<String>,
    /// bridge, host, none, container:NAME, netns:NAME (of `ip netns`), or a network: NAME, or name=NAME,alias=…,ip=…; several
    /// networks by several flags
    #[arg(long, alias = "net")]
    pub network: Vec<String>,
    /// A further name of the container on its first network
    #[arg(long, alias = "net-alias")]
    pub network_alias: Vec<String>,
    /// Its IPv4 address on its first network
    #[arg(long)]
    pub ip: Option<String>,
    /// Its IPv6 address on its first network
    #[arg(long)]
    pub ip6: Option<String>,
    /// The hardware address of its first network's interface
    #[arg(long)]
    pub mac_address: Option<String>,
    #[arg(long)]
    pub link: Vec<String>,
    #[arg(long)]
    pub add_host: Vec<String>,
    #[arg(long)]
    pub dns: Vec<String>,
    #[arg(long)]
    pub dns_search: Vec<String>,
    #[arg(long, alias = "dns-opt")]
    pub dns_option: Vec<String>,
    /// no, on-failure[:N], always, unless-stopped
    #[arg(long)]
    pub restart: Option<String>,
    #[arg(short, long)]
    pub memory: Option<String>,
    #[arg(long)]
    pub memory_reservation: Option<String>,
    #[arg(long, allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    #[arg(short, long)]
    pub cpu_shares: Option<u64>,
    #[arg(long)]
    pub cpus: Option<f64>,
    #[arg(long)]
    pub cpu_period: Option<u64>,
    #[arg(long)]
    pub cpu_quota: Option<i64>,
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    #[arg(long, allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    #[arg(long)]
    pub shm_size: Option<String>,
    #[arg(long)]
    pub ulimit: Vec<String>,
    #[arg(long)]
    pub cap_add: Vec<String>,
    #[arg(long)]
    pub cap_drop: Vec<String>,
    #[arg(long)]
    pub security_opt: Vec<String>,
    #[arg(long)]
    pub privileged: bool,
    #[arg(long)]
    pub read_only: bool,
    #[arg(long)]
    pub init: bool,
    #[arg(long)]
    pub pid: Option<String>,
    #[arg(long)]
    pub ipc: Option<String>,
    #[arg(long)]
    pub uts: Option<String>,
    #[arg(long)]
    pub userns: Option<String>,
    #[arg(long)]
    pub cgroupns: Option<String>,
    #[arg(long)]
    pub cgroup_parent: Option<String>,
    #[arg(long)]
    pub group_add: Vec<String>,
    #[arg(long)]
    pub sysctl: Vec<String>,
    #[arg(long)]
    pub device: Vec<String>,
    #[arg(long)]
    pub log_driver: Option<String>,
    #[arg(long)]
    pub log_opt: Vec<String>,
    #[arg(long)]
    pub stop_signal: Option<String>,
    #[arg(long)]
    pub stop_timeout: Option<i64>,
    #[command(flatten)]
    pub health: health::HealthArguments,
    #[arg(long, allow_hyphen_values = true)]
    pub oom_score_adj: Option<i64>,
    /// missing, always, never
    #[arg(long, default_value = "missing")]
    pub pull: String,
    #[arg(long)]
    pub cidfile: Option<std::path::PathBuf>,
    pub image: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// Docker's flags for `exec`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct ExecArguments {
    #[arg(short, long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    #[arg(short, long)]
    pub detach: bool,
    #[arg(short, long)]
    pub interactive: bool,
    #[arg(short, long)]
    pub tty: bool,
    #[arg(short, long)]
    pub env: Vec<String>,
    #[arg(short, long)]
    pub user: Option<String>,
    #[arg(short, long)]
    pub workdir: Option<String>,
    #[arg(long)]
    pub privileged: bool,
    pub container: String,
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

pub async fn run(client: &Client, arguments: RunArguments) -> Result<(), Failure> {
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
    if arguments.pull == "always" {
        pull(client, &arguments).await.map_err(Failure::of_start)?;
    }
    // The id has to be in the file before the start.
    if !arguments.detach && arguments.cidfile.is_none() {
        let path = format!("/bulkhead/containers/run{}", name_query(&arguments));
        let asked = async || client.hijack(&path, Some(&body)).await;
        match with_image(client, &arguments, asked).await {
            Ok(connection) => return run_session(client, &arguments, connection).await,
            Err(failure) if failure.is_unknown_request() => {}
            Err(failure) => return Err(failure.of_start()),
        }
    }
    run_in_steps(client, &arguments, &body).await
}

/// Creation, attaching, start and end on one connection.
async fn run_session(
    client: &Client,
    arguments: &RunArguments,
    mut connection: Hijacked,
) -> Result<(), Failure> {
    let made = stream::head(&mut connection).await?;
    warn(&made);
    let raw = (arguments.tty && arguments.interactive).then(terminal::Raw::enter).flatten();
    let target = stream::Target::Container(made["Id"].as_str().unwrap_or_default().to_owned());
    let (tty, stdin) = (arguments.tty, arguments.interactive);
    let mode = stream::Mode { tty, stdin, form: stream::Form::Session };
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
    body: &Value,
) -> Result<(), Failure> {
    let id = make(client, arguments, body).await.map_err(Failure::of_start)?;
    if arguments.detach {
        client.post(&format!("/containers/{id}/start"), None).await.map_err(Failure::of_start)?;
        println!("{id}");
        return Ok(());
    }
    let streams = format!("stream=1&stdout=1&stderr=1&stdin={}", u8::from(arguments.interactive));
    // Both before the start, so that neither the first output nor a quick exit is missed.
    let attach = format!("/containers/{id}/attach?{streams}");
    let condition = if arguments.rm { "removed" } else { "next-exit" };
    let wait = format!("/containers/{id}/wait?condition={condition}");
    let (connection, waiting) = tokio::try_join!(
        client.hijack(&attach, None),
        client.call(Method::POST, &wait, None, None)
    )
    .map_err(|failure| failure.with_code(125))?;
    let raw = (arguments.tty && arguments.interactive).then(terminal::Raw::enter).flatten();
    if let Err(failure) = client.post(&format!("/containers/{id}/start"), None).await {
        drop(raw);
        return Err(failure.of_start());
    }
    let target = stream::Target::Container(id.clone());
    let mode = stream::Mode {
        tty: arguments.tty,
        stdin: arguments.interactive,
        form: stream::Form::Docker,
    };
    let copied = stream::run(client, &target, connection, mode).await?;
    drop(raw);
    if copied == stream::Ended::Left {
        return Ok(());
    }
    let ended: Value =
        serde_json::from_slice(&crate::client::collect(waiting).await?).map_err(|cause| {
            Failure::new(format!("the engine did not say how the container ended: {cause}"))
        })?;
    exit(&ended["StatusCode"])
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
    let path = format!("/containers/create{}", name_query(arguments));
    let asked = async || client.post(&path, Some(body)).await;
    let created = with_image(client, arguments, asked).await?;
    warn(&created);
    let id = created["Id"].as_str().unwrap_or_default().to_owned();
    if let Some(path) = &arguments.cidfile {
        std::fs::write(path, &id)
            .map_err(|cause| Failure::new(format!("cannot write {}: {cause}", path.display())))?;
    }
    Ok(id)
}

fn name_query(arguments: &RunArguments) -> String {
    let name = arguments.name.as_deref();
    name.map(|name| format!("?name={}", encode(name))).unwrap_or_default()
}

fn warn(made: &Value) {
    for warning in made["Warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        eprintln!("WARNING: {warning}");
    }
}

async fn pull(client: &Client, arguments: &RunArguments) -> Result<(), Failure> {
    super::images::pull_to(client, &arguments.image, super::images::Show::OnStderr).await
}

/// Makes a request for a container; if the image is missing, once more after it was pulled.
async fn with_image<T>(
    client: &Client,
    arguments: &RunArguments,
    asked: impl AsyncFn() -> Result<T, Failure>,
) -> Result<T, Failure> {
    match asked().await {
        Err(failure)
            if failure.status == Some(404)
                && arguments.pull == "missing"
                && failure.message.contains("No such image") =>
        {
            eprintln!("Unable to find image '{}' locally", arguments.image);
            pull(client, arguments).await?;
            asked().await
        }
        answer => answer,
    }
}

pub async fn start(client: &Client, attach: bool, containers: &[String]) -> Result<(), Failure> {
    if !attach {
        return super::containers::each(client, containers, "start", "").await.map_err(|failure| {
            Failure {
                exit_code: if failure.exit_code == 1 { 1 } else { failure.exit_code },
                ..failure
            }
        });
    }
    let [container] = containers else {
        return Err(Failure::new("you cannot start and attach multiple containers at once"));
    };
    let name = encode(container);
    let seen = client.get(&format!("/containers/{name}/json")).await?;
    let tty = seen["Config"]["Tty"].as_bool().unwrap_or(false);
    let attach = format!("/containers/{name}/attach?stream=1&stdout=1&stderr=1");
    let wait = format!("/containers/{name}/wait?condition=next-exit");
    let (connection, waiting) = tokio::try_join!(
        client.hijack(&attach, None),
        client.call(Method::POST, &wait, None, None)
    )?;
    client.post(&format!("/containers/{name}/start"), None).await.map_err(Failure::of_start)?;
    let mode = stream::Mode { tty, stdin: false, form: stream::Form::Docker };
    stream::run(client, &stream::Target::Container(container.clone()), connection, mode).await?;
    let ended: Value = serde_json::from_slice(&crate::client::collect(waiting).await?)
        .map_err(|cause| Failure::new(cause.to_string()))?;
    exit(&ended["StatusCode"])
}

pub async fn attach(client: &Client, container: &str) -> Result<(), Failure> {
    let name = encode(container);
    let seen = client.get(&format!("/containers/{name}/json")).await?;
    if !seen["State"]["Running"].as_bool().unwrap_or(false) {
        return Err(Failure::new(format!(
            "cannot attach to {container}: it is not running; start it first"
        )));
    }
    let tty = seen["Config"]["Tty"].as_bool().unwrap_or(false);
    let stdin = seen["Config"]["OpenStdin"].as_bool().unwrap_or(false);
    let wait = format!("/containers/{name}/wait?condition=not-running");
    let attach =
        format!("/containers/{name}/attach?stream=1&stdout=1&stderr=1&stdin={}", u8::from(stdin));
    let (connection, waiting) = tokio::try_join!(
        client.hijack(&attach, None),
        client.call(Method::POST, &wait, None, None)
    )?;
    let raw = (tty && stdin).then(terminal::Raw::enter).flatten();
    let mode = stream::Mode { tty, stdin, form: stream::Form::Docker };
    let target = stream::Target::Container(container.to_owned());
    let copied = stream::run(client, &target, connection, mode).await?;
    drop(raw);
    if copied == stream::Ended::Left {
        return Ok(());
    }
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
    let body = json!(ExecCreate {
        attach_stdin: arguments.interactive && !arguments.detach,
        attach_stdout: !arguments.detach,
        attach_stderr: !arguments.detach,
        tty: arguments.tty,
        cmd: Some(Words(arguments.command.clone())),
        env: body::environment(&arguments.env, &[])?,
        user: arguments.user.clone().unwrap_or_default(),
        working_dir: arguments.workdir.clone().unwrap_or_default(),
        privileged: arguments.privileged,
        console_size: terminal::size().filter(|_| arguments.tty && !arguments.detach),
        ..ExecCreate::default()
    });
    let container = encode(&arguments.container);
    if !arguments.detach {
        let path = format!("/bulkhead/containers/{container}/exec");
        match client.hijack(&path, Some(&body)).await {
            Ok(connection) => return exec_session(client, &arguments, connection).await,
            Err(failure) if failure.is_unknown_request() => {}
            Err(failure) => return Err(failure),
        }
    }
    exec_in_steps(client, &arguments, &body).await
}

/// Creation, start and end on one connection.
async fn exec_session(
    client: &Client,
    arguments: &ExecArguments,
    mut connection: Hijacked,
) -> Result<(), Failure> {
    let made = stream::head(&mut connection).await?;
    let raw = (arguments.tty && arguments.interactive).then(terminal::Raw::enter).flatten();
    let target = stream::Target::Exec(made["Id"].as_str().unwrap_or_default().to_owned());
    let (tty, stdin) = (arguments.tty, arguments.interactive);
    let mode = stream::Mode { tty, stdin, form: stream::Form::Session };
    let copied = stream::run(client, &target, connection, mode).await?;
    drop(raw);
    session_end(&copied)
}

/// With the requests of Docker's API alone.
async fn exec_in_steps(
    client: &Client,
    arguments: &ExecArguments,
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
