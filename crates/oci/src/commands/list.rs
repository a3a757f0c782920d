use std::io::Write;

use bulkhead_types::oci::Status;
use serde_json::json;

use super::state::owner;
use crate::arguments::{Command, Global};
use crate::directory::Directory;
use crate::error::{Error, Result};

pub fn run(global: &Global, command: &Command) -> Result<u8> {
    let mut rows = Vec::new();
    for id in Directory::ids(&global.root)? {
        // removed since it was listed
        let Ok(directory) = Directory::open(&global.root, &id) else { continue };
        let (Ok((record, status)), Ok(config)) = (directory.look(), directory.config()) else {
            continue;
        };
        let mut row = json!({ "ociVersion": "", "id": id, "pid": 0, "status": status.name(), "bundle": "", "rootfs": "", "created": "", "owner": "" });
        if let Some(record) = &record {
            let state = record.state(status, &config);
            row["ociVersion"] = json!(state.oci_version);
            row["pid"] = json!(state.pid);
            row["bundle"] = json!(state.bundle);
            row["rootfs"] = json!(record.rootfs);
            row["created"] = json!(record.created);
            row["annotations"] = json!(state.annotations);
            row["owner"] = json!(owner(&record.owner));
        }
        rows.push((status, row));
    }
    let text = if command.has("quiet") {
        rows.iter().map(|(_, row)| format!("{}\n", row["id"].as_str().unwrap_or(""))).collect()
    } else {
        match command.value("format").unwrap_or("table") {
            "json" => {
                let rows: Vec<_> = rows.iter().map(|(_, row)| row).collect();
                format!("{}\n", json!(rows))
            }
            "table" => table(&rows),
            other => {
                let text = format!("invalid format option {other:?}: use table or json");
                return Err(Error::Usage(text));
            }
        }
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(Error::system("write to standard output"))?;
    Ok(0)
}

fn table(rows: &[(Status, serde_json::Value)]) -> String {
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let mut lines = vec![header];
    lines.extend(rows.iter().map(|(_, row)| {
        ["id", "pid", "status", "bundle", "created", "owner"].map(|key| match &row[key] {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }));
    columns(&lines)
}

/// Lays out text in columns, three spaces apart and twelve wide at least, as runc does.
pub fn columns<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |column: usize| {
        let longest = lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        (longest + 3).max(12)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<String>().trim_end());
        text.push('\n');
    }
    text
}
