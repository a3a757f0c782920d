//! `POST /containers/create`

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::null::object;
use crate::{HostConfig, NetworkingConfig};

object! {
    /// Docker's `Config` with the three members that a create request has beside it.
    pub struct ContainerCreate {
        pub hostname: String,
        pub domainname: String,
        pub user: String,
        pub attach_stdin: bool,
        pub attach_stdout: bool,
        pub attach_stderr: bool,
        /// `80/tcp`
        pub exposed_ports: BTreeMap<String, Option<Empty>>,
        pub tty: bool,
        pub open_stdin: bool,
        pub stdin_once: bool,
        pub env: Vec<String>,
        pub cmd: Option<Words>,
        pub healthcheck: Option<Healthcheck>,
        pub image: String,
        pub volumes: BTreeMap<String, Option<Empty>>,
        pub working_dir: String,
        /// A list that is empty takes the image's away.
        pub entrypoint: Option<Words>,
        pub network_disabled: bool,
        /// Until API 1.43 the address stood here; now it is an endpoint's.
        pub mac_address: String,
        pub labels: BTreeMap<String, String>,
        /// What runs a health check that is a line of a shell.
        pub shell: Vec<String>,
        pub stop_signal: String,
        pub stop_timeout: Option<i64>,
        /// docker-py writes it here, where Docker does not look: `HostConfig` has it.
        pub runtime: String,
        pub host_config: HostConfig,
        pub networking_config: NetworkingConfig,
    }
}

object! {
    /// Durations are nanoseconds; 0 is the default.
    pub struct Healthcheck {
        pub test: Vec<String>,
        pub interval: i64,
        pub timeout: i64,
        pub start_period: i64,
        pub start_interval: i64,
        pub retries: i64,
    }
}

/// The `{}` that Go writes for a member of a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// A command is a list of words, or one word (moby: api/types/strslice).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Words(pub Vec<String>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WordsVisitor)
    }
}

/// Not an untagged enum: what is neither would be told in that one's words, without what was expected.
struct WordsVisitor;

impl<'de> Visitor<'de> for WordsVisitor {
    type Value = Words;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a word or a list of words")
    }

    fn visit_str<E>(self, word: &str) -> Result<Words, E> {
        Ok(Words(vec![word.to_owned()]))
    }

    fn visit_string<E>(self, word: String) -> Result<Words, E> {
        Ok(Words(vec![word]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, words: A) -> Result<Words, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(words)).map(Words)
    }
}

impl From<Vec<String>> for Words {
    fn from(words: Vec<String>) -> Self {
        Self(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_the_same_as_missing_and_zero_is_left_out() {
        let text = r#"{"Image":"x","Env":null,"Cmd":"a b","Entrypoint":[],"Labels":null,
            "ExposedPorts":{"80/tcp":null},"StopTimeout":null,
            "HostConfig":{"Binds":null,"PidsLimit":null,"LogConfig":null,
                "PortBindings":{"80/tcp":null,"81/tcp":[{"HostIp":null,"HostPort":"1"}]}},
            "NetworkingConfig":{"EndpointsConfig":{"default":null}}}"#;
        let body: ContainerCreate = serde_json::from_str(text).unwrap();
        assert_eq!(body.cmd, Some(Words(vec!["a b".to_owned()])));
        assert_eq!(body.entrypoint, Some(Words(Vec::new())));
        assert_eq!(body.host_config.port_bindings["80/tcp"], None);
        assert_eq!(
            serde_json::to_string(&body).unwrap(),
            r#"{"ExposedPorts":{"80/tcp":null},"Cmd":["a b"],"Image":"x","Entrypoint":[],"#
                .to_owned()
                + r#""HostConfig":{"PortBindings":{"80/tcp":null,"81/tcp":[{"HostIp":"","HostPort":"1"}]}},"#
                + r#""NetworkingConfig":{"EndpointsConfig":{"default":null}}}"#
        );
        assert!(serde_json::from_str::<ContainerCreate>(r#"{"Env":"A=1"}"#).is_err());
        // The members in their order are no object.
        for list in [r#"["name"]"#, r#"{"HostConfig":[]}"#, r#"{"Healthcheck":[["CMD","x"]]}"#] {
            assert!(serde_json::from_str::<ContainerCreate>(list).is_err(), "{list}");
        }
    }
}
