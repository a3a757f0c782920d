//! `bulkhead.toml`: what Docker has no word for.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use bulkhead_network::PublishPolicy;
use serde::Deserialize;

use crate::address::Socket;
use crate::nearest::nearest_of;

/// The file. A key that is not there is refused by name, before serde sees it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Own {
    /// How many empty compartments are kept ready.
    pub compartments: Option<u8>,
    /// Bytes, as in `10g`.
    pub log_budget: Option<String>,
    /// Who reaches published ports.
    pub publish_policy: Option<String>,
    pub socket: Vec<SocketTable>,
    pub up: Up,
}

/// A socket besides the engine's own.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct SocketTable {
    path: Option<String>,
    address: Option<String>,
    role: Option<String>,
    labels: Vec<String>,
    group: Option<String>,
}

/// What `bulkhead up` runs besides the engine.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Up {
    pub api: Option<SocketAddr>,
    pub console: Option<SocketAddr>,
    pub registry: Option<SocketAddr>,
    pub cluster: Option<String>,
    pub public_ip: Option<Ipv4Addr>,
}

const TOP: &[&str] = &["compartments", "log-budget", "publish-policy", "socket", "up"];
const SOCKET: &[&str] = &["path", "address", "role", "labels", "group"];
const UP: &[&str] = &["api", "console", "registry", "cluster", "public-ip"];

impl Own {
    /// # Errors
    /// A sentence that names the key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let one_line = |error: toml::de::Error| {
            let line = error.span().map(|span| text[..span.start.min(text.len())].lines().count());
            let at = line.map(|line| format!("line {}: ", line.max(1))).unwrap_or_default();
            format!("{at}{}", error.message().replace('\n', " "))
        };
        let document: toml::Table = toml::from_str(text).map_err(one_line)?;
        check(&document, "", TOP)?;
        if let Some(up) = document.get("up").and_then(toml::Value::as_table) {
            check(up, "up.", UP)?;
        }
        for socket in document.get("socket").and_then(toml::Value::as_array).into_iter().flatten() {
            if let Some(socket) = socket.as_table() {
                check(socket, "socket.", SOCKET)?;
            }
        }
        let read: Self = serde_path_to_error::deserialize(document).map_err(|error| {
            let path = error.path().to_string();
            format!("{path}: {}", error.inner().message().replace('\n', " "))
        })?;
        if let Some(count) = read.compartments.filter(|count| *count > 64) {
            return Err(format!("compartments: {count} is more than 64"));
        }
        read.log_budget()?;
        read.publish_policy()?;
        read.sockets()?;
        Ok(read)
    }

    /// The file at `path`, or nothing where there need not be one.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn read(path: &Path, required: bool) -> Result<Self, String> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map_err(|why| format!("{}: {why}", path.display())),
            Err(error) if !required && error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            Err(error) => Err(format!("cannot read {}: {error}", path.display())),
        }
    }

    pub fn log_budget(&self) -> Result<Option<u64>, String> {
        let read = |text: &String| {
            bulkhead_types::parse_size(text).map_err(|why| format!("log-budget: {why}"))
        };
        self.log_budget.as_ref().map(read).transpose()
    }

    pub fn publish_policy(&self) -> Result<PublishPolicy, String> {
        let text = self.publish_policy.as_deref().unwrap_or("everywhere");
        text.parse().map_err(|why| format!("publish-policy: {why}"))
    }

    pub fn sockets(&self) -> Result<Vec<Socket>, String> {
        self.socket.iter().map(SocketTable::read).collect()
    }
}

impl SocketTable {
    fn read(&self) -> Result<Socket, String> {
        let place = match (&self.path, &self.address) {
            (Some(path), None) => path,
            (None, Some(address)) => address,
            _ => return Err("socket: say either path or address".to_owned()),
        };
        let role = self.role.iter().map(|role| format!("role={role}"));
        let labels = self.labels.iter().map(|label| format!("label={label}"));
        let words: Vec<String> = role.chain(labels).collect();
        Socket::new(place, &words.join(","), self.group.clone())
            .map_err(|why| format!("socket: {why}"))
    }
}

fn check(table: &toml::Table, prefix: &str, known: &[&str]) -> Result<(), String> {
    let Some(unknown) = table.keys().find(|key| !known.contains(&key.as_str())) else {
        return Ok(());
    };
    let near = nearest_of(unknown, known.iter().copied());
    let meant = match near.is_empty() {
        true => format!("there are {}", known.join(", ")),
        false => format!("did you mean {prefix}{}?", near.join(" or ")),
    };
    Err(format!("there is no key {prefix}{unknown}: {meant}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_example_is_right() {
        let page = include_str!("../../../../docs/configuration.md");
        let example = page.split_once("```toml\n").expect("an example").1;
        let example = example.split_once("```").expect("its end").0;
        let own = Own::parse(example).expect("it is right");
        assert_eq!(own.compartments, Some(4));
        assert_eq!(own.log_budget(), Ok(Some(10 << 30)));
        assert!(own.publish_policy().is_ok());
        assert_eq!(own.sockets().expect("sockets").len(), 2);
        assert!(own.up.api.is_some() && own.up.public_ip.is_some());
    }

    #[test]
    fn the_documented_daemon_json_is_right() {
        let page = include_str!("../../../../docs/configuration.md");
        let example = page.split_once("```json\n").expect("an example").1;
        let example = example.split_once("```").expect("its end").0;
        let keys = super::super::keys_of_text(example).expect("it is right");
        let daemon = super::super::Daemon::read(keys.done).expect("it is right");
        daemon.settings().expect("it is right");
    }

    #[test]
    fn what_is_wrong_is_named_with_what_was_meant() {
        for (text, part) in [
            ("compartment = 2", "no key compartment: did you mean compartments?"),
            ("[up]\nconsol = \"x\"", "no key up.consol: did you mean up.console?"),
            ("[[socket]]\nroel = \"x\"", "no key socket.roel: did you mean socket.role?"),
            ("publish-policy = \"x\"", "publish-policy: "),
            ("colour = \"x\"", "no key colour: there are compartments"),
            ("compartments = \"x\"", "compartments: invalid type"),
            ("compartments = 65", "more than 64"),
            ("log-budget = \"x\"", "log-budget"),
            ("[up]\napi = \"x\"", "up.api"),
            ("[[socket]]\nrole = \"read-only\"", "say either path or address"),
            ("[[socket]]\npath = \"/x\"\nrole = \"admin\"", "there is no role \"admin\""),
            ("[[socket]]\npath = \"x\"", "\"x\" is no place for a socket"),
            ("compartments = 1\n\nlog-budget 2", "line 3"),
        ] {
            let error = Own::parse(text).expect_err(part);
            assert!(error.contains(part), "{error}");
        }
    }
}
