//! `login`, `logout`, and what they keep for others: Docker's own file of logins.

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use clap::Args;
use serde_json::{Value, json};

use crate::client::Client;
use crate::failure::Failure;

#[derive(Debug, Args)]
pub struct LoginArguments {
    /// The password, where everybody sees it: better is --password-stdin
    #[arg(short, long)]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// The user's name
    #[arg(short, long)]
    username: Option<String>,
    /// The registry's host and port
    #[arg(default_value = "127.0.0.1:5000")]
    server: String,
}

pub async fn login(client: &Client, arguments: LoginArguments) -> Result<(), Failure> {
    let LoginArguments { password, password_stdin, username, server } = arguments;
    let username = match username {
        Some(username) => username,
        None => ask("Username: ")?,
    };
    let password = match (password, password_stdin) {
        (Some(_), true) => {
            return Err(Failure::new("--password and --password-stdin are mutually exclusive"));
        }
        (Some(password), false) => {
            eprintln!("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
            password
        }
        (None, true) => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        (None, false) => ask_secretly("Password: ")?,
    };
    let body = json!({"username": username, "password": password, "serveraddress": server});
    let answer = client.post("/auth", Some(&body)).await?;
    let mut file = read_config();
    file["auths"][&server] = json!({"auth": STANDARD.encode(format!("{username}:{password}"))});
    write_config(&file)?;
    println!("{}", answer["Status"].as_str().unwrap_or("Login Succeeded"));
    Ok(())
}

pub fn logout(server: &str) -> Result<(), Failure> {
    let mut file = read_config();
    let removed = file["auths"].as_object_mut().and_then(|auths| auths.remove(server));
    if removed.is_none() {
        println!("Not logged in to {server}");
        return Ok(());
    }
    write_config(&file)?;
    println!("Removing login credentials for {server}");
    Ok(())
}

/// The `X-Registry-Auth` for a registry, from Docker's own configuration file.
pub fn authorization(registry: &str) -> String {
    let file = read_config();
    let key = if registry == bulkhead_types::DEFAULT_DOMAIN {
        "https://index.docker.io/v1/"
    } else {
        registry
    };
    let decoded = file["auths"][key]["auth"]
        .as_str()
        .and_then(|auth| STANDARD.decode(auth).ok())
        .and_then(|auth| String::from_utf8(auth).ok());
    let header = match decoded.as_deref().and_then(|auth| auth.split_once(':')) {
        Some((username, password)) => {
            json!({"username": username, "password": password, "serveraddress": registry})
        }
        None => json!({}),
    };
    URL_SAFE.encode(header.to_string())
}

/// The `Authorization` for a registry that is asked without the engine, if there is a login.
pub fn basic_authorization(registry: &str) -> Option<String> {
    let auth = read_config()["auths"][registry]["auth"].as_str().map(str::to_owned);
    auth.map(|auth| format!("Basic {auth}"))
}

/// `X-Registry-Config`: every login, for a build that may pull from any of them.
pub fn all_authorizations() -> String {
    let file = read_config();
    let mut header = json!({});
    for (registry, login) in file["auths"].as_object().into_iter().flatten() {
        let decoded = login["auth"].as_str().and_then(|auth| STANDARD.decode(auth).ok());
        if let Some((username, password)) = decoded
            .and_then(|auth| String::from_utf8(auth).ok())
            .as_deref()
            .and_then(|auth| auth.split_once(':'))
        {
            header[registry] = json!({"username": username, "password": password});
        }
    }
    URL_SAFE.encode(header.to_string())
}

/// Says where they are, before anything else is asked (`--config`).
pub fn use_directory(directory: PathBuf) {
    // the first one stays, and there is one
    let _ = DIRECTORY.set(directory);
}

static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();

/// Where Docker keeps logins and contexts of this user.
pub fn config_directory() -> PathBuf {
    if let Some(directory) = DIRECTORY.get() {
        return directory.clone();
    }
    let directory = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let home = || {
        PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".docker")
    };
    directory.unwrap_or_else(home)
}

/// Docker's own file, so that a login with either program serves both.
fn config_path() -> PathBuf {
    config_directory().join("config.json")
}

fn read_config() -> Value {
    std::fs::read(config_path())
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_else(|| json!({}))
}

fn write_config(config: &Value) -> Result<(), Failure> {
    let path = config_path();
    let cannot =
        |cause: std::io::Error| Failure::new(format!("cannot write {}: {cause}", path.display()));
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(cannot)?;
    }
    let temporary = path.with_extension("json.new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(cannot)?;
    let text =
        serde_json::to_vec_pretty(config).map_err(|cause| Failure::new(cause.to_string()))?;
    file.write_all(&text).map_err(cannot)?;
    std::fs::rename(&temporary, &path).map_err(cannot)
}

fn ask(prompt: &str) -> Result<String, Failure> {
    eprint!("{prompt}");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Reads a line with the terminal's echo off.
fn ask_secretly(prompt: &str) -> Result<String, Failure> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let before = tcgetattr(std::io::stdin()).map_err(|_| {
        Failure::new("cannot ask for the password without a terminal: use --password-stdin")
    })?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(std::io::stdin(), OptionalActions::Now, &silent).map_err(std::io::Error::from)?;
    let answer = ask(prompt);
    tcsetattr(std::io::stdin(), OptionalActions::Now, &before).map_err(std::io::Error::from)?;
    eprintln!();
    answer
}
