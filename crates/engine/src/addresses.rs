//! The arithmetic of a network's IPv4 addresses.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// The lowest address of `gateway`/`prefix`'s network that is neither the gateway's nor taken.
pub(crate) fn free_address(
    gateway: Ipv4Addr,
    prefix: u8,
    taken: impl Iterator<Item = Ipv4Addr>,
) -> Option<Ipv4Addr> {
    let network = network(gateway, prefix).to_bits();
    let last = network | !mask(prefix);
    let taken: BTreeSet<Ipv4Addr> = taken.chain([gateway]).collect();
    // The first address is the network's, the last the broadcast's.
    (network + 1..last).map(Ipv4Addr::from_bits).find(|address| !taken.contains(address))
}

pub(crate) fn network(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits() & mask(prefix))
}

/// The link address that goes with an address: locally administered, the same for the same
/// address, so that neighbours' caches stay true when it is leased again (as Docker's were).
pub(crate) fn mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_avoid_network_gateway_and_broadcast() {
        let gateway = Ipv4Addr::new(10, 0, 0, 1);
        let address = |d| Ipv4Addr::new(10, 0, 0, d);
        assert_eq!(free_address(gateway, 16, std::iter::empty()), Some(address(2)));
        let taken = [address(2), address(4)];
        assert_eq!(free_address(gateway, 24, taken.into_iter()), Some(address(3)));
        let all = [address(2)];
        assert_eq!(free_address(gateway, 30, all.into_iter()), None);
        assert_eq!(network(Ipv4Addr::new(172, 17, 200, 3), 16), Ipv4Addr::new(172, 17, 0, 0));
        assert_eq!(mac(address(2)), [2, 0x42, 10, 0, 0, 2]);
    }
}
