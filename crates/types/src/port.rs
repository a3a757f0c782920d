//! Ports as Docker writes them: `80/tcp`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The protocols whose ports can be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// The number in the IP header.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A port of a container; by number, tcp before udp before sctp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    number: u16,
    protocol: Protocol,
}

/// A text that names no port, or a protocol that has none to publish.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid port specification: {0:?}: a port is a number from 1 to 65535, with /tcp, /udp or /sctp behind it"
)]
pub struct InvalidPort(pub String);

impl Port {
    /// `None` for number 0, which is no port.
    pub const fn new(number: u16, protocol: Protocol) -> Option<Self> {
        if number == 0 { None } else { Some(Self { number, protocol }) }
    }

    pub const fn number(self) -> u16 {
        self.number
    }

    pub const fn protocol(self) -> Protocol {
        self.protocol
    }

    /// Reads `80`, `80/tcp` or `8000-8002/udp`, as `EXPOSE` and `--expose` take them.
    ///
    /// # Errors
    /// Where an end is no port, or the last is below the first.
    pub fn range(text: &str) -> Result<Vec<Self>, InvalidPort> {
        let invalid = || InvalidPort(text.to_owned());
        let (ports, protocol) = split(text).ok_or_else(invalid)?;
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let port = |text: &str| text.parse().ok().and_then(|number| Self::new(number, protocol));
        let (first, last) = port(first)
            .zip(port(last))
            .filter(|(first, last)| first <= last)
            .ok_or_else(invalid)?;
        Ok((first.number..=last.number).map(|number| Self { number, protocol }).collect())
    }
}

/// The port or ports of `text`, and its protocol: tcp unless it says so.
fn split(text: &str) -> Option<(&str, Protocol)> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Some((ports, Protocol::Tcp)),
        "udp" => Some((ports, Protocol::Udp)),
        "sctp" => Some((ports, Protocol::Sctp)),
        _ => None,
    }
}

impl FromStr for Port {
    type Err = InvalidPort;

    fn from_str(text: &str) -> Result<Self, InvalidPort> {
        split(text)
            .and_then(|(number, protocol)| Self::new(number.parse().ok()?, protocol))
            .ok_or_else(|| InvalidPort(text.to_owned()))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol)
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Records of before the type hold `[80, "tcp"]`.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Pair(u16, Protocol),
        }
        let invalid = |port: String| serde::de::Error::custom(InvalidPort(port));
        match Form::deserialize(deserializer)? {
            Form::Text(text) => text.parse().map_err(serde::de::Error::custom),
            Form::Pair(number, protocol) => {
                Self::new(number, protocol).ok_or_else(|| invalid(format!("{number}/{protocol}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_and_written_as_docker_does() {
        for (text, number, protocol, shown) in [
            ("80", 80, Protocol::Tcp, "80/tcp"),
            ("80/tcp", 80, Protocol::Tcp, "80/tcp"),
            ("53/UDP", 53, Protocol::Udp, "53/udp"),
            ("65535/udp", 65535, Protocol::Udp, "65535/udp"),
            ("9/Sctp", 9, Protocol::Sctp, "9/sctp"),
        ] {
            let port: Port = text.parse().unwrap();
            assert_eq!((port.number(), port.protocol()), (number, protocol), "{text}");
            assert_eq!(port.to_string(), shown);
        }
        for wrong in ["", "0", "65536", "x", "80/", "80/icmp", "80/tcp/udp", "-1", "1-2"] {
            assert!(wrong.parse::<Port>().is_err(), "{wrong}");
        }
        assert_eq!(Port::range("8000-8002/udp").unwrap().len(), 3);
        for wrong in ["", "2-1", "0-1", "1-", "-1", "1-65536", "1-2/x"] {
            assert!(Port::range(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn records_of_before_the_type_are_read() {
        let ports: Vec<Port> = serde_json::from_str(r#"[[80,"tcp"],"53/udp"]"#).unwrap();
        assert_eq!(serde_json::to_string(&ports).unwrap(), r#"["80/tcp","53/udp"]"#);
    }
}
