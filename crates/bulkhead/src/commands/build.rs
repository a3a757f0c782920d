//! `bulkhead build`: sends the context as a tar stream and shows the steps.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bulkhead_archive::{Entry, Kind, Packer};
use bulkhead_sys::path::{Visit, Walk};
use clap::Args;
use rustix::fs::FileType;
use serde_json::{Map, Value, json};
use tokio_util::io::{ReaderStream, SyncIoBridge};

use super::images;
use crate::client::{Client, each_json, encode};
use crate::failure::Failure;

#[derive(Debug, Args)]
pub struct BuildArguments {
    /// The image's name, and a tag: name:tag (repeatable)
    #[arg(short, long)]
    pub tag: Vec<String>,
    /// The Dockerfile, or - for standard input (default: Dockerfile in the context)
    #[arg(short, long)]
    pub file: Option<PathBuf>,
    #[arg(long)]
    pub build_arg: Vec<String>,
    /// Another meaning for a name in FROM and COPY --from: NAME=docker-image://REFERENCE
    #[arg(long)]
    pub build_context: Vec<String>,
    #[arg(long)]
    pub label: Vec<String>,
    #[arg(long)]
    pub target: Option<String>,
    #[arg(long)]
    pub network: Option<String>,
    #[arg(long)]
    pub add_host: Vec<String>,
    #[arg(long)]
    pub no_cache: bool,
    /// Always try to pull a newer base image
    #[arg(long)]
    pub pull: bool,
    #[arg(short, long)]
    pub quiet: bool,
    /// A directory, or - for a Dockerfile on stdin
    pub context: PathBuf,
}

pub async fn build(client: &Client, arguments: BuildArguments) -> Result<(), Failure> {
    // Before anything is asked of the engine: it would miss the Dockerfile, and say only that.
    check_paths(&arguments)?;
    let (mut query, dockerfile) = query(&arguments)?;
    query.push(("dockerfile", dockerfile.in_context.clone()));
    let query: Vec<String> =
        query.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    let path = format!("/build?{}", query.join("&"));

    let (writer, reader) = tokio::io::duplex(1 << 20);
    let context = arguments.context.clone();
    let sending =
        tokio::task::spawn_blocking(move || send(&context, &dockerfile, SyncIoBridge::new(writer)));
    let response = client
        .upload(
            &path,
            Some(&images::all_authorizations()),
            ReaderStream::with_capacity(reader, 256 * 1024),
        )
        .await;
    let sent = sending.await.map_err(|cause| Failure::new(cause.to_string()))?;
    let response = match (response, sent) {
        // The engine's refusal says more than the broken pipe it caused.
        (Err(failure), _) => return Err(failure),
        (Ok(_), Err(failure)) => return Err(failure),
        (Ok(response), Ok(())) => response,
    };
    let mut id = String::new();
    each_json(response, |line| {
        images::failed(&line)?;
        if let Some(text) = line["stream"].as_str().filter(|_| !arguments.quiet) {
            print!("{text}");
            std::io::stdout().flush()?;
        } else if let Some(status) = line["status"]
            .as_str()
            .filter(|_| !arguments.quiet && line["progressDetail"]["current"].is_null())
        {
            match line["id"].as_str().filter(|id| !id.is_empty()) {
                Some(id) => println!("{id}: {status}"),
                None => println!("{status}"),
            }
        }
        if let Some(found) = line["aux"]["ID"].as_str() {
            found.clone_into(&mut id);
        }
        Ok(())
    })
    .await?;
    if arguments.quiet {
        println!("{id}");
    }
    Ok(())
}

fn check_paths(arguments: &BuildArguments) -> Result<(), Failure> {
    let context = &arguments.context;
    if context != Path::new("-") {
        let shown = context.display();
        match std::fs::metadata(context) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => {
                return Err(Failure::new(format!(
                    "{shown} is not a directory: give the directory with the files of the build"
                )));
            }
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                return Err(Failure::new(format!("there is no directory {shown} to build from")));
            }
            Err(cause) => {
                return Err(Failure::new(format!("cannot build from {shown}: {cause}")));
            }
        }
    }
    let Some(file) = &arguments.file else { return Ok(()) };
    if file == Path::new("-") {
        return match context == Path::new("-") {
            true => Err(Failure::new(
                "standard input cannot be both the context and the Dockerfile".to_owned(),
            )),
            false => Ok(()),
        };
    }
    match std::fs::metadata(file) {
        Ok(metadata) if metadata.is_dir() => {
            Err(Failure::new(format!("{} is a directory, and no Dockerfile", file.display())))
        }
        Ok(_) => Ok(()),
        Err(cause) => {
            Err(Failure::new(format!("cannot read the Dockerfile {}: {cause}", file.display())))
        }
    }
}

/// Where the Dockerfile is, and what the engine will find it as.
#[derive(Debug, Clone)]
struct Dockerfile {
    in_context: String,
    /// It lies outside the context, and is sent along under `in_context`.
    outside: Option<PathBuf>,
}

/// Names and values of the request's query.
type Parameters = Vec<(&'static str, String)>;

fn query(arguments: &BuildArguments) -> Result<(Parameters, Dockerfile), Failure> {
    let mut query = Vec::new();
    query.extend(arguments.tag.iter().map(|tag| ("t", tag.clone())));
    query.push((
        "buildargs",
        values(&arguments.build_arg, |name| std::env::var(name).ok()).to_string(),
    ));
    query.push(("labels", values(&arguments.label, |_| Some(String::new())).to_string()));
    query.push(("buildcontexts", contexts(&arguments.build_context)?.to_string()));
    query.extend(arguments.target.iter().map(|target| ("target", target.clone())));
    query.extend(arguments.network.iter().map(|network| ("networkmode", network.clone())));
    query.extend(arguments.add_host.iter().map(|host| ("extrahosts", host.clone())));
    query.push(("nocache", u8::from(arguments.no_cache).to_string()));
    query.push(("pull", u8::from(arguments.pull).to_string()));
    query.push(("rm", "1".to_owned()));
    let dockerfile = match &arguments.file {
        None => Dockerfile { in_context: "Dockerfile".to_owned(), outside: None },
        Some(file) => {
            let inside = Some(file)
                .filter(|file| file.as_path() != Path::new("-"))
                .and_then(|file| std::path::absolute(file).ok())
                .zip(std::path::absolute(&arguments.context).ok())
                .and_then(|(file, context)| file.strip_prefix(context).ok().map(Path::to_owned));
            match inside {
                Some(inside) => {
                    Dockerfile { in_context: inside.to_string_lossy().into_owned(), outside: None }
                }
                None => Dockerfile {
                    in_context: ".bulkhead.Dockerfile".to_owned(),
                    outside: Some(file.clone()),
                },
            }
        }
    };
    Ok((query, dockerfile))
}

fn values(flags: &[String], missing: impl Fn(&str) -> Option<String>) -> Value {
    let pair = |flag: &String| match flag.split_once('=') {
        Some((name, value)) => (name.to_owned(), json!(value)),
        None => (flag.clone(), json!(missing(flag))),
    };
    Value::Object(flags.iter().map(pair).collect::<Map<_, _>>())
}

fn contexts(flags: &[String]) -> Result<Value, Failure> {
    let mut contexts = Map::new();
    for flag in flags {
        let (name, value) = flag.split_once('=').ok_or_else(|| {
            Failure::new(format!(
                "invalid build context {flag:?}: write it as NAME=docker-image://REFERENCE"
            ))
        })?;
        if !value.starts_with("docker-image://") {
            return Err(Failure::new(format!(
                "build context {name}: {value:?} is not supported: use docker-image://REFERENCE"
            )));
        }
        contexts.insert(name.to_owned(), json!(value));
    }
    Ok(Value::Object(contexts))
}

/// Writes the context as tar. Owners become 0:0, as the docker CLI sends them; what .dockerignore
/// leaves out is left to the engine, which has the one implementation of its rules.
fn send(context: &Path, dockerfile: &Dockerfile, to: impl Write) -> Result<(), Failure> {
    let mut archive = Packer::of_root(to);
    let file = |name: &str| Entry::new(name, Kind::File { size: 0 });
    if context == Path::new("-") {
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut text)?;
        archive.file(&file("Dockerfile"), &text)?;
    } else {
        let mut at = PathBuf::new();
        pack_context(&mut archive, context, &mut at).map_err(|cause| {
            Failure::new(format!("cannot send {} of the build context: {cause}", at.display()))
        })?;
    }
    if let Some(outside) = &dockerfile.outside {
        let read = if outside == Path::new("-") {
            let mut text = Vec::new();
            std::io::Read::read_to_end(&mut std::io::stdin(), &mut text).map(|_| text)
        } else {
            std::fs::read(outside)
        };
        let text = read.map_err(|cause| {
            Failure::new(format!("cannot read the Dockerfile {}: {cause}", outside.display()))
        })?;
        archive.file(&file(&dockerfile.in_context), &text)?;
    }
    archive.finish()?.flush().map_err(Failure::from)
}

/// Writes the directory's files; `at` is the one that was last looked at.
fn pack_context(
    archive: &mut Packer<impl Write>,
    context: &Path,
    at: &mut PathBuf,
) -> std::io::Result<()> {
    let directory = std::fs::File::open(context)?;
    let mut walk = Walk::new(directory.as_fd())?;
    loop {
        let visit = walk.visit();
        walk.at().clone_into(at);
        let Some(visit) = visit? else { return Ok(()) };
        let (Visit::Enter(visited) | Visit::File(visited)) = visit else { continue };
        // Devices, sockets and fifos cannot be copied into an image; Docker leaves them out too.
        let kinds = [FileType::RegularFile, FileType::Directory, FileType::Symlink];
        if kinds.contains(&FileType::from_raw_mode(visited.stat.st_mode)) {
            let path = visited.path.as_os_str().as_bytes();
            archive.member(visited.file.as_fd(), &visited.stat, path)?;
        }
    }
}
