//! Images and registries.

use std::collections::HashMap;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bulkhead_types::{Reference, Timestamp, decimal_size};
use hyper::Method;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::containers::{short, text};
use crate::client::{Client, each_json, encode};
use crate::failure::Failure;
use crate::{table, template};

/// Where progress goes: `run` keeps stdout for the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    OnStdout,
    OnStderr,
    Nothing,
}

pub async fn list(
    client: &Client,
    all: bool,
    quiet: bool,
    no_trunc: bool,
    format: Option<&str>,
) -> Result<(), Failure> {
    let images = client.get(&format!("/images/json?all={}", u8::from(all))).await?;
    let mut rows = Vec::new();
    for image in images.as_array().into_iter().flatten() {
        let id = text(&image["Id"]);
        let shown = if no_trunc { id.clone() } else { short(&id).to_owned() };
        let created = image["Created"].as_i64().unwrap_or_default();
        let tags: Vec<String> =
            image["RepoTags"].as_array().into_iter().flatten().map(text).collect();
        let tags = if tags.is_empty() { vec!["<none>:<none>".to_owned()] } else { tags };
        for tag in tags {
            let (repository, tag) = tag.rsplit_once(':').unwrap_or((&tag, "<none>"));
            rows.push(json!({
                "Repository": repository,
                "Tag": tag,
                "ID": shown,
                "CreatedSince": format!("{} ago", table::ago(Timestamp::now().as_second() - created)),
                "Size": decimal_size(image["Size"].as_u64().unwrap_or_default()),
            }));
        }
    }
    if quiet {
        rows.iter().for_each(|row| println!("{}", text(&row["ID"])));
        return Ok(());
    }
    if let Some(format) = format {
        let fields = ["Repository", "Tag", "ID", "CreatedSince", "Size"];
        let sample =
            fields.iter().map(|field| (*field).to_owned()).zip(std::iter::repeat(json!("")));
        return template::print_rows(format, &rows, &Value::Object(sample.collect()));
    }
    let fields = ["Repository", "Tag", "ID", "CreatedSince", "Size"];
    let rows =
        rows.iter().map(|row| fields.iter().map(|field| text(&row[field])).collect()).collect();
    table::print(&["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"], rows);
    Ok(())
}

pub async fn import(
    client: &Client,
    changes: &[String],
    message: &str,
    file: &str,
    reference: Option<&str>,
) -> Result<(), Failure> {
    let mut path = format!("/images/create?fromSrc=-&message={}", encode(message));
    if let Some(reference) = reference {
        let parsed: Reference = parse(reference)?;
        let repository = format!("{}/{}", parsed.domain(), parsed.path());
        path.push_str(&format!(
            "&repo={}&tag={}",
            encode(&repository),
            encode(parsed.tag().unwrap_or("latest"))
        ));
    }
    for change in changes {
        path.push_str(&format!("&changes={}", encode(change)));
    }
    let response = if file == "-" {
        client
            .upload(
                &path,
                None,
                tokio_util::io::ReaderStream::with_capacity(tokio::io::stdin(), 256 * 1024),
            )
            .await?
    } else {
        let opened = tokio::fs::File::open(file)
            .await
            .map_err(|cause| Failure::new(format!("cannot read {file}: {cause}")))?;
        client
            .upload(&path, None, tokio_util::io::ReaderStream::with_capacity(opened, 256 * 1024))
            .await?
    };
    each_json(response, |line| {
        failed(&line)?;
        if let Some(status) = line["status"].as_str() {
            println!("{status}");
        }
        Ok(())
    })
    .await
}

pub async fn pull(client: &Client, image: &str, quiet: bool) -> Result<(), Failure> {
    pull_to(client, image, if quiet { Show::Nothing } else { Show::OnStdout }).await?;
    println!("{}", parse(image)?);
    Ok(())
}

pub async fn pull_to(client: &Client, image: &str, show: Show) -> Result<(), Failure> {
    let reference = parse(image)?;
    if show == Show::OnStdout
        && !image.contains('@')
        && reference.tag() == Some("latest")
        && !image.ends_with(":latest")
    {
        println!("Using default tag: latest");
    }
    let name = format!("{}/{}", reference.domain(), reference.path());
    let path =
        format!("/images/create?fromImage={}&tag={}", encode(&name), encode(&reference.version()));
    let response =
        client.call(Method::POST, &path, None, Some(&authorization(reference.domain()))).await?;
    follow(response, show).await.map_err(|failure| advise(failure, reference.domain()))
}

pub async fn push(client: &Client, image: &str, quiet: bool) -> Result<(), Failure> {
    let reference = parse(image)?;
    if !quiet {
        println!("The push refers to repository [{}/{}]", reference.domain(), reference.path());
    }
    let name = format!("{}/{}", reference.domain(), reference.path());
    let path = format!("/images/{name}/push?tag={}", encode(reference.tag().unwrap_or("latest")));
    let response =
        client.call(Method::POST, &path, None, Some(&authorization(reference.domain()))).await?;
    let show = if quiet { Show::Nothing } else { Show::OnStdout };
    follow(response, show).await.map_err(|failure| advise(failure, reference.domain()))
}

/// A registry says that it wants a login; what to do about it is this program's to say.
fn advise(failure: Failure, registry: &str) -> Failure {
    if failure.message.contains("authentication required") {
        let message = format!("{}; log in with `bulkhead login {registry}`", failure.message);
        return Failure { message, ..failure };
    }
    failure
}

/// Shows a transfer: bars on a terminal, one line a step elsewhere, as Docker does.
pub async fn follow(
    response: hyper::Response<hyper::body::Incoming>,
    show: Show,
) -> Result<(), Failure> {
    let terminal = match show {
        Show::OnStdout => std::io::stdout().is_terminal(),
        Show::OnStderr => std::io::stderr().is_terminal(),
        Show::Nothing => false,
    };
    let bars = MultiProgress::new();
    let mut by_id: HashMap<String, ProgressBar> = HashMap::new();
    // what is said of the whole once the layers are there belongs below their bars
    let mut last = Vec::new();
    let line = |text: &str| match show {
        Show::OnStdout => println!("{text}"),
        Show::OnStderr => eprintln!("{text}"),
        Show::Nothing => {}
    };
    each_json(response, |event| {
        failed(&event)?;
        let (id, status) = (text(&event["id"]), text(&event["status"]));
        if status.is_empty() {
            return Ok(());
        }
        if id.is_empty() && terminal && !by_id.is_empty() {
            last.push(status);
            return Ok(());
        }
        if id.is_empty() || !terminal {
            // Without a terminal the counts would be thousands of lines.
            if event["progressDetail"]["current"].is_null() {
                bars.suspend(|| {
                    if id.is_empty() { line(&status) } else { line(&format!("{id}: {status}")) }
                });
            }
            return Ok(());
        }
        let bar = by_id
            .entry(id.clone())
            .or_insert_with(|| bars.add(ProgressBar::new(0)).with_prefix(id));
        let (current, total) = (
            event["progressDetail"]["current"].as_u64(),
            event["progressDetail"]["total"].as_u64(),
        );
        let style = match (current, total) {
            (Some(_), Some(_)) => {
                "{prefix}: {msg} [{bar:40}] {decimal_bytes}/{decimal_total_bytes}"
            }
            _ => "{prefix}: {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_length(total.unwrap_or(0));
        bar.set_position(current.unwrap_or(0));
        bar.set_message(status);
        Ok(())
    })
    .await?;
    by_id.values().for_each(ProgressBar::abandon);
    last.iter().for_each(|text| line(text));
    Ok(())
}

/// An error that came inside a stream that had begun well.
pub fn failed(event: &Value) -> Result<(), Failure> {
    match event["errorDetail"]["message"].as_str().or_else(|| event["error"].as_str()) {
        Some(message) => {
            // A build ends with the exit status of the command that failed, as Docker's CLI does.
            let code = event["errorDetail"]["code"].as_u64().and_then(|code| code.try_into().ok());
            Err(Failure::new(message).with_code(code.unwrap_or(1)))
        }
        None => Ok(()),
    }
}

pub async fn tag(client: &Client, image: &str, name: &str) -> Result<(), Failure> {
    let reference = parse(name)?;
    let repository = format!("{}/{}", reference.domain(), reference.path());
    let tag = encode(reference.tag().unwrap_or("latest"));
    client
        .post(
            &format!("/images/{}/tag?repo={}&tag={tag}", path_of(image), encode(&repository)),
            None,
        )
        .await
        .map(drop)
}

pub async fn remove(client: &Client, force: bool, images: &[String]) -> Result<(), Failure> {
    let mut failed = None;
    for image in images {
        match client.delete(&format!("/images/{}?force={force}", path_of(image))).await {
            Ok(removed) => {
                for step in removed.as_array().into_iter().flatten().filter_map(Value::as_object) {
                    step.iter().for_each(|(what, name)| println!("{what}: {}", text(name)));
                }
            }
            Err(failure) => {
                eprintln!("bulkhead: {}", failure.message.trim_end());
                failed = Some(Failure { message: String::new(), ..failure });
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

pub async fn history(client: &Client, image: &str) -> Result<(), Failure> {
    let history = client.get(&format!("/images/{}/history", path_of(image))).await?;
    let rows = history
        .as_array()
        .into_iter()
        .flatten()
        .map(|step| {
            let created = step["Created"].as_i64().unwrap_or_default();
            let mut by = text(&step["CreatedBy"]);
            if by.chars().count() > 45 {
                by = by.chars().take(44).chain(['…']).collect();
            }
            vec![
                short(&text(&step["Id"])).to_owned(),
                format!("{} ago", table::ago(Timestamp::now().as_second() - created)),
                by,
                decimal_size(step["Size"].as_u64().unwrap_or_default()),
                text(&step["Comment"]),
            ]
        })
        .collect();
    table::print(&["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"], rows);
    Ok(())
}

pub async fn login(
    client: &Client,
    username: Option<String>,
    password: Option<String>,
    password_stdin: bool,
    server: &str,
) -> Result<(), Failure> {
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
    file["auths"][server] = json!({"auth": STANDARD.encode(format!("{username}:{password}"))});
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

/// Docker's own file, so that a login with either program serves both.
fn config_path() -> PathBuf {
    let directory = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let home = || {
        PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".docker")
    };
    directory.unwrap_or_else(home).join("config.json")
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

fn parse(text: &str) -> Result<Reference, Failure> {
    text.parse().map_err(|cause: bulkhead_types::InvalidReference| Failure::new(cause.to_string()))
}

/// An image name in a URL: slashes stay, so that the server's routes see them.
fn path_of(image: &str) -> String {
    encode(image).replace("%2F", "/").replace("%3A", ":").replace("%40", "@")
}
