//! `ps`

use std::borrow::Cow;

use bulkhead_types::{Timestamp, decimal_size};
use clap::Args;
use hyper::Method;
use serde_json::{Value, json};

use crate::client::{Client, collect};
use crate::commands::show::{self, each, quote, short, shorten, text};
use crate::commands::{filter, ports};
use crate::failure::Failure;
use crate::rows::{self, Kind, Show};
use crate::table;

/// Docker's flags for `ps`.
#[derive(Debug, Args)]
pub struct PsArguments {
    /// Show those that do not run, too
    #[arg(short, long)]
    pub all: bool,
    /// Show ids alone
    #[arg(short, long)]
    pub quiet: bool,
    /// Do not shorten ids and commands
    #[arg(long)]
    pub no_trunc: bool,
    /// Only those that match, such as `name=web` or `status=exited`
    #[arg(short, long)]
    pub filter: Vec<String>,
    /// A Go template, `table` with one, or `json`
    #[arg(long)]
    pub format: Option<String>,
    /// Show the last N created, in whatever state
    #[arg(short = 'n', long, value_name = "N", allow_hyphen_values = true)]
    pub last: Option<i64>,
    /// Show the one created last, in whatever state
    #[arg(short, long)]
    pub latest: bool,
    /// Show how much each has written, too
    #[arg(short, long)]
    pub size: bool,
}

pub const CONTAINERS: Kind = Kind {
    fields: &[
        ("Command", "COMMAND"),
        ("CreatedAt", "CREATED AT"),
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Labels", "LABELS"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Mounts", "MOUNTS"),
        ("Names", "NAMES"),
        ("Networks", "NETWORKS"),
        ("Platform", "PLATFORM"),
        ("Ports", "PORTS"),
        ("RunningFor", "CREATED"),
        ("Size", "SIZE"),
        ("State", "STATE"),
        ("Status", "STATUS"),
    ],
    table: "{{.ID}}\\t{{.Image}}\\t{{.Command}}\\t{{.RunningFor}}\\t{{.Status}}\\t{{.Ports}}\\t{{.Names}}",
};

const WITH_SIZES: Kind = Kind {
    table: "{{.ID}}\\t{{.Image}}\\t{{.Command}}\\t{{.RunningFor}}\\t{{.Status}}\\t{{.Ports}}\\t{{.Names}}\\t{{.Size}}",
    ..CONTAINERS
};

pub async fn list(client: &Client, arguments: PsArguments) -> Result<(), Failure> {
    let PsArguments { all, quiet, no_trunc, filter, format, last, latest, size } = arguments;
    let last = if latest { Some(1) } else { last };
    let format = format.as_deref().filter(|_| !quiet);
    let size =
        size || format.is_some_and(|format| format.contains(".Size") || format == "{{json .}}");
    let mut query = format!("?all={}", u8::from(all || last.is_some()));
    if let Some(last) = last.filter(|last| *last > 0) {
        query.push_str(&format!("&limit={last}"));
    }
    if !filter.is_empty() {
        query.push_str(&format!("&{}", filter::query(&filter)?));
    }
    if size {
        query.push_str("&size=1");
    }
    if format.is_some() || (size && !quiet) {
        let containers = client.get(&format!("/containers/json{query}")).await?;
        let rows = each(&containers).map(|container| row(container, no_trunc, size)).collect();
        let kind = if size { &WITH_SIZES } else { &CONTAINERS };
        return rows::print(kind, Show::Format(format), rows);
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
        table::show(&ids.fold(String::new(), |lines, id| lines + id + "\n"));
        return Ok(());
    }
    let titles = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
    let now = Timestamp::now();
    let rows: Vec<Vec<String>> = listed.into_iter().map(|one| one.cells(now, no_trunc)).collect();
    table::print(&titles, &rows);
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
    ports: Option<Vec<ports::Port>>,
    names: Vec<String>,
}

impl Listed<'_> {
    fn cells(self, now: Timestamp, no_trunc: bool) -> Vec<String> {
        vec![
            show::id(&self.id, no_trunc),
            shown_image(&self.image, no_trunc).to_owned(),
            shown_command(&self.command, no_trunc),
            show::since(self.created, now),
            self.status.into_owned(),
            ports::shown(self.ports.unwrap_or_default()),
            shown_names(self.names.iter().map(String::as_str), no_trunc),
        ]
    }
}

/// What Docker's templates for `ps` know (docker/cli: cli/command/formatter/container.go).
pub fn row(container: &Value, no_trunc: bool, size: bool) -> Value {
    let created = container["Created"].as_i64().unwrap_or_default();
    let names = each(&container["Names"]).filter_map(Value::as_str);
    let published: Option<Vec<ports::Port>> =
        serde_json::from_value(container["Ports"].clone()).unwrap_or_default();
    let mounts: Vec<String> = each(&container["Mounts"])
        .map(|mount| match text(&mount["Name"]) {
            name if name.is_empty() => text(&mount["Source"]),
            name => name,
        })
        .map(|name| if no_trunc { name } else { shorten(&name, 15) })
        .collect();
    let local = each(&container["Mounts"]).filter(|mount| mount["Driver"] == "local").count();
    let networks = container["NetworkSettings"]["Networks"].as_object();
    let networks: Vec<&str> =
        networks.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    json!({
        "ID": show::id(&text(&container["Id"]), no_trunc),
        "Image": shown_image(&text(&container["Image"]), no_trunc),
        "Command": shown_command(&text(&container["Command"]), no_trunc),
        "CreatedAt": show::moment(created),
        "RunningFor": show::since(created, Timestamp::now()),
        "State": container["State"],
        "Status": container["Status"],
        "Ports": ports::shown(published.unwrap_or_default()),
        "Names": shown_names(names, no_trunc),
        "Labels": show::labels(&container["Labels"]),
        rows::LABELS: container["Labels"],
        "Networks": networks.join(","),
        // of an image with several, which there are none of here
        "Platform": null,
        "Mounts": mounts.join(","),
        "LocalVolumes": local.to_string(),
        "Size": if size { written(container) } else { "0B".to_owned() },
    })
}

/// What the container has written, and what its image has besides.
fn written(container: &Value) -> String {
    let size = |name: &str| container[name].as_u64().unwrap_or_default();
    let written = decimal_size(size("SizeRw"));
    match size("SizeRootFs") {
        0 => written,
        whole => format!("{written} (virtual {})", decimal_size(whole)),
    }
}

/// A digest says nothing to people where there is a name before it.
fn shown_image(image: &str, no_trunc: bool) -> &str {
    match image.split_once('@') {
        Some((name, _)) if !no_trunc && !name.is_empty() => name,
        _ => image,
    }
}

fn shown_command(command: &str, no_trunc: bool) -> String {
    if no_trunc { quote(command) } else { quote(&shorten(command, 20)) }
}

/// The first name that is no link's of another container, or all.
fn shown_names<'a>(names: impl Iterator<Item = &'a str>, no_trunc: bool) -> String {
    let mut names = names.map(|name| name.strip_prefix('/').unwrap_or(name));
    match no_trunc {
        true => names.collect::<Vec<_>>().join(","),
        false => names.find(|name| !name.contains('/')).unwrap_or_default().to_owned(),
    }
}
