//! `volume …`: directories that containers share and that outlive them.

use bulkhead_types::decimal_size;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::prune::{self, VolumePruneArguments};
use super::run::endpoint;
use super::show::{self, each, text};
use super::{filter, inspect, several};
use crate::client::{Client, encode};
use crate::failure::Failure;
use crate::rows::{self, Kind, Show};

#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Create a volume
    Create(CreateArguments),
    /// Show all that is known of one or more volumes
    Inspect {
        /// A Go template, or `json`
        #[arg(short, long)]
        format: Option<String>,
        #[arg(required = true)]
        volumes: Vec<String>,
    },
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(ListArguments),
    /// Remove volumes that no container uses
    Prune(VolumePruneArguments),
    /// Remove one or more volumes
    #[command(visible_alias = "remove")]
    Rm {
        /// Do not complain about volumes that are not there
        #[arg(short, long)]
        force: bool,
        #[arg(required = true)]
        volumes: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct CreateArguments {
    /// What makes the volume: local
    #[arg(short, long, default_value = "local")]
    driver: String,
    /// A label, as NAME=VALUE
    #[arg(long)]
    label: Vec<String>,
    /// An option of the driver, such as type=tmpfs
    #[arg(short, long)]
    opt: Vec<String>,
    /// A name; without one it gets a random one
    name: Option<String>,
}

#[derive(Debug, Default, Args)]
pub struct ListArguments {
    /// Only those that match, such as `dangling=true` or `label=tier=front`
    #[arg(short, long)]
    filter: Vec<String>,
    /// A Go template, `table` with one, or `json`
    #[arg(long)]
    format: Option<String>,
    /// Show names alone
    #[arg(short, long)]
    quiet: bool,
}

pub const VOLUMES: Kind = Kind {
    fields: &[
        ("Availability", "AVAILABILITY"),
        ("Driver", "DRIVER"),
        ("Group", "GROUP"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Name", "VOLUME NAME"),
        ("Scope", "SCOPE"),
        ("Size", "SIZE"),
        ("Status", "STATUS"),
    ],
    table: "{{.Driver}}\\t{{.Name}}",
};

pub async fn run(client: &Client, command: VolumeCommand) -> Result<(), Failure> {
    match command {
        VolumeCommand::Create(arguments) => create(client, arguments).await,
        VolumeCommand::Inspect { format, volumes } => {
            inspect::only(client, inspect::Kind::Volume, format.as_deref(), &volumes).await
        }
        VolumeCommand::Ls(arguments) => list(client, arguments).await,
        VolumeCommand::Prune(arguments) => prune::volumes(client, arguments).await,
        VolumeCommand::Rm { force, volumes } => {
            several::all(&volumes, async |name| {
                let path = format!("/volumes/{}?force={}", encode(name), u8::from(force));
                client.delete(&path).await.map(|_| name.to_owned())
            })
            .await
        }
    }
}

async fn create(client: &Client, arguments: CreateArguments) -> Result<(), Failure> {
    let body = json!({
        "Name": arguments.name.unwrap_or_default(),
        "Driver": arguments.driver,
        "DriverOpts": endpoint::pairs(&arguments.opt),
        "Labels": endpoint::pairs(&arguments.label),
    });
    let made = client.post("/volumes/create", Some(&body)).await?;
    println!("{}", text(&made["Name"]));
    Ok(())
}

impl ListArguments {
    pub fn of(format: Option<String>) -> Self {
        Self { format, ..Self::default() }
    }
}

pub async fn list(client: &Client, arguments: ListArguments) -> Result<(), Failure> {
    let answer = client.get(&format!("/volumes?{}", filter::query(&arguments.filter)?)).await?;
    several::warn(&answer);
    let mut volumes: Vec<&Value> = each(&answer["Volumes"]).collect();
    volumes.sort_by(|one, other| super::ports::natural(&text(&one["Name"]), &text(&other["Name"])));
    let rows = volumes.into_iter().map(row).collect();
    rows::print(&VOLUMES, Show::of(arguments.quiet, "Name", arguments.format.as_deref()), rows)
}

/// docker/cli: cli/command/formatter/volume.go
pub fn row(volume: &Value) -> Value {
    let usage = &volume["UsageData"];
    let unless = |known: bool, text: String| if known { text } else { "N/A".to_owned() };
    json!({
        "Name": text(&volume["Name"]),
        "Driver": text(&volume["Driver"]),
        "Scope": text(&volume["Scope"]),
        "Mountpoint": text(&volume["Mountpoint"]),
        "Labels": show::labels(&volume["Labels"]),
        rows::LABELS: volume["Labels"],
        "Links": unless(!usage.is_null(), text(&usage["RefCount"])),
        "Size": unless(!usage.is_null(), decimal_size(usage["Size"].as_u64().unwrap_or_default())),
        // of a swarm's volumes
        "Availability": "N/A",
        "Group": "N/A",
        "Status": "N/A",
    })
}
