//! Containers: `bulkhead container …`, and the same verbs without it.

pub mod copy;
pub mod details;
pub mod list;
pub mod logs;
pub mod stats;
pub mod update;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::prune::{self, PruneArguments};
use super::run::{self, AttachArguments, ExecArguments, RunArguments, StartArguments};
use super::{inspect, several};
use crate::client::{Client, encode};
use crate::failure::Failure;

/// What `docker` has at its top as well as below `container`.
#[derive(Debug, Subcommand)]
pub enum ContainerVerb {
    /// Attach to a running container
    Attach(AttachArguments),
    /// Make an image from what a container has changed
    Commit(details::CommitArguments),
    /// Copy files into a container or out of it
    Cp(copy::CopyArguments),
    /// Create a new container
    Create(Box<RunArguments>),
    /// Show what a container has changed in its image's files
    Diff { container: String },
    /// Run a command in a running container
    Exec(ExecArguments),
    /// Write a container's files as an archive
    Export(details::ExportArguments),
    /// Kill one or more running containers
    Kill {
        /// The signal, by name or number
        #[arg(short, long, default_value = "KILL")]
        signal: String,
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// Fetch the logs of a container
    Logs(logs::LogsArguments),
    /// Freeze all processes of one or more containers
    Pause {
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// Show where a container's ports are published
    Port(details::PortArguments),
    /// Rename a container
    Rename { container: String, name: String },
    /// Restart one or more containers
    Restart(StopArguments),
    /// Remove one or more containers
    Rm(RemoveArguments),
    /// Create and run a new container from an image
    Run(Box<RunArguments>),
    /// Start one or more stopped containers
    Start(StartArguments),
    /// Show what containers use, as it changes
    Stats(stats::StatsArguments),
    /// Stop one or more running containers
    Stop(StopArguments),
    /// Display the running processes of a container
    Top(details::TopArguments),
    /// Thaw all processes of one or more containers
    Unpause {
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// Change limits and restart policy of one or more containers
    Update(update::UpdateArguments),
    /// Block until containers stop, then print their exit codes
    Wait {
        #[arg(required = true)]
        containers: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum ContainerCommand {
    #[command(flatten)]
    Verb(ContainerVerb),
    /// Show all that is known of one or more containers
    Inspect {
        /// A Go template, or `json`
        #[arg(short, long)]
        format: Option<String>,
        /// Measure how much it has written, too
        #[arg(short, long)]
        size: bool,
        #[arg(required = true)]
        containers: Vec<String>,
    },
    /// List containers
    #[command(visible_aliases = ["list", "ps"])]
    Ls(list::PsArguments),
    /// Remove all stopped containers
    Prune(PruneArguments),
}

/// Docker's flags for `stop` and `restart`.
#[derive(Debug, Args)]
pub struct StopArguments {
    /// The signal that asks it to end [default: the image's, else SIGTERM]
    #[arg(short, long)]
    signal: Option<String>,
    /// Seconds to wait before killing; -1 waits without end [default: the container's, else 10]
    #[arg(short, long, visible_alias = "time", value_name = "SECONDS", allow_hyphen_values = true)]
    timeout: Option<i64>,
    #[arg(required = true)]
    containers: Vec<String>,
}

impl StopArguments {
    fn query(&self) -> String {
        let mut query = Vec::new();
        query.extend(self.timeout.map(|seconds| format!("t={seconds}")));
        query.extend(self.signal.as_ref().map(|signal| format!("signal={}", encode(signal))));
        query.join("&")
    }
}

#[derive(Debug, Args)]
pub struct RemoveArguments {
    /// Kill it first if it runs
    #[arg(short, long)]
    force: bool,
    /// Remove a link to another container, and not the container
    #[arg(short, long)]
    link: bool,
    /// Remove its anonymous volumes, too
    #[arg(short, long)]
    volumes: bool,
    #[arg(required = true)]
    containers: Vec<String>,
}

pub async fn verb(client: &Client, verb: ContainerVerb) -> Result<(), Failure> {
    match verb {
        ContainerVerb::Attach(arguments) => run::attach(client, arguments).await,
        ContainerVerb::Commit(arguments) => details::commit(client, arguments).await,
        ContainerVerb::Cp(arguments) => copy::copy(client, arguments).await,
        ContainerVerb::Create(arguments) => run::create(client, *arguments).await,
        ContainerVerb::Diff { container } => details::diff(client, &container).await,
        ContainerVerb::Exec(arguments) => run::exec(client, arguments).await,
        ContainerVerb::Export(arguments) => details::export(client, arguments).await,
        ContainerVerb::Kill { signal, containers } => {
            let query = format!("signal={}", encode(&signal));
            several::each(client, &containers, "kill", &query).await
        }
        ContainerVerb::Logs(arguments) => logs::logs(client, arguments).await,
        ContainerVerb::Pause { containers } => {
            several::each(client, &containers, "pause", "").await
        }
        ContainerVerb::Port(arguments) => details::port(client, arguments).await,
        ContainerVerb::Rename { container, name } => {
            let path = format!("/containers/{}/rename?name={}", encode(&container), encode(&name));
            client.post(&path, None).await.map(drop)
        }
        ContainerVerb::Restart(arguments) => {
            several::each(client, &arguments.containers, "restart", &arguments.query()).await
        }
        ContainerVerb::Rm(arguments) => remove(client, arguments).await,
        ContainerVerb::Run(arguments) => run::run(client, *arguments).await,
        ContainerVerb::Start(arguments) => run::start(client, arguments).await,
        ContainerVerb::Stats(arguments) => stats::stats(client, arguments).await,
        ContainerVerb::Stop(arguments) => {
            several::each(client, &arguments.containers, "stop", &arguments.query()).await
        }
        ContainerVerb::Top(arguments) => details::top(client, arguments).await,
        ContainerVerb::Unpause { containers } => {
            several::each(client, &containers, "unpause", "").await
        }
        ContainerVerb::Update(arguments) => update::update(client, arguments).await,
        ContainerVerb::Wait { containers } => wait(client, &containers).await,
    }
}

pub async fn run(client: &Client, command: ContainerCommand) -> Result<(), Failure> {
    match command {
        ContainerCommand::Verb(command) => verb(client, command).await,
        ContainerCommand::Inspect { format, size, containers } => {
            let query = if size { "?size=1" } else { "" };
            let (kind, format) = (inspect::Kind::Container, format.as_deref());
            inspect::with_query(client, kind, query, format, &containers).await
        }
        ContainerCommand::Ls(arguments) => list::list(client, arguments).await,
        ContainerCommand::Prune(arguments) => prune::containers(client, arguments).await,
    }
}

async fn wait(client: &Client, containers: &[String]) -> Result<(), Failure> {
    several::together(containers, async |container| {
        let ended = client.post(&format!("/containers/{}/wait", encode(container)), None).await?;
        match &ended["Error"]["Message"] {
            Value::String(message) => Err(Failure::new(message.clone())),
            _ => Ok(ended["StatusCode"].to_string()),
        }
    })
    .await
}

async fn remove(client: &Client, arguments: RemoveArguments) -> Result<(), Failure> {
    let RemoveArguments { force, link, volumes, containers } = arguments;
    let mut query = format!("force={}&v={}", u8::from(force), u8::from(volumes));
    if link {
        query.push_str("&link=1");
    }
    several::together(&containers, async |container| {
        // a link is CONTAINER/ALIAS, and the slash is the path's
        let path = encode(container.trim_matches('/')).replace("%2F", "/");
        match client.delete(&format!("/containers/{path}?{query}")).await {
            Ok(_) => Ok(container.to_owned()),
            // as docker: with --force, what is not there is gone already
            Err(failure) if force && failure.status == Some(404) => {
                eprintln!("bulkhead: {}", failure.message.trim_end());
                Ok(String::new())
            }
            Err(failure) => Err(failure),
        }
    })
    .await
}
