use std::collections::BTreeMap;

use bulkhead_types::{TimeZone, Timestamp, parse_moment};
use regex_lite::Regex;
use serde::Deserialize;

use crate::error::ApiError;
use crate::request::Query;

/// The `filters` parameter: name → values, of which one must match (for labels, all).
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Filters(BTreeMap<String, Vec<String>>);

/// The two spellings in use: the CLI's set and docker-py's list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    Set(BTreeMap<String, bool>),
    List(Vec<String>),
    One(String),
}

impl Filters {
    /// Reads the parameter and refuses names that are not in `known`.
    pub(crate) fn from_query(query: &Query, known: &[&str]) -> Result<Self, ApiError> {
        Self::parse(query.text("filters"), known)
    }

    pub(crate) fn parse(text: &str, known: &[&str]) -> Result<Self, ApiError> {
        if text.is_empty() || text == "null" {
            return Ok(Self::default());
        }
        let document: BTreeMap<String, Values> = serde_json::from_str(text)
            .map_err(|error| ApiError::invalid(format!("invalid filters: {error}")))?;
        let mut filters = BTreeMap::new();
        for (name, values) in document {
            if !known.contains(&name.as_str()) {
                return Err(ApiError::invalid(format!("invalid filter '{name}'")));
            }
            let values = match values {
                Values::Set(set) => {
                    set.into_iter().filter(|(_, wanted)| *wanted).map(|(value, _)| value).collect()
                }
                Values::List(list) => list,
                Values::One(value) => vec![value],
            };
            filters.insert(name, values);
        }
        Ok(Self(filters))
    }

    pub(crate) fn values(&self, name: &str) -> &[String] {
        self.0.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether there is no such filter or one of its values passes `test`.
    pub(crate) fn any(&self, name: &str, test: impl Fn(&str) -> bool) -> bool {
        let values = self.values(name);
        values.is_empty() || values.iter().any(|value| test(value))
    }

    /// Whether every `label` filter (`key` or `key=value`) finds its label, and no `label!` one.
    pub(crate) fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |filter: &String| match filter.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
            None => labels.contains_key(filter),
        };
        self.values("label").iter().all(has) && !self.values("label!").iter().any(has)
    }

    /// The values of a filter as regular expressions.
    pub(crate) fn patterns(&self, name: &str) -> Result<Patterns, ApiError> {
        let compiled = self.values(name).iter().map(|value| {
            Regex::new(value).map_err(|error| {
                ApiError::invalid(format!("invalid filter '{name}={value}': {error}"))
            })
        });
        compiled.collect::<Result<_, _>>().map(Patterns)
    }

    /// Refuses a value that is none of `known`.
    pub(crate) fn one_of(&self, name: &str, known: &[&str]) -> Result<(), ApiError> {
        match self.values(name).iter().find(|value| !known.contains(&value.as_str())) {
            None => Ok(()),
            Some(value) => Err(ApiError::invalid(format!(
                "invalid filter '{name}={value}': use one of {}",
                known.join(", ")
            ))),
        }
    }

    /// The values of a filter as numbers.
    pub(crate) fn numbers<T: std::str::FromStr>(&self, name: &str) -> Result<Vec<T>, ApiError> {
        let number = |value: &String| {
            value.parse().map_err(|_| {
                ApiError::invalid(format!("invalid filter '{name}={value}': not a number"))
            })
        };
        self.values(name).iter().map(number).collect()
    }

    /// The moment before which something must have been made (moby: daemon/prune.go,
    /// `getUntilFromPruneFilters`).
    pub(crate) fn until(&self) -> Result<Option<Timestamp>, ApiError> {
        match self.values("until") {
            [] => Ok(None),
            [text] => {
                let moment = parse_moment(text, Timestamp::now(), &TimeZone::system());
                moment.map(Some).ok_or_else(|| {
                    ApiError::invalid(format!(
                        "invalid value for 'until' filter: {text:?} is neither a duration such as \
                         24h nor a time such as 2026-11-23T19:00:00"
                    ))
                })
            }
            _ => Err(ApiError::invalid("more than one until filter specified")),
        }
    }

    /// A filter that is `true` or `false`, with Docker's other spellings.
    pub(crate) fn boolean(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.values(name) {
            [] => Ok(None),
            [value] => match value.to_ascii_lowercase().as_str() {
                "1" | "true" | "t" => Ok(Some(true)),
                "0" | "false" | "f" => Ok(Some(false)),
                _ => Err(ApiError::invalid(format!("invalid filter '{name}={value}'"))),
            },
            _ => Err(ApiError::invalid(format!("invalid filter '{name}': one value is allowed"))),
        }
    }
}

/// Regular expressions of a filter, one of which must match: Go's, and what RE2 and regex-lite
/// share is all of them that people write in names.
#[derive(Debug)]
pub(crate) struct Patterns(Vec<Regex>);

impl Patterns {
    /// Whether there is no such filter or one of its expressions is found in `text`.
    pub(crate) fn any(&self, text: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| pattern.is_match(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_read() {
        let set = Filters::parse(r#"{"label":{"a=b":true,"c":true,"d":false}}"#, &["label"]);
        let list = Filters::parse(r#"{"label":["a=b","c"]}"#, &["label"]);
        assert_eq!(set.expect("set"), list.expect("list"));
        let wrong = Filters::parse(r#"{"foo":{"a":true}}"#, &["label"]).expect_err("unknown");
        assert_eq!(wrong.message, "invalid filter 'foo'");
        assert!(Filters::parse("[", &[]).is_err());
    }

    #[test]
    fn labels_match_by_key_or_by_pair() {
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned()), ("c".into(), "".into())]);
        for (filters, passes) in [
            (r#"{"label":["a"]}"#, true),
            (r#"{"label":["a=b","c"]}"#, true),
            (r#"{"label":["a=c"]}"#, false),
            (r#"{"label":["a=b","d"]}"#, false),
            (r#"{"label!":["a"]}"#, false),
            (r#"{"label!":["x"]}"#, true),
            ("", true),
        ] {
            let filters = Filters::parse(filters, &["label", "label!"]).expect(filters);
            assert_eq!(filters.labels(&labels), passes, "{filters:?}");
        }
    }

    #[test]
    fn names_match_by_regular_expression() {
        for (pattern, text, found) in [
            ("we", "/web", true),
            ("^/web$", "/web", true),
            ("^/web$", "/web2", false),
            ("^web", "/web", false),
            ("eb$", "/web", true),
            ("^/w.*b$", "/web", true),
            ("^/w.*c", "/web", false),
            ("", "/web", true),
            (r"a\.b", "a.b", true),
            ("pf[12]", "pf2", true),
            ("pf[12]", "pf3", false),
            ("^(pf1|pf2)$", "pf1", true),
            ("^(pf1|pf2)$", "pf12", false),
            ("x{2}", "axxb", true),
        ] {
            let filters = Filters(BTreeMap::from([("name".to_owned(), vec![pattern.to_owned()])]));
            let patterns = filters.patterns("name").expect(pattern);
            assert_eq!(patterns.any(text), found, "{pattern} in {text}");
        }
    }

    #[test]
    fn values_that_are_not_understood_are_refused() {
        let known = ["name", "until", "exited", "health"];
        let parse = |text: &str| Filters::parse(text, &known).expect(text);
        assert!(parse(r#"{"name":["a("]}"#).patterns("name").is_err());
        assert!(parse(r#"{"exited":["x"]}"#).numbers::<i64>("exited").is_err());
        assert!(parse(r#"{"health":["fine"]}"#).one_of("health", &["none"]).is_err());
        for (value, ok) in [("24h", true), ("2026-11-01", true), ("bogus", false), ("", false)] {
            let filters = parse(&format!(r#"{{"until":["{value}"]}}"#));
            assert_eq!(filters.until().is_ok(), ok, "{value}");
        }
        assert!(parse(r#"{"until":["1h","2h"]}"#).until().is_err());
    }
}
