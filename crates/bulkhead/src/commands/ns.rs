//! `bulkhead ns`: the live tree of pid and user namespaces, and which container shares what.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::client::{Client, encode};
use crate::failure::Failure;

mod picture;
mod render;
mod survey;

use picture::Source;
use survey::Known;

/// Show the tree of pid and user namespaces, and which container shares what with whom
#[derive(Debug, Args)]
#[command(long_about = "\
Show the tree of pid and user namespaces, and which container shares what with whom.

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
    let mut picture = survey::survey(&known)?;
    picture.notes.extend(notes);
    let text = match arguments.format {
        Format::Text => render::text(&picture),
        Format::Json => {
            let json = serde_json::to_string_pretty(&picture);
            json.map_err(|error| Failure::new(error.to_string()))? + "\n"
        }
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(Failure::from)
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
