//! The arithmetic of a network's IPv4 addresses.

use std::net::Ipv4Addr;

pub(crate) fn network(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits() & mask(prefix))
}

/// The last address of a network.
pub(crate) fn broadcast(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits() | !mask(prefix))
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
    fn networks_and_link_addresses() {
        let address = Ipv4Addr::new(172, 17, 200, 3);
        assert_eq!(network(address, 16), Ipv4Addr::new(172, 17, 0, 0));
        assert_eq!(broadcast(address, 16), Ipv4Addr::new(172, 17, 255, 255));
        assert_eq!(mac(address), [2, 0x42, 172, 17, 200, 3]);
    }
}
