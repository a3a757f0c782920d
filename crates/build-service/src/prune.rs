//! Which steps of the cache go: a pure function of what is there and what was asked for.

use std::collections::BTreeMap;

use bulkhead_engine::CacheEntry;
use bulkhead_types::{Digest, Timestamp};

/// What a prune of the build cache is to remove. All conditions hold together; the default removes
/// every step whose layer no image has.
#[derive(Debug, Clone, Default)]
pub struct PruneOptions {
    /// Also steps whose layers images have. It frees nothing now, and their next build is done anew.
    pub all: bool,
    /// Only what was made or used last before this.
    pub until: Option<Timestamp>,
    /// Only steps whose key starts with these hexadecimal digits.
    pub id: Option<String>,
    /// Only steps that stand on the one with such a key.
    pub parent: Option<String>,
    /// Only steps of this text.
    pub description: Option<String>,
    /// Whether an image has the step's layer too.
    pub shared: Option<bool>,
    /// Bytes that the cache may keep in any case.
    pub reserved: u64,
    /// Bytes that the cache may have afterwards; 0 for no limit of this kind.
    pub max_used: u64,
    /// Bytes that are to be free on the disk afterwards; 0 for no limit of this kind.
    pub min_free: u64,
}

/// Chooses, oldest use first. `free` are the disk's bytes now.
///
/// The sizes work together as BuildKit's do (its cache/manager.go, `calculateKeepBytes`): without
/// any everything chosen goes; with some, only until the cache is small enough.
pub(crate) fn choose(entries: &[CacheEntry], options: &PruneOptions, free: u64) -> Vec<Digest> {
    let mut candidates: Vec<&CacheEntry> =
        entries.iter().filter(|entry| fits(entry, options)).collect();
    candidates.sort_by_key(|entry| (last_used(entry), entry.uses, entry.key));
    // A layer takes its room as long as one of its steps is there.
    let mut holders: BTreeMap<Digest, (usize, u64)> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.images.is_empty()) {
        if let Some((_, layer)) = entry.step.layer {
            let holder = holders.entry(layer).or_insert((0, entry.size.unwrap_or(0)));
            holder.0 += 1;
        }
    }
    let mut total: u64 = holders.values().map(|(_, size)| size).sum();
    let keep = bytes_to_keep(total, options, free);
    let mut chosen = Vec::new();
    for entry in candidates {
        if keep.is_some_and(|keep| total <= keep) {
            break;
        }
        chosen.push(entry.key);
        let layer = entry.step.layer.as_ref().map(|(_, layer)| layer);
        if let Some((count, size)) = layer.and_then(|layer| holders.get_mut(layer)) {
            *count -= 1;
            if *count == 0 {
                total -= *size;
            }
        }
    }
    chosen
}

/// `None`: no size was asked for.
fn bytes_to_keep(total: u64, options: &PruneOptions, free: u64) -> Option<u64> {
    let PruneOptions { reserved, max_used, min_free, .. } = *options;
    if (reserved, max_used, min_free) == (0, 0, 0) {
        return None;
    }
    let limit = (max_used != 0).then_some(max_used);
    let missing = min_free.saturating_sub(free);
    let for_disk = (missing > 0).then(|| total.saturating_sub(missing));
    let keep = match (limit, for_disk) {
        (Some(one), Some(other)) => one.min(other),
        (Some(one), None) | (None, Some(one)) => one,
        // There is room enough on the disk, and nothing else limits the cache.
        (None, None) if min_free != 0 => total,
        (None, None) => 0,
    };
    Some(keep.max(reserved))
}

fn fits(entry: &CacheEntry, options: &PruneOptions) -> bool {
    let starts = |key: Option<Digest>, wanted: &str| {
        let digits = wanted.strip_prefix("sha256:").unwrap_or(wanted);
        key.is_some_and(|key| key.hex().starts_with(digits))
    };
    let shared = !entry.images.is_empty();
    (options.all || !shared)
        && options.until.is_none_or(|until| last_used(entry).is_none_or(|used| used < until))
        && options.id.as_ref().is_none_or(|id| starts(Some(entry.key), id))
        && options.parent.as_ref().is_none_or(|parent| starts(entry.step.parent, parent))
        && options.description.as_ref().is_none_or(|text| *text == entry.step.description)
        && options.shared.is_none_or(|wanted| wanted == shared)
}

/// When a step was last of use; unknown of those that an old version stored.
fn last_used(entry: &CacheEntry) -> Option<Timestamp> {
    entry.last_used.or_else(|| entry.step.created.parse().ok())
}

#[cfg(test)]
mod tests {
    use bulkhead_engine::CachedStep;
    use bulkhead_types::image::Descriptor;

    use super::*;

    /// A step of the given age in hours with a layer of its own, or with the one named.
    fn entry(name: &str, layer: &str, size: u64, hours: i64, shared: bool) -> CacheEntry {
        let layer = Digest::of(layer.as_bytes());
        let descriptor: Descriptor = serde_json::from_value(serde_json::json!({
            "mediaType": "x", "digest": layer, "size": size,
        }))
        .expect("a descriptor");
        CacheEntry {
            key: Digest::of(name.as_bytes()),
            step: CachedStep {
                layer: Some((descriptor, layer)),
                created: Timestamp::UNIX_EPOCH.to_string(),
                description: name.to_owned(),
                parent: Some(Digest::of(b"parent")),
            },
            size: Some(size),
            last_used: Timestamp::from_second((100 - hours) * 3600).ok(),
            uses: 1,
            images: if shared { vec![Digest::of(b"image")] } else { Vec::new() },
        }
    }

    fn chosen(options: &PruneOptions, free: u64) -> Vec<String> {
        let entries = [
            entry("new", "1", 10, 1, false),
            entry("old", "2", 20, 9, false),
            entry("middle", "3", 30, 5, false),
            entry("twin", "3", 30, 3, false),
            entry("shared", "4", 40, 7, true),
        ];
        let name = |key: &Digest| {
            let found = entries.iter().find(|entry| entry.key == *key).expect("one of them");
            found.step.description.clone()
        };
        choose(&entries, options, free).iter().map(name).collect()
    }

    #[test]
    fn conditions_hold_together() {
        let base = PruneOptions::default;
        let until = Timestamp::from_second(96 * 3600).ok();
        let key = Digest::of(b"middle").hex()[..9].to_owned();
        let parent = Some(Digest::of(b"parent").to_string());
        for (options, want) in [
            (base(), &["old", "middle", "twin", "new"][..]),
            (PruneOptions { all: true, ..base() }, &["old", "shared", "middle", "twin", "new"]),
            (PruneOptions { until, ..base() }, &["old", "middle"]),
            (PruneOptions { id: Some(key), ..base() }, &["middle"]),
            (PruneOptions { parent, until, ..base() }, &["old", "middle"]),
            (PruneOptions { parent: Some("00".to_owned()), ..base() }, &[]),
            (PruneOptions { description: Some("new".to_owned()), ..base() }, &["new"]),
            (PruneOptions { shared: Some(true), ..base() }, &[]),
            (PruneOptions { shared: Some(true), all: true, ..base() }, &["shared"]),
        ] {
            assert_eq!(chosen(&options, 0), want, "{options:?}");
        }
    }

    #[test]
    fn sizes_say_when_to_stop() {
        // The cache takes 60 of its own: 10, 20 and one layer of 30 that two steps have.
        for (reserved, max_used, min_free, free, want) in [
            (60, 0, 0, 0, &[][..]),
            (40, 0, 0, 0, &["old"]),
            (39, 0, 0, 0, &["old", "middle", "twin"]),
            (0, 40, 0, 0, &["old"]),
            (50, 10, 0, 0, &["old"]),
            (0, 0, 100, 100, &[]),
            (0, 0, 100, 81, &["old"]),
            (0, 60, 100, 79, &["old", "middle", "twin"]),
            (0, 1, 0, 0, &["old", "middle", "twin", "new"]),
        ] {
            let options = PruneOptions { reserved, max_used, min_free, ..PruneOptions::default() };
            assert_eq!(chosen(&options, free), want, "{options:?} {free}");
        }
    }
}
