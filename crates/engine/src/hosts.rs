//! The files that tell a container who it is and where names are answered.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use crate::extra_host::{HostLine, is_word};
use crate::resolv_conf::{ResolvConf, Server};
use crate::{ContainerConfig, EngineError, HostConfig};

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
    let host = ResolvConf::parse(host_file);
    let mut servers: Vec<String> = config.dns.iter().map(IpAddr::to_string).collect();
    if servers.is_empty() {
        servers.extend(host.servers.into_iter().filter_map(|server| match server {
            Server::At(address) => (!address.is_loopback()).then(|| address.to_string()),
            Server::OnLink(text) => Some(text),
            Server::Invalid(_) => None,
        }));
    }
    if servers.is_empty() {
        servers = vec!["8.8.8.8".to_owned(), "8.8.4.4".to_owned()];
    }
    let or_host = |own: &[String], host| if own.is_empty() { host } else { own.to_vec() };
    let mut search = or_host(&config.dns_search, host.search);
    search.retain(|domain| domain != ".");
    let options = or_host(&config.dns_options, host.options);
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
    for line in host.other {
        let _ = writeln!(text, "{line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ExtraHost;

    #[test]
    fn own_name_links_and_extra_hosts_are_written() {
        let gateway = Ipv4Addr::new(172, 17, 0, 1);
        let extra = |text: &str| {
            let read = text.parse::<ExtraHost>().unwrap();
            read.lines(&[gateway.into()]).remove(0)
        };
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
        let host = "# c\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nnameserver ::1\nnameserver x\n\
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
