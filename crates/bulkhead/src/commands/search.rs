//! `search`: what the built-in registry has.

use clap::Args;
use serde_json::{Value, json};

use http::StatusCode;
use hyper::Method;

use super::logins::basic_authorization;
use super::show::{each, text};
use crate::client::{Client, Host};
use crate::failure::Failure;
use crate::rows::{self, Kind, Show};

#[derive(Debug, Args)]
pub struct SearchArguments {
    /// Only those that match: is-official=true, stars=3
    #[arg(short, long)]
    filter: Vec<String>,
    /// A Go template, `table` with one, or `json`
    #[arg(long)]
    format: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 25)]
    limit: usize,
    /// Accepted for scripts of Docker's: there are no descriptions here
    #[arg(long)]
    no_trunc: bool,
    /// A part of the name, behind HOST:PORT/ of another registry
    term: String,
}

const FOUND: Kind = Kind {
    fields: &[
        ("Description", "DESCRIPTION"),
        ("IsOfficial", "OFFICIAL"),
        ("Name", "NAME"),
        ("StarCount", "STARS"),
    ],
    table: "{{.Name}}\\t{{.Description}}\\t{{.StarCount}}\\t{{.IsOfficial}}",
};

/// The registry that `up` starts.
const BUILT_IN: &str = "127.0.0.1:5000";

pub async fn search(arguments: SearchArguments) -> Result<(), Failure> {
    let SearchArguments { filter, format, limit, term, .. } = arguments;
    let (registry, term) = registry_and_term(&term);
    let names = catalog(registry).await?;
    let shown = |name: &&Value| name.as_str().is_some_and(|name| name.contains(term));
    let names = each(&names["repositories"]).filter(shown);
    let rows: Vec<Value> = match matches(&filter)? {
        true => names.take(limit).map(|name| row(registry, &text(name))).collect(),
        false => Vec::new(),
    };
    rows::print(&FOUND, Show::Format(format.as_deref()), rows)
}

/// `HOST:PORT/TERM`, or a term for the built-in registry.
fn registry_and_term(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((host, term)) if host.contains(['.', ':']) || host == "localhost" => (host, term),
        _ => (BUILT_IN, text),
    }
}

/// No repository here is official, or has stars: whoever asks for these finds none.
fn matches(filters: &[String]) -> Result<bool, Failure> {
    let mut matches = true;
    for filter in filters {
        matches &= match filter.split_once('=') {
            Some(("is-official" | "is-automated", "true" | "1")) => false,
            Some(("is-official" | "is-automated", "false" | "0")) => true,
            Some(("stars", number)) if number.parse::<u32>().is_ok() => {
                number.parse::<u32>() == Ok(0)
            }
            _ => {
                return Err(Failure::new(format!(
                    "invalid filter '{filter}': use is-official=true or stars=NUMBER"
                )));
            }
        };
    }
    Ok(matches)
}

/// All repositories of a registry (OCI distribution specification: Docker's `_catalog`).
async fn catalog(registry: &str) -> Result<Value, Failure> {
    let host = match registry.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => registry.to_owned(),
        _ => format!("{registry}:80"),
    };
    let client = Client::to(Host::Tcp(host));
    let authorization = basic_authorization(registry);
    let answer = client
        .call_as(Method::GET, "/v2/_catalog?n=100000", "Authorization", authorization.as_deref())
        .await;
    let answer = answer.map_err(|failure| match failure.status {
        Some(status) if status == StatusCode::UNAUTHORIZED => Failure::new(format!(
            "the registry {registry} wants a login: `bulkhead login {registry}`"
        )),
        Some(status) => Failure::new(format!(
            "the registry {registry} does not list what it has: it answered {status}"
        )),
        None => Failure::new(format!(
            "cannot reach the registry {registry} without TLS: {}",
            failure.message
        )),
    })?;
    serde_json::from_slice(&crate::client::collect(answer).await?).map_err(|cause| {
        Failure::new(format!("the registry {registry} does not list what it has: {cause}"))
    })
}

fn row(registry: &str, name: &str) -> Value {
    json!({
        "Name": format!("{registry}/{name}"),
        "Description": "",
        "StarCount": "0",
        "IsOfficial": "",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_may_be_named() {
        assert_eq!(registry_and_term("web"), (BUILT_IN, "web"));
        assert_eq!(registry_and_term("team/web"), (BUILT_IN, "team/web"));
        assert_eq!(registry_and_term("box:99/team/web"), ("box:99", "team/web"));
        let matches = |filter: &str| matches(&[filter.to_owned()]).ok();
        assert_eq!((matches("is-official=true"), matches("stars=0")), (Some(false), Some(true)));
        assert_eq!((matches("stars=x"), matches("colour=red")), (None, None));
    }
}
