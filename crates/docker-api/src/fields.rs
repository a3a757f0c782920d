//! One table that decides for every parameter, filter and member of Docker's API what becomes of
//! it: done, done from a version of the API on, refused with a sentence, or ignored because it
//! means nothing here.
//!
//! The readers of queries and bodies ask it ([`crate::request`]), so nothing that is not in it gets
//! through with a value, and a test walks all of Docker's definition against it. Values that Go's
//! clients send for what their user did not say (zero, empty, null) are always accepted.

mod members;
mod table;

use http::Method;
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::version::ApiVersion;

use table::OPERATIONS;

/// The names of all operations.
#[cfg(test)]
pub(crate) fn all_operations() -> impl Iterator<Item = &'static str> {
    OPERATIONS.iter().map(Operation::name)
}

/// What becomes of a parameter or a member, and of all that is below it but for what the table
/// decides by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Done,
    /// Done, for clients of this minor version and later; older ones do not have it.
    From(u16),
    /// The sentence goes on after the name: what there is instead, or what to do.
    Refused(&'static str),
    /// Refused but for one word that asks for what is done anyway.
    Only(&'static str, &'static str),
    /// It has no meaning here; why.
    Ignored(&'static str),
}

/// Names, and what becomes of each.
type Fields = &'static [(&'static str, Decision)];

/// One operation of the API.
#[derive(Debug)]
pub(crate) struct Operation {
    /// `POST /containers/{}/wait`
    name: &'static str,
    /// Of what is named nowhere below, as the whole operation is of a kind that Bulkhead lacks.
    whole: Option<Decision>,
    query: Fields,
    filters: Fields,
    /// Dotted; `*` is a name of the client's.
    body: Fields,
}

impl Operation {
    /// `POST /containers/{}/wait`
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// The operation that a request is, its path without the version.
    pub(crate) fn of(method: &Method, path: &str) -> Option<&'static Self> {
        let mut matching = OPERATIONS.iter().filter(|operation| {
            let (verb, template) = operation.name.split_once(' ').unwrap_or_default();
            verb == method.as_str() && matches(template, path)
        });
        let first = matching.next()?;
        // `/images/json` is also `/images/{}`: one without a hole is meant.
        Some(matching.find(|operation| !operation.name.contains("{}")).unwrap_or(first))
    }

    /// Refuses what is asked for and is not done.
    pub(crate) fn check_query<'a>(
        &self,
        version: ApiVersion,
        pairs: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), ApiError> {
        for (name, value) in pairs {
            if is_zero_text(value) {
                continue;
            }
            match find(self.query, name) {
                Some(Decision::Only(word, _)) if word.eq_ignore_ascii_case(value) => {}
                Some(decision) => decide(decision, version, &format!("parameter {name}"))?,
                None if self.whole.is_some() || self.only_reads() => {}
                None => return Err(unknown("parameter", name)),
            }
            if name == "filters"
                && let Ok(Value::Object(filters)) = serde_json::from_str(value)
            {
                self.check_filters(version, &filters)?;
            }
        }
        Ok(())
    }

    /// What clients of all ages add to what they read (docker-py: `trunc_cmd`, `only_ids`) changes
    /// nothing, and Docker does not look at it either.
    fn only_reads(&self) -> bool {
        self.name.starts_with("GET ") || self.name.starts_with("HEAD ")
    }

    fn check_filters(
        &self,
        version: ApiVersion,
        filters: &Map<String, Value>,
    ) -> Result<(), ApiError> {
        for (name, _) in filters.iter().filter(|(_, value)| !is_zero(value)) {
            match find(self.filters, name) {
                Some(decision) => decide(decision, version, &format!("filter {name}"))?,
                None => return Err(ApiError::invalid(format!("invalid filter '{name}'"))),
            }
        }
        Ok(())
    }

    /// Refuses what is asked for and is not done. Names in another case become Docker's: Go's
    /// decoder takes them as well.
    pub(crate) fn check_body(&self, version: ApiVersion, body: &mut Value) -> Result<(), ApiError> {
        if self.body.is_empty() {
            return Ok(());
        }
        self.check_members(version, "", "", body)
    }

    fn check_members(
        &self,
        version: ApiVersion,
        below: &str,
        shown: &str,
        value: &mut Value,
    ) -> Result<(), ApiError> {
        match value {
            Value::Object(members) => {
                // The same as a member that is missing, for Go's decoder.
                members.retain(|_, member| !member.is_null());
                let free = self.body.iter().any(|(path, _)| {
                    path.strip_prefix(below).is_some_and(|rest| rest.starts_with("*."))
                });
                if !free {
                    self.correct_case(below, members);
                }
                for (name, member) in members.iter_mut() {
                    let path = format!("{below}{}", if free { "*" } else { name.as_str() });
                    self.check_member(version, &path, &format!("{shown}{name}"), member)?;
                }
                Ok(())
            }
            Value::Array(elements) => elements
                .iter_mut()
                .try_for_each(|element| self.check_members(version, below, shown, element)),
            // Of another type than it should be, which the decoder will say.
            _ => Ok(()),
        }
    }

    fn check_member(
        &self,
        version: ApiVersion,
        path: &str,
        shown: &str,
        member: &mut Value,
    ) -> Result<(), ApiError> {
        let is_free = path.ends_with('*');
        match find(self.body, path) {
            _ if is_zero(member) => return Ok(()),
            // The CLI's word for "not said".
            _ if path == "HostConfig.MemorySwappiness" && *member == -1 => return Ok(()),
            Some(decision) => decide(decision, version, shown)?,
            None if is_free => {}
            None => return Err(unknown("field", shown)),
        }
        let inside = format!("{path}.");
        if self.body.iter().any(|(other, _)| other.starts_with(&inside)) {
            self.check_members(version, &inside, &format!("{shown}."), member)?;
        }
        Ok(())
    }

    fn correct_case(&self, below: &str, members: &mut Map<String, Value>) {
        let known = |name: &str| find(self.body, &format!("{below}{name}")).is_some();
        if members.keys().all(|name| known(name)) {
            return;
        }
        let correct = |name: String| {
            let other = self.body.iter().find_map(|(path, _)| {
                let own = path.strip_prefix(below)?;
                own.eq_ignore_ascii_case(&name).then_some(own)
            });
            if known(&name) { name } else { other.map_or(name, str::to_owned) }
        };
        *members = std::mem::take(members)
            .into_iter()
            .map(|(name, value)| (correct(name), value))
            .collect();
    }
}

fn find(table: &[(&str, Decision)], name: &str) -> Option<Decision> {
    table.iter().find(|(own, _)| *own == name).map(|(_, decision)| *decision)
}

fn decide(decision: Decision, version: ApiVersion, name: &str) -> Result<(), ApiError> {
    match decision {
        Decision::Done | Decision::Ignored(_) => Ok(()),
        Decision::From(minor) if version >= ApiVersion(minor) => Ok(()),
        Decision::From(minor) => Err(ApiError::invalid(format!(
            "{name} needs version 1.{minor} of the API, and the client speaks {version}"
        ))),
        Decision::Refused(why) | Decision::Only(_, why) => {
            Err(ApiError::unsupported(format!("{name} is not supported by Bulkhead: {why}")))
        }
    }
}

fn unknown(what: &str, name: &str) -> ApiError {
    ApiError::invalid(format!("unknown {what} {name:?}: this operation has none of that name"))
}

/// What Go's clients send of a parameter that nobody gave.
fn is_zero_text(value: &str) -> bool {
    matches!(value, "" | "0" | "false" | "False" | "null" | "{}" | "[]")
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        Value::Object(members) => members.values().all(is_zero),
    }
}

/// A hole stands for one word of the path; the names of images hold slashes.
fn matches(template: &str, path: &str) -> bool {
    let Some((before, after)) = template.split_once("{}") else { return template == path };
    let long = template.starts_with("/images/") || template.starts_with("/distribution/");
    path.strip_prefix(before)
        .and_then(|rest| rest.strip_suffix(after))
        .is_some_and(|word| !word.is_empty() && (long || !word.contains('/')))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::version::MAXIMUM;

    const DEFINITION: &str = include_str!("fields/api-1.51.txt");

    /// The decision for a line of the definition.
    fn decided(line: &str) -> bool {
        let mut words = line.split(' ');
        let name = [words.next().unwrap_or_default(), words.next().unwrap_or_default()].join(" ");
        let Some(operation) = OPERATIONS.iter().find(|operation| operation.name == name) else {
            return false;
        };
        let Some(field) = words.next() else { return true };
        if operation.whole.is_some() {
            return true;
        }
        if let Some(filter) = field.strip_prefix("?filters.") {
            return find(operation.filters, filter).is_some();
        }
        if let Some(parameter) = field.strip_prefix('?') {
            return find(operation.query, parameter).is_some();
        }
        // What is refused or ignored is so with all that is below it.
        let parts: Vec<&str> = field.split('.').collect();
        (1..=parts.len()).any(|count| match find(operation.body, &parts[..count].join(".")) {
            Some(Decision::Refused(_) | Decision::Ignored(_) | Decision::Only(..)) => true,
            Some(Decision::Done | Decision::From(_)) => count == parts.len(),
            None => false,
        })
    }

    #[test]
    fn every_field_of_dockers_api_is_decided() {
        let lines = DEFINITION.lines().filter(|line| !line.starts_with('#'));
        let open: Vec<&str> = lines.filter(|line| !decided(line)).collect();
        assert!(open.is_empty(), "{} not decided:\n{}", open.len(), open.join("\n"));
    }

    #[test]
    fn the_table_says_why_and_names_nothing_twice() {
        for operation in OPERATIONS {
            let all = [operation.query, operation.filters, operation.body];
            for table in all {
                for (place, (name, decision)) in table.iter().enumerate() {
                    assert!(
                        !table[..place].iter().any(|(other, _)| other == name),
                        "{} {name} twice",
                        operation.name
                    );
                    if let Decision::Refused(why) | Decision::Ignored(why) = decision {
                        assert!(why.len() > 8, "{} {name}: {why}", operation.name);
                    }
                }
            }
        }
    }

    #[test]
    fn requests_find_their_operation() {
        for (method, path, name) in [
            (Method::POST, "/containers/create", "POST /containers/create"),
            (Method::POST, "/containers/web/wait", "POST /containers/{}/wait"),
            (Method::GET, "/images/json", "GET /images/json"),
            (Method::GET, "/images/a/b/c:1/json", "GET /images/{}/json"),
            (Method::DELETE, "/images/a/b", "DELETE /images/{}"),
        ] {
            assert_eq!(Operation::of(&method, path).map(|operation| operation.name), Some(name));
        }
        assert!(Operation::of(&Method::GET, "/containers/a/b/json").is_none());
        assert!(Operation::of(&Method::GET, "/bulkhead/info").is_none());
    }

    #[test]
    fn what_is_asked_for_is_done_or_refused_by_name() {
        let create = Operation::of(&Method::POST, "/containers/create").unwrap();
        let check = |mut body: Value| create.check_body(MAXIMUM, &mut body).map(|()| body);
        let host = |member: &str, value: Value| json!({"HostConfig": {member: value}});
        for fine in [
            host("MemorySwappiness", json!(-1)),
            host("DeviceRequests", json!([])),
            host("OomKillDisable", json!(false)),
            host("Annotations", json!({"a": "b"})),
            host("PortBindings", json!({"80/tcp": [{"HostIp": "", "HostPort": "1"}]})),
            host("Sysctls", json!({"net.core.somaxconn": "1"})),
            json!({"FromTheFuture": {"A": null, "B": [], "C": ""}}),
            json!({"Labels": {"anything": "goes"}, "ExposedPorts": {"80/tcp": {}}}),
            json!({"NetworkingConfig": {"EndpointsConfig": {"mine": {"NetworkID": "x"}}}}),
        ] {
            assert!(check(fine.clone()).is_ok(), "{fine}");
        }
        for (body, status, named) in [
            (host("OomKillDisable", json!(true)), 501, "HostConfig.OomKillDisable"),
            (host("Memry", json!(10)), 400, "HostConfig.Memry"),
            (json!({"Bogus": true}), 400, "Bogus"),
            (
                host("PortBindings", json!({"80/tcp": [{"HostPrt": "1"}]})),
                400,
                "HostConfig.PortBindings.80/tcp.HostPrt",
            ),
            (
                host("Mounts", json!([{"Type": "bind", "BindOptions": {"Bogus": 1}}])),
                400,
                "HostConfig.Mounts.BindOptions.Bogus",
            ),
        ] {
            let error = check(body).expect_err(named);
            assert_eq!(error.status.as_u16(), status, "{error}");
            assert!(error.message.contains(named), "{error}");
        }
        // Go takes names in any case.
        let body = check(json!({"hostconfig": {"memory": 5}, "image": "x"})).expect("known names");
        assert_eq!(body, json!({"HostConfig": {"Memory": 5}, "Image": "x"}));
        // What a version does not have yet.
        let mut subpath = host("Mounts", json!([{"VolumeOptions": {"Subpath": "a"}}]));
        assert!(create.check_body(ApiVersion(45), &mut subpath).is_ok());
        let error = create.check_body(ApiVersion(44), &mut subpath).expect_err("too old");
        assert!(error.message.contains("needs version 1.45"), "{error}");
    }

    #[test]
    fn parameters_and_filters_too() {
        let build = Operation::of(&Method::POST, "/build").unwrap();
        let check =
            |name: &str, value: &str| build.check_query(MAXIMUM, [(name, value)].into_iter());
        for (name, value) in [("t", "a"), ("squash", "0"), ("bogus", ""), ("cachefrom", "[]")] {
            assert!(check(name, value).is_ok(), "{name}={value}");
        }
        assert!(check("squash", "1").expect_err("refused").message.contains("squash"));
        assert!(check("isolation", "default").is_ok() && check("isolation", "hyperv").is_err());
        assert!(check("bogus", "1").expect_err("unknown").message.contains("bogus"));
        let list = Operation::of(&Method::GET, "/containers/json").unwrap();
        assert!(list.check_query(MAXIMUM, [("trunc_cmd", "1")].into_iter()).is_ok());
        let prune = Operation::of(&Method::POST, "/volumes/prune").unwrap();
        let check = |value: &str| prune.check_query(MAXIMUM, [("filters", value)].into_iter());
        assert!(check(r#"{"label":["a"]}"#).is_ok());
        let error = check(r#"{"until":["1h"]}"#).expect_err("volumes have none");
        assert!(error.message.contains("until"), "{error}");
    }
}
