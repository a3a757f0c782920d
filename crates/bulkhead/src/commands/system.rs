//! Commands about the engine itself.

use std::io::{IsTerminal, Write as _};

use bulkhead_types::image::Platform;
use bulkhead_types::{TimeZone, Timestamp, binary_size};
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use super::disk::{self, DfArguments};
use super::filter;
use super::prune::{self, SystemPruneArguments};
use super::show::{each, text};
use crate::client::{Client, each_json};
use crate::failure::Failure;
use crate::table;
use crate::template;
use crate::terminal::printable;

/// What `docker` has at its top as well as below `system`.
#[derive(Debug, Subcommand)]
pub enum SystemVerb {
    /// Show what happens, as it happens
    Events(EventsArguments),
    /// Show what the engine knows of itself and this machine
    Info {
        /// A Go template, or `json`
        #[arg(short, long)]
        format: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum SystemCommand {
    #[command(flatten)]
    Verb(SystemVerb),
    /// Show what takes how much of the disk
    Df(DfArguments),
    /// Remove all that nobody uses
    Prune(SystemPruneArguments),
}

#[derive(Debug, Args)]
pub struct EventsArguments {
    /// Only those that match, such as `type=container` or `event=die`
    #[arg(short, long)]
    filter: Vec<String>,
    /// A Go template, or `json`
    #[arg(long)]
    format: Option<String>,
    /// From then on: 10m, 2006-01-02T15:04:05Z, or seconds since 1970
    #[arg(long)]
    since: Option<String>,
    /// Up to then: 10m, 2006-01-02T15:04:05Z, or seconds since 1970
    #[arg(long)]
    until: Option<String>,
}

pub async fn verb(client: &Client, verb: SystemVerb) -> Result<(), Failure> {
    match verb {
        SystemVerb::Events(arguments) => events(client, arguments).await,
        SystemVerb::Info { format } => info(client, format.as_deref()).await,
    }
}

pub async fn run(client: &Client, command: SystemCommand) -> Result<(), Failure> {
    match command {
        SystemCommand::Verb(command) => verb(client, command).await,
        SystemCommand::Df(arguments) => disk::usage(client, arguments).await,
        SystemCommand::Prune(arguments) => prune::system(client, arguments).await,
    }
}

/// docker's exit status for a template that makes no sense.
const TEMPLATE: u8 = 64;

async fn events(client: &Client, arguments: EventsArguments) -> Result<(), Failure> {
    let EventsArguments { filter, format, since, until } = arguments;
    let mut query = Vec::new();
    for (name, text) in [("since", since), ("until", until)] {
        if let Some(text) = text {
            query.push(format!("{name}={}", filter::moment(&text)?));
        }
    }
    if !filter.is_empty() {
        query.push(filter::query(&filter)?);
    }
    let format = format.filter(|format| !format.is_empty());
    if let Some(format) = &format {
        // what is wrong with it is told before anything happens
        let nothing = json!({"Type": "", "Action": "", "Actor": {"ID": "", "Attributes": {}}, "scope": "", "time": 0, "timeNano": 0});
        template::check(format, &with_names_of_go(nothing))
            .map_err(|failure| failure.with_code(TEMPLATE))?;
    }
    let response =
        client.call(Method::GET, &format!("/events?{}", query.join("&")), None, None).await?;
    let colour = std::io::stdout().is_terminal();
    each_json(response, |event| {
        match format.as_deref() {
            Some("json") => template::print("json", &as_go_writes_it(event))?,
            Some(format) => template::print(format, &with_names_of_go(event))?,
            None => writeln!(std::io::stdout(), "{}", line(&event, colour))?,
        }
        Ok(())
    })
    .await
}

/// Go writes maps by the names in them, and leaves these out where they are empty.
fn as_go_writes_it(mut event: Value) -> Value {
    if let Some(attributes) = event["Actor"]["Attributes"].as_object_mut() {
        attributes.sort_keys();
    }
    if let Some(fields) = event.as_object_mut() {
        fields.retain(|name, value| {
            !(["status", "id", "from"].contains(&name.as_str()) && value == "")
        });
    }
    event
}

/// docker/cli: cli/command/system/events.go. The kind is coloured on a terminal.
fn line(event: &Value, colour: bool) -> String {
    let nanoseconds = i128::from(event["timeNano"].as_i64().unwrap_or_default());
    let at = Timestamp::from_nanosecond(nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH);
    let zoned = at.to_zoned(TimeZone::system());
    let offset = match zoned.offset().is_zero() {
        true => "Z".to_owned(),
        false => zoned.strftime("%:z").to_string(),
    };
    let moment = zoned.strftime("%Y-%m-%dT%H:%M:%S");
    let at = format!("{moment}.{:09}{offset}", at.subsec_nanosecond());
    let attributes = event["Actor"]["Attributes"].as_object().into_iter().flatten();
    let mut attributes: Vec<String> =
        attributes.map(|(name, value)| format!("{name}={}", text(value))).collect();
    attributes.sort();
    let attributes = match attributes.is_empty() {
        true => String::new(),
        false => format!(" ({})", attributes.join(", ")),
    };
    let (kind, action, actor) =
        (text(&event["Type"]), text(&event["Action"]), text(&event["Actor"]["ID"]));
    let rest = printable(&format!("{action} {actor}{attributes}"));
    match colour {
        true => format!("{at} \x1b[36m{}\x1b[0m {rest}", printable(&kind)),
        false => format!("{at} {} {rest}", printable(&kind)),
    }
}

/// Templates see the fields of Go's structures, whose names are not always those of the JSON.
fn with_names_of_go(mut object: Value) -> Value {
    const NAMES: [(&str, &str); 11] = [
        ("time", "Time"),
        ("timeNano", "TimeNano"),
        ("scope", "Scope"),
        ("id", "ID"),
        ("status", "Status"),
        ("from", "From"),
        ("ApiVersion", "APIVersion"),
        ("MinAPIVersion", "MinAPIVersion"),
        ("HttpProxy", "HTTPProxy"),
        ("HttpsProxy", "HTTPSProxy"),
        ("NEventsListener", "NEventsListener"),
    ];
    for (json, go) in NAMES {
        if let Some(value) = object.get(json).cloned() {
            object[go] = value;
        }
    }
    object
}

async fn info(client: &Client, format: Option<&str>) -> Result<(), Failure> {
    let info = client.get("/info").await?;
    if let Some(format) = format {
        return match format {
            "json" => template::print(format, &info),
            _ => template::print(format, &with_names_of_go(info)),
        }
        .map_err(|failure| failure.with_code(TEMPLATE));
    }
    let mut told = format!(
        "Client:\n Version:    {}\n Context:    {}\n Debug Mode: false\n\nServer:\n",
        env!("CARGO_PKG_VERSION"),
        client.context(),
    );
    told.push_str(&server(&info));
    table::show(&(told + "\n"));
    for warning in each(&info["Warnings"]).filter_map(Value::as_str) {
        eprintln!("{}", printable(warning));
    }
    Ok(())
}

/// docker/cli 28: cli/command/system/info.go
fn server(info: &Value) -> String {
    let mut lines = Vec::new();
    let mut say = |title: &str, value: String| lines.push(format!(" {title}: {value}"));
    let words = |list: &Value| each(list).map(text).collect::<Vec<_>>().join(" ");
    let number = |name: &str| info[name].as_u64().unwrap_or_default().to_string();
    let yes = |name: &str| (info[name] == true).to_string();
    say("Containers", number("Containers"));
    say(" Running", number("ContainersRunning"));
    say(" Paused", number("ContainersPaused"));
    say(" Stopped", number("ContainersStopped"));
    say("Images", number("Images"));
    say("Server Version", text(&info["ServerVersion"]));
    say("Storage Driver", text(&info["Driver"]));
    for pair in each(&info["DriverStatus"]) {
        say(&format!(" {}", text(&pair[0])), text(&pair[1]));
    }
    say("Logging Driver", text(&info["LoggingDriver"]));
    say("Cgroup Driver", text(&info["CgroupDriver"]));
    say("Cgroup Version", text(&info["CgroupVersion"]));
    say("Plugins", String::new());
    for kind in ["Volume", "Network", "Log"] {
        say(&format!(" {kind}"), words(&info["Plugins"][kind]));
    }
    say("Swarm", text(&info["Swarm"]["LocalNodeState"]));
    let runtimes = info["Runtimes"].as_object().into_iter().flatten();
    say("Runtimes", runtimes.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" "));
    say("Default Runtime", text(&info["DefaultRuntime"]));
    for (title, value) in [
        ("Init Binary", &info["InitBinary"]),
        ("containerd version", &info["ContainerdCommit"]["ID"]),
        ("runc version", &info["RuncCommit"]["ID"]),
        ("init version", &info["InitCommit"]["ID"]),
    ] {
        say(title, text(value));
    }
    say("Security Options", String::new());
    for option in each(&info["SecurityOptions"]).filter_map(Value::as_str) {
        for part in option.split(',') {
            match part.split_once('=') {
                Some(("name", name)) => lines.push(format!("  {name}")),
                Some(("profile", profile)) => lines.push(format!("   Profile: {profile}")),
                _ => {}
            }
        }
    }
    let mut say = |title: &str, value: String| lines.push(format!(" {title}: {value}"));
    for (title, name) in [
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
    ] {
        say(title, text(&info[name]));
    }
    say("CPUs", number("NCPU"));
    say("Total Memory", binary_size(info["MemTotal"].as_u64().unwrap_or_default()));
    say("Name", text(&info["Name"]));
    say("ID", text(&info["ID"]));
    say("Docker Root Dir", text(&info["DockerRootDir"]));
    say("Debug Mode", yes("Debug"));
    for (title, name) in
        [("HTTP Proxy", "HttpProxy"), ("HTTPS Proxy", "HttpsProxy"), ("No Proxy", "NoProxy")]
    {
        if info[name].as_str().is_some_and(|proxy| !proxy.is_empty()) {
            say(title, text(&info[name]));
        }
    }
    if each(&info["Labels"]).next().is_some() {
        say("Labels", String::new());
        each(&info["Labels"]).for_each(|label| lines.push(format!("  {}", text(label))));
    }
    lines.push(format!(" Experimental: {}", yes("ExperimentalBuild")));
    let registries = &info["RegistryConfig"];
    let insecure = registries["IndexConfigs"].as_object().into_iter().flatten();
    let insecure =
        insecure.filter(|(_, index)| index["Secure"] == false).map(|(_, index)| &index["Name"]);
    let insecure: Vec<String> =
        insecure.chain(each(&registries["InsecureRegistryCIDRs"])).map(text).collect();
    for (title, list) in [
        ("Insecure Registries", insecure),
        ("Registry Mirrors", each(&registries["Mirrors"]).map(text).collect()),
    ] {
        if !list.is_empty() {
            lines.push(format!(" {title}:"));
            lines.extend(list.iter().map(|one| format!("  {one}")));
        }
    }
    lines.push(format!(" Live Restore Enabled: {}", yes("LiveRestoreEnabled")));
    // Go writes no space behind a title alone
    let lines = lines.iter().map(|line| {
        let line = printable(line);
        let alone = [" Plugins: ", " Security Options: ", " Labels: "].contains(&line.as_str());
        if alone { line.trim_end().to_owned() + "\n" } else { line + "\n" }
    });
    lines.collect()
}

/// The versions of both; an engine that does not answer fails the command behind what is known.
pub async fn version(client: &Client, format: Option<&str>) -> Result<(), Failure> {
    let server = client.get("/version").await;
    let mine = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "ApiVersion": API,
        "DefaultAPIVersion": API,
        "Os": "linux",
        "Arch": Platform::host().architecture,
        "Context": client.context(),
    });
    if let Some(format) = format {
        let both = json!({"Client": mine, "Server": server.as_ref().ok()});
        let both = match format {
            "json" => both,
            _ => json!({
                "Client": with_names_of_go(both["Client"].clone()),
                "Server": with_names_of_go(both["Server"].clone()),
            }),
        };
        template::print(format, &both).map_err(|failure| failure.with_code(TEMPLATE))?;
        return server.map(drop);
    }
    let mut told = format!(
        "Client:\n Version:\t{}\n API version:\t{API}\n OS/Arch:\t{}/{}\n Context:\t{}\n",
        text(&mine["Version"]),
        text(&mine["Os"]),
        text(&mine["Arch"]),
        text(&mine["Context"]),
    );
    if let Ok(server) = &server {
        told.push_str(&format!("\nServer: {}\n", text(&server["Platform"]["Name"])));
        each(&server["Components"]).for_each(|component| told.push_str(&of_component(component)));
    }
    table::show(&table::align(&printable_lines(&told), table::VERSION));
    server.map(drop)
}

/// The version of Docker's API that requests here are of.
const API: &str = "1.51";

fn of_component(component: &Value) -> String {
    let details = &component["Details"];
    let mut lines =
        format!(" {}:\n  Version:\t{}\n", text(&component["Name"]), text(&component["Version"]));
    let api = text(&details["ApiVersion"]);
    for (title, value) in [
        ("API version", format!("{api} (minimum version {})", text(&details["MinAPIVersion"]))),
        ("Go version", text(&details["GoVersion"])),
        ("Git commit", text(&details["GitCommit"])),
        ("Built", text(&details["BuildTime"])),
        ("OS/Arch", format!("{}/{}", text(&details["Os"]), text(&details["Arch"]))),
        ("Experimental", text(&details["Experimental"])),
    ] {
        // another component has no API, and what is not known is not said
        let known = title != "API version" || !api.is_empty();
        if known && !["", "/"].contains(&value.as_str()) {
            lines.push_str(&format!("  {title}:\t{value}\n"));
        }
    }
    lines
}

fn printable_lines(text: &str) -> String {
    text.lines().map(|line| printable(line) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let event = json!({
            "Type": "container", "Action": "die", "timeNano": 1_000_000_007_i64,
            "Actor": {"ID": "0123", "Attributes": {"name": "web", "exitCode": "1"}},
        });
        let shown = line(&event, false);
        assert!(
            shown.ends_with("01.000000007Z container die 0123 (exitCode=1, name=web)")
                || !shown.contains('Z'),
            "{shown}"
        );
        assert!(line(&event, true).contains("\x1b[36mcontainer\x1b[0m die"));
        let named = with_names_of_go(event);
        assert_eq!(named["TimeNano"], 1_000_000_007_i64);
    }
}
