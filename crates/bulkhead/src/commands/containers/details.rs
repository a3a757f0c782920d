//! What a container is made of: its ports, its changed files, its processes, itself as an archive or
//! an image.

use std::io::{IsTerminal, Write as _};
use std::path::PathBuf;

use clap::Args;
use hyper::Method;
use serde_json::Value;

use crate::client::{Client, encode};
use crate::commands::ports::{address, natural};
use crate::commands::show::{each, text};
use crate::commands::transfer;
use crate::failure::Failure;
use crate::table;
use crate::terminal::printable;

#[derive(Debug, Args)]
pub struct PortArguments {
    container: String,
    /// A port of the container, with or without `/tcp` or `/udp`
    port: Option<String>,
}

/// `CONTAINER PORT -> HOST`, or where one port is published.
pub async fn port(client: &Client, arguments: PortArguments) -> Result<(), Failure> {
    let PortArguments { container, port } = arguments;
    let seen = client.get(&format!("/containers/{}/json", encode(&container))).await?;
    let ports = &seen["NetworkSettings"]["Ports"];
    let published =
        |binding: &Value| address(&text(&binding["HostIp"]), &text(&binding["HostPort"]));
    let mut lines: Vec<String> = match &port {
        None => ports
            .as_object()
            .into_iter()
            .flatten()
            .flat_map(|(port, bindings)| {
                each(bindings).map(move |binding| format!("{port} -> {}", published(binding)))
            })
            .collect(),
        Some(wanted) => {
            let (number, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
            number
                .parse::<u16>()
                .map_err(|_| Failure::new(format!("Error: invalid port ({number})")))?;
            each(&ports[format!("{number}/{protocol}")]).map(published).collect()
        }
    };
    if let (Some(port), true) = (&port, lines.is_empty()) {
        return Err(Failure::new(format!(
            "Error: No public port '{port}' published for {container}"
        )));
    }
    lines.sort_by(|one, other| natural(one, other));
    table::show(&lines.iter().map(|line| format!("{line}\n")).collect::<String>());
    Ok(())
}

/// `A` for what was added, `C` changed, `D` deleted.
pub async fn diff(client: &Client, container: &str) -> Result<(), Failure> {
    let changes = client.get(&format!("/containers/{}/changes", encode(container))).await?;
    let line = |change: &Value| {
        let kind = match change["Kind"].as_u64() {
            Some(0) => 'C',
            Some(1) => 'A',
            Some(2) => 'D',
            _ => '?',
        };
        format!("{kind} {}\n", printable(&text(&change["Path"])))
    };
    table::show(&each(&changes).map(line).collect::<String>());
    Ok(())
}

#[derive(Debug, Args)]
pub struct TopArguments {
    container: String,
    /// Options of ps(1), such as `-o pid,args`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

pub async fn top(client: &Client, arguments: TopArguments) -> Result<(), Failure> {
    let mut path = format!("/containers/{}/top", encode(&arguments.container));
    if !arguments.options.is_empty() {
        path.push_str(&format!("?ps_args={}", encode(&arguments.options.join(" "))));
    }
    let top = client.get(&path).await?;
    let line = |cells: &Value| {
        let cells: Vec<String> =
            each(cells).map(|cell| printable(&text(cell).replace('\t', " "))).collect();
        cells.join("\t")
    };
    let mut lines = vec![line(&top["Titles"])];
    lines.extend(each(&top["Processes"]).map(line));
    table::show(&table::align(&lines.join("\n"), table::PROCESSES));
    Ok(())
}

#[derive(Debug, Args)]
pub struct ExportArguments {
    /// Write to a file and not to standard output
    #[arg(short, long)]
    output: Option<PathBuf>,
    container: String,
}

pub async fn export(client: &Client, arguments: ExportArguments) -> Result<(), Failure> {
    if arguments.output.is_none() && std::io::stdout().is_terminal() {
        return Err(Failure::new(
            "an archive is nothing for a terminal: say --output FILE, or redirect",
        ));
    }
    let path = format!("/containers/{}/export", encode(&arguments.container));
    let answer = client.call(Method::GET, &path, None, None).await?;
    transfer::save(answer, arguments.output.as_deref(), "Exporting").await
}

#[derive(Debug, Args)]
pub struct CommitArguments {
    /// Who made the image
    #[arg(short, long, default_value = "", hide_default_value = true)]
    author: String,
    /// Apply an instruction of a Dockerfile, such as `CMD ["sh"]`
    #[arg(short, long)]
    change: Vec<String>,
    /// What the image is for
    #[arg(short, long, default_value = "", hide_default_value = true)]
    message: String,
    /// Pause the container meanwhile [default: true]
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pause: Option<bool>,
    container: String,
    /// The image's name and tag
    reference: Option<String>,
}

pub async fn commit(client: &Client, arguments: CommitArguments) -> Result<(), Failure> {
    let mut path = format!(
        "/commit?container={}&author={}&comment={}&pause={}",
        encode(&arguments.container),
        encode(&arguments.author),
        encode(&arguments.message),
        u8::from(arguments.pause.unwrap_or(true)),
    );
    if let Some(reference) = &arguments.reference {
        let (repository, tag) = transfer::repository_and_tag(reference)?;
        path.push_str(&format!("&repo={}&tag={}", encode(&repository), encode(&tag)));
    }
    for change in &arguments.change {
        path.push_str(&format!("&changes={}", encode(change)));
    }
    let made = client.post(&path, Some(&serde_json::json!({}))).await?;
    writeln!(std::io::stdout(), "{}", text(&made["Id"]))?;
    Ok(())
}
