//! `stats`: what containers use, once or again and again.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bulkhead_types::{binary_size, decimal_size};
use clap::Args;
use futures_util::future::join_all;
use hyper::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::client::{Client, each_json, encode};
use crate::commands::several;
use crate::commands::show::{self, each, short, text};
use crate::failure::Failure;
use crate::rows::{self, Kind, Show};

#[derive(Debug, Args)]
pub struct StatsArguments {
    /// Show those that do not run, too
    #[arg(short, long)]
    all: bool,
    /// A Go template, `table` with one, or `json`
    #[arg(long)]
    format: Option<String>,
    /// Show them once and end
    #[arg(long)]
    no_stream: bool,
    /// Show whole ids
    #[arg(long)]
    no_trunc: bool,
    containers: Vec<String>,
}

const STATS: Kind = Kind {
    fields: &[
        ("BlockIO", "BLOCK I/O"),
        ("CPUPerc", "CPU %"),
        ("Container", "CONTAINER"),
        ("ID", "CONTAINER ID"),
        ("MemPerc", "MEM %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("Name", "NAME"),
        ("NetIO", "NET I/O"),
        ("PIDs", "PIDS"),
    ],
    table: "{{.ID}}\\t{{.Name}}\\t{{.CPUPerc}}\\t{{.MemUsage}}\\t{{.MemPerc}}\\t{{.NetIO}}\\t{{.BlockIO}}\\t{{.PIDs}}",
};

pub async fn stats(client: &Client, arguments: StatsArguments) -> Result<(), Failure> {
    if arguments.no_stream {
        return once(client, &arguments).await;
    }
    stream(client, &arguments).await
}

async fn once(client: &Client, arguments: &StatsArguments) -> Result<(), Failure> {
    let names = match arguments.containers.is_empty() {
        true => listed(client, arguments.all).await?,
        false => arguments.containers.clone(),
    };
    let path = |name: &str| format!("/containers/{}/stats?stream=0", encode(name));
    // together: the engine measures each of them for a second
    let samples = join_all(names.iter().map(async |name| client.get(&path(name)).await)).await;
    let (mut rows, mut failed) = (Vec::new(), None);
    for (name, sample) in names.iter().zip(samples) {
        match sample {
            Ok(sample) => rows.push(row(name, &sample, arguments.no_trunc)),
            // removed since it was listed
            Err(failure) if arguments.containers.is_empty() && failure.status == Some(404) => {}
            Err(failure) => several::report(&mut failed, failure),
        }
    }
    match failed {
        Some(failed) => Err(failed),
        None => rows::print(&STATS, Show::Format(arguments.format.as_deref()), rows),
    }
}

/// What is known of each container, in the order in which they came.
#[derive(Debug, Default)]
struct Watched {
    rows: Vec<(String, Option<Value>)>,
    watchers: BTreeMap<String, JoinHandle<()>>,
    failure: Option<Failure>,
}

type Shared = Arc<Mutex<Watched>>;

async fn stream(client: &Client, arguments: &StatsArguments) -> Result<(), Failure> {
    // a template that is wrong is so before anything is waited for
    rows::render(&STATS, Show::Format(arguments.format.as_deref()), Vec::new())?;
    let shared = Shared::default();
    let all_of_them = arguments.containers.is_empty();
    let mut events = None;
    if all_of_them {
        // before the list, so that none is missed between the two
        events = Some(follow(client, &shared, arguments).await?);
        for name in listed(client, arguments.all).await? {
            watch(client, &shared, &name, arguments.no_trunc);
        }
    } else {
        for name in &arguments.containers {
            let path = format!("/containers/{}/json", encode(name));
            client.get(&path).await?;
            watch(client, &shared, name, arguments.no_trunc);
        }
    }
    let terminal = std::io::stdout().is_terminal();
    let mut tick = tokio::time::interval(REDRAWN);
    loop {
        tick.tick().await;
        let (rows, waiting) = {
            let mut watched = shared.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(failure) = watched.failure.take() {
                return Err(failure);
            }
            let known = watched.rows.iter().filter_map(|(_, row)| row.clone());
            (known.collect::<Vec<_>>(), watched.rows.iter().any(|(_, row)| row.is_none()))
        };
        if waiting {
            continue;
        }
        let text = rows::render(&STATS, Show::Format(arguments.format.as_deref()), rows)?;
        std::io::stdout().write_all(if terminal { redraw(&text) } else { text }.as_bytes())?;
        std::io::stdout().flush()?;
        let ended = events.as_ref().is_some_and(JoinHandle::is_finished);
        let none = shared.lock().unwrap_or_else(PoisonError::into_inner).rows.is_empty();
        if ended || (none && !all_of_them) {
            return Ok(());
        }
    }
}

const REDRAWN: Duration = Duration::from_millis(500);

/// Writes over what is there: from the top, each line to its end, and nothing below.
fn redraw(text: &str) -> String {
    let lines: String = text.lines().map(|line| format!("{line}\x1b[K\n")).collect();
    format!("\x1b[H{lines}\x1b[J")
}

/// Reads the samples of one container until it is gone.
fn watch(client: &Client, shared: &Shared, name: &str, no_trunc: bool) {
    let mut watched = shared.lock().unwrap_or_else(PoisonError::into_inner);
    if watched.watchers.contains_key(name) {
        return;
    }
    watched.rows.push((name.to_owned(), None));
    let (client, own, shared) = (client.clone(), name.to_owned(), Arc::clone(shared));
    let task = tokio::spawn(async move {
        let path = format!("/containers/{}/stats?stream=1", encode(&own));
        let put = |sample: Value| {
            let mut watched = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let row = row(&own, &sample, no_trunc);
            if let Some(slot) = watched.rows.iter_mut().find(|(name, _)| *name == own) {
                slot.1 = Some(row);
            }
            Ok(())
        };
        let ended = match client.call(Method::GET, &path, None, None).await {
            Ok(answer) => each_json(answer, put).await,
            Err(failure) => Err(failure),
        };
        let mut watched = shared.lock().unwrap_or_else(PoisonError::into_inner);
        watched.rows.retain(|(name, _)| *name != own);
        watched.watchers.remove(&own);
        match ended {
            Err(failure) if failure.status != Some(404) => watched.failure = Some(failure),
            _ => {}
        }
    });
    watched.watchers.insert(name.to_owned(), task);
}

/// Watches those that start, and no more those that end.
async fn follow(
    client: &Client,
    shared: &Shared,
    arguments: &StatsArguments,
) -> Result<JoinHandle<()>, Failure> {
    let filters = json!({"type": {"container": true}}).to_string();
    let path = format!("/events?filters={}", encode(&filters));
    let events = client.call(Method::GET, &path, None, None).await?;
    let (all, no_trunc) = (arguments.all, arguments.no_trunc);
    let (client, shared) = (client.clone(), Arc::clone(shared));
    Ok(tokio::spawn(async move {
        let seen = each_json(events, |event| {
            let id = text(&event["Actor"]["ID"]);
            match event["Action"].as_str() {
                Some("create") if all => watch(&client, &shared, &id, no_trunc),
                Some("start") => watch(&client, &shared, &id, no_trunc),
                Some("die") if !all => forget(&shared, &id),
                Some("destroy") => forget(&shared, &id),
                _ => {}
            }
            Ok(())
        });
        // the engine went away, which the containers' own streams tell as well
        let _ = seen.await;
    }))
}

fn forget(shared: &Shared, name: &str) {
    let mut watched = shared.lock().unwrap_or_else(PoisonError::into_inner);
    watched.rows.retain(|(own, _)| own != name);
    if let Some(task) = watched.watchers.remove(name) {
        task.abort();
    }
}

async fn listed(client: &Client, all: bool) -> Result<Vec<String>, Failure> {
    let containers = client.get(&format!("/containers/json?all={}", u8::from(all))).await?;
    Ok(each(&containers).map(|container| text(&container["Id"])).collect())
}

/// docker/cli: cli/command/container/stats_helpers.go
fn row(named: &str, sample: &Value, no_trunc: bool) -> Value {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let id = text(&sample["id"]);
    let memory = &sample["memory_stats"];
    let usage = number(&memory["usage"]);
    let file = ["total_inactive_file", "inactive_file"]
        .into_iter()
        .find_map(|name| memory["stats"][name].as_u64())
        .filter(|file| *file < usage)
        .unwrap_or(0);
    let (usage, limit) = (usage - file, number(&memory["limit"]));
    let share = if limit == 0 { 0.0 } else { usage as f64 / limit as f64 * 100.0 };
    let networks = sample["networks"].as_object().into_iter().flatten();
    let network = networks.fold((0, 0), |(received, sent), (_, one)| {
        (received + number(&one["rx_bytes"]), sent + number(&one["tx_bytes"]))
    });
    let blocks = each(&sample["blkio_stats"]["io_service_bytes_recursive"]);
    let blocks = blocks.fold((0, 0), |(read, written), one| {
        match text(&one["op"]).bytes().next().map(|letter| letter.to_ascii_lowercase()) {
            Some(b'r') => (read + number(&one["value"]), written),
            Some(b'w') => (read, written + number(&one["value"])),
            _ => (read, written),
        }
    });
    let pair =
        |(one, other): (u64, u64)| format!("{} / {}", decimal_size(one), decimal_size(other));
    json!({
        "Container": if named == id { short(named) } else { named },
        "ID": show::id(&id, no_trunc),
        "Name": text(&sample["name"]).trim_start_matches('/'),
        "CPUPerc": format!("{:.2}%", processors(sample)),
        "MemUsage": format!("{} / {}", binary_size(usage), binary_size(limit)),
        "MemPerc": format!("{share:.2}%"),
        "NetIO": pair(network),
        "BlockIO": pair(blocks),
        "PIDs": number(&sample["pids_stats"]["current"]).to_string(),
    })
}

/// Per cent of one CPU, between two samples.
fn processors(sample: &Value) -> f64 {
    let (now, before) = (&sample["cpu_stats"], &sample["precpu_stats"]);
    let number = |value: &Value| value.as_u64().unwrap_or_default() as f64;
    let used =
        number(&now["cpu_usage"]["total_usage"]) - number(&before["cpu_usage"]["total_usage"]);
    let all = number(&now["system_cpu_usage"]) - number(&before["system_cpu_usage"]);
    let cpus = match number(&now["online_cpus"]) {
        0.0 => now["cpu_usage"]["percpu_usage"].as_array().map_or(1, Vec::len) as f64,
        cpus => cpus,
    };
    if all > 0.0 && used > 0.0 { used / all * cpus * 100.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_shown_as_docker_shows_it() {
        let sample = json!({
            "id": "0123456789abcdef", "name": "/web",
            "cpu_stats": {"cpu_usage": {"total_usage": 300}, "system_cpu_usage": 2000, "online_cpus": 4},
            "precpu_stats": {"cpu_usage": {"total_usage": 200}, "system_cpu_usage": 1000},
            "memory_stats": {"usage": 3_145_728, "limit": 1_073_741_824, "stats": {"inactive_file": 1_048_576}},
            "networks": {"eth0": {"rx_bytes": 1500, "tx_bytes": 20}, "eth1": {"rx_bytes": 500, "tx_bytes": 0}},
            "blkio_stats": {"io_service_bytes_recursive": [{"op": "Read", "value": 4096}, {"op": "write", "value": 1}]},
            "pids_stats": {"current": 2},
        });
        let shown = rows::render(&STATS, Show::Format(None), vec![row("web", &sample, false)]);
        assert_eq!(
            shown.unwrap(),
            "CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT   MEM %     NET I/O     BLOCK I/O    PIDS\n\
             0123456789ab   web       40.00%    2MiB / 1GiB         0.20%     2kB / 20B   4.1kB / 1B   2\n"
        );
        assert_eq!(redraw("a\nb\n"), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
    }
}
