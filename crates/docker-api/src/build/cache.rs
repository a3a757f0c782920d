//! The build cache in Docker's words: `POST /build/prune`, and its part of `GET /system/df`.

use axum::extract::State;
use bulkhead_build_service::{BuildService, PruneOptions};
use bulkhead_engine::CacheEntry;
use serde_json::{Value, json};

use crate::Api;
use crate::clock::NEVER;
use crate::error::{Answer, ApiError};
use crate::filters::Filters;
use crate::request::Query;

pub(super) async fn prune(State(api): State<Api>, query: Query) -> Answer<axum::Json<Value>> {
    let Some(options) = options(&query)? else { return Ok(answer(&[], 0)) };
    let pruned = BuildService::new(api.engine).prune(options).await?;
    let keys: Vec<String> = pruned.keys.iter().map(bulkhead_types::Digest::hex).collect();
    Ok(answer(&keys, pruned.bytes))
}

fn answer(keys: &[String], bytes: u64) -> axum::Json<Value> {
    let deleted = if keys.is_empty() { Value::Null } else { json!(keys) };
    axum::Json(json!({ "CachesDeleted": deleted, "SpaceReclaimed": bytes }))
}

/// What a query asks to prune; `None` is nothing.
///
/// The filters are those of moby (builder/builder-next/builder.go, `cacheFields`).
fn options(query: &Query) -> Result<Option<PruneOptions>, ApiError> {
    let known =
        ["all", "filters", "keep-storage", "reserved-space", "max-used-space", "min-free-space"];
    if let Some(unknown) = query.names().find(|name| !known.contains(name)) {
        return Err(ApiError::invalid(format!(
            "{unknown:?} is no parameter of a prune of the build cache; leave it out"
        )));
    }
    let filters = Filters::from_query(
        query,
        &[
            "description",
            "id",
            "inuse",
            "parent",
            "private",
            "shared",
            "type",
            "unused-for",
            "until",
        ],
    )?;
    let one = |name: &str| match filters.values(name) {
        [] => Ok(None),
        [value] => Ok(Some(value.clone())),
        _ => Err(ApiError::invalid(format!("more than one {name} filter specified"))),
    };
    let until = match (filters.values("until"), filters.values("unused-for")) {
        (_, []) => filters.until()?,
        ([], _) => {
            return Err(ApiError::invalid("the filter unused-for is called until: use that"));
        }
        _ => return Err(ApiError::invalid("unused-for and until are the same filter: use until")),
    };
    // Nothing is in use between two requests, and all steps are of one type.
    let in_use = filters.boolean("inuse")? == Some(true);
    let types = [
        "regular",
        "internal",
        "frontend",
        "source.local",
        "source.git.checkout",
        "exec.cachemount",
    ];
    filters.one_of("type", &types)?;
    let other_type = one("type")?.is_some_and(|kind| kind != "regular");
    let shared = match (filters.boolean("shared")?, filters.boolean("private")?) {
        (Some(shared), Some(private)) if shared == private => return Ok(None),
        (shared, private) => shared.or(private.map(|private| !private)),
    };
    if in_use || other_type {
        return Ok(None);
    }
    let old: u64 = query.number("keep-storage")?.unwrap_or(0);
    let new: u64 = query.number("reserved-space")?.unwrap_or(0);
    Ok(Some(PruneOptions {
        all: query.flag("all"),
        until,
        id: one("id")?,
        parent: one("parent")?,
        description: one("description")?,
        shared,
        // The same under two names, of API 1.47 and before, and after.
        reserved: old.max(new),
        max_used: query.number("max-used-space")?.unwrap_or(0),
        min_free: query.number("min-free-space")?.unwrap_or(0),
    }))
}

/// The cache as `docker system df -v` lists it.
pub(crate) fn views(entries: &[CacheEntry]) -> Vec<Value> {
    entries.iter().map(view).collect()
}

fn view(entry: &CacheEntry) -> Value {
    let created = if entry.step.created.is_empty() { NEVER } else { &entry.step.created };
    let parents: Vec<String> = entry.step.parent.iter().map(bulkhead_types::Digest::hex).collect();
    json!({
        "ID": entry.key.hex(),
        "Parents": if parents.is_empty() { Value::Null } else { json!(parents) },
        "Type": "regular",
        "Description": entry.step.description,
        "InUse": false,
        "Shared": !entry.images.is_empty(),
        // Docker's word for a size that is not known.
        "Size": entry.size.map_or(json!(-1), |size| json!(size)),
        "CreatedAt": created,
        "LastUsedAt": entry.last_used.map(|time| time.to_string()),
        "UsageCount": entry.uses,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Option<PruneOptions>, ApiError> {
        options(&Query::parse(query))
    }

    #[test]
    fn options_are_understood_or_refused_by_name() {
        let options = read(
            "all=1&keep-storage=5&reserved-space=7&max-used-space=8&min-free-space=9&filters=\
             %7B%22id%22:%7B%22ab%22:true%7D,%22until%22:%7B%2224h%22:true%7D,\
             %22private%22:%7B%22true%22:true%7D,%22type%22:%5B%22regular%22%5D%7D",
        );
        let options = options.expect("valid").expect("something");
        assert!(options.all && options.until.is_some());
        assert_eq!((options.reserved, options.max_used, options.min_free), (7, 8, 9));
        assert_eq!((options.id.as_deref(), options.shared), (Some("ab"), Some(false)));
        for nothing in [
            "filters=%7B%22inuse%22:%5B%22true%22%5D%7D",
            "filters=%7B%22type%22:%5B%22frontend%22%5D%7D",
            "filters=%7B%22shared%22:%5B%22true%22%5D,%22private%22:%5B%22true%22%5D%7D",
        ] {
            assert!(read(nothing).expect(nothing).is_none(), "{nothing}");
        }
        for (query, part) in [
            ("bogus=1", "bogus"),
            ("keep-storage=x", "keep-storage"),
            ("filters=%7B%22bogus%22:%5B%221%22%5D%7D", "bogus"),
            ("filters=%7B%22type%22:%5B%22bogus%22%5D%7D", "type=bogus"),
            ("filters=%7B%22until%22:%5B%22bogus%22%5D%7D", "until"),
            ("filters=%7B%22unused-for%22:%5B%221h%22%5D%7D", "use that"),
            ("filters=%7B%22id%22:%5B%221%22,%222%22%5D%7D", "more than one id filter"),
        ] {
            let error = read(query).expect_err(query);
            assert!(error.message.contains(part), "{query}: {}", error.message);
        }
    }
}
