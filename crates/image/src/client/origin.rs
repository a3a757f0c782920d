use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use bulkhead_types::DEFAULT_DOMAIN;

/// Scheme, host and port: whom one talks to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    pub(crate) tls: bool,
    /// In lower case, IPv6 without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Origin {
    /// Where the registry of a reference is reached; plain HTTP is decided at the connection.
    pub(crate) fn of_registry(domain: &str) -> Self {
        let domain = if domain == DEFAULT_DOMAIN { "registry-1.docker.io" } else { domain };
        Self::parse(&format!("https://{domain}")).unwrap_or_else(|| Self {
            tls: true,
            host: domain.to_owned(),
            port: 443,
        })
    }

    /// Reads `http(s)://host[:port]`; what follows is ignored.
    pub(crate) fn parse(address: &str) -> Option<Self> {
        let uri: http::Uri = address.parse().ok()?;
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let host = uri.host()?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Some(Self { tls, host: host.to_ascii_lowercase(), port })
    }

    /// The value of the `Host` header, which is also how registries are named.
    pub(crate) fn authority(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }

    pub(crate) fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host == "localhost",
        }
    }

    /// Whether `other` is run by the same people as far as a name can tell: the same host, or a
    /// neighbour in the same domain (`registry.gitlab.com` and `gitlab.com`).
    ///
    /// Two labels make a domain here, so `a.co.uk` and `b.co.uk` are one; but then the realm came
    /// by TLS from the registry that the user logs in to.
    pub(crate) fn is_kin_of(&self, other: &Self) -> bool {
        if self.host == other.host {
            return true;
        }
        let domain = |origin: &Self| -> Option<String> {
            if origin.host.parse::<IpAddr>().is_ok() {
                return None;
            }
            let mut labels = origin.host.rsplit('.');
            let (top, second) = (labels.next()?, labels.next()?);
            Some(format!("{second}.{top}"))
        };
        domain(self).is_some_and(|own| Some(own) == domain(other))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

/// Addresses that a public registry has no reason to send anyone to: cloud metadata services and
/// the inside of other people's networks.
pub(crate) fn is_internal(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_internal_v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => is_internal_v4(address),
            None => {
                address.is_loopback()
                    || address.is_unspecified()
                    || address.is_unique_local()
                    || address.is_unicast_link_local()
            }
        },
    }
}

fn is_internal_v4(address: Ipv4Addr) -> bool {
    address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_unspecified()
        || address.is_broadcast()
        || (address.octets()[0] == 100 && address.octets()[1] & 0xc0 == 64) // RFC 6598
}

/// A resource somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) origin: Origin,
    /// Path and query.
    pub(crate) path: String,
}

impl Url {
    /// Reads a `Location`, absolute or relative to `self` (RFC 3986, with a path from the root).
    pub(crate) fn join(&self, location: &str) -> Option<Self> {
        if let Some(rest) = location.strip_prefix('/').filter(|rest| !rest.starts_with('/')) {
            return Some(Self { origin: self.origin.clone(), path: format!("/{rest}") });
        }
        let uri: http::Uri = location.parse().ok()?;
        let origin = Origin::parse(location)?;
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        Some(Self { origin, path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read() {
        for (text, expected) in [
            ("https://Registry.Example", Some((true, "registry.example", 443))),
            ("http://[::1]:5000/x", Some((false, "::1", 5000))),
            ("ftp://x", None),
            ("x", None),
            ("", None),
        ] {
            let expected = expected.map(|(tls, host, port)| {
                let host = String::from(host);
                Origin { tls, host, port }
            });
            assert_eq!(Origin::parse(text), expected, "{text}");
        }
        assert_eq!(Origin::of_registry("docker.io").host, "registry-1.docker.io");
        assert_eq!(Origin::of_registry("[::1]:5000").authority(), "[::1]:5000");
    }

    #[test]
    fn kin_share_a_domain() {
        for (one, other, kin) in [
            ("registry-1.docker.io", "auth.docker.io", true),
            ("registry.gitlab.com", "gitlab.com", true),
            ("10.0.0.1", "9.0.0.1", false),
            ("ghcr.io", "evil.io", false),
            ("localhost", "localhost", true),
            ("a.example", "example", false),
        ] {
            let origin = |host: &str| Origin { tls: true, host: host.to_owned(), port: 443 };
            assert_eq!(origin(one).is_kin_of(&origin(other)), kin, "{one} {other}");
        }
    }

    #[test]
    fn locations_are_joined() {
        let base = Url { origin: Origin::of_registry("r.example"), path: "/v2/".to_owned() };
        for (location, expected) in [
            ("/a?b=c", Some("https://r.example/a?b=c")),
            ("http://o.example:81/x", Some("http://o.example:81/x")),
            ("//o.example/x", None),
            ("x", None),
            ("file:///etc/passwd", None),
        ] {
            let joined = base.join(location).map(|url| format!("{}{}", url.origin, url.path));
            assert_eq!(joined.as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn internal_addresses_are_known() {
        for (address, internal) in [
            ("169.254.169.254", true),
            ("10.1.2.3", true),
            ("::ffff:127.0.0.1", true),
            ("fd00::1", true),
            ("100.64.0.1", true),
            ("1.1.1.1", false),
            ("2606:4700::1", false),
        ] {
            assert_eq!(is_internal(address.parse().expect(address)), internal, "{address}");
        }
    }
}
