//! The files that tell a container who it is and where names are answered.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use crate::text::serde_by_text;
use crate::{ContainerConfig, EngineError, HostConfig};

/// `--add-host`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraHost {
    name: String,
    address: HostAddress,
    /// As it was asked for.
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostAddress {
    /// This host as the container sees it.
    Gateway,
    Ip(IpAddr),
}

impl FromStr for ExtraHost {
    type Err = EngineError;

    /// Reads `name:address` or `name=address`.
    fn from_str(text: &str) -> Result<Self, EngineError> {
        let invalid = || EngineError::invalid(format!("bad format for add-host: \"{text}\""));
        let (name, address) =
            text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(invalid)?;
        if name.is_empty() || !is_word(name) {
            return Err(invalid());
        }
        let address = match address.trim_start_matches('[').trim_end_matches(']') {
            "host-gateway" => HostAddress::Gateway,
            other => HostAddress::Ip(other.parse().map_err(|_| {
                EngineError::invalid(format!("invalid IP address in add-host: \"{address}\""))
            })?),
        };
        Ok(Self { name: name.to_owned(), address, text: text.to_owned() })
    }
}

impl fmt::Display for ExtraHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

serde_by_text!(ExtraHost);

impl ExtraHost {
    pub(crate) fn line(&self, host_gateway: Ipv4Addr) -> HostLine {
        let address = match self.address {
            HostAddress::Gateway => IpAddr::V4(host_gateway),
            HostAddress::Ip(address) => address,
        };
        HostLine { address: address.to_string(), names: vec![self.name.clone()] }
    }
}

/// One line of `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostLine {
    pub address: String,
    pub names: Vec<String>,
}

/// Refuses what would not stay one word, or one line, of the files that are written from it.
pub(crate) fn check(config: &ContainerConfig, host: &HostConfig) -> Result<(), EngineError> {
    for (what, text) in [("hostname", &config.hostname), ("domain name", &config.domainname)] {
        // sethostname(2) takes 64 bytes
        if !is_word(text) || text.len() > 64 {
            return Err(EngineError::invalid(format!("invalid {what}: {text:?}")));
        }
    }
    for (what, words) in [("search domain", &host.dns_search), ("option", &host.dns_options)] {
        if let Some(wrong) = words.iter().find(|word| !is_word(word)) {
            return Err(EngineError::invalid(format!("invalid DNS {what}: {wrong:?}")));
        }
    }
    Ok(())
}

/// Whether a text is one word of one line.
pub(crate) fn is_word(text: &str) -> bool {
    !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// `/etc/hosts` of a container: the usual names, what was asked for, its own name last.
pub(crate) fn hosts_file(lines: &[HostLine], own: Option<(Ipv4Addr, &str, &str)>) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\n\
         ff02::2\tip6-allrouters\n",
    );
    for line in lines {
        let _ = writeln!(text, "{}\t{}", line.address, line.names.join(" "));
    }
    if let Some((address, hostname, domain)) = own {
        // the name in full, then its first label, which is all that most programs ask for
        let full =
            if domain.is_empty() { hostname.to_owned() } else { format!("{hostname}.{domain}") };
        let _ = match full.split_once('.') {
            Some((short, _)) => writeln!(text, "{address}\t{full} {short}"),
            None => writeln!(text, "{address}\t{full}"),
        };
    }
    text
}

/// `/etc/resolv.conf` of a container with a network of its own, made from the host's.
///
/// Servers on a loopback address are the host's own and cannot be reached from inside; if none is
/// left, two public ones are used, as Docker does (moby: libnetwork/internal/resolvconf).
pub(crate) fn resolv_conf(host_file: &str, config: &HostConfig) -> String {
    let values = |keyword: &str| -> Vec<String> {
        host_file
            .lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                (words.next()? == keyword).then(|| words.map(str::to_owned).collect::<Vec<_>>())
            })
            .flatten()
            .collect()
    };
    let mut servers: Vec<String> = config.dns.iter().map(IpAddr::to_string).collect();
    if servers.is_empty() {
        servers = values("nameserver");
        servers.retain(|server| {
            let address = server.split('%').next().unwrap_or(server);
            address.parse::<IpAddr>().is_ok_and(|address| !address.is_loopback())
        });
    }
    if servers.is_empty() {
        servers = vec!["8.8.8.8".to_owned(), "8.8.4.4".to_owned()];
    }
    let or_host = |own: &[String], keyword| {
        if own.is_empty() { values(keyword) } else { own.to_vec() }
    };
    let mut search = or_host(&config.dns_search, "search");
    search.retain(|domain| domain != ".");
    let options = or_host(&config.dns_options, "options");
    let mut text = String::new();
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_name_links_and_extra_hosts_are_written() {
        let gateway = Ipv4Addr::new(172, 17, 0, 1);
        let extra = |text: &str| text.parse::<ExtraHost>().unwrap().line(gateway);
        let lines = [
            extra("db:10.0.0.9"),
            extra("six=::2"),
            extra("up:host-gateway"),
            HostLine {
                address: "172.17.0.3".into(),
                names: vec!["web".into(), "0123".into(), "ecs-web-1".into()],
            },
        ];
        let text = hosts_file(&lines, Some((Ipv4Addr::new(172, 17, 0, 2), "box", "lan")));
        for line in [
            "127.0.0.1\tlocalhost",
            "10.0.0.9\tdb",
            "::2\tsix",
            "172.17.0.1\tup",
            "172.17.0.3\tweb 0123 ecs-web-1",
            "172.17.0.2\tbox.lan box",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} is missing in\n{text}");
        }
        let own = |hostname, domain| {
            hosts_file(&[], Some((Ipv4Addr::new(172, 17, 0, 2), hostname, domain)))
        };
        assert!(own("web.ex.com", "").ends_with("172.17.0.2\tweb.ex.com web\n"));
        assert!(own("web", "").ends_with("172.17.0.2\tweb\n"));
        for wrong in ["db", "db:", "db:x", ":1.1.1.1", "a b:1.1.1.1"] {
            assert!(wrong.parse::<ExtraHost>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_line_is_smuggled_in() {
        let line = || "a\n6.6.6.6 evil".to_owned();
        let config = ContainerConfig::default;
        assert!(check(&config(), &HostConfig::default()).is_ok());
        for wrong in [
            ContainerConfig { hostname: line(), ..config() },
            ContainerConfig { domainname: line(), ..config() },
            ContainerConfig { hostname: "a b".into(), ..config() },
            ContainerConfig { hostname: "a".repeat(65), ..config() },
        ] {
            assert!(check(&wrong, &HostConfig::default()).is_err(), "{wrong:?}");
        }
        for wrong in [
            HostConfig { dns_search: vec![line()], ..HostConfig::default() },
            HostConfig { dns_options: vec![line()], ..HostConfig::default() },
        ] {
            assert!(check(&config(), &wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn loopback_servers_of_the_host_are_left_out() {
        let host = "# c\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nnameserver ::1\n\
                    search a.example b.example\noptions edns0\n";
        assert_eq!(
            resolv_conf(host, &HostConfig::default()),
            "nameserver 10.0.0.2\nsearch a.example b.example\noptions edns0\n"
        );
        assert_eq!(
            resolv_conf("nameserver 127.0.0.1\n", &HostConfig::default()),
            "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"
        );
        let own = HostConfig {
            dns: vec!["1.2.3.4".parse().unwrap()],
            dns_search: vec![".".into()],
            dns_options: vec!["ndots:2".into()],
            ..HostConfig::default()
        };
        assert_eq!(resolv_conf(host, &own), "nameserver 1.2.3.4\noptions ndots:2\n");
    }
}
