//! Images: `bulkhead image …`, and the same verbs without it.

pub mod archives;
pub mod list;
pub mod progress;
pub mod registry;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::build::{self, BuildArguments};
use super::prune::{self, ImagePruneArguments};
use super::show::text;
use super::{inspect, several, transfer};
use crate::client::{Client, encode};
use crate::failure::Failure;

/// What `docker` has at its top as well as below `image`.
#[derive(Debug, Subcommand)]
pub enum ImageVerb {
    /// Build an image from a Dockerfile
    Build(Box<BuildArguments>),
    /// Show the history of an image
    History(list::HistoryArguments),
    /// Make an image from a tar archive of files
    Import(archives::ImportArguments),
    /// Load images from an archive of `save`
    Load(archives::LoadArguments),
    /// Download an image from a registry
    Pull(registry::PullArguments),
    /// Upload an image to a registry
    Push(registry::PushArguments),
    /// Save one or more images to an archive
    Save(archives::SaveArguments),
    /// Give an image one more name
    Tag { image: String, name: String },
}

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    #[command(flatten)]
    Verb(ImageVerb),
    /// Show all that is known of one or more images
    Inspect {
        /// A Go template, or `json`
        #[arg(short, long)]
        format: Option<String>,
        /// The image of this platform, such as linux/arm64
        #[arg(long = "platform")]
        of: Option<String>,
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// List images
    #[command(visible_alias = "list")]
    Ls(list::ListArguments),
    /// Remove images that no container uses
    Prune(ImagePruneArguments),
    /// Remove one or more images
    #[command(visible_alias = "remove")]
    Rm(RemoveArguments),
}

#[derive(Debug, Args)]
pub struct RemoveArguments {
    /// Remove it although a container that does not run uses it, or it has other names
    #[arg(short, long)]
    force: bool,
    /// Accepted for scripts of Docker's: an image's parents are no images here
    #[arg(long)]
    no_prune: bool,
    #[arg(required = true)]
    images: Vec<String>,
}

pub async fn verb(client: &Client, verb: ImageVerb) -> Result<(), Failure> {
    match verb {
        ImageVerb::Build(arguments) => build::build(client, *arguments).await,
        ImageVerb::History(arguments) => list::history(client, arguments).await,
        ImageVerb::Import(arguments) => archives::import(client, arguments).await,
        ImageVerb::Load(arguments) => archives::load(client, arguments).await,
        ImageVerb::Pull(arguments) => registry::pull(client, arguments).await,
        ImageVerb::Push(arguments) => registry::push(client, arguments).await,
        ImageVerb::Save(arguments) => archives::save(client, arguments).await,
        ImageVerb::Tag { image, name } => {
            let (repository, tag) = transfer::repository_and_tag(&name)?;
            let query = format!("repo={}&tag={}", encode(&repository), encode(&tag));
            client.post(&format!("/images/{}/tag?{query}", path_of(&image)), None).await.map(drop)
        }
    }
}

pub async fn run(client: &Client, command: ImageCommand) -> Result<(), Failure> {
    match command {
        ImageCommand::Verb(command) => verb(client, command).await,
        ImageCommand::Inspect { format, of, images } => {
            let query = match of {
                Some(name) => format!("?platform={}", platform(&name)?),
                None => String::new(),
            };
            let (kind, format) = (inspect::Kind::Image, format.as_deref());
            inspect::with_query(client, kind, &query, format, &images).await
        }
        ImageCommand::Ls(arguments) => list::list(client, arguments).await,
        ImageCommand::Prune(arguments) => prune::images(client, arguments).await,
        ImageCommand::Rm(arguments) => remove(client, arguments).await,
    }
}

pub async fn remove(client: &Client, arguments: RemoveArguments) -> Result<(), Failure> {
    let RemoveArguments { force, no_prune, images } = arguments;
    let query = format!("force={}&noprune={}", u8::from(force), u8::from(no_prune));
    several::all(&images, async |image| {
        let removed = client.delete(&format!("/images/{}?{query}", path_of(image))).await?;
        let steps = removed.as_array().into_iter().flatten().filter_map(Value::as_object);
        let lines = steps.flatten().map(|(what, name)| format!("{what}: {}", text(name)));
        Ok(lines.collect::<Vec<_>>().join("\n"))
    })
    .await
}

/// An image name in a URL: slashes stay, so that the server's routes see them.
fn path_of(image: &str) -> String {
    encode(image).replace("%2F", "/").replace("%3A", ":").replace("%40", "@")
}

/// `os/architecture[/variant]` as the query of the endpoints that take it as JSON.
fn platform(text: &str) -> Result<String, Failure> {
    let mut parts = text.split('/');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(os), Some(architecture), variant, None) if !os.is_empty() => {
            let mut platform = json!({"os": os, "architecture": architecture});
            if let Some(variant) = variant {
                platform["variant"] = json!(variant);
            }
            Ok(encode(&platform.to_string()))
        }
        _ => Err(Failure::new(format!(
            "invalid platform {text:?}: write it as os/architecture, such as linux/arm64"
        ))),
    }
}
