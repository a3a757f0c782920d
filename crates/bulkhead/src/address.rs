//! Where the API listens: `unix://PATH`, `tcp://ADDRESS:PORT`, `fd://`, and what clients may do there.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bulkhead_docker_api::Role;

/// A place to listen at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Unix(PathBuf),
    /// `None` is the port that goes with TLS or without: 2376, 2375.
    Tcp(IpAddr, Option<u16>),
    /// Sockets that a service manager has opened (sd_listen_fds(3)): all, or the one of that number.
    Inherited(Option<u32>),
}

impl FromStr for Place {
    type Err = String;

    /// Reads what dockerd's `--host` takes.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no place to listen at: name unix://PATH, tcp://ADDRESS:PORT or fd://"
            )
        };
        match text.trim().split_once("://") {
            Some(("unix", "")) => Ok(Self::Unix("/var/run/docker.sock".into())),
            Some(("unix", path)) if path.starts_with('/') && !path.ends_with('/') => {
                Ok(Self::Unix(path.into()))
            }
            Some(("fd", "" | "*")) => Ok(Self::Inherited(None)),
            Some(("fd", number)) => {
                let number = number.parse().ok().filter(|number| *number >= 3);
                number.map(|number| Self::Inherited(Some(number))).ok_or_else(wrong)
            }
            Some(("tcp", address)) => tcp(address).ok_or_else(wrong),
            None if !text.starts_with('/') => tcp(text).ok_or_else(wrong),
            _ => Err(wrong()),
        }
    }
}

/// `ADDRESS`, `ADDRESS:PORT`, `[ADDRESS]:PORT` or `:PORT`; none is this host alone, as for dockerd.
fn tcp(text: &str) -> Option<Place> {
    let text = text.trim_end_matches('/');
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    if text.is_empty() {
        return Some(Place::Tcp(local, None));
    }
    if let Some(port) = text.strip_prefix(':') {
        return Some(Place::Tcp(local, Some(port.parse().ok()?)));
    }
    let text = text.replacen("localhost", "127.0.0.1", 1);
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(Place::Tcp(address.ip(), Some(address.port())));
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse().ok().map(|address| Place::Tcp(address, None))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address, port) => {
                write!(f, "tcp://{}", SocketAddr::new(*address, port.unwrap_or(0)))
            }
            Self::Inherited(None) => f.write_str("fd://"),
            Self::Inherited(Some(number)) => write!(f, "fd://{number}"),
        }
    }
}

/// A socket of the API besides the engine's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Socket {
    pub place: Place,
    pub role: Role,
    pub group: Option<String>,
}

impl Socket {
    /// # Errors
    /// A sentence, where there is no such place or role.
    pub fn new(place: &str, role: &str, group: Option<String>) -> Result<Self, String> {
        let place = match place.contains("://") {
            true => place.parse()?,
            false if !Path::new(place).is_absolute() || place.ends_with('/') => {
                return Err(format!(
                    "{place:?} is no place for a socket: name a file from / on, such as \
                     /run/proxy/docker.sock:role=read-only"
                ));
            }
            false => Place::Unix(place.into()),
        };
        let role = role.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { place, role, group })
    }

    /// The file that it is, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            Place::Unix(path) => Some(path),
            Place::Tcp(..) | Place::Inherited(_) => None,
        }
    }
}

impl FromStr for Socket {
    type Err = String;

    /// Reads `PATH[:OPTION,…]`, or `tcp://ADDRESS:PORT[:OPTION,…]`.
    fn from_str(text: &str) -> Result<Self, String> {
        let options = ["role=", "label=", "group="];
        let is_option = |at: &usize| options.iter().any(|word| text[at + 1..].starts_with(word));
        let colon = text.match_indices(':').map(|(at, _)| at).find(is_option);
        let (place, words) = match colon {
            Some(at) => (&text[..at], &text[at + 1..]),
            None => (text, ""),
        };
        let (groups, role): (Vec<&str>, Vec<&str>) =
            words.split(',').partition(|word| word.starts_with("group="));
        let group = groups.first().map(|word| word["group=".len()..].to_owned());
        Self::new(place, &role.join(","), group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_a_path_and_what_it_is_for() {
        let read = |text: &str| text.parse::<Socket>();
        let all = read("/run/a.sock").unwrap();
        let place = Place::Unix("/run/a.sock".into());
        assert_eq!((all.place, all.role, all.group), (place, Role::default(), None));
        let less = read("/run/a:b.sock:label=a=b:c,group=ops,role=read-only").unwrap();
        assert_eq!(less.path(), Some(Path::new("/run/a:b.sock")));
        assert_eq!(less.role.to_string(), "role=read-only,label=a=b:c");
        assert_eq!(less.group.as_deref(), Some("ops"));
        let far = read("tcp://127.0.0.1:2376:role=read-only").unwrap();
        assert_eq!(far.place, Place::Tcp(Ipv4Addr::LOCALHOST.into(), Some(2376)));
        assert!(far.role.read_only);
        for wrong in ["a.sock", "/run/", "/run/a.sock:role=admin", ":role=read-only", "/a:label="] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn places_are_what_dockerd_takes() {
        for (text, shown) in [
            ("unix:///run/x.sock", "unix:///run/x.sock"),
            ("unix://", "unix:///var/run/docker.sock"),
            ("fd://", "fd://"),
            ("fd://*", "fd://"),
            ("fd://3", "fd://3"),
            ("tcp://0.0.0.0:2376", "tcp://0.0.0.0:2376"),
            ("tcp://10.0.0.1", "tcp://10.0.0.1:0"),
            ("tcp://[::1]:7", "tcp://[::1]:7"),
            ("tcp://[::1]", "tcp://[::1]:0"),
            ("tcp://localhost:7/", "tcp://127.0.0.1:7"),
            ("tcp://", "tcp://127.0.0.1:0"),
            (":2375", "tcp://127.0.0.1:2375"),
        ] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), shown, "{text}");
        }
        for wrong in
            ["npipe://x", "unix://x", "fd://2", "fd://x", "tcp://a.example:1", "/x", "tcp://:x"]
        {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
