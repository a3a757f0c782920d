//! A network: what is recorded of it, and what a request may ask of a new one.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use bulkhead_network::{Bridge, Gateway, ParentDriver, PublishPolicy};
use bulkhead_types::{Id, Timestamp};
use serde::{Deserialize, Serialize};

use crate::network_options::BridgeOptions;
use crate::parent_links::{ParentLinks, ParentRequest};
use crate::subnet::{Address, Pool, Subnet};
use crate::{Class, EngineError};

/// The networks that are always there, by the words that Docker has for them.
pub(crate) const PREDEFINED: [&str; 4] = ["bridge", "host", "none", "default"];

/// A network: a bridge and veth pairs, or links on an interface of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub id: Id,
    pub name: String,
    pub created: Timestamp,
    /// No way out of the host.
    pub internal: bool,
    pub attachable: bool,
    /// Bytes of a packet.
    pub mtu: u32,
    pub ipv4: Option<Pool<Ipv4Addr>>,
    pub ipv6: Option<Pool<Ipv6Addr>>,
    /// With no meaning but for what was given and the name of interfaces, where there is a parent.
    pub bridge: BridgeOptions,
    /// `None` is a bridge of its own.
    #[serde(default)]
    pub parent: Option<ParentLinks>,
    pub labels: BTreeMap<String, String>,
    /// Of the address management; only repeated.
    #[serde(default)]
    pub ipam_options: BTreeMap<String, String>,
}

/// What a network is made of, in Docker's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkDriver {
    #[default]
    Bridge,
    Macvlan,
    Ipvlan,
}

impl NetworkDriver {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
        }
    }
}

impl Network {
    pub fn driver(&self) -> NetworkDriver {
        match &self.parent {
            None => NetworkDriver::Bridge,
            Some(ParentLinks { driver: ParentDriver::Macvlan(_), .. }) => NetworkDriver::Macvlan,
            Some(ParentLinks { driver: ParentDriver::Ipvlan(..), .. }) => NetworkDriver::Ipvlan,
        }
    }

    /// The name of the bridge's link: as Docker's, where people look for it.
    pub fn link_name(&self) -> String {
        match &self.bridge.link_name {
            Some(name) => name.clone(),
            None => format!("br-{}", self.id.short()),
        }
    }

    /// What the kernel is to hold of one that is a bridge, but for who reaches published ports.
    pub(crate) fn link(&self) -> Bridge {
        let ipv4 = self.ipv4.as_ref();
        let ipv6 = self.ipv6.as_ref();
        Bridge {
            name: self.link_name(),
            ipv4: ipv4.map(|pool| Gateway { address: pool.gateway, prefix: pool.subnet.prefix() }),
            ipv6: ipv6.map(|pool| Gateway { address: pool.gateway, prefix: pool.subnet.prefix() }),
            mtu: self.mtu,
            internal: self.internal,
            inter_container: self.bridge.inter_container,
            masquerade: self.bridge.masquerade,
            access: self.bridge.access.clone(),
            publish_policy: PublishPolicy::default(),
        }
    }
}

/// Finds a network by name, id or unambiguous start of an id, in this order; `known_by` tells both
/// of one.
pub(crate) fn find<N>(
    mut all: Vec<N>,
    text: &str,
    known_by: impl Fn(&N) -> (&str, Id),
) -> Result<N, EngineError> {
    let missing = || EngineError::not_found(format!("network {text} not found"));
    if text.is_empty() {
        return Err(missing());
    }
    let exact = [
        all.iter().position(|network| known_by(network).0 == text),
        all.iter().position(|network| known_by(network).1.to_string() == text),
    ];
    if let Some(place) = exact.into_iter().flatten().next() {
        return Ok(all.swap_remove(place));
    }
    all.retain(|network| known_by(network).1.to_string().starts_with(text));
    match all.len() {
        0 | 1 => all.pop().ok_or_else(missing),
        matches => Err(EngineError::invalid(format!(
            "network {text} is ambiguous ({matches} matches found on ID prefix)"
        ))),
    }
}

/// A request for a network.
#[derive(Debug, Clone, Default)]
pub struct CreateNetwork {
    pub name: String,
    pub internal: bool,
    pub attachable: bool,
    /// Docker's `EnableIPv4`, on unless it is said.
    pub ipv4: Option<bool>,
    /// Docker's `EnableIPv6`; see [`gets_ipv6`] for what is done where it is not said.
    pub ipv6: Option<bool>,
    pub pools: Vec<PoolRequest>,
    pub options: BridgeOptions,
    /// `None` asks for a bridge.
    pub parent: Option<ParentRequest>,
    pub labels: BTreeMap<String, String>,
    pub ipam_options: BTreeMap<String, String>,
}

/// One entry of `IPAM.Config`, as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolRequest {
    pub subnet: String,
    pub range: String,
    pub gateway: String,
    pub auxiliary: BTreeMap<String, String>,
}

impl PoolRequest {
    fn is_ipv6(&self) -> bool {
        [&self.subnet, &self.range, &self.gateway].iter().any(|text| text.contains(':'))
    }

    /// Reads the entry, in moby's words (daemon/network.go, `validateIpamConfig`).
    fn read<A: Address>(&self) -> Result<Pool<A>, String> {
        let subnet: Subnet<A> = self.subnet.parse()?;
        let within = |what: &str, text: &str| match text.parse::<A>() {
            Ok(address) if subnet.contains(address) => Ok(address),
            Ok(_) => Err(format!(
                "invalid {what} {text}: parent subnet {subnet} doesn't contain this address"
            )),
            Err(_) => Err(format!("invalid {what} {text}: it is no {} address", A::FAMILY)),
        };
        let mut pool = Pool { chosen: true, ..Pool::of(subnet) };
        if !self.gateway.is_empty() {
            pool.gateway = within("gateway", &self.gateway)?;
        }
        if !self.range.is_empty() {
            let text = &self.range;
            let range: Subnet<A> =
                text.parse().map_err(|why| format!("invalid ip-range {text}: {why}"))?;
            if range.prefix() < subnet.prefix() {
                return Err(format!(
                    "invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}"
                ));
            }
            if !subnet.overlaps(&range) {
                return Err(format!(
                    "invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range"
                ));
            }
            pool.range = Some(range);
        }
        for (name, text) in &self.auxiliary {
            let address = within("auxiliary address", text)?;
            pool.auxiliary.insert(name.clone(), address);
        }
        if A::BITS - subnet.prefix() < 2 {
            return Err(format!(
                "invalid subnet {subnet}: it has no room for a gateway and a container"
            ));
        }
        Ok(pool)
    }
}

/// What the user chose of both families.
#[derive(Debug, Default)]
pub(crate) struct ChosenPools {
    pub ipv4: Option<Pool<Ipv4Addr>>,
    pub ipv6: Option<Pool<Ipv6Addr>>,
}

/// Reads the pools of a request.
///
/// # Errors
/// Every entry that is wrong, in one message.
pub(crate) fn read_pools(requests: &[PoolRequest]) -> Result<ChosenPools, EngineError> {
    let mut chosen = ChosenPools::default();
    let mut faults = Vec::new();
    for request in requests {
        if *request == PoolRequest::default() {
            continue;
        }
        if request.subnet.is_empty() {
            return Err(EngineError::invalid(
                "invalid network config: an ip-range, a gateway and auxiliary addresses need a \
                 subnet: name one",
            ));
        }
        let outcome = match request.is_ipv6() {
            false => request.read().and_then(|pool| set(&mut chosen.ipv4, pool)),
            true => request.read().and_then(|pool| set(&mut chosen.ipv6, pool)),
        };
        faults.extend(outcome.err());
    }
    match faults.is_empty() {
        true => Ok(chosen),
        false => {
            Err(EngineError::invalid(format!("invalid network config:\n{}", faults.join("\n"))))
        }
    }
}

fn set<A: Address>(place: &mut Option<Pool<A>>, pool: Pool<A>) -> Result<(), String> {
    if place.is_some() {
        return Err(format!(
            "bridge networks have one {} subnet, and {} is another: name one",
            A::FAMILY,
            pool.subnet
        ));
    }
    *place = Some(pool);
    Ok(())
}

/// Refuses a name that would mean another network, or none.
pub(crate) fn check_name(name: &str) -> Result<(), EngineError> {
    if name.trim().is_empty() {
        return Err(EngineError::invalid("invalid name: name is empty"));
    }
    if PREDEFINED.contains(&name) {
        return Err(EngineError::new(
            Class::Denied,
            format!("operation is not permitted on predefined {name} network"),
        ));
    }
    // It stands in hosts files, answers of the resolver and terminals.
    if name.trim() != name || name.contains(char::is_control) || name.contains(['/', ':']) {
        return Err(EngineError::invalid(format!(
            "invalid name: {name:?}: a network's name has no slash, colon or control character, and no \
             space at its ends"
        )));
    }
    Ok(())
}

/// Whether a network gets IPv6 addresses. Where nothing is said of them it does, local ones, if the host
/// and its MTU can; but who names subnets has planned his addresses, and gets those.
pub(crate) fn gets_ipv6(
    said: Option<bool>,
    chosen: &ChosenPools,
    host: HostFamilies,
    mtu: u32,
) -> bool {
    match said {
        Some(said) => said,
        None if chosen.ipv6.is_some() => true,
        None => {
            chosen.ipv4.is_none()
                && host == HostFamilies::Both
                && mtu >= bulkhead_network::MIN_MTU_IPV6
        }
    }
}

/// Which families this host uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostFamilies {
    Ipv4,
    Both,
}

/// Where networks have their subnets from whose users name none (`default-address-pools`). Of a family
/// that none is of, it is what there is without any: Docker's subnets, or local ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubnetPools {
    ipv4: Vec<SubnetPool<Ipv4Addr>>,
    ipv6: Vec<SubnetPool<Ipv6Addr>>,
}

/// A block that is cut into subnets of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SubnetPool<A> {
    base: Subnet<A>,
    /// Bits of the prefix of a subnet.
    size: u8,
}

impl SubnetPools {
    /// Adds a block, such as `10.0.0.0/8` in subnets of 24.
    ///
    /// # Errors
    /// A sentence, where there is no such block, none of that size in it, or it overlaps another.
    pub fn add(&mut self, base: &str, size: u8) -> Result<(), String> {
        match base.contains(':') {
            true => SubnetPool::add(&mut self.ipv6, base, size),
            false => SubnetPool::add(&mut self.ipv4, base, size),
        }
    }

    /// Those that were added: the block, and the size of its subnets.
    pub fn given(&self) -> impl Iterator<Item = (String, u8)> {
        let ipv4 = self.ipv4.iter().map(|pool| (pool.base.to_string(), pool.size));
        ipv4.chain(self.ipv6.iter().map(|pool| (pool.base.to_string(), pool.size)))
    }

    pub(crate) fn ipv4(&self) -> Box<dyn Iterator<Item = Subnet<Ipv4Addr>> + '_> {
        match self.ipv4.is_empty() {
            true => Box::new(default_subnets()),
            false => Box::new(self.ipv4.iter().flat_map(SubnetPool::subnets)),
        }
    }

    /// `engine` chooses the local prefix where no pool is given.
    pub(crate) fn ipv6(&self, engine: Id) -> Box<dyn Iterator<Item = Subnet<Ipv6Addr>> + '_> {
        match self.ipv6.is_empty() {
            true => Box::new(default_local_subnets(engine)),
            false => Box::new(self.ipv6.iter().flat_map(SubnetPool::subnets)),
        }
    }
}

impl<A: Address> SubnetPool<A> {
    fn add(all: &mut Vec<Self>, base: &str, size: u8) -> Result<(), String> {
        let wrong = || format!("{base:?} is no block of addresses, such as 10.0.0.0/8");
        let (address, prefix) = base.split_once('/').ok_or_else(wrong)?;
        let (address, prefix): (A, u8) = match (address.parse(), prefix.parse()) {
            (Ok(address), Ok(prefix)) if prefix <= A::BITS => (address, prefix),
            _ => return Err(wrong()),
        };
        let base = Subnet::around(address, prefix);
        if size < prefix || size > A::BITS - 2 {
            return Err(format!(
                "there are no subnets of size {size} in {base}: the size is from {prefix} to {}",
                A::BITS - 2
            ));
        }
        if let Some(other) = all.iter().find(|other| other.base.overlaps(&base)) {
            return Err(format!("{base} overlaps {}", other.base));
        }
        all.push(Self { base, size });
        Ok(())
    }

    fn subnets(&self) -> impl Iterator<Item = Subnet<A>> {
        let Self { base, size } = *self;
        let last = 1_u128.checked_shl((size - base.prefix()).into()).map_or(u128::MAX, |it| it - 1);
        let step = u32::from(A::BITS - size);
        (0..=last).map(move |number| {
            Subnet::around(A::of_number(base.first().number() + (number << step)), size)
        })
    }
}

/// IPv4 subnets for networks whose user names none, in their order: Docker's.
pub(crate) fn default_subnets() -> impl Iterator<Item = Subnet<Ipv4Addr>> {
    let large = (17..32).map(|second| Subnet::around(Ipv4Addr::new(172, second, 0, 0), 16));
    let small = (0..16).map(|third| Subnet::around(Ipv4Addr::new(192, 168, third * 16, 0), 20));
    large.chain(small)
}

/// IPv6 subnets likewise: of a local prefix (RFC 4193) that is this engine's own.
pub(crate) fn default_local_subnets(engine: Id) -> impl Iterator<Item = Subnet<Ipv6Addr>> {
    let digits = engine.to_string();
    let global = u128::from_str_radix(&digits[..10], 16).unwrap_or_default();
    (0..=u128::from(u16::MAX)).map(move |subnet| {
        let bits = (0xfd << 120) | (global << 80) | (subnet << 64);
        Subnet::around(Ipv6Addr::from_bits(bits), 64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(subnet: &str, range: &str, gateway: &str) -> PoolRequest {
        let own = |text: &str| text.to_owned();
        PoolRequest {
            subnet: own(subnet),
            range: own(range),
            gateway: own(gateway),
            auxiliary: BTreeMap::new(),
        }
    }

    #[test]
    fn a_name_goes_before_an_id() {
        let ids = ["a", "b"].map(|digit| digit.repeat(64).parse::<Id>().unwrap());
        let all = [("web", ids[0]), ("b", ids[1]), (&*"a".repeat(64), ids[1])];
        let found = |text: &str| find(all.to_vec(), text, |one| *one).map(|one| one.1);
        assert_eq!(found("web").unwrap(), ids[0]);
        assert_eq!(found(&"a".repeat(64)).unwrap(), ids[1]);
        assert_eq!(found("aaa").unwrap(), ids[0]);
        for (text, words) in [("", "not found"), ("c", "not found"), ("bb", "ambiguous")] {
            assert!(found(text).unwrap_err().to_string().contains(words), "{text}");
        }
    }

    #[test]
    fn pools_are_read() {
        let mut first = request("172.28.0.0/16", "172.28.5.0/24", "172.28.5.254");
        first.auxiliary.insert("a".into(), "172.28.1.5".into());
        let read = read_pools(&[first, request("2001:389::/64", "", "")]).unwrap();
        let ipv4 = read.ipv4.unwrap();
        assert_eq!((ipv4.gateway, ipv4.chosen), ("172.28.5.254".parse().unwrap(), true));
        assert_eq!(ipv4.range.unwrap().to_string(), "172.28.5.0/24");
        assert_eq!(ipv4.auxiliary["a"], Ipv4Addr::new(172, 28, 1, 5));
        assert_eq!(read.ipv6.unwrap().gateway, "2001:389::1".parse::<Ipv6Addr>().unwrap());
        assert!(read_pools(&[PoolRequest::default()]).unwrap().ipv4.is_none());
    }

    #[test]
    fn wrong_pools_are_told_together() {
        for (subnet, range, gateway, why) in [
            ("172.28.0.1/16", "", "", "it should be 172.28.0.0/16"),
            ("172.28.0.0/16", "172.29.0.0/24", "", "doesn't contain ip-range"),
            ("172.28.0.0/16", "172.0.0.0/8", "", "bigger than its parent subnet"),
            ("172.28.0.0/16", "", "10.0.0.1", "doesn't contain this address"),
            ("172.28.0.0/16", "", "fe80::1", "invalid CIDR address"),
            ("172.28.0.0/31", "", "", "no room"),
            ("", "10.0.0.0/24", "", "need a subnet"),
        ] {
            let error = read_pools(&[request(subnet, range, gateway)]).unwrap_err();
            assert_eq!(error.class, Class::Invalid);
            assert!(error.message.contains(why), "{error}");
        }
        let two = [request("10.0.0.0/24", "", ""), request("10.1.0.0/24", "", "")];
        assert!(read_pools(&two).unwrap_err().message.contains("one IPv4 subnet"));
    }

    #[test]
    fn ipv6_is_there_unless_something_speaks_against_it() {
        use HostFamilies::{Both, Ipv4};
        let (ipv4, ipv6) = ("10.0.0.0/24", "fd00::/64");
        for (said, subnets, host, mtu, expected) in [
            (None, vec![], Both, 1500, true),
            (None, vec![], Ipv4, 1500, false),
            (None, vec![], Both, 1279, false),
            (None, vec![ipv4], Both, 1500, false),
            (None, vec![ipv6], Ipv4, 1500, true),
            (None, vec![ipv4, ipv6], Both, 1500, true),
            (Some(true), vec![ipv4], Ipv4, 1500, true),
            (Some(false), vec![], Both, 1500, false),
        ] {
            let requests: Vec<_> = subnets.iter().map(|subnet| request(subnet, "", "")).collect();
            let chosen = read_pools(&requests).unwrap();
            assert_eq!(gets_ipv6(said, &chosen, host, mtu), expected, "{said:?} {subnets:?} {mtu}");
        }
    }

    #[test]
    fn names_are_words_of_the_users() {
        for name in ["web", "test 01", "a", "net_1.x"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", " ", " a", "a\nb", "container:x", "a/b", "host", "default"] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn pools_are_cut_into_subnets() {
        let mut pools = SubnetPools::default();
        assert_eq!(pools.ipv4().count(), 31);
        pools.add("10.7.0.9/23", 24).unwrap();
        pools.add("10.9.0.0/30", 30).unwrap();
        let all: Vec<_> = pools.ipv4().map(|it| it.to_string()).collect();
        assert_eq!(all, ["10.7.0.0/24", "10.7.1.0/24", "10.9.0.0/30"]);
        let engine = "ab".repeat(32).parse().unwrap();
        assert_eq!(pools.ipv6(engine).next().unwrap().to_string(), "fdab:abab:abab::/64");
        pools.add("fd00::/8", 64).unwrap();
        assert_eq!(pools.ipv6(engine).nth(1).unwrap().to_string(), "fd00:0:0:1::/64");
        let given: Vec<_> = pools.given().collect();
        assert_eq!(given.len(), 3);
        assert_eq!(given[0], ("10.7.0.0/23".to_owned(), 24));
        for (base, size, why) in [
            ("10.0.0.0", 24, "no block"),
            ("10.0.0.0/33", 24, "no block"),
            ("x/8", 24, "no block"),
            ("10.0.0.0/16", 8, "no subnets of size 8"),
            ("10.0.0.0/16", 31, "no subnets of size 31"),
            ("10.7.0.0/16", 24, "overlaps 10.7.0.0/23"),
            ("fd00::/64", 64, "overlaps fd00::/8"),
        ] {
            let error = pools.add(base, size).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn default_subnets_do_not_overlap() {
        let all: Vec<_> = default_subnets().collect();
        assert_eq!(all.len(), 31);
        for (index, one) in all.iter().enumerate() {
            assert!(all[index + 1..].iter().all(|other| !one.overlaps(other)), "{one}");
        }
        let mut local = default_local_subnets("ab".repeat(32).parse().unwrap());
        assert_eq!(local.next().unwrap().to_string(), "fdab:abab:abab::/64");
        assert_eq!(local.next().unwrap().to_string(), "fdab:abab:abab:1::/64");
    }
}
