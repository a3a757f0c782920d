//! Whose namespaces a container has: Docker's modes, as types.

use std::fmt;
use std::str::FromStr;

use crate::EngineError;
use crate::text::serde_by_text;

/// `--network`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// On the default bridge.
    #[default]
    Bridge,
    /// Nothing but a loopback interface.
    None,
    Host,
    /// The network namespace of another container: what the request calls it, the full id once the
    /// container is created.
    Container(String),
    /// The network namespace of that name, which `ip netns` or `bulkhead netns` has made.
    Netns(String),
    /// On the network of that name or id.
    Named(String),
}

impl FromStr for NetworkMode {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self, EngineError> {
        Ok(match text {
            "" | "default" | "bridge" => Self::Bridge,
            "none" => Self::None,
            "host" => Self::Host,
            _ => match (text.strip_prefix("container:"), text.strip_prefix("netns:")) {
                (Some(""), _) => return Err(no_container("network", text)),
                (Some(name), _) => Self::Container(name.to_owned()),
                (None, Some(name)) => {
                    bulkhead_network::named::check(name)?;
                    Self::Netns(name.to_owned())
                }
                (None, None) => Self::Named(text.to_owned()),
            },
        })
    }
}

impl fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge => f.write_str("bridge"),
            Self::None => f.write_str("none"),
            Self::Host => f.write_str("host"),
            Self::Container(name) => write!(f, "container:{name}"),
            Self::Netns(name) => write!(f, "netns:{name}"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

serde_by_text!(NetworkMode);

/// `--ipc`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum IpcMode {
    /// Private, without a `/dev/shm`.
    None,
    #[default]
    Private,
    /// Private, and others may join it. They may in every case: the word is only repeated.
    Shareable,
    Host,
    Container(String),
}

impl FromStr for IpcMode {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self, EngineError> {
        Ok(match text {
            "none" => Self::None,
            "" | "private" => Self::Private,
            "shareable" => Self::Shareable,
            "host" => Self::Host,
            _ => match text.strip_prefix("container:") {
                Some(name) if !name.is_empty() => Self::Container(name.to_owned()),
                _ => return Err(invalid("IPC", text)),
            },
        })
    }
}

impl fmt::Display for IpcMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Private => f.write_str("private"),
            Self::Shareable => f.write_str("shareable"),
            Self::Host => f.write_str("host"),
            Self::Container(name) => write!(f, "container:{name}"),
        }
    }
}

serde_by_text!(IpcMode);

/// A mode of three cases; `$private` is what Docker shows of the first.
macro_rules! mode {
    ($(#[$about:meta])* $name:ident, $what:literal, $private:literal) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub enum $name {
            #[default]
            Private,
            Host,
            Container(String),
        }

        impl FromStr for $name {
            type Err = EngineError;

            fn from_str(text: &str) -> Result<Self, EngineError> {
                Ok(match text {
                    "" | "private" => Self::Private,
                    "host" => Self::Host,
                    _ => match text.strip_prefix("container:") {
                        Some(name) if !name.is_empty() => Self::Container(name.to_owned()),
                        _ => return Err(invalid($what, text)),
                    },
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    Self::Private => f.write_str($private),
                    Self::Host => f.write_str("host"),
                    Self::Container(name) => write!(f, "container:{name}"),
                }
            }
        }

        serde_by_text!($name);
    };
}

mode!(
    /// `--pid`
    PidMode,
    "PID",
    ""
);
mode!(
    /// `--uts`
    UtsMode,
    "UTS",
    ""
);
mode!(
    /// `--cgroupns`
    CgroupnsMode,
    "cgroup namespace",
    "private"
);

/// `--userns`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UsernsMode {
    /// A user namespace of its own where the host can give it one.
    #[default]
    Default,
    /// One of its own, or the container is not created.
    Private,
    Host,
}

impl FromStr for UsernsMode {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self, EngineError> {
        match text {
            "" => Ok(Self::Default),
            "private" => Ok(Self::Private),
            "host" => Ok(Self::Host),
            _ => Err(invalid("USER", text)),
        }
    }
}

impl fmt::Display for UsernsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "",
            Self::Private => "private",
            Self::Host => "host",
        })
    }
}

serde_by_text!(UsernsMode);

fn invalid(what: &str, text: &str) -> EngineError {
    EngineError::invalid(format!("invalid {what} mode: {text}"))
}

fn no_container(what: &str, text: &str) -> EngineError {
    EngineError::invalid(format!("invalid {what} mode: {text}: no container is named"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_once_and_shown_as_docker_shows_them() {
        for (text, shown) in [
            ("", "bridge"),
            ("default", "bridge"),
            ("none", "none"),
            ("host", "host"),
            ("container:web", "container:web"),
            ("front", "front"),
        ] {
            assert_eq!(text.parse::<NetworkMode>().unwrap().to_string(), shown);
        }
        for (text, shown) in [("", "private"), ("shareable", "shareable"), ("none", "none")] {
            assert_eq!(text.parse::<IpcMode>().unwrap().to_string(), shown);
        }
        assert_eq!("".parse::<PidMode>().unwrap().to_string(), "");
        assert_eq!("container:x".parse::<PidMode>().unwrap(), PidMode::Container("x".to_owned()));
        assert_eq!("".parse::<CgroupnsMode>().unwrap().to_string(), "private");
        assert_eq!("".parse::<UsernsMode>().unwrap(), UsernsMode::Default);
        assert!("container:".parse::<NetworkMode>().is_err());
        assert!("container:".parse::<PidMode>().is_err());
        assert!("nope".parse::<IpcMode>().is_err());
        assert!("nope".parse::<UtsMode>().is_err());
        assert!("container:x".parse::<UsernsMode>().is_err());
    }
}
