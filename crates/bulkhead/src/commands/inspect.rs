//! `inspect`: all that the engine knows of a thing, as it says it.

use http::StatusCode;
use hyper::Method;
use serde_json::Value;

use crate::client::{Client, collect, encode};
use crate::failure::Failure;
use crate::table;
use crate::template::{self, Functions, Row};

/// What can be inspected, in the order in which a name is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Container,
    Image,
    Network,
    Volume,
}

const ALL: [Kind; 4] = [Kind::Container, Kind::Image, Kind::Network, Kind::Volume];

impl Kind {
    pub fn read(text: &str) -> Result<Self, Failure> {
        ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            Failure::new(format!(
                "{text:?} is not a type to inspect: use container, image, network or volume"
            ))
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Network => "network",
            Self::Volume => "volume",
        }
    }

    fn path(self, name: &str, query: &str) -> String {
        // slashes of an image's name stay, so that the server's routes see them
        let name = encode(name).replace("%2F", "/").replace("%3A", ":").replace("%40", "@");
        match self {
            Self::Container => format!("/containers/{name}/json{query}"),
            Self::Image => format!("/images/{name}/json{query}"),
            Self::Network => format!("/networks/{name}"),
            Self::Volume => format!("/volumes/{name}"),
        }
    }
}

/// Containers first, then images, networks and volumes, as `docker inspect` looks.
pub async fn any(
    client: &Client,
    kind: Option<&str>,
    format: Option<&str>,
    size: bool,
    names: &[String],
) -> Result<(), Failure> {
    let kinds = match kind {
        None | Some("") => ALL.to_vec(),
        Some(kind) => vec![Kind::read(kind)?],
    };
    let query = if size { "?size=1" } else { "" };
    let missing = |name: &str| format!("Error: No such {}: {name}", kind.unwrap_or("object"));
    of(client, &kinds, query, format, names, missing).await
}

/// Things of one kind.
pub async fn only(
    client: &Client,
    kind: Kind,
    format: Option<&str>,
    names: &[String],
) -> Result<(), Failure> {
    with_query(client, kind, "", format, names).await
}

pub async fn with_query(
    client: &Client,
    kind: Kind,
    query: &str,
    format: Option<&str>,
    names: &[String],
) -> Result<(), Failure> {
    let missing = |name: &str| format!("Error: No such {}: {name}", kind.name());
    of(client, &[kind], query, format, names, missing).await
}

async fn of(
    client: &Client,
    kinds: &[Kind],
    query: &str,
    format: Option<&str>,
    names: &[String],
    missing: impl Fn(&str) -> String,
) -> Result<(), Failure> {
    if let Some(format) = format.filter(|format| *format != "json") {
        // docker's exit status for a template that makes no sense
        Row::parse(format, Functions::All).map_err(|failure| failure.with_code(64))?;
    }
    let mut found = Vec::new();
    let mut failed = false;
    'names: for name in names {
        for kind in kinds {
            match client.call(Method::GET, &kind.path(name, query), None, None).await {
                Ok(answer) => {
                    found.push(String::from_utf8_lossy(&collect(answer).await?).into_owned());
                    continue 'names;
                }
                Err(failure)
                    if failure.status == Some(StatusCode::NOT_FOUND.as_u16())
                        || (failure.status == Some(400) && kinds.len() > 1) => {}
                Err(failure) => return Err(failure),
            }
        }
        failed = true;
        eprintln!("{}", missing(name));
    }
    match format {
        Some(format) if format != "json" => {
            for text in &found {
                let object: Value = serde_json::from_str(text).map_err(|cause| {
                    Failure::new(format!("the engine's answer is not JSON: {cause}"))
                })?;
                template::print(format, &object)?;
            }
        }
        Some(_) => {
            let objects: Vec<&str> = found.iter().map(|text| text.trim()).collect();
            table::show(&format!("[{}]\n", objects.join(",")));
        }
        None => {
            let objects = format!("[{}]", found.join(","));
            table::show(&(indented(&objects) + "\n"));
        }
    }
    if failed { Err(Failure::silent(1)) } else { Ok(()) }
}

/// JSON with one thing a line, four spaces a level, everything else as the engine wrote it: what Go's
/// `json.Indent` makes of it.
fn indented(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    let (mut level, mut quoted, mut escaped, mut empty) = (0_usize, false, false, false);
    let line = |text: &mut String, level: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n("    ", level));
    };
    for letter in json.chars() {
        if quoted {
            text.push(letter);
            (quoted, escaped) = (escaped || letter != '"', !escaped && letter == '\\');
            continue;
        }
        if letter.is_ascii_whitespace() {
            continue;
        }
        if empty && !matches!(letter, ']' | '}') {
            level += 1;
            line(&mut text, level);
        }
        match letter {
            '{' | '[' => {
                text.push(letter);
                empty = true;
                continue;
            }
            ',' => {
                text.push(letter);
                line(&mut text, level);
            }
            ':' => text.push_str(": "),
            '}' | ']' => {
                if !empty {
                    level = level.saturating_sub(1);
                    line(&mut text, level);
                }
                text.push(letter);
            }
            _ => {
                quoted = letter == '"';
                text.push(letter);
            }
        }
        empty = false;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_as_go_does() {
        assert_eq!(
            indented(r#"[{"b":{},"a":["x, {y\"",1.50,[]],"\\":null}]"#),
            "[\n    {\n        \"b\": {},\n        \"a\": [\n            \"x, {y\\\"\",\n            1.50,\n            \
             []\n        ],\n        \"\\\\\": null\n    }\n]"
        );
        assert_eq!(indented("[]"), "[]");
        assert_eq!(indented("[{}]"), "[\n    {}\n]");
    }
}
