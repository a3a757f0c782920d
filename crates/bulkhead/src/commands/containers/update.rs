//! `update`: limits and the restart policy of containers that exist.

use bulkhead_types::parse_size;
use clap::Args;
use serde_json::{Map, Value, json};

use crate::client::{Client, encode};
use crate::commands::run::policy::restart_policy;
use crate::commands::several;
use crate::failure::Failure;

#[derive(Debug, Args)]
pub struct UpdateArguments {
    /// Share of block devices' time beside other containers, from 10 to 1000
    #[arg(long)]
    blkio_weight: Option<u16>,
    /// Microseconds in which --cpu-quota counts
    #[arg(long)]
    cpu_period: Option<i64>,
    /// Microseconds of CPU time in each --cpu-period
    #[arg(long, allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Share of the CPUs beside other containers
    #[arg(short, long)]
    cpu_shares: Option<i64>,
    /// CPUs it may use at most, such as 1.5
    #[arg(long)]
    cpus: Option<f64>,
    /// The CPUs it may run on, such as 0-2,5
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// The memory nodes it may use, such as 0-1
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// Memory it may use at most, such as 512m
    #[arg(short, long)]
    memory: Option<String>,
    /// Memory that is left to it when memory is short
    #[arg(long)]
    memory_reservation: Option<String>,
    /// Memory and swap together; -1 is as much swap as there is
    #[arg(long, allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Processes and threads it may have; -1 is any number
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// When to start it again: no, on-failure[:N], always, unless-stopped
    #[arg(long)]
    restart: Option<String>,
    #[arg(required = true)]
    containers: Vec<String>,
}

pub async fn update(client: &Client, arguments: UpdateArguments) -> Result<(), Failure> {
    let body = body(&arguments)?;
    several::all(&arguments.containers, async |container| {
        let path = format!("/containers/{}/update", encode(container));
        let answer = client.post(&path, Some(&body)).await?;
        several::warn(&answer);
        Ok(container.to_owned())
    })
    .await
}

/// Only what is said: the engine leaves all else as it is.
fn body(arguments: &UpdateArguments) -> Result<Value, Failure> {
    let mut body = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    set("BlkioWeight", arguments.blkio_weight.map(Value::from));
    set("CpuPeriod", arguments.cpu_period.map(Value::from));
    set("CpuQuota", arguments.cpu_quota.map(Value::from));
    set("CpuShares", arguments.cpu_shares.map(Value::from));
    let cpus = arguments.cpus.map(|cpus| match cpus.is_finite() && cpus > 0.0 {
        true => Ok(json!((cpus * 1e9).round() as i64)),
        false => Err(Failure::new(format!(
            "--cpus {cpus} makes no sense: give a number above 0, such as 1.5"
        ))),
    });
    set("NanoCpus", cpus.transpose()?);
    set("CpusetCpus", arguments.cpuset_cpus.as_deref().map(Value::from));
    set("CpusetMems", arguments.cpuset_mems.as_deref().map(Value::from));
    set("Memory", size(arguments.memory.as_deref())?);
    set("MemoryReservation", size(arguments.memory_reservation.as_deref())?);
    set(
        "MemorySwap",
        match arguments.memory_swap.as_deref() {
            Some("-1") => Some(json!(-1)),
            other => size(other)?,
        },
    );
    set("PidsLimit", arguments.pids_limit.map(Value::from));
    if let Some(restart) = &arguments.restart {
        set("RestartPolicy", Some(json!(restart_policy(restart)?)));
    }
    if body.is_empty() {
        return Err(Failure::new("you must provide one or more flags when using this command"));
    }
    Ok(Value::Object(body))
}

/// Bytes.
fn size(flag: Option<&str>) -> Result<Option<Value>, Failure> {
    let Some(flag) = flag else { return Ok(None) };
    let bytes = parse_size(flag).map_err(|cause| Failure::new(cause.to_string()))?;
    let bytes = i64::try_from(bytes)
        .map_err(|_| Failure::new(format!("{flag} is more than there can be")))?;
    Ok(Some(json!(bytes)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: UpdateArguments,
    }

    fn read(line: &str) -> Result<String, String> {
        let line = Line::try_parse_from(line.split(' ')).expect("it parses");
        body(&line.arguments).map(|body| body.to_string()).map_err(|failure| failure.message)
    }

    #[test]
    fn only_what_is_said_is_sent() {
        assert_eq!(
            read("update -m 64m --memory-swap -1 --cpus 1.5 --restart on-failure:3 x").as_deref(),
            Ok("{\"NanoCpus\":1500000000,\"Memory\":67108864,\"MemorySwap\":-1,\
                \"RestartPolicy\":{\"Name\":\"on-failure\",\"MaximumRetryCount\":3}}")
        );
        assert!(read("update x").unwrap_err().contains("one or more flags"));
        assert!(read("update --cpus 0 x").unwrap_err().contains("--cpus 0"));
        assert!(read("update -m much x").is_err());
    }
}
