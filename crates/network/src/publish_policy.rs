//! Who reaches published ports.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Who reaches the ports that containers publish, besides this host and its containers. What another
/// table of the host's firewall drops is dropped all the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PublishPolicy {
    #[default]
    Everywhere,
    /// Who has an address in one of these; nobody, where there are none. No block is in another.
    Sources(Vec<AddressBlock>),
}

/// The addresses that begin with the first `prefix` bits of `first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressBlock {
    first: IpAddr,
    prefix: u8,
}

impl AddressBlock {
    pub(crate) fn first(&self) -> IpAddr {
        self.first
    }

    pub(crate) fn last(&self) -> IpAddr {
        match self.first {
            IpAddr::V4(first) => {
                let host = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                Ipv4Addr::from_bits(first.to_bits() | host).into()
            }
            IpAddr::V6(first) => {
                let host = u128::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                Ipv6Addr::from_bits(first.to_bits() | host).into()
            }
        }
    }

    /// What the first address would be without its last bits.
    fn start(&self) -> IpAddr {
        match self.first {
            IpAddr::V4(first) => {
                let host = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                Ipv4Addr::from_bits(first.to_bits() & !host).into()
            }
            IpAddr::V6(first) => {
                let host = u128::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                Ipv6Addr::from_bits(first.to_bits() & !host).into()
            }
        }
    }

    fn contains(&self, other: &Self) -> bool {
        self.first.is_ipv4() == other.first.is_ipv4()
            && (self.first..=self.last()).contains(&other.first)
            && self.prefix <= other.prefix
    }
}

impl FromStr for AddressBlock {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let wrong = || {
            format!("{text:?} is no block of addresses; write it as 192.0.2.0/24 or 2001:db8::/32")
        };
        let first: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits = if first.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(prefix) => {
                prefix.parse().ok().filter(|prefix| *prefix <= bits).ok_or_else(wrong)?
            }
        };
        let block = Self { first, prefix };
        let start = block.start();
        match start == first {
            true => Ok(block),
            false => Err(format!(
                "{text} begins in the middle of its block; write it as {start}/{prefix}"
            )),
        }
    }
}

impl fmt::Display for AddressBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl FromStr for PublishPolicy {
    type Err = String;

    /// Reads `everywhere`, `host`, or a list of blocks with commas between them.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "everywhere" => return Ok(Self::Everywhere),
            "host" => return Ok(Self::Sources(Vec::new())),
            _ => {}
        }
        let blocks = text.split(',').map(str::trim).map(str::parse);
        let mut blocks: Vec<AddressBlock> = blocks.collect::<Result<_, _>>().map_err(|why| {
            format!("{why}; or say everywhere, or host for this host and its containers alone")
        })?;
        blocks.sort();
        blocks.dedup();
        let all = blocks.clone();
        blocks.retain(|one| !all.iter().any(|other| other != one && other.contains(one)));
        Ok(Self::Sources(blocks))
    }
}

impl fmt::Display for PublishPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everywhere => f.write_str("everywhere"),
            Self::Sources(blocks) if blocks.is_empty() => f.write_str("host"),
            Self::Sources(blocks) => {
                let blocks: Vec<_> = blocks.iter().map(AddressBlock::to_string).collect();
                f.write_str(&blocks.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read() {
        for (text, shown) in [
            ("everywhere", "everywhere"),
            ("host", "host"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("192.0.2.7, 2001:db8::/32", "192.0.2.7/32,2001:db8::/32"),
            ("10.0.0.0/8,10.1.0.0/16,10.0.0.0/8,fd00::/8,fd00::1", "10.0.0.0/8,fd00::/8"),
            ("0.0.0.0/0,::/0", "0.0.0.0/0,::/0"),
        ] {
            assert_eq!(text.parse::<PublishPolicy>().unwrap().to_string(), shown);
        }
        for (text, words) in [
            ("", "no block of addresses"),
            ("docker", "say everywhere, or host"),
            ("10.0.0.0/33", "no block of addresses"),
            ("10.0.0.1/8", "write it as 10.0.0.0/8"),
            ("fd00::1/8", "write it as fd00::/8"),
            ("10.0.0.0/8,", "no block of addresses"),
        ] {
            let error = text.parse::<PublishPolicy>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_block_has_its_last_address() {
        for (text, last) in [
            ("192.0.2.0/24", "192.0.2.255"),
            ("192.0.2.7", "192.0.2.7"),
            ("fd00::/8", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("0.0.0.0/0", "255.255.255.255"),
        ] {
            let block: AddressBlock = text.parse().unwrap();
            assert_eq!(block.last(), last.parse::<IpAddr>().unwrap());
        }
    }
}
