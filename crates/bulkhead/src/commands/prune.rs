//! The prunes: what nobody uses goes.

use std::io::Write as _;

use bulkhead_types::parse_size;
use clap::Args;
use serde_json::Value;

use super::filter;
use super::show::{self, each, text};
use crate::client::{Client, encode};
use crate::failure::Failure;
use crate::terminal::printable;

/// What a prune of one kind of thing is asked.
#[derive(Debug, Args)]
pub struct PruneArguments {
    /// Only those that match, such as `until=24h` or `label!=keep`
    #[arg(long)]
    pub filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct ImagePruneArguments {
    /// Remove all that no container uses, and not only those without a name
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    prune: PruneArguments,
}

#[derive(Debug, Args)]
pub struct VolumePruneArguments {
    /// Remove those with names, too
    #[arg(short, long)]
    all: bool,
    #[command(flatten)]
    prune: PruneArguments,
}

#[derive(Debug, Args)]
pub struct BuilderPruneArguments {
    /// Remove all, and not only what no build has used for long
    #[arg(short, long)]
    all: bool,
    /// Keep this much, such as 1gb
    #[arg(long, value_name = "BYTES")]
    keep_storage: Option<String>,
    #[command(flatten)]
    prune: PruneArguments,
}

#[derive(Debug, Args)]
pub struct SystemPruneArguments {
    /// Remove all images that no container uses, and not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Remove volumes without names, too
    #[arg(long)]
    volumes: bool,
    #[command(flatten)]
    prune: PruneArguments,
}

/// What went, in lines with a title, and how many bytes that were.
struct Gone {
    title: &'static str,
    lines: Vec<String>,
    bytes: u64,
}

impl Gone {
    fn tell(&self) {
        if !self.lines.is_empty() {
            let lines = self.lines.iter().map(|line| printable(line) + "\n");
            println!("{}:\n{}", self.title, lines.collect::<String>());
        }
    }
}

pub async fn containers(client: &Client, arguments: PruneArguments) -> Result<(), Failure> {
    ask(arguments.force, &["all stopped containers"], &arguments.filter)?;
    alone(stopped(client, &arguments.filter).await?)
}

pub async fn images(client: &Client, arguments: ImagePruneArguments) -> Result<(), Failure> {
    let ImagePruneArguments { all, prune } = arguments;
    ask(prune.force, &[of_images(all)], &prune.filter)?;
    alone(unused_images(client, all, &prune.filter).await?)
}

pub async fn volumes(client: &Client, arguments: VolumePruneArguments) -> Result<(), Failure> {
    let VolumePruneArguments { all, mut prune } = arguments;
    let what = match all {
        true => "all local volumes not used by at least one container",
        false => "anonymous local volumes not used by at least one container",
    };
    ask(prune.force, &[what], &prune.filter)?;
    if all {
        if prune.filter.iter().any(|filter| filter.starts_with("all=")) {
            return Err(Failure::new(
                "conflicting options: cannot specify both --all and --filter all=1",
            ));
        }
        prune.filter.push("all=true".to_owned());
    }
    alone(unused_volumes(client, &prune.filter).await?)
}

pub async fn networks(client: &Client, arguments: PruneArguments) -> Result<(), Failure> {
    ask(
        arguments.force,
        &["all custom networks not used by at least one container"],
        &arguments.filter,
    )?;
    unused_networks(client, &arguments.filter).await?.tell();
    Ok(())
}

pub async fn builder(client: &Client, arguments: BuilderPruneArguments) -> Result<(), Failure> {
    let BuilderPruneArguments { all, keep_storage, prune } = arguments;
    let what = if all { "all build cache" } else { "all dangling build cache" };
    ask(prune.force, &[what], &prune.filter)?;
    let keep = keep_storage.as_deref().map(parse_size).transpose();
    let keep = keep.map_err(|cause| Failure::new(cause.to_string()))?;
    alone(build_cache(client, all, keep, &prune.filter).await?)
}

pub async fn system(client: &Client, arguments: SystemPruneArguments) -> Result<(), Failure> {
    let SystemPruneArguments { all, volumes, prune } = arguments;
    if volumes && prune.filter.iter().any(|filter| filter.starts_with("until=")) {
        return Err(Failure::new(
            "ERROR: The \"until\" filter is not supported with \"--volumes\"",
        ));
    }
    let mut goes =
        vec!["all stopped containers", "all networks not used by at least one container"];
    if volumes {
        goes.push("all anonymous volumes not used by at least one container");
    }
    goes.push(of_images(all));
    goes.push(if all { "all build cache" } else { "unused build cache" });
    ask(prune.force, &goes, &prune.filter)?;
    let mut bytes = 0;
    let mut told = |gone: Gone| {
        gone.tell();
        bytes += gone.bytes;
    };
    told(stopped(client, &prune.filter).await?);
    told(unused_networks(client, &prune.filter).await?);
    if volumes {
        told(unused_volumes(client, &prune.filter).await?);
    }
    told(unused_images(client, all, &prune.filter).await?);
    told(build_cache(client, all, None, &prune.filter).await?);
    total(bytes);
    Ok(())
}

fn of_images(all: bool) -> &'static str {
    match all {
        true => "all images without at least one container associated to them",
        false => "all dangling images",
    }
}

async fn stopped(client: &Client, filters: &[String]) -> Result<Gone, Failure> {
    let path = format!("/containers/prune?{}", filter::query(filters)?);
    let answer = client.post(&path, None).await?;
    Ok(gone("Deleted Containers", &answer, "ContainersDeleted"))
}

async fn unused_networks(client: &Client, filters: &[String]) -> Result<Gone, Failure> {
    let path = format!("/networks/prune?{}", filter::query(filters)?);
    let answer = client.post(&path, None).await?;
    Ok(gone("Deleted Networks", &answer, "NetworksDeleted"))
}

async fn unused_volumes(client: &Client, filters: &[String]) -> Result<Gone, Failure> {
    let path = format!("/volumes/prune?{}", filter::query(filters)?);
    let answer = client.post(&path, None).await?;
    Ok(gone("Deleted Volumes", &answer, "VolumesDeleted"))
}

async fn unused_images(client: &Client, all: bool, filters: &[String]) -> Result<Gone, Failure> {
    let mut filters = filters.to_vec();
    filters.push(format!("dangling={}", !all));
    let path = format!("/images/prune?{}", filter::query(&filters)?);
    let answer = client.post(&path, None).await?;
    let line = |image: &Value| match image["Untagged"].as_str() {
        Some(name) => format!("untagged: {name}"),
        None => format!("deleted: {}", text(&image["Deleted"])),
    };
    let lines = each(&answer["ImagesDeleted"]).map(line).collect();
    Ok(Gone { title: "Deleted Images", lines, bytes: reclaimed(&answer) })
}

async fn build_cache(
    client: &Client,
    all: bool,
    keep: Option<u64>,
    filters: &[String],
) -> Result<Gone, Failure> {
    let mut path = format!("/build/prune?all={}&{}", u8::from(all), filter::query(filters)?);
    if let Some(keep) = keep {
        path.push_str(&format!("&keep-storage={}", encode(&keep.to_string())));
    }
    let answer = client.post(&path, None).await?;
    Ok(gone("Deleted build cache objects", &answer, "CachesDeleted"))
}

fn gone(title: &'static str, answer: &Value, field: &str) -> Gone {
    let lines = each(&answer[field]).map(text).collect();
    Gone { title, lines, bytes: reclaimed(answer) }
}

fn reclaimed(answer: &Value) -> u64 {
    answer["SpaceReclaimed"].as_u64().unwrap_or_default()
}

fn alone(gone: Gone) -> Result<(), Failure> {
    gone.tell();
    total(gone.bytes);
    Ok(())
}

fn total(bytes: u64) {
    println!("Total reclaimed space: {}", show::size(bytes));
}

/// Asks before something goes, in docker's words. Where nobody answers, nothing goes, and that is an error; a no is
/// none, as in docker.
fn ask(force: bool, goes: &[&str], filters: &[String]) -> Result<(), Failure> {
    if force {
        return Ok(());
    }
    print!("{}", question(goes, filters));
    std::io::stdout().flush()?;
    let mut answer = String::new();
    if std::io::stdin().read_line(&mut answer)? == 0 {
        println!();
        return Err(Failure::new("nobody is there to be asked: say --force"));
    }
    match answer.trim().to_lowercase().as_str() {
        "y" => Ok(()),
        _ => Err(Failure::silent(0)),
    }
}

fn question(goes: &[&str], filters: &[String]) -> String {
    let what = match goes {
        [one] => format!(" {one}."),
        several => {
            several.iter().fold(":".to_owned(), |text, one| format!("{text}\n  - {one}")) + "\n"
        }
    };
    let only = match filters.is_empty() {
        true => String::new(),
        false => format!("Only what matches {} goes.\n", filters.join(", ")),
    };
    format!("WARNING! This will remove{what}\n{only}Are you sure you want to continue? [y/N] ")
}
