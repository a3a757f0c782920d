//! Commands about the engine and about anything by name.

use hyper::Method;
use serde_json::Value;

use super::containers::{filter_map, moment, text};
use crate::client::{Client, each_json, encode};
use crate::failure::Failure;
use crate::terminal::printable;
use crate::{table, template};

/// Containers first, then images, networks and volumes, as `docker inspect` looks.
pub async fn inspect(
    client: &Client,
    format: Option<&str>,
    kind: Option<&str>,
    names: &[String],
) -> Result<(), Failure> {
    let kinds: &[(&str, &str)] = &[
        ("container", "/containers/{}/json"),
        ("image", "/images/{}/json"),
        ("network", "/networks/{}"),
        ("volume", "/volumes/{}"),
    ];
    let kinds: Vec<&(&str, &str)> =
        kinds.iter().filter(|(name, _)| kind.is_none_or(|kind| kind == *name)).collect();
    if kinds.is_empty() {
        return Err(Failure::new(format!(
            "{:?} is not a type to inspect: use container, image, network or volume",
            kind.unwrap_or_default()
        )));
    }
    let mut found = Vec::new();
    let mut missing = false;
    for name in names {
        let mut object = None;
        for (_, path) in &kinds {
            let name = encode(name).replace("%2F", "/").replace("%3A", ":").replace("%40", "@");
            match client.get(&path.replace("{}", &name)).await {
                Ok(value) => {
                    object = Some(value);
                    break;
                }
                Err(failure) if matches!(failure.status, Some(400 | 404)) => {}
                Err(failure) => return Err(failure),
            }
        }
        match object {
            Some(object) => found.push(object),
            None => {
                missing = true;
                eprintln!("Error: No such {}: {name}", kind.unwrap_or("object"));
            }
        }
    }
    match format {
        Some(format) => found.iter().try_for_each(|object| template::print(format, object))?,
        None => println!(
            "{}",
            serde_json::to_string_pretty(&found)
                .map_err(|cause| Failure::new(cause.to_string()))?
        ),
    }
    if missing { Err(Failure::silent(1)) } else { Ok(()) }
}

pub async fn volumes(client: &Client, format: Option<&str>) -> Result<(), Failure> {
    let answer = client.get("/volumes").await?;
    let volumes = answer["Volumes"].as_array().into_iter().flatten();
    if let Some(format) = format {
        let rows: Vec<Value> = volumes.cloned().collect();
        let fields = ["Name", "Driver", "Mountpoint", "Scope", "Labels", "Options", "CreatedAt"];
        let sample = fields.iter().map(|field| ((*field).to_owned(), Value::Null));
        return template::print_rows(format, &rows, &Value::Object(sample.collect()));
    }
    table::print(
        &["DRIVER", "VOLUME NAME"],
        volumes.map(|volume| vec![text(&volume["Driver"]), text(&volume["Name"])]).collect(),
    );
    Ok(())
}

pub async fn events(
    client: &Client,
    since: Option<&str>,
    until: Option<&str>,
    filters: &[String],
    format: Option<&str>,
) -> Result<(), Failure> {
    let mut query = Vec::new();
    for (name, text) in [("since", since), ("until", until)] {
        if let Some(text) = text {
            query.push(format!("{name}={}", moment(text)?));
        }
    }
    if !filters.is_empty() {
        query.push(format!("filters={}", encode(&filter_map(filters)?.to_string())));
    }
    let response =
        client.call(Method::GET, &format!("/events?{}", query.join("&")), None, None).await?;
    each_json(response, |event| {
        if let Some(format) = format {
            return template::print(format, &event);
        }
        let nanoseconds = i128::from(event["timeNano"].as_i64().unwrap_or_default());
        let at = bulkhead_types::Timestamp::from_nanosecond(nanoseconds)
            .map(|at| at.to_string())
            .unwrap_or_default();
        let attributes: Vec<String> = event["Actor"]["Attributes"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| format!("{name}={}", text(value)))
            .collect();
        let (kind, action, actor) =
            (text(&event["Type"]), text(&event["Action"]), text(&event["Actor"]["ID"]));
        let line = format!("{at} {kind} {action} {actor} ({})", attributes.join(", "));
        println!("{}", printable(&line));
        Ok(())
    })
    .await
}

pub async fn info(client: &Client, format: Option<&str>) -> Result<(), Failure> {
    let info = client.get("/info").await?;
    if let Some(format) = format {
        return template::print(format, &info);
    }
    for (title, field) in [
        ("Containers", "Containers"),
        (" Running", "ContainersRunning"),
        (" Paused", "ContainersPaused"),
        (" Stopped", "ContainersStopped"),
        ("Images", "Images"),
        ("Server Version", "ServerVersion"),
        ("Storage Driver", "Driver"),
        ("Cgroup Version", "CgroupVersion"),
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
        ("Total Memory", "MemTotal"),
        ("Name", "Name"),
        ("Data Directory", "DockerRootDir"),
    ] {
        let value = match (field, info[field].as_u64()) {
            ("MemTotal", Some(bytes)) => bulkhead_types::binary_size(bytes),
            _ => text(&info[field]),
        };
        println!("{title}: {}", printable(&value));
    }
    Ok(())
}

pub async fn version(client: &Client, format: Option<&str>) -> Result<(), Failure> {
    let mine = serde_json::json!({"Version": env!("CARGO_PKG_VERSION"), "Os": "linux", "Arch": bulkhead_types::image::Platform::host().architecture});
    let server = client.get("/version").await;
    let both = serde_json::json!({"Client": mine, "Server": server.as_ref().ok()});
    if let Some(format) = format {
        return template::print(format, &both);
    }
    println!("Client:\n Version: {}", text(&both["Client"]["Version"]));
    let server: Value = server?;
    println!("Server:");
    for (title, field) in
        [("Version", "Version"), ("API version", "ApiVersion"), ("Kernel", "KernelVersion")]
    {
        println!(" {title}: {}", text(&server[field]));
    }
    Ok(())
}
