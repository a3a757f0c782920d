//! `logs`

use std::io::Write as _;

use clap::Args;
use http_body_util::BodyExt;
use hyper::Method;

use crate::client::{Client, encode};
use crate::commands::filter::moment;
use crate::failure::Failure;

#[derive(Debug, Args)]
pub struct LogsArguments {
    /// Show the labels and variables that the log keeps with each line, too
    #[arg(long)]
    details: bool,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Only from then on: 10m, 2006-01-02T15:04:05Z, or seconds since 1970
    #[arg(long)]
    since: Option<String>,
    /// Only the last N lines
    #[arg(short = 'n', long, value_name = "N", default_value = "all", allow_hyphen_values = true)]
    tail: String,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Only up to then: 10m, 2006-01-02T15:04:05Z, or seconds since 1970
    #[arg(long)]
    until: Option<String>,
    container: String,
}

pub async fn logs(client: &Client, arguments: LogsArguments) -> Result<(), Failure> {
    let name = encode(&arguments.container);
    let seen = client.get(&format!("/containers/{name}/json")).await?;
    let tty = seen["Config"]["Tty"].as_bool().unwrap_or(false);
    let mut path = format!(
        "/containers/{name}/logs?stdout=1&stderr=1&follow={}&tail={}&timestamps={}&details={}",
        u8::from(arguments.follow),
        encode(&arguments.tail),
        u8::from(arguments.timestamps),
        u8::from(arguments.details),
    );
    for (word, text) in [("since", &arguments.since), ("until", &arguments.until)] {
        if let Some(text) = text {
            path.push_str(&format!("&{word}={}", moment(text)?));
        }
    }
    let mut body = client.call(Method::GET, &path, None, None).await?.into_body();
    let mut pending = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|cause| Failure::new(format!("the log broke off: {cause}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if tty {
            std::io::stdout().write_all(&data)?;
            std::io::stdout().flush()?;
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
