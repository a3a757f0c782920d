//! How far a transfer of layers is.

use std::collections::HashMap;
use std::io::IsTerminal;

use hyper::Response;
use hyper::body::Incoming;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::client::each_json;
use crate::commands::show::text;
use crate::failure::Failure;
use crate::terminal::printable;

/// Where progress goes: `run` keeps stdout for the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    OnStdout,
    OnStderr,
    Nothing,
}

/// Shows a transfer: bars on a terminal, one line a step elsewhere, as Docker does. Lines that are a
/// `stream` are the engine's last words, and shown as they are.
pub async fn follow(response: Response<Incoming>, show: Show) -> Result<(), Failure> {
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
        if let Some(words) = event["stream"].as_str() {
            last.push(words.lines().map(printable).collect::<Vec<_>>().join("\n"));
            return Ok(());
        }
        let (id, status) = (text(&event["id"]), printable(&text(&event["status"])));
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
