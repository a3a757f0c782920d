//! Commands on existing containers.

use std::borrow::Cow;
use std::io::Write as _;

use bulkhead_types::Timestamp;
use clap::Args;
use hyper::Method;
use serde_json::{Value, json};

use crate::client::{Client, collect, encode};
use crate::failure::Failure;
use crate::{table, template};

/// Does one thing to each of several containers, goes on past errors, and prints each that worked.
pub async fn each(
    client: &Client,
    containers: &[String],
    verb: &str,
    query: &str,
) -> Result<(), Failure> {
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    let mut failed = None;
    for container in containers {
        match client.post(&format!("/containers/{}/{verb}{query}", encode(container)), None).await {
            Ok(_) => println!("{container}"),
            Err(failure) => report(&mut failed, failure),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Prints an error at once; the last one decides the exit status.
pub fn report(failed: &mut Option<Failure>, failure: Failure) {
    eprintln!("bulkhead: {}", failure.message.trim_end());
    *failed = Some(Failure { message: String::new(), ..failure });
}

pub async fn wait(client: &Client, containers: &[String]) -> Result<(), Failure> {
    let mut failed = None;
    for container in containers {
        let path = format!("/containers/{}/wait", encode(container));
        match client.post(&path, None).await {
            Ok(ended) => println!("{}", ended["StatusCode"]),
            Err(failure) => report(&mut failed, failure),
        }
    }
    failed.map_or(Ok(()), Err)
}

pub async fn remove(
    client: &Client,
    force: bool,
    volumes: bool,
    containers: &[String],
) -> Result<(), Failure> {
    let mut failed = None;
    for container in containers {
        let path = format!("/containers/{}?force={force}&v={volumes}", encode(container));
        match client.delete(&path).await {
            Ok(_) => println!("{container}"),
            Err(failure) => report(&mut failed, failure),
        }
    }
    failed.map_or(Ok(()), Err)
}

pub async fn rename(client: &Client, container: &str, name: &str) -> Result<(), Failure> {
    client
        .post(&format!("/containers/{}/rename?name={}", encode(container), encode(name)), None)
        .await
        .map(drop)
}

/// Docker's flags for `ps`.
#[derive(Debug, Args)]
pub struct PsArguments {
    #[arg(short, long)]
    pub all: bool,
    #[arg(short, long)]
    pub quiet: bool,
    #[arg(long)]
    pub no_trunc: bool,
    #[arg(short, long)]
    pub filter: Vec<String>,
    /// A Go template, or `json`
    #[arg(long)]
    pub format: Option<String>,
    #[arg(short = 'n', long, allow_hyphen_values = true)]
    pub last: Option<i64>,
    #[arg(short, long)]
    pub latest: bool,
}

pub async fn list(client: &Client, arguments: PsArguments) -> Result<(), Failure> {
    let PsArguments { all, quiet, no_trunc, filter, format, last, latest } = arguments;
    let last = if latest { Some(1) } else { last };
    let mut query = format!("?all={}", u8::from(all || last.is_some()));
    if let Some(last) = last.filter(|last| *last > 0) {
        query.push_str(&format!("&limit={last}"));
    }
    if !filter.is_empty() {
        query.push_str(&format!("&filters={}", encode(&filter_map(&filter)?.to_string())));
    }
    if let Some(format) = format.as_deref().filter(|_| !quiet) {
        let containers = client.get(&format!("/containers/json{query}")).await?;
        let rows = containers.as_array().into_iter().flatten();
        let rows: Vec<Value> = rows.map(|container| row(container, no_trunc)).collect();
        return template::print_rows(format, &rows, &row(&Value::Null, no_trunc));
    }
    let asked = async |path| client.call(Method::GET, &format!("{path}{query}"), None, None).await;
    let answer = match asked("/bulkhead/containers/json").await {
        Err(failure) if failure.is_unknown_request() => asked("/containers/json").await?,
        answer => answer?,
    };
    let text = collect(answer).await?;
    let listed: Vec<Listed<'_>> = serde_json::from_slice(&text)
        .map_err(|cause| Failure::new(format!("the engine's answer is not understood: {cause}")))?;
    if quiet {
        let ids = listed.iter().map(|one| if no_trunc { &*one.id } else { short(&one.id) });
        let lines = ids.fold(String::new(), |lines, id| lines + id + "\n");
        return Ok(std::io::stdout().write_all(lines.as_bytes())?);
    }
    let titles = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
    let now = Timestamp::now();
    table::print(&titles, listed.into_iter().map(|one| one.cells(now, no_trunc)).collect());
    Ok(())
}

/// What the table shows of a container. It borrows from the answer, which has a line for each of a
/// thousand containers and much that is not shown.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    image: Cow<'a, str>,
    #[serde(borrow)]
    command: Cow<'a, str>,
    created: i64,
    #[serde(borrow)]
    status: Cow<'a, str>,
    ports: Option<Vec<Port>>,
    names: Vec<String>,
}

/// One of `Ports`.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Port {
    #[serde(rename = "IP", default)]
    address: String,
    private_port: u16,
    public_port: Option<u16>,
    #[serde(rename = "Type")]
    protocol: String,
}

impl Listed<'_> {
    fn cells(self, now: Timestamp, no_trunc: bool) -> Vec<String> {
        vec![
            if no_trunc { self.id.into_owned() } else { short(&self.id).to_owned() },
            self.image.into_owned(),
            shown_command(&self.command, no_trunc),
            running_for(self.created, now),
            self.status.into_owned(),
            ports(self.ports.as_deref().unwrap_or_default()),
            shown_names(self.names.iter().map(String::as_str), no_trunc),
        ]
    }
}

/// What people write for a moment, as the API takes it: seconds since the epoch with a fraction.
pub fn moment(text: &str) -> Result<String, Failure> {
    let zone = bulkhead_types::TimeZone::system();
    let moment = bulkhead_types::parse_moment(text, Timestamp::now(), &zone).ok_or_else(|| {
        Failure::new(format!(
            "{text:?} is not a moment: use 10m, 2006-01-02, 2006-01-02T15:04:05Z or seconds since 1970"
        ))
    })?;
    Ok(format!("{}.{:09}", moment.as_second(), moment.subsec_nanosecond()))
}

/// `label=a=b` → `{"label": {"a=b": true}}`, as the docker CLI sends filters.
pub fn filter_map(filters: &[String]) -> Result<Value, Failure> {
    let mut map = json!({});
    for filter in filters {
        let (name, value) = filter.split_once('=').ok_or_else(|| {
            Failure::new(format!("invalid filter '{filter}': write it as NAME=VALUE"))
        })?;
        map[name][value] = json!(true);
    }
    Ok(map)
}

/// What Docker's templates for `ps` know.
fn row(container: &Value, no_trunc: bool) -> Value {
    let id = text(&container["Id"]);
    let command = text(&container["Command"]);
    let created = container["Created"].as_i64().unwrap_or_default();
    let names = container["Names"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let published: Option<Vec<Port>> =
        serde_json::from_value(container["Ports"].clone()).unwrap_or_default();
    let published = published.unwrap_or_default();
    let labels: Vec<String> = container["Labels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", text(value)))
        .collect();
    json!({
        "ID": if no_trunc { id.as_str() } else { short(&id) },
        "Image": container["Image"],
        "Command": shown_command(&command, no_trunc),
        "CreatedAt": Timestamp::from_second(created).map(|at| at.to_string()).unwrap_or_default(),
        "RunningFor": running_for(created, Timestamp::now()),
        "State": container["State"],
        "Status": container["Status"],
        "Ports": ports(&published),
        "Names": shown_names(names, no_trunc),
        "Labels": labels.join(","),
        "Networks": container["NetworkSettings"]["Networks"].as_object().map(|networks| networks.keys().cloned().collect::<Vec<_>>().join(",")).unwrap_or_default(),
        "Mounts": container["Mounts"].as_array().map(|mounts| mounts.iter().map(|mount| text(&mount["Source"])).collect::<Vec<_>>().join(",")).unwrap_or_default(),
    })
}

fn shown_command(command: &str, no_trunc: bool) -> String {
    if no_trunc { format!("{command:?}") } else { format!("{:?}", shorten(command, 20)) }
}

fn running_for(created: i64, now: Timestamp) -> String {
    format!("{} ago", table::ago(now.as_second() - created))
}

/// Those that links give, `web/store`, only where nothing is cut short (docker/cli:
/// cli/command/formatter/container.go, `Names`).
fn shown_names<'a>(names: impl Iterator<Item = &'a str>, no_trunc: bool) -> String {
    let names = names.map(|name| name.trim_start_matches('/'));
    names.filter(|name| no_trunc || !name.contains('/')).collect::<Vec<_>>().join(",")
}

fn ports(ports: &[Port]) -> String {
    let shown = |port: &Port| {
        let private = format!("{}/{}", port.private_port, port.protocol);
        match port.public_port {
            Some(public) if port.address.contains(':') => {
                format!("[{}]:{public}->{private}", port.address)
            }
            Some(public) if !port.address.is_empty() => {
                format!("{}:{public}->{private}", port.address)
            }
            _ => private,
        }
    };
    let mut shown: Vec<String> = ports.iter().map(shown).collect();
    shown.sort();
    shown.join(", ")
}

pub async fn logs(
    client: &Client,
    container: &str,
    follow: bool,
    tail: &str,
    timestamps: bool,
    since: Option<&str>,
) -> Result<(), Failure> {
    use http_body_util::BodyExt;

    let name = encode(container);
    let seen = client.get(&format!("/containers/{name}/json")).await?;
    let tty = seen["Config"]["Tty"].as_bool().unwrap_or(false);
    let since = match since {
        Some(text) => format!("&since={}", moment(text)?),
        None => String::new(),
    };
    let path = format!(
        "/containers/{name}/logs?stdout=1&stderr=1&follow={}&tail={}&timestamps={}{since}",
        u8::from(follow),
        encode(tail),
        u8::from(timestamps)
    );
    let mut body = client.call(Method::GET, &path, None, None).await?.into_body();
    let mut pending = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|cause| Failure::new(format!("the log broke off: {cause}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if tty {
            std::io::stdout().write_all(&data)?;
            continue;
        }
        pending.extend_from_slice(&data);
        while pending.len() >= 8 {
            let length =
                u32::from_be_bytes([pending[4], pending[5], pending[6], pending[7]]) as usize;
            if pending.len() < 8 + length {
                break;
            }
            let frame: Vec<u8> = pending.drain(..8 + length).collect();
            match frame[0] {
                1 => std::io::stdout().write_all(&frame[8..])?,
                _ => std::io::stderr().write_all(&frame[8..])?,
            }
        }
        std::io::stdout().flush()?;
    }
    Ok(())
}

pub async fn top(client: &Client, container: &str) -> Result<(), Failure> {
    let top = client.get(&format!("/containers/{}/top", encode(container))).await?;
    let strings =
        |value: &Value| value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
    let titles = strings(&top["Titles"]);
    let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
    table::print(&titles, top["Processes"].as_array().into_iter().flatten().map(strings).collect());
    Ok(())
}

/// One sample of each, in the columns of `docker stats --no-stream`.
pub async fn stats(client: &Client, containers: &[String]) -> Result<(), Failure> {
    let names: Vec<String> = if containers.is_empty() {
        let running = client.get("/containers/json").await?;
        running.as_array().into_iter().flatten().map(|container| text(&container["Id"])).collect()
    } else {
        containers.to_vec()
    };
    let mut rows = Vec::new();
    for name in &names {
        let response = client
            .call(Method::GET, &format!("/containers/{}/stats?stream=0", encode(name)), None, None)
            .await?;
        let sample: Value = serde_json::from_slice(&collect(response).await?)
            .map_err(|cause| Failure::new(cause.to_string()))?;
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let (cpu, before) = (&sample["cpu_stats"], &sample["precpu_stats"]);
        let used = number(&cpu["cpu_usage"]["total_usage"])
            .saturating_sub(number(&before["cpu_usage"]["total_usage"]));
        let all =
            number(&cpu["system_cpu_usage"]).saturating_sub(number(&before["system_cpu_usage"]));
        let cpus = number(&cpu["online_cpus"]).max(1);
        let percent = if all == 0 { 0.0 } else { used as f64 / all as f64 * cpus as f64 * 100.0 };
        let memory = &sample["memory_stats"];
        let usage =
            number(&memory["usage"]).saturating_sub(number(&memory["stats"]["inactive_file"]));
        let limit = number(&memory["limit"]);
        let share = if limit == 0 { 0.0 } else { usage as f64 / limit as f64 * 100.0 };
        rows.push(vec![
            short(&text(&sample["id"])).to_owned(),
            text(&sample["name"]).trim_start_matches('/').to_owned(),
            format!("{percent:.2}%"),
            format!(
                "{} / {}",
                bulkhead_types::decimal_size(usage),
                bulkhead_types::decimal_size(limit)
            ),
            format!("{share:.2}%"),
            text(&sample["pids_stats"]["current"]),
        ]);
    }
    table::print(&["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "PIDS"], rows);
    Ok(())
}

/// A string without its quotes; anything else as JSON, null as nothing.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The first 12 digits of an id, without `sha256:`.
pub fn short(id: &str) -> &str {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    digits.get(..12).unwrap_or(digits)
}

/// At most `width` letters, the last an ellipsis if some were left out.
fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}
