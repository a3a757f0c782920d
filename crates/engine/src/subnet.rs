//! Subnets of either family, and the pools of addresses that networks have of them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::text::serde_by_text;

/// An address of one family, as a number.
pub trait Address: Copy + Ord + fmt::Debug + fmt::Display + FromStr {
    const BITS: u8;
    /// `IPv4`, `IPv6`
    const FAMILY: &'static str;

    fn number(self) -> u128;
    /// The address of a number of at most [`Self::BITS`] bits.
    fn of_number(number: u128) -> Self;
}

impl Address for Ipv4Addr {
    const BITS: u8 = 32;
    const FAMILY: &'static str = "IPv4";

    fn number(self) -> u128 {
        self.to_bits().into()
    }

    fn of_number(number: u128) -> Self {
        Self::from_bits(u32::try_from(number).unwrap_or(u32::MAX))
    }
}

impl Address for Ipv6Addr {
    const BITS: u8 = 128;
    const FAMILY: &'static str = "IPv6";

    fn number(self) -> u128 {
        self.to_bits()
    }

    fn of_number(number: u128) -> Self {
        Self::from_bits(number)
    }
}

/// A block of addresses (CIDR), which begins at its own first address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet<A> {
    first: A,
    prefix: u8,
}

impl<A: Address> Subnet<A> {
    /// The block of this size that an address is in; a longer prefix than the family has is its
    /// longest.
    pub fn around(address: A, prefix: u8) -> Self {
        let prefix = prefix.min(A::BITS);
        Self { first: A::of_number(address.number() & !host_bits::<A>(prefix)), prefix }
    }

    pub fn first(&self) -> A {
        self.first
    }

    pub fn last(&self) -> A {
        A::of_number(self.first.number() | host_bits::<A>(self.prefix))
    }

    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    pub fn contains(&self, address: A) -> bool {
        (self.first..=self.last()).contains(&address)
    }

    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }
}

fn host_bits<A: Address>(prefix: u8) -> u128 {
    let bits = u32::from(A::BITS - prefix);
    1_u128.checked_shl(bits).map_or(u128::MAX, |above| above - 1)
}

impl<A: Address> fmt::Display for Subnet<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

impl<A: Address> FromStr for Subnet<A> {
    type Err = String;

    /// Reads `10.0.0.0/8`. One whose address is not its first is told which block it is in.
    fn from_str(text: &str) -> Result<Self, String> {
        let unreadable = || format!("invalid CIDR address: {text}");
        let (address, prefix) = text.split_once('/').ok_or_else(unreadable)?;
        let address: A = address.parse().map_err(|_| unreadable())?;
        let prefix: u8 = prefix.parse().map_err(|_| unreadable())?;
        if prefix > A::BITS {
            return Err(unreadable());
        }
        let block = Self::around(address, prefix);
        if block.first != address {
            return Err(format!("invalid subnet {text}: it should be {block}"));
        }
        Ok(block)
    }
}

serde_by_text!(Subnet<Ipv4Addr>);
serde_by_text!(Subnet<Ipv6Addr>);

/// The addresses of a network, of one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(
    serialize = "A: Serialize, Subnet<A>: Serialize",
    deserialize = "A: Deserialize<'de>, Subnet<A>: Deserialize<'de>"
))]
pub struct Pool<A> {
    pub subnet: Subnet<A>,
    /// Of the bridge: the containers' default route.
    pub gateway: A,
    /// Where addresses are drawn from; others of the subnet are given to who asks for them.
    pub range: Option<Subnet<A>>,
    /// Addresses of other machines, by what they are called.
    #[serde(default)]
    pub auxiliary: BTreeMap<String, A>,
    /// Whether the user chose the subnet: only there may one ask for an address.
    pub chosen: bool,
}

impl<A: Address> Pool<A> {
    /// A whole subnet, whose first address is the gateway.
    pub fn of(subnet: Subnet<A>) -> Self {
        let gateway = A::of_number(subnet.first().number() + 1);
        Self { subnet, gateway, range: None, auxiliary: BTreeMap::new(), chosen: false }
    }

    /// Where the containers' default route leads: the bridge, unless an address of this name is another
    /// machine's that is to be it (moby: libnetwork/drivers/bridge, `DefaultGatewayV4AuxKey`).
    pub(crate) fn route(&self) -> A {
        self.auxiliary.get(&route_name::<A>()).copied().unwrap_or(self.gateway)
    }

    /// First and last address that may be drawn: neither the subnet's first, which is its own name,
    /// nor IPv4's last, which is everybody's.
    pub(crate) fn bounds(&self) -> (u128, u128) {
        let (subnet, range) = (self.subnet, self.range.unwrap_or(self.subnet));
        let last_of_subnet = subnet.last().number() - u128::from(A::BITS == 32);
        let first = range.first().number().max(subnet.first().number() + 1);
        (first, range.last().number().min(last_of_subnet))
    }
}

/// `DefaultGatewayIPv4`, `DefaultGatewayIPv6`
pub(crate) fn route_name<A: Address>() -> String {
    format!("DefaultGateway{}", A::FAMILY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_and_written() {
        for text in ["10.0.0.0/8", "192.168.16.0/20", "0.0.0.0/0", "10.1.2.3/32"] {
            assert_eq!(text.parse::<Subnet<Ipv4Addr>>().unwrap().to_string(), text);
        }
        for text in ["fd00::/64", "::/0", "2001:db8::1/128"] {
            assert_eq!(text.parse::<Subnet<Ipv6Addr>>().unwrap().to_string(), text);
        }
        for (wrong, why) in [
            ("10.0.0.0", "invalid CIDR"),
            ("10.0.0.0/33", "invalid CIDR"),
            ("x/8", "invalid CIDR"),
            ("10.0.0.1/8", "it should be 10.0.0.0/8"),
        ] {
            let error = wrong.parse::<Subnet<Ipv4Addr>>().unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn blocks_contain_and_overlap() {
        let block = |text: &str| text.parse::<Subnet<Ipv4Addr>>().unwrap();
        assert_eq!(block("10.1.0.0/16").last(), Ipv4Addr::new(10, 1, 255, 255));
        assert!(block("10.1.0.0/16").overlaps(&block("10.0.0.0/8")));
        assert!(block("10.0.0.0/8").overlaps(&block("10.1.0.0/16")));
        assert!(!block("10.1.0.0/16").overlaps(&block("10.2.0.0/16")));
        assert!(block("0.0.0.0/0").contains(Ipv4Addr::BROADCAST));
        assert!(!block("10.1.0.0/16").contains(Ipv4Addr::new(10, 2, 0, 0)));
        assert_eq!(Subnet::around(Ipv4Addr::new(10, 9, 8, 7), 12), block("10.0.0.0/12"));
    }

    #[test]
    fn addresses_are_drawn_from_the_range() {
        let mut pool: Pool<Ipv4Addr> = Pool::of("10.0.0.0/29".parse().unwrap());
        let bits = |last: u8| Ipv4Addr::new(10, 0, 0, last).number();
        assert_eq!(pool.gateway, Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(pool.bounds(), (bits(1), bits(6)));
        pool.range = Some("10.0.0.4/30".parse().unwrap());
        assert_eq!(pool.bounds(), (bits(4), bits(6)));
        let record = serde_json::to_string(&pool).unwrap();
        assert_eq!(serde_json::from_str::<Pool<Ipv4Addr>>(&record).unwrap(), pool);
        let whole: Pool<Ipv6Addr> = Pool::of("fd00::/64".parse().unwrap());
        assert_eq!(
            whole.bounds().1,
            "fd00::ffff:ffff:ffff:ffff".parse::<Ipv6Addr>().unwrap().number()
        );
    }
}
