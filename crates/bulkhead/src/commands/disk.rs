//! `system df`: what takes how much of the disk.

use clap::Args;
use serde_json::{Value, json};

use super::containers::list;
use super::images::list as images;
use super::show::{self, each, text};
use super::volumes;
use crate::client::Client;
use crate::failure::Failure;
use crate::rows::{self, Kind, Show};
use crate::{table, template};

#[derive(Debug, Args)]
pub struct DfArguments {
    /// A Go template, `table` with one, or `json`
    #[arg(long)]
    format: Option<String>,
    /// Show each image, container, volume and part of the build cache
    #[arg(short, long)]
    verbose: bool,
}

const USAGE: Kind = Kind {
    fields: &[
        ("Active", "ACTIVE"),
        ("Reclaimable", "RECLAIMABLE"),
        ("Size", "SIZE"),
        ("TotalCount", "TOTAL"),
        ("Type", "TYPE"),
    ],
    table: "{{.Type}}\\t{{.TotalCount}}\\t{{.Active}}\\t{{.Size}}\\t{{.Reclaimable}}",
};

pub async fn usage(client: &Client, arguments: DfArguments) -> Result<(), Failure> {
    let usage = client.get("/system/df").await?;
    match arguments.verbose {
        true => verbose(&usage, arguments.format.as_deref()),
        false => {
            rows::print(&USAGE, Show::Format(arguments.format.as_deref()), summaries(&usage).into())
        }
    }
}

/// docker/cli 28: cli/command/formatter/disk_usage.go
fn summaries(usage: &Value) -> [Value; 4] {
    let number = |value: &Value| value.as_i64().unwrap_or_default();
    let total = |list: &Value, size: fn(&Value) -> i64| each(list).map(size).sum::<i64>();

    let images = &usage["Images"];
    let used = |image: &&Value| number(&image["Containers"]) > 0;
    let layers = number(&usage["LayersSize"]);
    // what images in use share is counted with the first of them
    let kept: i64 = each(images)
        .filter(used)
        .map(|image| match (number(&image["Size"]), number(&image["SharedSize"])) {
            (-1, _) | (_, -1) => 0,
            (size, shared) => size - shared,
        })
        .sum();
    let of_images = summary(
        "Images",
        each(images).count(),
        each(images).filter(used).count(),
        layers,
        layers - kept,
    );

    let containers = &usage["Containers"];
    let active = |one: &&Value| {
        ["running", "paused", "restarting"].contains(&text(&one["State"]).to_lowercase().as_str())
    };
    let written = total(containers, |one| one["SizeRw"].as_i64().unwrap_or_default());
    let idle: i64 =
        each(containers).filter(|one| !active(one)).map(|one| number(&one["SizeRw"])).sum();
    let of_containers = summary(
        "Containers",
        each(containers).count(),
        each(containers).filter(active).count(),
        written,
        idle,
    );

    let volumes = &usage["Volumes"];
    let used = |volume: &&Value| number(&volume["UsageData"]["RefCount"]) > 0;
    let size = |volume: &Value| volume["UsageData"]["Size"].as_i64().unwrap_or_default().max(0);
    let unused = each(volumes).filter(|volume| !used(volume)).map(size).sum();
    let all = each(volumes).map(size).sum();
    let of_volumes = summary(
        "Local Volumes",
        each(volumes).count(),
        each(volumes).filter(used).count(),
        all,
        unused,
    );

    let cache = &usage["BuildCache"];
    let in_use = |part: &&Value| part["InUse"] == true;
    let own = |part: &&Value| part["Shared"] != true;
    let size: i64 = each(cache).filter(own).map(|part| number(&part["Size"])).sum();
    let held: i64 = each(cache).filter(own).filter(in_use).map(|part| number(&part["Size"])).sum();
    let mut of_cache =
        summary("Build Cache", each(cache).count(), each(cache).filter(in_use).count(), size, 0);
    of_cache["Reclaimable"] = json!(show::size((size - held).max(0) as u64));
    [of_images, of_containers, of_volumes, of_cache]
}

fn summary(kind: &str, total: usize, active: usize, bytes: i64, reclaimable: i64) -> Value {
    let shown = show::size(reclaimable.max(0) as u64);
    let reclaimable = match bytes {
        1.. => format!("{shown} ({}%)", reclaimable * 100 / bytes),
        _ => shown,
    };
    json!({
        "Type": kind,
        "TotalCount": total.to_string(),
        "Active": active.to_string(),
        "Size": show::size(bytes.max(0) as u64),
        "Reclaimable": reclaimable,
    })
}

const IMAGES: Kind = Kind {
    table: "{{.Repository}}\\t{{.Tag}}\\t{{.ID}}\\t{{.CreatedSince}}\\t{{.Size}}\\t{{.SharedSize}}\\t{{.UniqueSize}}\\t{{.Containers}}",
    ..images::IMAGES
};
const CONTAINERS: Kind = Kind {
    table: "{{.ID}}\\t{{.Image}}\\t{{.Command}}\\t{{.LocalVolumes}}\\t{{.Size}}\\t{{.RunningFor}}\\t{{.Status}}\\t{{.Names}}",
    ..list::CONTAINERS
};
const VOLUMES: Kind = Kind { table: "{{.Name}}\\t{{.Links}}\\t{{.Size}}", ..volumes::VOLUMES };
const CACHE: Kind = Kind {
    fields: &[
        ("CacheType", "CACHE TYPE"),
        ("CreatedSince", "CREATED"),
        ("Description", "DESCRIPTION"),
        ("ID", "CACHE ID"),
        ("InUse", "IN USE"),
        ("LastUsedSince", "LAST USED"),
        ("Parent", "PARENT"),
        ("Shared", "SHARED"),
        ("Size", "SIZE"),
        ("UsageCount", "USAGE"),
    ],
    table: "{{.ID}}\\t{{.CacheType}}\\t{{.Size}}\\t{{.CreatedSince}}\\t{{.LastUsedSince}}\\t{{.UsageCount}}\\t{{.Shared}}",
};

fn verbose(usage: &Value, format: Option<&str>) -> Result<(), Failure> {
    let no_trunc = format.is_some();
    let images: Vec<Value> =
        each(&usage["Images"]).map(|image| images::first_row(image, no_trunc)).collect();
    let containers: Vec<Value> = each(&usage["Containers"])
        .map(|container| {
            let mut container = container.clone();
            container["SizeRootFs"] = json!(0);
            list::row(&container, no_trunc, true)
        })
        .collect();
    let volumes: Vec<Value> = each(&usage["Volumes"]).map(volumes::row).collect();
    let mut cache: Vec<&Value> = each(&usage["BuildCache"]).collect();
    cache.sort_by_key(|part| (text(&part["LastUsedAt"]), text(&part["ID"])));
    let cache: Vec<Value> = cache.into_iter().map(|part| cached(part, no_trunc)).collect();
    if let Some(format) = format.filter(|format| *format != "table") {
        let mut all = json!({
            "Images": images, "Containers": containers, "Volumes": volumes, "BuildCache": cache,
        });
        for row in all.as_object_mut().into_iter().flat_map(|kinds| kinds.values_mut()) {
            for row in row.as_array_mut().into_iter().flatten() {
                row.as_object_mut().map(|row| row.remove(rows::LABELS));
            }
        }
        // docker ends no line here
        table::show(&template::rendered(format, &all)?);
        return Ok(());
    }
    let shown = Show::Format(None);
    let bytes: u64 = each(&usage["BuildCache"])
        .filter(|part| part["Shared"] != true)
        .filter_map(|part| part["Size"].as_u64())
        .sum();
    table::show(&format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}\n\
         Build cache usage: {}\n\n{}",
        rows::render(&IMAGES, shown, images)?,
        rows::render(&CONTAINERS, shown, containers)?,
        rows::render(&VOLUMES, shown, volumes)?,
        show::size(bytes),
        rows::render(&CACHE, shown, cache)?,
    ));
    Ok(())
}

/// docker/cli: cli/command/formatter/buildcache.go
fn cached(part: &Value, no_trunc: bool) -> Value {
    let now = bulkhead_types::Timestamp::now();
    let since = |moment: &Value| match text(moment).parse::<bulkhead_types::Timestamp>() {
        Ok(at) => format!("{} ago", table::ago(now.duration_since(at).as_secs())),
        Err(_) => String::new(),
    };
    let in_use = part["InUse"] == true;
    let id = show::id(&text(&part["ID"]), no_trunc);
    let parents: Vec<String> = each(&part["Parents"]).map(text).collect();
    json!({
        "ID": if in_use { id + "*" } else { id },
        "Parent": show::id(&parents.join(", "), no_trunc),
        "CacheType": text(&part["Type"]),
        "Size": bulkhead_types::decimal_size(part["Size"].as_u64().unwrap_or_default()),
        "CreatedSince": since(&part["CreatedAt"]),
        "LastUsedSince": since(&part["LastUsedAt"]),
        "UsageCount": part["UsageCount"].as_u64().unwrap_or_default().to_string(),
        "InUse": in_use.to_string(),
        "Shared": (part["Shared"] == true).to_string(),
        "Description": text(&part["Description"]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_go_is_told() {
        let usage = json!({
            "LayersSize": 4000,
            "Images": [
                {"Containers": 1, "Size": 3000, "SharedSize": 0},
                {"Containers": 0, "Size": 1000, "SharedSize": 0},
            ],
            "Containers": [{"State": "running", "SizeRw": 100}, {"State": "exited", "SizeRw": 300}],
            "Volumes": [{"UsageData": {"RefCount": 0, "Size": 50}}, {"UsageData": {"RefCount": 2, "Size": 50}}],
            "BuildCache": [{"Size": 10, "InUse": false, "Shared": false}, {"Size": 20, "InUse": true, "Shared": false}],
        });
        let shown = rows::render(&USAGE, Show::Format(None), summaries(&usage).into()).unwrap();
        assert_eq!(
            shown,
            "TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE\n\
             Images          2         1         4kB       1kB (25%)\n\
             Containers      2         1         400B      300B (75%)\n\
             Local Volumes   2         1         100B      50B (50%)\n\
             Build Cache     2         1         30B       10B\n"
        );
    }
}
