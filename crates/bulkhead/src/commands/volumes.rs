//! `volume …`: directories that containers share and that outlive them.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use bulkhead_types::decimal_size;
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use super::prune::{self, VolumePruneArguments};
use super::run::endpoint;
use super::show::{self, each, text};
use super::{filter, inspect, several, transfer};
use crate::client::{Client, encode};
use crate::failure::Failure;
use crate::rows::{self, Kind, Show};
use crate::template;
use crate::terminal::printable;

#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Create a volume
    Create(CreateArguments),
    /// Write what is in a volume as a tar archive, owners as containers see them
    Export(ExportArguments),
    /// Unpack a tar archive, compressed or not, over what is in a volume
    Import(ImportArguments),
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

#[derive(Debug, Args)]
pub struct ExportArguments {
    /// A Go template for what was written to a file, with .Name, .File and .Size (bytes), or `json`
    #[arg(long, requires = "output")]
    format: Option<String>,
    /// Write to a file, which is there once it is whole, and not to standard output
    #[arg(short, long)]
    output: Option<PathBuf>,
    volume: String,
}

#[derive(Debug, Args)]
pub struct ImportArguments {
    /// A Go template for what was read, with .Name, .File and .Size (bytes), or `json`
    #[arg(long)]
    format: Option<String>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    volume: String,
    /// The archive, or - for standard input
    file: PathBuf,
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
        VolumeCommand::Export(arguments) => export(client, arguments).await,
        VolumeCommand::Import(arguments) => import(client, arguments).await,
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

async fn export(client: &Client, arguments: ExportArguments) -> Result<(), Failure> {
    let ExportArguments { format, output, volume } = arguments;
    if output.is_none() && std::io::stdout().is_terminal() {
        return Err(Failure::new(
            "an archive is nothing for a terminal: say --output FILE, or redirect",
        ));
    }
    check(format.as_deref())?;
    let path = format!("/bulkhead/volumes/{}/export", encode(&volume));
    let answer = client.call(Method::GET, &path, None, None).await.map_err(unknown)?;
    transfer::save(answer, output.as_deref(), "Exporting").await?;
    let (Some(format), Some(output)) = (format, output) else { return Ok(()) };
    let size = std::fs::metadata(&output)?.len();
    template::print(&format, &told(&volume, &output, size))
}

async fn import(client: &Client, arguments: ImportArguments) -> Result<(), Failure> {
    let ImportArguments { format, quiet, volume, file } = arguments;
    check(format.as_deref())?;
    let (body, meter) = transfer::open(&file, "Importing", quiet).await?;
    let path = format!("/bulkhead/volumes/{}/import", encode(&volume));
    let answer = client.upload(Method::PUT, &path, None, body).await;
    let size = meter.finish();
    answer.map_err(unknown)?;
    if let Some(format) = format {
        return template::print(&format, &told(&volume, &file, size));
    }
    println!("{}", printable(&volume));
    Ok(())
}

fn told(volume: &str, file: &Path, size: u64) -> Value {
    json!({ "Name": volume, "File": file, "Size": size })
}

/// A template that is none is told before anything is written.
fn check(format: Option<&str>) -> Result<(), Failure> {
    let sample = told("", Path::new(""), 0);
    format.map_or(Ok(()), |format| template::check(format, &sample))
}

fn unknown(failure: Failure) -> Failure {
    match failure.is_unknown_request() {
        true => Failure::new(
            "volumes are exported and imported by Bulkhead's engine alone: with another, mount the volume \
             and use tar in a container",
        ),
        false => failure,
    }
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
