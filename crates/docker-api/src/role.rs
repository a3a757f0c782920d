//! What the clients of one socket may do. The engine's own socket is as good as being root; one that is
//! handed to a proxy, a dashboard or a deployment need not be.
//!
//! A role allows operations by name and refuses all others, those too that are added to the API later.

mod redact;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bulkhead_engine::Engine;
use http::uri::PathAndQuery;
use http::{Method, StatusCode, Uri};
use serde_json::{Value, json};

use crate::error::{Answer, ApiError};
use crate::fields::Operation;
use crate::request::Query;

/// What a socket is for: everything, unless it says less.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Role {
    /// Nothing is changed, no file or input of a container is reached, and the values of its
    /// environment are hidden.
    pub read_only: bool,
    /// Only containers with all of these labels are there, as `KEY` or `KEY=VALUE`; and of what is not a
    /// container, nothing.
    pub labels: Vec<String>,
}

impl Role {
    pub fn is_limited(&self) -> bool {
        self.read_only || !self.labels.is_empty()
    }

    fn has_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels.iter().all(|wanted| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
            None => labels.contains_key(wanted),
        })
    }

    /// Whether this role has an operation, by its name in the table of operations.
    fn allows(&self, operation: &str) -> bool {
        let Some(access) = access(operation) else { return false };
        (!self.read_only || access.reads)
            && (self.labels.is_empty() || access.subject != Subject::Host)
    }

    fn refusal(&self, operation: &str) -> ApiError {
        let limit = match (self.read_only, self.labels.is_empty()) {
            (true, true) => "is read-only".to_owned(),
            (true, false) => format!("only reads of containers with the label {}", self.list()),
            (false, _) => format!("is limited to containers with the label {}", self.list()),
        };
        let message = format!("{operation} is not allowed on this socket, which {limit}");
        ApiError::new(StatusCode::FORBIDDEN, message)
    }

    fn list(&self) -> String {
        self.labels.join(" and ")
    }
}

/// What an operation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    /// Nothing that is anybody's.
    Nobody,
    Host,
    /// Answers with containers that its filters choose.
    Containers,
    /// `/containers/{}/…`
    Container,
    /// `/exec/{}/…`
    Exec,
}

/// What a role has to know of an operation that it may allow.
#[derive(Debug, Clone, Copy)]
struct Access {
    subject: Subject,
    /// Whether it changes nothing, and shows nothing but records, figures and logs.
    reads: bool,
}

/// The operations that a limited role may have at all.
fn access(operation: &str) -> Option<Access> {
    let (subject, reads) = match operation {
        "GET /_ping" | "HEAD /_ping" | "GET /version" => (Subject::Nobody, true),
        "GET /containers/json" | "GET /bulkhead/containers/json" | "GET /events" => {
            (Subject::Containers, true)
        }
        "GET /containers/{}/json"
        | "GET /containers/{}/top"
        | "GET /containers/{}/changes"
        | "GET /containers/{}/stats"
        | "GET /containers/{}/logs"
        | "POST /containers/{}/wait" => (Subject::Container, true),
        "POST /containers/{}/start"
        | "POST /containers/{}/stop"
        | "POST /containers/{}/restart"
        | "POST /containers/{}/kill"
        | "POST /containers/{}/pause"
        | "POST /containers/{}/unpause"
        | "POST /containers/{}/resize"
        | "POST /containers/{}/attach"
        | "GET /containers/{}/attach/ws"
        | "POST /containers/{}/exec"
        | "POST /bulkhead/containers/{}/exec"
        | "GET /containers/{}/archive"
        | "HEAD /containers/{}/archive"
        | "PUT /containers/{}/archive"
        | "GET /containers/{}/export" => (Subject::Container, false),
        "GET /exec/{}/json" => (Subject::Exec, true),
        "POST /exec/{}/start" | "POST /exec/{}/resize" => (Subject::Exec, false),
        "GET /images/json"
        | "GET /images/{}/json"
        | "GET /images/{}/history"
        | "GET /networks"
        | "GET /networks/{}"
        | "GET /volumes"
        | "GET /volumes/{}"
        | "GET /info"
        | "GET /bulkhead/info"
        | "GET /system/df"
        // what these answer is that there are none
        | "GET /plugins"
        | "GET /swarm"
        | "GET /nodes"
        | "GET /services"
        | "GET /tasks"
        | "GET /secrets"
        | "GET /configs" => (Subject::Host, true),
        _ => return None,
    };
    Some(Access { subject, reads })
}

/// The operation that a request is, also one of Bulkhead's own.
fn operation_of(method: &Method, path: &str) -> Option<&'static str> {
    let own = match (method.as_str(), path) {
        ("GET", "/bulkhead/info") => Some("GET /bulkhead/info"),
        ("GET", "/bulkhead/containers/json") => Some("GET /bulkhead/containers/json"),
        ("POST", path) => path
            .strip_prefix("/bulkhead/containers/")
            .and_then(|rest| rest.strip_suffix("/exec"))
            .filter(|name| !name.contains('/'))
            .map(|_| "POST /bulkhead/containers/{}/exec"),
        _ => None,
    };
    own.or_else(|| Operation::of(method, path).map(Operation::name))
}

/// What [`layer`] needs.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) engine: Arc<Engine>,
    pub(crate) role: Arc<Role>,
}

/// Lets through what the socket's role allows.
pub(crate) async fn layer(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    match limits.admit(request).await {
        Ok((request, hides)) => {
            let response = next.run(request).await;
            if hides { redact::environment(response).await } else { response }
        }
        Err(refused) => refused.into_response(),
    }
}

impl Limits {
    /// The request as its handler is to see it, and whether values are to be hidden in the answer.
    async fn admit(&self, mut request: Request) -> Answer<(Request, bool)> {
        let role = &self.role;
        let path = request.uri().path();
        let Some(operation) = operation_of(request.method(), path) else {
            return Err(role.refusal(&format!("{} {path}", request.method())));
        };
        let Some(access) = access(operation).filter(|_| role.allows(operation)) else {
            return Err(role.refusal(operation));
        };
        // what --log-opt env has chosen is among them
        if role.read_only && Query::parse(request.uri().query().unwrap_or_default()).flag("details")
        {
            return Err(role.refusal("details=1, which shows variables of the environment,"));
        }
        if !role.labels.is_empty() {
            let target = match access.subject {
                Subject::Containers => Some(self.only_own(operation, request.uri())?),
                Subject::Container => Some(self.own_container(request.uri())?),
                Subject::Exec => {
                    self.own_exec(request.uri()).await?;
                    None
                }
                Subject::Nobody | Subject::Host => None,
            };
            if let Some(target) = target {
                *request.uri_mut() = target;
            }
        }
        request.extensions_mut().insert(Arc::clone(role));
        Ok((request, role.read_only && operation == "GET /containers/{}/json"))
    }

    /// The request with the role's labels among its filters.
    fn only_own(&self, operation: &str, uri: &Uri) -> Answer<Uri> {
        let query = Query::parse(uri.query().unwrap_or_default());
        let mut filters = match query.text("filters") {
            "" => json!({}),
            text => serde_json::from_str(text)
                .map_err(|error| ApiError::invalid(format!("invalid filters: {error}")))?,
        };
        if filters.is_null() {
            filters = json!({});
        }
        let Value::Object(members) = &mut filters else {
            return Err(ApiError::invalid("invalid filters: they are no object"));
        };
        let mut labels = match members.remove("label") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(labels)) => labels,
            Some(Value::Object(set)) => set
                .into_iter()
                .filter(|(_, wanted)| wanted.as_bool() == Some(true))
                .map(|(label, _)| label.into())
                .collect(),
            Some(one) => vec![one],
        };
        labels.extend(self.role.labels.iter().map(|label| label.as_str().into()));
        members.insert("label".to_owned(), Value::Array(labels));
        if operation == "GET /events" {
            members.insert("type".to_owned(), json!(["container"]));
        }
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        for name in query.names().filter(|name| *name != "filters") {
            pairs.append_pair(name, query.text(name));
        }
        pairs.append_pair("filters", &filters.to_string());
        with(uri.path(), Some(&pairs.finish()))
    }

    /// The request with the container's whole id: whoever has its name a moment later is not meant.
    fn own_container(&self, uri: &Uri) -> Answer<Uri> {
        let path = uri.path();
        let (front, rest) = match path.strip_prefix("/bulkhead/containers/") {
            Some(rest) => ("/bulkhead/containers/", rest),
            None => ("/containers/", path.strip_prefix("/containers/").unwrap_or_default()),
        };
        let (name, verb) = rest.split_once('/').unwrap_or((rest, ""));
        let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
        let container = self.engine.container(&name)?;
        if !self.role.has_labels(&container.config.labels) {
            return Err(ApiError::not_found(format!("No such container: {name}")));
        }
        with(&format!("{front}{}/{verb}", container.id), uri.query())
    }

    async fn own_exec(&self, uri: &Uri) -> Answer<()> {
        let rest = uri.path().strip_prefix("/exec/").unwrap_or_default();
        let name = rest.split('/').next().unwrap_or_default();
        let exec = self.engine.exec(name).await?;
        let container = self.engine.container(&exec.container.to_string())?;
        match self.role.has_labels(&container.config.labels) {
            true => Ok(()),
            false => Err(ApiError::not_found(format!("No such exec instance: {name}"))),
        }
    }
}

fn with(path: &str, query: Option<&str>) -> Answer<Uri> {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let target: PathAndQuery =
        format!("{path}{query}").parse().map_err(|_| ApiError::page_not_found())?;
    Ok(Uri::from(target))
}

/// Refuses a process with more privileges than its container, which a limited socket cannot give.
pub(crate) fn check_exec(role: Option<&Arc<Role>>, privileged: bool) -> Answer<()> {
    match role {
        Some(role) if privileged => Err(role.refusal("a privileged exec")),
        _ => Ok(()),
    }
}

/// Why words behind a socket's path say nothing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRole(String);

impl FromStr for Role {
    type Err = InvalidRole;

    /// `role=read-only`, `label=KEY[=VALUE]`, or several of them, with commas between.
    fn from_str(text: &str) -> Result<Self, InvalidRole> {
        let mut role = Self::default();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            match word.split_once('=') {
                Some(("role", "read-only")) => role.read_only = true,
                Some(("role", "full")) => {}
                Some(("role", other)) => {
                    return Err(InvalidRole(format!(
                        "there is no role {other:?}: read-only or full"
                    )));
                }
                Some(("label", label)) if !label.is_empty() && !label.starts_with('=') => {
                    role.labels.push(label.to_owned());
                }
                _ => {
                    return Err(InvalidRole(format!(
                        "{word:?} says nothing of a socket: role=read-only, or label=KEY[=VALUE]"
                    )));
                }
            }
        }
        Ok(role)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = if self.read_only { "role=read-only" } else { "role=full" };
        f.write_str(role)?;
        self.labels.iter().try_for_each(|label| write!(f, ",label={label}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::all_operations;

    fn role(text: &str) -> Role {
        text.parse().expect(text)
    }

    #[test]
    fn read_only_changes_nothing() {
        let only = role("role=read-only");
        for operation in all_operations() {
            let (method, path) = operation.split_once(' ').expect("a verb and a path");
            let allowed = only.allows(operation);
            if !["GET", "HEAD"].contains(&method) {
                assert_eq!(allowed, path == "/containers/{}/wait", "{operation}");
            }
            let is_content =
                ["archive", "export", "/get", "/ws"].iter().any(|word| path.contains(word));
            assert!(!(allowed && is_content), "{operation} shows files or takes input");
        }
    }

    #[test]
    fn labels_leave_containers_alone() {
        let web = role("label=tier=web");
        for operation in all_operations() {
            let path = operation.split_once(' ').expect("a verb and a path").1;
            let about = path.starts_with("/containers/") || path.starts_with("/exec/");
            let open = ["/_ping", "/version", "/events"].contains(&path);
            assert!(!web.allows(operation) || about || open, "{operation}");
        }
        for operation in [
            "POST /containers/create",
            "DELETE /containers/{}",
            "POST /containers/{}/update",
            "POST /containers/{}/rename",
            "POST /containers/prune",
            "POST /commit",
            "POST /build",
        ] {
            assert!(!web.allows(operation), "{operation}");
        }
        assert!(web.allows("POST /containers/{}/restart"));
        assert!(!role("role=read-only,label=tier=web").allows("POST /containers/{}/restart"));
    }

    #[test]
    fn an_operation_is_known_by_its_path() {
        for (method, path, operation) in [
            ("GET", "/containers/json", Some("GET /containers/json")),
            ("GET", "/containers/x/json", Some("GET /containers/{}/json")),
            ("POST", "/bulkhead/containers/x/exec", Some("POST /bulkhead/containers/{}/exec")),
            ("POST", "/bulkhead/containers/run", None),
            ("POST", "/bulkhead/down", None),
            ("POST", "/bulkhead/containers/x/y/exec", None),
            ("POST", "/grpc", None),
        ] {
            let method = method.parse().expect("a verb");
            assert_eq!(operation_of(&method, path), operation, "{method} {path}");
        }
    }

    #[test]
    fn labels_are_all_wanted() {
        let labels =
            BTreeMap::from([("tier".to_owned(), "web".to_owned()), ("x".into(), "".into())]);
        for (text, has) in [
            ("label=tier", true),
            ("label=tier=web,label=x", true),
            ("label=tier=data", false),
            ("label=tier,label=none", false),
            ("label=x=", true),
        ] {
            assert_eq!(role(text).has_labels(&labels), has, "{text}");
        }
    }

    #[test]
    fn words_that_say_nothing_are_refused() {
        for text in ["role=admin", "label", "label=", "label==x", "readonly"] {
            assert!(text.parse::<Role>().is_err(), "{text}");
        }
        assert_eq!(role("role=read-only,label=a=b").to_string(), "role=read-only,label=a=b");
    }
}
