//! `save`, `load` and `import`: images as files.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;
use hyper::Method;

use super::progress::{self, Show};
use crate::client::{Client, encode};
use crate::commands::transfer;
use crate::failure::Failure;

#[derive(Debug, Args)]
pub struct SaveArguments {
    /// Write to a file and not to standard output
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Only this platform, such as linux/arm64
    #[arg(long)]
    platform: Option<String>,
    #[arg(required = true)]
    images: Vec<String>,
}

pub async fn save(client: &Client, arguments: SaveArguments) -> Result<(), Failure> {
    if arguments.output.is_none() && std::io::stdout().is_terminal() {
        return Err(Failure::new(
            "an archive is nothing for a terminal: say --output FILE, or redirect",
        ));
    }
    let names = arguments.images.iter().map(|image| format!("names={}", encode(image)));
    let mut path = format!("/images/get?{}", names.collect::<Vec<_>>().join("&"));
    if let Some(platform) = &arguments.platform {
        path.push_str(&format!("&platform={}", super::platform(platform)?));
    }
    let answer = client.call(Method::GET, &path, None, None).await?;
    transfer::save(answer, arguments.output.as_deref(), "Saving").await
}

#[derive(Debug, Args)]
pub struct LoadArguments {
    /// Read from a file and not from standard input
    #[arg(short, long)]
    input: Option<PathBuf>,
    /// Only this platform, such as linux/arm64
    #[arg(long)]
    platform: Option<String>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
}

pub async fn load(client: &Client, arguments: LoadArguments) -> Result<(), Failure> {
    if arguments.input.is_none() && std::io::stdin().is_terminal() {
        return Err(Failure::new("requested load from stdin, but stdin is empty"));
    }
    let mut path = format!("/images/load?quiet={}", u8::from(arguments.quiet));
    if let Some(platform) = &arguments.platform {
        path.push_str(&format!("&platform={}", super::platform(platform)?));
    }
    let input = arguments.input.as_deref().unwrap_or(Path::new("-"));
    let (body, meter) = transfer::open(input, "Loading", arguments.quiet).await?;
    let answer = client.upload(Method::POST, &path, None, body).await;
    meter.finish();
    progress::follow(answer?, Show::OnStdout).await
}

#[derive(Debug, Args)]
pub struct ImportArguments {
    /// Apply an instruction of a Dockerfile, such as `CMD ["sh"]`
    #[arg(short, long)]
    change: Vec<String>,
    /// What the image is for
    #[arg(short, long, default_value = "", hide_default_value = true)]
    message: String,
    /// The image's platform, such as linux/arm64 [default: this machine's]
    #[arg(long)]
    platform: Option<String>,
    /// A tar archive, or - for standard input
    file: String,
    /// The image's name and tag
    reference: Option<String>,
}

pub async fn import(client: &Client, arguments: ImportArguments) -> Result<(), Failure> {
    let ImportArguments { change, message, platform, file, reference } = arguments;
    if file.starts_with("http://") || file.starts_with("https://") {
        return Err(Failure::new(format!(
            "archives are not fetched from addresses: `curl {file} | bulkhead import -`"
        )));
    }
    let mut path = format!("/images/create?fromSrc=-&message={}", encode(&message));
    if let Some(reference) = reference {
        let (repository, tag) = transfer::repository_and_tag(&reference)?;
        path.push_str(&format!("&repo={}&tag={}", encode(&repository), encode(&tag)));
    }
    if let Some(platform) = platform {
        path.push_str(&format!("&platform={}", encode(&platform)));
    }
    for change in &change {
        path.push_str(&format!("&changes={}", encode(change)));
    }
    let (body, meter) = transfer::open(Path::new(&file), "Importing", false).await?;
    let answer = client.upload(Method::POST, &path, None, body).await;
    meter.finish();
    progress::follow(answer?, Show::OnStdout).await
}
