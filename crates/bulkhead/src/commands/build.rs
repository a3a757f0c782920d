//! `bulkhead build`: sends the context as a tar stream and shows the steps.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use bulkhead_archive::{Entry, Kind, Packer};
use bulkhead_sys::path::{Visit, Walk};
use clap::{Args, Subcommand};
use rustix::fs::FileType;
use serde_json::{Map, Value, json};
use tokio_util::io::{ReaderStream, SyncIoBridge};

use super::images::progress;
use super::logins;
use super::prune::{self, BuilderPruneArguments};
use super::run::policy::ulimit;
use super::transfer::{Meter, Metered};
use crate::client::{Client, each_json, encode};
use crate::failure::Failure;

#[derive(Debug, Subcommand)]
pub enum BuilderCommand {
    /// Build an image from a Dockerfile
    Build(Box<BuildArguments>),
    /// Remove what builds have kept for the next one
    Prune(BuilderPruneArguments),
}

pub async fn run(client: &Client, command: BuilderCommand) -> Result<(), Failure> {
    match command {
        BuilderCommand::Build(arguments) => build(client, *arguments).await,
        BuilderCommand::Prune(arguments) => prune::builder(client, arguments).await,
    }
}

#[derive(Debug, Args)]
pub struct BuildArguments {
    /// The image's name, and a tag: name:tag (repeatable)
    #[arg(short, long)]
    pub tag: Vec<String>,
    /// The Dockerfile, or - for standard input (default: Dockerfile in the context)
    #[arg(short, long)]
    pub file: Option<PathBuf>,
    /// A variable of the Dockerfile's ARG, as NAME=VALUE, or NAME for this shell's value
    #[arg(long)]
    pub build_arg: Vec<String>,
    /// Another meaning for a name in FROM and COPY --from: NAME=docker-image://REFERENCE
    #[arg(long)]
    pub build_context: Vec<String>,
    /// An image whose steps may be used again
    #[arg(long)]
    pub cache_from: Vec<String>,
    /// Accepted for scripts of Docker's: the socket of an engine needs no compression
    #[arg(long)]
    pub compress: bool,
    /// Microseconds in which --cpu-quota counts
    #[arg(long)]
    pub cpu_period: Option<i64>,
    /// Microseconds of CPU time in each --cpu-period, for each step
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Share of the CPUs beside other containers, of each step
    #[arg(short, long)]
    pub cpu_shares: Option<i64>,
    /// The CPUs that steps may run on, such as 0-2,5
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    /// The memory nodes that steps may use, such as 0-1
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    /// Accepted for scripts of Docker's: signatures are not looked at
    #[arg(long)]
    pub disable_content_trust: bool,
    /// Accepted for scripts of Docker's: containers of steps are never kept
    #[arg(long)]
    pub force_rm: bool,
    /// Write the image's id to a file
    #[arg(long)]
    pub iidfile: Option<PathBuf>,
    /// A label of the image, as NAME=VALUE
    #[arg(long)]
    pub label: Vec<String>,
    /// The stage to build, if not the last
    #[arg(long)]
    pub target: Option<String>,
    /// Memory that a step may use at most, such as 512m
    #[arg(short, long)]
    pub memory: Option<String>,
    /// Memory and swap together; -1 is as much swap as there is
    #[arg(long, allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// The network of the steps: default, none, host
    #[arg(long)]
    pub network: Option<String>,
    /// A line of /etc/hosts in the steps, as NAME:ADDRESS
    #[arg(long)]
    pub add_host: Vec<String>,
    /// Run all steps again
    #[arg(long)]
    pub no_cache: bool,
    /// The image's platform, such as linux/arm64 [default: this machine's]
    #[arg(long)]
    pub platform: Option<String>,
    /// Always try to pull a newer base image
    #[arg(long)]
    pub pull: bool,
    /// Show the image's id alone
    #[arg(short, long)]
    pub quiet: bool,
    /// Accepted for scripts of Docker's: containers of steps are never kept
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub rm: Option<bool>,
    /// As of run, for the steps
    #[arg(long)]
    pub security_opt: Vec<String>,
    /// Bytes that /dev/shm of a step may hold, such as 64m
    #[arg(long)]
    pub shm_size: Option<String>,
    /// A limit of each process of the steps, as NAME=SOFT[:HARD]
    #[arg(long)]
    pub ulimit: Vec<String>,
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
    let what = "Sending build context";
    let meter = if arguments.quiet { Meter::quiet() } else { Meter::new(what, None) };
    let to = Metered { inner: SyncIoBridge::new(writer), meter: meter.clone() };
    let sending = tokio::task::spawn_blocking(move || send(&context, &dockerfile, to));
    let response = client
        .upload(
            hyper::Method::POST,
            &path,
            Some(&logins::all_authorizations()),
            ReaderStream::with_capacity(reader, 256 * 1024),
        )
        .await;
    meter.finish();
    let sent = sending.await.map_err(|cause| Failure::new(cause.to_string()))?;
    let response = match (response, sent) {
        // The engine's refusal says more than the broken pipe it caused.
        (Err(failure), _) => return Err(failure),
        (Ok(_), Err(failure)) => return Err(failure),
        (Ok(response), Ok(())) => response,
    };
    let mut id = String::new();
    each_json(response, |line| {
        progress::failed(&line)?;
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
    if let Some(file) = &arguments.iidfile {
        std::fs::write(file, &id)
            .map_err(|cause| Failure::new(format!("cannot write {}: {cause}", file.display())))?;
    }
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
    let text = [
        ("platform", arguments.platform.clone()),
        ("cpuperiod", arguments.cpu_period.map(|value| value.to_string())),
        ("cpuquota", arguments.cpu_quota.map(|value| value.to_string())),
        ("cpushares", arguments.cpu_shares.map(|value| value.to_string())),
        ("cpusetcpus", arguments.cpuset_cpus.clone()),
        ("cpusetmems", arguments.cpuset_mems.clone()),
        ("memory", bytes(arguments.memory.as_deref())?),
        ("memswap", bytes(arguments.memory_swap.as_deref())?),
        ("shmsize", bytes(arguments.shm_size.as_deref())?),
    ];
    query.extend(text.into_iter().filter_map(|(name, value)| Some((name, value?))));
    if !arguments.cache_from.is_empty() {
        query.push(("cachefrom", json!(arguments.cache_from).to_string()));
    }
    query.extend(arguments.security_opt.iter().map(|option| ("securityopt", option.clone())));
    if !arguments.ulimit.is_empty() {
        let limits = arguments.ulimit.iter().map(|limit| ulimit(limit));
        let limits: Vec<_> = limits.collect::<Result<_, _>>()?;
        query.push(("ulimits", json!(limits).to_string()));
    }
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

/// A size in bytes, as the query says it.
fn bytes(flag: Option<&str>) -> Result<Option<String>, Failure> {
    match flag {
        None => Ok(None),
        Some("-1") => Ok(Some("-1".to_owned())),
        Some(flag) => match bulkhead_types::parse_size(flag) {
            Ok(bytes) => Ok(Some(bytes.to_string())),
            Err(cause) => Err(Failure::new(cause.to_string())),
        },
    }
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
