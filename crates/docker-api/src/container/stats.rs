use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use bulkhead_engine::{BlockIoCount, Container, LinkCount, Stats, Status};
use bulkhead_types::Timestamp;
use serde_json::{Value, json};

use crate::Api;
use crate::clock;
use crate::error::{Answer, ApiError};
use crate::lines;
use crate::request::Query;

/// How far two samples are apart.
const PERIOD: Duration = Duration::from_secs(1);

/// `GET /containers/{id}/stats`: a line a second; with `stream=0` one sample with the one a second
/// before it; with `one-shot` too, one sample at once.
pub(crate) async fn stats(
    State(api): State<Api>,
    Path(name): Path<String>,
    query: Query,
) -> Answer {
    let stream = query.flag_or("stream", true);
    if stream && query.flag("one-shot") {
        return Err(ApiError::invalid("cannot have stream=true and one-shot=true"));
    }
    let container = api.engine.container(&name)?;
    if !stream {
        let mut before = None;
        if !query.flag("one-shot") && runs(&container) {
            before = Some(Sample::take(&api, &container).await?);
            tokio::time::sleep(PERIOD).await;
        }
        let now = Sample::take(&api, &container).await?;
        return Ok(axum::Json(view(&container, before.as_ref(), &now)).into_response());
    }
    let first = Sample::take(&api, &container).await?;
    let state = (api, container, None, Some(first));
    let samples = futures_util::stream::unfold(state, |(api, container, before, now)| async move {
        let now = match now {
            Some(now) => now,
            None => {
                tokio::time::sleep(PERIOD).await;
                // The stream ends when the container is gone.
                let container = api.engine.container(&container.id.to_string()).ok()?;
                Sample::take(&api, &container).await.ok()?
            }
        };
        let line = lines::encode(&view(&container, before.as_ref(), &now));
        Some((Ok::<_, Infallible>(line), (api, container, Some(now), None)))
    });
    Ok(lines::body(Body::from_stream(samples)))
}

fn runs(container: &Container) -> bool {
    matches!(container.state.status, Status::Running | Status::Paused)
}

struct Sample {
    at: Option<Timestamp>,
    stats: Stats,
}

impl Sample {
    /// A container that does not run shows zeros, and no time.
    async fn take(api: &Api, container: &Container) -> Result<Self, ApiError> {
        if !runs(container) {
            return Ok(Self { at: None, stats: Stats::default() });
        }
        let stats = api.engine.stats(container.id).await?;
        Ok(Self { at: Some(Timestamp::now()), stats })
    }
}

fn view(container: &Container, before: Option<&Sample>, now: &Sample) -> Value {
    let zero = Stats::default();
    let earlier = before.map_or(&zero, |sample| &sample.stats);
    let stats = &now.stats;
    let mut view = json!({
        "name": format!("/{}", container.name),
        "id": container.id,
        "read": clock::rfc3339(now.at),
        "preread": clock::rfc3339(before.and_then(|sample| sample.at)),
        "pids_stats": { "current": stats.pids, "limit": stats.pids_limit },
        "blkio_stats": {
            "io_service_bytes_recursive": block_io(stats, |count| (count.read_bytes, count.write_bytes)),
            "io_serviced_recursive": block_io(stats, |count| (count.reads, count.writes)),
            "io_queue_recursive": null, "io_service_time_recursive": null,
            "io_wait_time_recursive": null, "io_merged_recursive": null,
            "io_time_recursive": null, "sectors_recursive": null,
        },
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": cpu(stats),
        "precpu_stats": cpu(earlier),
        "memory_stats": memory(stats),
    });
    if !stats.networks.is_empty() {
        let networks = stats.networks.iter().map(|(name, LinkCount { received, sent })| {
            let counters = json!({
                "rx_bytes": received.bytes, "rx_packets": received.packets,
                "rx_errors": received.errors, "rx_dropped": received.dropped,
                "tx_bytes": sent.bytes, "tx_packets": sent.packets,
                "tx_errors": sent.errors, "tx_dropped": sent.dropped,
            });
            (name.clone(), counters)
        });
        view["networks"] = Value::Object(networks.collect());
    }
    view
}

/// As Docker shows it; null where nothing counts.
fn block_io(stats: &Stats, values: impl Fn(&BlockIoCount) -> (u64, u64)) -> Value {
    let Some(counts) = &stats.block_io else { return Value::Null };
    let entries = counts.iter().flat_map(|count| {
        let (read, write) = values(count);
        [("read", read), ("write", write)].map(|(kind, value)| {
            json!({ "major": count.major, "minor": count.minor, "op": kind, "value": value })
        })
    });
    entries.collect()
}

fn cpu(stats: &Stats) -> Value {
    // Zeros where there is no such controller, as in Docker, whose clients know nothing else.
    let throttling = stats.throttling.unwrap_or_default();
    json!({
        "cpu_usage": {
            "total_usage": stats.cpu_total,
            "usage_in_kernelmode": stats.cpu_kernel,
            "usage_in_usermode": stats.cpu_user,
        },
        "system_cpu_usage": stats.cpu_system,
        "online_cpus": stats.online_cpus,
        "throttling_data": {
            "periods": throttling.periods,
            "throttled_periods": throttling.throttled_periods,
            "throttled_time": throttling.throttled_time,
        },
    })
}

/// As Docker shows it; nothing of a container that does not run.
fn memory(stats: &Stats) -> Value {
    let mut view = json!({ "usage": stats.memory_usage, "limit": stats.memory_limit });
    if let Some(peak) = stats.memory_peak {
        view["max_usage"] = json!(peak);
    }
    let mut details = json!(stats.memory_details);
    details["inactive_file"] = json!(stats.memory_inactive_file);
    view["stats"] = details;
    view
}
