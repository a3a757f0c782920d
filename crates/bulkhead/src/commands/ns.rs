//! `bulkhead ns`: the live tree of pid and user namespaces, and which container shares what.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::ports::{self, Port};
use crate::client::{Client, encode};
use crate::failure::Failure;

mod net;
mod picture;
mod render;
mod survey;

use picture::Source;
use survey::Known;

/// Show which container shares what with whom, and the trees of pid and user namespaces
#[derive(Debug, Args)]
#[command(long_about = "\
Show which container shares what with whom, and the trees of pid and user namespaces.

Containers come first. Namespaces of other programs, a browser's for instance, are counted in a note at
the end, and shown with --all.

A namespace is named by its inode, as in /proc/PID/ns and lsns. The first process of a pid namespace
is shown with its pid in each namespace around it, outermost first: `sh is 4711 → 12 → 1` is pid 4711
here, 12 one level down and 1 in its own. Processes are counted where they live, without those in
namespaces below. Ids of a user namespace are shown as `inside → here`.

In the table, `own` is a namespace that no other container is in, `host` the one of process 1, `=NAME`
one that the container NAME (or, for net, the name of `ip netns`) stands for, `=NAME+2` one that two
more are in, and `?` one that may not be read.

It reads /proc and needs no engine; an engine that runs gives its containers' names, and the records
of `bulkhead oci` give those of its containers. Without root, processes of other users are counted in
a note at the end.")]
pub struct NsArguments {
    /// Show namespaces of programs that are no containers, too
    #[arg(short, long)]
    all: bool,
    /// Show network namespaces: bridges, pairs of links with both ends, addresses and published ports
    #[arg(long)]
    net: bool,
    /// How it is shown
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// A directory with records of `bulkhead oci` (its --root); may be given more than once
    #[arg(long, value_name = "DIRECTORY")]
    oci_root: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

pub async fn run(client: &Client, arguments: NsArguments) -> Result<(), Failure> {
    let mut notes = Vec::new();
    let mut known = match of_engine(client).await {
        Ok(known) => known,
        Err(failure) => {
            notes.push(format!("containers of the engine have no names here: {failure}"));
            Vec::new()
        }
    };
    let given: BTreeSet<PathBuf> = arguments.oci_root.into_iter().collect();
    let roots = if given.is_empty() { [bulkhead_oci::default_root()].into() } else { given };
    for root in roots {
        match bulkhead_oci::containers(&root) {
            Ok(found) => known.extend(
                found
                    .into_iter()
                    .filter_map(|container| Some((container.id, Source::Oci, container.pid?))),
            ),
            Err(error) => notes.push(format!("containers of bulkhead oci are not shown: {error}")),
        }
    }
    known.sort_by(|one, other| one.0.cmp(&other.0));
    let text = match arguments.net {
        true => networks(client, arguments.format, &known, &notes).await?,
        false => {
            let mut picture = survey::survey(&known)?;
            if !arguments.all {
                picture = picture.of_containers();
            }
            picture.notes.extend(notes);
            match arguments.format {
                Format::Text => render::text(&picture),
                Format::Json => json(&picture)?,
            }
        }
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::from)
}

fn json(shown: &impl serde::Serialize) -> Result<String, Failure> {
    let json = serde_json::to_string_pretty(shown);
    Ok(json.map_err(|error| Failure::new(error.to_string()))? + "\n")
}

async fn networks(
    client: &Client,
    format: Format,
    known: &[Known],
    notes: &[String],
) -> Result<String, Failure> {
    crate::host::require_root("ns --net")?;
    let listed = client.get("/containers/json").await.unwrap_or_default();
    let ports: Vec<(String, Vec<String>)> = listed
        .as_array()
        .into_iter()
        .flatten()
        .map(|container| {
            let name = container["Names"][0].as_str().unwrap_or_default().trim_start_matches('/');
            let published: Vec<Port> =
                serde_json::from_value(container["Ports"].clone()).unwrap_or_default();
            let published = published.into_iter().filter_map(|port| {
                let public = ports::address(&port.address, &port.public_port?.to_string());
                Some(format!("{public} → {}/{}", port.private_port, port.protocol))
            });
            (name.to_owned(), published.collect())
        })
        .collect();
    let namespaces = net::survey(known, &ports)?;
    match format {
        Format::Json => json(&serde_json::json!({"namespaces": namespaces, "notes": notes})),
        Format::Text => {
            let notes: String = notes.iter().map(|note| format!("\nNote: {note}\n")).collect();
            Ok(net::text(&namespaces) + &notes)
        }
    }
}

/// The running containers of the engine.
async fn of_engine(client: &Client) -> Result<Vec<Known>, Failure> {
    let listed = client.get("/containers/json").await?;
    let mut known = Vec::new();
    for container in listed.as_array().into_iter().flatten() {
        let id = container["Id"].as_str().unwrap_or_default();
        // removed since it was listed
        let Ok(detail) = client.get(&format!("/containers/{}/json", encode(id))).await else {
            continue;
        };
        let pid = detail["State"]["Pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        let name = detail["Name"].as_str().unwrap_or(id).trim_start_matches('/');
        known.extend(pid.filter(|pid| *pid != 0).map(|pid| (name.to_owned(), Source::Engine, pid)));
    }
    Ok(known)
}
