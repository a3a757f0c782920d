//! Ports as Docker shows them.

use std::cmp::Ordering;

/// One of the engine's `Ports`.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Port {
    #[serde(rename = "IP", default)]
    pub address: String,
    pub private_port: u16,
    pub public_port: Option<u16>,
    #[serde(rename = "Type")]
    pub protocol: String,
}

/// Ports by number, those next to each other as a range, and last those that have another number on the
/// host (docker/cli: cli/command/formatter/container.go).
pub fn shown(mut ports: Vec<Port>) -> String {
    let key = |port: &Port| (port.private_port, port.address.clone(), port.public_port);
    ports.sort_by(|one, other| {
        key(one).cmp(&key(other)).then_with(|| one.protocol.cmp(&other.protocol))
    });
    let (mut ranges, mut open, mut mapped) =
        (Vec::new(), Vec::<Range>::new(), Vec::<String>::new());
    for port in ports {
        let own = port.private_port;
        if !port.address.is_empty() && port.public_port != Some(own) {
            let public = address(&port.address, &port.public_port.unwrap_or(0).to_string());
            mapped.push(format!("{public}->{own}/{}", port.protocol));
            continue;
        }
        let same =
            |range: &&mut Range| range.address == port.address && range.protocol == port.protocol;
        match open.iter_mut().find(same) {
            Some(range) if range.last.checked_add(1) == Some(own) => range.last = own,
            Some(range) => {
                ranges.push(range.to_string());
                (range.first, range.last) = (own, own);
            }
            None => {
                let Port { address, protocol, .. } = port;
                open.push(Range { address, protocol, first: own, last: own });
            }
        }
    }
    ranges.extend(open.iter().map(Range::to_string));
    ranges.extend(mapped);
    ranges.join(", ")
}

struct Range {
    /// Empty for ports that are not published.
    address: String,
    protocol: String,
    first: u16,
    last: u16,
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ports = match self.first == self.last {
            true => self.first.to_string(),
            false => format!("{}-{}", self.first, self.last),
        };
        if !self.address.is_empty() {
            write!(f, "{}->", address(&self.address, &ports))?;
        }
        write!(f, "{ports}/{}", self.protocol)
    }
}

/// An address with a port, as Go's `net.JoinHostPort` writes it.
pub fn address(address: &str, port: &str) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// Compares texts with numbers in them as people do: `9/tcp` comes before `10/tcp`.
pub fn natural(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one.as_bytes(), other.as_bytes());
    loop {
        let (first, second) = match (one.first(), other.first()) {
            (Some(first), Some(second)) => (*first, *second),
            _ => return one.len().cmp(&other.len()),
        };
        if !(first.is_ascii_digit() && second.is_ascii_digit()) {
            if first != second {
                return first.cmp(&second);
            }
            (one, other) = (&one[1..], &other[1..]);
            continue;
        }
        let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let ((a, rest_of_one), (b, rest_of_other)) =
            (one.split_at(digits(one)), other.split_at(digits(other)));
        let significant = |number: &[u8]| {
            let zeros = number.iter().take_while(|byte| **byte == b'0').count();
            number[zeros..].to_vec()
        };
        let (a, b) = (significant(a), significant(b));
        match a.len().cmp(&b.len()).then_with(|| a.cmp(&b)) {
            Ordering::Equal => (one, other) = (rest_of_one, rest_of_other),
            different => return different,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(address: &str, private: u16, public: u16, protocol: &str) -> Port {
        Port {
            address: address.to_owned(),
            private_port: private,
            public_port: Some(public).filter(|public| *public > 0),
            protocol: protocol.to_owned(),
        }
    }

    #[test]
    fn ports_are_shown_as_ranges() {
        assert_eq!(
            shown(vec![
                port("0.0.0.0", 82, 82, "tcp"),
                port("0.0.0.0", 80, 80, "tcp"),
                port("::", 81, 81, "tcp"),
                port("0.0.0.0", 81, 81, "tcp"),
                port("::", 80, 8080, "tcp"),
                port("", 9, 0, "udp"),
                port("", 11, 0, "udp"),
            ]),
            "9/udp, 11/udp, 0.0.0.0:80-82->80-82/tcp, [::]:81->81/tcp, [::]:8080->80/tcp"
        );
        assert_eq!(shown(vec![]), "");
    }

    #[test]
    fn numbers_in_texts_count() {
        let mut lines = ["80/tcp -> a:10", "443/tcp", "80/tcp -> a:9", "8/tcp"];
        lines.sort_by(|one, other| natural(one, other));
        assert_eq!(lines, ["8/tcp", "80/tcp -> a:9", "80/tcp -> a:10", "443/tcp"]);
    }
}
