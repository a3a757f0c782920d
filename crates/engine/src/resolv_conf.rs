//! The host's `/etc/resolv.conf`, of which each container's is made.

use std::net::IpAddr;

/// What a resolv.conf(5) says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    pub servers: Vec<Server>,
    pub search: Vec<String>,
    pub options: Vec<String>,
    /// Lines of other keywords.
    pub other: Vec<String>,
}

/// A `nameserver`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Server {
    At(IpAddr),
    /// `fe80::1%eth0`: an address of one link.
    OnLink(String),
    /// What is no address.
    Invalid(String),
}

impl ResolvConf {
    pub(crate) fn parse(text: &str) -> Self {
        let mut parsed = Self::default();
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_whitespace();
            let Some(keyword) = words.next() else { continue };
            let mut rest: Vec<String> = words.map(str::to_owned).collect();
            match keyword {
                "nameserver" => parsed.servers.extend(rest.first().map(|word| Server::parse(word))),
                // the older word; of several, the last counts
                "domain" | "search" if !rest.is_empty() => parsed.search = rest,
                "options" => parsed.options.append(&mut rest),
                "domain" | "search" => {}
                _ => parsed.other.push(line.to_owned()),
            }
        }
        parsed
    }
}

impl Server {
    fn parse(word: &str) -> Self {
        let address = |text: &str| text.parse::<IpAddr>().ok();
        match (address(word), word.split_once('%')) {
            (Some(address), _) => Self::At(address),
            (None, Some((before, _))) if address(before).is_some() => Self::OnLink(word.to_owned()),
            _ => Self::Invalid(word.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_the_manual_page_says() {
        let text = "# c\n;c\nnameserver 10.0.0.2 trailing\nnameserver fe80::1%eth0\nnameserver x\nnameserver\n\
                    domain old.example\nsearch a.example b.example\nsearch\noptions edns0\n\
                    options ndots:2 rotate\nsortlist 10.0.0.0\n\n";
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        assert_eq!(
            ResolvConf::parse(text),
            ResolvConf {
                servers: vec![
                    Server::At("10.0.0.2".parse().unwrap()),
                    Server::OnLink("fe80::1%eth0".into()),
                    Server::Invalid("x".into()),
                ],
                search: words(&["a.example", "b.example"]),
                options: words(&["edns0", "ndots:2", "rotate"]),
                other: words(&["sortlist 10.0.0.0"]),
            }
        );
        assert_eq!(ResolvConf::parse("domain old.example\n").search, ["old.example"]);
        assert_eq!(ResolvConf::parse(""), ResolvConf::default());
    }
}
