//! `context …`: engines with names, in Docker's own files, so that either program uses what the other made.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bulkhead_types::Digest;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::logins::config_directory;
use super::several;
use super::show::text;
use crate::client::Host;
use crate::client::tls::{Keys, Tls};
use crate::failure::Failure;
use crate::rows::{self, Kind, Show};
use crate::{table, template};

#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// Give an engine a name
    Create(ContextArguments),
    /// Show all that is known of one or more contexts
    Inspect {
        /// A Go template, or `json`
        #[arg(short, long)]
        format: Option<String>,
        contexts: Vec<String>,
    },
    /// List contexts
    #[command(visible_alias = "list")]
    Ls {
        /// A Go template, `table` with one, or `json`
        #[arg(long)]
        format: Option<String>,
        /// Show names alone
        #[arg(short, long)]
        quiet: bool,
    },
    /// Remove one or more contexts
    #[command(visible_alias = "remove")]
    Rm {
        /// Remove it although it is in use
        #[arg(short, long)]
        force: bool,
        #[arg(required = true)]
        contexts: Vec<String>,
    },
    /// Print the name of the context in use
    Show,
    /// Change a context
    Update(ContextArguments),
    /// Use a context from now on; `default` goes back to the usual engine
    Use { context: String },
}

#[derive(Debug, Args)]
pub struct ContextArguments {
    /// What it is
    #[arg(long)]
    description: Option<String>,
    /// The engine, as host=ADDRESS, with ca=FILE,cert=FILE,key=FILE behind a comma for TLS
    #[arg(long, value_name = "host=ADDRESS")]
    docker: Option<String>,
    context: String,
}

const CONTEXTS: Kind = Kind {
    fields: &[
        ("Current", ""),
        ("Description", "DESCRIPTION"),
        ("DockerEndpoint", "DOCKER ENDPOINT"),
        ("Error", "ERROR"),
        ("Name", "NAME"),
    ],
    table: "{{.Name}}{{if eq .Current true}} *{{end}}\\t{{.Description}}\\t{{.DockerEndpoint}}\\t{{.Error}}",
};

/// The name of the usual engine.
pub const DEFAULT: &str = "default";

pub async fn run(command: ContextCommand, in_use: &str) -> Result<(), Failure> {
    match command {
        ContextCommand::Create(arguments) => write(arguments, Write::New),
        ContextCommand::Update(arguments) => write(arguments, Write::Changed),
        ContextCommand::Show => {
            println!("{in_use}");
            Ok(())
        }
        ContextCommand::Use { context } => choose(&context),
        ContextCommand::Ls { format, quiet } => list(format.as_deref(), quiet, in_use),
        ContextCommand::Inspect { format, mut contexts } => {
            if contexts.is_empty() {
                contexts.push(in_use.to_owned());
            }
            let found: Vec<Value> =
                contexts.iter().map(|name| read(name)).collect::<Result<_, _>>()?;
            match format {
                Some(format) => found.iter().try_for_each(|one| template::print(&format, one)),
                None => {
                    let text = serde_json::to_string_pretty(&found);
                    table::show(&(text.map_err(|cause| Failure::new(cause.to_string()))? + "\n"));
                    Ok(())
                }
            }
        }
        ContextCommand::Rm { force, contexts } => {
            several::all(&contexts, async |name| {
                if name == DEFAULT {
                    return Err(Failure::new("context \"default\" cannot be removed"));
                }
                if name == in_use && !force {
                    return Err(Failure::new(format!(
                        "context {name:?} is in use: use another one first, or say --force"
                    )));
                }
                // its certificates first: a context without them is no secret
                match std::fs::remove_dir_all(directory_of_keys(name)?) {
                    Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Failure::new(format!("cannot remove {name}: {cause}")));
                    }
                    _ => {}
                }
                match std::fs::remove_dir_all(directory(name)?) {
                    Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                        Err(missing(name))
                    }
                    Err(cause) => Err(Failure::new(format!("cannot remove {name}: {cause}"))),
                    Ok(()) => {
                        if name == in_use {
                            choose(DEFAULT)?;
                        }
                        Ok(name.to_owned())
                    }
                }
            })
            .await
        }
    }
}

/// The context that `context use` has chosen.
pub fn chosen() -> Option<String> {
    let text = std::fs::read(choice()).ok()?;
    let chosen: Value = serde_json::from_slice(&text).ok()?;
    chosen["currentContext"].as_str().filter(|name| *name != DEFAULT).map(str::to_owned)
}

/// Where the engine of a context listens, and what it is reached with by TLS.
pub fn host(name: &str) -> Result<(Host, Option<Keys>), Failure> {
    if name == DEFAULT {
        return Ok((Host::default(), None));
    }
    let context = read(name)?;
    let endpoint = &context["Endpoints"]["docker"];
    let host = endpoint["Host"].as_str().ok_or_else(|| {
        Failure::new(format!(
            "context {name:?} names no engine: create it anew with --docker host=ADDRESS"
        ))
    })?;
    if endpoint["SkipTLSVerify"] == true {
        return Err(Failure::new(format!(
            "context {name:?} asks for TLS that is not verified, and so trusts whoever answers: create it anew with ca=FILE"
        )));
    }
    let directory = directory_of_keys(name)?.join("docker");
    let file = |name: &str| Some(directory.join(name)).filter(|file| file.exists());
    let keys = file("ca.pem").map(|ca| Keys { ca, own: file("cert.pem").zip(file("key.pem")) });
    Ok((host.parse()?, keys))
}

enum Write {
    New,
    Changed,
}

fn write(arguments: ContextArguments, how: Write) -> Result<(), Failure> {
    let ContextArguments { description, docker, context } = arguments;
    check(&context)?;
    let path = directory(&context)?.join("meta.json");
    let mut meta = match how {
        Write::New if path.exists() => {
            return Err(Failure::new(format!("context {context:?} already exists")));
        }
        Write::New => json!({"Name": context, "Metadata": {}, "Endpoints": {}}),
        Write::Changed => read(&context)?,
    };
    if let Some(meta) = meta.as_object_mut() {
        meta.remove("Storage");
    }
    if let Some(description) = description {
        meta["Metadata"]["Description"] = json!(description);
    }
    let mut keys = None;
    if let Some(docker) = docker {
        let endpoint = endpoint(&docker)?;
        meta["Endpoints"]["docker"] = json!({"Host": endpoint.host, "SkipTLSVerify": false});
        // what cannot be used is told now, and not when it is needed
        keys = endpoint.keys;
        keys.as_ref().map(Tls::new).transpose()?;
    }
    if meta["Endpoints"]["docker"]["Host"].is_null() {
        return Err(Failure::new(
            "docker endpoint configuration is required: say --docker host=ADDRESS",
        ));
    }
    if let Some(keys) = keys {
        let directory = directory_of_keys(&context)?.join("docker");
        let files = [Some((keys.ca, "ca.pem"))].into_iter().chain(match keys.own {
            Some((certificate, key)) => [Some((certificate, "cert.pem")), Some((key, "key.pem"))],
            None => [None, None],
        });
        for (from, name) in files.flatten() {
            let cannot = |cause: std::io::Error| {
                Failure::new(format!("cannot keep {}: {cause}", from.display()))
            };
            let text = std::fs::read_to_string(&from).map_err(cannot)?;
            write_whole(&directory.join(name), &text)?;
        }
    }
    write_whole(&path, &meta.to_string())?;
    println!("{context}");
    let done = if matches!(how, Write::New) { "created" } else { "updated" };
    eprintln!("Successfully {done} context {context:?}");
    Ok(())
}

/// What `--docker` says.
#[derive(Debug)]
struct Endpoint {
    host: String,
    keys: Option<Keys>,
}

/// `host=ADDRESS[,ca=FILE[,cert=FILE,key=FILE]]`, an address that this program can reach.
fn endpoint(text: &str) -> Result<Endpoint, Failure> {
    let (mut host, mut ca, mut certificate, mut key) = (None, None, None, None);
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("host", value)) => host = Some(value.to_owned()),
            Some(("ca", file)) => ca = Some(PathBuf::from(file)),
            Some(("cert", file)) => certificate = Some(PathBuf::from(file)),
            Some(("key", file)) => key = Some(PathBuf::from(file)),
            Some(("skip-tls-verify", "false")) => {}
            Some(("skip-tls-verify", _)) => {
                return Err(Failure::new(
                    "TLS that is not verified trusts whoever answers: name the engine's CA by ca=FILE",
                ));
            }
            _ => {
                return Err(Failure::new(format!(
                    "unrecognized config key in --docker: {field}: write it as host=ADDRESS"
                )));
            }
        }
    }
    let host =
        host.ok_or_else(|| Failure::new("--docker names no host: write it as host=ADDRESS"))?;
    host.parse::<Host>()?;
    let keys = match (ca, certificate, key) {
        (None, None, None) => None,
        (Some(ca), None, None) => Some(Keys { ca, own: None }),
        (Some(ca), Some(certificate), Some(key)) => {
            Some(Keys { ca, own: Some((certificate, key)) })
        }
        _ => {
            return Err(Failure::new(
                "TLS needs ca=FILE, and cert=FILE and key=FILE together or neither",
            ));
        }
    };
    Ok(Endpoint { host, keys })
}

fn choose(name: &str) -> Result<(), Failure> {
    if name != DEFAULT {
        host(name)?;
    }
    write_whole(&choice(), &json!({"currentContext": name}).to_string())?;
    println!("{name}");
    eprintln!("Current context is now {name:?}");
    for variable in ["BULKHEAD_HOST", "DOCKER_HOST", "DOCKER_CONTEXT"] {
        if std::env::var(variable).is_ok_and(|value| !value.is_empty()) {
            eprintln!("Warning: {variable} is set, and goes before it");
        }
    }
    Ok(())
}

fn list(format: Option<&str>, quiet: bool, in_use: &str) -> Result<(), Failure> {
    let mut found = vec![read(DEFAULT)?];
    found.extend(stored());
    let rows = found.iter().map(|meta| {
        let name = text(&meta["Name"]);
        json!({
            "Current": name == in_use,
            "Name": name,
            "Description": text(&meta["Metadata"]["Description"]),
            "DockerEndpoint": text(&meta["Endpoints"]["docker"]["Host"]),
            "Error": host(&name).err().map(|failure| failure.message).unwrap_or_default(),
        })
    });
    rows::print(&CONTEXTS, Show::of(quiet, "Name", format), rows.collect())
}

/// Names with what they are, for a shell.
pub fn names() -> Vec<(String, String)> {
    let stored = stored()
        .into_iter()
        .map(|meta| (text(&meta["Name"]), text(&meta["Endpoints"]["docker"]["Host"])));
    std::iter::once((DEFAULT.to_owned(), String::new())).chain(stored).collect()
}

/// All but the usual one; a file that cannot be read is none.
fn stored() -> Vec<Value> {
    let entries = std::fs::read_dir(config_directory().join("contexts/meta"));
    let meta = |entry: std::fs::DirEntry| {
        let text = std::fs::read(entry.path().join("meta.json")).ok()?;
        serde_json::from_slice::<Value>(&text).ok()
    };
    let mut found: Vec<Value> = entries.into_iter().flatten().flatten().filter_map(meta).collect();
    found.sort_by_key(|meta| text(&meta["Name"]));
    found
}

fn read(name: &str) -> Result<Value, Failure> {
    if name == DEFAULT {
        let host = Host::default().to_string();
        return Ok(json!({
            "Name": DEFAULT,
            "Metadata": {"Description": "The engine of this machine, unless BULKHEAD_HOST or DOCKER_HOST names one"},
            "Endpoints": {"docker": {"Host": format!("unix://{host}"), "SkipTLSVerify": false}},
        }));
    }
    let path = directory(name)?.join("meta.json");
    let text = std::fs::read(&path).map_err(|cause| match cause.kind() {
        std::io::ErrorKind::NotFound => missing(name),
        _ => Failure::new(format!("cannot read {}: {cause}", path.display())),
    })?;
    serde_json::from_slice(&text)
        .map_err(|cause| Failure::new(format!("{} is damaged: {cause}", path.display())))
}

fn missing(name: &str) -> Failure {
    Failure::new(format!("context {name:?} does not exist: `bulkhead context ls` shows them"))
}

/// Docker's rule (docker/cli: cli/context/store/store.go), without which a name is a path.
fn check(name: &str) -> Result<(), Failure> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte);
    match first && name.len() > 1 && name.bytes().all(valid) && name != DEFAULT {
        true => Ok(()),
        false => Err(Failure::new(format!(
            "{name:?} is no name for a context: it begins with a letter or digit, and has two or more of letters, digits, and _.+-"
        ))),
    }
}

/// Docker keeps a context below the digest of its name.
fn directory(name: &str) -> Result<PathBuf, Failure> {
    check(name)?;
    Ok(config_directory().join("contexts/meta").join(Digest::of(name.as_bytes()).hex()))
}

fn directory_of_keys(name: &str) -> Result<PathBuf, Failure> {
    check(name)?;
    Ok(config_directory().join("contexts/tls").join(Digest::of(name.as_bytes()).hex()))
}

/// Not Docker's file: what `docker context use` chose is a Docker, as a rule.
fn choice() -> PathBuf {
    config_directory().join("bulkhead.json")
}

fn write_whole(path: &Path, text: &str) -> Result<(), Failure> {
    let cannot =
        |cause: std::io::Error| Failure::new(format!("cannot write {}: {cause}", path.display()));
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(cannot)?;
    }
    let partial = path.with_extension("new");
    // also where nobody else may read it: it may be a key
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(cannot)?;
    std::fs::rename(&partial, path).map_err(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_endpoints() {
        for good in ["ab", "my-box.1", "9a+b_c"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "../x", "a/b", "-ab", "default", "ü1"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert_eq!(endpoint("host=unix:///x").map(|it| it.host).ok().as_deref(), Some("unix:///x"));
        let keys = endpoint("host=tcp://x:1,ca=/a,cert=/c,key=/k").map(|it| it.keys).ok().flatten();
        let own = Some(("/c".into(), "/k".into()));
        assert_eq!(keys, Some(Keys { ca: "/a".into(), own }));
        for bad in [
            "",
            "host=",
            "host=ssh://box",
            "unix:///x",
            "host=tcp://x,cert=/f",
            "host=tcp://x,skip-tls-verify=true",
        ] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }
}
