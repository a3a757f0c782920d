//! What the engine is told: `daemon.json` and dockerd's flags, `bulkhead.toml` and Bulkhead's own.
//!
//! Both speak of the same keys, so the command line is read into what the file would hold, and one place
//! understands both.

mod daemon;
mod flags;
mod own;
mod table;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::address::{Place, Socket};
use crate::failure::Failure;

pub use daemon::Daemon;
pub use flags::DockerdFlags;
pub use own::{Own, Up};
use table::{Kind, Verdict};

/// Docker's file under a name of Bulkhead's: both may be on one machine, and would want the same bridge,
/// directory and socket.
pub const DAEMON_FILE: &str = "/etc/bulkhead/daemon.json";
pub const OWN_FILE: &str = "/etc/bulkhead/bulkhead.toml";

/// Where configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub flags: DockerdFlags,
    /// One that is named has to be there.
    pub daemon_file: Option<PathBuf>,
    pub own_file: Option<PathBuf>,
    /// Of the flags what is the own file's.
    pub own_flags: Own,
    /// `--socket`
    pub sockets: Vec<Socket>,
    /// What is read where no file is named.
    pub default_file: &'static str,
}

/// All that is said, understood.
#[derive(Debug, Clone)]
pub struct Configuration {
    pub daemon: Daemon,
    pub own: Own,
    /// Where the API listens besides the engine's own socket.
    pub sockets: Vec<Socket>,
    /// Keys without an effect, a sentence each.
    pub remarks: Vec<String>,
    /// The keys that are done, as they were said.
    said: Map<String, Value>,
}

impl Sources {
    /// Reads the files.
    ///
    /// # Errors
    /// One sentence that names the file and the key.
    pub fn read(&self) -> Result<Configuration, Failure> {
        let path = self.daemon_file.clone().unwrap_or_else(|| self.default_file.into());
        let in_file = |why: String| {
            let path = path.display();
            Failure::new(format!("unable to configure the daemon with file {path}: {why}"))
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error)
                if self.daemon_file.is_none() && error.kind() == std::io::ErrorKind::NotFound =>
            {
                String::new()
            }
            Err(error) => return Err(in_file(error.to_string())),
        };
        let file = keys_of_text(&text).map_err(in_file)?;
        let flags = keys_of(self.flags.0.clone(), Said::Flags).map_err(Failure::new)?;
        let both: Vec<String> = flags
            .all
            .iter()
            .filter_map(|(key, flag)| {
                let file = file.all.get(key)?;
                Some(format!("{key}: (from flag: {flag}, from file: {file})"))
            })
            .collect();
        if !both.is_empty() {
            return Err(in_file(format!(
                "the following directives are specified both as a flag and in the configuration \
                 file: {}",
                both.join(", ")
            )));
        }
        let of_file = Daemon::read(file.done.clone()).and_then(|it| valid(&it)).map_err(in_file);
        let said: Map<String, Value> = file.done.into_iter().chain(flags.done).collect();
        let daemon = of_file.and_then(|()| {
            let read = |said| {
                let daemon = Daemon::read(said)?;
                valid(&daemon)?;
                Ok(daemon)
            };
            read(said.clone()).map_err(|why: String| Failure::new(why))
        })?;

        let path = self.own_file.clone().unwrap_or_else(|| OWN_FILE.into());
        let own = Own::read(&path, self.own_file.is_some()).map_err(Failure::new)?;
        let own = merged(&path, own, &self.own_flags)?;
        let mut sockets = own.sockets().map_err(Failure::new)?;
        sockets.extend(self.sockets.iter().cloned());
        for host in &daemon.hosts {
            let place: Place = host.parse().map_err(|why| Failure::new(format!("hosts: {why}")))?;
            sockets.push(Socket { place, role: Default::default(), group: daemon.group.clone() });
        }
        let mut remarks = [file.remarks, flags.remarks].concat();
        remarks.extend(daemon.remarks());
        Ok(Configuration { daemon, own, sockets, remarks, said })
    }
}

fn valid(daemon: &Daemon) -> Result<(), String> {
    daemon.check()?;
    daemon.bridge_address()?;
    daemon.default_network()?;
    daemon.address_pools()?;
    daemon.settings().map(drop)
}

/// The flags beside what the file says.
fn merged(path: &Path, file: Own, flags: &Own) -> Result<Own, Failure> {
    fn one<T: Clone>(
        path: &Path,
        name: &str,
        file: Option<T>,
        flag: &Option<T>,
    ) -> Result<Option<T>, Failure> {
        match (&file, flag) {
            (Some(_), Some(_)) => Err(Failure::new(format!(
                "{name} is specified both as a flag and in {}: leave one of them out",
                path.display()
            ))),
            _ => Ok(file.or_else(|| flag.clone())),
        }
    }
    let (up, told) = (file.up, &flags.up);
    Ok(Own {
        compartments: one(path, "compartments", file.compartments, &flags.compartments)?,
        log_budget: one(path, "log-budget", file.log_budget, &flags.log_budget)?,
        publish_policy: one(path, "publish-policy", file.publish_policy, &flags.publish_policy)?,
        socket: file.socket,
        up: Up {
            api: one(path, "api", up.api, &told.api)?,
            console: one(path, "console", up.console, &told.console)?,
            registry: one(path, "registry", up.registry, &told.registry)?,
            cluster: one(path, "cluster", up.cluster, &told.cluster)?,
            public_ip: one(path, "public-ip", up.public_ip, &told.public_ip)?,
        },
    })
}

impl Configuration {
    /// With what of `new` takes effect without a restart.
    pub fn reloaded(&self, new: &Self) -> Result<Self, String> {
        let reloads = |name: &str| table::key(name).is_some_and(table::Key::reloads);
        let old = self.said.iter().filter(|(name, _)| !reloads(name));
        let new_keys = new.said.iter().filter(|(name, _)| reloads(name));
        let said: Map<String, Value> =
            old.chain(new_keys).map(|(name, value)| (name.clone(), value.clone())).collect();
        let daemon = Daemon::read(said.clone())?;
        valid(&daemon)?;
        let (own, sockets) = (self.own.clone(), self.sockets.clone());
        Ok(Self { daemon, own, sockets, remarks: new.remarks.clone(), said })
    }

    /// Of the keys whose value is another in `new` those that need a restart, by name.
    pub fn stays(&self, new: &Self) -> Vec<String> {
        let names = self.said.keys().chain(new.said.keys());
        let differs = |name: &&String| {
            self.said.get(*name) != new.said.get(*name)
                && !table::key(name).is_some_and(table::Key::reloads)
        };
        let mut names: Vec<String> = names.filter(differs).cloned().collect();
        for (name, is_other) in [
            ("compartments", self.own.compartments != new.own.compartments),
            ("log-budget", self.own.log_budget != new.own.log_budget),
            ("publish-policy", self.own.publish_policy != new.own.publish_policy),
            ("socket", self.own.socket != new.own.socket),
            ("up", self.own.up != new.own.up),
        ] {
            if is_other {
                names.push(name.to_owned());
            }
        }
        names.sort();
        names.dedup();
        names
    }
}

/// Keys as they were said, and what becomes of them.
#[derive(Debug, Default)]
pub struct Keys {
    all: Map<String, Value>,
    pub done: Map<String, Value>,
    remarks: Vec<String>,
}

/// Who says a key, for the words about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    File,
    Flags,
}

/// The keys of a file's text, which may be empty.
fn keys_of_text(text: &str) -> Result<Keys, String> {
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() {
        return Ok(Keys::default());
    }
    let document: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let Value::Object(mut document) = document else {
        return Err("it is no JSON object".to_owned());
    };
    // the one object whose members dockerd has flags for
    match document.remove("proxies") {
        None | Some(Value::Null) => {}
        Some(Value::Object(proxies)) => {
            for (name, value) in proxies {
                let is_one = |key: &table::Key| key.kind == Kind::Named("proxies");
                if !table::key(&name).is_some_and(is_one) {
                    return Err(unknown(&format!("proxies.{name}")));
                }
                document.insert(name, value);
            }
        }
        Some(_) => return Err("proxies: it is no object".to_owned()),
    }
    keys_of(document, Said::File)
}

fn unknown(name: &str) -> String {
    let near = crate::nearest::nearest_of(name, table::KEYS.iter().map(|key| key.name));
    let meant = match near.is_empty() {
        true => String::new(),
        false => format!(" (did you mean {}?)", near.join(" or ")),
    };
    format!("the following directives don't match any configuration option: {name}{meant}")
}

fn keys_of(document: Map<String, Value>, by: Said) -> Result<Keys, String> {
    let mut keys = Keys::default();
    for (name, value) in document {
        let Some(key) = table::key(&name) else { return Err(unknown(&name)) };
        if value.is_null() {
            continue;
        }
        let shown = match by {
            Said::File => name.clone(),
            Said::Flags => format!("--{}", key.flag),
        };
        match key.verdict {
            Verdict::Done(..) => drop(keys.done.insert(name.clone(), value.clone())),
            Verdict::Ignored(_) | Verdict::Refused(_) if asks_for_nothing(&value) => {}
            Verdict::Ignored(why) => keys.remarks.push(format!("{shown} has no effect: {why}")),
            Verdict::Refused(why) => return Err(format!("{shown} is not supported: {why}")),
        }
        keys.all.insert(name, value);
    }
    Ok(keys)
}

fn asks_for_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(file: &str, flags: &Value) -> Result<Configuration, Failure> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("daemon.json");
        std::fs::write(&path, file).unwrap();
        let Value::Object(flags) = flags.clone() else { panic!("an object") };
        let own = directory.path().join("bulkhead.toml");
        std::fs::write(&own, "").unwrap();
        let sources = Sources {
            flags: DockerdFlags(flags),
            daemon_file: Some(path),
            own_file: Some(own),
            ..Sources::default()
        };
        sources.read()
    }

    #[test]
    fn files_that_are_wrong_say_why() {
        for (file, part) in [
            ("{", "EOF while parsing"),
            ("[]", "it is no JSON object"),
            ("{\"bipp\": \"x\"}", "don't match any configuration option: bipp (did you mean bip"),
            ("{\"selinux-enabled\": true}", "selinux-enabled is not supported: containers are"),
            ("{\"proxies\": {\"http-proxy\": \"x\"}}", "http-proxy is not supported"),
            ("{\"proxies\": {\"bip\": \"x\"}}", "any configuration option: proxies.bip"),
            ("{\"mtu\": \"x\"}", "mtu: found string"),
        ] {
            let error = configured(file, &serde_json::json!({})).unwrap_err().message;
            assert!(error.contains("daemon.json: ") && error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_key_is_said_once() {
        let flags = serde_json::json!({"mtu": 1400, "icc": false});
        let error = configured("{\"mtu\": 1500, \"debug\": true}", &flags).unwrap_err().message;
        assert!(error.ends_with("mtu: (from flag: 1400, from file: 1500)"), "{error}");
        let both = configured("{\"debug\": true}", &flags).unwrap();
        assert!(both.daemon.debug);
        assert_eq!(both.daemon.default_network().unwrap().mtu, Some(1400));
    }

    #[test]
    fn what_asks_for_nothing_is_taken() {
        let file = r#"{"selinux-enabled": false, "init-path": "", "storage-opts": [], "builder": {},
            "metrics-addr": "", "proxies": {"http-proxy": ""}, "runtimes": null, "containerd": "",
            "userland-proxy": false, "experimental": true}"#;
        let read = configured(file, &serde_json::json!({})).unwrap();
        assert_eq!(read.remarks.len(), 1, "{:?}", read.remarks);
        assert!(read.remarks[0].starts_with("experimental has no effect: "), "{:?}", read.remarks);
        assert!(configured("\u{feff} ", &serde_json::json!({})).is_ok());
    }

    #[test]
    fn what_needs_a_restart_is_known() {
        let none = serde_json::json!({});
        let old = configured(r#"{"mtu": 1400, "debug": false, "labels": ["a=b"]}"#, &none).unwrap();
        let new = configured(r#"{"bip": "10.0.0.1/24", "debug": true}"#, &none).unwrap();
        assert_eq!(old.stays(&new), ["bip", "mtu"]);
        assert!(old.stays(&old.clone()).is_empty());
    }
}
