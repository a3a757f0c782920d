//! The firewall of a namespace, whoever made it, for people to read.

use std::io;

use super::attributes::{Attributes, each};
use super::socket::Nfnetlink;

/// A chain of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// `inet`, `ip`, `ip6`, `arp`, `bridge` or `netdev`.
    pub family: &'static str,
    pub table: String,
    pub name: String,
    /// Where packets come to it by themselves; others are reached by jumps.
    pub hook: Option<Hook>,
    /// In order, each by its parts.
    pub rules: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// `filter`, `nat` or `route`.
    pub kind: String,
    pub place: &'static str,
    pub priority: i32,
    /// Whether a packet goes on that no rule decides about.
    pub accepts: bool,
}

/// All chains of the namespace that the socket was opened in.
pub(crate) fn chains(socket: &mut Nfnetlink) -> io::Result<Vec<Chain>> {
    let mut chains = Vec::new();
    socket.ask(0, GET_CHAIN, true, &Attributes::default(), |body| chains.extend(chain(body)))?;
    let mut rules = Vec::new();
    socket.ask(0, GET_RULE, true, &Attributes::default(), |body| rules.extend(rule(body)))?;
    for (family, table, name, text) in rules {
        let of = |chain: &&mut Chain| {
            chain.family == family && chain.table == table && chain.name == name
        };
        if let Some(chain) = chains.iter_mut().find(of) {
            chain.rules.push(text);
        }
    }
    Ok(chains)
}

const GET_CHAIN: u16 = 10 << 8 | 4; // NFNL_SUBSYS_NFTABLES, NFT_MSG_GETCHAIN
const GET_RULE: u16 = 10 << 8 | 7; // NFT_MSG_GETRULE

fn family(body: &[u8]) -> Option<&'static str> {
    Some(match body.first()? {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => return None,
    })
}

fn chain(body: &[u8]) -> Option<Chain> {
    let family = family(body)?;
    let attributes = Attributed(body.get(4..)?);
    let hook = attributes.of(4).map(Attributed).and_then(|hook| {
        Some(Hook {
            kind: attributes.text(7).unwrap_or_default(),
            place: place(family, hook.number(1)?),
            priority: hook.number(2)?.cast_signed(),
            accepts: attributes.number(5) != Some(0),
        })
    });
    let (table, name) = (attributes.text(1)?, attributes.text(3)?);
    Some(Chain { family, table, name, hook, rules: Vec::new() })
}

/// include/uapi/linux/netfilter.h and netfilter_arp.h; a device has two places of its own.
fn place(family: &str, number: u32) -> &'static str {
    match (family, number) {
        ("netdev", 0) => "ingress",
        ("netdev", 1) => "egress",
        ("arp", 0) => "input",
        ("arp", 1) => "output",
        (_, 0) => "prerouting",
        (_, 1) => "input",
        (_, 2) => "forward",
        (_, 3) => "output",
        (_, 4) => "postrouting",
        (_, 5) => "ingress",
        _ => "?",
    }
}

/// Family, table, chain, and the rule.
fn rule(body: &[u8]) -> Option<(&'static str, String, String, String)> {
    let family = family(body)?;
    let attributes = Attributed(body.get(4..)?);
    let parts = attributes.of(4).into_iter().flat_map(each);
    let parts: Vec<String> = parts.filter_map(|(_, part)| expression(Attributed(part))).collect();
    Some((family, attributes.text(1)?, attributes.text(2)?, parts.join(", ")))
}

/// What a part of a rule does, as far as one can say it in a word or two.
fn expression(part: Attributed<'_>) -> Option<String> {
    let name = part.text(1)?;
    let data = Attributed(part.of(2).unwrap_or_default());
    Some(match name.as_str() {
        "counter" => {
            let count = |kind| data.of(kind).and_then(|bytes| bytes.try_into().ok());
            let count = |kind| count(kind).map_or(0, u64::from_be_bytes);
            format!("counter packets {} bytes {}", count(2), count(1))
        }
        "immediate" => {
            let value = Attributed(data.of(2).unwrap_or_default());
            match value.of(2).map(Attributed) {
                Some(verdict) => self::verdict(verdict),
                None => "immediate".to_owned(),
            }
        }
        "meta" => match data.number(2).and_then(|key| META.get(key as usize)) {
            Some(key) => format!("meta {key}"),
            None => name,
        },
        "ct" => "ct".to_owned(),
        "payload" => {
            let base = ["link", "network", "transport", "inner"];
            let base = data.number(2).and_then(|number| base.get(number as usize));
            let (offset, length) = (data.number(3).unwrap_or(0), data.number(4).unwrap_or(0));
            format!("{} header {offset}+{length}", base.unwrap_or(&"packet"))
        }
        "cmp" => {
            let signs = ["==", "!=", "<", "<=", ">", ">="];
            let sign = data.number(2).and_then(|number| signs.get(number as usize));
            let value = Attributed(data.of(3).unwrap_or_default());
            format!("{} {}", sign.unwrap_or(&"?"), shown(value.of(1).unwrap_or_default()))
        }
        "lookup" => format!("in @{}", data.text(1).unwrap_or_default()),
        // of iptables' own
        "match" | "target" => format!("{name} {}", data.text(1).unwrap_or_default()),
        "masq" => "masquerade".to_owned(),
        "nat" => match data.number(1) {
            Some(0) => "snat".to_owned(),
            _ => "dnat".to_owned(),
        },
        _ => name,
    })
}

/// include/uapi/linux/netfilter/nf_tables.h, `NFT_META_*`
const META: [&str; 20] = [
    "length",
    "protocol",
    "priority",
    "mark",
    "iif",
    "oif",
    "iifname",
    "oifname",
    "iiftype",
    "oiftype",
    "skuid",
    "skgid",
    "nftrace",
    "rtclassid",
    "secmark",
    "nfproto",
    "l4proto",
    "ibrname",
    "obrname",
    "pkttype",
];

fn verdict(verdict: Attributed<'_>) -> String {
    let to = verdict.text(2).unwrap_or_default();
    match verdict.number(1).map(u32::cast_signed) {
        Some(0) => "drop".to_owned(),
        Some(1) => "accept".to_owned(),
        Some(3) => "queue".to_owned(),
        Some(-1) => "continue".to_owned(),
        Some(-2) => "break".to_owned(),
        Some(-3) => format!("jump {to}"),
        Some(-4) => format!("goto {to}"),
        Some(-5) => "return".to_owned(),
        _ => "?".to_owned(),
    }
}

/// A value as a name if it looks like one, as an address if it is as long, else as bytes.
fn shown(value: &[u8]) -> String {
    let end = value.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let text = &value[..end];
    if text.len() > 1 && text.iter().all(|byte| byte.is_ascii_graphic()) {
        return format!("{:?}", String::from_utf8_lossy(text));
    }
    match value {
        [a, b, c, d] => format!("{a}.{b}.{c}.{d}"),
        [a, b] => u16::from_be_bytes([*a, *b]).to_string(),
        [a] => a.to_string(),
        _ => value.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// Attributes one after the other.
#[derive(Clone, Copy)]
struct Attributed<'a>(&'a [u8]);

impl<'a> Attributed<'a> {
    fn of(self, wanted: u16) -> Option<&'a [u8]> {
        each(self.0).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
    }

    fn number(self, wanted: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.of(wanted)?.try_into().ok()?))
    }

    fn text(self, wanted: u16) -> Option<String> {
        let text = self.of(wanted)?;
        Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read_by_its_parts() {
        let mut message = Attributes::default();
        message.text(1, "filter").text(2, "in").nested(4, |list| {
            list.nested(1, |part| {
                part.text(1, "meta").nested(2, |data| {
                    data.number(2, 6);
                });
            });
            list.nested(1, |part| {
                part.text(1, "cmp").nested(2, |data| {
                    data.number(2, 0).nested(3, |value| {
                        value.bytes(1, b"eth0\0\0\0\0");
                    });
                });
            });
            list.nested(1, |part| {
                part.text(1, "immediate").nested(2, |data| {
                    data.nested(2, |value| {
                        value.nested(2, |verdict| {
                            verdict.number(1, 0);
                        });
                    });
                });
            });
        });
        let body = [&[2, 0, 0, 0], message.as_bytes()].concat();
        let expected = "meta iifname, == \"eth0\", drop".to_owned();
        assert_eq!(rule(&body), Some(("ip", "filter".to_owned(), "in".to_owned(), expected)));
        assert_eq!(shown(&[10, 0, 0, 1]), "10.0.0.1");
        assert_eq!(shown(&[0, 80]), "80");
        assert_eq!(rule(&[]), None);
    }
}
