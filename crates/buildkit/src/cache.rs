//! The cache of steps in BuildKit's words: `buildx du` and `buildx prune`.

use std::collections::BTreeSet;
use std::time::Duration;

use bollard_buildkit_proto::google::protobuf::Timestamp as Wire;
use bollard_buildkit_proto::moby::buildkit::v1::{PruneRequest, UsageRecord};
use bulkhead_build_service::PruneOptions;
use bulkhead_engine::CacheEntry;
use bulkhead_types::{Digest, Timestamp};
use tonic::Status;

use crate::options::refused;

/// A step as a record. What an image has too takes no room of the cache's.
pub(crate) fn record(entry: &CacheEntry) -> UsageRecord {
    UsageRecord {
        id: entry.key.hex(),
        size: entry.size.map_or(-1, |size| size.try_into().unwrap_or(i64::MAX)),
        created_at: entry.step.created.parse().ok().map(wire),
        last_used_at: entry.last_used.map(wire),
        usage_count: entry.uses.try_into().unwrap_or(i64::MAX),
        description: entry.step.description.clone(),
        record_type: "regular".to_owned(),
        shared: !entry.images.is_empty(),
        parents: entry.step.parent.iter().map(Digest::hex).collect(),
        ..UsageRecord::default()
    }
}

/// The records of what was pruned, whose sizes are what has come free: a layer counts once.
pub(crate) fn pruned(entries: &[CacheEntry], keys: &[Digest]) -> Vec<UsageRecord> {
    let mut layers = BTreeSet::new();
    let gone = entries.iter().filter(|entry| keys.contains(&entry.key));
    gone.map(|entry| {
        let mut record = record(entry);
        let layer = entry.step.layer.as_ref().map(|(_, layer)| *layer);
        if record.shared || layer.is_some_and(|layer| !layers.insert(layer)) {
            record.size = 0;
        }
        record
    })
    .collect()
}

fn wire(time: Timestamp) -> Wire {
    let nanoseconds = time.as_nanosecond();
    Wire {
        seconds: i64::try_from(nanoseconds.div_euclid(1_000_000_000)).unwrap_or_default(),
        nanos: i32::try_from(nanoseconds.rem_euclid(1_000_000_000)).unwrap_or_default(),
    }
}

/// What a request is to prune; `None`: nothing fits.
pub(crate) fn options(
    request: &PruneRequest,
    now: Timestamp,
) -> Result<Option<PruneOptions>, Status> {
    let size = |name: &str, value: i64| {
        u64::try_from(value)
            .map_err(|_| Status::invalid_argument(format!("{name}: {value} is negative")))
    };
    let kept = Duration::from_nanos(size("until", request.keep_duration)?);
    let mut options = PruneOptions {
        all: request.all,
        until: (!kept.is_zero()).then(|| now - kept),
        reserved: size("reserved-space", request.reserved_space)?,
        max_used: size("max-used-space", request.max_used_space)?,
        min_free: size("min-free-space", request.min_free_space)?,
        ..PruneOptions::default()
    };
    let filters = request.filter.iter().flat_map(|filter| filter.split(','));
    for filter in filters.filter(|filter| !filter.is_empty()) {
        let (name, value) = match filter.split_once("==").or_else(|| filter.split_once("~=")) {
            Some(pair) => pair,
            None => (filter, "true"),
        };
        let is_true = matches!(value, "true" | "1");
        match name {
            "id" => options.id = Some(value.to_owned()),
            "parents" | "parent" => options.parent = Some(value.to_owned()),
            "description" => options.description = Some(value.to_owned()),
            "shared" => options.shared = Some(is_true),
            "private" => options.shared = Some(!is_true),
            // nothing is in use between two requests, and all steps are of one type
            "inuse" if !is_true => {}
            "type" if value == "regular" => {}
            "inuse" | "type" => return Ok(None),
            _ => return Err(refused(&format!("the filter {filter}"), "leave it out")),
        }
    }
    Ok(Some(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_buildx_asks_to_prune_is_understood() {
        let request = |filter: &str| PruneRequest {
            filter: vec![filter.to_owned()],
            keep_duration: 3_600_000_000_000,
            reserved_space: 5,
            ..PruneRequest::default()
        };
        let now = Timestamp::now();
        let read = |filter: &str| options(&request(filter), now);
        let options = read("id~=ab,private==true").expect("valid").expect("something");
        assert_eq!((options.id.as_deref(), options.shared), (Some("ab"), Some(false)));
        assert_eq!((options.reserved, options.until), (5, Some(now - Duration::from_secs(3600))));
        assert!(read("").expect("valid").is_some());
        for nothing in ["inuse==true", "type==exec.cachemount"] {
            assert!(read(nothing).expect("valid").is_none(), "{nothing}");
        }
        let error = read("bogus==1").expect_err("unknown");
        assert!(error.message().contains("bogus"), "{}", error.message());
    }
}
