//! `pull`, `push` and `search`: what concerns a registry.

use clap::Args;
use hyper::Method;
use serde_json::Value;

use super::progress::{Show, follow};
use crate::client::{Client, encode};
use crate::commands::logins::authorization;
use crate::commands::transfer::parse;
use crate::failure::Failure;

#[derive(Debug, Args)]
pub struct PullArguments {
    /// All tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Accepted for scripts of Docker's: signatures are not looked at
    #[arg(long)]
    disable_content_trust: bool,
    /// The image of this platform, such as linux/arm64
    #[arg(long)]
    platform: Option<String>,
    /// Show the image's name alone
    #[arg(short, long)]
    quiet: bool,
    image: String,
}

#[derive(Debug, Args)]
pub struct PushArguments {
    /// All tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Accepted for scripts of Docker's: images are not signed
    #[arg(long)]
    disable_content_trust: bool,
    /// Only this platform, such as linux/arm64
    #[arg(long)]
    platform: Option<String>,
    /// Show the image's name alone
    #[arg(short, long)]
    quiet: bool,
    image: String,
}

/// What is wanted of a repository.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub image: &'a str,
    pub platform: Option<&'a str>,
    pub all_tags: bool,
}

pub async fn pull(client: &Client, arguments: PullArguments) -> Result<(), Failure> {
    let PullArguments { all_tags, platform, quiet, image, .. } = arguments;
    let show = if quiet { Show::Nothing } else { Show::OnStdout };
    pull_to(client, Wanted { image: &image, platform: platform.as_deref(), all_tags }, show)
        .await?;
    println!("{}", if all_tags { named(&image)? } else { parse(&image)?.to_string() });
    Ok(())
}

pub async fn pull_to(client: &Client, wanted: Wanted<'_>, show: Show) -> Result<(), Failure> {
    let Wanted { image, platform, all_tags } = wanted;
    let reference = parse(image)?;
    let mut path = format!("/images/create?fromImage={}", encode(&named(image)?));
    if all_tags {
        if has_version(image) {
            return Err(Failure::new("tag can't be used with --all-tags/-a"));
        }
    } else {
        if show == Show::OnStdout && !has_version(image) {
            println!("Using default tag: latest");
        }
        path.push_str(&format!("&tag={}", encode(&reference.version())));
    }
    if let Some(platform) = platform {
        path.push_str(&format!("&platform={}", encode(platform)));
    }
    let response =
        client.call(Method::POST, &path, None, Some(&authorization(reference.domain()))).await?;
    follow(response, show).await.map_err(|failure| advise(failure, reference.domain()))
}

pub async fn push(client: &Client, arguments: PushArguments) -> Result<(), Failure> {
    let PushArguments { all_tags, platform, quiet, image, .. } = arguments;
    let reference = parse(&image)?;
    let name = named(&image)?;
    let tags = match all_tags {
        false => vec![reference.tag().unwrap_or("latest").to_owned()],
        true if has_version(&image) => {
            return Err(Failure::new("tag can't be used with --all-tags/-a"));
        }
        true => tags(client, &reference.familiar_name()).await?,
    };
    if !quiet {
        println!("The push refers to repository [{name}]");
        if !all_tags && !has_version(&image) {
            println!("Using default tag: latest");
        }
    }
    let show = if quiet { Show::Nothing } else { Show::OnStdout };
    for tag in tags {
        let mut path = format!("/images/{name}/push?tag={}", encode(&tag));
        if let Some(platform) = &platform {
            path.push_str(&format!("&platform={}", super::platform(platform)?));
        }
        let authorization = authorization(reference.domain());
        let response = client.call(Method::POST, &path, None, Some(&authorization)).await?;
        follow(response, show).await.map_err(|failure| advise(failure, reference.domain()))?;
    }
    if quiet {
        println!("{}", if all_tags { name } else { reference.to_string() });
    }
    Ok(())
}

/// The tags that a repository has here.
async fn tags(client: &Client, repository: &str) -> Result<Vec<String>, Failure> {
    let images = client.get("/images/json").await?;
    let names = images.as_array().into_iter().flatten().flat_map(|image| {
        image["RepoTags"].as_array().into_iter().flatten().filter_map(Value::as_str)
    });
    let mut tags: Vec<String> = names
        .filter_map(|name| parse(name).ok())
        .filter(|reference| reference.familiar_name() == repository)
        .filter_map(|reference| reference.tag().map(str::to_owned))
        .collect();
    tags.sort();
    match tags.is_empty() {
        true => {
            Err(Failure::new(format!("An image does not exist locally with the tag: {repository}")))
        }
        false => Ok(tags),
    }
}

/// A repository with its registry.
fn named(image: &str) -> Result<String, Failure> {
    let reference = parse(image)?;
    Ok(format!("{}/{}", reference.domain(), reference.path()))
}

/// Whether a name has a tag or a digest.
fn has_version(image: &str) -> bool {
    image.contains('@') || image.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

/// A registry says that it wants a login; what to do about it is this program's to say.
fn advise(failure: Failure, registry: &str) -> Failure {
    if failure.message.contains("authentication required") {
        let message = format!("{}; log in with `bulkhead login {registry}`", failure.message);
        return Failure { message, ..failure };
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_tag() {
        for (image, expected) in [
            ("web", false),
            ("web:1", true),
            ("host:5000/web", false),
            ("host:5000/web:1", true),
            ("web@sha256:0", true),
        ] {
            assert_eq!(has_version(image), expected, "{image}");
        }
        assert_eq!(named("web").map_err(|it| it.message).as_deref(), Ok("docker.io/library/web"));
    }
}
