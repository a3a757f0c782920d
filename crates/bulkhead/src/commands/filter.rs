//! Filters and moments, from what people write to what the API takes.

use bulkhead_types::Timestamp;
use serde_json::{Map, Value, json};

use crate::client::encode;
use crate::failure::Failure;

/// What people write for a moment, as the API takes it: seconds since the epoch with a fraction.
pub fn moment(text: &str) -> Result<String, Failure> {
    let zone = bulkhead_types::TimeZone::system();
    let moment = bulkhead_types::parse_moment(text, Timestamp::now(), &zone).ok_or_else(|| {
        Failure::new(format!(
            "{text:?} is not a moment: use 10m, 2006-01-02, 2006-01-02T15:04:05Z or seconds since 1970"
        ))
    })?;
    Ok(format!("{}.{:09}", moment.as_second(), moment.subsec_nanosecond()))
}

/// `label=a=b` → `{"label": {"a=b": true}}`, as the docker CLI sends filters.
pub fn map(filters: &[String]) -> Result<Value, Failure> {
    let mut map = Map::new();
    for filter in filters {
        let (name, value) = filter.split_once('=').ok_or_else(|| {
            Failure::new(format!("invalid filter '{filter}': write it as NAME=VALUE"))
        })?;
        let (name, value) = (name.trim().to_lowercase(), value.trim());
        let values = map.entry(name).or_insert_with(|| json!({}));
        values[value] = json!(true);
    }
    Ok(Value::Object(map))
}

/// The `filters` of a query; none is an empty map.
pub fn query(filters: &[String]) -> Result<String, Failure> {
    Ok(format!("filters={}", encode(&map(filters)?.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_one_name_are_together() {
        let given = ["label=a=b", "label!=c", "name=x", "label=d"].map(str::to_owned);
        let expected =
            json!({"label": {"a=b": true, "d": true}, "label!": {"c": true}, "name": {"x": true}});
        assert_eq!(map(&given).map_err(|failure| failure.message), Ok(expected));
        assert!(map(&["name".to_owned()]).is_err());
        assert!(moment("10m").is_ok() && moment("soon").is_err());
    }
}
