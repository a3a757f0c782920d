use std::collections::BTreeMap;

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

/// Whether `text` contains the pattern, which `^` and `$` may anchor and in which `.*` stands for
/// anything: the part of Docker's regular expressions that people write in name filters.
pub(crate) fn matches_pattern(pattern: &str, text: &str) -> bool {
    let (pattern, from_start) = match pattern.strip_prefix('^') {
        Some(rest) => (rest, true),
        None => (pattern, false),
    };
    let (pattern, to_end) = match pattern.strip_suffix('$') {
        Some(rest) => (rest, true),
        None => (pattern, false),
    };
    let parts: Vec<String> = pattern.split(".*").map(|part| part.replace('\\', "")).collect();
    let last = parts.len() - 1;
    let mut rest = text;
    for (index, part) in parts.iter().enumerate() {
        rest = match (index == 0 && from_start, index == last && to_end) {
            (true, true) if rest == part => "",
            (true, false) if rest.starts_with(part.as_str()) => &rest[part.len()..],
            (false, true) if rest.ends_with(part.as_str()) => "",
            (false, false) => match rest.find(part.as_str()) {
                Some(at) => &rest[at + part.len()..],
                None => return false,
            },
            _ => return false,
        };
    }
    true
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
    fn names_match_by_pattern() {
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
        ] {
            assert_eq!(matches_pattern(pattern, text), found, "{pattern} in {text}");
        }
    }
}
